"""Reports: texts, tables and plots kept with a version, in the order in which they were made.

Names and arguments are those of ClearML's `Logger`. A report is one line of JSON. Those of a draft become one piece of
its version's metadata; each of a final version is a piece of its own.
"""

import base64
import io
import json
import logging
import os
import time
from collections.abc import Callable, Iterable, Sequence
from typing import IO, Any, Final

import msgspec
from msgspec import Struct

from dataset_store.core.arrays import np
from dataset_store.dataset.annotations.pictures import image_type, media_type, png_of
from dataset_store.errors import CorruptObject, InvalidRequest, PathNotFound
from dataset_store.local.drafts import Draft

__all__ = ["REPORTS", "Logger", "Report", "decode_reports", "pieces_of"]

REPORTS: Final = "dataset_store.reports"
"""The name of the piece that holds a draft's reports; of others the beginning of theirs."""

_MOST_MEDIA_BYTES: Final = 8 << 20
_row = msgspec.json.Decoder(tuple[str, str, str, int | None, int, Any])
_log = logging.getLogger(__name__)


class Report(Struct, frozen=True):
    """One report.

    Attributes:
        kind: `text`, `scalar`, `value`, `table`, `histogram`, `lines`, `scatter`, `scatter3d`, `matrix`, `surface`,
            `plotly`, `svg`, `image` or `media`.
        title: What it is about.
        series: Which of several under one title.
        iteration: When, in the maker's own count; None where it has none.
        time_ns: When, ns since 1970; a label.
        value: What was reported, as JSON has it. A table is `columns` and `rows`; an image `type` and `base64`. A
            number that is not finite is None.
    """

    kind: str
    title: str
    series: str
    iteration: int | None
    time_ns: int
    value: Any


def decode_reports(data: bytes, *, what: str) -> list[Report]:
    """The reports of one piece.

    Raises:
        CorruptObject: They are none.
    """
    try:
        return [Report(*_row.decode(line)) for line in data.splitlines()]
    except (ValueError, RecursionError) as error:
        raise CorruptObject(f"{what} cannot be read: {error}.", "It was written by something else.") from error


def pieces_of(draft: Draft) -> dict[str, bytes]:
    """All pieces of a draft's metadata by name, its reports as one of them."""
    return draft.metadata | ({REPORTS: b"\n".join(draft.reports)} if draft.reports else {})


