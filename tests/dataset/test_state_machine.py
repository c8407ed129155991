"""Everything that users do, in any order, against a model in a page of dictionaries."""

import fnmatch
import os
import random
import shutil
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import pytest
from blake3 import blake3
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule, run_state_machine_as_test

from dataset_store import Dataset
from dataset_store.core.version_numbers import increment, rank
from dataset_store.dataset import workspace as workspaces
from dataset_store.errors import DatasetNotFound, FileChanged, PendingUploads, VersionExists, VersionIsFinal

LONG = 32_768
"""Bytes; longer files are read when they are packed."""

SCRATCH = "/dev/shm" if os.path.isdir("/dev/shm") else None


# --- the model -----------------------------------------------------------------------------------------------------


class Entry(NamedTuple):
    """One path of a version. `content` is a link's text too; as drawn, a file's is a name of `CONTENTS`."""

    kind: str
    executable: bool
    content: bytes | str
    mtime: int = 0
    origin: str = ""

    def made(self, seed):
        """With real bytes; the contents called new are of this seed alone."""
        if self.kind != "file":
            return self
        content = CONTENTS.get(self.content)
        if content is None:
            content = random.Random(seed).randbytes(100 if self.content == "new" else 90_000)
        return self._replace(content=content)

    @property
    def identity(self):
        return self.kind, self.executable, len(self.content), blake3(self.content).hexdigest()


class Origin(NamedTuple):
    """The file that an entry of a draft was added from, and what it was then."""

    path: Path
    content: bytes
    mtime: int

    @property
    def is_as_it_was(self):
        return self.path.is_file() and self.path.read_bytes() == self.content and not self.is_touched

    @property
    def is_touched(self):
        """Whether it was written again; nobody else knows that its content is the same."""
        return len(self.content) > LONG and self.path.stat().st_mtime_ns != self.mtime


@dataclass
class Version:
    """A draft, and after finalize a version."""

    id: str
    name: str
    number: str | None
    parents: list[str]
    merged: dict[str, Entry]
    tags: set[str]
    tree: dict[str, Entry] = field(default_factory=dict)
    slot: int | None = None
    sources: dict[str, "Origin"] = field(default_factory=dict)
    waits: bool = False


def above(path):
    """The directories above a path."""
    parts = path.split("/")
    return {"/".join(parts[:depth]) for depth in range(1, len(parts))}


def meant(path, pattern):
    """Whether a recursive wildcard means a path: it, a directory above it, or its name."""
    wanted = (pattern or "*").strip("/")
    return any(fnmatch.fnmatchcase(each, wanted) for each in {path, path.rpartition("/")[2], *above(path)})


def merge(one, other, bases):
    """Two trees as docs/format.md §10 folds them."""

    def kept(mine, theirs):
        was = [{base[path].identity for base in bases if path in base} for path in mine]
        return {
            p: e for (p, e), before in zip(mine.items(), was, strict=True) if p in theirs or e.identity not in before
        }

    left, right = kept(one, other), kept(other, one)
    left = {p: e for p, e in left.items() if not any(p in above(o) or o in above(p) for o in right)}
    same = {p: one[p] for p in right if p in one and one[p].identity == right[p].identity}
    return left | right | same


