"""How a version of one store stands in another: under which dataset and number, with which labels.

Its id, parents, statistics, producer and time are what they are everywhere. Its dataset keeps its id, so that it is
known again under whatever name either store gives it. Labels come along once, with the version; after that each store's
are its own, but for what is only ever added: see `complete`.
"""

from collections.abc import Mapping

import msgspec
from msgspec import Struct

from dataset_store.core.catalog import Catalog, Series, Version
from dataset_store.core.digest import hash32
from dataset_store.core.log_entries import Blob, SeriesName, TreeRootRow, VersionEntry, encode_entry, with_prev
from dataset_store.core.version_numbers import title_of
from dataset_store.dataset.annotations.blobs import read_blob
from dataset_store.dataset.annotations.metadata import set_piece
from dataset_store.dataset.catalog.changing import change_tags, describe, publish, set_archived
from dataset_store.dataset.workspace import Workspace
from dataset_store.errors import Conflict, InvalidRequest, VersionExists

__all__ = ["Arrival", "Naming", "arrival", "complete", "differs", "make_equal", "piece_bytes", "version_entry"]

_FIRST = "0" * 64
_SAYS = b"dataset_store transfer\n"


class Naming(Struct, frozen=True):
    """What versions are to be called in the other store.

    Attributes:
        series: The dataset of the source that this is about.
        project, name: What it is to be called there.
        fresh: The id of a dataset that is begun for it, where its own id stands for another name there.
        renumber: Give a version whose number is taken there the next free one.
    """

    series: str = ""
    project: str | None = None
    name: str | None = None
    fresh: str = ""
    renumber: bool = False


class Arrival(Struct, frozen=True):
    """Where a version comes to stand: the dataset, whether it is begun with it, and the version's number."""

    series: str
    opens: SeriesName | None
    number: str


def arrival(source: Catalog, target: Catalog, version: Version, naming: Naming) -> Arrival:
    """Under which dataset and number a version can be committed to a target, in that state of it.

    Raises:
        VersionExists: Another version there has its number.
        Conflict: Another dataset there has the name.
    """
    series, opens = _series_there(source, target, version, naming)
    other = target.numbered(series, version.number)
    if other is None:
        return Arrival(series, opens, version.number)
    if naming.renumber:
        return Arrival(series, opens, target.next_version(series))
    held = target.series(series)
    raise VersionExists(
        f"{_title(held, version.number)} there is another version, {other.id}, and not {version.id}.",
        "Give it the next free number there with --renumber (renumber=True), or another name with --as NAME "
        "(as_name=); nothing of it was written.",
    )


def _series_there(source: Catalog, target: Catalog, version: Version, naming: Naming) -> tuple[str, SeriesName | None]:
    own = source.series(version.series) or Series(version.series, "", version.series, 0)
    known = target.series(version.series)
    if naming.name is not None and version.series == naming.series:
        name = SeriesName(project=own.project if naming.project is None else naming.project, name=naming.name)
        held = target.series_named(name.project, name.name)
        return (held.id, None) if held else (naming.fresh if known else version.series, name)
    joined = known or _joined(source, target, version)
    if joined is not None:
        return joined.id, None
    if target.series_named(own.project, own.name) is not None:
        raise Conflict(
            f"There is another dataset {title_of(own.project, own.name, '')} there, begun apart from this one.",
            "Give this one another name there with --as NAME (as_name=), or the same name so that its versions become "
            "versions of that one; nothing was written.",
        )
    return version.series, SeriesName(project=own.project, name=own.name)


def _joined(source: Catalog, target: Catalog, version: Version) -> Series | None:
    """The dataset there to which other versions of the same dataset went; the one that got the last of them."""
    there = (target.version(one.id) for one in source.versions_of(version.series))
    last = max((one for one in there if one is not None), key=lambda one: one.slot, default=None)
    return None if last is None else target.series(last.series)


def _title(series: Series | None, number: str) -> str:
    return title_of(series.project, series.name, number) if series else number


