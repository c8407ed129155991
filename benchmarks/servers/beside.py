"""Servers beside what is measured, each a process of its own: they print their port, and end with their input."""

import json
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

_ROOT = Path(__file__).parents[2]


@contextmanager
def beside(name: str) -> Iterator[str]:
    """The address of a server of this folder while it runs, as `http://127.0.0.1:8000`."""
    argv = [sys.executable, "-m", f"benchmarks.servers.{name}"]
    with subprocess.Popen(argv, cwd=_ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdin is not None
        try:
            yield f"http://127.0.0.1:{process.stdout.readline().strip()}"
        finally:
            process.stdin.close()


def ask(address: str, path: str, body: Mapping[str, Any] | None = None, method: str | None = None) -> Any:
    """What a server answers, read as JSON."""
    data = None if body is None else json.dumps(body).encode()
    with urlopen(Request(f"{address}/{path}", data, method=method), timeout=30) as reply:
        return json.load(reply)
