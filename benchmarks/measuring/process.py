"""Commands measured as whole processes: wall and processor time, peak memory, and the `sync` that follows."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

MOST_SECONDS = 3600

LAUNCHER = Path(__file__).with_name("launcher.py")


@dataclass(frozen=True)
class Command:
    """One process: its words, the folder that it runs in, what it has of an environment besides PATH and HOME."""

    argv: Sequence[str]
    cwd: Path
    env: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Timing:
    """What commands took, one after another.

    Attributes:
        wall: Seconds.
        cpu: Seconds of processor time, of their children too.
        sync: Seconds that `sync` took after them.
        peak: The largest resident set of any of their processes, in bytes.
        output: What they wrote.
    """

    wall: float
    cpu: float
    sync: float
    peak: int
    output: str


class CommandFailed(Exception):
    """A command ended with an error."""


def environment(command: Command, home: Path) -> dict[str, str]:
    """What a command sees: nothing of the caller's environment but PATH, so that its settings do not count."""
    base = {"PATH": os.environ["PATH"], "HOME": str(home), "LANG": "C.UTF-8", "NO_COLOR": "1"}
    return base | dict(command.env)


def launched(asked: str) -> str:
    """What the launcher tells. Whatever ends this, and time does, ends all processes that it began.

    Raises:
        CommandFailed: It took longer than an hour.
    """
    words = [sys.executable, "-I", "-S", str(LAUNCHER)]
    with subprocess.Popen(
        words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True
    ) as launcher:
        try:
            told, _ = launcher.communicate(asked, timeout=MOST_SECONDS)
        except subprocess.TimeoutExpired:
            os.killpg(launcher.pid, signal.SIGKILL)
            raise CommandFailed(f"{asked[:300]}: not done after {MOST_SECONDS} seconds") from None
        except BaseException:
            os.killpg(launcher.pid, signal.SIGKILL)
            raise
    if launcher.returncode:
        raise subprocess.CalledProcessError(launcher.returncode, words)
    return told


def measure(commands: Sequence[Command], home: Path) -> Timing:
    """Run commands one after another, each as a process of its own, then `sync`.

    Raises:
        CommandFailed: One ended with an error.
    """
    home.mkdir(exist_ok=True)
    output = home / "output.txt"
    output.unlink(missing_ok=True)
    asked = [
        {"argv": list(one.argv), "cwd": str(one.cwd), "env": environment(one, home), "output": str(output)}
        for one in commands
    ]
    results = json.loads(launched(json.dumps(asked)))
    text = output.read_text(errors="replace") if output.exists() else ""
    if results[-1]["code"]:
        words = " ".join(commands[len(results) - 1].argv)
        raise CommandFailed(f"{words[:300]}: exit {results[-1]['code']}: {text[-1000:]}")
    began = time.perf_counter()
    os.sync()
    return Timing(
        wall=sum(one["wall"] for one in results),
        cpu=sum(one["cpu"] for one in results),
        sync=time.perf_counter() - began,
        peak=max(one["peak"] for one in results),
        output=text,
    )
