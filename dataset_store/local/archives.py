"""Archives, extracted into a folder and never out of it.

Promises: every member comes to lie inside the folder, under the name that the archive gives it, or nothing counts: a
member that is absolute, leaves the folder, stands twice, or is neither file, directory nor link inside is an error. No
more bytes are written than the archive declares and the disk has free. After an error the owner removes the folder.
"""

import shutil
import stat
import tarfile
import time
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import IO, Final

from dataset_store.core.paths import PathKey, to_key
from dataset_store.errors import CorruptObject, DiskFull, InvalidPath, UnsupportedFileType
from dataset_store.local.folder_writer import FolderWriter

__all__ = ["ARCHIVES", "extract_archive"]

ARCHIVES: Final = (".zip", ".tar.gz", ".tgz")
"""The ends of names of what can be extracted, in lower case."""

_PIECE: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class _Member:
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
    total, free = 0, shutil.disk_usage(folder).free
    with FolderWriter(folder, read_only=True) as writer:
        for member in _members(archive):
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
    return total


def _write(writer: FolderWriter, member: _Member, content: IO[bytes], archive: str) -> None:
    opened = writer.create_file(member.key, executable=member.executable)
    at = 0
    try:
        while piece := content.read(_PIECE):
            if at + len(piece) > member.size:
                raise _damaged(archive, "a file is longer than it says")
            writer.write_at(opened, member.key, memoryview(piece), at)
            at += len(piece)
    finally:
        writer.close_file(opened, member.key, member.mtime_ns)
    if at != member.size:
        raise _damaged(archive, "a file is shorter than it says")


def _members(archive: str) -> Iterator[_Member]:
    with _reading(archive):
        yield from _zip_members(archive) if archive.lower().endswith(".zip") else _tar_members(archive)


@contextmanager
def _reading(archive: str) -> Iterator[None]:
    try:
        yield
    except (zipfile.BadZipFile, tarfile.TarError, EOFError, NotImplementedError, RuntimeError, ValueError) as error:
        if isinstance(error, InvalidPath | UnsupportedFileType):
            raise
        raise _damaged(archive, str(error) or type(error).__name__) from error


def _zip_members(archive: str) -> Iterator[_Member]:
    with zipfile.ZipFile(archive) as opened:
        for info in opened.infolist():
            mode = info.external_attr >> 16
            kind = stat.S_IFMT(mode)
            if kind not in {0, stat.S_IFREG, stat.S_IFDIR, stat.S_IFLNK}:
                raise _odd(archive, info.filename)
            with opened.open(info) as content:
                link = content.read(4_096) if kind == stat.S_IFLNK else None
                yield _Member(
                    to_key(info.filename.rstrip("/") if info.is_dir() else info.filename),
                    0 if info.is_dir() or link is not None else info.file_size,
                    _nanoseconds(info.date_time),
                    bool(mode & stat.S_IXUSR),
                    info.is_dir(),
                    link,
                    content,
                )


def _tar_members(archive: str) -> Iterator[_Member]:
    with tarfile.open(archive, "r:gz") as opened:
        for info in opened:
            name = info.name.removeprefix("./").rstrip("/")
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
