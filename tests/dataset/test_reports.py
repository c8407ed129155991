"""Reports: texts, tables and plots kept with a version, in order, whoever reads them."""

import base64
import logging

import numpy as np
import pandas as pd
import pytest

from dataset_store import Dataset
from dataset_store.errors import InvalidRequest, PathNotFound
from dataset_store.testing.folders import write

PNG = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)


FRAME = pd.DataFrame({"a": [1, 2], "when": pd.to_datetime(["2020", "2021"])})


class Figure:
    """What Matplotlib and Plotly figures have in common with what is asked of them."""

    def savefig(self, file, format):
        file.write(PNG if format == "png" else b"<svg/>")

    def to_json(self):
        return '{"data": [], "layout": {}}'


class Series:
    name, data = "loss", [(0, 1.0), (1, 0.5)]


def report_all(logger, home):
    logger.report_text("begun", print_console=False)
    logger.report_scalar("loss", "train", np.float32(0.5), 3)
    logger.report_single_value("rows", 10)
    logger.report_table(
        "head", "first", 0, table_plot=pd.DataFrame({"a": [1, 2], "when": pd.to_datetime(["2020", "2021"])})
    )
    logger.report_table("head", "rows", table_plot=[["a", "b"], [1, "x"]])
    logger.report_table("head", "file", csv=str(write(home / "csv", {"t.csv": b"a,b\n1,2\n"}) / "t.csv"))
    logger.report_histogram("sizes", "all", np.array([1, 2, 3]), iteration=0, xaxis="bytes", labels=["a"])
    logger.report_line_plot("curve", [Series()], "x", "y")
    logger.report_scatter2d("points", "all", np.array([[0, 1], [2, 3]]), mode="markers")
    logger.report_confusion_matrix("confusion", "all", np.eye(2), xlabels=["a", "b"])
    logger.report_plotly("plot", "one", Figure())
    logger.report_matplotlib_figure("figure", "one", Figure(), 1)
    logger.report_image("cat", "one", 0, local_path=str(write(home / "png", {"c.png": PNG}) / "c.png"))
    logger.report_media("cat", "two", url="s3://bucket/cat.png")
    assert logger.flush()


TABLE = {
    "columns": ["index", "a", "when"],
    "rows": [[0, 1, "2020-01-01T00:00:00"], [1, 2, "2021-01-01T00:00:00"]],
}
LINES = {"series": [{"name": "loss", "data": [[0.0, 1.0], [1.0, 0.5]]}], "xaxis": "x", "yaxis": "y", "mode": "lines"}
EXPECTED = [
    ("text", "", "", None, "begun"),
    ("scalar", "loss", "train", 3, 0.5),
    ("value", "rows", "", None, 10.0),
    ("table", "head", "first", 0, TABLE),
    ("table", "head", "rows", None, {"columns": ["a", "b"], "rows": [[1, "x"]]}),
    ("table", "head", "file", None, {"columns": ["a", "b"], "rows": [["1", "2"]]}),
    ("histogram", "sizes", "all", 0, {"values": [1, 2, 3], "xaxis": "bytes", "labels": ["a"]}),
    ("lines", "curve", "", None, LINES),
    ("scatter", "points", "all", None, {"points": [[0, 1], [2, 3]], "mode": "markers"}),
    ("matrix", "confusion", "all", None, {"rows": [[1.0, 0.0], [0.0, 1.0]], "xlabels": ["a", "b"]}),
    ("plotly", "plot", "one", None, {"data": [], "layout": {}}),
    ("svg", "figure", "one", 1, "<svg/>"),
    ("image", "cat", "one", 0, {"type": "image/png", "base64": base64.b64encode(PNG).decode()}),
    ("image", "cat", "two", None, {"url": "s3://bucket/cat.png"}),
]


def shown(dataset):
    return [(one.kind, one.title, one.series, one.iteration, one.value) for one in dataset.reports]


@pytest.mark.parametrize("final", [False, True], ids=["of a draft", "of a final version"])
def test_every_kind_of_report_is_kept_in_order(home, another_machine, final):
    dataset = Dataset.create("d", "p")
    if final:
        dataset.finalize()
    report_all(dataset.get_logger(), home)
    assert shown(dataset) == EXPECTED
    if not final:
        assert shown(Dataset.get(dataset.id)) == EXPECTED
        dataset.finalize()
    another_machine()
    found = Dataset.get(dataset.id)
    assert shown(found) == EXPECTED
    assert found.metadata_names == []
    times = [one.time_ns for one in found.reports]
    assert times == sorted(times)


def test_reports_go_on_after_finalize(home):
    dataset = Dataset.create("d")
    dataset.get_logger().report_text("before", print_console=False)
    dataset.finalize()
    dataset.get_logger().report_text("after", print_console=False)
    assert [one.value for one in dataset.reports] == ["before", "after"]


def test_thousands_of_reports_are_one_piece_of_their_version(home):
    dataset = Dataset.create("d")
    for number in range(2_000):
        dataset.get_logger().report_scalar("loss", "train", number, number)
    dataset.set_metadata({"a": 1})
    dataset.finalize()
    assert [one.value for one in dataset.reports] == list(range(2_000))
    (entry,) = (home / "store" / "log" / "catalog").iterdir()
    assert entry.stat().st_size < 3_000


def test_texts_are_logged_too_unless_told_otherwise(home, caplog):
    caplog.set_level(logging.INFO)
    dataset = Dataset.create("d")
    dataset.get_logger().report_text("shown", logging.WARNING)
    dataset.get_logger().report_text("hidden", print_console=False)
    assert [(record.levelname, record.message) for record in caplog.records] == [("WARNING", "shown")]


@pytest.mark.parametrize(
    ("method", "options", "kind"),
    [
        ("report_table", {}, InvalidRequest),
        ("report_table", {"table_plot": [["a"]], "url": "u"}, InvalidRequest),
        ("report_table", {"csv": "none.csv"}, PathNotFound),
        ("report_image", {}, InvalidRequest),
        ("report_image", {"local_path": "none.png"}, PathNotFound),
        ("report_image", {"local_path": "none.exe"}, PathNotFound),
        ("report_image", {"matrix": np.zeros((2, 2))}, InvalidRequest),
        ("report_table", {"table_plot": [["a"], [object()]]}, InvalidRequest),
    ],
)
def test_what_cannot_be_kept_is_refused_and_nothing_is(home, method, options, kind):
    dataset = Dataset.create("d")
    with pytest.raises(kind):
        getattr(dataset.get_logger(), method)("title", "series", **options)
    assert dataset.reports == []


def test_the_name_of_reports_is_kept_for_them(home):
    with pytest.raises(InvalidRequest):
        Dataset.create("d").set_metadata({}, "dataset_store.reports/x")
