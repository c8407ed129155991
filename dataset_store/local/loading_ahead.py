"""numpy, loaded in another thread by a process that is about to wait for a store that is far away.

Where loading it takes as long as an answer, it costs nothing so. A process that forks must not: a child that is forked
in the midst of it finds a lock that nobody opens. So it is done only where the process was said never to fork.
"""

from importlib import import_module
from threading import Thread

__all__ = ["allow_loading_ahead", "load_ahead"]

_allowed = False


def allow_loading_ahead() -> None:
    """Say that this process never forks."""
    global _allowed  # noqa: PLW0603  (a fact of the process)
    _allowed = True


def load_ahead() -> None:
    """Begin to load numpy, where that is allowed."""
    if _allowed:
        Thread(target=import_module, args=("numpy",), daemon=True).start()
