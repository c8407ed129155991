"""What the command line writes: results on standard output, everything else on standard error.

Promises: with `--json` standard output gets one document; colour goes to standard error only, where that is a
terminal and NO_COLOR is not set; text that came from names of files cannot move a terminal's cursor or break a line.
This module loads nothing of the engine.
"""

import os
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any, TextIO

__all__ = [
    "OutputLost",
    "age",
    "bytes_out",
    "flush_out",
    "json_out",
    "lines_out",
    "note",
    "problem",
    "shown",
    "size",
    "table",
    "text_out",
    "timestamp",
]

_UNITS = ("B", "KiB", "MiB", "GiB", "TiB", "PiB")


class OutputLost(Exception):
    """Standard output cannot be written: nothing more can be told there."""


def shown(text: str) -> str:
    """Text with everything that is not printable escaped."""
    if text.isprintable():
        return text
    return "".join(one if one.isprintable() else one.encode("unicode_escape").decode("ascii") for one in text)


def size(count: int) -> str:
    """Bytes for people: `0 B`, `1.5 KiB`, `20.0 GiB`."""
    value = float(count)
    for unit in _UNITS:
        # What would be shown as 1024.0 belongs to the next unit.
        if value < 1023.95 or unit == _UNITS[-1]:
            return f"{count} B" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1024
    raise AssertionError  # the last unit takes all


def timestamp(time_ns: int) -> str:
    """A label of time in UTC, as in ISO 8601; `time_ns` are ns since 1970."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time_ns // 10**9))


def age(time_ns: int) -> str:
    """A label of time as this machine's clock on the wall shows it, to the minute."""
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(time_ns // 10**9))


def table(header: Sequence[str], rows: Sequence[Sequence[str]], right: Sequence[int] = ()) -> list[str]:
    """Rows in columns, as lines. The columns numbered in `right` are flush right; the last is never padded."""
    columns = [_shown_all(column) for column in zip(header, *rows, strict=True)]
    padded = [_padded(column, to_right=number in right) for number, column in enumerate(columns)]
    return ["  ".join(row).rstrip() for row in zip(*padded, strict=True)]


def _shown_all(cells: Sequence[str]) -> Sequence[str]:
    return cells if "".join(cells).isprintable() else [shown(cell) for cell in cells]


def _padded(cells: Sequence[str], *, to_right: bool) -> list[str]:
    width = max(map(len, cells))
    return [cell.rjust(width) if to_right else cell.ljust(width) for cell in cells]


def lines_out(lines: Sequence[str]) -> None:
    """Write lines to standard output; what its encoding lacks is escaped."""
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
    text = "".join(f"{line}\n" for line in lines)
    text_out(text.encode(encoding, "backslashreplace").decode(encoding))


def json_out(document: Any) -> None:
    """Write the one document. Bytes of names that are no text are escaped surrogates."""
    import json

    text_out(json.dumps(document, indent=2) + "\n")


def text_out(text: str) -> None:
    """Write to standard output.

    Raises:
        OutputLost: It cannot be written.
        BrokenPipeError: Nobody reads any more.
    """
    with _telling_loss():
        sys.stdout.write(text)


def bytes_out(data: bytes) -> None:
    """Write bytes to standard output as they are. Raises as `text_out`."""
    with _telling_loss():
        sys.stdout.flush()
        sys.stdout.buffer.write(data)


def flush_out() -> None:
    """Let what was written go out. Raises as `text_out`."""
    with _telling_loss():
        sys.stdout.flush()


@contextmanager
def _telling_loss() -> Iterator[None]:
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        raise OutputLost(error.strerror or str(error)) from error


def note(text: str) -> None:
    """Say something that is no result."""
    _say(text, "")


def problem(label: str, what: str, next_step: str = "") -> None:
    """Say what went wrong, and on a line of its own what to do next."""
    _say(shown(what), label)
    if next_step:
        _say(shown(next_step), "")


def _say(text: str, label: str) -> None:
    stream = sys.stderr
    coloured = f"\033[1;31m{label}\033[0m" if _coloured(stream) else label
    encoding = getattr(stream, "encoding", None) or "utf-8"
    line = f"{coloured}: {text}\n" if label else f"{text}\n"
    with suppress(OSError):  # there is nowhere left to say it; the exit code still tells
        stream.write(line.encode(encoding, "backslashreplace").decode(encoding))
        stream.flush()


def _coloured(stream: TextIO) -> bool:
    return stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