class Model:
    """What a store holds, as dictionaries."""

    def __init__(self):
        self.versions: dict[str, Version] = {}

    def final(self):
        return [version for version in self.versions.values() if version.slot is not None]

    def drafts(self):
        return [version for version in self.versions.values() if version.slot is None]

    def series(self, name):
        return [version for version in self.final() if version.name == name]

    def lineage(self, ids):
        found, waiting = {}, list(ids)
        while waiting:
            at = waiting.pop()
            if at not in found:
                found[at] = self.versions[at].parents
                waiting += found[at]
        return found

    def merged(self, parents):
        tree = dict(self.versions[parents[0]].tree) if parents else {}
        for at, parent in enumerate(parents[1:], start=1):
            common = self.lineage(parents[:at]).keys() & self.lineage([parent]).keys()
            lower = {below for each in common for below in self.lineage(self.versions[each].parents)}
            tree = merge(tree, self.versions[parent].tree, [self.versions[base].tree for base in common - lower])
        return tree

    def highest(self, versions):
        return max(versions, key=lambda version: (rank(version.number), version.slot))

    def next_number(self, name):
        taken = self.series(name)
        number = increment(self.highest(taken).number) if taken else "1.0.0"
        while number in {version.number for version in taken}:
            number = increment(number)
        return number

    def is_taken(self, name, number):
        return number is not None and number in {version.number for version in self.series(name)}

    def put(self, draft, rows):
        """Add rows, each over whatever is in its way; how many were not there."""
        rows = {p: e for p, e in rows.items() if e.kind != "directory" or not any(p in above(o) for o in draft.tree)}
        added = rows.keys() - draft.tree.keys()
        self.drop(
            draft, [p for p in draft.tree if p not in rows and any(p in above(a) or a in above(p) for a in added)]
        )
        base = self.versions[draft.parents[0]].tree if draft.parents else {}
        for path, entry in rows.items():
            there = draft.tree.get(path)
            if there is None or there.identity != entry.identity:
                own = entry._replace(origin=draft.id)
                draft.tree[path] = base[path] if path in base and base[path].identity == own.identity else own
                draft.waits |= draft.tree[path] is own and entry.kind != "directory" and len(entry.content) > 0
        return len(added)

    def drop(self, draft, paths):
        for path in paths:
            del draft.tree[path]
        return len(paths)

    def sync(self, draft, rows, below):
        """Make a directory of a draft hold exactly `rows`; how many were removed, added and modified."""
        inside = {p for p in draft.tree if not below or p == below or below in above(p)}
        blocking = above(below + "/x") & draft.tree.keys() if below and rows else set()
        removed = self.drop(draft, (inside | blocking) - rows.keys())
        modified = sum(p in draft.tree and draft.tree[p].identity != e.identity for p, e in rows.items())
        return removed, self.put(draft, rows), modified

    def finalize(self, draft):
        draft.number = draft.number or self.next_number(draft.name)
        draft.slot = max((version.slot for version in self.final()), default=-1) + 1


def files(tree, paths):
    return sorted(path for path in paths if tree[path].kind != "directory")


def in_tree_order(tree):
    return sorted(tree, key=lambda path: os.fsencode(path).replace(b"/", b"\0"))


# --- pools ---------------------------------------------------------------------------------------------------------

_random = random.Random(7)
_LONG = _random.randbytes(300_000)
CONTENTS = {
    "nothing": b"",
    "a": b"a",
    "b": b"b",
    "lines": b"text\n" * 600,
    "middling": _random.randbytes(40_000),
    "zeros": bytes(150_000),
    "long": _LONG,
    "inserted": _LONG[:90_000] + b"put in between" + _LONG[90_000:],
    "swapped": _LONG[150_000:] + _LONG[:150_000],
    "headed": _random.randbytes(50_000) + _LONG[:200_000],
}
NAMES = ["a", "d", "d/a", "d/e", "d/e/c.txt", "x", "x/y/z", "b.txt", "[a]*", os.fsdecode(b"x/\xff\xfe")]
DIRECTORIES = [None, None, None, "d", "d/e", "x/y", "a/b"]
PATTERNS = ["*.txt", "d", "d/", "d/*", "a", "nothing", "[[]a]*", None]
NUMBERS = [None, None, None, "0.9", "1.0.0", "2.0", "1.10", "nightly"]
TAGS = ["t", "u", "ü"]

_file = st.builds(Entry, st.just("file"), st.booleans(), st.sampled_from([*CONTENTS, "new", "new", "new and long"]))
_link = st.builds(Entry, st.just("symlink"), st.just(False), st.sampled_from([b"a", b"d/e", b"nowhere"]))
_empty = st.just(Entry("directory", False, b""))
_picks = st.sampled_from([0, 0, 0, 1, 1, 2, 3, 5, 8])
"""How far back from the newest."""

_parents = st.sampled_from([0, 1, 1, 2, 2, 3]).flatmap(lambda count: st.lists(_picks, min_size=count, max_size=count))


