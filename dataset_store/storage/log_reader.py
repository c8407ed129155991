"""Reading a log from a position on: which object to ask for, what it must say, and where the log ends.

A run of entries is gap-free, and each names the hash of the object before it, whether it comes from its slot or
from a checkpoint; a checkpoint that is missing or damaged only costs requests.

A slot that is missing is the end of the log only if nothing stands behind it. Whoever has no knowledge of the
log, or is about to write at its end, asks for slots further on too (`beyond`): an entry lost from the middle must
neither hide those behind it nor be replaced by another, which would begin a second history.
"""

from collections.abc import Sequence
from typing import Final

from msgspec import Struct, field

from dataset_store.core.checkpoints import LEVELS, SPANS, decode_checkpoint
from dataset_store.core.log_entries import LogEntry, decode_entry, object_digest
from dataset_store.errors import Corrupt, CorruptObject, FormatTooNew, HistoryRewound, ObjectMissing
from dataset_store.storage.backend import Backend, Key

__all__ = [
    "LogReader",
    "LogRecord",
    "Position",
    "beyond",
    "chained",
    "entry_missing",
    "object_key",
    "read_record",
    "rewound",
    "slot_key",
]

_FAN: Final = 64
"""Objects of one level in one of the next."""

_BATCHES: Final = (1, 8, 64)
"""How many objects of one level are asked for together, at first, then, and from then on."""

_STRIDES: Final = tuple(1 << power for power in range(13))
"""How far behind a missing slot others are looked for: a loss of n slots shows if 2n entries follow the first."""


class Position(Struct, frozen=True):
    """A point in the log.

    Attributes:
        slot: The next slot.
        prev: The hash, hex, of the object before it: what its entry must name.
    """

    slot: int
    prev: str


class LogRecord(Struct, frozen=True):
    """One entry where it stands.

    Attributes:
        data: The whole object.
        after: The position that follows it.
    """

    slot: int
    entry: LogEntry
    data: bytes
    after: Position


def chained(position: Position, data: bytes, what: str) -> LogRecord:
    """The entry of an object read at a position, which must name the object before it.

    Raises:
        CorruptObject: `data` is no log entry, or follows another object; the message names `what`.
        FormatTooNew: A newer version of this package wrote it.
    """
    entry = decode_entry(data, what)
    if entry.prev != position.prev:
        raise CorruptObject(f"{what} does not follow the entry before it.", "Run verify.")
    return LogRecord(position.slot, entry, data, Position(position.slot + 1, object_digest(data)))


def read_record(name: str, position: Position, data: bytes, *, known: bool) -> LogRecord:
    """The entry read from the slot at a position; `known`: the caller had read up to there before.

    Raises:
        HistoryRewound: A known position is not continued by what stands in the slot.
        CorruptObject, FormatTooNew: As `chained`.
    """
    what = slot_key(name, position.slot)
    if known and position.slot > 0 and decode_entry(data, what).prev != position.prev:
        raise rewound(what)
    return chained(position, data, what)


