"""Metadata: values that come back as they were, of drafts and of final versions, on any machine."""

from datetime import UTC, date, datetime, time, timedelta, timezone
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from dataset_store import Dataset
from dataset_store.dataset.annotations.arrow import decode_value, encode_value
from dataset_store.errors import CorruptObject, InvalidRequest
from dataset_store.testing.folders import read, write

FRAME = pd.DataFrame(
    {"name": ["tom", "felix"], "weight": [4.5, float("nan")], "born": pd.to_datetime(["2020-01-01", None])},
    index=["a", "b"],
)
VALUES = {
    "dict": {"rows": 3, "nested": {"a": [1, 2.5, None, True]}, "text": "grüße"},
    "empty dict": {},
    "text": "plain",
    "truth": True,
    "number": -1.5,
    "list": [1, "two"],
    "long": {"text": "x" * 100_000},
    "array": np.arange(12, dtype=np.float32).reshape(3, 4),
    "large array": np.random.default_rng(0).random((200, 300)),
    "frame": FRAME,
    "table": pa.table({"a": [1, 2]}),
    "times": {
        "at": datetime(2020, 1, 1, 12, 30, 0, 5),  # noqa: DTZ001
        "aware": [datetime(2020, 1, 1, tzinfo=timezone(timedelta(hours=2)))],
        "day": date(2020, 1, 1),
        "hour": time(12, 30),
    },
    "a dict like a mark": {"dataset_store.date": "no date"},
    "series": pd.Series([1.5, 2.5], index=["a", "b"], name="weights"),
    "series of dicts": pd.Series([{"x": 1}, [1, "y"]], name=("two", 2)),
    "frame of dicts": pd.DataFrame({"a": [{"x": 1}, {"y": 2}], "n": [1, 2]}),
    "frame of mixed cells": pd.DataFrame({"a": pd.Series([1, "x", None, float("nan"), 1.0, True], dtype=object)}),
    "frame of lists and tuples": pd.DataFrame({"a": [[1, 2], (3, {4: date(2020, 1, 1)})]}),
    "columns of one name": pd.DataFrame([[1, {"x": 1}], [2, {"y": 2}]], columns=["a", "a"]),
    "names of several kinds": pd.DataFrame([[1, 2, 3]], columns=["a", 1, ("b", 2)]),
    "names on two levels": pd.DataFrame(
        [[1, "x"]], columns=pd.MultiIndex.from_tuples([("a", 1), ("a", 1)], names=["k", None])
    ),
    "rows of mixed labels": pd.DataFrame({"a": [1, 2]}, index=pd.Index(["x", 1], dtype=object, name="row")),
    "rows of mixed labels on two levels": pd.DataFrame(
        {"a": [1, 2]}, index=pd.MultiIndex.from_tuples([("x", 1), (1, "y")], names=["k", "n"])
    ),
    "rows of one label": pd.DataFrame({"a": [{"x": 1}, "y"]}, index=["r", "r"]),
}


def same(one, other):
    assert type(one) is type(other)
    if isinstance(one, pd.DataFrame):
        pd.testing.assert_frame_equal(one, other, check_column_type="equiv")
        for at, dtype in enumerate(other.dtypes):  # 1, 1.0 and True are equal
            if dtype == "object":
                assert [*map(type, one.iloc[:, at])] == [*map(type, other.iloc[:, at])]
    elif isinstance(one, pd.Series):
        pd.testing.assert_series_equal(one, other)
    elif isinstance(one, np.ndarray):
        assert one.dtype == other.dtype
        np.testing.assert_array_equal(one, other)
    else:
        assert one == other


@pytest.fixture
def draft(home):
    dataset = Dataset.create("d", "p")
    dataset.add_files(write(home / "in", {"a": b"1"}))
    return dataset


@pytest.mark.parametrize("kind", VALUES)
def test_a_value_comes_back_as_it_was_set_before_finalize(draft, another_machine, kind):
    draft.set_metadata(VALUES[kind], ui_visible=False)
    same(draft.get_metadata(), VALUES[kind])
    draft.finalize(auto_upload=True)
    same(draft.get_metadata(), VALUES[kind])
    another_machine()
    same(Dataset.get(draft.id).get_metadata(), VALUES[kind])


@pytest.mark.parametrize("kind", VALUES)
def test_a_value_can_be_set_after_finalize(draft, another_machine, kind):
    draft.finalize(auto_upload=True)
    draft.set_metadata(VALUES[kind], "it")
    another_machine()
    found = Dataset.get(draft.id)
    same(found.get_metadata("it"), VALUES[kind])
    assert found.get_metadata() is None
    assert read(found.get_local_copy()) == {"a": b"1"}


