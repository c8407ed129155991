"""Reports: texts, tables and plots kept with a version, in order, whoever reads them."""

import base64
import io
import json
import logging
import math

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure as MatplotlibFigure
from PIL import Image

from dataset_store import Dataset
from dataset_store.dataset.annotations import blobs
from dataset_store.errors import InvalidRequest, PathNotFound
from dataset_store.testing.folders import write

PNG = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)


FRAME = pd.DataFrame({"a": [1, 2], "when": pd.to_datetime(["2020", "2021"])})


class PlotlyFigure:
    """What is asked of a Plotly figure."""

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
    logger.report_scatter3d("points", "solid", np.zeros((1, 3)), 0, zaxis="z")
    logger.report_surface("hills", "all", np.eye(2), zaxis="metres", camera=(0, 0, 1))
    logger.report_plotly("plot", "one", PlotlyFigure())
    logger.report_image("cat", "one", 0, local_path=str(write(home / "png", {"c.png": PNG}) / "c.png"))
    logger.report_image("cat", "two", url="s3://bucket/cat.png")
    logger.report_media("cat", "purring", 0, stream=io.BytesIO(b"film"), file_extension=".mp4")
    logger.report_media("cat", "page", local_path=str(write(home / "html", {"c.html": b"<p>"}) / "c.html"))
    logger.report_media("cat", "film", url="s3://bucket/cat.mp4")
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
    ("scatter3d", "points", "solid", 0, {"points": [[0.0, 0.0, 0.0]], "zaxis": "z", "mode": "markers"}),
    ("surface", "hills", "all", None, {"rows": [[1.0, 0.0], [0.0, 1.0]], "zaxis": "metres", "camera": [0, 0, 1]}),
    ("plotly", "plot", "one", None, {"data": [], "layout": {}}),
    ("image", "cat", "one", 0, {"type": "image/png", "base64": base64.b64encode(PNG).decode()}),
    ("image", "cat", "two", None, {"url": "s3://bucket/cat.png"}),
    ("media", "cat", "purring", 0, {"type": "video/mp4", "base64": base64.b64encode(b"film").decode()}),
    ("media", "cat", "page", None, {"type": "text/html", "base64": base64.b64encode(b"<p>").decode()}),
    ("media", "cat", "film", None, {"url": "s3://bucket/cat.mp4"}),
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


def figure():
    drawn = MatplotlibFigure()
    drawn.subplots().plot([1, 2, 3])
    return drawn


def picture(report):
    return Image.open(io.BytesIO(base64.b64decode(report.value["base64"])))


def test_a_matplotlib_figure_is_kept_as_svg_or_as_png(home):
    dataset = Dataset.create("d")
    dataset.get_logger().report_matplotlib_figure("figure", "drawn", figure(), 1)
    dataset.get_logger().report_matplotlib_figure("figure", "painted", figure(), 1, report_image=True)
    drawn, painted = dataset.reports
    assert drawn.kind == "svg"
    assert "<svg" in drawn.value
    assert picture(painted).size == (640, 480)


@pytest.mark.parametrize(
    ("pixels", "mode", "expected"),
    [
        (np.array([[0, 255], [7, 8]], np.uint8), "L", [[0, 255], [7, 8]]),
        (np.array([[[1, 2, 3]], [[4, 5, 6]]], np.uint8), "RGB", [[[1, 2, 3]], [[4, 5, 6]]]),
        (np.array([[[1, 2, 3, 4]]], np.int64), "RGBA", [[[1, 2, 3, 4]]]),
        (np.array([[[9, 128]]], np.uint8), "LA", [[[9, 128]]]),
        (np.array([[0.0, 1.0, 0.5, math.nan]]), "L", [[0, 255, 127, 0]]),
        (np.array([[0.0, 254.4, 300.0]]), "L", [[0, 254, 255]]),
        (np.array([[True, False]]), "L", [[255, 0]]),
    ],
    ids=["grey", "colours", "with alpha", "grey with alpha", "shares", "floats", "truth"],
)
def test_an_array_of_pixels_is_kept_as_an_image(home, pixels, mode, expected):
    dataset = Dataset.create("d")
    dataset.get_logger().report_image("image", "array", 0, image=pixels)
    (report,) = dataset.reports
    image = picture(report)
    assert image.mode == mode
    assert np.array(image).tolist() == expected


