"""Files kept as they are outside the packs: uploads whose files become links, and their removal with the last version.

Such a file lies under `<output>/dataset-store/<store id>/files/<draft id>/<first half of its content id>/<path>`. A
name stands for one content, so an upload that was broken off goes on where it stopped.
"""

import os
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor

from blake3 import blake3

from dataset_store.core.arrays import np
from dataset_store.core.catalog import Version
from dataset_store.core.digest import NodeId
from dataset_store.core.entries import EXECUTABLE, KIND_BITS, Entries, concat
from dataset_store.core.kinds import Kind
from dataset_store.core.links import Link
from dataset_store.core.nodes import Children, NodeRef
from dataset_store.core.paths import to_text
from dataset_store.core.tree import read_children
from dataset_store.dataset.catalog.overview import drafts_of
from dataset_store.dataset.drafts import drafting
from dataset_store.dataset.drafts.linking import NewLink, put_links
from dataset_store.dataset.entries.links import link_rows, links_of
from dataset_store.dataset.progress import progress_bar
from dataset_store.dataset.uploads.unread import read_now
from dataset_store.dataset.workspace import Workspace
from dataset_store.errors import FileChanged, PathNotFound
from dataset_store.local.drafts import Draft
from dataset_store.local.os_errors import reading_error, shown
from dataset_store.storage.remote_objects import (
    describe_object,
    object_below,
    read_object,
    remove_object,
    write_object,
)
from dataset_store.storage.trees import root_of

__all__ = ["remove_unlinked", "upload_as_links", "urls_of"]

_AT_ONCE = 8
_ALIASES = {"s3a": "s3", "s3n": "s3", "gcs": "gs", "abfs": "az", "abfss": "az", "ssh": "sftp", "local": "file"}
_PIECE = 4 << 20


def upload_as_links(workspace: Workspace, draft: Draft, *, show_progress: bool) -> int:
    """Write a draft's pending files under its output as they are, and make them links; how many.

    Raises:
        FileChanged: A file is not what it was when it was added.
        AccessDenied, StoreUnreachable, StorageFailed: The output refused; repeat.
    """
    pending = read_now(workspace, draft, draft.pending())
    # A link cannot say that a file is executable: such files stay in packs.
    rows = np.flatnonzero((pending.kinds & (KIND_BITS | EXECUTABLE)) == Kind.FILE).tolist()
    if not rows:
        return 0
    output = draft.output or workspace.store.backend.describe()
    root = f"{output}/dataset-store/{workspace.store_id}/files/{draft.opened.id}"
    keys = [pending.keys[row] for row in rows]
    paths = [os.fsdecode(source.path_of(key)) for key, source in zip(keys, draft.sources_of(keys), strict=True)]
    total = int(pending.sizes[rows].sum())
    with (
        progress_bar("uploading", total, len(rows), show=show_progress) as advance,
        ThreadPoolExecutor(_AT_ONCE, "files") as pool,
    ):

        def send(row: int, path: str) -> NewLink:
            sent = _send(pending, row, path, root)
            advance(1, sent.link.size)
            return sent

        links = list(pool.map(send, rows, paths))
    put_links(workspace, draft, dict(zip(keys, links, strict=True)))
    return len(rows)


def _send(pending: Entries, row: int, path: str, root: str) -> NewLink:
    """Write one file unless it is there already, checked against its content id before; with the file's own time."""
    content = pending.content_ids[row].tobytes()
    name = to_text(pending.keys[row])
    url = object_below(f"{root}/{content[:16].hex()}", name)
    size, mtime = int(pending.sizes[row]), int(pending.mtimes[row])
    before = _stat(path)
    if _hash(path) != content:
        raise _changed(path)
    if not _stands(url, content):
        write_object(path, url)
    held = describe_object(url)
    if held.size != size or _stat(path) != before:
        remove_object(url)  # its name stands for another content
        raise _changed(path)
    return NewLink(Link(held.etag, size, held.url), mtime, content)


def _stands(url: str, content: bytes) -> bool:
    """Whether an object of this content is there, as an upload that was broken off leaves it."""
    whole = blake3()
    try:
        read_object(url, describe_object(url).size, whole.update)
    except PathNotFound:
        return False
    return whole.digest() == content


def _stat(path: str) -> tuple[int, int, int]:
    try:
        found = os.stat(path)
    except OSError as error:
        raise _changed(path) from error
    return found.st_size, found.st_mtime_ns, found.st_ino


def _hash(path: str) -> bytes:
    whole = blake3()
    try:
        with open(path, "rb") as file:
            while piece := file.read(_PIECE):
                whole.update(piece)
    except OSError as error:
        raise reading_error(error, path) from error
    return whole.digest()


def _changed(path: str) -> FileChanged:
    return FileChanged(f"{shown(os.fsencode(path))} is not what it was when it was added.", "Sync or add it again.")


# --- removing --------------------------------------------------------------------------------------------------------


def urls_of(workspace: Workspace, versions: Iterable[Version]) -> set[str]:
    """Every URL that links of these versions lead to. Nodes that several share are read once."""
    entries = _linking_rows(workspace, [root_of(version.entry.tree).ref for version in versions])
    return {link.url for link in links_of(workspace, entries, range(len(entries)))}


def remove_unlinked(workspace: Workspace, urls: set[str]) -> int:
    """Remove the objects of these URLs to which no live version and no draft of this machine links; how many.

    Raises:
        AccessDenied, StoreUnreachable, StorageFailed: One cannot be removed.
    """
    kept = urls_of(workspace, workspace.refresh().live_versions()) | _urls_of_drafts(workspace)
    same = {_place_of(url) for url in kept}
    gone = sorted(url for url in urls if _place_of(url) not in same)
    with ThreadPoolExecutor(_AT_ONCE, "removing") as pool:
        list(pool.map(remove_object, gone))
    return len(gone)


def _urls_of_drafts(workspace: Workspace) -> set[str]:
    """Every URL that drafts of this machine link to, by themselves or through what they began with."""
    found: set[str] = set()
    for summary in drafts_of(workspace):
        draft = workspace.draft(summary.id)
        if draft is not None:
            entries = drafting.current_entries(workspace, draft)
            found |= {link.url for link in links_of(workspace, entries, link_rows(entries).tolist(), draft)}
    return found


def _place_of(url: str) -> str:
    """The URL, by one of the names that its scheme has."""
    scheme, mark, rest = url.partition("://")
    return f"{_ALIASES.get(scheme, scheme)}{mark}{rest}"


def _linking_rows(workspace: Workspace, refs: Sequence[NodeRef]) -> Entries:
    """The link rows below nodes, in no order."""
    found: list[Entries] = []
    seen: set[NodeId] = set()
    waiting = list(refs)
    while waiting:
        fresh = {ref.node_id: ref for ref in waiting if ref.node_id not in seen}
        seen.update(fresh)
        nodes = read_children(list(fresh.values()), workspace.store.nodes)
        found += [node.take(link_rows(node)) for node in nodes if isinstance(node, Entries)]
        waiting = [ref for node in nodes if isinstance(node, Children) for ref in node.refs()]
    return concat(found)
