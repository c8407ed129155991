"""Tables, arrays and plain values as bytes, and back: the one module that loads pyarrow. Nothing here runs code.

Plain values (what JSON has) are JSON. Tables and arrays are an Arrow stream, whose schema says what it was made of. The
two are told apart by their first byte, which in a stream is 0xFF.
"""

import json
import math
import warnings
from importlib import import_module
from importlib.util import find_spec
from typing import Any

from dataset_store.core.arrays import np
from dataset_store.core.entries import EXECUTABLE, KIND_BITS, Entries
from dataset_store.core.kinds import Kind
from dataset_store.core.paths import to_path
from dataset_store.dataset.annotations.arrow_bounds import require_bounded, require_plain_types
from dataset_store.dataset.annotations.plain_values import from_json, to_json
from dataset_store.errors import CorruptObject, InvalidRequest

__all__ = ["decode_value", "encode_value", "table_of_entries"]

_MADE_OF = b"dataset_store.made_of"
_DTYPE = b"dataset_store.dtype"
_SHAPE = b"dataset_store.shape"
_NAME = b"dataset_store.name"
_SPELLED = b"dataset_store.spelled"
_STREAM = 0xFF
_KINDS = "biufcMmUS"
_MOST_TEXT_BYTES = 256 << 20
"""Of an array of texts, which all take as much as the longest may, though few bytes are stored of a short one."""


def encode_value(value: object) -> bytes:
    """A value as bytes.

    Args:
        value: A dict, list, text, number or truth value that JSON has, or a time; a pandas DataFrame or Series; a numpy
            array of numbers, truth values, times or text; or a pyarrow Table.

    Raises:
        InvalidRequest: It is of another kind, or holds something that is.
    """
    if isinstance(value, np.ma.MaskedArray):
        raise InvalidRequest("A masked array cannot be kept as metadata.", "Fill it, or keep its mask beside it.")
    kind = f"{type(value).__module__.partition('.')[0]}.{type(value).__name__}"
    if isinstance(value, np.ndarray):
        return _stream(_array_table(value))
    if kind == "pandas.DataFrame":
        return _stream(_frame_table(value))
    if kind == "pandas.Series":
        return _stream(_series_table(value))
    if kind == "pyarrow.Table":
        return _stream(value)
    try:
        return to_json(value).encode()
    except (TypeError, ValueError, UnicodeEncodeError, RecursionError) as error:
        raise InvalidRequest(
            f"A value of type {type(value).__name__} cannot be kept as metadata: {error}.",
            "Give what JSON has, a DataFrame, an array or a pyarrow Table; keep others in files of the dataset.",
        ) from error


def decode_value(data: bytes, *, what: str) -> Any:
    """What `encode_value` made bytes of, as it was; of pandas a pyarrow Table where that is not installed.

    Raises:
        CorruptObject: The bytes are nothing of that kind.
    """
    try:
        if data[:1] == bytes([_STREAM]):
            return _from_table(_table_of(data))
        return from_json(data)
    except InvalidRequest:
        raise
    except Exception as error:
        raise CorruptObject(f"{what} cannot be read: {error}.", "It was written by something else.") from error


def table_of_entries(entries: Entries, links: dict[int, str]) -> Any:
    """A pyarrow Table with a row for each entry; `links` are the URLs of external links by row.

    Of a path, bytes that are not UTF-8 are escaped with a backslash.
    """
    pa = import_module("pyarrow")
    kinds = entries.kinds & KIND_BITS
    names = pa.array(["", *(kind.name.lower() for kind in Kind)])
    origins = pa.array([origin.hex() for origin in entries.origin_ids], pa.string())
    ids = pa.py_buffer(np.ascontiguousarray(entries.content_ids).tobytes())
    columns = {
        "path": pa.array([to_path(key).decode("utf-8", "backslashreplace") for key in entries.keys], pa.string()),
        "kind": pa.DictionaryArray.from_arrays(pa.array(kinds.astype(np.int8)), names),
        "size": pa.array(entries.sizes),
        "mtime": pa.array(entries.mtimes, pa.timestamp("ns", "UTC")),
        "executable": pa.array((entries.kinds & EXECUTABLE) != 0),
        "content_id": pa.FixedSizeBinaryArray.from_buffers(pa.binary(32), len(entries), [None, ids]),
        "origin": pa.DictionaryArray.from_arrays(pa.array(entries.origins.astype(np.int32)), origins),
        "link": pa.array([links.get(row) for row in range(len(entries))], pa.string()),
    }
    return pa.table(columns)


def _stream(table: Any) -> bytes:
    pa = import_module("pyarrow")
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    held = sink.getvalue()
    try:
        require_bounded(held)
    except ValueError as error:
        raise InvalidRequest(f"The table cannot be kept: {error}.", "Leave out columns without values.") from error
    stream: bytes = held.to_pybytes()
    return stream


