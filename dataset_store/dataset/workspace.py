"""One store together with what this machine keeps for it: the place where storage and local meet.

A workspace is opened once per process and URL. Everything under its cache folder can be deleted at any time.
"""

import os
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from threading import Lock

from msgspec import Struct
from msgspec.structs import replace

from dataset_store.core.catalog import Catalog, Query, Version
from dataset_store.core.digest import hash32
from dataset_store.core.envelope import decode_config
from dataset_store.core.log_entries import TreeRootRow
from dataset_store.core.packfile import Footer, PackRef
from dataset_store.errors import Corrupt, DatasetNotFound, FormatTooNew, StoreNotFound, VersionDeleted
from dataset_store.local.chunk_index import ChunkIndex
from dataset_store.local.drafts import Draft, draft_ids
from dataset_store.local.loading_ahead import load_ahead
from dataset_store.local.local_copies import LocalCopies
from dataset_store.local.node_cache import NodeCache
from dataset_store.local.private import make_private
from dataset_store.local.settings import Settings, load_settings, require_own_folders
from dataset_store.local.stat_cache import StatCache
from dataset_store.storage.backend import Backend
from dataset_store.storage.filesystems import is_remote, local_path, scheme_of
from dataset_store.storage.storages import backend_at, normal_url
from dataset_store.storage.store import Store, create_config, fetch_config, open_store

__all__ = [
    "StoreAddress",
    "Workspace",
    "new_commit_id",
    "now_ns",
    "open_workspace",
    "opened_at",
    "workspace_at",
    "workspace_for",
]

_open: dict[tuple[str, str, str], "Workspace"] = {}
_open_lock = Lock()


class Workspace(Struct, frozen=True):
    """A store and this machine's part of it."""

    settings: Settings
    store: Store
    chunks: ChunkIndex
    stats: StatCache
    copies: LocalCopies

    @property
    def store_id(self) -> str:
        """The store's id, hex."""
        return self.store.config.store

    @property
    def catalog(self) -> Catalog:
        """The fold as last read; no request."""
        return self.store.catalog.catalog

    def refresh(self) -> Catalog:
        """The fold brought up to date: one request where nothing is new.

        Raises:
            FormatTooNew: Reading needs a newer version of this package.
        """
        self.store.catalog.refresh()
        self.catalog.require("read")
        return self.catalog

    @property
    def drafts_directory(self) -> str:
        """Where this machine keeps its drafts of this store."""
        return os.path.join(self.settings.data, "drafts", self.store_id)

    def own_paths(self) -> list[str]:
        """The folders that hold the store and what this machine keeps of it."""
        urls = [self.store.backend.describe(), *self.catalog.storages.values()]
        paths = [local_path(url) for url in urls if not is_remote(url)]
        return [*paths, self.settings.cache, self.settings.data]

    def own_folders(self) -> frozenset[tuple[int, int]]:
        """Device and inode of those of them that are there: never a part of a dataset."""
        found = (_stat(path) for path in self.own_paths())
        return frozenset((one.st_dev, one.st_ino) for one in found if one is not None)

    def draft(self, draft_id: str) -> Draft | None:
        """A draft of this machine by its id; None where there is none."""
        if draft_id not in draft_ids(self.drafts_directory):
            return None
        try:
            return Draft.load(os.path.join(self.drafts_directory, draft_id))
        except DatasetNotFound:
            # What a call that was broken off leaves: a folder made before its journal, or removed after it.
            return None

    def version(self, version_id: str) -> Version:
        """A version by its id, deleted or not, without a request where this machine has seen it.

        Raises:
            DatasetNotFound: There is none.
            FormatTooNew: Reading needs a newer version of this package.
        """
        found = self.catalog.version(version_id) or self.refresh().version(version_id)
        self.catalog.require("read")
        if found is None:
            raise DatasetNotFound(
                f"No version has the id {version_id} in {self.store.backend.describe()}.",
                "List versions with `dataset-store list --versions`.",
            )
        return found

    def live_version(self, version_id: str) -> Version:
        """A version whose content can be asked for.

        Raises:
            DatasetNotFound: There is none, or it was deleted.
        """
        version = self.version(version_id)
        if version.deleted:
            raise DatasetNotFound(f"The version {version_id} was deleted.", "Its children can still be read.")
        return version

    @contextmanager
    def reading(self, *version_ids: str) -> Iterator[None]:
        """While live versions are read: what is missing of one that was deleted meanwhile is no damage.

        Raises:
            VersionDeleted: One of them was deleted.
        """
        try:
            yield
        except Corrupt as error:
            self.refresh()
            deleted = [version_id for version_id in version_ids if self.catalog.is_deleted(version_id)]
            if not deleted:
                raise
            raise VersionDeleted(
                f"The version {deleted[0]} was deleted while it was read.", "Choose another."
            ) from error

    def resolve(self, query: Query) -> Version:
        """The version that a query means now; one request where nothing is new.

        Raises:
            DatasetNotFound: Nothing matches.
        """
        version = self.refresh().resolve(query)
        if version is None:
            hidden = self.catalog.resolve(replace(query, include_archived=True))
            raise DatasetNotFound(
                f"No version in {self.store.backend.describe()} has {query.in_words()}.",
                "List what there is with `dataset-store list --versions`; a draft is found by name once it is final."
                if hidden is None
                else f"The version {hidden.id} has, and is archived: name it by its id, or show it again first "
                "(`dataset-store archive --undo`).",
            )
        return version

    def footers(self, packs: Iterable[PackRef]) -> dict[PackRef, Footer]:
        """The footers of packs; one batch of reads for those that this machine has not seen."""
        known = {pack: self.chunks.footer(pack) for pack in packs}
        unknown = sorted(pack for pack, footer in known.items() if footer is None)
        fetched = dict(zip(unknown, self.store.packs.read_footers(unknown), strict=True))
        for pack, footer in fetched.items():
            self.chunks.add_footer(pack, footer)
        return {pack: footer for pack, footer in known.items() if footer is not None} | fetched

    def base_of(self, version_id: str) -> TreeRootRow:
        """The tree of a version."""
        return self.version(version_id).entry.tree


