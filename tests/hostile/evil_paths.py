"""Paths that lead elsewhere, or mean to, and what becomes of them on each way into a folder.

python tests/hostile/evil_paths.py 1000000
"""

import os
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from random import Random

import numpy as np

from dataset_store.core.entries import make_entries
from dataset_store.core.node_decoding import decode_node
from dataset_store.core.nodes import encode_node
from dataset_store.core.paths import PathKey, link_stays_inside, portability_problems, to_key, to_path
from dataset_store.errors import CorruptObject, DatasetStoreError, InvalidPath
from dataset_store.local.folder_writer import FolderWriter
from dataset_store.local.removal import remove_tree

__all__ = ["Ground", "evil_paths", "run"]

_NAMES = [
    b"..", b".", b"", b"...", b".. ", b"..\\", b"a", b"A", b"a.txt", b"ab", b"link", b"inside", b"etc", b"passwd",
    b"CON", b"nul.txt", b"com1", b"a:b", b"trailing.", b"space ", b"C:", b"\\\\host\\share", b"..\\..\\x", b"%2e%2e",
    b"\xff\xfe", b"caf\xe9", "caf\u00e9".encode(), "cafe\u0301".encode(), b"STRASSE", "stra\u00dfe".encode(),
    "\u212a".encode(), b"k", "\uff0e\uff0e".encode(), "\u2024\u2024".encode(), "\u202e".encode(), b"\n", b"\x7f",
    b"-rf", b"~", b"~root", b"$HOME", b"*", b"x" * 255, b"x" * 256, b"y" * 1000, b"\x00", b"a\x00b", b"..\x00", b".git",
]  # fmt: skip
_WHOLE = [
    b"", b"/", b"//", b"/etc/passwd", b"../../../../../../etc/passwd", b"a/../../x", b"a//b", b"./a", b"a/.", b"a/..",
    b"/".join([b"d"] * 1_001), b"/".join([b"n" * 200] * 90), b"a/" * 500 + b"b", b"\0", b"link/x", b"link/../../x",
    b"..", b"../outside", b"inside/../../outside/new",
]  # fmt: skip
_TARGETS = [
    b"..", b"../outside", b"/etc/passwd", b"a/../..", b"inside", b".", b"./..", b"", b"../" * 400 + b"x", b"a\0b",
    b"link/..", b"x" * 5_000, b"inside/../..", b"caf\xe9",
]  # fmt: skip


def evil_paths(rng: Random) -> Iterator[bytes]:
    """Paths without end, about half of which no store may hold."""
    while True:
        chance = rng.random()
        if chance < 0.1:
            yield rng.choice(_WHOLE)
            continue
        names = [rng.choice(_NAMES) for _ in range(rng.choice((1, 1, 2, 2, 3, 5)))]
        if chance < 0.3:
            names.insert(rng.randrange(len(names) + 1), rng.randbytes(rng.randrange(1, 6)))
        yield (b"/" if chance > 0.95 else b"") + b"/".join(names)


class Ground:
    """A folder to write into, and beside it files that must stay as they are."""

    def __init__(self, base: Path) -> None:
        self.base = base
        self.target = base / "ground" / "target"
        self.outside = base / "ground" / "outside"
        self.target.mkdir(parents=True)
        self.outside.mkdir()
        (self.outside / "precious").write_bytes(b"precious")
        (base / "ground" / "target-evil").write_bytes(b"a name that begins like the folder's")
        self.before = self.seen()

    def seen(self) -> list[tuple[str, int, int]]:
        """Everything but what is in the target: names, sizes and times."""
        found = []
        for folder, folders, names in os.walk(self.base):
            folders[:] = [name for name in folders if os.path.join(folder, name) != str(self.target)]
            for name in [*folders, *names]:
                state = os.lstat(os.path.join(folder, name))
                found.append((os.path.join(folder, name), state.st_size, state.st_mtime_ns))
        return [row for row in sorted(found) if row[0] != str(self.target.parent)]

    def anew(self) -> None:
        """Empty the target."""
        remove_tree(os.fsencode(self.target))
        self.target.mkdir()

    def check(self) -> None:
        """Nothing beside the target has changed."""
        assert self.seen() == self.before
        assert (self.outside / "precious").read_bytes() == b"precious"


def _by_text(path: bytes) -> PathKey | None:
    """The key of a path that a user gives."""
    try:
        return to_key(path)
    except InvalidPath:
        return None


def _by_tree(path: bytes) -> PathKey | None:
    """The key that a stored tree names by these bytes."""
    rows = make_entries([PathKey(path.replace(b"/", b"\0"))], np.array([1], np.uint8), np.array([0], np.uint64))
    try:
        (key,) = decode_node(encode_node(rows), "a pack").keys
    except CorruptObject:
        return None
    return key


def _inside(key: PathKey) -> bool:
    """Whether a path means something below the folder that it is joined to, for whoever joins and resolves it."""
    path = to_path(key)
    return os.path.normpath(b"/root/" + path).startswith(b"/root/") and not path.startswith(b"/") and b"\0" not in path


def _extract(writer: FolderWriter, key: PathKey, rng: Random) -> str:
    """Make a file, a directory or a link of that name."""
    act = rng.random()
    try:
        if act < 0.6:
            writer.write_small([key], [b"x"], [False], [0])
        elif act < 0.8:
            writer.make_directory(key)
        else:
            target = rng.choice(_TARGETS)
            writer.symlinks([key], [target])
            assert link_stays_inside(key.count(b"\0"), target)
    except DatasetStoreError as error:
        return type(error).__name__
    return "made"


def run(count: int, base: Path, seed: int = 1) -> Counter[str]:
    """Give so many paths to each way; what became of them."""
    rng, told, ground = Random(seed), Counter[str](), Ground(base)
    paths = evil_paths(rng)
    for start in range(0, count, 200):
        ground.anew()
        (ground.target / "inside").mkdir()
        (ground.target / "link").symlink_to("../outside")  # as if somebody had put it there
        with FolderWriter(os.fsencode(ground.target)) as writer:
            for _ in range(min(200, count - start)):
                path = next(paths)
                keys = _by_text(path), _by_tree(path)
                # A zero byte joins names in a tree, so there it is a slash; a text with one is refused.
                assert keys[0] == keys[1] or (keys[0] is None and b"\0" in path), path
                told["refused" if keys[1] is None else "taken"] += 1
                for key in {*keys} - {None}:
                    assert _inside(key), path
                    portability_problems([key])
                    told[_extract(writer, key, rng)] += 1
        ground.check()
    ground.anew()
    return told


if __name__ == "__main__":
    with tempfile.TemporaryDirectory(dir="/dev/shm" if os.path.isdir("/dev/shm") else None) as folder:
        print(dict(run(int(sys.argv[1]), Path(folder))))
