"""Drafts: versions in the making, kept on this machine as append-only journals.

A draft's state is the fold of its journal's records, as the store's is of its log's. Each record is durable when the
call that made it returns, so the steps of a draft may be separate processes. A torn last record is one whose call
never returned; it is cut off. A record that follows from a state is refused where the journal has gone on since that
state was read, so nothing that another process added is passed over. A draft is in no log: discarding one leaves
nothing in the store but packs that gc collects.
"""

import fcntl
import os
import shutil
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from struct import Struct

import msgspec

from dataset_store.core.digest import hash32
from dataset_store.core.entries import KIND_BITS, Bool, Changes, Entries, compose
from dataset_store.core.log_entries import Producer, TreeRootRow
from dataset_store.core.nodes import decode_node, encode_node
from dataset_store.core.paths import ROOT, PathKey
from dataset_store.errors import Conflict, CorruptObject, DatasetNotFound
from dataset_store.local.os_errors import reading_error, writing_error

__all__ = ["Batch", "Committing", "Draft", "Labels", "Opened", "Sent", "draft_ids", "pending_rows"]

_RECORD = Struct("<II16s")
"""Length of the body in bytes, the same with all bits flipped, the first half of its hash."""

_ALL_BITS = 0xFFFFFFFF
_UNWRITTEN = bytes(16)
_JOURNAL = "journal"


class Opened(msgspec.Struct, frozen=True, tag="opened"):
    """The first record: what the draft is of.

    `version` is an explicit version number; without one it is chosen at the commit. `base` is the tree that changes
    apply to, the first parent's; none means the empty tree.
    """

    id: str
    store: str
    project: str
    name: str
    series: str | None
    version: str | None
    parents: list[str]
    base: TreeRootRow | None
    created: int
    producer: Producer | None = None


class Labels(msgspec.Struct, frozen=True, tag="labels"):
    """Tags and description as they are from here on."""

    tags: list[str]
    description: str | None


class Batch(msgspec.Struct, frozen=True, tag="batch"):
    """Changes made by one call. `rows` are entries as a leaf's bytes, `removed` keys.

    Rows without segments have their content in the folder `root`, whose files have keys below `below`; symbolic links
    have theirs in `links`, by key.
    """

    root: bytes
    below: bytes
    rows: bytes
    removed: list[bytes]
    links: dict[bytes, bytes] = {}

    def changes(self) -> Changes:
        """The batch as columns."""
        rows = decode_node(self.rows, "a draft", placed=False)
        assert isinstance(rows, Entries)  # noqa: S101  (encoded by `of`)
        return Changes(rows, [PathKey(key) for key in self.removed])

    @staticmethod
    def of(
        changes: Changes, root: bytes = b"", below: PathKey = ROOT, links: Iterable[tuple[bytes, bytes]] = ()
    ) -> "Batch":
        """The batch of some changes whose pending contents lie in `root` and `links`."""
        return Batch(root, below, encode_node(changes.entries, 0), list(changes.removed), dict(links))


class Sent(msgspec.Struct, frozen=True, tag="sent"):
    """Everything so far is in the store's packs, as this tree; `slot` is the lowest slot whose fold was used."""

    tree: TreeRootRow
    slot: int


class Committing(msgspec.Struct, frozen=True, tag="committing"):
    """The commit may have been sent: from here on the draft takes no change, only the same commit again.

    Not `active`: it is certain that it did not land, and the draft can be changed again.
    """

    active: bool = True


Record = Opened | Labels | Batch | Sent | Committing
_encoder = msgspec.msgpack.Encoder()
_decoder: msgspec.msgpack.Decoder[Record] = msgspec.msgpack.Decoder(Record)


def pending_rows(entries: Entries) -> Bool:
    """Which rows have a content that is in no pack yet; shape (n,)."""
    has_content = ((entries.kinds & KIND_BITS) <= 2) & (entries.sizes > 0)
    rows: Bool = has_content & (entries.segment_counts == 0)
    return rows


def draft_ids(directory: str) -> list[str]:
    """The ids of the drafts kept under `directory`.

    Raises:
        AccessDenied, StorageFailed: The folder cannot be read.
    """
    try:
        return sorted(os.listdir(directory))
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise reading_error(error, directory) from error


