"""The log of a store: reading what follows a known position, and appending by create-if-absent.

How the entries are found and checked is told in `log_reader`.
`append` sends one entry to one slot until its fate is known and never goes on to the next slot before; so
nothing lands twice, whatever replies are lost. Where it gives up it raises `CommitOutcomeUnknown`, and the same
commit can be repeated safely.

The log never lists, overwrites or deletes, and never keeps the fold: see `catalog_cache`. It is safe to use
from several threads.
"""

import contextlib
import random
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Final, Protocol

from msgspec import Struct, field

from dataset_store.core.catalog import Catalog
from dataset_store.core.checkpoints import LEVELS, MAX_PLAIN, SPANS, encode_checkpoint
from dataset_store.core.log_entries import (
    LogEntry,
    decode_entry,
    encode_entry,
    object_digest,
    same_body,
    with_prev,
)
from dataset_store.errors import (
    CommitOutcomeUnknown,
    Conflict,
    DatasetStoreError,
    OutcomeUnknown,
    StorageFailed,
    StoreReadOnly,
)
from dataset_store.storage.backend import Backend, Key
from dataset_store.storage.log_reader import (
    LogReader,
    LogRecord,
    Position,
    beyond,
    entry_missing,
    object_key,
    read_record,
    rewound,
    slot_key,
)

__all__ = ["Committed", "Fold", "Log", "Looks", "Lost", "Pacing"]

_LOOK_HOLDS: Final = 64
"""For how many entries it counts that nothing was found behind the end of the log."""


class Committed(Struct, frozen=True):
    """The entry stands in the log."""

    record: LogRecord


class Lost(Struct, frozen=True):
    """Another entry took the slot, and the one that was sent will never land in it."""

    record: LogRecord


class Pacing(Struct, frozen=True):
    """How often a slot is tried while its fate is unknown, and the pauses between; seconds.

    Attributes:
        sleep: Called with seconds.
        jitter: Gives a number from 0 to 1, another each time, so that writers that met do not meet again.
        attempts: How many creates are sent before an unknown outcome is given up.
        loss_peak: After how many losses in a row the pause is longest.
        seconds: After how long no further create is sent: each may take as long as a server may say nothing.
        now: A clock that only goes forward.
    """

    sleep: Callable[[float], object] = time.sleep
    jitter: Callable[[], float] = random.random
    attempts: int = 8
    seconds: float = 120.0
    now: Callable[[], float] = time.monotonic
    doubt_base: float = 0.1
    loss_base: float = 0.005
    loss_peak: int = 8
    ceiling: float = 2.0

    def after_doubt(self, attempt: int) -> None:
        """Pause before attempt `attempt`, counted from 1, at a slot whose fate is unknown."""
        self.sleep(min(self.ceiling, self.doubt_base * 2**attempt) * (0.5 + self.jitter() / 2))

    def after_loss(self, losses: int) -> None:
        """Pause after the given number of losses in a row, at least 1.

        Pauses grow, so that few meet, and shrink again for who has lost often, so that it goes before those who came
        later: of 16 writers on a folder none waits longer than seconds, where with growing alone some wait for half a
        minute.
        """
        steps = losses if losses <= self.loss_peak else max(0, 2 * self.loss_peak - losses)
        self.sleep(self.loss_base * 2.0**steps * self.jitter())


class Fold(Protocol):
    """The state that a log's entries amount to, as far as it was read."""

    @property
    def catalog(self) -> Catalog:
        """The state."""

    @property
    def position(self) -> Position:
        """The position up to which entries were taken."""

    def take(self, records: Iterable[LogRecord]) -> None:
        """Fold in the entries that follow, in order."""


class Looks(Protocol):
    """Remembers behind which slot this machine has looked last, so that not every process of it looks again."""

    def looked(self) -> int | None:
        """The slot; None where it is not known. Never fails."""

    def note_look(self, slot: int) -> None:
        """Remember a slot, or forget to. Never fails."""


class _OwnLooks:
    """What one process remembers."""

    def __init__(self) -> None:
        self._slot: int | None = None

    def looked(self) -> int | None:
        return self._slot

    def note_look(self, slot: int) -> None:
        self._slot = slot


