"""What the log says of packs: which are condemned, which are held, and where the frames of repacked ones went.

Part of the fold: `Catalog` hands it the entries in slot order. A list of packs too long for its entry is a
blob, which the fold can't read; until `supply_list` was given its rows, a question whose answer would lack them
is refused, so that no pack is taken for usable or for dead by mistake.

This module never does I/O and never forgets a condemned pack.
"""

from collections.abc import Collection, Iterable, Mapping
from types import MappingProxyType

from dataset_store.core.log_entries import Blob, CondemnedEntry, HoldEntry, PackRow, RepackEntry
from dataset_store.errors import InvalidRequest

__all__ = ["PackLedger"]


class PackLedger:
    """The state of packs that the log's entries amount to. Begins empty."""

    def __init__(self) -> None:
        self._condemned: dict[PackRow, int] = {}
        self._last_condemnation: int | None = None
        self._holds: dict[str, dict[int, frozenset[PackRow]]] = {}
        self._lists: dict[int, tuple[HoldEntry | CondemnedEntry | RepackEntry, Blob]] = {}
        self._unread: dict[int, Blob] = {}
        self._relocations: list[tuple[int, Blob]] = []

    def fold(self, slot: int, entry: HoldEntry | CondemnedEntry | RepackEntry) -> None:
        """Fold an entry that lists packs."""
        if entry.listed is not None:
            self._lists[slot] = (entry, entry.listed)
            self._unread[slot] = entry.listed
        if not isinstance(entry, HoldEntry):
            self._last_condemnation = slot
        if isinstance(entry, RepackEntry):
            self._relocations.append((slot, entry.table))
        self._take(slot, entry, entry.packs or ())

    def end_hold(self, hold: str) -> None:
        """End a hold, if it stands: by a `release`, or by the version that it was for."""
        for slot in self._holds.pop(hold, ()):
            self._unread.pop(slot, None)
            self._lists.pop(slot, None)

    def supply_list(self, slot: int, packs: Iterable[PackRow]) -> None:
        """Give the rows of one of `unread_lists`; again, or of another slot, it changes nothing."""
        if self._unread.pop(slot, None) is not None:
            self._take(slot, self._lists[slot][0], packs)

    @property
    def unread_lists(self) -> Mapping[int, Blob]:
        """The lists, by slot, whose rows are in a blob and were not yet given to `supply_list`."""
        return MappingProxyType(self._unread)

    @property
    def lists(self) -> tuple[Blob, ...]:
        """Every blob, read or not, that lists packs and still has an effect."""
        return tuple(blob for _, blob in self._lists.values())

    @property
    def relocations(self) -> tuple[tuple[int, Blob], ...]:
        """The slot and the relocation table of each repack, in log order."""
        return tuple(self._relocations)

    @property
    def last_condemnation(self) -> int | None:
        """The slot of the last `condemned` or `repack` entry; None where there is none."""
        return self._last_condemnation

    @property
    def condemned(self) -> Mapping[PackRow, int]:
        """Every pack that nobody may begin to use, and the first slot that says so.

        Raises:
            InvalidRequest: `unread_lists` is not empty.
        """
        self._require_lists()
        return MappingProxyType(self._condemned)

    @property
    def hold_ids(self) -> Collection[str]:
        """The holds that have not ended."""
        return self._holds.keys()

    @property
    def holds(self) -> Mapping[str, frozenset[PackRow]]:
        """The packs of each hold that has not ended.

        Raises:
            InvalidRequest: `unread_lists` is not empty.
        """
        self._require_lists()
        return {hold: frozenset().union(*rows.values()) for hold, rows in self._holds.items()}

    def _take(self, slot: int, entry: HoldEntry | CondemnedEntry | RepackEntry, packs: Iterable[PackRow]) -> None:
        if isinstance(entry, HoldEntry):
            self._holds.setdefault(entry.hold, {})[slot] = frozenset(packs)
            return
        for pack in packs:
            self._condemned[pack] = min(slot, self._condemned.get(pack, slot))

    def _require_lists(self) -> None:
        if self._unread:
            raise InvalidRequest(
                f"The lists of packs in slots {sorted(self._unread)[:8]} were not read yet.",
                "Give their rows to supply_list first.",
            )
