"""The program `dataset-store`: a process for one command.

Most of the time of a short command goes into loading modules and taking them apart again; what that does needlessly is
left out here, where the process is ours alone.
"""

import atexit
import gc
import os
import sys
from contextlib import suppress
from typing import Final, NoReturn

from dataset_store.cli import INTERRUPTED, TERMINATED, main
from dataset_store.local.loading_ahead import allow_loading_ahead

__all__ = ["run"]

_COLLECTED_AFTER: Final = 50_000
"""Objects made, and not freed, after which cycles among them are looked for. Modules are many, and last."""


def run() -> NoReturn:
    """Carry out the command that this process was given, and end it with its exit code."""
    gc.set_threshold(_COLLECTED_AFTER)
    allow_loading_ahead()
    codes: list[int] = []
    if not sys.flags.dev_mode:  # there, what was not closed is to be told
        atexit.register(_end, codes)
    codes.append(main())
    if codes[0] in {INTERRUPTED, TERMINATED}:
        _end(codes)  # threads that still wait for a server are not waited for
    sys.exit(codes[0])


def _end(codes: list[int]) -> None:
    """End the process as it stands. Threads have ended, and what was registered later was called, as always."""
    if codes:
        with suppress(OSError, ValueError):
            sys.stderr.flush()
        os._exit(codes[0])
