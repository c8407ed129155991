"""Histories kept by other means, as versions: folders one after another, and what a DVC repository tracks.

A history is a sequence of steps, oldest first; each becomes a child of the one before, and one that changes nothing
becomes none. A version remembers its step, so a history that was taken is gone on with, not taken again. Only what the
history itself keeps is read; nothing of it is changed.
"""

import configparser
import hashlib
import json
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib import import_module
from typing import Any, Final

from msgspec import Struct

from dataset_store.core.paths import to_key
from dataset_store.dataset.dataset import Dataset
from dataset_store.errors import (
    CorruptObject,
    DatasetNotFound,
    DriverMissing,
    InvalidRequest,
    PathNotFound,
    StoreNotFound,
)

__all__ = ["Step", "dvc_history", "folder_history", "import_history", "steps_taken"]

_SOURCE: Final = "imported_from"
"""The metadata by which a version remembers its step."""

_PIECE: Final = 1 << 20
_RECORD: Final = "%H%x00%D%x00%s"


class Step(Struct, frozen=True):
    """One version of a history: what tells it from others, the folder that holds it while it is taken, and labels."""

    key: str
    folder: str
    tags: tuple[str, ...]
    description: str


def import_history(
    steps: Iterator[Step], project: str, name: str, told: Callable[[Dataset, Step], object] = lambda _made, _step: None
) -> list[str]:
    """Make a version of each step that changes something; their ids, oldest first.

    Args:
        steps: The history, oldest first; a step's folder is read before the next step is asked for.
        project: The project of the dataset.
        name: Its name; if it has versions already, the history goes on from the highest.
        told: Called with each version that was made, and its step.

    Raises:
        PathNotFound, FileChanged, AccessDenied, UnsupportedFileType: A folder cannot be read; what was made stays.
        StorageFailed: The store refused; what was made stays, and repeating goes on from there.
    """
    made: list[str] = []
    parent = _highest(project, name)
    for step in steps:
        draft = Dataset.create(name, project, step.tags, [parent] if parent else None, description=step.description)
        try:
            changed = any(draft.sync_folder(step.folder))
            if changed or parent is None:
                draft.set_metadata(step.key, _SOURCE)
                draft.finalize(auto_upload=True)
        finally:
            if not draft.is_final():
                draft.discard()
        if changed or parent is None:
            parent = draft.id
            made.append(draft.id)
            told(draft, step)
    return made


def steps_taken(project: str, name: str) -> set[str]:
    """The keys of the steps that versions of a dataset were made of."""
    try:
        rows = Dataset.list_datasets(project, f"^{re.escape(name)}$", recursive_project_search=False)
    except StoreNotFound:
        return set()
    found = (Dataset.get(str(row["id"])).get_metadata(_SOURCE) for row in rows)
    return {key for key in found if isinstance(key, str)}


def _after(taken: Container[str], keys: Sequence[str]) -> int:
    """The number of steps up to the last that was taken: those between may have changed nothing."""
    return max((at + 1 for at, key in enumerate(keys) if key in taken), default=0)


def _highest(project: str, name: str) -> str | None:
    """The version of a dataset that `get` finds; None where there is none, or no store yet."""
    try:
        return Dataset.get(dataset_project=project, dataset_name=name).id
    except (DatasetNotFound, StoreNotFound):
        return None


def folder_history(folders: Sequence[str], taken: Container[str] = ()) -> Iterator[Step]:
    """Folders one after another, oldest first; each gives its name as a tag. Those up to the last of `taken` are not.

    Raises:
        PathNotFound: One is not there; raised before any is taken.
    """
    for folder in folders:
        if not os.path.isdir(folder):
            raise PathNotFound(f"There is no folder {folder!r}.", "Give existing folders, the oldest first.")
    paths = [os.path.abspath(folder) for folder in folders]
    keys = [f"folder {path}" for path in paths]
    first = _after(taken, keys)
    return (
        Step(key, path, (os.path.basename(path),), f"Taken from {path}")
        for key, path in zip(keys[first:], paths[first:], strict=True)
    )


