"""Archives, extracted into a folder and never out of it.

Promises: every member comes to lie inside the folder, under the name that the archive gives it, or nothing counts: a
member that is absolute, leaves the folder, stands twice, or is neither file, directory nor link inside is an error. No
more bytes are written than the archive declares and the disk has free. After an error the owner removes the folder.
"""

import gzip
import lzma
import shutil
import stat
import tarfile
import time
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import IO, Final

from msgspec import Struct

from dataset_store.core.paths import PathKey, to_key, to_text
from dataset_store.errors import CorruptObject, DatasetStoreError, DiskFull, UnsupportedFileType
from dataset_store.local.folder_writer import FolderWriter

__all__ = ["ARCHIVES", "extract_archive"]

ARCHIVES: Final = (".zip", ".tar.gz", ".tgz")
"""The ends of names of what can be extracted, in lower case."""

_PIECE: Final = 1 << 20
_MOST_HEADER_BYTES: Final = 1 << 20
"""Of what a tar file says of a member beside its own header: long names and the like."""

_WRONG: Final = (
    EOFError,
    NotImplementedError,
    OverflowError,
    RuntimeError,
    ValueError,
    lzma.LZMAError,
    tarfile.TarError,
    zipfile.BadZipFile,
    zlib.error,
)
"""What the readers of archives raise of damaged ones."""


class _Member(Struct, frozen=True):
    key: PathKey
    size: int
    mtime_ns: int
    executable: bool
    is_directory: bool
    link: bytes | None
    content: IO[bytes] | None


def extract_archive(archive: str, folder: str) -> int:
    """Extract an archive into an empty folder; how many bytes its files have together.

    Raises:
        InvalidPath: A member's name leads out of the folder.
        UnsupportedFileType: A member is a device, or a link that leaves the folder.
        CorruptObject: It is no such archive, or damaged.
        DiskFull: The disk has less space than the archive declares.
    """
    links: list[tuple[PathKey, bytes]] = []
    directories: list[PathKey] = []
    taken: dict[PathKey, bool] = {}
    total, free = 0, shutil.disk_usage(folder).free
    with FolderWriter(folder, read_only=True) as writer, _reading(archive):
        for member in _members(archive):
            _require_new(member, taken, archive)
            total += member.size
            if total > free:
                raise DiskFull(f"The files of {archive} need more than the {free:,} bytes that are free.", "Make room.")
            if member.link is not None:
                links.append((member.key, member.link))
            elif member.is_directory:
                directories.append(member.key)
            elif member.content is not None:
                _write(writer, member, member.content, archive)
        for key in directories:
            writer.make_directory(key)
        writer.symlinks([key for key, _ in links], [target for _, target in links])
        writer.seal()
    return total


def _require_new(member: _Member, taken: dict[PathKey, bool], archive: str) -> None:
    """Refuse a name that stands twice, or is a file's and a directory's; `taken` tells of each if it is the latter."""
    names = member.key.split(b"\0")
    above = [PathKey(b"\0".join(names[:depth])) for depth in range(1, len(names))]
    doubled = taken.get(member.key, member.is_directory) != member.is_directory or (
        member.key in taken and not member.is_directory
    )
    if doubled or any(not taken.get(key, True) for key in above):
        raise _damaged(archive, f"it has {to_text(member.key)!r} twice, or as a file and as a directory")
    taken.update(dict.fromkeys(above, True))
    taken[member.key] = member.is_directory


def _write(writer: FolderWriter, member: _Member, content: IO[bytes], archive: str) -> None:
    at = 0
    with writer.writing(member.key, executable=member.executable, mtime_ns=member.mtime_ns) as write:
        while piece := content.read(_PIECE):
            at += len(piece)
            if at > member.size:
                raise _damaged(archive, "a file is longer than it says")
            write(piece)
    if at != member.size:
        raise _damaged(archive, "a file is shorter than it says")


def _members(archive: str) -> Iterator[_Member]:
    return _zip_members(archive) if archive.lower().endswith(".zip") else _tar_members(archive)


@contextmanager
def _reading(archive: str) -> Iterator[None]:
    try:
        yield
    except DatasetStoreError:
        raise
    except (*_WRONG, OSError) as error:
        raise _damaged(archive, str(error) or type(error).__name__) from error


def _zip_members(archive: str) -> Iterator[_Member]:
    with zipfile.ZipFile(archive) as opened:
        for info in opened.infolist():
            mode = info.external_attr >> 16
            kind = stat.S_IFMT(mode)
            if kind not in {0, stat.S_IFREG, stat.S_IFDIR, stat.S_IFLNK}:
                raise _odd(archive, info.filename)
            if not info.filename:  # zipfile cuts a name at a zero byte, and does not expect that nothing is left
                raise _damaged(archive, "a member has no name")
            with opened.open(info) as content:
                if _name(info.filename) in {"", "."} and info.is_dir():
                    continue
                link = content.read(4_096) if kind == stat.S_IFLNK else None
                yield _Member(
                    to_key(_name(info.filename)),
                    0 if info.is_dir() or link is not None else info.file_size,
                    _nanoseconds(info.date_time),
                    bool(mode & stat.S_IXUSR),
                    info.is_dir(),
                    link,
                    content,
                )


def _tar_members(archive: str) -> Iterator[_Member]:
    with gzip.open(archive) as plain, tarfile.open(fileobj=plain, mode="r:", tarinfo=_Info) as opened:
        for info in opened:
            name = _name(info.name)
            if name in {"", "."} and info.isdir():
                continue
            if not (info.isreg() or info.isdir() or info.issym()):
                raise _odd(archive, info.name)
            yield _Member(
                to_key(name),
                info.size if info.isreg() else 0,
                int(info.mtime) * 10**9,
                bool(info.mode & stat.S_IXUSR),
                info.isdir(),
                info.linkname.encode("utf-8", "surrogateescape") if info.issym() else None,
                opened.extractfile(info) if info.isreg() else None,
            )
        while plain.read(_PIECE):
            pass  # to its end, where the checksum of all of it stands


class _Info(tarfile.TarInfo):
    """A member whose extra headers are not read where they are absurdly long."""

    def _proc_pax(self, tar: tarfile.TarFile) -> tarfile.TarInfo:
        return self._bounded(super()._proc_pax, tar)  # type: ignore[misc]

    def _proc_gnulong(self, tar: tarfile.TarFile) -> tarfile.TarInfo:
        return self._bounded(super()._proc_gnulong, tar)  # type: ignore[misc]

    def _bounded(self, read: Callable[[tarfile.TarFile], tarfile.TarInfo], tar: tarfile.TarFile) -> tarfile.TarInfo:
        if self.size > _MOST_HEADER_BYTES:
            raise tarfile.ReadError("a header is too long")
        return read(tar)


def _name(name: str) -> str:
    return name.removeprefix("./").rstrip("/")


def _nanoseconds(date_time: tuple[int, int, int, int, int, int]) -> int:
    """A zip's time, which is local and may be none, in ns since 1970."""
    try:
        return int(time.mktime((*date_time, 0, 0, -1))) * 10**9
    except (OverflowError, ValueError):
        return 0


def _odd(archive: str, name: str) -> UnsupportedFileType:
    return UnsupportedFileType(
        f"{name!r} in {archive} is a device, a hard link or another odd thing.", "Extract it by hand if you trust it."
    )


def _damaged(archive: str, why: str) -> CorruptObject:
    return CorruptObject(f"{archive} cannot be extracted: {why}.", "Fetch it again, or look at it by hand.")
