"""Faults put into the package at run time, each by replacing one function; a test shows that each is found."""

import os
import stat
from collections.abc import Callable

from dataset_store.local import local_copies
from dataset_store.storage import posix_backend
from dataset_store.storage.posix_backend import PosixBackend


def no_fsync() -> None:
    """Files of the store get their names before their bytes are flushed."""
    flush = posix_backend._flush  # type: ignore[attr-defined]
    posix_backend._flush = lambda file: stat.S_ISDIR(os.fstat(file).st_mode) and flush(file)  # type: ignore[attr-defined]


def no_directory_fsync() -> None:
    """What is acknowledged has no durable name."""
    posix_backend._flush_folder = lambda _folder: None  # type: ignore[attr-defined]


def log_before_packs() -> None:
    """Packs wait in memory until the log entry was created."""
    waiting: list[tuple[PosixBackend, object, list[bytes]]] = []
    put, create = PosixBackend.put, PosixBackend.create

    def put_later(backend, key, buffers):  # type: ignore[no-untyped-def]
        waiting.append((backend, key, [bytes(buffer) for buffer in buffers]))

    def create_first(backend, key, buffers):  # type: ignore[no-untyped-def]
        made = create(backend, key, buffers)
        while key.startswith("log/") and waiting:
            put(*waiting.pop(0))
        return made

    PosixBackend.put, PosixBackend.create = put_later, create_first  # type: ignore[method-assign]


def write_in_place() -> None:
    """Objects have their names while they are written."""

    def write(_backend, folder, name, buffers):  # type: ignore[no-untyped-def]
        try:
            file = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644, dir_fd=folder)
        except FileExistsError:
            return False
        try:
            posix_backend._fill(file, buffers)  # type: ignore[attr-defined]
            posix_backend._flush_folder(folder)  # type: ignore[attr-defined]
        finally:
            os.close(file)
        return True

    PosixBackend._write_nameless = write  # type: ignore[method-assign]


def copies_not_flushed() -> None:
    """A local copy is stamped before its files are flushed."""
    local_copies.flush_tree = lambda _folder: None  # type: ignore[attr-defined]


PLANTS: dict[str, Callable[[], None]] = {
    "no fsync": no_fsync,
    "no directory fsync": no_directory_fsync,
    "log before packs": log_before_packs,
    "write in place": write_in_place,
    "copies not flushed": copies_not_flushed,
}