def test_values_are_replaced_and_removed_by_name(draft, home):
    for final in (False, True):
        dataset = Dataset.get(draft.id) if final else draft
        dataset.set_metadata({"n": 1}, "one")
        dataset.set_metadata(VALUES["long"], "two")
        dataset.set_metadata({"n": 2}, "one")
        assert dataset.get_metadata("one") == {"n": 2}
        dataset.set_metadata(None, "two")
        assert dataset.get_metadata("two") is None
        assert dataset.metadata_names == ["one"]
        dataset.set_metadata({"n": 3}, "one")
        if not final:
            draft.finalize(auto_upload=True)
    entries = len(list((home / "store" / "log" / "catalog").iterdir()))
    Dataset.get(draft.id).set_metadata({"n": 3}, "one")  # it is that already
    assert len(list((home / "store" / "log" / "catalog").iterdir())) == entries


def test_metadata_of_a_draft_is_there_in_the_next_process_and_with_its_version_at_once(draft, home):
    draft.set_metadata(VALUES["long"])
    draft.upload()
    again = Dataset.get(draft.id)
    again.set_metadata({"later": True}, "other")
    again.finalize(auto_upload=True)
    assert again.get_metadata() == VALUES["long"]
    assert again.get_metadata("other") == {"later": True}
    assert len(list((home / "store" / "log" / "catalog").iterdir())) == 1


def test_a_child_begins_without_its_parents_metadata(draft):
    draft.set_metadata({"a": 1})
    draft.finalize(auto_upload=True)
    assert Dataset.create(parent_datasets=[draft]).get_metadata() is None


class Odd:
    pass


@pytest.mark.parametrize(
    "value",
    [
        np.ma.masked_array([1, 2], [0, 1]),
        {1: "a", "1": "b"},
        np.array(["\ud800"]),
        Odd(),
        {"a": Odd()},
        np.array([Odd()]),
        {1, 2},
        b"bytes",
        pd.DataFrame({"a": [Odd()]}),
        pd.DataFrame({"a": [{1, 2}, "x"]}),
        pd.DataFrame({"a": ["\ud800", 1]}),
        pd.DataFrame({"a": pd.Series([pd.Timestamp(1), "x"], dtype=object)}),
        pd.DataFrame({"a": pd.Series([pd.NaT, "x"], dtype=object)}),
        pd.DataFrame({"a": [1]}, index=[Odd()]),
        pd.Series([Odd()]),
        {"at": pd.Timestamp(1)},
        {"at": np.datetime64("2020", "ns")},
        Path("a"),
        {"a": "\ud800"},
    ],
    ids=[
        "masked array",
        "colliding keys",
        "array of surrogates",
        "object",
        "dict of objects",
        "array of objects",
        "set",
        "bytes",
        "frame of objects",
        "frame of sets",
        "frame of surrogates",
        "frame of nanoseconds",
        "frame of no time",
        "rows called by objects",
        "series of objects",
        "nanoseconds",
        "time of numpy",
        "path",
        "surrogates",
    ],
)
def test_what_would_have_to_be_pickled_is_refused_and_nothing_is_kept(draft, value):
    with pytest.raises(InvalidRequest):
        draft.set_metadata(value)
    assert draft.metadata_names == []


@pytest.mark.parametrize("name", ["", "n" * 1_025])
def test_a_name_has_some_characters_and_not_too_many(draft, name):
    with pytest.raises(InvalidRequest):
        draft.set_metadata({}, name)


def test_more_pieces_than_an_entry_holds_are_refused_when_they_are_set(draft):
    with pytest.raises(InvalidRequest, match="too long"):
        for number in range(1_000):
            draft.set_metadata({"text": "x" * 400}, f"piece {number}")
    draft.finalize(auto_upload=True)
    assert draft.get_metadata("piece 0") == {"text": "x" * 400}


def test_damaged_metadata_is_an_error_and_the_version_is_whole(draft, home, another_machine):
    draft.finalize(auto_upload=True)
    draft.set_metadata(VALUES["long"])
    packs = [path for path in (home / "store" / "packs").rglob("*") if path.is_file()]
    pack = max(packs, key=lambda path: path.stat().st_mtime_ns)
    data = bytearray(pack.read_bytes())
    data[70] ^= 1
    pack.chmod(0o644)
    pack.write_bytes(data)
    another_machine()
    found = Dataset.get(draft.id)
    with pytest.raises(CorruptObject):
        found.get_metadata()
    assert read(found.get_local_copy()) == {"a": b"1"}


@given(st.binary(max_size=200).map(lambda tail: b"\xff\xff\xff\xff" + tail) | st.binary(max_size=50))
def test_bytes_that_are_no_value_are_one_typed_error(data):
    try:
        decode_value(data, what="it")
    except CorruptObject as error:
        assert "it" in error.what


PLAIN = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text()