def _table_of(data: bytes) -> Any:
    pa = import_module("pyarrow")
    stream = pa.py_buffer(data)
    require_bounded(stream)
    table = pa.ipc.open_stream(stream).read_all()
    table.validate(full=True)
    return table


def _series_table(series: Any) -> Any:
    table = _frame_table(series.to_frame("values"))
    name = to_json(series.name, exact=True).encode()
    return table.replace_schema_metadata({**table.schema.metadata, _MADE_OF: b"series", _NAME: name})


def _frame_table(frame: Any) -> Any:
    """A DataFrame as Arrow has it, or else spelled out; whether it comes back as it was is tried."""
    why: object = "its values, or the labels of its rows or columns, would not come back as they are"
    for table_of in (_plain_table, _spelled_table):
        try:
            table = table_of(frame)
            if _is_same_frame(_frame_of(table), frame):
                return table
        except _not_kept() as error:
            why = error
    raise InvalidRequest(
        f"The {type(frame).__name__} cannot be kept: {why}.", "Turn columns of other objects into text first."
    )


def _not_kept() -> tuple[type[Exception], ...]:
    """What is raised of values that neither Arrow nor JSON has."""
    return (import_module("pyarrow").ArrowException, ValueError, TypeError, KeyError, OverflowError, RecursionError)


def _plain_table(frame: Any) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of what does not come back: that is tried
        table = import_module("pyarrow").Table.from_pandas(frame)
    return table.replace_schema_metadata({**(table.schema.metadata or {}), _MADE_OF: b"dataframe"})


def _spelled_table(frame: Any) -> Any:
    """A DataFrame whose columns are called by their positions; cells that Arrow would change are JSON."""
    held = frame.set_axis([str(at) for at in range(frame.shape[1])], axis=1)
    in_json = [at for at, it in enumerate(frame.dtypes) if _is_object(it) and not _arrow_keeps(frame.iloc[:, at])]
    for at in in_json:
        held.isetitem(at, _texts(frame.iloc[:, at]))
    about = {"columns": list(frame.columns), "names": list(frame.columns.names), "json": in_json}
    if _is_object(frame.index.dtype) and not _arrow_keeps(frame.index.to_frame(index=False)):
        about["rows"] = list(frame.index.names)
        held = held.assign(rows=_texts(frame.index)).reset_index(drop=True)
    table = _plain_table(held)
    return table.replace_schema_metadata({**table.schema.metadata, _SPELLED: to_json(about, exact=True).encode()})


def _texts(cells: Any) -> list[str]:
    return [to_json(cell, exact=True) for cell in cells]


def _frame_of(table: Any) -> Any:
    """The DataFrame that a table was made of."""
    require_plain_types(table.schema)
    frame = table.to_pandas()
    spelled = table.schema.metadata.get(_SPELLED)
    if spelled is None:
        return frame
    about = from_json(spelled)
    if "rows" in about:
        frame.index = _labels([from_json(text) for text in frame.pop("rows")], about["rows"])
    for at in about["json"]:
        frame.isetitem(at, _objects([from_json(text) for text in frame.iloc[:, at]], frame.index))
    frame.columns = _labels(about["columns"], about["names"])
    return frame


def _labels(labels: list[Any], names: list[Any]) -> Any:
    """An index of pandas: of one name with single labels, of several with tuples."""
    pandas = import_module("pandas")
    if len(names) > 1:
        return pandas.MultiIndex.from_tuples(labels, names=names)
    plain = pandas.Index(labels, name=names[0], tupleize_cols=False)
    if all(map(_is_same, labels, plain)):
        return plain
    return pandas.Index(_objects(labels, None), dtype=object, name=names[0], tupleize_cols=False)


def _objects(values: list[Any], index: Any) -> Any:
    """A Series of any values, none of which is looked into."""
    cells = np.empty(len(values), object)
    for at, value in enumerate(values):
        cells[at] = value
    return import_module("pandas").Series(cells, index, object)


def _arrow_keeps(held: Any) -> bool:
    """Whether a Series, or a DataFrame, comes back from Arrow as it is."""
    frame = held.to_frame("0") if held.ndim == 1 else held.set_axis(map(str, range(held.shape[1])), axis=1)
    try:
        return _is_same_frame(_plain_table(frame.reset_index(drop=True)).to_pandas(), frame.reset_index(drop=True))
    except _not_kept():
        return False


def _is_same_frame(one: Any, other: Any) -> bool:
    """Whether labels, and the cells of columns of objects, are the same; of other columns Arrow has the very type."""
    if not (one.shape == other.shape and _are_same(one.columns, other.columns)):
        return False
    if _is_object(other.index.dtype) and not _are_same(one.index, other.index):
        return False
    return all(
        _is_object(one.dtypes.iloc[at]) and _are_same(one.iloc[:, at], other.iloc[:, at])
        for at, dtype in enumerate(other.dtypes)
        if _is_object(dtype)
    )


