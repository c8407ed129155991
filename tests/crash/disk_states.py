"""What a disk may hold after a power cut, from a trace of the calls that changed its files.

The model, after ALICE (Pillai and others, 2014), for any file system that follows POSIX and orders no more than that:

* the bytes of a file, its length and its times are durable up to the last flush of the file; of what came later any
  prefix may be there, and of the last write in it only a part, or zeros in its place;
* a name is durable once its folder was flushed; of the names made, changed and removed later each may or may not be, in
  any mixture; a rename is there or is not, as a whole;
* a flush of a file says nothing of its name.
"""

import random
import struct
from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import NamedTuple

_RECORD = struct.Struct("<QQqIIc7x")


class Operation(NamedTuple):
    """One record of the trace; what `one` and `other` are follows from `what`, see `fault_shim.c`."""

    what: str
    one: int
    other: int
    offset: int
    first: str
    second: bytes


class Part(NamedTuple):
    """What is there of a file: its first `count` operations, the last of them `whole`, by `half`, or as `zeros`."""

    inode: int
    count: int
    last: str = "whole"


Tree = Mapping[str, "Part | bytes"]
"""Paths below the root, each with what is there of the file, or a link's target. Folders have a slash at their end."""


def read_trace(data: bytes) -> Iterator[Operation]:
    """The operations of a trace, in order."""
    at = 0
    while at < len(data):
        one, other, offset, first, second, what = _RECORD.unpack_from(data, at)
        at += _RECORD.size
        name, rest = data[at : at + first].decode(), data[at + first : at + first + second]
        at += first + second
        yield Operation(what.decode(), one, other, offset, name, rest)


def mark(text: str) -> bytes:
    """A record that says something, of no file: what was acknowledged."""
    return _RECORD.pack(0, 0, 0, len(text.encode()), 0, b"!") + text.encode()


