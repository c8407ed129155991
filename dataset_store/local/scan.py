"""What a folder holds: names, kinds and stats, one columnar block of up to 4,096 names at a time.

Promises:

- One stat for each entry, and no file is ever opened: a fifo or a device cannot block the scan.
- Directories come in post-order: the blocks of a directory follow those of all directories below it, siblings
  in the order of their names. Names ascend within a directory. (Only then is it known which of its
  subdirectories are empty, hence entries, without looking twice.) Sort `keys()` for the order of a tree.
- A directory's rows are cut into blocks by position alone, so an unchanged directory gives equal blocks.
- Any depth that a key can express works, with at most 82 directories open at once; no path of more than one
  name is ever handed to the kernel for an entry.
- What is found is stored the same way on every machine, or refused by name, all that is refused at once: devices,
  sockets and fifos are refused; a link that stays inside the folder is a link; one that leads to a file outside is
  that file's bytes; one to a directory outside is refused, or walked with `follow_links`.

This module never reads a file's bytes (`reading` does), and never changes anything.
"""

import errno
import os
import stat
import sys
from collections.abc import Iterator
from typing import Final

from msgspec import Struct, field

from dataset_store.core.arrays import np
from dataset_store.core.kinds import Kind
from dataset_store.core.paths import (
    MAX_COMPONENTS,
    MAX_PATH_BYTES,
    ROOT,
    PathKey,
    child_key,
    link_stays_inside,
    to_key,
    to_path,
)
from dataset_store.errors import (
    DatasetStoreError,
    FileChanged,
    InvalidPath,
    InvalidRequest,
    PathNotFound,
    UnsupportedFileType,
)
from dataset_store.local.batches import list_directory
from dataset_store.local.ignore import IGNORE_FILE, Rules, read_rules
from dataset_store.local.listing import BLOCK_NAMES, Columns, DirectoryBlock, Listing, join_keys
from dataset_store.local.os_errors import reading_error, shown
from dataset_store.local.scan_ahead import Ahead

__all__ = ["BLOCK_NAMES", "EVERYTHING", "USUAL", "DirectoryBlock", "Scope", "scan", "stat_one"]

_MAX_OPEN: Final = 64
_AHEAD: Final = 8  # directories
# As plain numbers: numpy asks an enum member for its array protocols at each comparison.
_FILE, _SYMLINK, _DIRECTORY = int(Kind.FILE), int(Kind.SYMLINK), int(Kind.DIRECTORY)

_OPEN_DIRECTORY: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_CODEC: Final = (sys.getfilesystemencoding(), sys.getfilesystemencodeerrors())
_DANGLING: Final = frozenset([errno.ENOENT, errno.ENOTDIR, errno.ELOOP])

_IGNORE_NAME: Final = os.fsdecode(IGNORE_FILE)

_MOST_TOLD: Final = 5


Identity = tuple[int, int]
"""Device and inode."""


class Scope(Struct, frozen=True):
    """What below a folder is meant.

    Attributes:
        ignore: Not what `.datasetignore` files say.
        follow_links: Directories outside that links lead to, as if they stood in the folder.
        leave_out: Not these directories, nor anything below them.
    """

    ignore: bool = True
    follow_links: bool = False
    leave_out: frozenset[Identity] = frozenset()


USUAL: Final = Scope()
EVERYTHING: Final = Scope(ignore=False)


def scan(root: bytes | str, *, below: PathKey = ROOT, scope: Scope = EVERYTHING) -> Iterator[DirectoryBlock]:
    """Everything below a folder.

    Args:
        root: The folder; if it is itself a link, what that leads to.
        below: A directory of the dataset that the keys are put below.
        scope: What below it is meant.

    Yields:
        Blocks, in the order that the module describes. A directory of nothing but directories has none, nor has
        an empty root.

    Raises:
        PathNotFound: There is no such folder.
        InvalidRequest: `root` is not a folder, or an ignore file is too long.
        UnsupportedFileType: An entry is no file, link or directory, or a link that no store could hold.
        InvalidPath: A path is too long or too deep.
        FileChanged: Something was removed or replaced meanwhile.
        AccessDenied: A directory cannot be read.
    """
    walk = _Walk(os.fsencode(root), below, scope)
    try:
        yield from walk.blocks()
    finally:
        walk.close()


