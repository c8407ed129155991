"""Faults put into the package at run time, each by replacing one function; a test shows that each is found."""

import os
import stat
from collections.abc import Callable

from dataset_store.local import local_copies
from dataset_store.storage import new_files, posix_backend
from dataset_store.storage.backend import CollectedWriter
from dataset_store.storage.new_files import NewFile
from dataset_store.storage.posix_backend import PosixBackend


def no_fsync() -> None:
    """Files of the store get their names before their bytes are flushed."""
    flush = new_files._flush
    new_files._flush = lambda file: flush(file) if stat.S_ISDIR(os.fstat(file).st_mode) else None


def no_directory_fsync() -> None:
    """What is acknowledged has no durable name."""
    new_files.flush_folder = posix_backend.flush_folder = lambda _folder: None  # type: ignore[attr-defined]


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
    PosixBackend.open_writer = CollectedWriter  # type: ignore[assignment, method-assign]


def write_in_place() -> None:
    """Objects have their names while they are written."""

    def new_file(_backend, folder, name):  # type: ignore[no-untyped-def]
        return NewFile(os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644, dir_fd=folder), folder, name)

    def publish(file):  # type: ignore[no-untyped-def]
        new_files.flush_folder(file.folder)
        return True

    PosixBackend._new_file = new_file  # type: ignore[method-assign]
    NewFile.publish = publish  # type: ignore[method-assign]


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
