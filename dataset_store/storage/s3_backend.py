"""A bucket of S3, or of what speaks its protocol, as a backend: one object of the bucket for each object of the store.

Promises: those of `backend` for any number of writers; an object is sent by one request, made whole, and by `create`
only if its key is free; short answers are errors, never data. Never: overwrites an object, retries, keeps a listing, or
sends an object in parts, of which a machine that dies leaves what costs money and is in no listing.
"""

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from typing import Any, Final, TypeVar
from urllib.parse import unquote

from dataset_store.errors import DatasetStoreError, InvalidRequest
from dataset_store.storage.backend import (
    Buffers,
    CollectedWriter,
    Key,
    ObjectInfo,
    ObjectWriter,
    Span,
    Tail,
    Traits,
    extent,
    validate_key,
)
from dataset_store.storage.backend_errors import arrived_short, create_failure, object_missing
from dataset_store.storage.filesystems import cause, given_options, redacted
from dataset_store.storage.s3_answers import answer_of, s3_failure
from dataset_store.storage.s3_client import REQUESTS_AT_ONCE, BucketClient

__all__ = ["S3Backend"]

_TRAITS: Final = Traits(hole_bytes=256 << 10, at_once=4, create_is_promised=False, asks_once=True)

_LARGEST: Final = 1 << 62

_CREDENTIALS: Final = frozenset({"key", "username", "secret", "password", "token", "anon", "profile"})
"""Options that would be mixed with those of a URL."""

_CREDENTIALS_OF_CLIENT: Final = frozenset({"aws_access_key_id", "aws_secret_access_key", "aws_session_token"})

_Item = TypeVar("_Item")
_Answer = TypeVar("_Answer")


