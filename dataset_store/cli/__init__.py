"""The command line, `dataset-store`: how a call begins and ends, whatever the command.

Promises: results go to standard output and all else to standard error; an error of this package ends a call with one
line that says what happened, one that says what to do next, and the exit code of its kind; no traceback is shown
unless `--debug` is given; the environment is afterwards what it was. Help and usage errors load no engine.
"""

import os
import signal
import sys
import threading
from argparse import Namespace
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module

from dataset_store.cli.arguments import STORE_VARIABLE, build_parser
from dataset_store.cli.output import OutputLost, flush_out, json_out, note, problem
from dataset_store.errors import DatasetStoreError, InvalidRequest

__all__ = ["INTERRUPTED", "TERMINATED", "main"]

INTERRUPTED = 130
_NOBODY_READS = 141
TERMINATED = 143
"""What a shell reports of a process that was ended by SIGINT, by SIGPIPE, and by SIGTERM."""


_PATIENCE = 1.0
"""Seconds after Ctrl-C until it is said that something is still waited for."""


class _Terminated(KeyboardInterrupt):
    """SIGTERM: it ends a call as Ctrl-C does, so that what was begun is cleared away."""


def main(argv: Sequence[str] | None = None) -> int:
    """Carry out one command.

    Args:
        argv: The words after the program's name; by default those of this process.

    Returns:
        The exit code: 0 done, 1 failed, 2 the call was wrong, 3 not found, 4 conflict, 5 corrupt, 130 interrupted,
        141 nobody reads what is printed, 143 terminated.
    """
    words = sys.argv[1:] if argv is None else list(argv)
    try:
        with _environment_kept(), _signals_raised():
            code = _outcome(words)
        flush_out()
    except BrokenPipeError:
        _drop_output()
        return _NOBODY_READS
    except OutputLost as error:
        _drop_output()
        problem("Error", f"Standard output cannot be written: {error}.")
        return 1
    except KeyboardInterrupt as ended:
        word, code = ("Terminated", TERMINATED) if isinstance(ended, _Terminated) else ("Interrupted", INTERRUPTED)
        note(f"{word}; what was acknowledged is safe, repeat the command to go on.")
    return code


def _outcome(words: Sequence[str]) -> int:
    """Parse and run; errors become messages and exit codes."""
    try:
        return _run(build_parser(words).parse_args(words))
    except SystemExit as done:  # argparse's, after help and version
        return int(done.code or 0)
    except DatasetStoreError as error:
        _raise_interrupt_behind(error)
        return _failed(words, error)
    except (BrokenPipeError, OutputLost):
        raise
    except Exception as error:  # noqa: BLE001  (the last resort: whatever it is, no traceback)
        _raise_interrupt_behind(error)
        return _failed_inside(words, error)


def _raise_interrupt_behind(error: BaseException | None) -> None:
    """Raise the interrupt that an error came of: one that hits a wait for a lock makes the lock's own end fail."""
    seen = set[int]()  # a driver may make errors causes of each other
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        if isinstance(error, KeyboardInterrupt):
            raise error
        error = error.__cause__ or error.__context__


def _run(arguments: Namespace) -> int:
    if arguments.command is None:
        build_parser().print_help()
        return 2
    if arguments.store == "":
        raise InvalidRequest("The store is empty.", "Give --store a URL or a path; an unset variable is none.")
    if arguments.store is not None:
        os.environ[STORE_VARIABLE] = arguments.store
    module, _, function = arguments.run.partition(":")
    from dataset_store.cli.session import library_messages, progress_shown

    with library_messages(verbose=getattr(arguments, "verbose", False)), progress_shown():
        code: int = getattr(import_module(f"dataset_store.cli.{module}"), function)(arguments)
    return code


def _failed(words: Sequence[str], error: DatasetStoreError) -> int:
    _trace(words)
    problem("Error", error.what, error.next_step)
    if "--json" in words:
        json_out({"error": {"kind": error.kind, "what": error.what, "next_step": error.next_step}})
    return error.exit_code


def _failed_inside(words: Sequence[str], error: Exception) -> int:
    what = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    _trace(words)
    problem("Internal error", f"{what}; repeat with --debug")
    if "--json" in words:
        json_out({"error": {"kind": "internal", "what": what, "next_step": "repeat with --debug"}})
    return 1


def _trace(words: Sequence[str]) -> None:
    """Show where the present error came from, if that was asked for."""
    if "--debug" in words:
        import traceback

        traceback.print_exc()


@contextmanager
def _environment_kept() -> Iterator[None]:
    """Undo within this process what the command line does to the environment: it names the store."""
    before = os.environ.get(STORE_VARIABLE)
    try:
        yield
    finally:
        if before is None:
            os.environ.pop(STORE_VARIABLE, None)
        else:
            os.environ[STORE_VARIABLE] = before


@contextmanager
def _signals_raised() -> Iterator[None]:
    """Let SIGTERM end what is done here by an exception, as Ctrl-C does, and a second signal end the process.

    What the first ends clears up after itself, and may have to wait for others: a server that says nothing has 20 s.
    Where this is not the main thread, signals do what they did.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    waiting = threading.Timer(_PATIENCE, note, ["Waiting for what is under way; Ctrl-C again ends it at once."])
    waiting.daemon = True

    def raised(number: int, _frame: object) -> None:
        if waiting.ident is not None:
            os._exit(TERMINATED if number == signal.SIGTERM else INTERRUPTED)  # what was acknowledged is safe
        waiting.start()
        raise _Terminated if number == signal.SIGTERM else KeyboardInterrupt

    before = {signal.SIGTERM: signal.signal(signal.SIGTERM, raised)}
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        before[signal.SIGINT] = signal.signal(signal.SIGINT, raised)
    try:
        yield
    finally:
        waiting.cancel()
        for number, handler in before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)


def _drop_output() -> None:
    """Let what is still buffered go nowhere, so that the interpreter's end does not complain about it."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, sys.stdout.fileno())
    finally:
        os.close(nowhere)
