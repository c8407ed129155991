"""Differences and lineages as people look at them: in Python, in a notebook, drawn."""

import io
import os
import re
from xml.etree import ElementTree

import pandas as pd
import pyarrow as pa
import pyarrow.parquet
import pytest
from versions import version_of

from dataset_store import Dataset
from dataset_store.testing.folders import write


def parquet(**columns) -> bytes:
    sink = io.BytesIO()
    pa.parquet.write_table(pa.table(columns), sink)
    return sink.getvalue()


@pytest.fixture
def versions(home):
    folder = write(
        home / "in",
        {
            "same": b"same",
            "edited": b"1" * 100,
            "gone": b"gone",
            "old/name.bin": b"moved as it is",
            "empty": b"",
            "t.parquet": parquet(a=[1, 2], b=["x", "y"], c=[1, 2]),
            "t.csv": b"a,b\n1,2\n",
        },
    )
    first = version_of(folder)
    (folder / "gone").unlink()
    (folder / "old" / "name.bin").rename(folder / "new.bin")
    (folder / "old").rmdir()
    write(
        folder,
        {
            "edited": b"2" * 150,
            "came": b"came",
            "t.parquet": parquet(a=[1, 2, 3], c=["1", "2", "3"], d=[0.5, 1.5, 2.5]),
            "t.csv": b"a,b\n1,2\n3,4\n",
            "another empty": b"",
        },
    )
    return first, version_of(folder, parent_datasets=[first], dataset_tags=["<latest>"])


def test_a_difference_has_paths_sizes_and_renames(versions):
    first, second = versions
    for found in (second.diff(), second.diff(first), second.diff(first.id)):
        assert found.added == ["another empty", "came"]
        assert found.removed == ["gone"]
        assert found.modified == ["edited", "t.csv", "t.parquet"]
        assert found.renamed == [("old/name.bin", "new.bin")]
        by_path = {one.path: one for one in found}
        assert (by_path["edited"].old_size, by_path["edited"].new_size) == (100, 150)
        assert by_path["came"].old_size is None
        assert [one.path for one in found] == sorted(by_path)
        assert str(found) == "2 added, 3 modified, 1 removed, 1 renamed"
    back = first.diff(second)
    assert (back.added, back.removed) == (found.removed, found.added)
    assert back.bytes_added == -found.bytes_added
    assert len(first.diff(first)) == 0


def test_of_tables_rows_and_columns_are_told(versions):
    _, second = versions
    csv, table = second.diff().tables()
    assert (csv.path, csv.old_rows, csv.new_rows, csv.columns_added) == ("t.csv", 1, 2, ())
    assert (table.old_rows, table.new_rows) == (2, 3)
    assert (table.columns_added, table.columns_removed, table.columns_changed) == (("d",), ("b",), ("c",))


def test_a_file_that_is_called_a_table_and_is_none_has_no_rows(home):
    folder = write(home / "in", {"t.parquet": b"not one"})
    first = version_of(folder)
    (folder / "t.parquet").write_bytes(parquet(a=[1]))
    (change,) = version_of(folder, parent_datasets=[first]).diff().tables()
    assert (change.old_rows, change.new_rows, change.columns_added) == (None, 1, ("a",))


def test_a_large_table_is_compared_without_being_read_whole(home, another_machine, backends):
    frame = pd.DataFrame({"a": range(500_000), "b": os.urandom(500_000 * 8)[::8] and range(500_000)})
    folder = home / "in"
    folder.mkdir()
    frame.to_parquet(folder / "t.parquet")
    first = version_of(folder)
    frame.iloc[:-1].to_parquet(folder / "t.parquet")
    second = version_of(folder, parent_datasets=[first])
    another_machine()
    found = Dataset.get(second.id)
    backends[-1].reset()
    (change,) = found.diff().tables()
    assert (change.old_rows, change.new_rows) == (500_000, 499_999)
    assert backends[-1].snapshot().bytes_read < 3_000_000 < (folder / "t.parquet").stat().st_size