@st.composite
def folders(draw):
    """What a folder holds; of two paths of which one is above the other the first drawn stays."""
    drawn = draw(st.dictionaries(st.sampled_from(NAMES), st.one_of(_file, _file, _file, _link, _empty), max_size=6))
    kept = {}
    for path, entry in drawn.items():
        if not any(path in above(other) or other in above(path) for other in kept):
            kept[path] = entry
    return kept


def _version(picks):
    return st.fixed_dictionaries(
        {
            "picks": picks,
            "tree": folders(),
            "in_place": st.booleans(),
            "whole": st.booleans(),
            "number": st.sampled_from(NUMBERS),
        }
    )


# The last of the second kind has two bases: both sides come from the same two versions.
_histories = st.one_of(
    st.lists(_version(_parents), max_size=6),
    st.tuples(*(_version(st.just(picks)) for picks in ([], [], [0, 1], [2, 1], [1, 0]))),
)


def make_folder(folder, tree):
    """Make a folder hold `tree`, touching only what differs; the tree with its times."""
    folder.mkdir(exist_ok=True)
    there = read_folder(folder)
    for path, entry in there.items():
        if path not in tree or not tree[path].kind == entry.kind == "file":
            _remove(folder, path)
    for path, entry in tree.items():
        if path not in there or entry.kind != "file" or there[path].identity != entry.identity:
            _make(folder / path, entry)
    return {p: e._replace(mtime=(folder / p).lstat().st_mtime_ns) for p, e in tree.items()}


def _make(path, entry):
    path.parent.mkdir(parents=True, exist_ok=True)
    if entry.kind == "file":
        path.write_bytes(entry.content)
        path.chmod(0o755 if entry.executable else 0o644)
    elif entry.kind == "symlink":
        path.symlink_to(os.fsdecode(entry.content))
    else:
        path.mkdir()


def _remove(folder, path):
    at = folder / path
    at.rmdir() if at.is_dir() and not at.is_symlink() else at.unlink()
    for parent in at.parents:
        if parent == folder or any(parent.iterdir()):
            break
        parent.rmdir()


def read_folder(folder):
    """Every file, link and empty directory of a folder, with its time."""
    found = {}
    for root, directories, names in os.walk(folder):
        for name in [*names, *directories]:
            path = Path(root, name)
            if path.is_symlink():
                found[str(path.relative_to(folder))] = Entry("symlink", False, os.fsencode(os.readlink(path)))
            elif path.is_file():
                state = path.stat()
                executable = bool(state.st_mode & 0o100)
                entry = Entry("file", executable, path.read_bytes(), state.st_mtime_ns)
                found[str(path.relative_to(folder))] = entry
            elif not any(path.iterdir()):
                found[str(path.relative_to(folder))] = Entry("directory", False, b"")
    return found


# --- the machine ---------------------------------------------------------------------------------------------------


