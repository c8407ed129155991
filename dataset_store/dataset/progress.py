"""A progress bar on standard error, only where that is a terminal."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

__all__ = ["progress_bar"]


@contextmanager
def progress_bar(what: str, total_bytes: int, *, show: bool) -> Iterator[Callable[[int], Any]]:
    """Yields a function that is told of bytes done since its last call.

    Args:
        what: What is being done, one or two words.
        total_bytes: Bytes to do.
        show: False, or a standard error that is no terminal, shows nothing.
    """
    if not show or not sys.stderr.isatty():
        yield lambda _bytes: None
        return
    # Loaded only where something is shown: it takes longer than many an upload.
    from rich.console import Console  # noqa: PLC0415
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn  # noqa: PLC0415

    columns = (
        TextColumn(what),
        BarColumn(),
        DownloadColumn(binary_units=True),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(what, total=total_bytes)
        yield lambda count: bar.advance(task, count)
