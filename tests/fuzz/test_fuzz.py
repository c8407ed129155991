"""Whatever bytes a decoder is given, it answers with a value or one of its own errors, soon and in little memory."""

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest
from fuzz import TARGETS
from mutation import Layer, Target, inputs, run

HERE = Path(__file__).parent
CORPUS = HERE / "corpus"


def process(*words: str) -> list[dict]:
    """What a process of bounded memory tells of each decoder."""
    done = subprocess.run([sys.executable, str(HERE / "fuzz.py"), *words], capture_output=True, text=True)
    told = [json.loads(line) for line in done.stdout.splitlines()]
    assert done.returncode == 0, (told, done.stderr[-2_000:])
    return told


def fuzzed(count: int, name: str) -> list[dict]:
    told = process(name, "--count", str(count))
    assert [row["executions"] for row in told] == [count] * len(told)
    return told


def test_every_decoder_answers_changed_objects_with_typed_errors_only():
    assert len(fuzzed(300, "all")) == len(TARGETS)


@pytest.mark.heavy
@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", TARGETS)
def test_thirty_thousand(name, tell):
    (told,) = fuzzed(30_000, name)
    tell("inputs of decoders", decoders=1, inputs=told["executions"], findings=len(told["findings"]))
    assert told["accepted"], "some inputs must get through, or nothing behind checksums is tried"


@pytest.mark.long
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("name", TARGETS)
def test_a_million(name, tell):
    (told,) = fuzzed(1_000_000, name)
    tell("inputs of decoders", decoders=1, inputs=told["executions"], findings=len(told["findings"]))


def test_what_once_was_answered_wrongly_is_not_any_more():
    told = process("all", "--corpus", str(CORPUS))
    tried = {row["decoder"]: row["executions"] for row in told if row["executions"]}
    assert tried == {path.name: len(list(path.iterdir())) for path in CORPUS.iterdir()}


# The engine can fail.


def test_inputs_are_the_same_each_time_and_differ_from_each_other():
    first = list(inputs(TARGETS["node"], "node", 0, 700))
    assert first == list(inputs(TARGETS["node"], "node", 0, 700))
    assert len(set(first)) > 500


def busy(seconds):
    end = time.thread_time() + seconds
    while time.thread_time() < end:
        pass


@pytest.mark.parametrize(
    ("decode", "problem"),
    [
        (lambda data: data[1_000_000], "IndexError"),
        (lambda data: bytes(1 << 50), "MemoryError"),
        (lambda data: busy(1.1), "it took"),
    ],
)
def test_a_decoder_that_does_anything_else_is_found(decode, problem):
    found = run(Target(decode, [Layer([b"x"])], (ValueError,)), [b"x"])
    assert [problem in finding.problem for finding in found.findings] == [True]


def test_memory_that_ran_out_is_found_behind_a_typed_error():
    def decode(_data):
        try:
            bytes(1 << 50)
        except MemoryError as error:
            raise ValueError("it is damaged") from error

    (finding,) = run(Target(decode, [Layer([b"x"])], (ValueError,)), [b"x"]).findings
    assert "MemoryError behind" in finding.problem