class DatasetMachine(RuleBasedStateMachine):
    """One store, two machines, and whatever users do."""

    @initialize(history=_histories)
    def begin(self, history):
        self.home = Path(tempfile.mkdtemp(prefix="dataset-", dir=SCRATCH))
        self.variables = dict(os.environ)
        self.model = Model()
        self.handles = {}
        self.folders = 0
        self.contents = 0
        self.be_machine("1")
        for each in history:
            self.make_a_version(**each)

    def be_machine(self, name):
        os.environ["DATASET_STORE_URL"] = str(self.home / "store")
        os.environ["DATASET_STORE_CACHE"] = str(self.home / f"cache{name}")
        os.environ["DATASET_STORE_DATA"] = str(self.home / f"own{name}")

    def teardown(self):
        if not hasattr(self, "home"):
            return
        try:
            self.read_everything_on_another_machine()
        finally:
            os.environ.clear()
            os.environ.update(self.variables)
            workspaces._open.clear()
            shutil.rmtree(self.home)

    # What the rules are about

    def draft(self, pick, *, fresh):
        drafts = self.model.drafts()
        chosen = drafts[-1 - pick % len(drafts)]
        if fresh:
            return chosen, Dataset.get(chosen.id)
        return chosen, self.handles[chosen.id]

    def version(self, pick):
        final = self.model.final()
        return final[-1 - pick % len(final)]

    def folder(self, tree, *, in_place):
        self.folders += not in_place
        folder = self.home / ("work" if in_place else f"in{self.folders}")
        return folder, make_folder(folder, {path: self.made(entry) for path, entry in tree.items()})

    def made(self, entry):
        self.contents += 1
        return entry.made(self.contents)

    def note_sources(self, draft, folder, rows, below):
        for path, entry in rows.items():
            if entry.kind == "file" and entry.content:
                there = folder / (path[len(below) + 1 :] if below else path)
                draft.sources[path] = Origin(there, entry.content, entry.mtime)

    # Rules

    @rule(
        picks=_parents,
        name=st.sampled_from([None, "one", "two"]),
        number=st.sampled_from(NUMBERS),
        tags=st.sets(st.sampled_from(TAGS), max_size=2),
    )
    def create(self, picks, name, number, tags):
        parents = [self.version(pick).id for pick in picks] if self.model.final() else []
        expected = name or (self.model.versions[parents[-1]].name if parents else "one")
        wanted = {
            "dataset_project": "p",
            "dataset_name": name if parents else expected,
            "dataset_version": number,
            "dataset_tags": sorted(tags),
            "parent_datasets": parents,
        }
        if self.model.is_taken(expected, number):
            with pytest.raises(VersionExists):
                Dataset.create(**wanted)
            return
        made = Dataset.create(**wanted)
        merged = self.model.merged(parents)
        self.model.versions[made.id] = Version(made.id, expected, number, parents, merged, tags, dict(merged))
        self.handles[made.id] = made
        assert made.name == expected
        assert made.version == (number or self.model.next_number(expected))
        self.check(self.model.versions[made.id], made)

    @precondition(lambda self: self.model.drafts())
    @rule(
        pick=_picks,
        fresh=st.booleans(),
        tree=folders(),
        in_place=st.booleans(),
        below=st.sampled_from(DIRECTORIES),
        pattern=st.sampled_from([None, None, "*.txt", ["a", "d"]]),
    )
    def add_folder(self, pick, fresh, tree, in_place, below, pattern):
        draft, handle = self.draft(pick, fresh=fresh)
        folder, rows = self.folder(tree, in_place=in_place)
        patterns = [pattern] if isinstance(pattern, str) else pattern
        names = {p: p.rpartition("/")[2] for p in rows}  # what a pattern of one name is compared with
        wanted = ["*"] if patterns is None else patterns
        chosen = {p: e for p, e in rows.items() if any(fnmatch.fnmatchcase(names[p], each) for each in wanted)}
        chosen = {f"{below}/{p}" if below else p: e for p, e in chosen.items()}
        self.note_sources(draft, folder, chosen, below)
        assert handle.add_files(folder, wildcard=pattern, dataset_path=below) == self.model.put(draft, chosen)
        self.check(draft, handle)

    @precondition(lambda self: self.model.drafts())
    @rule(
        pick=_picks, fresh=st.booleans(), name=st.sampled_from(NAMES), entry=_file, below=st.sampled_from(DIRECTORIES),
        based=st.booleans(),
    )  # fmt: skip
    def add_one_file(self, pick, fresh, name, entry, below, based):
        draft, handle = self.draft(pick, fresh=fresh)
        folder, rows = self.folder({name: entry}, in_place=False)
        inside = name if based else name.rpartition("/")[2]
        path = f"{below}/{inside}" if below else inside
        draft.sources[path] = Origin(folder / name, rows[name].content, rows[name].mtime)
        base = str(folder) if based else None
        added = handle.add_files(folder / name, dataset_path=below, local_base_folder=base)
        assert added == self.model.put(draft, {path: rows[name]})
        self.check(draft, handle)

    @precondition(lambda self: self.model.drafts())
    @rule(pick=_picks, fresh=st.booleans(), pattern=st.sampled_from(PATTERNS))
    def remove(self, pick, fresh, pattern):
        draft, handle = self.draft(pick, fresh=fresh)
        gone = [path for path in draft.tree if meant(path, pattern)]
        assert handle.remove_files(pattern) == self.model.drop(draft, gone)
        self.check(draft, handle)

    @precondition(lambda self: self.model.drafts())
    @rule(pick=_picks, fresh=st.booleans(), tree=folders(), in_place=st.booleans(), below=st.sampled_from(DIRECTORIES))
    def sync(self, pick, fresh, tree, in_place, below):
        draft, handle = self.draft(pick, fresh=fresh)
        folder, rows = self.folder(tree, in_place=in_place)
        rows = {f"{below}/{p}" if below else p: e for p, e in rows.items()}
        before, there = dict(draft.sources), dict(draft.tree)
        self.note_sources(draft, folder, rows, below)
        removed, added, modified = handle.sync_folder(folder, dataset_path=below)
        expected = self.model.sync(draft, rows, below)
        # A long file that waited to be read, and has another time now, counts as modified whatever is in it.
        same = [p for p, e in rows.items() if p in there and p in before and there[p].identity == e.identity]
        touched = sum(len(rows[p].content) > LONG and rows[p].mtime != before[p].mtime for p in same)
        assert (removed, added) == expected[:2]
        assert expected[2] <= modified <= expected[2] + touched
        self.check(draft, handle)

    @precondition(lambda self: self.model.drafts())
    @rule(pick=_picks, fresh=st.booleans())
    def upload(self, pick, fresh):
        draft, handle = self.draft(pick, fresh=fresh)
        self.sent(draft, handle.upload)
        self.check(draft, handle)

    def sent(self, draft, act):
        """Do what uploads; False where it was right to say that a source has changed."""
        try:
            act()
        except FileChanged:
            assert not all(source.is_as_it_was for source in draft.sources.values())
            return False
        draft.waits = False
        return True

    @precondition(lambda self: self.model.drafts())
    @rule(pick=_picks, fresh=st.booleans(), auto=st.booleans())
    def finalize(self, pick, fresh, auto):
        draft, handle = self.draft(pick, fresh=fresh)
        if handle.is_dirty() and not auto:
            assert draft.waits
            with pytest.raises(PendingUploads):
                handle.finalize()
            return
        if self.model.is_taken(draft.name, draft.number):
            with pytest.raises((VersionExists, FileChanged)):
                handle.finalize(auto_upload=auto)
            return
        if self.sent(draft, lambda: handle.finalize(auto_upload=auto)):
            self.model.finalize(draft)
            self.check(draft, handle)
            with pytest.raises(VersionIsFinal):
                self.handles[draft.id].upload()

    @rule(
        picks=_parents,
        tree=folders(),
        in_place=st.booleans(),
        whole=st.booleans(),
        number=st.sampled_from(NUMBERS),
    )
    def make_a_version_at_once(self, picks, tree, in_place, whole, number):
        self.make_a_version(picks, tree, in_place=in_place, whole=whole, number=number)

    def make_a_version(self, picks, tree, *, in_place, whole, number):
        parents = [self.version(pick).id for pick in picks] if self.model.final() else []
        number = None if self.model.is_taken("one", number) else number
        made = Dataset.create(
            dataset_project="p",
            dataset_name="one",
            parent_datasets=parents,
            dataset_version=number,
            dataset_tags=["t"],
        )
        merged = self.model.merged(parents)
        draft = Version(made.id, "one", number, parents, merged, {"t"}, dict(merged))
        self.model.versions[made.id] = draft
        self.handles[made.id] = made
        folder, rows = self.folder(tree, in_place=in_place)
        if whole:
            assert made.sync_folder(folder) == self.model.sync(draft, rows, None)
        else:
            assert made.add_files(folder) == self.model.put(draft, rows)
        assert made.finalize(auto_upload=True)
        self.model.finalize(draft)
        self.check(draft, made)

    @precondition(lambda self: self.model.versions)
    @rule(pick=_picks, tags=st.sets(st.sampled_from(TAGS), max_size=2))
    def set_tags(self, pick, tags):
        known = list(self.model.versions.values())
        chosen = known[-1 - pick % len(known)]
        handle = Dataset.get(chosen.id)
        handle.tags = sorted(tags)
        chosen.tags = tags
        assert handle.tags == sorted(tags)

    @precondition(lambda self: self.model.final())
    @rule(tag=st.sampled_from(TAGS), name=st.sampled_from([None, "one", "two"]), number=st.sampled_from(NUMBERS))
    def find(self, tag, name, number):
        found = [v for v in self.model.final() if (name is None or v.name == name) and tag in v.tags]
        begun = [v for v in self.model.drafts() if (name is None or v.name == name) and tag in v.tags]
        latest = max(found, key=lambda version: version.slot, default=None)
        self.expect(latest, begun, dataset_name=name, dataset_tags=tag)
        name = name or "one"
        found = [v for v in self.model.series(name) if number is None or v.number == number]
        begun = [v for v in self.model.drafts() if v.name == name]
        begun = [v for v in begun if number is None or (v.number or self.model.next_number(name)) == number]
        highest = self.model.highest(found) if found else None
        self.expect(highest, begun, dataset_project="p", dataset_name=name, dataset_version=number)

    def expect(self, version, begun, **asked):
        """The version is found; where there is none, the draft that was begun last."""
        expected = version or (begun[-1] if begun else None)
        if expected is None:
            with pytest.raises(DatasetNotFound):
                Dataset.get(**asked)
        else:
            assert Dataset.get(**asked).id == expected.id
        if version is None:
            with pytest.raises(DatasetNotFound):
                Dataset.get(only_completed=True, **asked)

    @precondition(lambda self: self.model.final())
    @rule(pick=_picks)
    def get_a_local_copy(self, pick):
        version = self.version(pick)
        self.check_copy(version, Dataset.get(version.id))

    @precondition(lambda self: self.model.final())
    @rule(pick=_picks, name=st.sampled_from(NAMES), entry=_file)
    def edit_a_mutable_copy_and_sync_it_into_a_child(self, pick, name, entry):
        parent = self.version(pick)
        self.folders += 1
        folder = self.home / f"mine{self.folders}"
        assert Dataset.get(parent.id).get_mutable_local_copy(folder) == str(folder)
        assert {p: e.identity for p, e in read_folder(folder).items()} == {
            p: e.identity for p, e in parent.tree.items()
        }
        if (folder / "a").is_file():
            (folder / "a").unlink()
        tree = {p: e for p, e in read_folder(folder).items() if name not in above(p) and p not in above(name)}
        rows = make_folder(folder, tree | {name: self.made(entry)})
        child = Dataset.create(parent_datasets=[parent.id])
        model = Version(child.id, parent.name, None, [parent.id], parent.tree, set(), dict(parent.tree))
        self.model.versions[child.id] = model
        self.handles[child.id] = child
        self.note_sources(model, folder, rows, None)
        assert child.sync_folder(folder) == self.model.sync(model, rows, None)
        self.check(model, child)

    @rule()
    def go_on_in_a_new_process(self):
        workspaces._open.clear()
        self.handles = {version.id: Dataset.get(version.id) for version in self.model.drafts()}

    @rule()
    def delete_the_cache(self):
        shutil.rmtree(self.home / "cache1", ignore_errors=True)
        self.go_on_in_a_new_process()

    @precondition(lambda self: self.model.final())
    @rule()
    def read_everything_on_another_machine(self):
        if not self.model.final():
            return
        self.be_machine("2")
        try:
            # By id nothing is asked of the store; a look by name reads the log to its end.
            Dataset.get(dataset_project="p", dataset_name=self.model.final()[0].name)
            for version in self.model.final():
                dataset = Dataset.get(version.id)
                self.check(version, dataset)
                self.check_copy(version, dataset)
        finally:
            self.be_machine("1")

    # Laws

    def check(self, version, dataset):
        """Whatever can be asked of a draft or a version without making a folder."""
        tree, merged = version.tree, version.merged
        assert dataset.is_final() == (version.slot is not None)
        assert dataset.list_files() == files(tree, tree)
        assert dataset.list_added_files() == files(tree, tree.keys() - merged.keys())
        assert dataset.list_removed_files() == files(merged, merged.keys() - tree.keys())
        both = tree.keys() & merged.keys()
        assert dataset.list_modified_files() == files(tree, {p for p in both if tree[p].identity != merged[p].identity})
        assert dataset.get_dependency_graph() == {version.id: version.parents} | self.model.lineage(version.parents)
        assert dataset.tags == sorted(version.tags)
        if version.slot is not None:
            assert (dataset.project, dataset.name, dataset.version) == ("p", version.name, version.number)
        try:
            self.check_entries(tree, dataset)
        except FileChanged:  # which was not read before
            assert version.slot is None
            assert not all(source.is_as_it_was for source in version.sources.values())

    def check_entries(self, tree, dataset):
        """What is said of each entry, its content included."""
        assert [(e.relative_path, e.kind, e.executable, e.hash, e.size) for e in dataset.file_entries] == [
            (path, e.kind, e.executable, blake3(e.content).hexdigest(), len(e.content))
            for path, e in ((path, tree[path]) for path in in_tree_order(tree))
        ]
        assert {e.relative_path: e.parent_dataset_id for e in dataset.file_entries} == {
            path: entry.origin for path, entry in tree.items()
        }

    def check_copy(self, version, dataset):
        """A local copy holds the version to the byte, with its times, and is read-only."""
        folder = Path(dataset.get_local_copy())
        found = read_folder(folder)
        assert {p: e.identity for p, e in found.items()} == {p: e.identity for p, e in version.tree.items()}
        times = {e.relative_path: e.mtime_ns for e in dataset.file_entries if e.kind == "file"}
        assert {p: e.mtime for p, e in found.items() if e.kind == "file"} == times
        assert times == {p: e.mtime for p, e in version.tree.items() if e.kind == "file"}
        assert not any((folder / path).stat().st_mode & 0o222 for path in times)


