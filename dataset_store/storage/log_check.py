"""Checking what a store keeps besides packs: its config, every entry of its log, every checkpoint.

Unlike a reader, which asks for slots until one is missing, this lists what is there; so a lost tail or a hole shows,
whatever stands behind it. Nothing that this machine remembers is used but the head of the log, to tell a rewound one.

Never: raises for damage, or takes a storage that does not answer for a damaged one.
"""

from typing import Final

from msgspec import Struct, field

from dataset_store.core.checkpoints import LEVELS, SPANS, decode_checkpoint
from dataset_store.core.envelope import decode_config, object_digest
from dataset_store.errors import Corrupt, FormatTooNew
from dataset_store.storage.backend import Backend, Key
from dataset_store.storage.findings import Finding
from dataset_store.storage.log_reader import LogRecord, Position, chained, object_key, slot_key
from dataset_store.storage.store import CONFIG_KEY

__all__ = ["CheckedLog", "check_log"]

_NAME: Final = "catalog"
_AT_ONCE: Final = 256


class CheckedLog(Struct, frozen=True):
    """What was found of a log.

    Attributes:
        records: The entries from the first up to the end, or up to the first that cannot be had.
        findings: What is wrong.
    """

    records: tuple[LogRecord, ...]
    findings: tuple[Finding, ...]


def check_log(backend: Backend, config: bytes, known: Position) -> CheckedLog:
    """Read and check the config, every log entry and every checkpoint.

    Args:
        backend: The store.
        config: The config object that this machine works with.
        known: How far this machine has read the log before.

    Raises:
        StorageFailed: The storage refused.
    """
    check = _Check(backend, _check_config(backend, config), Position(0, object_digest(config)))
    check.read_checkpoints()
    there = [slot for info in backend.list(f"log/{_NAME}") if (slot := _number(info.key)) is not None]
    check.end = max(there, default=-1) + 1
    for first in range(0, max(check.end, known.slot), _AT_ONCE):
        slots = range(first, min(first + _AT_ONCE, max(check.end, known.slot)))
        found = backend.get_many([slot_key(_NAME, slot) for slot in slots])
        for slot, data in zip(slots, found, strict=True):
            check.take(slot, data)
    records = check.records
    if known.slot and len(records) >= known.slot and records[known.slot - 1].after.prev != known.prev:
        problem = "It is not the entry that this machine has seen there."
        check.findings.append(Finding("log-cut", slot_key(_NAME, known.slot - 1), problem))
    return CheckedLog(tuple(records), tuple(check.findings))


class _Check(Struct):
    """A log being checked; `copies` are entries as checkpoints have them, `end` is the slot after the last listed."""

    backend: Backend
    findings: list[Finding]
    position: Position
    end: int = 0
    broken: bool = False
    records: list[LogRecord] = field(default_factory=list)
    copies: dict[int, bytes] = field(default_factory=dict)

    def read_checkpoints(self) -> None:
        """Check every checkpoint by itself, and keep its entries."""
        for level in LEVELS:
            for info in self.backend.list(f"ckpt/{_NAME}/{level}"):
                index = _number(info.key)
                if index is not None and info.key == object_key(_NAME, level, index):
                    self._read_checkpoint(level, index, Key(info.key))

    def _read_checkpoint(self, level: int, index: int, key: Key) -> None:
        (data,) = self.backend.get_many([key])
        try:
            objects = decode_checkpoint(level, data or b"", key)
        except (Corrupt, FormatTooNew) as error:
            self.findings.append(Finding("checkpoint-damaged", key, error.what))
            return
        first = index * SPANS[level]
        if any(self.copies.setdefault(first + at, one) != one for at, one in enumerate(objects)):
            self.findings.append(Finding("checkpoint-damaged", key, "It differs from another checkpoint."))

    def take(self, slot: int, data: bytes | None) -> None:
        """Check what stands in the next slot; where it is lost a checkpoint's copy goes on."""
        key = slot_key(_NAME, slot)
        copy = self.copies.pop(slot, None)
        if data is None:
            beyond = slot >= self.end
            problem = "This machine has seen it." if beyond else "It is gone, though what was written after it is not."
            self.findings.append(Finding("log-cut" if beyond else "log-hole", key, problem))
        if data is not None and copy not in {None, data} and self._record(data, key) is not None:
            damaged = object_key(_NAME, 1, slot // SPANS[1])
            self.findings.append(Finding("checkpoint-damaged", damaged, f"It differs from the entry in slot {slot}."))
        record = self._record(data, key, tell=True) or self._record(copy, key)
        if record is None:
            self.broken = True
        else:
            self.records.append(record)
            self.position = record.after

    def _record(self, data: bytes | None, key: str, *, tell: bool = False) -> LogRecord | None:
        """The entry at the position, if there is one that stands by itself and follows those before."""
        if data is None or self.broken:
            return None  # behind what is lost for good nothing more can be told
        try:
            return chained(self.position, data, key)
        except (Corrupt, FormatTooNew) as error:
            if tell:
                self.findings.append(Finding("entry-damaged", key, error.what))
            return None


def _check_config(backend: Backend, config: bytes) -> list[Finding]:
    (held,) = backend.get_many([CONFIG_KEY])
    if held == config:
        return []
    problem = "It is another one than this machine has seen."
    try:
        if held is None:
            problem = "It is not there."
        else:
            decode_config(held, CONFIG_KEY)
    except (Corrupt, FormatTooNew) as error:
        problem = error.what
    return [Finding("config-damaged", CONFIG_KEY, problem)]


def _number(key: str) -> int | None:
    name = key.rpartition("/")[2]
    return int(name) if len(name) == 12 and name.isdigit() else None
