"""Tables, arrays and plain values as bytes, and back: the one module that loads pyarrow. Nothing here runs code.

Plain values (what JSON has) are JSON. Tables and arrays are an Arrow stream, whose schema says what it was made of. The
two are told apart by their first byte, which in a stream is 0xFF.
"""

import json
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import numpy as np

from dataset_store.core.entries import EXECUTABLE, KIND_BITS, Entries
from dataset_store.core.kinds import Kind
from dataset_store.core.paths import to_path
from dataset_store.errors import CorruptObject, InvalidRequest

__all__ = ["decode_value", "encode_value", "table_of_entries"]

_MADE_OF = b"dataset_store.made_of"
_DTYPE = b"dataset_store.dtype"
_SHAPE = b"dataset_store.shape"
_STREAM = 0xFF


def encode_value(value: object) -> bytes:
    """A value as bytes.

    Args:
        value: A dict, list, text, number or truth value that JSON has; a pandas DataFrame; a numpy array of numbers,
            truth values, times or text; or a pyarrow Table.

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
    if kind == "pyarrow.Table":
        return _stream(value)
    try:
        return json.dumps(_with_text_keys(value), ensure_ascii=False, default=_plain).encode()
    except (TypeError, ValueError, UnicodeEncodeError, RecursionError) as error:
        raise InvalidRequest(
            f"A value of type {type(value).__name__} cannot be kept as metadata: {error}.",
            "Give what JSON has, a DataFrame, an array or a pyarrow Table; keep others in files of the dataset.",
        ) from error


def decode_value(data: bytes, *, what: str) -> Any:
    """What `encode_value` made bytes of, as it was; a DataFrame is a pyarrow Table where pandas is not installed.

    Raises:
        CorruptObject: The bytes are nothing of that kind.
    """
    try:
        if data[:1] == bytes([_STREAM]):
            return _from_table(_table_of(data))
        return json.loads(data)
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


def _with_text_keys(value: object) -> object:
    """The value, with keys as JSON writes them; two that would become one are an error."""
    if isinstance(value, dict):
        texts = [key if isinstance(key, str) else json.dumps(key, default=_plain) for key in value]
        if len(set(texts)) < len(texts):
            raise ValueError("two of its keys are the same text")
        return {text: _with_text_keys(one) for text, one in zip(texts, value.values(), strict=True)}
    return [_with_text_keys(one) for one in value] if isinstance(value, list | tuple) else value


def _plain(value: object) -> object:
    """Numbers of numpy are numbers; anything else is no plain value."""
    if isinstance(value, np.generic):
        return value.item()
    raise TypeError(f"it holds a {type(value).__name__}")


def _stream(table: Any) -> bytes:
    pa = import_module("pyarrow")
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    stream: bytes = sink.getvalue().to_pybytes()
    return stream


def _table_of(data: bytes) -> Any:
    pa = import_module("pyarrow")
    table = pa.ipc.open_stream(pa.py_buffer(data)).read_all()
    table.validate(full=True)
    return table


def _frame_table(frame: Any) -> Any:
    pa = import_module("pyarrow")
    try:
        table = pa.Table.from_pandas(frame)
    except (pa.ArrowException, ValueError, UnicodeError) as error:
        raise InvalidRequest(
            f"The DataFrame cannot be kept: {error}.", "Turn columns of mixed or other objects into text first."
        ) from error
    return table.replace_schema_metadata({**(table.schema.metadata or {}), _MADE_OF: b"dataframe"})


def _array_table(array: np.ndarray[Any, Any]) -> Any:
    pa = import_module("pyarrow")
    if array.dtype.hasobject or array.dtype.names or array.dtype.kind not in "biufcMmUS":
        raise InvalidRequest(
            f"An array of type {array.dtype} cannot be kept as metadata.",
            "Numbers, truth values, times and text can be; keep others in files of the dataset.",
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


def _has_arrow_type(array: np.ndarray[Any, Any]) -> bool:
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
    if made_of == b"dataframe" and find_spec("pandas") is not None:
        return table.to_pandas()
    return table


def _array_of(table: Any, dtype: "np.dtype[Any]", shape: tuple[int, ...]) -> np.ndarray[Any, Any]:
    values = table.column("values").combine_chunks()
    if dtype.kind in "US":
        return np.array(values.to_pylist(), dtype).reshape(shape)
    flat = values.to_numpy(zero_copy_only=False)
    own = dtype.newbyteorder("=")
    found: np.ndarray[Any, Any] = (
        flat.astype(own) if _has_arrow_type(np.empty(0, own)) else flat.astype(np.uint8).view(own)
    )
    return found.reshape(shape).astype(dtype, copy=False)
