"""The benchmark program: folders follow from their seed, figures are of the commands alone, tables add up."""

import os
import shutil
import sys
import time
from dataclasses import replace
from itertools import product
from pathlib import Path

import pytest

from benchmarks import __main__ as program
from benchmarks import plots, report
from benchmarks.measuring import process
from benchmarks.measuring.folders import contents_of, taken_by
from benchmarks.measuring.process import Command, CommandFailed, measure
from benchmarks.measuring.samples import Sample, append, load
from benchmarks.running import without_programs
from benchmarks.systems import SYSTEMS
from benchmarks.systems.base import PEERS
from benchmarks.workloads import WORKLOADS


@pytest.mark.parametrize("name", WORKLOADS)
def test_a_workload_is_the_same_each_time_and_its_edit_changes_some_of_it(tmp_path, name):
    found = []
    for number in range(2):
        folder = tmp_path / str(number)
        folder.mkdir()
        workload = WORKLOADS[name](scale=0.001)
        workload.build(folder)
        before = contents_of(folder)
        workload.edit(folder)
        found.append((before, contents_of(folder)))
    assert found[0] == found[1]
    before, after = found[0]
    assert before != after
    assert set(before.values()) & set(after.values()) or name.startswith(("large", "chain"))


def test_a_command_is_charged_for_its_own_memory_and_not_for_ours(tmp_path):
    held = bytearray(300 << 20)  # what begins a process must not lend it its own size
    small = measure([Command([sys.executable, "-I", "-S", "-c", "pass"], tmp_path)], tmp_path / "home")
    large = measure(
        [Command([sys.executable, "-I", "-S", "-c", "x = b'x' * (100 << 20); print(len(x))"], tmp_path)],
        tmp_path / "home",
    )
    assert len(held) > large.peak > 100 << 20 > small.peak
    assert large.output == f"{100 << 20}\n"
    assert 0 < small.cpu < 30
    assert small.wall > 0


def test_a_command_sees_nothing_of_our_environment(tmp_path, monkeypatch):
    monkeypatch.setenv("DATASET_STORE_URL", "/somewhere")
    command = Command([sys.executable, "-c", "import os; print(sorted(os.environ))"], tmp_path, {"OWN": "1"})
    told = measure([command], tmp_path / "home").output
    assert "OWN" in told
    assert "DATASET_STORE_URL" not in told


def test_a_command_that_fails_is_named_with_what_it_wrote(tmp_path):
    failing = Command([sys.executable, "-c", "import sys; sys.exit('no such thing')"], tmp_path)
    with pytest.raises(CommandFailed, match="exit 1: no such thing"):
        measure([failing, failing], tmp_path / "home")


def test_a_file_of_two_names_takes_its_bytes_once(tmp_path):
    (tmp_path / "a").write_bytes(b"12345")
    os.link(tmp_path / "a", tmp_path / "b")
    assert taken_by([tmp_path, tmp_path / "a", tmp_path / "none"]) == (5, 1)


def test_tables_hold_medians_failures_and_the_best_other_system(tmp_path):
    path = tmp_path / "samples"
    for number, (ours, other) in enumerate([(1.0, 3.0), (9.0, 2.0), (2.0, 8.0)]):
        append(path, [Sample("small", "dataset_store", "diff", number, ours, 1.0, 0.5, 10**8)])
        append(path, [Sample("small", "restic", "diff", number, other, 1.0, 0.5, 10**8)])
        append(path, [Sample("small", "git", "diff", number, 0.1, 1.0, 0.5, 10**8)])
    append(path, [Sample("small", "restic", "list", 0, problem="broken")])
    text = "\n".join(report.tables(list(load([path]))))
    assert "| dataset_store | 2.00 | - |" in text
    assert "| restic | 3.00 | - (1 failed) |" in text
    assert "| best other / ours | 1.5 (restic) | - |" in text  # git stands beside, and is no measure


def test_each_round_begins_with_the_limits_and_then_with_another_system():
    turns = list(program.turns_of(WORKLOADS["small"](1.0, 1), ["restic", "borg"], 2))
    assert turns == [(0, "limit"), (0, "restic"), (0, "borg"), (1, "limit"), (1, "borg"), (1, "restic")]
    far = program.turns_of(WORKLOADS["small-far"](1.0, 1), ["restic", "borg", "dataset_store"], 1)
    assert list(far) == [(0, "limit"), (0, "restic"), (0, "dataset_store")]


def test_a_run_that_is_ended_goes_on_with_the_system_that_it_was_at(tmp_path, monkeypatch):
    def run(system, prepared, machine, number):
        yield Sample(prepared.workload.name, system.name, "diff", number)
        if (system.name, number) == ended_at:
            sys.exit(143)
        yield Sample(prepared.workload.name, system.name, "list", number)

    def run_limits(prepared, machine, number):
        yield Sample(prepared.workload.name, "limit", "hash", number)

    monkeypatch.setattr(program, "run", run)
    monkeypatch.setattr(program, "run_limits", run_limits)
    samples = tmp_path / "samples.jsonl"
    words = ["run", "--workload", "parquet", "--scale", "0.001", "--scratch", str(tmp_path), "--into", str(samples)]
    words += ["--rounds", "2", "--system", "restic", "borg"]
    first = [(0, "limit", "hash"), *product([0], ["restic", "borg"], ["diff", "list"])]
    second = [(1, "limit", "hash"), *product([1], ["borg", "restic"], ["diff", "list"])]
    ended_at = ("restic", 1)
    with pytest.raises(SystemExit):
        program.main(words)
    assert [(one.round, one.system, one.operation) for one in load([samples])] == first + second[:-2]
    ended_at = None
    assert program.main(words) == 0
    assert [(one.round, one.system, one.operation) for one in load([samples])] == first + second
    assert program.main(words) == 0
    assert len(list(load([samples]))) == len(first + second)


