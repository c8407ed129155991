"""Whether a storage keeps two writers apart: its create-if-absent, tried on a key of its own.

Servers that speak S3 answer a conditional PUT in every way there is: they honour it, refuse it, answer as if it were a
read, or ignore it and say yes. Only the first may be shared by writers. Promises: a storage that does anything else
gets an error that says what it did, before anything but the probe's own key was written; that key is removed. Never:
trusts an answer in doubt; what stands under the key decides.
"""

import os
from collections.abc import Callable
from contextlib import suppress
from typing import Final

from msgspec import Struct

from dataset_store.errors import OutcomeUnknown, StorageFailed, StoreLacksCreateIfAbsent
from dataset_store.storage.backend import Backend, Key
from dataset_store.storage.retries import Patience

__all__ = ["CreateAnswers", "require_create_if_absent", "try_creates"]

_FIRST: Final = b"first"
_SECOND: Final = b"second"
_ATTEMPTS: Final = 4


class CreateAnswers(Struct, frozen=True):
    """What became of two creates of one fresh key.

    Attributes:
        first, second: Whether each was told that it made the object; None where the answer left that open.
        stands: What was read back after both; None where nothing was there.
        doubt: What the storage last said that left an outcome open; empty where it never did.
    """

    first: bool | None
    second: bool | None
    stands: bytes | None
    doubt: str = ""

    @property
    def fault(self) -> str | None:
        """What the storage did that no shared one may do, to follow its name; None where it did nothing wrong."""
        if self.stands is None:
            if self.first:
                return "does not give back what it said it had made"
            if self.first is False:
                return "says of a key that nobody has used that it is taken"
            return f"made nothing of {_ATTEMPTS} creates of a key that nobody has used ({self.doubt})"
        if self.stands != _FIRST:
            told = "said so" if self.second else "told it that it lost"
            return f"lets a second writer replace what the first one made, and {told}"
        return "tells a second writer of one key that it won" if self.second else None


def require_create_if_absent(backend: Backend, new_id: Callable[[int], bytes] = os.urandom) -> None:
    """Try whether a storage keeps two writers apart, where its own rules do not promise it.

    Raises:
        StoreLacksCreateIfAbsent: It does not; the message says what it did.
        StorageFailed: The storage cannot be written or read.
    """
    if backend.traits.create_is_promised:
        return
    fault = try_creates(backend, Key(f"probe/{new_id(16).hex()}")).fault
    if fault is not None:
        raise StoreLacksCreateIfAbsent(
            f"{backend.describe()} {fault}; no store was made there.",
            "Use a storage that honours If-None-Match; if this one is only busy, repeat.",
        )


def try_creates(backend: Backend, key: Key, patience: Patience | None = None) -> CreateAnswers:
    """Create a key that nobody has used, create it again, read it back and remove it.

    Raises:
        StoreLacksCreateIfAbsent: The storage says by itself that it cannot do this.
        StorageFailed: It cannot be written or read.
    """
    doubt = ""
    first: bool | None = None
    try:
        for attempt in range(_ATTEMPTS):
            if attempt:
                (patience or Patience()).pause(attempt)
            first, said = _created(backend, key, _FIRST)
            doubt = said or doubt
            if first or backend.get_many([key]) != [None]:
                break
        else:
            return CreateAnswers(first, None, None, doubt)
        second, said = _created(backend, key, _SECOND)
        (stands,) = backend.get_many([key])
        return CreateAnswers(first, second, stands, said or doubt)
    finally:
        with suppress(StorageFailed):  # what the probe found counts; a key below `probe/` is no part of a store
            backend.delete_many([key])


def _created(backend: Backend, key: Key, data: bytes) -> tuple[bool | None, str]:
    try:
        return backend.create(key, [data]), ""
    except OutcomeUnknown as error:
        return None, error.what.rstrip(".")
