"""Progress on standard error: bytes, files, rate and time left, only where that is a terminal and it takes a while."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from threading import Lock
from typing import Any

__all__ = ["Told", "everything_shown", "progress_bar"]

Told = Callable[[int, int], object]
"""Told of files and bytes done since the last call; from any thread."""

_WAIT = 0.5  # seconds; what is done sooner shows nothing, and need not load what draws

_everything: ContextVar[bool] = ContextVar("everything", default=False)


@contextmanager
def everything_shown() -> Iterator[None]:
    """Within the block every long operation shows its progress; else uploads only."""
    token = _everything.set(True)
    try:
        yield
    finally:
        _everything.reset(token)


@contextmanager
def progress_bar(what: str, total_bytes: int | None, *, show: bool = False) -> Iterator[Told]:
    """Yields a function that is told of what was done.

    Args:
        what: What is being done, one or two words.
        total_bytes: Bytes to do; None where that is not known.
        show: Show it also outside of `everything_shown`.
    """
    if not (show or _everything.get()) or not sys.stderr.isatty():
        yield lambda _files, _bytes: None
        return
    bar = _Bar(what, total_bytes)
    try:
        yield bar.advance
    finally:
        bar.close()


class _Bar:
    """A bar that appears once an operation has taken a while."""

    def __init__(self, what: str, total_bytes: int | None) -> None:
        self._what = what
        self._total = total_bytes
        self._begun = time.monotonic()
        self._lock = Lock()
        self._files = self._bytes = 0
        self._drawn: Any = None
        self._task: Any = None

    def advance(self, files: int, count: int) -> None:
        """Add to what was done."""
        with self._lock:
            self._files += files
            self._bytes += count
            if self._drawn is None and time.monotonic() - self._begun >= _WAIT:
                self._draw()
            if self._drawn is not None:
                self._drawn.update(self._task, completed=self._bytes, files=f"{self._files:,} files")

    def close(self) -> None:
        """Take the bar away."""
        if self._drawn is not None:
            self._drawn.stop()

    def _draw(self) -> None:
        # Loaded only where something is shown: it takes longer than many an upload.
        from rich.console import Console  # noqa: PLC0415
        from rich.progress import (  # noqa: PLC0415
            BarColumn,
            DownloadColumn,
            Progress,
            TextColumn,
            TimeRemainingColumn,
            TransferSpeedColumn,
        )

        self._drawn = Progress(
            TextColumn(self._what),
            BarColumn(),
            DownloadColumn(binary_units=True),
            TextColumn("{task.fields[files]}"),
            TransferSpeedColumn(),
            TimeRemainingColumn(),
            console=Console(stderr=True),
            transient=True,
        )
        self._task = self._drawn.add_task(self._what, total=self._total, files="")
        self._drawn.start()