# --- DVC -------------------------------------------------------------------------------------------------------------


def dvc_history(repository: str, target: str, taken: Container[str] = ()) -> Iterator[Step]:
    """The history of one file or folder that a DVC repository tracks, from its git history and its cache.

    Git's tags on a commit become tags, and its subject the description.

    Args:
        repository: The repository's folder.
        target: What is tracked: the path of its `.dvc` file, with or without that ending, in the repository.
        taken: Keys of steps; those up to the last of them are not taken again.

    Raises:
        PathNotFound: There is no such repository or target, or its cache lacks an object: fetch it with DVC first.
        CorruptObject: An object of the cache is not what its name says.
        DriverMissing: git, or the package that reads YAML, is not there.
        InvalidRequest: A `.dvc` file says what is not understood.
    """
    root = os.path.abspath(repository)
    tracked = target if target.endswith(".dvc") else f"{target.rstrip('/')}.dvc"
    if not os.path.isdir(os.path.join(root, ".dvc")):
        raise PathNotFound(f"There is no DVC repository at {root}.", "Give the folder that holds `.dvc`.")
    commits = _commits(root, tracked)
    if not commits:
        raise PathNotFound(f"No commit of {root} has {tracked}.", "Give the path of what `dvc add` tracked.")
    first = _after(taken, [_dvc_key(commit, tracked) for commit, _, _ in commits])
    return _dvc_steps(root, tracked, commits[first:])


def _dvc_steps(root: str, tracked: str, commits: Sequence[tuple[str, tuple[str, ...], str]]) -> Iterator[Step]:
    with _work_folder(root) as folder:
        work = _Work(folder, _caches(root))
        for commit, tags, subject in commits:
            text = _git(root, "show", f"{commit}:./{tracked}")
            work.become(_output(text, f"{tracked} of {commit[:12]}"))
            yield Step(_dvc_key(commit, tracked), folder, tags, f"{subject} ({commit[:12]})")


def _dvc_key(commit: str, tracked: str) -> str:
    return f"dvc {commit} {tracked}"


def _commits(root: str, tracked: str) -> list[tuple[str, tuple[str, ...], str]]:
    """Commits that changed the file and have it, oldest first: hash, tags, subject."""
    shown = ("--reverse", "--decorate-refs=refs/tags/*", f"--format={_RECORD}")
    lines = _git(root, "log", *shown, "--", tracked)
    found = []
    for line in lines.splitlines():
        commit, refs, subject = line.split("\0")
        if not _git(root, "ls-tree", "--name-only", commit, "--", tracked):
            continue  # it was removed
        tags = tuple(ref.strip().removeprefix("tag: ") for ref in refs.split(",") if ref.strip().startswith("tag: "))
        found.append((commit, tags, subject))
    return found


def _git(root: str, *words: str) -> str:
    try:
        done = subprocess.run(["git", "-C", root, *words], capture_output=True, check=False)  # noqa: S603, S607
    except FileNotFoundError as error:
        raise DriverMissing("git is not installed.", "Install it, then repeat.") from error
    if done.returncode:
        said = done.stderr.decode("utf-8", "replace").strip()
        raise PathNotFound(f"git cannot read {root}: {said}.", "Check that it is a git repository.")
    return done.stdout.decode("utf-8", "surrogateescape")


class _Output(Struct, frozen=True):
    """What a `.dvc` file names: a hash, whether its hash is that of the plain bytes, and the file's name."""

    md5: str
    plain: bool
    name: str


def _output(text: str, what: str) -> _Output:
    try:
        outs = _yaml().safe_load(text)["outs"]
        (out,) = outs
        md5, name = str(out["md5"]), str(out["path"])
    except (KeyError, TypeError, ValueError) as error:
        raise InvalidRequest(f"{what} does not name one output by its md5.", "Only such can be taken over.") from error
    # Before version 3 the hash of a text file was that of its lines with other ends.
    return _Output(md5, out.get("hash") == "md5", name)


