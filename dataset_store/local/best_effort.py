"""What this machine remembers without being asked to: kept in an environment where that is possible.

LMDB is loaded with the first look: whoever only needs to know where a local copy is has none.
"""

from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, TypeVar

from dataset_store.errors import StorageFailed

if TYPE_CHECKING:
    from dataset_store.local.lmdb_environment import Environment, Work

__all__ = ["BestEffort"]

T = TypeVar("T")


class BestEffort:
    """The environment in one folder for whoever can do without: where it fails it is empty and keeps nothing.

    Opened when first used, and tried again at each use for as long as that fails.
    """

    __slots__ = ("_directory", "_environment")

    def __init__(self, directory: str) -> None:
        self._directory = directory
        self._environment: Environment | None = None

    def get_many(self, keys: Sequence[bytes]) -> list[bytes | None]:
        """As in a transaction; None for each key where the environment cannot be used."""
        return self.read(lambda txn: txn.get_many(keys)) or [None] * len(keys)

    def read(self, work: "Work[T]") -> T | None:
        """What `work` returns; None where the environment cannot be used."""
        try:
            return self._ready().read(work)
        except StorageFailed:
            return None

    def write(self, work: "Work[object]") -> None:
        """Run `work` as the only writer; nothing is kept where the environment cannot be used."""
        with suppress(StorageFailed):
            self._ready().write(work)

    def _ready(self) -> "Environment":
        from dataset_store.local.lmdb_environment import open_environment  # noqa: PLC0415  (LMDB, with its first use)

        # Two threads that are first at once get the same environment.
        environment = self._environment or open_environment(self._directory)
        self._environment = environment
        return environment