def now_ns() -> int:
    """The wall clock, for labels."""
    return time.time_ns()


def new_commit_id() -> str:
    """A fresh random commit id."""
    return os.urandom(16).hex()


def open_workspace(store: str | None = None, *, create: bool = False) -> Workspace:
    """The workspace of a store.

    Args:
        store: URL or path; by default as the settings say.
        create: Make the store if there is none.

    Raises:
        StoreNotFound: There is no store and none was to be made.
    """
    settings = load_settings(store)
    return workspace_for(settings, create=create)


def workspace_for(settings: Settings, *, create: bool = False) -> Workspace:
    """As `open_workspace`, with settings given."""
    url = settings.store if scheme_of(settings.store) else os.path.abspath(os.path.expanduser(settings.store))
    identity = (url, settings.cache, settings.data)
    with _open_lock:
        held = _open.get(identity)
        if held is not None and not create:
            return held
        workspace = _opened(settings, url, held, create=create)
        _open[identity] = workspace
        return workspace


def workspace_at(url: str) -> Workspace:
    """The workspace of the store of a URL as another process told it: with this one's own settings and credentials.

    Raises:
        StoreNotFound: There is no store.
    """
    return open_workspace(None if normal_url(load_settings().store) == url else url)


class StoreAddress(Struct, frozen=True):
    """Where another process, perhaps on another machine, finds a store: a URL without credentials, and its id.

    `process` is the one that told it: nobody else finds a store that is in memory.
    """

    url: str
    store_id: str
    process: int

    @staticmethod
    def of(workspace: Workspace) -> "StoreAddress":
        """Of an open store."""
        return StoreAddress(workspace.store.backend.describe(), workspace.store_id, os.getpid())


def opened_at(address: StoreAddress) -> Workspace:
    """The workspace of a store that another process has open.

    Raises:
        StoreNotFound: There is none, or another one, or it is in that process's memory.
    """
    if scheme_of(address.url) == "memory" and address.process != os.getpid():
        raise StoreNotFound(
            f"The store {address.url} is in the memory of another process.",
            "Use a store in a folder or a bucket, or workers that are threads.",
        )
    workspace = workspace_at(address.url)
    if workspace.store_id != address.store_id:
        raise StoreNotFound(
            f"Another store than the caller's is at {address.url}, as the worker on {os.uname().nodename} sees it.",
            "Workers must see the store under the same URL.",
        )
    return workspace


def _opened(settings: Settings, url: str, held: Workspace | None, *, create: bool) -> Workspace:
    require_own_folders(settings)
    # A far store is asked over the connection that is there already; a folder that is gone must be made again.
    backend = held.store.backend if held is not None and is_remote(url) else _reached(settings, url)
    url_hash = hash32(os.fsencode(url)).hex()[:32]
    remembered = os.path.join(settings.cache, "stores", url_hash)
    # What is kept in memory is gone with the process; what was there before says nothing of it.
    config, is_new = None if create or scheme_of(url) == "memory" else _remembered(remembered), False
    if config is None:
        # Whoever is about to write looks at the store itself: it may have been replaced since.
        config, is_new = create_config(backend) if create else (fetch_config(backend), False)
        if config is None:
            raise StoreNotFound(
                f"There is no store at {backend.describe()}.",
                "Create a dataset to make one, or name another with DATASET_STORE_URL or --store.",
            )
        _remember(remembered, config)
    store_id = decode_config(config, f"the config of {backend.describe()}").store
    if held is not None:
        if held.store_id == store_id:
            return held
        backend = _reached(settings, url)  # what the other one knows is of the store that was here before
    folder = os.path.join(settings.cache, store_id)
    with suppress(OSError):  # without it everything is read from the store
        make_private(folder)
    store = open_store(
        backend, config, os.path.join(folder, "catalog"), NodeCache(os.path.join(folder, "nodes")), is_new=is_new
    )
    return Workspace(
        settings,
        store,
        ChunkIndex(os.path.join(folder, "chunks")),
        StatCache(os.path.join(settings.cache, "stats")),
        LocalCopies(os.path.join(folder, "copies"), settings.cache_bytes),
    )


def _reached(settings: Settings, url: str) -> Backend:
    """The backend of a store; while a far one answers, what will be needed is loaded."""
    backend = backend_at(url, single_writer=settings.single_writer)
    if is_remote(url):
        load_ahead()
    return backend


def _stat(path: str) -> os.stat_result | None:
    try:
        return os.stat(path)
    except OSError:
        return None


def _remembered(path: str) -> bytes | None:
    """The config that this machine has seen; None where there is none, or none that can be used."""
    try:
        with open(path, "rb") as file:
            config = file.read()
        decode_config(config, path)
    except (OSError, Corrupt, FormatTooNew):
        return None
    return config


def _remember(path: str, config: bytes) -> None:
    """Keep a config, where that is possible: without it opening takes one request more."""
    with suppress(OSError):
        make_private(os.path.dirname(path))
        temporary = f"{path}.{os.urandom(4).hex()}"
        with open(temporary, "wb") as file:
            file.write(config)
        os.replace(temporary, path)
