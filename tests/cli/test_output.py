"""What is written and where."""

import io
import json
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dataset_store.cli.output import json_out, lines_out, problem, shown, size, table, timestamp

UNITS = {"B": 1, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "TiB": 2**40, "PiB": 2**50}


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0 B"), (1023, "1023 B"), (1024, "1.0 KiB"), (1536, "1.5 KiB"), (2**20 - 1, "1.0 MiB"), (2**60, "1024.0 PiB")],
)
def test_sizes_are_for_people(count, text):
    assert size(count) == text


@given(st.integers(0, 2**60))
def test_a_size_is_right_to_a_twentieth_of_its_unit(count):
    number, unit = size(count).split()
    assert abs(float(number) * UNITS[unit] - count) <= 0.0501 * UNITS[unit]


@given(st.text())
def test_what_is_shown_is_printable_and_printable_text_is_shown_as_it_is(text):
    assert shown(text).isprintable()
    assert shown(shown(text)) == shown(text)


def test_a_time_is_shown_in_utc():
    assert timestamp(1_000_000_000_999_999_999) == "2001-09-09T01:46:40Z"


def test_columns_are_as_wide_as_their_widest_cell_and_lines_have_no_tail():
    assert table(("A", "LONG", "C"), [("x", "1", ""), ("yyy", "22", "z")], right=[1]) == [
        "A    LONG  C",
        "x       1",
        "yyy    22  z",
    ]


def test_what_the_encoding_lacks_is_escaped(monkeypatch):
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, "ascii"))
    lines_out(["é", "\udcff"])
    sys.stdout.flush()
    assert raw.getvalue() == rb"\xe9" + b"\n" + rb"\udcff" + b"\n"


def test_a_document_keeps_names_that_are_no_text(capsys):
    json_out({"path": "\udcff"})
    assert json.loads(capsys.readouterr().out) == {"path": "\udcff"}


@pytest.mark.parametrize(
    ("variables", "coloured"),
    [({}, True), ({"NO_COLOR": "1"}, False), ({"NO_COLOR": ""}, True), ({"TERM": "dumb"}, False)],
)
def test_colour_is_for_terminals_that_want_it(monkeypatch, variables, coloured):
    for name in ("NO_COLOR", "TERM"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    problem("Error", "what", "next")
    assert ("\033[" in terminal.getvalue()) is coloured


def test_what_is_no_terminal_gets_no_colour(monkeypatch):
    monkeypatch.delenv("NO_COLOR", raising=False)
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stderr", stream)
    problem("Error", "a\x1b[31mb", "next")
    assert stream.getvalue() == "Error: a\\x1b[31mb\nnext\n"


def test_columns_are_as_wide_as_their_widest_cell_and_flush_as_asked():
    rows = [("1", "a", "20"), ("30", "b\n", "3")]
    assert table(("N", "NAME", "SIZE"), rows, right=(0, 2)) == [
        " N  NAME  SIZE",
        " 1  a       20",
        "30  b\\n      3",
    ]
    assert table(("N", "NAME"), [("1", "a"), ("2", "")]) == ["N  NAME", "1  a", "2"]
    assert table(("N",), []) == ["N"]