def stat_one(path: bytes | str) -> DirectoryBlock:
    """A single file as a block of one row, in the root; a link is followed.

    In the stat cache such a block belongs under a root of its own, the path of the file: under the file's
    folder it would replace that folder's block.

    Raises:
        PathNotFound: There is no such file.
        InvalidRequest: It is a directory.
        UnsupportedFileType: It is a device, socket or fifo.
        AccessDenied: It cannot be reached.
    """
    raw = os.fsencode(path)
    try:
        found = os.stat(raw)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise _no_such(raw) from error
    except OSError as error:
        raise _unreachable(error, raw) from error
    if stat.S_ISDIR(found.st_mode):
        raise InvalidRequest(f"{shown(raw)} is a folder.", "Add it as a folder.")
    if not stat.S_ISREG(found.st_mode):
        raise _special(raw)
    name = to_key(os.path.basename(os.path.abspath(raw)))
    listing = Listing([name], Columns.of([found]))
    return next(listing.blocks(ROOT, ROOT))


class _Base(Struct, frozen=True):
    """The folder that links must not leave: the root, or the directory that a followed link led to."""

    path: bytes
    depth: int


class _Frame(Struct, eq=False):
    """A directory being walked: open, or closed for the time being and opened again by name."""

    name: bytes
    row: int
    followed: bool
    directory: PathKey
    depth: int
    base: _Base
    identity: Identity
    opened: int | None
    rules: Rules | None = None
    listing: Listing = field(default_factory=lambda: Listing([], Columns.of([])))
    pending: list[int] = field(default_factory=list)

    def path(self, name: bytes) -> bytes:
        """Of an entry, from the folder that links must not leave."""
        names = to_path(self.directory).split(b"/")[self.base.depth :] if self.directory else []
        return b"/".join([self.base.path, *names, name])