class Draft:
    """One draft's journal and the state that it amounts to.

    Args:
        directory: The folder of this draft.
    """

    def __init__(self, directory: str) -> None:
        self.directory = directory
        self.path = os.path.join(directory, _JOURNAL)
        self.opened: Opened
        self.labels = Labels([], None)
        self.batches: list[Batch] = []
        self.sent: Sent | None = None
        self.committing = False
        self.changes = Changes.none()
        self._end = 0  # bytes of the journal that this state is the fold of

    @staticmethod
    def create(directory: str, opened: Opened, labels: Labels) -> "Draft":
        """Begin a draft in a folder that does not exist yet."""
        parent = os.path.dirname(directory)
        with _naming(directory):
            os.makedirs(parent, mode=0o700, exist_ok=True)
            os.mkdir(directory, 0o700)
            _sync_directory(parent)
        draft = Draft(directory)
        draft.append(opened, labels)
        return draft

    @staticmethod
    def load(directory: str) -> "Draft":
        """Read a draft back.

        Raises:
            DatasetNotFound: There is none.
            CorruptObject: Its journal is damaged, not just torn at its end.
        """
        draft = Draft(directory)
        records, draft._end = draft._read()
        if not records or not isinstance(records[0], Opened):
            raise DatasetNotFound(
                f"There is no draft {draft._name} on this machine.", "Drafts live where they were created."
            )
        for record in records:
            draft._fold(record)
        draft.changes = _compose_all([batch.changes() for batch in draft.batches])
        return draft

    def is_current(self) -> bool:
        """Whether the journal says no more than this state; what a broken-off call left behind it counts too."""
        try:
            return os.stat(self.path).st_size == self._end
        except FileNotFoundError:
            return False

    def append(self, *records: Record) -> None:
        """Make records durable, then part of the state.

        Raises:
            Conflict: Another process is changing the draft, or has since this state was read; nothing was added.
            DatasetNotFound: The draft was finalized or discarded meanwhile.
        """
        framed = b"".join(_framed(_encoder.encode(record)) for record in records)
        with self._locked(), _naming(self.path):
            further, end = self._read(self._end)
            if further or end != self._end:
                raise Conflict(f"Another process has changed the draft {self._name}.", "Get it again, then repeat.")
            descriptor = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                os.ftruncate(descriptor, end)
                os.lseek(descriptor, end, os.SEEK_SET)
                _write_all(descriptor, framed)
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
            _sync_directory(self.directory)
        self._end += len(framed)
        for record in records:
            self._fold(record)
            if isinstance(record, Batch):
                self.changes = compose(self.changes, record.changes())

    def discard(self) -> None:
        """Remove the draft from this machine."""
        shutil.rmtree(self.directory, ignore_errors=True)

    def pending(self) -> Entries:
        """Rows whose content is not in any pack yet."""
        return self.changes.entries.take(pending_rows(self.changes.entries))

    def change(self, batch: Batch) -> None:
        """Add changes.

        Raises:
            Conflict: The draft was handed to a commit whose outcome is not known.
        """
        if self.committing:
            raise Conflict(
                f"The draft {self.opened.id} is being finalized and takes no more changes.",
                "Finalize it again to learn whether it landed; repeating is safe.",
            )
        self.append(batch)

    def _fold(self, record: Record) -> None:
        if isinstance(record, Opened):
            self.opened = record
        elif isinstance(record, Labels):
            self.labels = record
        elif isinstance(record, Sent):
            self.sent = record
        elif isinstance(record, Committing):
            self.committing = record.active
        else:
            self.batches.append(record)
            self.sent = None

    def _read(self, start: int = 0) -> tuple[list[Record], int]:
        """The whole records of the journal from `start` on, and where the last one ends.

        A torn record at the end is left out. Any other damage is an error: what stands behind it was acknowledged.
        """
        try:
            with open(self.path, "rb") as file:
                size = os.fstat(file.fileno()).st_size
                file.seek(start)
                data = file.read()
        except FileNotFoundError:
            return [], 0
        except OSError as error:
            raise reading_error(error, self.path) from error
        records: list[Record] = []
        at = 0
        while at < len(data):
            body = self._body(data, at)
            if body is None:
                break
            records.append(self._decode(body))
            at += _RECORD.size + len(body)
        return records, min(start + at, size)

    def _body(self, data: bytes, at: int) -> bytes | None:
        """The body of the record at an offset; None where it is torn: cut short, or its last bytes never written."""
        if len(data) - at < _RECORD.size or not any(data[at : at + _RECORD.size]):
            return None
        length, complement, check = _RECORD.unpack_from(data, at)
        end = at + _RECORD.size + length
        body = data[at + _RECORD.size : end]
        if length ^ complement == _ALL_BITS and (end > len(data) or (end == len(data) and body.endswith(_UNWRITTEN))):
            return None
        if length ^ complement != _ALL_BITS or hash32(body)[:16] != check:
            raise CorruptObject(
                f"The journal of the draft {self._name} on this machine is damaged ({self.path}).",
                "Discard the draft and make it again; no finished version is affected.",
            )
        return body

    def _decode(self, body: bytes) -> Record:
        try:
            return _decoder.decode(body)
        except (msgspec.MsgspecError, RecursionError) as error:
            raise CorruptObject(
                f"The draft in {self.directory} was written by another version of this package.",
                "Finish it with that version, or discard it.",
            ) from error

    @property
    def _name(self) -> str:
        return os.path.basename(self.directory)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        try:
            descriptor = os.open(self.directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except FileNotFoundError as error:
            raise DatasetNotFound(
                f"The draft {self._name} is no longer on this machine.", "It was finalized or discarded meanwhile."
            ) from error
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            yield
        except BlockingIOError as error:
            raise Conflict(
                f"Another process is changing the draft {self._name}.",
                "Wait for it to finish, then repeat.",
            ) from error
        finally:
            os.close(descriptor)


@contextmanager
def _naming(path: str) -> Iterator[None]:
    """Turns an error of the operating system into one of this package that names the path."""
    try:
        yield
    except OSError as error:
        raise writing_error(error, path) from error


def _compose_all(parts: Sequence[Changes]) -> Changes:
    """The composition of many changes, later ones winning."""
    total = Changes.none()
    for part in parts:
        total = compose(total, part)
    return total


def _framed(body: bytes) -> bytes:
    return _RECORD.pack(len(body), len(body) ^ _ALL_BITS, hash32(body)[:16]) + body


def _write_all(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


def _sync_directory(path: str) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