def test_a_draft_has_a_difference_too(versions, home):
    _, second = versions
    draft = Dataset.create(parent_datasets=[second])
    draft.add_files(write(home / "more", {"more": b"more", "t.csv": b"a\n1\n"}))
    assert (draft.diff().added, draft.diff().modified) == (["more"], ["t.csv"])
    assert draft.diff().tables() == []
    assert Dataset.create("alone").diff().added == []


def test_content_that_was_there_twice_is_renamed_once(home):
    folder = write(home / "in", {"a": b"twin", "b": b"twin"})
    first = version_of(folder)
    (folder / "a").rename(folder / "c")
    (folder / "b").unlink()
    found = version_of(folder, parent_datasets=[first]).diff()
    assert (found.renamed, found.removed, found.added) == ([("a", "c")], ["b"], [])


# --- lineage ---------------------------------------------------------------------------------------------------------


def merged(home):
    one = version_of(write(home / "one", {"1": b"1"}), dataset_name='one <&> "quoted" #1')
    two = version_of(write(home / "two", {"2": b"2"}), dataset_name="two")
    both = Dataset.create("both", "p", parent_datasets=[one, two])
    both.finalize()
    return one, two, both


def test_a_lineage_is_a_sequence_of_versions_children_first(home):
    one, two, both = merged(home)
    lineage = both.log()
    assert [row.id for row in lineage] == [both.id, two.id, one.id]
    assert lineage[0].parents == (one.id, two.id)
    lines = str(lineage).splitlines()
    assert len([line for line in lines if "*" in line]) == 3
    draft = Dataset.create(parent_datasets=[both])
    assert [row.final for row in draft.log()] == [False, True, True, True]


def test_a_lineage_is_drawn_with_every_version_and_every_parent(home):
    one, _, both = merged(home)
    chart = both.log().mermaid()
    assert chart.startswith("flowchart BT\n")
    assert chart.count("-->") == 2
    assert "#lt;#amp;#gt; #quot;quoted#quot; #35;1" in chart
    image = ElementTree.fromstring(both.log().svg())
    kinds = [part.tag.rpartition("}")[2] for part in image]
    assert (kinds.count("circle"), kinds.count("path"), kinds.count("text")) == (3, 2, 3)
    assert any(one.name in (part.text or "") for part in image)
    assert "script" not in both.log()._repr_html_()


def test_no_line_of_a_drawing_crosses_a_version_that_is_not_its_own(home):
    from hypothesis import given
    from hypothesis import strategies as st

    from dataset_store.core.graph_drawing import svg

    @given(st.lists(st.lists(st.integers(1, 6), max_size=3, unique=True), max_size=12))
    def check(steps):
        ids = [str(number) for number in range(len(steps))]
        parents = {ids[at]: [ids[at + step] for step in steps[at] if at + step < len(ids)] for at in range(len(ids))}
        image = ElementTree.fromstring(svg(ids, parents, {one: one for one in ids}))
        dots = [(int(part.get("cx")), int(part.get("cy"))) for part in image if part.tag.endswith("circle")]
        assert len(dots) == len(set(dots)) == len(ids)
        for part in image:
            if part.tag.endswith("path"):
                x, y, *_, x_down, y_bend, x_end, y_end = [int(n) for n in re.findall(r"\d+", part.get("d"))]
                assert x_down == x_end
                on_it = [(cx, cy) for cx, cy in dots if cx == x_end and y_bend <= cy < y_end]
                assert not [dot for dot in on_it if dot != (x, y)]

    check()


# --- notebooks -------------------------------------------------------------------------------------------------------


def test_versions_and_differences_show_themselves_escaped(versions):
    _, second = versions
    second.set_description("<script>alert(1)</script>")
    page = second._repr_html_()
    assert second.id in page
    assert "<script" not in page
    assert "&lt;latest&gt;" in page
    assert "old/name.bin → new.bin" in second.diff()._repr_html_()
    draft = Dataset.create("<b>", "p")
    assert "in_progress" in draft._repr_html_()
    assert "<b>" not in draft._repr_html_()