class _Walk:
    """One scan: a stack of frames from the root down to the directory at hand."""

    def __init__(self, root: bytes, below: PathKey, scope: Scope) -> None:
        self._root = root
        self._below = below
        self._scope = scope
        self._stack: list[_Frame] = []
        self._refused: list[str] = []
        self._ahead = Ahead()

    def blocks(self) -> Iterator[DirectoryBlock]:
        self._enter_root()
        while self._stack:
            frame = self._stack[-1]
            if frame.pending:
                self._look_ahead(frame)
                self._enter(frame, frame.pending.pop())
                continue
            self._leave(frame)
            yield from frame.listing.blocks(self._below, frame.directory)
        if self._refused:
            raise _not_storable(self._refused)

    def _look_ahead(self, frame: _Frame) -> None:
        """Have the next directories listed, unless rules may leave out some of what they hold."""
        rows = [row for row in reversed(frame.pending[-_AHEAD:]) if row not in frame.listing.targets]
        if len(rows) > 1 and not (self._scope.ignore and frame.rules is not None):
            self._ahead.begin(self._descriptor(frame), frame.depth, rows, frame.listing.names)

    def close(self) -> None:
        self._ahead.close()
        for frame in self._stack:
            if frame.opened is not None:
                os.close(frame.opened)
        self._stack.clear()

    def _enter_root(self) -> None:
        try:
            opened = os.open(self._root, _OPEN_DIRECTORY)
        except FileNotFoundError as error:
            raise _no_such(self._root) from error
        except NotADirectoryError as error:
            raise InvalidRequest(f"{shown(self._root)} is not a folder.", "Add it as a file.") from error
        except OSError as error:
            raise _unreachable(error, self._root) from error
        self._push(_Frame(b"", 0, False, ROOT, 0, _Base(self._root, 0), _identity(opened), opened))

    def _enter(self, parent: _Frame, row: int) -> None:
        """Descend into a row of a directory; until it proves empty it is no entry of its own."""
        name = parent.listing.names[row]
        followed = row in parent.listing.targets
        path = parent.path(name)
        listed = self._ahead.take(parent.depth, row)
        opened = _open_directory(name, self._descriptor(parent), followed, path) if listed is None else listed.opened
        if followed:
            del parent.listing.targets[row]
        parent.listing.dropped.add(row)
        identity = _identity(opened)
        if identity in self._scope.leave_out:
            os.close(opened)
            return
        base = _Base(path, parent.depth + 1) if followed else parent.base
        directory = child_key(parent.directory, name)
        frame = _Frame(name, row, followed, directory, len(self._stack), base, identity, opened, parent.rules)
        self._push(frame, listed and listed.listing)

    def _push(self, frame: _Frame, listing: Listing | None = None) -> None:
        """Stand in an open directory, and know what it holds; that is read where it is not given."""
        cyclic = self._scope.follow_links and any(above.identity == frame.identity for above in self._stack)
        self._stack.append(frame)  # from here on close() knows the descriptor
        if cyclic:
            raise UnsupportedFileType(
                f"The links in {shown(self._root)} lead round in a circle at {shown(to_path(frame.directory))}.",
                "Remove the link, or add the folder without following links.",
            )
        self._list(frame, listing)
        if frame.depth > _MAX_OPEN:
            self._ahead.settle(frame.depth - _MAX_OPEN)
            self._rest(self._stack[frame.depth - _MAX_OPEN])

    def _leave(self, frame: _Frame) -> None:
        self._stack.pop()
        self._rest(frame)
        if self._stack and not frame.listing.names:
            self._stack[-1].listing.dropped.discard(frame.row)

    @staticmethod
    def _rest(frame: _Frame) -> None:
        if frame.opened is not None:
            os.close(frame.opened)
            frame.opened = None

    def _descriptor(self, frame: _Frame) -> int:
        """The frame's descriptor; one that was closed is opened again from the root down."""
        if frame.opened is None:
            opened = os.dup(self._descriptor(self._stack[0]))  # the root is never closed before the end
            for step in self._stack[1 : frame.depth + 1]:
                try:
                    deeper = _open_directory(step.name, opened, step.followed, step.path(b""))
                finally:
                    os.close(opened)
                opened = deeper
            frame.opened = opened
            if _identity(opened) != frame.identity:
                raise _replaced(frame.path(b""))
        return frame.opened

    def _list(self, frame: _Frame, listed: Listing | None) -> None:
        """Read names and stats of a directory that is open, where they were not given."""
        if listed is None and not (self._scope.ignore and frame.rules is not None):
            listed = list_directory(self._descriptor(frame))
        if listed is None or (self._scope.ignore and IGNORE_FILE in listed.names):
            listed = self._list_one_by_one(frame)
        frame.listing = listed
        self._check_limits(frame)
        self._classify(frame)

    def _list_one_by_one(self, frame: _Frame) -> Listing:
        """As `list_directory`, without what a rule leaves out: of that not even the stat is read."""
        opened, entries = self._descriptor(frame), []
        try:
            with os.scandir(opened) as found:
                entries = list(found)
            if self._scope.ignore:
                entries = self._kept(frame, opened, entries)
            names = [entry.name.encode(*_CODEC) for entry in entries]
            order = sorted(range(len(names)), key=names.__getitem__)
            entries = [entries[i] for i in order]
            return Listing([names[i] for i in order], _columns(entries))
        except OverflowError as error:
            raise UnsupportedFileType(
                f"{_with_odd_time(entries, frame)} has a time before 1678 or after 2262, which no version can hold.",
                "Give it another with `touch`.",
            ) from error
        except OSError as error:
            # Of a directory listed by its descriptor the error's file name is the descriptor's number.
            name = os.fsencode(error.filename) if isinstance(error.filename, str) else b""
            raise reading_error(error, frame.path(name)) from error

    def _kept(self, frame: _Frame, opened: int, entries: list[os.DirEntry[str]]) -> list[os.DirEntry[str]]:
        """The entries that no rule leaves out."""
        if any(entry.name == _IGNORE_NAME and entry.is_file() for entry in entries):
            frame.rules = read_rules(opened, frame.directory, frame.path(IGNORE_FILE), frame.rules)
        rules = frame.rules
        if rules is None:
            return entries
        return [
            entry
            for entry in entries
            if not rules.leaves_out(
                frame.directory, os.fsencode(entry.name), is_directory=entry.is_dir(follow_symlinks=False)
            )
        ]

    def _check_limits(self, frame: _Frame) -> None:
        names = frame.listing.names
        if not names:
            return
        directory = join_keys(self._below, frame.directory)
        longest = max(names, key=len)
        names_on_the_way = directory.count(b"\0") + 1 if directory else 0
        if len(directory) + 1 + len(longest) > MAX_PATH_BYTES or names_on_the_way >= MAX_COMPONENTS:
            raise InvalidPath(
                f"The path {shown(to_path(child_key(directory, longest)))} is too long or too deep: at most "
                f"{MAX_PATH_BYTES:,} bytes and {MAX_COMPONENTS:,} names.",
                "Move the files up or shorten the names of their folders.",
            )

    def _classify(self, frame: _Frame) -> None:
        """Decide about every row that is no regular file; usually there are few."""
        columns = frame.listing.columns
        others = np.flatnonzero(columns.kind != _FILE).tolist()
        for row in others:
            if columns.kind[row] == _SYMLINK:
                self._classify_link(frame, row)
            kind = int(columns.kind[row])
            if kind == _DIRECTORY:
                columns.stat[0, row] = 0
                frame.pending.append(row)
            elif not kind:
                self._refuse(frame, row, f"{shown(frame.path(frame.listing.names[row]))} is a device, socket or fifo")
        frame.pending.reverse()

    def _classify_link(self, frame: _Frame, row: int) -> None:
        """Give a link's row its text, or the stat of what it leads to."""
        name = frame.listing.names[row]
        path = frame.path(name)
        opened = self._descriptor(frame)
        try:
            target = os.readlink(name, dir_fd=opened)
        except OSError as error:
            raise _replaced(path) from error
        depth = frame.depth - frame.base.depth
        text = target
        if not link_stays_inside(depth, target):
            found = _stat_target(name, opened, path)
            inside = _inside_text(frame, target, found)
            if inside is None:
                self._classify_outside(frame, row, target, found)
                return
            text = inside
        frame.listing.targets[row] = text
        frame.listing.columns.stat[0, row] = len(text)

    def _classify_outside(self, frame: _Frame, row: int, target: bytes, found: os.stat_result | None) -> None:
        path = frame.path(frame.listing.names[row])
        if found is None:
            told = f"the link {shown(path)} leads to {shown(target)}, which does not exist inside the folder"
            self._refuse(frame, row, told)
            return
        if stat.S_ISDIR(found.st_mode):
            if not self._scope.follow_links:
                self._refuse(frame, row, f"the link {shown(path)} leads to {shown(target)}, a folder outside")
                return
            frame.listing.targets[row] = target
        frame.listing.columns.replace(row, found)

    def _refuse(self, frame: _Frame, row: int, why: str) -> None:
        """Keep a reason why the scan fails in the end; until then the row is as if it were not there."""
        self._refused.append(why)
        frame.listing.dropped.add(row)