class Log:
    """One log of a store.

    Args:
        backend: The store.
        anchor: The digest of the store's config object, which the entry in slot 0 names.
        name: Which log.
        pacing: Pauses and attempts of commits.
        looks: What remembers where it was looked behind the end; without it this process does.
        is_new: Whether the caller has just made the store: then no entry can be lost from it, and none is looked for.
    """

    def __init__(
        self,
        backend: Backend,
        anchor: str,
        name: str = "catalog",
        pacing: Pacing | None = None,
        *,
        looks: Looks | None = None,
        is_new: bool = False,
    ) -> None:
        self._backend = backend
        self._name = name
        self._pacing = pacing or Pacing()
        self._checkpoints = _CheckpointWriter(backend, name)
        self._known_to_stand = -1
        self._looks = looks or _OwnLooks()
        self._looked_beyond = is_new
        if is_new:
            self._looks.note_look(0)
        self.start: Final = Position(0, anchor)

    def read_after(self, position: Position) -> Iterator[LogRecord]:
        """The entries from a position to the end of the log, in order.

        Where nothing is new this is one request for one key. A run of 64, or of 4,096, entries that turns out
        to have no checkpoint is given one; that this fails is no error.

        Raises:
            HistoryRewound: The entry at `position` follows another one than the caller's.
            ObjectMissing: An entry is gone, though there are others behind it.
            CorruptObject: Some other entry fails its checks.
            FormatTooNew: A newer version of this package wrote an entry.
            StorageFailed: The storage refused.
        """
        looks_beyond = position.slot == 0 and not self._looked_beyond
        reader = LogReader(self._backend, self._name, position, looks_beyond)
        while records := reader.next_run(position):
            position = records[-1].after
            self._stands(position.slot - 1)
            self._checkpoints.saw(records, reader.level)
            yield from records
        if looks_beyond:
            self._looked_beyond = True
            self._looks.note_look(position.slot)

    def require_standing(self, position: Position) -> None:
        """See that the last entry before a position is the one that the caller knows; one request.

        Raises:
            HistoryRewound: It is gone, or another stands there.
            StorageFailed: The storage refused.
        """
        key = slot_key(self._name, position.slot - 1)
        if position.slot and not _is_before(self._backend.get_many([key])[0], position):
            raise rewound(key)

    def append(self, entry: LogEntry, position: Position) -> Committed | Lost:
        """Write an entry into the slot at a position, or learn what stands there.

        The first time, the entry before the position is checked to be there still, and where this machine has not
        looked lately, none to be behind it: so a log that lost its end gets no gap, and one that lost an entry no
        second history.

        Args:
            entry: The entry; its `prev` is set here.
            position: Where the caller's knowledge of the log ends.

        Raises:
            CommitOutcomeUnknown: Whether the entry stands there could not be learned.
            InvalidRequest: The entry can't be written.
            HistoryRewound: The log does not continue the one that the caller knows.
            ObjectMissing: The slot is empty, though there are others behind it.
            CorruptObject, FormatTooNew: What stands in the slot can't be used.
            StorageFailed: The storage refused, and the entry is certainly not written.
        """
        data = encode_entry(with_prev(entry, position.prev))
        self._require_end(position)
        found = self._settle(slot_key(self._name, position.slot), data, entry.commit)
        record = read_record(self._name, position, found, known=True)
        self._stands(record.slot)
        self._checkpoints.saw([record], 0)
        return Committed(record) if found == data else Lost(record)

    def commit(self, make_entry: Callable[[Catalog], LogEntry], fold: Fold) -> LogRecord:
        """Append the entry that follows from the state, made anew whenever another entry came first.

        Args:
            make_entry: Gives the entry for a state. While its commit id does not stand in that state it may
                answer differently each time, or raise to give up, which counts only in the state at the end
                of the log; once it does, it must give the same entry again, but for `prev` and `time`.
            fold: The state; entries of others that are met are taken into it, and so is this one.

        Returns:
            The entry as it stands, from this call or from an earlier one whose outcome was not learned.

        Raises:
            Conflict: The commit id stands in the log with another entry.
            FormatTooNew: Writing needs a feature that this version does not know.
            Exception: As `append`, and whatever `make_entry` raises.
        """
        losses = 0
        while True:
            before = fold.position
            try:
                fold.catalog.require("write")
                entry = make_entry(fold.catalog)
            except DatasetStoreError:
                if fold.position == before and not self._moved(fold):
                    raise
                continue
            if fold.position != before:
                # Reading what it needed met newer entries: what it was decided on is not the state before the slot.
                continue
            standing = fold.catalog.slot_of(entry.commit)
            if standing is not None:
                return self._earlier(standing, entry)
            outcome = self.append(entry, fold.position)
            fold.take([outcome.record])
            if isinstance(outcome, Committed):
                return outcome.record
            losses += 1
            self._pacing.after_loss(losses)
            if losses > 1:
                self._moved(fold)

    def _moved(self, fold: Fold) -> bool:
        """Read the log to its end; whether anything was new."""
        before = fold.position
        fold.take(self.read_after(before))
        return fold.position != before

    def _stands(self, slot: int) -> None:
        self._known_to_stand = max(self._known_to_stand, slot)

    def _require_end(self, position: Position) -> None:
        """Refuse to append where the log has lost the entry before, or goes on behind a lost one."""
        before = position.slot - 1
        looked = self._looks.looked()
        later = beyond(self._name, position.slot)
        if looked is not None and 0 <= position.slot - looked < _LOOK_HOLDS:
            later = []
        checked = [slot_key(self._name, before)] if before > self._known_to_stand else []
        if not checked and not later:
            return
        found = self._backend.get_many([*checked, *later])
        if checked and not _is_before(found[0], position):
            raise rewound(checked[0])
        key = slot_key(self._name, position.slot)
        behind = found[len(checked) :]
        if any(data is not None for data in behind) and self._backend.get_many([key]) == [None]:
            raise entry_missing(key)
        self._stands(before)
        if later:
            self._looks.note_look(position.slot)

    def _settle(self, key: Key, data: bytes, commit: str) -> bytes:
        """What stands under a key after `data` was sent to it: `data` itself or the object of another."""
        in_doubt = False
        begun = self._pacing.now()
        for attempt in range(self._pacing.attempts):
            if attempt and self._pacing.now() - begun > self._pacing.seconds:
                break
            if attempt:
                self._pacing.after_doubt(attempt)
            try:
                if self._backend.create(key, [data]):
                    return data
                in_doubt = True
            except OutcomeUnknown:
                in_doubt = True
            except StorageFailed:
                if not in_doubt:
                    raise
            found = self._read_back(key)
            if found is not None:
                return found
        raise CommitOutcomeUnknown(
            f"Whether commit {commit} stands in {key} could not be learned.",
            "Repeat the same commit when the storage answers again; it can't land twice.",
            commit,
        )

    def _read_back(self, key: Key) -> bytes | None:
        """What stands under a key; None too where the storage did not tell."""
        with contextlib.suppress(StorageFailed):
            return self._backend.get_many([key])[0]
        return None

    def _earlier(self, slot: int, entry: LogEntry) -> LogRecord:
        """The entry of the same commit that stands in the log already, if it says the same."""
        key = slot_key(self._name, slot)
        (data,) = self._backend.get_many([key])
        if data is None:
            raise rewound(key)
        found = decode_entry(data, key)
        if not same_body(found, entry):
            raise Conflict(
                f"Commit {entry.commit} stands in {key} already, with another content.",
                "It landed earlier and is complete; take a new commit id for a different content.",
            )
        return LogRecord(slot, found, data, Position(slot + 1, object_digest(data)))


