"""What is shown while something takes long: on a terminal, in a notebook, and nowhere else."""

import io
import os
import re
from contextlib import redirect_stderr
from threading import Event

import pytest

from dataset_store import Dataset
from dataset_store.dataset import progress
from dataset_store.dataset.progress import everything_shown, progress_bar, waiting
from dataset_store.testing.folders import write


class Terminal(io.StringIO):
    """A stand-in for standard error on a terminal."""

    def isatty(self) -> bool:
        return True

    @property
    def shown(self) -> list[str]:
        """The lines that were drawn, without what moves the cursor."""
        parts = re.split(r"[\r\n]", re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", self.getvalue()))
        return [part.rstrip() for part in parts if part.strip()]


class Notebook(Terminal):
    """A stand-in for what ipykernel puts in the place of standard error."""

    def isatty(self) -> bool:
        return False


Notebook.__module__ = "ipykernel.iostream"


class File(Notebook):
    """Standard error that goes to a file."""


File.__module__ = "io"


@pytest.fixture
def shown_at_once(monkeypatch):
    """Nothing waits before it shows."""
    monkeypatch.setattr(progress, "_WAIT", 0.0)
    monkeypatch.setattr(progress, "_PATIENCE", 0.0)
    monkeypatch.setattr(progress, "_PAUSE", 0.0)


@pytest.fixture(params=[Terminal, Notebook])
def stream(request, monkeypatch, shown_at_once):
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "80")
    return request.param()


def line(columns=200, seconds=10.0, **done):
    totals = {"total_files": None, "total_bytes": None, "files": 0, "bytes": 0} | done
    return progress.line_of(progress._Done(what="verifying", **totals), seconds, columns)


def test_a_line_says_files_and_bytes_of_how_many_the_rate_and_the_time_left():
    told = line(total_files=4, total_bytes=300 << 20, files=1, bytes=100 << 20)
    assert told == "verifying  [######--------------]  100.0/300.0 MiB  1/4 files  10.0 MiB/s  0:00:20"


def test_bytes_and_rate_are_in_the_same_sort_of_units():
    assert line(bytes=10_240) == "verifying  10.0 KiB  0 files  1.0 KiB/s"


def test_one_file_is_one_file():
    assert "  1 file  " in line(files=1, bytes=10)
    assert "  1/1 file  " in line(files=1, total_files=1, bytes=10, total_bytes=10)
    assert "  1/2 files  " in line(files=1, total_files=2, bytes=10, total_bytes=10)


@pytest.mark.parametrize(
    ("columns", "told"),
    [
        (82, "verifying  [######--------------]  100.0/300.0 MiB  1/4 files  10.0 MiB/s  0:00:20"),
        (80, "verifying  [######------------]  100.0/300.0 MiB  1/4 files  10.0 MiB/s  0:00:20"),
        (68, "verifying  [##----]  100.0/300.0 MiB  1/4 files  10.0 MiB/s  0:00:20"),
        (67, "verifying  100.0/300.0 MiB  1/4 files  10.0 MiB/s  0:00:20"),
        (55, "verifying  100.0/300.0 MiB  1/4 files  0:00:20"),
        (40, "verifying  100.0/300.0 MiB  0:00:20"),
        (30, "verifying  100.0/300.0 MiB"),
        (12, "verifying"),
        (5, "verif"),
    ],
)
def test_a_narrow_line_shortens_and_leaves_out_the_bar_then_the_rate_then_the_files(columns, told):
    assert line(columns, total_files=4, total_bytes=300 << 20, files=1, bytes=100 << 20) == told


def test_a_bar_is_no_longer_than_what_is_done():
    assert "[####################]" in line(total_bytes=10, bytes=20)
    assert "[" not in line(total_bytes=0)


def test_totals_may_come_when_they_are_known(stream):
    with redirect_stderr(stream), progress_bar("reading", None, show=True) as told:
        told(0, 10)
        told.expect(2, 30)
        told(1, 10)
        if isinstance(stream, Notebook):
            assert stream.shown[-1].startswith("reading  [#############-------]  20/30 B  1/2 files")
    assert stream.shown[0].startswith("reading")


def test_nothing_is_left_of_a_line_when_the_work_is_done(stream):
    with redirect_stderr(stream), progress_bar("reading", 10, show=True) as told:
        told(1, 10)
    ends = {Terminal: ("\x1b[2K", "\x1b[?25h"), Notebook: (" " * 80 + "\r",)}
    assert stream.getvalue().endswith(ends[type(stream)])


def test_a_terminal_of_forty_columns_gets_no_longer_line(monkeypatch, shown_at_once):
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "40")
    stream = Terminal()
    with redirect_stderr(stream), progress_bar("verifying", 300 << 20, 1_000_000, show=True) as told:
        told(10_000, 200 << 20)
    assert stream.shown
    assert all(len(each) <= 40 and "200.0/300.0 MiB" in each for each in stream.shown)


def test_a_file_gets_nothing(shown_at_once):
    stream = File()
    with redirect_stderr(stream), progress_bar("reading", 10, show=True) as told, waiting("waiting", show=True):
        told(1, 10)
    assert stream.getvalue() == ""


def test_what_is_not_always_shown_is_within_a_block_that_asks_for_it(stream):
    with redirect_stderr(stream), progress_bar("reading", 10) as told:
        told(1, 10)
    assert stream.getvalue() == ""
    with redirect_stderr(stream), everything_shown(), progress_bar("reading", 10) as told:
        told(1, 10)
    assert stream.shown[0].startswith("reading")


def test_whoever_waits_for_another_process_is_told(stream, monkeypatch):
    said = Event()
    write_to = type(stream).write

    def writing(self, text):
        done = write_to(self, text)
        if "waiting for another" in text:
            said.set()
        return done

    monkeypatch.setattr(type(stream), "write", writing)
    with redirect_stderr(stream), waiting("waiting for another process …", show=True):
        assert said.wait(30)


def test_a_wait_that_is_short_says_nothing(stream, monkeypatch):
    monkeypatch.setattr(progress, "_PATIENCE", 600.0)
    with redirect_stderr(stream), waiting("waiting for another process …", show=True):
        pass
    assert stream.getvalue() == ""


def test_a_folder_that_is_read_has_totals(home, shown_at_once):
    stream = Notebook()
    folder = write(home / "in", {"a": os.urandom(300_000), "b": os.urandom(100_000)})
    made = Dataset.create("d", "p")
    made.sync_folder(folder)
    made.finalize(auto_upload=True)
    write(home / "in", {"a": os.urandom(300_000), "b": os.urandom(100_000)})
    with redirect_stderr(stream), everything_shown():
        Dataset.create(parent_datasets=[made]).sync_folder(folder)
    reading = [each for each in stream.shown if each.startswith("reading")]
    assert reading
    assert all("/390.6 KiB" in each and "/2 files" in each for each in reading)