def test_a_pil_image_is_kept_as_it_is(home):
    dataset = Dataset.create("d")
    dataset.get_logger().report_image("image", "pil", 0, image=Image.new("RGB", (2, 3), "red"))
    assert picture(dataset.reports[0]).getpixel((1, 2)) == (255, 0, 0)


def test_numbers_that_json_does_not_know_are_kept_as_none(home):
    dataset = Dataset.create("d")
    dataset.get_logger().report_scalar("loss", "NaN", math.nan, 1)
    dataset.get_logger().report_table("t", "t", table_plot=pd.DataFrame({"a": [1.0, math.inf]}))
    scalar, table = dataset.reports
    assert (scalar.series, scalar.value) == ("NaN", None)
    assert table.value["rows"] == [[0, 1.0], [1, None]]
    assert [json.dumps(one.value, allow_nan=False) for one in dataset.reports]


def test_a_csv_file_that_is_too_long_is_refused_and_not_cut(home):
    path = write(home / "csv", {"t.csv": b"a,b\n" * (3 << 20)}) / "t.csv"
    with pytest.raises(InvalidRequest, match="8 MiB"):
        Dataset.create("d").get_logger().report_table("t", "t", csv=str(path))


def test_more_than_a_version_can_hold_is_refused_at_once_and_not_at_finalize(home, monkeypatch):
    monkeypatch.setattr(blobs, "MOST_BLOB_BYTES", 10_000)
    dataset = Dataset.create("d")
    dataset.get_logger().report_text("x" * 9_000, print_console=False)
    with pytest.raises(InvalidRequest, match="too much"):
        dataset.get_logger().report_text("x" * 9_000, print_console=False)
    with pytest.raises(InvalidRequest, match="too much"):
        dataset.set_metadata("x" * 11_000, "long")
    dataset.finalize()
    assert len(dataset.reports) == 1


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
    caplog.clear()  # of the store that was made
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
        ("report_image", {"matrix": np.zeros((2, 2, 5))}, InvalidRequest),
        ("report_image", {"matrix": np.zeros((0, 2))}, InvalidRequest),
        ("report_image", {"image": np.array([["a"]])}, InvalidRequest),
        ("report_image", {"image": [[1]]}, InvalidRequest),
        ("report_media", {}, InvalidRequest),
        ("report_media", {"stream": io.BytesIO(b"?")}, InvalidRequest),
        ("report_media", {"stream": io.BytesIO(bytes((8 << 20) + 1)), "file_extension": "bin"}, InvalidRequest),
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


def test_vectors_and_matrices_take_the_arguments_of_clearmls_by_position(home):
    dataset = Dataset.create("d", "p")
    logger = dataset.get_logger()
    logger.report_vector("v", "s", [1, 2], 0, None, ["a", "b"], "x", "y", "stack", {"height": 6})
    logger.report_histogram("v", "s", [1, 2], 0, None, ["a", "b"], "x", "y", "stack", {}, {"height": 6})
    logger.report_matrix("m", "s", np.eye(2), 0, "x", "y", ["a", "b"], ["c", "d"], False, {"height": 6})
    logger.report_confusion_matrix("m", "s", np.eye(2), 0, "x", "y", ["a", "b"], ["c", "d"], False, None, {"height": 6})
    vector, histogram, matrix, confusion = shown(dataset)
    assert vector == histogram
    assert matrix == confusion
    assert vector[-1]["layout"] == matrix[-1]["layout"] == {"height": 6}


def test_settings_of_a_logger_are_told_again_and_change_nothing(home):
    dataset = Dataset.create("d", "p")
    logger = dataset.get_logger()
    assert logger.get_default_upload_destination() == dataset.get_default_storage()
    logger.set_default_upload_destination("s3://bucket/debug")
    assert logger.get_default_upload_destination() == "s3://bucket/debug"
    logger.set_default_debug_sample_history(5)
    assert logger.get_default_debug_sample_history() == 5
    logger.set_flush_period(10.0)
    assert logger.get_flush_period() is None
    logger.report_text("kept")
    assert [one.value for one in Dataset.get(dataset.id).reports] == ["kept"]