def _is_before(data: bytes | None, position: Position) -> bool:
    """Whether an object is the one before a position."""
    return data is not None and object_digest(data) == position.prev


class _Block(Struct):
    """The objects seen so far of an aligned run of entries that has no checkpoint of some level."""

    first: int
    objects: list[bytes] = field(default_factory=list)
    size: int = 0


class _CheckpointWriter:
    """Writes the checkpoints that are found missing, from the objects that pass by; never fails."""

    def __init__(self, backend: Backend, name: str) -> None:
        self._backend = backend
        self._name = name
        self._blocks: dict[int, _Block] = {}
        self._lock = threading.Lock()
        self._writable = True

    def saw(self, records: Sequence[LogRecord], source: int) -> None:
        """Take note of entries, in order and within one span, that were read from objects of a level."""
        if not self._writable:
            return
        for level in LEVELS:
            with self._lock:
                block = self._extended(level, records, source)
            if block is not None:
                self._write(level, block)

    def _extended(self, level: int, records: Sequence[LogRecord], source: int) -> _Block | None:
        """The block of a level if these entries complete it."""
        block = self._blocks.pop(level, None)
        if source >= level:
            return None
        first = records[0].slot
        if first % SPANS[level] == 0:
            block = _Block(first)
        if block is None or block.first + len(block.objects) != first:
            return None
        block.objects.extend(record.data for record in records)
        block.size += sum(len(record.data) for record in records)
        if len(block.objects) == SPANS[level]:
            return block
        if block.size < MAX_PLAIN[level]:
            self._blocks[level] = block
        return None

    def _write(self, level: int, block: _Block) -> None:
        if block.size + 4 * SPANS[level] > MAX_PLAIN[level]:
            return
        key = object_key(self._name, level, block.first // SPANS[level])
        try:
            self._backend.create(key, [encode_checkpoint(level, block.objects)])
        except StoreReadOnly:
            self._writable = False
        except StorageFailed:
            return