TIMES = st.dates() | (st.datetimes(timezones=st.none() | st.just(UTC)) | st.times()).map(lambda at: at.replace(fold=0))
CELLS = st.recursive(
    PLAIN | TIMES,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.lists(inner, max_size=3).map(tuple)
        | st.dictionaries(st.text() | st.integers() | st.just("dataset_store.date"), inner, max_size=3)
    ),
    max_leaves=5,
)


@given(st.lists(st.lists(CELLS, min_size=2, max_size=2), min_size=1, max_size=4), st.booleans())
@settings(max_examples=300, deadline=None)
def test_any_cells_come_back_as_they_are_or_are_refused(rows, doubled):
    frame = pd.DataFrame({0: objects([row[0] for row in rows]), 1: objects([row[1] for row in rows])})
    frame.columns = ["a", "a"] if doubled else ["a", "b"]
    found = decode_value(encode_value(frame), what="it")
    assert list(found.columns) == list(frame.columns)
    for at in range(2):
        # Arrow gives a time in UTC as one in the zone of that name, which is equal.
        cells = repr(list(found.iloc[:, at])).replace("zoneinfo.ZoneInfo(key='UTC')", "datetime.timezone.utc")
        assert cells == repr(list(frame.iloc[:, at]))


def objects(cells):
    held = np.empty(len(cells), object)
    held[:] = [None] * len(cells)
    for at, cell in enumerate(cells):
        held[at] = cell
    return pd.Series(held, dtype=object)


def test_a_number_of_numpy_in_a_cell_comes_back_as_a_number():
    frame = pd.DataFrame({"a": objects([np.int64(1), "x", np.float32(0.5)])})
    assert list(decode_value(encode_value(frame), what="it")["a"]) == [1, "x", 0.5]


def test_a_mark_that_nobody_knows_is_one_typed_error():
    for data in (b'{"dataset_store.new": 1}', b'{"dataset_store.date": 1}', b'{"dataset_store.dict": 1}'):
        with pytest.raises(CorruptObject, match="it cannot be read"):
            decode_value(data, what="it")


def test_without_pandas_a_frame_is_a_table(monkeypatch):
    monkeypatch.setattr("dataset_store.dataset.annotations.arrow.find_spec", lambda name: None)
    table = decode_value(encode_value(VALUES["frame of dicts"]), what="it")
    assert table["0"].to_pylist() == ['{"x": 1}', '{"y": 2}']
    assert table["1"].to_pylist() == [1, 2]


@given(st.recursive(PLAIN | TIMES, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=10))
def test_any_plain_value_comes_back(value):
    assert decode_value(encode_value(value), what="it") == value


@given(
    npst.arrays(
        npst.scalar_dtypes().filter(lambda kind: kind.kind != "O"),
        npst.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4),
    )
)
@settings(max_examples=200)
def test_any_array_of_plain_types_comes_back(array):
    same(decode_value(encode_value(array), what="it"), array)


def test_all_entries_are_a_table(home, draft):
    folder = write(home / "more", {"b.bin": b"22", "sub/run.sh": b"#!"})
    (folder / "sub" / "run.sh").chmod(0o755)
    draft.add_files(folder)
    draft.add_external_files(str(folder / "b.bin"), dataset_path="far")
    for _ in range(2):
        table = draft.entries_table()
        assert table["path"].to_pylist() == ["a", "b.bin", "far/b.bin", "sub/run.sh"]
        assert table["kind"].to_pylist() == ["file", "file", "external", "file"]
        assert table["size"].to_pylist() == [1, 2, 2, 2]
        assert table["executable"].to_pylist() == [False, False, False, True]
        assert table["link"].to_pylist() == [None, None, f"file://{folder}/b.bin", None]
        assert set(table["origin"].to_pylist()) == {draft.id}
        assert table["content_id"][0].as_py().hex() == draft.file_entries_dict["a"].hash
        assert table.to_pandas()["mtime"].dt.year.min() >= 2020
        if not draft.is_final():
            draft.finalize(auto_upload=True)
    assert Dataset.create("none").entries_table().num_rows == 0


def test_lost_metadata_is_found_by_verify(draft, home):
    from dataset_store.dataset.checks.verifying import verify_stored

    draft.finalize(auto_upload=True)
    draft.set_metadata(VALUES["long"], "the long one")
    assert verify_stored(draft._workspace, draft.id).damaged == ()
    packs = [path for path in (home / "store" / "packs").rglob("*") if path.is_file()]
    max(packs, key=lambda path: path.stat().st_mtime_ns).unlink()
    (damage,) = verify_stored(draft._workspace, draft.id).damaged
    assert damage.path == "metadata 'the long one'"


def test_keys_become_text_as_json_writes_them(draft):
    draft.set_metadata({1: {True: "a"}, None: (1, 2)})
    assert draft.get_metadata() == {"1": {"true": "a"}, "null": [1, 2]}
