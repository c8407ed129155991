"""Progress on standard error: files, bytes, rate and time left, only where somebody looks on and it takes a while.

That is a terminal, or the output of a notebook's cell, which is none but obeys carriage returns. One line is drawn, as
long as there is room for; nothing of it is left when the work is done.
"""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from threading import Lock, Timer
from typing import Protocol

from msgspec import Struct

__all__ = ["Told", "everything_shown", "progress_bar", "waiting"]

_WAIT = 0.5  # seconds; what is done sooner shows nothing, and need not load what draws
_PATIENCE = 1.0  # seconds that another process may keep this one waiting before that is said
_PAUSE = 0.2  # seconds between two lines in a notebook
_NOTEBOOK_COLUMNS = 80
_BAR_COLUMNS, _LEAST_BAR_COLUMNS = 20, 6
_UNITS = ("B", "KiB", "MiB", "GiB", "TiB", "PiB")

_everything: ContextVar[bool] = ContextVar("everything", default=False)


class Told(Protocol):
    """What an operation tells of itself; from any thread."""

    def __call__(self, files: int, count: int, /) -> object:
        """Add files and bytes that were done."""

    def expect(self, files: int, count: int, /) -> object:
        """How many files and bytes there are to do, where that was not known at first."""


@contextmanager
def everything_shown() -> Iterator[None]:
    """Within the block every long operation shows its progress; else only those that always do."""
    token = _everything.set(True)
    try:
        yield
    finally:
        _everything.reset(token)


@contextmanager
def progress_bar(
    what: str, total_bytes: int | None, total_files: int | None = None, *, show: bool = False
) -> Iterator[Told]:
    """Yields what is to be told of what was done.

    Args:
        what: What is being done, one or two words.
        total_bytes: Bytes to do; None where that is not known (yet).
        total_files: Files to do; None where that is not known (yet).
        show: Show it also outside of `everything_shown`.
    """
    canvas = _canvas(show=show)
    if canvas is None:
        yield _Silent()
        return
    bar = _Bar(canvas, what, total_bytes, total_files)
    try:
        yield bar
    finally:
        bar.close()


@contextmanager
def waiting(what: str, *, show: bool = False) -> Iterator[None]:
    """Says `what` once the block has lasted a second.

    Args:
        what: What is waited for.
        show: Show it also outside of `everything_shown`.
    """
    canvas = _canvas(show=show)
    if canvas is None:
        yield
        return
    drawn: list[_Canvas] = []
    timer = Timer(_PATIENCE, lambda: drawn.append(canvas(lambda columns: what[:columns])))
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        timer.join()
        for one in drawn:
            one.close()


class _Silent:
    """Nobody looks on."""

    def __call__(self, files: int, count: int, /) -> None:
        pass

    def expect(self, files: int, count: int, /) -> None:
        pass


class _Bar:
    """Counts, and appears once the operation has taken a while."""

    def __init__(
        self, canvas: "Callable[[_Line], _Canvas]", what: str, total_bytes: int | None, total_files: int | None
    ) -> None:
        self._canvas = canvas
        self._begun = time.monotonic()
        self._lock = Lock()
        self._done = _Done(what, total_files, total_bytes)
        self._drawn: _Canvas | None = None

    def __call__(self, files: int, count: int, /) -> None:
        with self._lock:
            self._done.files += files
            self._done.bytes += count
            if self._drawn is not None:
                self._drawn.update()
            elif time.monotonic() - self._begun >= _WAIT:
                self._drawn = self._canvas(self._line)

    def expect(self, files: int, count: int, /) -> None:
        with self._lock:
            self._done.total_files, self._done.total_bytes = files, count

    def close(self) -> None:
        if self._drawn is not None:
            self._drawn.close()

    def _line(self, columns: int) -> str:
        return line_of(self._done, time.monotonic() - self._begun, columns)


# --- the line --------------------------------------------------------------------------------------------------------


class _Done(Struct):
    """What was done of what."""

    what: str
    total_files: int | None
    total_bytes: int | None
    files: int = 0
    bytes: int = 0