def _is_object(dtype: Any) -> bool:
    return isinstance(dtype, np.dtype) and dtype.kind == "O"


def _are_same(one: Any, other: Any) -> bool:
    names = [list(getattr(each, "names", ())) for each in (one, other)]
    return bool(_is_same(*names) and len(one) == len(other) and all(map(_is_same, one, other)))


def _is_same(one: Any, other: Any) -> bool:
    """Whether a value came back: equal, and of the same type; a number of numpy comes back as a number."""
    if isinstance(other, np.generic) and not isinstance(one, np.generic):
        other = other.item()
    if isinstance(one, np.ndarray) or isinstance(other, np.ndarray):
        both = isinstance(one, np.ndarray) and isinstance(other, np.ndarray)
        return both and one.dtype == other.dtype and one.shape == other.shape and all(map(_is_same, one, other))
    if not isinstance(other, type(one)) or isinstance(one, bool) != isinstance(other, bool):
        return False
    if isinstance(one, dict):
        return (
            list(map(type, one)) == list(map(type, other))
            and len(one) == len(other)
            and all(key in other and _is_same(held, other[key]) for key, held in one.items())
        )
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(_is_same, one, other))
    return one is other or bool(one == other) or (isinstance(one, float) and math.isnan(one) and math.isnan(other))


def _array_table(array: "np.ndarray[Any, Any]") -> Any:
    pa = import_module("pyarrow")
    if array.dtype.hasobject or array.dtype.names or array.dtype.kind not in _KINDS:
        raise InvalidRequest(
            f"An array of type {array.dtype} cannot be kept as metadata.",
            "Numbers, truth values, times and text can be; keep others in files of the dataset.",
        )
    if array.dtype.kind in "US" and array.nbytes > _MOST_TEXT_BYTES:
        raise InvalidRequest(
            f"An array of {array.nbytes >> 20} MiB cannot be kept.", "Keep it in a file of the dataset."
        )
    flat = np.ascontiguousarray(array, array.dtype.newbyteorder("=")).reshape(-1)
    texts = {"U": pa.string(), "S": pa.binary()}.get(array.dtype.kind)
    bits = flat if _has_arrow_type(array) else flat.view(np.uint8)
    try:
        values = pa.array(flat.tolist(), texts) if texts else pa.array(bits)
    except (pa.ArrowException, UnicodeError) as error:
        raise InvalidRequest(f"The array cannot be kept: {error}.", "Give numbers, times or UTF-8 text.") from error
    shape = json.dumps(array.shape).encode()
    return pa.table({"values": values}).replace_schema_metadata(
        {_MADE_OF: b"array", _DTYPE: array.dtype.str.encode(), _SHAPE: shape}
    )


def _has_arrow_type(array: "np.ndarray[Any, Any]") -> bool:
    """Whether Arrow has these numbers; complex and very long ones, and times in odd units, are kept as their bits."""
    kind = array.dtype.kind
    if kind in "Mm":
        return np.datetime_data(array.dtype) in {("s", 1), ("ms", 1), ("us", 1), ("ns", 1)}
    return kind in "biu" or (kind == "f" and array.dtype.itemsize <= 8)


def _from_table(table: Any) -> Any:
    about = table.schema.metadata or {}
    made_of = about.get(_MADE_OF)
    if made_of == b"array":
        return _array_of(table, np.dtype(about[_DTYPE].decode()), tuple(json.loads(about[_SHAPE])))
    if made_of not in {b"dataframe", b"series"} or find_spec("pandas") is None:
        return table
    frame = _frame_of(table)
    return frame if made_of == b"dataframe" else frame.iloc[:, 0].rename(from_json(about[_NAME]))


def _require_array(held: Any, dtype: "np.dtype[Any]", count: int) -> None:
    """See that an array is one that was written here, and not wider than what can be kept at all.

    Raises:
        ValueError: It is not.
    """
    types = import_module("pyarrow").types
    text = dtype.kind in "US"
    known = types.is_string(held) or types.is_binary(held) if text else types.is_primitive(held)
    if dtype.kind not in _KINDS or not known:
        raise ValueError(f"an array of {dtype} is not kept as {held}")
    if text and dtype.itemsize * count > _MOST_TEXT_BYTES:
        raise ValueError(f"{count} texts of {dtype} are too long together")


def _array_of(table: Any, dtype: "np.dtype[Any]", shape: tuple[int, ...]) -> "np.ndarray[Any, Any]":
    values = table.column("values").combine_chunks()
    _require_array(values.type, dtype, len(values))
    if dtype.kind in "US":
        return np.array(values.to_pylist(), dtype).reshape(shape)
    flat = values.to_numpy(zero_copy_only=False)
    own = dtype.newbyteorder("=")
    found: np.ndarray[Any, Any] = (
        flat.astype(own) if _has_arrow_type(np.empty(0, own)) else flat.astype(np.uint8).view(own)
    )
    return found.reshape(shape).astype(dtype, copy=False)
