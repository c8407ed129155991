"""Tests that cannot fail show nothing: what these guard is taken away, one function at a time, and they must fail."""

import importlib.util
import os
from collections.abc import Callable
from pathlib import Path

import pytest
import test_every_byte_counts as every_byte
from evil_paths import run as run_evil_paths

from dataset_store.core import envelope, packfile, paths
from dataset_store.core.digest import hash32
from dataset_store.local import folder_writer, materialise, open_directories, removal, settings
from dataset_store.storage import log

HERE = Path(__file__).parent


class Anything(bytes):
    """What a hash is equal to where it is not checked."""

    __hash__ = bytes.__hash__

    def __eq__(self, _other):
        return True

    def __ne__(self, _other):
        return False


def sibling(path: str):
    """A module of tests that cannot be imported by its name."""
    spec = importlib.util.spec_from_file_location(Path(path).stem + "_planted", HERE / path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


Patch = pytest.MonkeyPatch


def hash_of_envelopes_not_checked(patch: Patch) -> None:
    patch.setattr(envelope, "_check", lambda *_: Anything())


def hash_of_chunks_not_checked(patch: Patch) -> None:
    patch.setattr(packfile, "hash32", lambda _: Anything(bytes(32)))


def hash_of_small_files_not_checked(patch: Patch) -> None:
    patch.setattr(materialise, "hash32", lambda data: Anything(hash32(data)))


def hash_of_large_files_not_checked(patch: Patch) -> None:
    patch.setattr(materialise, "rows_digest", lambda *_: Anything())


def paths_joined_unsafely(patch: Patch) -> None:
    patch.setattr(paths, "_problem_of_names", lambda _: None)


def links_not_looked_at(patch: Patch) -> None:
    patch.setattr(folder_writer, "link_stays_inside", lambda *_: True)


def links_followed(patch: Patch) -> None:
    patch.setattr(open_directories, "OPEN_DIRECTORY", open_directories.OPEN_DIRECTORY & ~os.O_NOFOLLOW)


def links_followed_in_removal(patch: Patch) -> None:
    patch.setattr(removal, "_OPEN_DIRECTORY", removal._OPEN_DIRECTORY & ~os.O_NOFOLLOW)


def folders_of_others_used(patch: Patch) -> None:
    patch.setattr(settings, "require_private", lambda *_: None)


def log_believed(patch: Patch) -> None:
    patch.setattr(log, "_is_before", lambda *_: True)


def flip_bytes(_request, _tmp_path) -> None:
    every_byte.flipped(every=97, bits=1)


def read_flipped_bytes(_request, tmp_path) -> None:
    module = sibling("../dataset/test_flipped_bytes.py")
    name, path = next((name, path) for name, path in module.OBJECTS.items() if path.stat().st_size > 60_000)
    found = module.seen(module.stored())
    right = {
        key: (module.columns(rows), module.made(rows, found.store, tmp_path)) for key, rows in found.versions.items()
    }
    for at in range(40, path.stat().st_size // 3, 251):
        module.outcome(name, at, 3, right, tmp_path)


def give_evil_paths(_request, tmp_path) -> None:
    run_evil_paths(1_000, tmp_path)


def swap_a_directory_that_is_written(request, tmp_path) -> None:
    root, outside = root_and_outside(tmp_path)
    sibling(
        "../local/test_folder_writer.py"
    ).test_a_directory_swapped_for_a_link_just_before_it_is_opened_is_not_followed(
        root, outside, request.getfixturevalue("monkeypatch")
    )


def swap_a_directory_that_is_removed(request, tmp_path) -> None:
    root, outside = root_and_outside(tmp_path)
    sibling("../local/test_folder_writer.py").test_a_directory_swapped_for_a_link_while_it_is_removed_is_not_followed(
        root, outside, request.getfixturevalue("monkeypatch")
    )


def root_and_outside(tmp_path: Path) -> tuple[Path, Path]:
    for name in ("root", "outside"):
        (tmp_path / name).mkdir()
    (tmp_path / "outside" / "precious").write_bytes(b"precious")
    return tmp_path / "root", tmp_path / "outside"


def use_folders_of_others(request, tmp_path) -> None:
    module = sibling("test_private_folders.py")
    patch = request.getfixturevalue("monkeypatch")
    patch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    module.test_a_folder_that_others_own_or_may_write_is_not_used(
        request.getfixturevalue("home"), patch, "cache", "707"
    )


def put_an_older_log_back(request, _tmp_path) -> None:
    module = sibling("test_rewound_history.py")
    home = request.getfixturevalue("home")
    seen = module.seen.__wrapped__(home)
    module.test_whoever_verifies_is_told(home, seen, module.an_older_copy)


PLANTS: list[tuple[Callable, Callable]] = [
    (hash_of_envelopes_not_checked, flip_bytes),
    (hash_of_chunks_not_checked, flip_bytes),
    (hash_of_small_files_not_checked, read_flipped_bytes),
    (hash_of_large_files_not_checked, read_flipped_bytes),
    (paths_joined_unsafely, give_evil_paths),
    (links_not_looked_at, give_evil_paths),
    (links_followed, swap_a_directory_that_is_written),
    (links_followed_in_removal, swap_a_directory_that_is_removed),
    (folders_of_others_used, use_folders_of_others),
    (log_believed, put_an_older_log_back),
]


@pytest.mark.heavy
@pytest.mark.timeout(600)
@pytest.mark.parametrize(("plant", "act"), PLANTS, ids=[plant.__name__ for plant, _ in PLANTS])
def test_a_guard_that_is_taken_away_is_missed(request, tmp_path, monkeypatch, plant, act):
    plant(monkeypatch)
    with pytest.raises((AssertionError, pytest.fail.Exception)):
        act(request, tmp_path)


@pytest.mark.heavy
@pytest.mark.timeout(600)
@pytest.mark.parametrize("act", dict.fromkeys(act for _, act in PLANTS), ids=lambda act: act.__name__)
def test_the_same_passes_where_nothing_is_planted(request, tmp_path, act):
    act(request, tmp_path)