def _with_odd_time(entries: list[os.DirEntry[str]], frame: _Frame) -> str:
    """The first entry whose time does not fit into 64 bits of nanoseconds, or the directory."""
    for entry in entries:
        found = entry.stat(follow_symlinks=False)
        if max(abs(found.st_mtime_ns), abs(found.st_ctime_ns)) >= 1 << 63:
            return shown(frame.path(os.fsencode(entry.name)))
    return shown(frame.path(b""))


def _identity(opened: int) -> Identity:
    found = os.fstat(opened)
    return found.st_dev, found.st_ino


def _columns(entries: list[os.DirEntry[str]]) -> Columns:
    """Stats of the entries themselves, some thousand at a time: as objects they take a kilobyte each."""
    return Columns.joined(
        [
            Columns.of([entry.stat(follow_symlinks=False) for entry in entries[start : start + BLOCK_NAMES]])
            for start in range(0, len(entries), BLOCK_NAMES)
        ]
    )


def _open_directory(name: bytes, parent: int, followed: bool, path: bytes) -> int:
    try:
        return os.open(name, _OPEN_DIRECTORY | (0 if followed else os.O_NOFOLLOW), dir_fd=parent)
    except OSError as error:
        raise reading_error(error, path) from error


def _stat_target(name: bytes, parent: int, path: bytes) -> os.stat_result | None:
    """The stat of what a link leads to; None if that does not exist."""
    try:
        return os.stat(name, dir_fd=parent)
    except OSError as error:
        if error.errno in _DANGLING:
            return None
        raise reading_error(error, path) from error


def _inside_text(frame: _Frame, target: bytes, found: os.stat_result | None) -> bytes | None:
    """Another text for a link that stays inside though its own text does not show it; None if it does not.

    Such a link is absolute, or has a `..` after a name. The new text is relative and leads to the same file.
    """
    depth = frame.depth - frame.base.depth
    if found is None:
        text = os.path.normpath(target)
        return text if link_stays_inside(depth, text) else None
    here = frame.path(b"").rstrip(b"/") or b"/"
    text = os.path.relpath(os.path.realpath(os.path.join(here, target)), os.path.realpath(here))
    if not link_stays_inside(depth, text):
        return None
    try:
        same = os.path.samestat(found, os.stat(text, dir_fd=frame.opened))
    except OSError:
        return None
    return text if same else None


def _not_storable(refused: list[str]) -> UnsupportedFileType:
    more = f"; and {len(refused) - _MOST_TOLD} more" if len(refused) > _MOST_TOLD else ""
    told = "; ".join(refused[:_MOST_TOLD])
    return UnsupportedFileType(
        f"{told[0].upper()}{told[1:]}{more}.",
        "Nothing was added. Remove or mend them, leave them out with .datasetignore, or follow links to folders.",
    )


def _special(path: bytes) -> UnsupportedFileType:
    return UnsupportedFileType(
        f"{shown(path)} is a device, socket or fifo.",
        "A dataset holds files, folders and links; remove it or leave it out.",
    )


def _unreachable(error: OSError, path: bytes) -> DatasetStoreError:
    """What an error means for a path that a caller gave."""
    if error.errno == errno.ELOOP:
        return PathNotFound(f"The link {shown(path)} leads nowhere but to itself.", "Give something that exists.")
    return reading_error(error, path)


def _no_such(path: bytes) -> PathNotFound:
    return PathNotFound(f"There is nothing at {shown(path)}.", "Look at the path; a relative one starts here.")


def _replaced(path: bytes) -> FileChanged:
    return FileChanged(
        f"{shown(path)} was replaced while the folder was read.",
        "Nothing was added; run it again when nothing writes to the folder.",
    )