class Logger:
    """Makes reports; each is kept when the call returns.

    Args:
        keep: Takes one report as a line of JSON.
        destination: Where reports go, as `get_default_upload_destination` tells it.
    """

    def __init__(self, keep: Callable[[bytes], None], destination: str = "") -> None:
        self._keep = keep
        self._destination = destination
        self._history = 0

    def report_text(self, msg: str, level: int = logging.INFO, print_console: bool = True, *_: Any, **__: Any) -> None:
        """Keep a text; with `print_console` it is logged too, at `level`."""
        if print_console:
            _log.log(level, "%s", msg)
        self._report("text", "", "", None, str(msg))

    def report_scalar(self, title: str, series: str, value: float, iteration: int) -> None:
        """Keep one number of a series."""
        self._report("scalar", title, series, iteration, float(value))

    def report_single_value(self, name: str, value: float) -> None:
        """Keep one number that has no series."""
        self._report("value", name, "", None, float(value))

    def report_table(
        self,
        title: str,
        series: str,
        iteration: int | None = None,
        table_plot: Any = None,
        csv: str | None = None,
        url: str | None = None,
        extra_layout: dict[str, Any] | None = None,
        extra_data: dict[str, Any] | None = None,
    ) -> None:
        """Keep a table: a DataFrame, rows of which the first are the headings, or a CSV file; one of these.

        Raises:
            InvalidRequest: None of them was given, or several.
            PathNotFound: There is no such file.
        """
        if sum(given is not None for given in (table_plot, csv, url)) != 1:
            raise InvalidRequest("A table is a DataFrame or rows, a CSV file, or a URL.", "Give exactly one of them.")
        value = {"url": url} if url is not None else _csv_table(csv) if csv is not None else _table(table_plot)
        self._report("table", title, series, iteration, value | _layout(extra_layout))

    def report_histogram(
        self,
        title: str,
        series: str,
        values: Sequence[float],
        iteration: int | None = None,
        labels: Sequence[str] | None = None,
        xlabels: Sequence[str] | None = None,
        xaxis: str | None = None,
        yaxis: str | None = None,
        mode: str | None = None,
        data_args: dict[str, Any] | None = None,
        extra_layout: dict[str, Any] | None = None,
    ) -> None:
        """Keep the heights of bars."""
        about = _axes(xaxis, yaxis, labels=labels, xlabels=xlabels, mode=mode) | _layout(extra_layout)
        self._report("histogram", title, series, iteration, {"values": _listed(values)} | about)

    def report_vector(
        self,
        title: str,
        series: str,
        values: Sequence[float],
        iteration: int | None = None,
        labels: Sequence[str] | None = None,
        xlabels: Sequence[str] | None = None,
        xaxis: str | None = None,
        yaxis: str | None = None,
        mode: str | None = None,
        extra_layout: dict[str, Any] | None = None,
    ) -> None:
        """As `report_histogram`."""
        self.report_histogram(
            title, series, values, iteration, labels, xlabels, xaxis, yaxis, mode, extra_layout=extra_layout
        )

    def report_line_plot(
        self,
        title: str,
        series: Sequence[Any],
        xaxis: str,
        yaxis: str,
        mode: str = "lines",
        iteration: int | None = None,
        reverse_xaxis: bool = False,
        comment: str | None = None,
        extra_layout: dict[str, Any] | None = None,
    ) -> None:
        """Keep lines; each of `series` has a `name` and `data`, pairs of x and y."""
        lines = [
            {"name": one["name"], "data": _listed(one["data"])}
            if isinstance(one, dict)
            else {"name": one.name, "data": _listed(one.data)}
            for one in series
        ]
        about = _axes(xaxis, yaxis, mode=mode, reverse=reverse_xaxis, comment=comment) | _layout(extra_layout)
        self._report("lines", title, "", iteration, {"series": lines} | about)

    def report_scatter2d(
        self,
        title: str,
        series: str,
        scatter: Any,
        iteration: int | None = None,
        xaxis: str | None = None,
        yaxis: str | None = None,
        labels: Sequence[str] | None = None,
        mode: str = "lines",
        comment: str | None = None,
        extra_layout: dict[str, Any] | None = None,
    ) -> None:
        """Keep points, pairs of x and y."""
        about = _axes(xaxis, yaxis, labels=labels, mode=mode, comment=comment) | _layout(extra_layout)
        self._report("scatter", title, series, iteration, {"points": _listed(scatter)} | about)

    def report_scatter3d(
        self,
        title: str,
        series: str,
        scatter: Any,
        iteration: int | None = None,
        xaxis: str | None = None,
        yaxis: str | None = None,
        zaxis: str | None = None,
        labels: Sequence[str] | None = None,
        mode: str = "markers",
        fill: bool = False,
        comment: str | None = None,
        extra_layout: dict[str, Any] | None = None,
    ) -> None:
        """Keep points, each of x, y and z."""
        about = _axes(xaxis, yaxis, zaxis=zaxis, labels=labels, mode=mode, fill=fill, comment=comment)
        self._report(
            "scatter3d", title, series, iteration, {"points": _listed(scatter)} | about | _layout(extra_layout)
        )

    def report_confusion_matrix(
        self,
        title: str,
        series: str,
        matrix: Any,
        iteration: int | None = None,
        xaxis: str | None = None,
        yaxis: str | None = None,
        xlabels: Sequence[str] | None = None,
        ylabels: Sequence[str] | None = None,
        yaxis_reversed: bool = False,
        comment: str | None = None,
        extra_layout: dict[str, Any] | None = None,
    ) -> None:
        """Keep a matrix of numbers, rows of equal length."""
        about = _axes(xaxis, yaxis, xlabels=xlabels, ylabels=ylabels, comment=comment) | _layout(extra_layout)
        self._report("matrix", title, series, iteration, {"rows": _listed(matrix)} | about)

    def report_matrix(
        self,
        title: str,
        series: str,
        matrix: Any,
        iteration: int | None = None,
        xaxis: str | None = None,
        yaxis: str | None = None,
        xlabels: Sequence[str] | None = None,
        ylabels: Sequence[str] | None = None,
        yaxis_reversed: bool = False,
        extra_layout: dict[str, Any] | None = None,
    ) -> None:
        """As `report_confusion_matrix`."""
        self.report_confusion_matrix(
            title,
            series,
            matrix,
            iteration,
            xaxis,
            yaxis,
            xlabels,
            ylabels,
            yaxis_reversed,
            extra_layout=extra_layout,
        )

    def report_surface(
        self,
        title: str,
        series: str,
        matrix: Any,
        iteration: int | None = None,
        xaxis: str | None = None,
        yaxis: str | None = None,
        zaxis: str | None = None,
        xlabels: Sequence[str] | None = None,
        ylabels: Sequence[str] | None = None,
        camera: Sequence[float] | None = None,
        comment: str | None = None,
        extra_layout: dict[str, Any] | None = None,
    ) -> None:
        """Keep the heights of a surface, rows of equal length."""
        about = _axes(xaxis, yaxis, zaxis=zaxis, xlabels=xlabels, ylabels=ylabels, camera=camera, comment=comment)
        self._report("surface", title, series, iteration, {"rows": _listed(matrix)} | about | _layout(extra_layout))

    def report_plotly(self, title: str, series: str, figure: Any, iteration: int | None = None) -> None:
        """Keep a Plotly figure, or the dict of one."""
        value = figure if isinstance(figure, dict) else json.loads(figure.to_json())
        self._report("plotly", title, series, iteration, value)

    def report_matplotlib_figure(
        self, title: str, series: str, figure: Any, iteration: int | None = None, report_image: bool = False, **_: Any
    ) -> None:
        """Keep a Matplotlib figure as SVG, or with `report_image` as PNG."""
        held = figure.gcf() if hasattr(figure, "gcf") else figure
        buffer = io.BytesIO()
        held.savefig(buffer, format="png" if report_image else "svg")
        if report_image:
            self._report("image", title, series, iteration, _media(buffer.getvalue(), "image/png"))
        else:
            self._report("svg", title, series, iteration, buffer.getvalue().decode())

    def report_image(
        self,
        title: str,
        series: str,
        iteration: int | None = None,
        local_path: str | None = None,
        image: Any = None,
        matrix: Any = None,
        max_image_history: int | None = None,
        delete_after_upload: bool = False,
        url: str | None = None,
    ) -> None:
        """Keep an image: a file, an array, a PIL image, or the URL of one; one of these.

        Files are PNG, JPEG, GIF, WebP or SVG. Arrays are height by width, also by 1 to 4 channels; floats up to 1 are
        shares of full brightness.

        Raises:
            InvalidRequest: None of them was given, or several, or it is no image, or too large.
            PathNotFound: There is no such file.
        """
        held = image if image is not None else matrix
        if sum(given is not None for given in (local_path, held, url)) != 1:
            raise InvalidRequest("An image is a file, an array, a PIL image, or a URL.", "Give exactly one of them.")
        if url is not None:
            value = {"url": url}
        elif local_path is not None:
            value = _media(_file_bytes(local_path), image_type(local_path))
        else:
            value = _media(png_of(held), "image/png")
        self._report("image", title, series, iteration, value)
        if delete_after_upload and local_path is not None:
            os.unlink(local_path)

    def report_media(
        self,
        title: str,
        series: str,
        iteration: int | None = None,
        local_path: str | None = None,
        stream: IO[Any] | None = None,
        file_extension: str | None = None,
        max_history: int | None = None,
        delete_after_upload: bool = False,
        url: str | None = None,
    ) -> None:
        """Keep a sound, a film, a page or any other short file, a stream of one, or its URL; one of these.

        Raises:
            InvalidRequest: None of them was given, or several, or a stream without `file_extension`, or too much.
            PathNotFound: There is no such file.
        """
        if sum(given is not None for given in (local_path, stream, url)) != 1:
            raise InvalidRequest("Media are a file, a stream, or a URL.", "Give exactly one of them.")
        if url is not None:
            value = {"url": url}
        elif local_path is not None:
            value = _media(_file_bytes(local_path), media_type(local_path))
        elif stream is not None and file_extension is not None:
            value = _media(_stream_bytes(stream), media_type(f"stream.{file_extension.lstrip('.')}"))
        else:
            raise InvalidRequest("A stream does not say what it holds.", "Give file_extension, such as mp4.")
        self._report("media", title, series, iteration, value)
        if delete_after_upload and local_path is not None:
            os.unlink(local_path)

    def flush(self, wait: bool = False) -> bool:
        """Nothing to do: each report is kept when its call returns."""
        return True

    def set_default_upload_destination(self, uri: str) -> None:
        """Accepted without effect: images and media are kept with the version."""
        self._destination = uri

    def get_default_upload_destination(self) -> str:
        """What was set; before that the root in which the version lies, where its reports are."""
        return self._destination

    def set_default_debug_sample_history(self, max_history: int) -> None:
        """Accepted without effect: every report is kept."""
        self._history = int(max_history)

    def get_default_debug_sample_history(self) -> int:
        """What was set; 0 before that."""
        return self._history

    def set_flush_period(self, period: float) -> None:
        """Accepted without effect: each report is kept when its call returns."""

    def get_flush_period(self) -> float | None:
        """None: there is nothing to flush."""
        return None

    def _report(self, kind: str, title: str, series: str, iteration: int | None, value: Any) -> None:
        row = [kind, str(title), str(series), None if iteration is None else int(iteration), time.time_ns(), value]
        try:
            line = _line(row)
        except (TypeError, ValueError, UnicodeEncodeError) as error:
            raise InvalidRequest(f"The report {title!r} cannot be kept: {error}.", "Give plain values.") from error
        self._keep(line)


