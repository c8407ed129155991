"""Log entries without a store: short ways to make one, and a hypothesis strategy for every kind.

What is made here is always what the log accepts. Nothing here writes or reads a log.
"""

from typing import Any, Final

from hypothesis import strategies as st

from dataset_store.core.log_entries import (
    ArchiveEntry,
    ArtifactEntry,
    Blob,
    Census,
    CondemnedEntry,
    DeleteEntry,
    DescribeEntry,
    FeatureEntry,
    HoldEntry,
    LogEntry,
    MetadataEntry,
    MoveEntry,
    PackRow,
    PlaceRow,
    Producer,
    PublishEntry,
    ReleaseEntry,
    RepackEntry,
    SegmentRow,
    SeriesName,
    Statistics,
    StorageEntry,
    TagsEntry,
    TreeRootRow,
    VersionEntry,
)

__all__ = ["blob", "entry_strategies", "hash_hex", "id_hex", "log_entries", "version_entry"]


def id_hex(number: int) -> str:
    """An id16 for a number."""
    return f"{number:032x}"


def hash_hex(number: int) -> str:
    """A hash for a number, which is that of nothing."""
    return f"{number:064x}"


def blob(number: int = 0) -> Blob:
    """A blob that is nowhere."""
    segment = SegmentRow(0, id_hex(number), 40, 100, 0, 200, hash_hex(number))
    return Blob(id=hash_hex(number), size=200, segments=(segment,))


def version_entry(number: int, version: str = "1.0.0", **fields: Any) -> VersionEntry:
    """A version whose id is `id_hex(number)`, of series 1 unless `fields` say otherwise."""
    place = PlaceRow(0, id_hex(number), 40, 1000, 2000)
    values: dict[str, Any] = {
        "series": id_hex(1),
        "parents": (),
        "tree": TreeRootRow(
            census=Census(id=hash_hex(number), place=place),
            digest=hash_hex(number),
            node=hash_hex(number),
            place=place,
        ),
        "stats": Statistics(files=1, bytes=2, added=1, modified=0, removed=0),
        "tags": (),
    }
    return VersionEntry(commit=id_hex(number), time=number, version=version, **(values | fields))


_ids = st.binary(min_size=16, max_size=16).map(bytes.hex)
_hashes = st.binary(min_size=32, max_size=32).map(bytes.hex)
_u32 = st.integers(0, 2**32 - 1)
_counts = st.integers(0, 2**63 - 1)
_texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
_names = _texts.filter(bool)
_labels = st.sets(_names, max_size=4).map(lambda labels: tuple(sorted(labels)))
_packs = st.lists(st.builds(PackRow, _u32, _ids), max_size=4).map(tuple)
_places = st.builds(PlaceRow, _u32, _ids, _u32, _u32, _u32)
_segments = st.builds(SegmentRow, _u32, _ids, _u32, _u32, _u32, _counts, _hashes)
_blobs = st.builds(Blob, id=_hashes, size=_counts, segments=st.lists(_segments, max_size=3).map(tuple))
_series_names = st.builds(SeriesName, project=_texts, name=_names)
_common: Final[dict[str, Any]] = {"commit": _ids, "prev": _hashes, "time": _counts}
_lists = st.one_of(
    st.fixed_dictionaries({"packs": _packs}),
    st.fixed_dictionaries({"listed": _blobs}),
)


def _version_entries() -> st.SearchStrategy[VersionEntry]:
    return st.builds(
        VersionEntry,
        **_common,
        series=_ids,
        opens=st.none() | _series_names,
        version=_names,
        parents=st.lists(_ids, max_size=3).map(tuple),
        tree=st.builds(
            TreeRootRow,
            census=st.builds(Census, id=_hashes, place=_places),
            digest=_hashes,
            node=_hashes,
            place=_places,
        ),
        stats=st.builds(Statistics, files=_counts, bytes=_counts, added=_counts, modified=_counts, removed=_counts),
        tags=_labels,
        description=st.none() | _texts,
        metadata=st.dictionaries(_names, _texts, max_size=3),
        producer=st.none() | st.builds(Producer, kind=_names, id=_names, name=_texts),
    )


def _tags_entries() -> st.SearchStrategy[TagsEntry]:
    both = st.tuples(_labels, _labels)
    return both.flatmap(
        lambda labels: st.builds(
            TagsEntry,
            **_common,
            version=_ids,
            add=st.just(labels[0]),
            remove=st.just(tuple(label for label in labels[1] if label not in labels[0])),
        )
    )


def _metadata_entries() -> st.SearchStrategy[MetadataEntry]:
    piece: st.SearchStrategy[dict[str, Any]] = st.one_of(
        st.just({}), st.fixed_dictionaries({"value": _texts}), st.fixed_dictionaries({"blob": _blobs})
    )
    return piece.flatmap(
        lambda given: st.builds(
            MetadataEntry,
            **_common,
            version=_ids,
            name=_names,
            **{name: st.just(value) for name, value in given.items()},
        )
    )


def _listing(kind: type, **fields: Any) -> st.SearchStrategy[Any]:
    return _lists.flatmap(
        lambda given: st.builds(kind, **_common, **fields, **{name: st.just(value) for name, value in given.items()})
    )


entry_strategies: Final[dict[str, st.SearchStrategy[Any]]] = {
    "version": _version_entries(),
    "tags": _tags_entries(),
    "describe": st.builds(DescribeEntry, **_common, version=_ids, description=_texts),
    "metadata": _metadata_entries(),
    "publish": st.builds(PublishEntry, **_common, version=_ids),
    "archive": st.builds(ArchiveEntry, **_common, version=_ids, archived=st.booleans()),
    "move": st.builds(MoveEntry, **_common, series=_ids, project=_texts, name=_names),
    "delete": st.builds(DeleteEntry, **_common, versions=st.lists(_ids, max_size=4).map(tuple)),
    "hold": _listing(HoldEntry, hold=_ids),
    "release": st.builds(ReleaseEntry, **_common, hold=_ids),
    "condemned": _listing(CondemnedEntry),
    "repack": _listing(RepackEntry, table=_blobs),
    "artifact": st.builds(ArtifactEntry, **_common, task=_names, name=_names, blob=_blobs),
    "storage": st.builds(StorageEntry, **_common, number=st.integers(1, 2**32 - 1), url=_names),
    "feature": st.builds(
        FeatureEntry,
        **_common,
        name=_names,
        operations=st.lists(st.sampled_from(["read", "write", "gc"]), max_size=3, unique=True).map(tuple),
    ),
}
"""A strategy for each kind of entry, by its name in the log."""


def log_entries() -> st.SearchStrategy[LogEntry]:
    """Any entry."""
    return st.one_of(list(entry_strategies.values()))
