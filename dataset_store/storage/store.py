"""A store, opened: its config, its catalog, its packs and its trees behind one value.

Opening reads the config once; after that everything immutable is remembered and the catalog is brought up to date only
when asked. Nothing here chooses a folder of this machine: caches are handed in.
"""

import logging
import os
from collections.abc import Callable
from contextlib import suppress
from typing import Final

from msgspec import Struct

from dataset_store.core.chunking import ChunkerParams
from dataset_store.core.digest import PackName, StoreId
from dataset_store.core.envelope import StoreConfig, decode_config, encode_config, object_digest
from dataset_store.core.packfile import Footer, PackRef
from dataset_store.errors import OutcomeUnknown, StorageFailed, StoreRootMissing
from dataset_store.storage.backend import Backend, Key
from dataset_store.storage.catalog_cache import CatalogCache, CatalogView
from dataset_store.storage.create_probe import require_create_if_absent
from dataset_store.storage.log import Log
from dataset_store.storage.pack_reader import PackReader
from dataset_store.storage.pack_writer import PackWriter
from dataset_store.storage.standings import Standings
from dataset_store.storage.storages import Storages
from dataset_store.storage.trees import NodeKeeper, StoredNodes

__all__ = ["Store", "create_config", "fetch_config", "new_pack_name", "open_store"]

CONFIG_KEY = Key("config")

_ATTEMPTS: Final = 4

_log = logging.getLogger(__name__)


def fetch_config(backend: Backend) -> bytes | None:
    """The bytes of a store's config; None where there is no store yet."""
    try:
        return backend.get_many([CONFIG_KEY])[0]
    except StoreRootMissing:
        # No root folder: as good as no store, and the caller says so with the store's name.
        return None


def create_config(backend: Backend, new_id: Callable[[int], bytes] = os.urandom) -> tuple[bytes, bool]:
    """Make the store if it is not there yet. Any number of callers get the same one.

    Returns:
        Its config's bytes, and whether this call made it, so that nothing can have been written to it before.

    Raises:
        StoreLacksCreateIfAbsent: The storage does not keep two writers apart; nothing was made.
        StorageFailed: The store cannot be written.
    """
    held = fetch_config(backend)
    if held is not None:
        return held, False
    require_create_if_absent(backend, new_id)
    config = encode_config(StoreConfig(store=new_id(16).hex(), chunker=ChunkerParams().name, tree="v1"))
    for _ in range(_ATTEMPTS):
        # Another may have been first, or a reply was lost: what stands there is the store's.
        made = _is_made(backend, config)
        held = config if made else fetch_config(backend)
        if held is not None:
            if held == config:
                # A mistyped store is made like any other: whoever typed it is told.
                _log.info("began a new store at %s", backend.describe(), extra={"tell": True})
            return held, held == config
    raise StorageFailed(f"The store at {backend.describe()} could not be begun.", "Check the storage, then repeat.")


def _is_made(backend: Backend, config: bytes) -> bool:
    with suppress(OutcomeUnknown):
        return backend.create(CONFIG_KEY, [config])
    return False


def new_pack_name() -> PackName:
    """A name that no pack ever had."""
    return PackName(os.urandom(16))


class Store(Struct, frozen=True):
    """One store: where its objects, its history and its trees are."""

    backend: Backend
    config: StoreConfig
    catalog: CatalogView
    packs: PackReader
    nodes: StoredNodes
    storages: Storages
    standings: Standings

    @property
    def store_id(self) -> StoreId:
        """The store's identity."""
        return StoreId(bytes.fromhex(self.config.store))

    @property
    def chunker(self) -> ChunkerParams:
        """How files are cut in this store."""
        return ChunkerParams.parse(self.config.chunker)

    def pack_writer(
        self,
        storage: int,
        on_written: Callable[[PackRef, Footer], object] = lambda _ref, _footer: None,
        new_name: Callable[[], PackName] = new_pack_name,
    ) -> PackWriter:
        """A writer of new packs in the storage of that number; `on_written` is told of each."""
        return PackWriter(self.storages[storage], self.store_id, storage, new_name, on_written=on_written)


def open_store(
    backend: Backend, config_object: bytes, catalog_directory: str | None, keeper: NodeKeeper, *, is_new: bool = False
) -> Store:
    """Open a store whose config is known; no request is made.

    Args:
        backend: Where the store is.
        config_object: The config object's bytes.
        catalog_directory: A folder of this machine where the log's entries are remembered; None: nothing is.
        keeper: A cache of nodes.
        is_new: Whether this process has just made the store.

    Raises:
        CorruptObject: The config is damaged.
        FormatTooNew: The store needs a newer version of this package.
    """
    config = decode_config(config_object, f"the config of {backend.describe()}")
    cache = None if catalog_directory is None else CatalogCache(catalog_directory)
    catalog = CatalogView(Log(backend, object_digest(config_object), looks=cache, is_new=is_new), cache)
    store_id = StoreId(bytes.fromhex(config.store))
    storages = Storages(backend, store_id, lambda: catalog.catalog.storages)
    standings = Standings(catalog, PackReader(store_id, storages.__getitem__, backend.traits), keeper)
    packs = PackReader(store_id, storages.__getitem__, backend.traits, whereabouts=standings)
    return Store(backend, config, catalog, packs, StoredNodes(packs, keeper), storages, standings)
