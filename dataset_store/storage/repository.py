"""A store, opened: its config, its catalog, its packs and its trees behind one value.

Opening reads the config once; after that everything immutable is remembered and the catalog is brought up to date only
when asked. Nothing here chooses a folder of this machine: caches are handed in.
"""

import secrets
from collections.abc import Callable
from dataclasses import dataclass
from urllib.parse import unquote, urlsplit

from dataset_store.core.chunking import ChunkerParams
from dataset_store.core.digest import PackName, StoreId
from dataset_store.core.envelope import StoreConfig, decode_config, encode_config, object_digest
from dataset_store.core.packfile import Footer, PackRef
from dataset_store.errors import InvalidRequest, StoreNotFound, StoreUnreachable
from dataset_store.storage.backend import Backend, Key
from dataset_store.storage.catalog_cache import CatalogCache, CatalogView
from dataset_store.storage.log import Log
from dataset_store.storage.packs import PackReader, PackWriter
from dataset_store.storage.posix_backend import PosixBackend
from dataset_store.storage.trees import NodeKeeper, StoredNodes

__all__ = ["Repository", "backend_at", "create_config", "fetch_config", "open_repository"]

CONFIG_KEY = Key("config")


def backend_at(url: str) -> Backend:
    """The backend that reaches a URL or path.

    Raises:
        InvalidRequest: No backend knows the scheme.
    """
    parts = urlsplit(url)
    if parts.scheme == "file":
        if parts.netloc not in {"", "localhost"}:
            raise InvalidRequest(f"The URL {url!r} names another machine.", "Use a path, or file:///path.")
        return PosixBackend(unquote(parts.path))
    if "://" in url:
        raise InvalidRequest(
            f"No storage is known for {parts.scheme}:// URLs.", "Give a folder's path or a file:// URL."
        )
    return PosixBackend(url)


def fetch_config(backend: Backend) -> bytes | None:
    """The bytes of a store's config; None where there is no store yet."""
    try:
        return backend.get_many([CONFIG_KEY])[0]
    except StoreUnreachable:
        # No root folder: as good as no store, and the caller says so with the store's name.
        return None


def create_config(backend: Backend, new_id: Callable[[int], bytes] = secrets.token_bytes) -> bytes:
    """Make the store if it is not there yet; its config's bytes. Any number of callers get the same one.

    Raises:
        StorageFailed: The store cannot be written.
    """
    held = fetch_config(backend)
    if held is not None:
        return held
    config = StoreConfig(store=new_id(16).hex(), chunker=ChunkerParams().name, tree="v1")
    backend.create(CONFIG_KEY, [encode_config(config)])
    # Another may have been first; what stands there is the store's.
    made = fetch_config(backend)
    if made is None:
        raise StoreNotFound(f"The store at {backend.describe()} vanished while it was made.", "Check the storage.")
    return made


@dataclass(frozen=True, slots=True)
class Repository:
    """One store: where its objects, its history and its trees are."""

    backend: Backend
    config: StoreConfig
    catalog: CatalogView
    packs: PackReader
    nodes: StoredNodes

    @property
    def store_id(self) -> StoreId:
        """The store's identity."""
        return StoreId(bytes.fromhex(self.config.store))

    @property
    def chunker(self) -> ChunkerParams:
        """How files are cut in this store."""
        return ChunkerParams.parse(self.config.chunker)

    def pack_writer(self, on_written: Callable[[PackRef, Footer], object]) -> PackWriter:
        """A writer of new packs in the store's own root; `on_written` is told of each."""
        return PackWriter(
            self.backend, self.store_id, 0, lambda: PackName(secrets.token_bytes(16)), on_written=on_written
        )


def open_repository(backend: Backend, config_object: bytes, catalog_directory: str, keeper: NodeKeeper) -> Repository:
    """Open a store whose config is known; no request is made.

    Args:
        backend: Where the store is.
        config_object: The config object's bytes.
        catalog_directory: A folder of this machine where the log's entries are remembered.
        keeper: A cache of nodes.

    Raises:
        CorruptObject: The config is damaged.
        FormatTooNew: The store needs a newer version of this package.
    """
    config = decode_config(config_object, f"the config of {backend.describe()}")
    catalog = CatalogView(Log(backend, object_digest(config_object)), CatalogCache(catalog_directory))
    packs = PackReader(StoreId(bytes.fromhex(config.store)), lambda _storage: backend)
    return Repository(backend, config, catalog, packs, StoredNodes(packs, keeper))