def line_of(done: _Done, seconds: float, columns: int) -> str:
    """All that there is room for: the bar gives way first, then the rate, the files and the time left."""
    rate = done.bytes / seconds if seconds > 0 else 0.0
    speed = f"{_scaled(rate, _unit(rate))} {_UNITS[_unit(rate)]}/s" if rate else ""
    amount, files, left = _bytes(done), _files(done), _left(done, rate)
    whole = _joined(amount, files, speed, left)
    room = min(_BAR_COLUMNS, columns - len(_joined(done.what, whole)) - len("  []"))
    if room >= _LEAST_BAR_COLUMNS and done.total_bytes:
        return _joined(done.what, _bar(done.bytes / done.total_bytes, room), whole)
    lines = (_joined(done.what, *rest) for rest in ((whole,), (amount, files, left), (amount, left), (amount,)))
    return next((line for line in lines if len(line) <= columns), done.what[:columns])


def _joined(*parts: str) -> str:
    return "  ".join(filter(None, parts))


def _bar(part: float, columns: int) -> str:
    full = min(columns, int(columns * part))
    return f"[{'#' * full}{'-' * (columns - full)}]"


def _bytes(done: _Done) -> str:
    unit = _unit(done.bytes if done.total_bytes is None else done.total_bytes)
    of = "" if done.total_bytes is None else f"/{_scaled(done.total_bytes, unit)}"
    return f"{_scaled(done.bytes, unit)}{of} {_UNITS[unit]}"


def _files(done: _Done) -> str:
    of = "" if done.total_files is None else f"/{done.total_files:,}"
    many = done.files if done.total_files is None else done.total_files
    return f"{done.files:,}{of} {'file' if many == 1 else 'files'}"


def _left(done: _Done, rate: float) -> str:
    if done.total_bytes is None or not rate:
        return ""
    minutes, seconds = divmod(round(max(0, done.total_bytes - done.bytes) / rate), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{seconds:02}"


def _unit(count: float) -> int:
    """The unit in which people read so many bytes."""
    unit = 0
    while count >= 1024 and unit < len(_UNITS) - 1:
        count /= 1024
        unit += 1
    return unit


def _scaled(count: float, unit: int) -> str:
    return f"{count / 1024**unit:.1f}" if unit else f"{count:.0f}"


# --- where it is drawn -----------------------------------------------------------------------------------------------

_Line = Callable[[int], str]
"""The line now, in at most so many columns."""


class _Canvas(Protocol):
    """Where a line is drawn, from when this is made until it is closed."""

    def update(self) -> None:
        """The line may have changed."""

    def close(self) -> None:
        """Take it away."""


def _canvas(*, show: bool) -> Callable[[_Line], _Canvas] | None:
    """How standard error is drawn on; None where nobody looks on."""
    if not (show or _everything.get()):
        return None
    if sys.stderr.isatty():
        return _Terminal
    return _Notebook if type(sys.stderr).__module__.partition(".")[0] == "ipykernel" else None


class _Terminal:
    """A line of a terminal, drawn anew ten times a second; what is written meanwhile stands above it."""

    def __init__(self, line: _Line) -> None:
        # Loaded only where something is shown: it takes longer than many an upload.
        from rich.console import Console  # noqa: PLC0415
        from rich.live import Live  # noqa: PLC0415
        from rich.text import Text  # noqa: PLC0415

        console = Console(stderr=True)
        self._live = Live(
            get_renderable=lambda: Text(line(console.width), no_wrap=True, overflow="crop"),
            console=console,
            refresh_per_second=10,
            transient=True,
            redirect_stdout=False,
        )
        self._live.start()

    def update(self) -> None:
        """It is drawn again soon anyway."""

    def close(self) -> None:
        self._live.stop()


class _Notebook:
    """A line of a notebook's output, begun anew with a carriage return."""

    def __init__(self, line: _Line) -> None:
        self._line = line
        self._stream = sys.stderr
        self._next = 0.0
        self.update()

    def update(self) -> None:
        now = time.monotonic()
        if now >= self._next:
            self._next = now + _PAUSE
            self._write(self._line(_NOTEBOOK_COLUMNS))

    def close(self) -> None:
        self._write("")
        self._stream.write("\r")

    def _write(self, text: str) -> None:
        self._stream.write(f"\r{text:<{_NOTEBOOK_COLUMNS}}")
        self._stream.flush()