class S3Backend:
    """The backend over one prefix of a bucket.

    Args:
        url: `s3://bucket/prefix`, of a bucket that exists; also with a key and its secret before the bucket, as
            `key:secret@`, in which `/`, `:`, `@` and `%` are percent-encoded.

    Raises:
        DriverMissing: The client is not installed.
        InvalidRequest: The URL names no bucket, or the client cannot be opened as it is configured.
        AccessDenied: What gives out credentials refused.
    """

    def __init__(self, url: str) -> None:
        self._url = url.rstrip("/")
        authority, _, prefix = self._url.partition("://")[2].partition("/")
        user, _, bucket = authority.rpartition("@")
        if not bucket:
            raise InvalidRequest(f"The URL {redacted(url)} names no bucket.", "Write s3://bucket/prefix.")
        self._prefix = f"{prefix}/" if prefix else ""
        self._bucket = BucketClient(bucket, _options(user, given_options("s3", "s3a"), url))
        self._pool: tuple[int, ThreadPoolExecutor | None] = (0, None)

    @property
    def traits(self) -> Traits:
        """A request costs about what 256 KiB do; the create of a server is tried before it is trusted."""
        return _TRAITS

    def get_many(self, keys: Sequence[Key]) -> list[bytes | None]:
        """Read whole objects; see the port."""
        return [*self._each(self._whole, [validate_key(key) for key in keys])]

    def get_ranges(self, ranges: Sequence[Span | Tail]) -> list[bytes]:
        """Read parts of objects, each by a request of its own; see the port."""
        for part in ranges:
            validate_key(part.key)
            extent(part, _LARGEST)  # what runs backwards is refused before anything is asked
        return [*self._each(self._part, ranges)]

    def put(self, key: Key, buffers: Buffers) -> None:
        """Write one object under a fresh name; see the port. Names are fresh, so two writers never meet in one."""
        name = self._name(key)
        with self._telling(f"write '{key}' to"):
            self._bucket.write(name, buffers)

    def open_writer(self, key: Key) -> ObjectWriter:
        """Collect an object, as it is sent by one request; see the port."""
        return CollectedWriter(self, key)

    def create(self, key: Key, buffers: Buffers) -> bool:
        """Write one object if the key holds none; see the port."""
        name = self._name(key)
        try:
            self._bucket.write(name, buffers, if_absent=True)
        except Exception as error:
            answer = answer_of(error)
            if answer and answer.has_lost_the_race:
                return False
            doing, words = f"create '{key}' in", answer.words if answer else frozenset()
            raise create_failure(key, self.describe(), self._failure(error, doing), words) from cause(error, self._url)
        return True

    def delete_many(self, keys: Iterable[Key]) -> None:
        """Remove objects, each by a request of its own; see the port."""
        self._each(self._delete, [validate_key(key) for key in keys])

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        """Every object below a prefix, read at once; see the port. What is no key is passed over."""
        folder = self._name(Key(prefix))
        try:
            rows = [*self._bucket.list(f"{folder}/")]
        except Exception as error:
            raise self._failure(error, f"list '{prefix}' of") from cause(error, self._url)
        found = (_row(name.removeprefix(self._prefix), size, written) for name, size, written in rows)
        return iter([row for row in found if row is not None])

    def describe(self) -> str:
        """The URL without credentials."""
        return redacted(self._url)

    def _name(self, key: Key) -> str:
        return self._prefix + validate_key(key)

    def _each(self, ask: Callable[[_Item], _Answer], items: Sequence[_Item]) -> Sequence[_Answer]:
        """What is answered for each item, in order; many are asked for at once."""
        if len(items) <= 1:
            return [ask(item) for item in items]
        with self._telling("connect to"):
            self._bucket.connect()
        asked = self._begun(ask, items)
        begun = len(asked)
        try:
            # Each is let go of before it is asked, as an error would hold it, and it the error.
            return [asked.popleft().result() for _ in range(begun)] + [ask(item) for item in items[begun:]]
        finally:
            for one in asked:
                one.cancel()

    def _begun(self, ask: Callable[[_Item], _Answer], items: Sequence[_Item]) -> "deque[Future[_Answer]]":
        """What threads answer: the first of the items, all where the system gives threads."""
        asked: deque[Future[_Answer]] = deque()
        with suppress(RuntimeError):  # it has no more of them, or the interpreter is ending
            for item in items:
                asked.append(self._threads().submit(ask, item))
        return asked

    def _threads(self) -> ThreadPoolExecutor:
        """Those of this process, for no thread outlives a fork; they bound what is under way at once."""
        process, pool = self._pool
        if pool is None or process != os.getpid():
            pool = ThreadPoolExecutor(REQUESTS_AT_ONCE, thread_name_prefix="s3")
            self._pool = (os.getpid(), pool)
        return pool

    # Reading

    def _whole(self, key: Key) -> bytes | None:
        try:
            return self._bucket.read(self._name(key))
        except Exception as error:
            if _is_absent(error):
                return None
            raise self._failure(error, f"read '{key}' from") from cause(error, self._url)

    def _part(self, part: Span | Tail) -> bytes:
        start, stop = extent(part, _LARGEST)
        if start == stop:
            return self._empty(part)
        wanted = f"bytes={start}-{stop - 1}" if isinstance(part, Span) else f"bytes=-{part.length}"
        try:
            begins, data = self._bucket.read_part(self._name(part.key), wanted)
        except Exception as error:
            answer = answer_of(error)
            if answer and answer.has_no_such_range:
                return self._empty(part, error)
            raise self._read_failure(part.key, error) from cause(error, self._url)
        if isinstance(part, Tail):
            return data[-part.length :]  # a server that does not know ranges sent all of it, as also below
        data = data[start - begins : stop - begins] if begins <= start else b""
        if len(data) < stop - start:
            raise self._too_short(part, len(data))
        return data

    def _empty(self, part: Span | Tail, refusal: Exception | None = None) -> bytes:
        """The empty part of an object that no range can ask for; the refusal of another, or why it is none."""
        try:
            size = self._bucket.size(self._name(part.key))
        except Exception as error:
            raise self._read_failure(part.key, error) from cause(error, self._url)
        start, stop = extent(part, size)
        if start < stop and refusal is not None:
            raise self._failure(refusal, f"read '{part.key}' from") from cause(refusal, self._url)
        return b""

    def _too_short(self, part: Span, found: int) -> Exception:
        self._empty(part)  # an object that ends before is damaged, and says so
        return arrived_short(part.key, found, part.stop - part.start, self.describe())

    # Deleting

    def _delete(self, key: Key) -> None:
        try:
            self._bucket.delete(self._name(key))
        except Exception as error:
            if not _is_absent(error):
                raise self._failure(error, "delete objects of") from cause(error, self._url)

    # Errors

    @contextmanager
    def _telling(self, doing: str) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            raise self._failure(error, doing) from cause(error, self._url)

    def _read_failure(self, key: Key, error: Exception) -> Exception:
        if _is_absent(error):
            return object_missing(key, self.describe())
        return self._failure(error, f"read '{key}' from")

    def _failure(self, error: Exception, doing: str) -> DatasetStoreError:
        return s3_failure(error, doing, self.describe())


def _options(user: str, given: dict[str, Any], url: str) -> dict[str, Any]:
    """What is given, and the credentials of a URL in the place of all others."""
    if not user:
        return given
    key, _, secret = user.partition(":")
    if not secret:
        raise InvalidRequest(
            f"The URL of {redacted(url)} has a key and no secret.", "Write s3://key:secret@bucket/prefix."
        )
    others = {name: _without_credentials(said) for name, said in given.items() if name not in _CREDENTIALS}
    return others | {"key": unquote(key), "secret": unquote(secret)}


def _without_credentials(said: Any) -> Any:
    """An option; one that is a table without what its client calls credentials."""
    if not isinstance(said, Mapping):
        return said
    return {name: one for name, one in said.items() if name not in _CREDENTIALS_OF_CLIENT}


def _is_absent(error: Exception) -> bool:
    answer = answer_of(error)
    return answer is not None and answer.tells_of_absence


def _row(key: str, size: int, written: float) -> ObjectInfo | None:
    try:
        return ObjectInfo(validate_key(key), size, written)
    except InvalidRequest:
        return None
