"""Gives a decoder many inputs, in a process of its own whose memory is bounded.

    python tests/fuzz/fuzz.py                               # the names of the decoders
    python tests/fuzz/fuzz.py node --count 1000000          # findings go to the folder that --findings names
    python tests/fuzz/fuzz.py all

Prints one line of JSON for each. Memory is bounded by what the process holds once it has loaded everything, and a
little more.
"""

import argparse
import contextlib
import faulthandler
import json
import logging
import resource
import signal
import sys
import time
import warnings
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import FrameType

from local_targets import TARGETS as LOCAL
from mutation import Finding, inputs, run
from stored_targets import TARGETS as STORED

__all__ = ["TARGETS", "TooSlow", "given_a_second_each", "main"]

TARGETS = STORED | LOCAL
WARM = 50
SPARE = 192 << 20
"""Bytes of address space beyond those in use: more than any decoder's largest object, twice, and less than any bomb."""

HANGS = 10
"""Seconds after which an input is broken off."""


class TooSlow(AssertionError):
    """An input was broken off."""


def _broken_off(_signal: int, _frame: FrameType | None) -> None:
    raise TooSlow(f"it took more than {HANGS} s")


def given_a_second_each(given: Iterable[bytes]) -> Iterator[bytes]:
    """The same inputs; whoever takes longer than `HANGS` over one is broken off."""
    signal.signal(signal.SIGALRM, _broken_off)
    try:
        for data in given:
            signal.setitimer(signal.ITIMER_REAL, HANGS)
            yield data
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


def _bound_memory() -> None:
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + SPARE
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


def _keep(folder: Path, name: str, findings: list[Finding]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for number, finding in enumerate(findings):
        (folder / f"{name}-{number}").write_bytes(finding.data)


def _fuzzed(name: str, given: Iterable[bytes]) -> tuple[dict[str, object], list[Finding]]:
    """What came of inputs of one decoder, in words, and the findings."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    begun = time.monotonic()
    found = run(TARGETS[name], given_a_second_each(given))
    told = {
        "decoder": name,
        "executions": found.executions,
        "accepted": found.accepted,
        "slowest_seconds": round(found.slowest, 3),
        "grown_mib": (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) >> 10,
        "minutes": round((time.monotonic() - begun) / 60, 2),
        "findings": [finding.problem for finding in found.findings],
    }
    return told, found.findings


def main(words: list[str]) -> int:
    """Run decoders one after another; 1 if any answered an input with what it must not."""
    logging.getLogger("dataset_store").setLevel(logging.CRITICAL)  # rules that are none are told of
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", choices=[*TARGETS, "all", []])
    parser.add_argument("--count", type=int, default=20_000)
    parser.add_argument("--start", type=int, default=0, help="the batch to begin with")
    parser.add_argument("--corpus", type=Path, help="a folder of inputs for each decoder, instead")
    parser.add_argument("--findings", type=Path, default=Path("build/fuzz"))
    given = parser.parse_args(words)
    if not given.names:
        print("\n".join(TARGETS))
        return 0
    names = list(TARGETS) if given.names == ["all"] else given.names
    warnings.simplefilter("ignore")
    faulthandler.enable()
    for name in names:
        run(TARGETS[name], inputs(TARGETS[name], name, given.start, WARM))
    _bound_memory()
    failed = False
    for name in names:
        made = inputs(TARGETS[name], name, given.start, given.count)
        kept = given.corpus and (path.read_bytes() for path in sorted((given.corpus / name).glob("*")))
        told, findings = _fuzzed(name, kept or made)
        print(json.dumps(told), flush=True)
        if findings:
            failed = True
            with contextlib.suppress(OSError):
                _keep(given.findings, name, findings)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
