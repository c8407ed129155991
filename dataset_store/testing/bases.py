"""A base of tables in memory, as simple as can be."""

from collections.abc import Iterable, Iterator
from itertools import pairwise

from dataset_store.core.tables import Row

__all__ = ["RowsBase"]


class RowsBase:
    """Rows as a base; that their keys ascend is checked."""

    def __init__(self, rows: Iterable[Row]) -> None:
        self.rows = list(rows)
        keys = [key for key, _ in self.rows]
        if any(later <= earlier for earlier, later in pairwise(keys)):
            raise ValueError("The keys of rows do not ascend.")

    def get(self, key: bytes) -> bytes | None:
        """See `Base`."""
        return dict(self.rows).get(key)

    def scan(self, prefix: bytes, *, backwards: bool = False) -> Iterator[Row]:
        """See `Base`."""
        found = [row for row in self.rows if row[0].startswith(prefix)]
        return iter(found[::-1] if backwards else found)
