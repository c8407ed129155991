"""Frames that an error came through, emptied: an error that is kept must not keep what was to be sent.

Promises: what is still running, and what the caller of this was handling before, is not touched; line numbers stay.
"""

from contextlib import suppress
from types import FrameType

__all__ = ["let_go"]


def let_go(error: BaseException, of_caller: BaseException | None) -> None:
    """Empty the frames that an error came through, and those of the errors that led to it.

    Some clients keep errors in variables of frames that those errors hold. So both would stay until the collector of
    cycles comes, and with them the frames of all callers and what those were to send.

    Args:
        error: What was raised.
        of_caller: What was being handled before it: no frame of that, or of what led to it, is ours.
    """
    told: BaseException | None = error
    seen = {id(of_caller)}
    while told is not None and id(told) not in seen:
        seen.add(id(told))
        level = told.__traceback__
        while level is not None:
            _empty_ended(level.tb_frame)
            level = level.tb_next
        told = told.__cause__ or told.__context__


def _empty_ended(frame: FrameType | None) -> None:
    """Empty a frame and its callers, some of which have returned the error, up to the first that still runs."""
    with suppress(RuntimeError):
        while frame is not None:
            frame.clear()
            frame = frame.f_back