# --- what it found -------------------------------------------------------------------------------------------------


def draft_with(home, **files):
    for name, text in files.items():
        (home / "in" / name).parent.mkdir(parents=True, exist_ok=True)
        (home / "in" / name).write_text(text)
    draft = Dataset.create(dataset_name="d")
    draft.add_files(home / "in")
    return draft


def test_a_folder_synced_below_a_file_takes_the_files_place(home):
    draft = draft_with(home, d="a file", other="stays")
    (home / "more").mkdir()
    (home / "more" / "new").write_text("1")
    assert draft.sync_folder(home / "more", dataset_path="d/e") == (1, 1, 0)
    assert draft.list_files() == ["d/e/new", "other"]
    draft.finalize(auto_upload=True)
    assert (Path(draft.get_local_copy()) / "d" / "e" / "new").read_text() == "1"


def test_adding_an_empty_directory_leaves_the_files_that_the_dataset_has_in_it(home):
    draft = draft_with(home, **{"d/a": "1"})
    (home / "more" / "d").mkdir(parents=True)
    assert draft.add_files(home / "more") == 0
    assert draft.list_files() == ["d/a"]


_every_check = list(HealthCheck)


def test_whatever_users_do_the_store_holds_what_the_model_says():
    run_state_machine_as_test(
        DatasetMachine,
        settings=settings(
            max_examples=80,
            stateful_step_count=20,
            deadline=None,
            report_multiple_bugs=False,
            suppress_health_check=_every_check,
        ),
    )


@pytest.mark.timeout(7200)
@pytest.mark.parametrize(
    "examples", [pytest.param(100, marks=pytest.mark.heavy), pytest.param(1000, marks=pytest.mark.long)]
)
def test_whatever_users_do_at_length_the_store_holds_what_the_model_says(examples):
    run_state_machine_as_test(
        DatasetMachine,
        settings=settings(
            max_examples=examples, stateful_step_count=40, deadline=None, suppress_health_check=_every_check
        ),
    )