def _yaml() -> Any:
    try:
        return import_module("yaml")
    except ImportError as error:
        raise DriverMissing(
            "Reading DVC's files needs PyYAML.", "Install it with `pip install 'dataset-store[dvc]'`."
        ) from error


def _caches(root: str) -> list[str]:
    """Where DVC keeps objects: the layout of version 3, then that of version 2."""
    config = configparser.ConfigParser()
    config.read([os.path.join(root, ".dvc", "config"), os.path.join(root, ".dvc", "config.local")])
    named = config.get("cache", "dir", fallback=None)
    cache = os.path.join(root, ".dvc", named) if named else os.path.join(root, ".dvc", "cache")
    return [os.path.join(cache, "files", "md5"), cache]


@contextmanager
def _work_folder(root: str) -> Iterator[str]:
    """A folder on the repository's own disk where that can be written, so that objects can be linked."""
    parent = os.path.join(root, ".dvc", "tmp")
    try:
        os.makedirs(parent, exist_ok=True)
        folder = tempfile.mkdtemp(prefix="dataset-store-", dir=parent)
    except OSError:
        folder = tempfile.mkdtemp(prefix="dataset-store-")
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


class _Work:
    """A folder that becomes one output after another; what two have in common stays, and need not be read again."""

    def __init__(self, folder: str, caches: Sequence[str]) -> None:
        self._folder = folder
        self._caches = caches
        self._held: dict[str, str] = {}

    def become(self, output: _Output) -> None:
        wanted = self._files(output)
        for path in [path for path, md5 in self._held.items() if wanted.get(path) != md5]:
            os.unlink(os.path.join(self._folder, path))
            del self._held[path]
        for path, md5 in wanted.items():
            if path not in self._held:
                self._place(path, md5, checked=output.plain)
                self._held[path] = md5
        _remove_empty(self._folder)

    def _files(self, output: _Output) -> Mapping[str, str]:
        """The hash of each file of an output, by path."""
        if not output.md5.endswith(".dir"):
            return {_inside(output.name): output.md5}
        listing = self._object(output.md5)
        try:
            with open(listing, "rb") as file:
                found = {str(row["relpath"]): str(row["md5"]) for row in json.load(file)}
        except (ValueError, KeyError, TypeError) as error:
            raise CorruptObject(f"{listing} is no listing of DVC's.", "Fetch it again with DVC.") from error
        return {_inside(path): md5 for path, md5 in found.items()}

    def _place(self, path: str, md5: str, *, checked: bool) -> None:
        source = self._object(md5)
        if checked and _md5(source) != md5:
            raise CorruptObject(f"{source} is not what its name says.", "Fetch it again with DVC; nothing was taken.")
        place = os.path.join(self._folder, path)
        os.makedirs(os.path.dirname(place), exist_ok=True)
        try:
            os.link(source, place)
        except OSError:
            shutil.copy2(source, place)

    def _object(self, md5: str) -> str:
        if not re.fullmatch(r"[0-9a-f]{32}(\.dir)?", md5):
            raise InvalidRequest(f"{md5!r} is no md5.", "Only outputs that DVC caches can be taken over.")
        for cache in self._caches:
            path = os.path.join(cache, md5[:2], md5[2:])
            if os.path.isfile(path):
                return path
        raise PathNotFound(
            f"DVC's cache has no object {md5}.", "Run `dvc fetch --all-commits` in the repository, then repeat."
        )


def _inside(path: str) -> str:
    """The path, where it leads nowhere else."""
    to_key(path)
    return path


def _md5(path: str) -> str:
    whole = hashlib.md5(usedforsecurity=False)
    with open(path, "rb") as file:
        while piece := file.read(_PIECE):
            whole.update(piece)
    return whole.hexdigest()


def _remove_empty(folder: str) -> None:
    for directory, _, _ in os.walk(folder, topdown=False):
        if directory != folder and not os.listdir(directory):
            os.rmdir(directory)
