"""Plain values as JSON and back: what JSON has, and times, which are marked.

An object of one member whose name begins with `dataset_store.` stands for a value that JSON does not have. What is no
such mark and looks like one is itself written as a marked list of pairs.
"""

import json
from collections.abc import Callable
from datetime import date, datetime, time
from typing import Any, Final

from dataset_store.core.arrays import np

__all__ = ["from_json", "to_json"]

_MARK: Final = "dataset_store."
_MARKED: Final[dict[str, Callable[[Any], object]]] = {
    f"{_MARK}date": date.fromisoformat,
    f"{_MARK}datetime": datetime.fromisoformat,
    f"{_MARK}dict": dict,
    f"{_MARK}time": time.fromisoformat,
    f"{_MARK}tuple": tuple,
}


def to_json(value: object, *, exact: bool = False) -> str:
    """A value as JSON text.

    Args:
        value: A dict, list, tuple, text, number, truth value, time or None; a number of numpy is a number.
        exact: Keep tuples and keys that are no texts, where else tuples become lists and keys texts, as JSON has them.

    Raises:
        TypeError, ValueError, RecursionError: It is another, or holds one.
    """
    return json.dumps(_plain(value, exact=exact), ensure_ascii=False, default=_refused)


def from_json(text: str | bytes) -> Any:
    """What `to_json` made a text of.

    Raises:
        TypeError, ValueError, KeyError, RecursionError: It is no such text.
    """
    return json.loads(text, object_hook=_unmarked)


def _plain(value: object, *, exact: bool) -> object:
    if isinstance(value, dict):
        return _plain_dict(value, exact=exact)
    if isinstance(value, list | tuple):
        items = [_plain(one, exact=exact) for one in value]
        return {f"{_MARK}tuple": items} if exact and isinstance(value, tuple) else items
    if isinstance(value, np.generic) and value.dtype.kind in "biuf":
        return value.item()
    for kind in (datetime, date, time):
        if isinstance(value, kind):
            return {f"{_MARK}{kind.__name__}": _iso(value, kind)}
    return value


def _plain_dict(value: dict[Any, Any], *, exact: bool) -> object:
    keys = list(value) if exact else [key if isinstance(key, str) else _as_text(key) for key in value]
    if len(set(keys)) < len(keys):
        raise ValueError("two of its keys are the same text")
    held = [_plain(one, exact=exact) for one in value.values()]
    if any(not isinstance(key, str) or key.startswith(_MARK) for key in keys):
        named = [_plain(key, exact=exact) for key in keys]
        return {f"{_MARK}dict": [list(pair) for pair in zip(named, held, strict=True)]}
    return dict(zip(keys, held, strict=True))


def _as_text(key: object) -> str:
    """A key as JSON writes it; a time as ISO has it."""
    return key.isoformat() if isinstance(key, date | time) else json.dumps(_plain(key, exact=False), default=_refused)


def _iso(value: Any, kind: Any) -> str:
    text: str = value.isoformat()
    if kind.fromisoformat(text) != value:
        raise ValueError(f"{value!r} is finer than microseconds")
    return text


def _refused(value: object) -> object:
    raise TypeError(f"it holds a {type(value).__name__}")


def _unmarked(found: dict[str, Any]) -> object:
    if len(found) == 1:
        ((name, held),) = found.items()
        if name.startswith(_MARK):
            return _MARKED[name](held)
    return found