class LogReader(Struct):
    """Finds runs of log objects from a position on: the widest checkpoint that fits, else slots.

    Attributes:
        backend: The store.
        name: Which log.
        begun: Where reading begins.
        looks_beyond: Whether the caller knows nothing of the log yet, so that what seems its end is looked beyond.
        level: Of the objects that the last run came from.
    """

    backend: Backend
    name: str
    begun: Position
    looks_beyond: bool
    level: int = 0
    _ahead: dict[Key, bytes | None] = field(default_factory=dict)
    _rounds: list[int] = field(default_factory=lambda: [0] * len(SPANS))

    def next_run(self, position: Position) -> list[LogRecord]:
        """The entries from a position on, as many as one object of `level`, or one round, has; none at the end.

        Raises:
            HistoryRewound: The entry at the first position follows another one than the caller's.
            ObjectMissing: There is no entry at the position, though there are others behind it.
            CorruptObject, FormatTooNew: As `chained`.
            StorageFailed: The storage refused.
        """
        if position == self.begun:
            if self.looks_beyond:
                self._begin_cold()
            elif self._fetch(0, position.slot) is None:
                return []
        for self.level in reversed(LEVELS):
            if position.slot % SPANS[self.level] == 0:
                records = self._checkpoint(position)
                if records:
                    return records
        self.level = 0
        return self._slots(position)

    def _begin_cold(self) -> None:
        """Ask in one round for what tells an empty log, a short one and a long one apart."""
        first = [slot_key(self.name, 0), *(object_key(self.name, level, 0) for level in LEVELS)]
        self._ask([*first, *(object_key(self.name, LEVELS[-1], index) for index in range(1, _BATCHES[1]))])
        self._rounds = [1] * len(SPANS)

    def _checkpoint(self, position: Position) -> list[LogRecord]:
        """The entries of the checkpoint at a position; none where it is missing or can't be trusted."""
        index = position.slot // SPANS[self.level]
        data = self._fetch(self.level, index)
        if data is None:
            return []
        what = object_key(self.name, self.level, index)
        del self._ahead[what]
        records: list[LogRecord] = []
        try:
            for each in decode_checkpoint(self.level, data, what):
                records.append(chained(position, each, what))
                position = records[-1].after
        except (Corrupt, FormatTooNew):
            return []
        return records

    def _slots(self, position: Position) -> list[LogRecord]:
        """The entries from a position on that are read already, or else can be read in one round.

        A damaged one ends the run, and is raised only where it comes first; so those before it are delivered.
        """
        records: list[LogRecord] = []
        boundary = position.slot - position.slot % SPANS[1] + SPANS[1]
        data = self._fetch(0, position.slot)
        if data is None:
            data = self._behind_a_missing_one(position.slot)
        while data is not None:
            try:
                records.append(read_record(self.name, position, data, known=position == self.begun))
            except (Corrupt, FormatTooNew):
                if not records:
                    raise
                return records
            del self._ahead[slot_key(self.name, position.slot)]
            position = records[-1].after
            data = self._ahead.get(slot_key(self.name, position.slot)) if position.slot < boundary else None
        return records

    def _behind_a_missing_one(self, slot: int) -> bytes | None:
        """None where a missing slot is the log's end, else the entry that came into it while it was looked at."""
        later = beyond(self.name, slot)
        if self.looks_beyond:
            self._ask([key for key in later if key not in self._ahead])
        if all(self._ahead.get(key) is None for key in later):
            return None
        key = slot_key(self.name, slot)
        self._ask([key])
        if self._ahead[key] is None:
            raise entry_missing(key)
        return self._ahead[key]

    def _fetch(self, level: int, index: int) -> bytes | None:
        """One object, with as many of those after it as are worth asking for in the same round."""
        key = object_key(self.name, level, index)
        if key not in self._ahead:
            count = _BATCHES[min(self._rounds[level], len(_BATCHES) - 1)]
            if level < LEVELS[-1]:
                count = min(count, _FAN - index % _FAN)
            self._rounds[level] += 1
            self._ask([object_key(self.name, level, index + i) for i in range(count)])
        return self._ahead[key]

    def _ask(self, keys: Sequence[Key]) -> None:
        self._ahead.update(zip(keys, self.backend.get_many(keys), strict=True))


def beyond(name: str, slot: int) -> list[Key]:
    """Objects of which none stands if a slot is the end of the log: slots ever farther on, checkpoints of it and on."""
    checkpoints = [object_key(name, level, slot // SPANS[level] + step) for level in LEVELS for step in (0, 1)]
    return [slot_key(name, slot + stride) for stride in _STRIDES] + checkpoints


def object_key(name: str, level: int, index: int) -> Key:
    """The key of a checkpoint, or at level 0 of a slot."""
    return Key(f"ckpt/{name}/{level}/{index:012d}") if level else slot_key(name, index)


def slot_key(name: str, slot: int) -> Key:
    """The key of a slot."""
    return Key(f"log/{name}/{slot:012d}")


def rewound(what: str) -> HistoryRewound:
    """The error for a log that does not hold, or does not continue, what this machine has seen of it."""
    return HistoryRewound(
        f"{what} is not the entry that this machine has seen there, or does not follow it.",
        "If the store was restored from a backup on purpose, remove this machine's cache of it; else run verify.",
    )


def entry_missing(what: str) -> ObjectMissing:
    """The error for an entry that is gone from the middle of the log."""
    return ObjectMissing(
        f"The log entry {what} is not in the store, though what was written after it is.",
        "Bring it back from a backup or another copy of the store; nothing was written.",
    )
