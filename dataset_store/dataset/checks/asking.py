"""What external links lead to now, asked of each source. Nothing of this is in the store, so none of it is damage."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from blake3 import blake3
from msgspec import Struct

from dataset_store.core.entries import Entries
from dataset_store.core.links import Link
from dataset_store.core.paths import to_text
from dataset_store.dataset.entries.links import known_content, links_of
from dataset_store.dataset.progress import Told, progress_bar
from dataset_store.dataset.workspace import Workspace
from dataset_store.errors import DriverMissing, InvalidRequest, PathNotFound, StorageFailed
from dataset_store.storage.remote_objects import describe_object, read_object

__all__ = ["BrokenLink", "broken_links"]

_AT_ONCE = 16


class BrokenLink(Struct, frozen=True):
    """A link that cannot be followed as it was made.

    Attributes:
        path: Of the link in the version.
        url: What it leads to.
        state: `changed`, `missing` or `unreachable`.
        problem: What the source says.
    """

    path: str
    url: str
    state: str
    problem: str


def broken_links(
    workspace: Workspace, entries: Entries, rows: Sequence[int], *, show_progress: bool = False
) -> tuple[BrokenLink, ...]:
    """Those of some links whose files are not, or not reachably, what they were, in order.

    Where the hash of a file is known it is read, and only its content counts; else its size and its etag or time.

    Args:
        workspace: The store.
        entries: Of a version.
        rows: Those of them that are links.
        show_progress: Show a bar.

    Raises:
        CorruptObject, ObjectMissing, StorageFailed: The links' own records cannot be had.
    """
    links = dict(zip(rows, links_of(workspace, entries, rows), strict=True))
    contents = {row: known_content(entries, row, link) for row, link in links.items()}
    total = sum(link.size for row, link in links.items() if contents[row] is not None)
    with (
        progress_bar("asking sources", total, len(links), show=show_progress) as told,
        ThreadPoolExecutor(_AT_ONCE, "links") as pool,
    ):
        found = pool.map(lambda row: _broken(to_text(entries.keys[row]), links[row], contents[row], told), links)
        return tuple(one for one in found if one is not None)


def _broken(path: str, link: Link, content: bytes | None, told: Told) -> BrokenLink | None:
    try:
        problem = _described(link) if content is None else _read(link, content, told)
    except PathNotFound as error:
        return BrokenLink(path, link.url, "missing", error.what)
    except (StorageFailed, DriverMissing, InvalidRequest) as error:
        return BrokenLink(path, link.url, "unreachable", error.what)
    told(1, 0)
    return BrokenLink(path, link.url, "changed", problem) if problem else None


def _described(link: Link) -> str:
    """How what a source says of a file differs from the link's record; empty where it does not."""
    now = describe_object(link.url)
    if now.size != link.size:
        return f"It has {now.size} bytes, and had {link.size}."
    if now.etag != link.etag:
        return f"It is {now.etag}, and was {link.etag}."
    return ""


def _read(link: Link, content: bytes, told: Told) -> str:
    """How the bytes of a file differ from those that were linked; empty where they do not."""
    whole = blake3()

    def take(piece: bytes) -> None:
        whole.update(piece)
        told(0, len(piece))

    size = read_object(link.url, link.size, take)
    if size != link.size:
        more = "more than " if size > link.size else ""
        return f"It has {more}{min(size, link.size)} bytes, and had {link.size}."
    return "" if whole.digest() == content else "It has other bytes than when it was linked."
