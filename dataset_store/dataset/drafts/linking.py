"""Adding external links: entries whose files stay where they are."""

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

from blake3 import blake3
from msgspec import Struct

from dataset_store.core.arrays import np
from dataset_store.core.diff import Difference
from dataset_store.core.digest import hash32
from dataset_store.core.entries import make_entries
from dataset_store.core.kinds import Kind
from dataset_store.core.links import Link, encode_link
from dataset_store.core.paths import ROOT, PathKey, directory_key, to_key, to_text
from dataset_store.core.wildcards import matching
from dataset_store.dataset.drafts import drafting
from dataset_store.dataset.workspace import Workspace, now_ns
from dataset_store.errors import ExternalFileChanged, InvalidRequest
from dataset_store.local.drafts import Draft
from dataset_store.local.folder import Folder
from dataset_store.storage.filesystems import redacted
from dataset_store.storage.remote_objects import (
    RemoteObject,
    find_objects,
    kept_url,
    object_url,
    read_object,
    require_lasting,
)

__all__ = ["NewLink", "Wanted", "add_links", "put_links", "wanted_links"]

_AT_ONCE = 16


class Wanted(Struct, frozen=True):
    """Files to be linked: those of `url` (below it) that match one of `wildcards`, in the directory `dataset_path`."""

    url: str
    dataset_path: str
    wildcards: Sequence[str]
    recursive: bool


class NewLink(Struct, frozen=True):
    """A link to be added: its record, the time of its file (ns since 1970) and the hash of its bytes, where known."""

    link: Link
    mtime_ns: int | None
    content: bytes | None


def wanted_links(
    urls: Sequence[str], paths: Sequence[str], wildcards: Sequence[str], *, recursive: bool
) -> list[Wanted]:
    """One request for each URL; `paths` are a directory for each, or one for all.

    Raises:
        InvalidRequest: There are several paths, but not as many as URLs.
    """
    if len(paths) not in {1, len(urls)}:
        raise InvalidRequest(f"There are {len(urls)} URLs and {len(paths)} paths.", "Give one path, or one for each.")
    spread = paths if len(paths) == len(urls) else [paths[0]] * len(urls)
    return [Wanted(url, path, wildcards, recursive) for url, path in zip(urls, spread, strict=True)]


def add_links(
    workspace: Workspace, draft: Draft, wanted: Sequence[Wanted], *, read_hash: bool
) -> tuple[int, Difference]:
    """Add links to a draft; how many were found, and what that changed. Of several with one path the last stands.

    Raises:
        PathNotFound, AccessDenied, StoreUnreachable, StorageFailed: A source cannot be read; nothing was added.
        InvalidRequest, DriverMissing, InvalidPath: A URL or path cannot be used; nothing was added.
    """
    with ThreadPoolExecutor(_AT_ONCE, "links") as pool:
        found = dict(pair for pairs in pool.map(_found, wanted) for pair in pairs)
        keys = sorted(found)
        read = list(pool.map(lambda key: _read(found[key], always=read_hash), keys))
    return len(keys), put_links(workspace, draft, dict(zip(keys, read, strict=True)))


def put_links(workspace: Workspace, draft: Draft, links: Mapping[PathKey, NewLink]) -> Difference:
    """Add links to a draft by key, in key order; what that changed."""
    now = now_ns()
    records = {key: encode_link(one.link) for key, one in links.items()}
    ids = [one.content or hash32(records[key]) for key, one in links.items()]
    rows = make_entries(
        list(links),
        np.full(len(links), Kind.EXTERNAL, np.uint8),
        np.array([one.link.size for one in links.values()], np.uint64),
        np.array([now if one.mtime_ns is None else one.mtime_ns for one in links.values()], np.int64),
        np.frombuffer(b"".join(ids), np.uint8).reshape(-1, 32).copy(),
    )
    return drafting.put_rows(workspace, draft, Folder(b"", rows, records), ROOT)


def _found(wanted: Wanted) -> list[tuple[PathKey, RemoteObject]]:
    require_lasting(wanted.url)
    objects = find_objects(object_url(wanted.url), recursive=wanted.recursive or bool(wanted.wildcards))
    names = [one.name for one in objects]
    meant = [not wanted.wildcards] * len(names)
    for wildcard in wanted.wildcards:
        hits = matching(names, wildcard, recursive=wanted.recursive)
        meant = [one or hit for one, hit in zip(meant, hits, strict=True)]
    directory = directory_key(wanted.dataset_path)
    below = f"{to_text(directory)}/" if directory else ""
    return [(to_key(below + one.name), one) for one, is_meant in zip(objects, meant, strict=True) if is_meant]


def _read(found: RemoteObject, *, always: bool) -> NewLink:
    """A link to an object; its bytes are hashed where that is asked for, or where nothing else tells a change."""
    url = kept_url(found.url)
    if not always and found.etag is not None and found.size is not None:
        return NewLink(Link(found.etag, found.size, url), found.mtime_ns, None)
    whole = blake3()
    size = read_object(found.url, found.size, whole.update)
    if found.size not in {None, size}:
        raise ExternalFileChanged(
            f"{redacted(found.url)} changed while it was read.", "Add it again; nothing was added."
        )
    return NewLink(Link(found.etag, size, url), found.mtime_ns, whole.digest())
