"""Children of one process that has imported everything, and folders put back as they were."""

import os
import pickle
import pkgutil
import signal
from collections.abc import Callable
from importlib import import_module

import dataset_store

STUCK = 60
"""Seconds after which a child is taken to hang, and ended by a signal."""


def import_everything() -> None:
    """Load now what is loaded when it is first used: else every child does, and that is most of what it does."""
    for module in pkgutil.walk_packages(dataset_store.__path__, "dataset_store."):
        if not module.name.endswith(("__main__", "fsspec_backend")):
            import_module(module.name)
    for name in ("numpy.ma", "unicodedata", "tomllib", "difflib", "zstandard"):
        import_module(name)


def in_child(work: Callable[[], object]) -> tuple[int, object]:
    """Run `work` in a fork; the wait status, and what it returned, if it got so far."""
    source, target = os.pipe()
    child = os.fork()
    if not child:
        signal.alarm(STUCK)
        code = 1
        try:
            os.close(source)
            with os.fdopen(target, "wb") as pipe:
                pipe.write(pickle.dumps(work()))
            code = 0
        finally:
            os._exit(code)
    os.close(target)
    with os.fdopen(source, "rb") as pipe:
        told = pipe.read()
    _, status = os.waitpid(child, 0)
    return status, pickle.loads(told) if told else None


def copy_tree(source: str, target: str) -> None:
    """Copy a folder with times and modes."""
    os.mkdir(target)
    with os.scandir(source) as entries:
        for entry in entries:
            to = f"{target}/{entry.name}"
            if entry.is_symlink():
                os.symlink(os.readlink(entry.path), to)
            elif entry.is_dir():
                copy_tree(entry.path, to)
            else:
                copy_file(entry, to)
    status = os.stat(source)
    os.chmod(target, status.st_mode)
    os.utime(target, ns=(status.st_atime_ns, status.st_mtime_ns))


def copy_file(entry: os.DirEntry[str], to: str) -> None:
    status = entry.stat()
    source = os.open(entry.path, os.O_RDONLY)
    target = os.open(to, os.O_WRONLY | os.O_CREAT | os.O_EXCL, status.st_mode)
    left = status.st_size
    while left:
        left -= os.sendfile(target, source, None, left)
    os.utime(target, ns=(status.st_atime_ns, status.st_mtime_ns))
    os.close(target)
    os.close(source)