def version_entry(
    version: Version, place: Arrival, tree: TreeRootRow, metadata: Mapping[str, str | Blob]
) -> VersionEntry:
    """The entry of a version in another store, with its labels as they are now.

    Where all of them are more than an entry holds, metadata is left to `complete`.

    Raises:
        InvalidRequest: Even so it is too long.
    """
    own = version.entry
    entry = VersionEntry(
        commit=own.commit,
        time=own.time,
        series=place.series,
        opens=place.opens,
        version=place.number,
        parents=own.parents,
        tree=tree,
        stats=own.stats,
        tags=tuple(sorted(version.tags)),
        description=version.description,
        metadata=dict(metadata),
        producer=own.producer,
    )
    return entry if _fits(entry) else msgspec.structs.replace(entry, metadata={})


def _fits(entry: VersionEntry) -> bool:
    try:
        encode_entry(with_prev(entry, _FIRST))
    except InvalidRequest:
        return False
    return True


def piece_bytes(workspace: Workspace, piece: str | Blob) -> bytes:
    """The bytes of a piece of metadata, checked."""
    return read_blob(workspace, piece) if isinstance(piece, Blob) else piece.encode()


# --- labels of a version that is there -------------------------------------------------------------------------------


def complete(source: Workspace, target: Workspace, version: Version) -> int:
    """Add to a version what its entry could not say, and what was added since; how many entries that took.

    That it is published, that it is archived, and metadata (reports too) that it never had there. Each is said once,
    whoever repeats it after a failure: what the target has changed or taken away since stays so.
    """
    said = 0
    for name in _pieces_never_there(target.catalog, version):
        data = piece_bytes(source, version.metadata[name])
        set_piece(target, version.id, None, name, data, _says(version, f"metadata {name}"))
        said += 1
    there = _there(target, version)
    if version.published and not there.published:
        publish(target, version.id)
        said += 1
    archives = _says(version, "archived")
    if version.archived and not there.archived and target.catalog.slot_of(archives) is None:
        set_archived(target, version.id, archived=True, commit=archives)
        said += 1
    return said


def _pieces_never_there(target: Catalog, version: Version) -> list[str]:
    there = target.version(version.id)
    had = {} if there is None else {**there.entry.metadata, **there.metadata}
    left = [name for name in version.metadata if name not in had]
    return [name for name in left if target.slot_of(_says(version, f"metadata {name}")) is None]


def _says(version: Version, what: str) -> str:
    """The commit id under which something that follows a version is said, the same for whoever says it."""
    return hash32(_SAYS + f"{version.id}\n{what}".encode())[:16].hex()


def make_equal(source: Workspace, target: Workspace, version: Version) -> None:
    """Give a version in the target the tags, description, metadata and state that it has in the source."""
    there = _there(target, version)
    change_tags(target, version.id, lambda _: version.tags)
    if (version.description or "") != (there.description or ""):
        describe(target, version.id, version.description or "")
    for name in sorted(version.metadata.keys() | there.metadata.keys()):
        mine, its = version.metadata.get(name), there.metadata.get(name)
        if _content(mine) != _content(its):
            set_piece(target, version.id, None, name, None if mine is None else piece_bytes(source, mine))
    if version.published:
        publish(target, version.id)
    set_archived(target, version.id, archived=version.archived)


def differs(target: Catalog, version: Version) -> bool:
    """Whether a version has other labels in the target than in the source."""
    there = target.version(version.id)
    if there is None:
        return True
    mine = {name: _content(piece) for name, piece in version.metadata.items()}
    its = {name: _content(piece) for name, piece in there.metadata.items()}
    texts = (version.tags, version.description or "", mine, version.archived)
    # Publishing is never undone, so one that is published there only is not to be told.
    behind = version.published and not there.published
    return behind or texts != (there.tags, there.description or "", its, there.archived)


def _content(piece: str | Blob | None) -> str | None:
    """What tells a piece's bytes from others, wherever it is kept."""
    return piece.id if isinstance(piece, Blob) else None if piece is None else hash32(piece.encode()).hex()


def _there(target: Workspace, version: Version) -> Version:
    return target.live_version(version.id)
