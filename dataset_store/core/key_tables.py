"""The keys of nodes, cut out of their bytes and checked: by compiled code where there is any, else by the reference.

Promises: what `cut_keys` gives are keys by the rules of `paths`, in order, none an ancestor of another.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import cast

from dataset_store.core.arrays import U32
from dataset_store.core.paths import MAX_COMPONENTS, MAX_NAME_BYTES, MAX_PATH_BYTES, PathKey, check_key_tables

try:
    from dataset_store.core import _keys  # type: ignore[attr-defined]  # compiled, and optional
except ImportError:
    _keys = None

__all__ = ["compiled", "cut_keys", "cut_keys_reference"]


def compiled() -> bool:
    """Whether keys are cut by compiled code."""
    return _keys is not None


def cut_keys(raws: Sequence[bytes], ends: Sequence[U32]) -> list[list[PathKey]]:
    """The keys of several nodes.

    Args:
        raws: Of each node, its keys one behind the other.
        ends: Of each, where each key ends; shape (keys,), little-endian, rising to the length of the bytes.

    Raises:
        CorruptObject: Some are no keys, or not in order.
    """
    if _keys is not None:
        limits = MAX_PATH_BYTES, MAX_NAME_BYTES, MAX_COMPONENTS
        tables = [_keys.cut_keys(raw, some, *limits) for raw, some in zip(raws, ends, strict=True)]
        if None not in tables:
            return tables
    return cut_keys_reference(raws, ends)


def cut_keys_reference(raws: Sequence[bytes], ends: Sequence[U32]) -> list[list[PathKey]]:
    """The definition of `cut_keys`, which also says what is wrong."""
    tables = [_cut(raw, some) for raw, some in zip(raws, ends, strict=True)]
    check_key_tables(tables)
    return cast("list[list[PathKey]]", tables)


def _cut(raw: bytes, ends: U32) -> list[bytes]:
    return [raw[start:stop] for start, stop in pairwise([0, *ends.tolist()])]