class Disk:
    """A disk while a trace is played; `root` is the inode of a folder that is there, durable and empty."""

    def __init__(self, root: int) -> None:
        self.root = root
        self._folders: dict[int, dict[str, int | bytes]] = {root: {}}
        self._files: dict[int, list[Operation]] = {}
        self._durable: dict[int, int] = {}
        self._names: list[Operation] = []
        self._content = lru_cache(maxsize=20_000)(self._made)

    def play(self, operation: Operation) -> bool:
        """Take one operation; whether what may be on the disk can differ from before."""
        what, inode = operation.what, operation.one
        if what in "wtez":
            self._files.setdefault(inode, []).append(operation)
        elif what == "f":
            return self._flush(inode)
        elif what == "F":
            return self._flush_all()
        elif what == "n":
            self._files[operation.other] = []
        elif what in "cdlrsu":
            if what == "c":
                self._files[operation.other] = []
            if what == "d":
                self._folders[operation.other] = {}
            if what == "r":
                operation = operation._replace(offset=self._now(inode, operation.first))
            self._names.append(operation)
        else:
            return False
        return True

    def _now(self, folder: int, name: str) -> int:
        """What a name means when everything so far has happened."""
        entries = dict(self._folders[folder])
        for earlier in self._names:
            _apply({folder: entries}, earlier)
        found = entries.get(name, 0)
        return found if isinstance(found, int) else 0

    def _flush(self, inode: int) -> bool:
        if inode not in self._folders:
            before, self._durable[inode] = self._durable.get(inode, 0), len(self._files.get(inode, []))
            return before != self._durable[inode]
        flushed = [each for each in self._names if _folder_of(each) == inode]
        for each in flushed:
            _apply(self._folders, each)
        self._names = [each for each in self._names if _folder_of(each) != inode]
        return bool(flushed)

    def _flush_all(self) -> bool:
        changed = any(self.pending())
        for each in self._names:
            _apply(self._folders, each)
        self._names = []
        self._durable = {inode: len(operations) for inode, operations in self._files.items()}
        return changed

    # What may be there

    def pending(self) -> tuple[int, list[int]]:
        """How many names are not durable, and the files that have what is not."""
        files = [inode for inode, all_ in self._files.items() if len(all_) > self._durable.get(inode, 0)]
        return len(self._names), files

    def state(self, names: "set[int] | None", files: Mapping[int, Part], *, others_in: bool) -> Tree:
        """One state: with those of the names that are not durable (None: all of them), and these parts of files.

        Files that are not named are there as far as they are durable, or with `others_in` as far as they were written.
        """
        folders = {inode: dict(entries) for inode, entries in self._folders.items()} if self._names else self._folders
        for number, operation in enumerate(self._names):
            if names is None or number in names:
                _apply(folders, operation)
        tree: dict[str, Part | bytes] = {}
        self._walk(folders, self.root, "", tree, files, others_in)
        return tree

    def _walk(self, folders, inode, path, tree, files, others_in) -> None:  # type: ignore[no-untyped-def]
        for name, what in folders[inode].items():
            if isinstance(what, bytes):
                tree[path + name] = what
            elif what in folders:
                tree[f"{path}{name}/"] = b""
                self._walk(folders, what, f"{path}{name}/", tree, files, others_in)
            else:
                tree[path + name] = files.get(what) or self._whole(what, others_in)

    def _whole(self, inode: int, others_in: bool) -> Part:
        return Part(inode, len(self._files.get(inode, [])) if others_in else self._durable.get(inode, 0))

    def states(self, chance: random.Random, most: int) -> Iterator[Tree]:
        """States that are possible now: none, all, each one out, each one in, torn, and random mixtures."""
        count, files = self.pending()
        every = set(range(count))
        parts = [
            Part(inode, at) for inode in files for at in range(self._durable.get(inode, 0), len(self._files[inode]))
        ]
        yield self.state(set(), {}, others_in=False)
        yield self.state(None, {}, others_in=True)
        yield self.state(None, {}, others_in=False)
        yield self.state(set(), {}, others_in=True)
        systematic = list(self._systematic(every, parts))
        for names, some, others_in in systematic if len(systematic) <= most else chance.sample(systematic, most):
            yield self.state(names, some, others_in=others_in)
        for _ in range(min(most, 2 ** (count + len(files))) // 4):
            names = {number for number in every if chance.random() < 0.5}
            some = {inode: self._any_part(inode, chance) for inode in files}
            yield self.state(names, some, others_in=False)

    def _systematic(self, every: set[int], parts: list[Part]) -> Iterator[tuple[set[int], dict[int, Part], bool]]:
        for number in every:
            yield every - {number}, {}, True
            yield {number}, {}, True
            yield {number}, {}, False
        for part in parts:
            yield every, {part.inode: part}, True
            for last in ("whole", "half", "zeros"):
                yield every, {part.inode: Part(part.inode, part.count + 1, last)}, False
                yield every, {part.inode: Part(part.inode, part.count + 1, last)}, True

    def _any_part(self, inode: int, chance: random.Random) -> Part:
        count = chance.randint(self._durable.get(inode, 0), len(self._files[inode]))
        torn = count > self._durable.get(inode, 0)
        return Part(inode, count, chance.choice(("whole", "half", "zeros")) if torn else "whole")

    # Bytes

    def content(self, part: Part) -> bytes:
        """The bytes of what is there of a file."""
        return self._content(part)

    def time(self, part: Part) -> int | None:
        """The time of modification that a file was given, in ns; None where it was given none."""
        given = [each.offset for each in self._files.get(part.inode, [])[: part.count] if each.what == "z"]
        return given[-1] if given else None

    def _made(self, part: Part) -> bytes:
        made = bytearray()
        operations = self._files.get(part.inode, [])[: part.count]
        for number, operation in enumerate(operations):
            if operation.what == "w":
                data = operation.second
                if part.last != "whole" and number == part.count - 1:
                    data = data[: len(data) // 2] if part.last == "half" else bytes(len(data))
                made.extend(bytes(max(0, operation.offset + len(data) - len(made))))
                made[operation.offset : operation.offset + len(data)] = data
            elif operation.what == "t":
                made.extend(bytes(max(0, operation.offset - len(made))))
                del made[operation.offset :]
            elif operation.what == "e":
                made.extend(bytes(max(0, operation.offset - len(made))))
        return bytes(made)


def _folder_of(operation: Operation) -> int:
    """The folder whose flush makes a name durable; of a rename the one where it comes to stand."""
    return operation.other if operation.what == "r" else operation.one


def _apply(folders: dict[int, dict[str, "int | bytes"]], operation: Operation) -> None:
    """Let a change of names happen to the folders that are given."""
    entries = folders.get(operation.one, {})
    if operation.what == "u":
        entries.pop(operation.first, None)
    elif operation.what == "s":
        entries[operation.first] = operation.second
    elif operation.what == "r":
        entries.pop(operation.first, None)
        if operation.offset:
            folders.get(operation.other, {})[operation.second.decode()] = operation.offset
    else:
        entries[operation.first] = operation.other