def test_commands_are_told_as_they_are_typed():
    words = f"{PEERS}/ours/bin/dataset-store get {PEERS}/bin/x {sys.prefix}/bin/python /copies/bin/y"
    assert without_programs(words) == "dataset-store get x python /copies/bin/y"
    sample = Sample("small", "restic", "diff", 0, 1.0, commands=["restic diff | a <b>", "second"])
    text = "\n".join(report.commands([sample, replace(sample, round=1, commands=["other"])]))
    assert "| diff | <code>restic diff &#124; a &lt;b&gt;</code><br><code>second</code> |" in text
    assert "other" not in text


def test_each_workload_is_drawn_and_the_same_samples_give_the_same_picture(tmp_path):
    samples = [
        Sample(workload, system, operation, 0, 1.0 + at, 1.0, 0.5, 1)
        for workload in ("small", "large-text")
        for at, (system, operation) in enumerate(product(("dataset_store", "restic"), ("first commit", "list")))
    ]
    samples += [Sample("small", "limit", "write and fsync", 0, 0.7, 1.0, 0.0, 1)]
    samples += [Sample("small", "casync", "list", 0, problem="broken")]
    drawn = [list(plots.draw(samples, tmp_path / folder)) for folder in ("one", "two")]
    assert [path.name for path in drawn[0]] == ["small.svg", "large-text.svg"]
    assert [path.read_bytes() for path in drawn[0]] == [path.read_bytes() for path in drawn[1]]
    picture = drawn[0][0].read_text()
    assert all(word in picture for word in ("dataset_store", "restic", "first commit", "the machine's limit"))
    assert "the machine's limit" not in drawn[0][1].read_text()


def test_what_is_written_counts_until_it_is_on_the_disk():
    sample = Sample("small", "restic", "first commit", 0, 1.0, 1.0, 0.5, 1)
    assert report.seconds(sample) == 1.5


@pytest.mark.heavy
@pytest.mark.skipif(os.geteuid() != 0 or not shutil.which("mkfs.ext4"), reason="needs root and ext4")
def test_every_operation_runs_and_every_copy_is_right(tmp_path, monkeypatch):
    installed = [name for name, system in SYSTEMS.items() if system.is_installed()]
    assert {"dataset_store", "cp -a"} <= set(installed)
    path = tmp_path / "samples"
    words = ["run", "--workload", "small", "large-text", "--scale", "0.003", "--rounds", "1", "--into", str(path)]
    assert program.main([*words, "--system", *installed]) == 0
    samples = list(load([path]))
    # ClearML can't read a version in which a file was renamed.
    assert [one.problem for one in samples if one.problem and (one.system, one.workload) != ("ClearML", "small")] == []
    ours = {one.operation for one in samples if one.system == "dataset_store"}
    assert {"first commit", "no-change commit", "small commit", "cold copy", "next copy", "mutable copy"} <= ours


@pytest.mark.heavy
@pytest.mark.skipif(os.geteuid() != 0 or not shutil.which("mkfs.ext4"), reason="needs root and ext4")
def test_a_chain_and_a_far_store_are_measured_and_every_copy_is_right(tmp_path, monkeypatch):
    monkeypatch.setattr(WORKLOADS["chain"], "versions", 6)
    path = tmp_path / "samples"
    words = ["run", "--workload", "chain", "small-far", "--scale", "0.01", "--rounds", "1", "--into", str(path)]
    assert program.main([*words, "--system", "dataset_store", "cp -a"]) == 0
    samples = list(load([path]))
    assert [one.problem for one in samples if one.problem] == []
    (chain,) = (one for one in samples if one.operation == "chain" and one.system == "dataset_store")
    assert chain.files > 6
    far = [one for one in samples if one.workload == "small-far" and one.system != "limit"]
    assert {one.system.partition(",")[0] for one in far} == {"dataset_store"}
    assert all(one.requests for one in far if one.cpu is not None and one.operation != "warm copy")
    text = "\n".join(report.tables(samples))
    assert "| chain |" in text
    assert "Requests to the object store" in text


def test_a_command_that_does_not_end_is_ended_with_all_that_it_began(tmp_path, monkeypatch):
    monkeypatch.setattr(process, "MOST_SECONDS", 1)
    endless = Command(["sh", "-c", "sleep 1000 & echo $! > child; wait"], tmp_path)
    with pytest.raises(CommandFailed, match="not done after 1 seconds"):
        measure([endless], tmp_path / "home")
    child = Path("/proc", (tmp_path / "child").read_text().strip(), "status")
    deadline = time.monotonic() + 30
    while child.exists() and "zombie" not in child.read_text():
        assert time.monotonic() < deadline