def _line(row: list[Any]) -> bytes:
    """A row as one line of JSON, which knows no number that is not finite."""
    text = json.dumps(row, ensure_ascii=False, default=_plain)
    if "NaN" in text or "Infinity" in text:
        text = json.dumps(json.loads(text, parse_constant=lambda _: None), ensure_ascii=False)
    return text.encode()


def _plain(value: object) -> object:
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, np.ndarray):
        return value.tolist()
    if hasattr(value, "isoformat"):
        return value.isoformat()
    raise TypeError(f"it holds a {type(value).__name__}")


def _listed(values: Iterable[Any]) -> list[Any]:
    listed: list[Any] = np.asarray(values).tolist()
    return listed


def _axes(xaxis: str | None, yaxis: str | None, **more: Any) -> dict[str, Any]:
    about = {"xaxis": xaxis, "yaxis": yaxis} | more
    return {name: value for name, value in about.items() if value is not None and value is not False}


def _layout(extra: dict[str, Any] | None) -> dict[str, Any]:
    return {"layout": extra} if extra else {}


def _table(table: Any) -> dict[str, Any]:
    """Headings and rows of a DataFrame, or of rows of which the first are the headings."""
    if hasattr(table, "to_dict") and hasattr(table, "columns"):
        split = table.reset_index().to_dict("split")
        return {"columns": [str(name) for name in split["columns"]], "rows": split["data"]}
    rows = [list(row) for row in table]
    return {"columns": [str(name) for name in rows[0]] if rows else [], "rows": rows[1:]}


def _csv_table(path: str) -> dict[str, Any]:
    import csv  # noqa: PLC0415 - an argument of the public method has this name

    text = _file_bytes(path).decode("utf-8-sig", "replace")
    return _table(csv.reader(io.StringIO(text)))


def _file_bytes(path: str) -> bytes:
    try:
        with open(path, "rb") as file:
            return _bounded(file.read(_MOST_MEDIA_BYTES + 1))
    except OSError as error:
        raise PathNotFound(f"{path!r} cannot be read: {error.strerror}.", "Give an existing file.") from error


def _stream_bytes(stream: IO[Any]) -> bytes:
    data = stream.read(_MOST_MEDIA_BYTES + 1)
    return _bounded(data.encode() if isinstance(data, str) else bytes(data))


def _bounded(data: bytes) -> bytes:
    if len(data) > _MOST_MEDIA_BYTES:
        raise InvalidRequest(f"It has more than {_MOST_MEDIA_BYTES >> 20} MiB.", "Keep it in a file of the dataset.")
    return data


def _media(data: bytes, kind: str) -> dict[str, str]:
    return {"type": kind, "base64": base64.b64encode(_bounded(data)).decode()}
