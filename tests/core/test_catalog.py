"""The fold of the catalog: what each kind of entry does, and what can be asked."""

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dataset_store.core.catalog import STATE, Catalog, Query
from dataset_store.core.digest import hash32
from dataset_store.core.log_entries import (
    ArchiveEntry,
    ArtifactEntry,
    CondemnedEntry,
    DeleteEntry,
    DescribeEntry,
    FeatureEntry,
    HoldEntry,
    LogEntry,
    MetadataEntry,
    MoveEntry,
    PackRow,
    PublishEntry,
    ReleaseEntry,
    RepackEntry,
    SeriesName,
    StorageEntry,
    TagsEntry,
)
from dataset_store.core.tag_filters import parse_tags
from dataset_store.core.version_numbers import rank
from dataset_store.errors import FormatTooNew, InvalidRequest
from dataset_store.testing.bases import RowsBase
from dataset_store.testing.log_entries import blob, id_hex, log_entries, version_entry

V = [id_hex(i) for i in range(40)]
S = [id_hex(1000 + i) for i in range(10)]
FIRST_NAME = SeriesName(project="vision", name="cats")


def fold(*entries: LogEntry, known: frozenset[str] = frozenset()) -> Catalog:
    catalog = Catalog(known)
    for slot, entry in enumerate(entries):
        catalog.apply(slot, entry)
    return catalog


def opening(number: int, version: str = "1.0.0", series: int = 0, project="vision", name="cats", **fields):
    return version_entry(number, version, series=S[series], opens=SeriesName(project=project, name=name), **fields)


def following(number: int, version: str, series: int = 0, **fields):
    return version_entry(number, version, series=S[series], **fields)


def other(kind, **fields):
    return kind(commit=id_hex(10**6), time=0, **fields)


def ids(versions) -> list[str]:
    return [version.id for version in versions]


# Slots


def test_entries_are_folded_in_slot_order_without_gaps():
    catalog = fold(opening(1))
    assert catalog.head == 1
    for slot in (0, 2):
        with pytest.raises(InvalidRequest):
            catalog.apply(slot, following(2, "1.0.1"))
    assert catalog.version(V[2]) is None
    catalog.apply(1, following(2, "1.0.1"))
    assert (catalog.slot_of(V[1]), catalog.slot_of(V[2]), catalog.slot_of(V[3])) == (0, 1, None)


@settings(max_examples=50)
@given(st.lists(log_entries(), max_size=12))
def test_any_sequence_of_entries_can_be_folded(entries):
    catalog = fold(*entries)
    assert catalog.head == len(entries)
    assert {version.slot for version in catalog.live_versions()}.isdisjoint(bad.slot for bad in catalog.invalid)


# Versions and series


def test_a_version_is_found_by_id_by_series_and_by_parent():
    catalog = fold(opening(1), following(2, "1.0.1", parents=(V[1],)), following(3, "0.9", parents=(V[1], V[2])))
    assert catalog.version(V[2]).entry.version == "1.0.1"
    assert ids(catalog.versions_of(S[0])) == [V[3], V[1], V[2]]
    assert ids(catalog.children(V[1])) == [V[2], V[3]]
    assert catalog.children(V[3]) == ()
    assert ids(catalog.live_versions()) == [V[1], V[2], V[3]]


def test_a_version_is_found_by_its_number_exactly_while_it_lives():
    catalog = fold(opening(1), following(2, "1.0"), other(DeleteEntry, versions=(V[1],)))
    assert catalog.numbered(S[0], "1.0").id == V[2]
    assert catalog.numbered(S[0], "1.0.0") is None
    assert catalog.numbered(S[1], "1.0") is None


def test_a_series_is_found_by_id_and_by_its_name():
    catalog = fold(opening(1))
    series = catalog.series_named("vision", "cats")
    assert (series.id, series.project, series.name, series.slot) == (S[0], "vision", "cats", 0)
    assert catalog.series(S[0]) == series
    assert catalog.series_named("vision", "dogs") is None
    assert catalog.series(S[1]) is None


def test_a_second_series_of_one_name_is_folded_into_the_first():
    catalog = fold(opening(1), opening(2, "1.0.1", series=1), following(3, "1.0.2", series=1))
    assert catalog.series(S[1]) == catalog.series(S[0])
    assert ids(catalog.versions_of(S[1])) == [V[1], V[2], V[3]]
    assert catalog.version(V[3]).series == S[0]


def test_a_number_taken_in_its_series_makes_the_later_version_invalid():
    catalog = fold(opening(1), following(2, "1.0.0", tags=("latest",)), opening(3, "1.0.0", series=1, name="dogs"))
    assert catalog.version(V[2]) is None
    assert catalog.with_tag("latest") == ()
    assert [(bad.slot, bad.commit) for bad in catalog.invalid] == [(1, V[2])]
    assert catalog.version(V[3]) is not None


def test_a_version_of_a_series_that_nobody_opened_is_invalid():
    catalog = fold(following(1, "1.0.0"))
    assert catalog.version(V[1]) is None
    assert "no entry opened" in catalog.invalid[0].why


def test_an_id_that_stands_twice_counts_once():
    catalog = fold(opening(1), following(1, "1.0.1"))
    assert catalog.version(V[1]).number == "1.0.0"
    assert catalog.slot_of(V[1]) == 0
    assert "already stands in slot 0" in catalog.invalid[0].why


def test_a_moved_series_leaves_its_old_name_free():
    catalog = fold(opening(1), other(MoveEntry, series=S[0], project="audio", name="meows"), opening(2, series=1))
    assert catalog.series_named("audio", "meows").id == S[0]
    assert catalog.series_named("vision", "cats").id == S[1]
    assert ids(catalog.matching(Query(name="meows"))) == [V[1]]
    assert ids(catalog.matching(Query(project="vision"))) == [V[2]]


def test_a_series_can_not_move_to_a_name_that_another_holds():
    catalog = fold(
        opening(1),
        opening(2, series=1, name="dogs"),
        other(MoveEntry, series=S[1], project="vision", name="cats"),
        other(MoveEntry, series=S[5], project="x", name="y"),
    )
    assert catalog.series_named("vision", "cats").id == S[0]
    assert catalog.series_named("vision", "dogs").id == S[1]
    assert catalog.series_named("x", "y") is None


# What changes a version


def test_later_entries_change_what_is_said_of_a_version_and_not_its_manifest():
    catalog = fold(opening(1, description="old", metadata={"a": "1", "b": "2"}, tags=("x",)))
    before = catalog.version(V[1])
    for slot, entry in enumerate(
        [
            other(DescribeEntry, version=V[1], description="new"),
            other(MetadataEntry, version=V[1], name="a"),
            other(MetadataEntry, version=V[1], name="b", value=""),
            other(MetadataEntry, version=V[1], name="c", blob=blob(3)),
            other(TagsEntry, version=V[1], add=("y", "z"), remove=("x",)),
            other(PublishEntry, version=V[1]),
            other(ArchiveEntry, version=V[1], archived=True),
        ],
        start=1,
    ):
        catalog.apply(slot, entry)
    after = catalog.version(V[1])
    assert (after.description, dict(after.metadata)) == ("new", {"b": "", "c": blob(3)})
    assert (after.tags, after.published, after.archived) == ({"y", "z"}, True, True)
    assert after.entry == before.entry
    assert (before.description, dict(before.metadata), before.tags) == ("old", {"a": "1", "b": "2"}, {"x"})


def test_entries_for_unknown_versions_change_nothing():
    catalog = fold(
        other(DescribeEntry, version=V[1], description="new"),
        other(MetadataEntry, version=V[1], name="a", value="b"),
        other(TagsEntry, version=V[1], add=("y",), remove=()),
        other(PublishEntry, version=V[1]),
        other(ArchiveEntry, version=V[1], archived=True),
        other(DeleteEntry, versions=(V[1],)),
        other(ReleaseEntry, hold=V[1]),
    )
    assert catalog.head == 7
    assert catalog.version(V[1]) is None
    assert catalog.with_tag("y") == ()


def test_labels_are_found_from_both_sides():
    catalog = fold(
        opening(1, tags=("a", "b")),
        following(2, "1.0.1", tags=("b",)),
        other(TagsEntry, version=V[1], add=("c",), remove=("b",)),
        other(TagsEntry, version=V[1], add=("b",), remove=()),
    )
    assert catalog.tags_of(V[1]) == {"a", "b", "c"}
    assert ids(catalog.with_tag("b")) == [V[1], V[2]]
    assert catalog.tags_of(V[9]) == frozenset()


def test_a_deleted_version_is_known_but_not_live():
    catalog = fold(
        opening(1, tags=("a",)),
        following(2, "1.0.1", parents=(V[1],)),
        other(DeleteEntry, versions=(V[1], V[1], V[9])),
        other(TagsEntry, version=V[1], add=("b",), remove=()),
    )
    assert catalog.is_deleted(V[1])
    assert not catalog.is_deleted(V[2])
    assert not catalog.is_deleted(V[9])
    assert ids(catalog.live_versions()) == [V[2]]
    assert ids(catalog.versions_of(S[0])) == [V[2]]
    assert catalog.with_tag("a") == catalog.with_tag("b") == ()
    assert ids(catalog.children(V[1])) == [V[2]]
    assert catalog.version(V[1]).deleted


def test_the_number_of_a_deleted_version_is_free():
    catalog = fold(opening(1), other(DeleteEntry, versions=(V[1],)), following(2, "1.0.0"))
    assert catalog.resolve(Query(version="1.0.0")).id == V[2]
    assert catalog.invalid == ()


# Looking up


def test_by_name_the_highest_number_is_taken_whatever_the_slot():
    catalog = fold(opening(1, "1.10.0"), following(2, "final"), following(3, "1.9.0"), following(4, "1.10.0-rc.1"))
    assert catalog.resolve(Query(project="vision", name="cats")).id == V[1]
    assert ids(catalog.matching(Query(name="cats"))) == [V[1], V[4], V[3], V[2]]


def test_among_numbers_that_are_not_semantic_the_highest_slot_is_taken():
    catalog = fold(opening(1, "zebra"), following(2, "ape"))
    assert catalog.resolve(Query(name="cats")).id == V[2]


def test_by_version_exactly_that_number_is_taken():
    catalog = fold(opening(1, "1.0"), following(2, "1.0.0"), following(3, "2"))
    assert catalog.resolve(Query(name="cats", version="1.0")).id == V[1]
    assert catalog.resolve(Query(name="cats", version="1")) is None


def test_by_tag_the_highest_slot_is_taken_whatever_the_number():
    catalog = fold(
        opening(1, "2.0", tags=("latest",)),
        following(2, "1.0", tags=("latest",)),
        following(3, "3.0"),
    )
    assert catalog.resolve(Query(tags=parse_tags(["latest"]))).id == V[2]
    assert catalog.resolve(Query(name="cats", tags=parse_tags(["latest"]), version="2.0")).id == V[1]


def test_several_tags_mean_any_of_them_unless_all_are_asked_for():
    catalog = fold(opening(1, "1", tags=("a",)), following(2, "2", tags=("a", "b")), following(3, "3", tags=("b", "c")))
    assert ids(catalog.matching(Query(tags=parse_tags(["a", "c"])))) == [V[3], V[2], V[1]]
    assert ids(catalog.matching(Query(tags=parse_tags(["__$all", "a", "b"])))) == [V[2]]
    assert ids(catalog.matching(Query(name="cats", tags=parse_tags(["-c"])))) == [V[2], V[1]]


def test_archived_and_unpublished_versions_are_left_out_as_asked():
    catalog = fold(
        opening(1, "1"),
        following(2, "2"),
        following(3, "3"),
        other(ArchiveEntry, version=V[3], archived=True),
        other(PublishEntry, version=V[1]),
    )
    assert catalog.resolve(Query(name="cats")).id == V[2]
    assert catalog.resolve(Query(name="cats", include_archived=True)).id == V[3]
    assert catalog.resolve(Query(name="cats", only_published=True)).id == V[1]


def test_a_name_without_a_project_is_looked_for_in_all():
    catalog = fold(opening(1, "1"), opening(2, "2", series=1, project="audio"), opening(3, "3", series=2, name="dogs"))
    assert catalog.resolve(Query(name="cats")).id == V[2]
    assert catalog.resolve(Query(project="vision")).id == V[3]
    assert catalog.resolve(Query(project="audio", name="dogs")) is None


_NUMBERS = ["1.0.0", "1.0.1", "2.0", "x", "1.0.0-rc.1"]
_TAGS = ["a", "b", "c"]


@st.composite
def histories(draw):
    entries: list[LogEntry] = []
    for number in range(1, draw(st.integers(1, 14))):
        kind = draw(st.sampled_from(["version", "version", "version", "delete", "tags", "archive"]))
        target = V[draw(st.integers(1, number))]
        labels = tuple(sorted(draw(st.sets(st.sampled_from(_TAGS)))))
        if kind == "version":
            series, name = draw(st.integers(0, 3)), draw(st.sampled_from(["cats", "dogs"]))
            version = draw(st.sampled_from(_NUMBERS))
            entries.append(opening(number, version, series, project=f"p{series % 2}", name=name, tags=labels))
        elif kind == "delete":
            entries.append(other(DeleteEntry, versions=(target,)))
        elif kind == "tags":
            entries.append(other(TagsEntry, version=target, add=labels, remove=()))
        else:
            entries.append(other(ArchiveEntry, version=target, archived=draw(st.booleans())))
    return entries


queries = st.builds(
    Query,
    project=st.none() | st.sampled_from(["p0", "p1"]),
    name=st.none() | st.sampled_from(["cats", "dogs"]),
    version=st.none() | st.sampled_from(_NUMBERS),
    tags=st.lists(st.sampled_from([*_TAGS, "-a", "__$all", "__$or"]), max_size=4).map(parse_tags),
    include_archived=st.booleans(),
)


def meant(catalog: Catalog, query: Query) -> list[str]:
    """The definition: a walk over every live version."""
    found = []
    for version in catalog.live_versions():
        series = catalog.series(version.series)
        if query.project not in (None, series.project) or query.name not in (None, series.name):
            continue
        if query.accepts(version):
            found.append(version)
    by_slot = query.tags.asks_for_tags
    return ids(sorted(found, key=lambda v: ((0 if by_slot else rank(v.number)), v.slot), reverse=True))


@given(histories(), queries)
def test_indexes_find_what_a_walk_over_all_versions_finds(entries, query):
    catalog = fold(*entries)
    expected = meant(catalog, query)
    assert ids(catalog.matching(query)) == expected
    resolved = catalog.resolve(query)
    assert (resolved.id if resolved else None) == (expected[0] if expected else None)


# The next number


def test_the_next_number_follows_the_highest_live_one():
    catalog = fold(opening(1), following(2, "1.0.5"), following(3, "1.0.2"), following(4, "zzz"))
    assert catalog.next_version(S[0]) == "1.0.6"
    catalog.apply(4, other(DeleteEntry, versions=(V[2],)))
    assert catalog.next_version(S[0]) == "1.0.3"


def test_the_first_number_is_1_0_0():
    catalog = fold(opening(1, "draft"))
    assert catalog.next_version(None) == catalog.next_version(S[7]) == "1.0.0"
    assert catalog.next_version(S[0]) == "1.0.0"


@given(histories())
def test_the_next_number_is_free_and_the_highest(entries):
    catalog = fold(*entries)
    for series in S[:4]:
        number = catalog.next_version(series)
        versions = catalog.versions_of(series)
        assert number not in {version.number for version in versions}
        assert all(rank(number) > rank(version.number) for version in versions)


# Packs


PACKS = tuple(PackRow(0, id_hex(i)) for i in range(6))


def test_condemned_packs_are_never_forgotten():
    catalog = fold(
        other(CondemnedEntry, packs=PACKS[:2]),
        other(RepackEntry, packs=PACKS[1:3], table=blob(1)),
        other(HoldEntry, hold=V[1], packs=PACKS[:3]),
    )
    assert dict(catalog.packs.condemned) == {PACKS[0]: 0, PACKS[1]: 0, PACKS[2]: 1}
    assert catalog.packs.last_condemnation == 1
    assert catalog.packs.relocations == ((1, blob(1)),)


def test_a_hold_lasts_until_its_release():
    catalog = fold(
        other(HoldEntry, hold=V[1], packs=PACKS[:1]),
        other(HoldEntry, hold=V[1], packs=PACKS[1:2]),
        other(HoldEntry, hold=V[2], packs=PACKS[2:3]),
    )
    assert dict(catalog.packs.holds) == {V[1]: set(PACKS[:2]), V[2]: {PACKS[2]}}
    catalog.apply(3, other(ReleaseEntry, hold=V[1]))
    assert dict(catalog.packs.holds) == {V[2]: {PACKS[2]}}
    assert catalog.packs.last_condemnation is None


def test_nothing_is_said_of_packs_before_every_list_was_read():
    catalog = fold(
        other(CondemnedEntry, packs=PACKS[:1]),
        other(CondemnedEntry, listed=blob(1)),
        other(HoldEntry, hold=V[1], listed=blob(2)),
        other(HoldEntry, hold=V[2], listed=blob(3)),
    )
    assert dict(catalog.packs.unread_lists) == {1: blob(1), 2: blob(2), 3: blob(3)}
    catalog.apply(4, other(ReleaseEntry, hold=V[2]))
    catalog.packs.supply_list(1, PACKS[:3])
    with pytest.raises(InvalidRequest, match="slots \\[2\\]"):
        _ = catalog.packs.condemned
    with pytest.raises(InvalidRequest):
        _ = catalog.packs.holds
    catalog.packs.supply_list(2, PACKS[4:5])
    catalog.packs.supply_list(2, PACKS)
    catalog.packs.supply_list(3, PACKS)
    assert dict(catalog.packs.condemned) == {PACKS[0]: 0, PACKS[1]: 1, PACKS[2]: 1}
    assert dict(catalog.packs.holds) == {V[1]: {PACKS[4]}}
    assert catalog.packs.lists == (blob(1), blob(2))


# The rest


def test_artifacts_storages_and_features_are_kept():
    catalog = fold(
        other(ArtifactEntry, task="t", name="model", blob=blob(1)),
        other(ArtifactEntry, task="t", name="model", blob=blob(2)),
        other(StorageEntry, number=1, url="s3://a"),
        other(StorageEntry, number=1, url="s3://b"),
        other(StorageEntry, number=2, url="s3://c"),
        other(FeatureEntry, name="f", operations=("write",)),
        other(FeatureEntry, name="f", operations=("gc",)),
    )
    assert dict(catalog.artifacts) == {("t", "model"): blob(2)}
    assert dict(catalog.storages) == {1: "s3://a", 2: "s3://c"}
    assert [catalog.storage_number(url) for url in ("s3://a", "s3://b", "s3://c")] == [1, None, 2]
    assert dict(catalog.features) == {"f": {"write", "gc"}}


def test_an_unknown_feature_stops_only_the_operations_that_need_it():
    feature = other(FeatureEntry, name="later", operations=("write",))
    catalog = fold(feature)
    catalog.require("read")
    with pytest.raises(FormatTooNew, match="To write this store needs the feature 'later'"):
        catalog.require("write")
    fold(feature, known=frozenset({"later"})).require("write")


def test_a_folded_version_is_an_immutable_value():
    version = fold(opening(1)).version(V[1])
    with pytest.raises(AttributeError):
        version.deleted = True
    with pytest.raises(TypeError):
        version.metadata["a"] = "b"
    assert msgspec.structs.replace(version.entry, time=1) is not version.entry


def test_versions_are_found_by_the_beginning_of_their_ids_deleted_ones_too():
    catalog = fold(opening(1), following(2, "2.0"), other(DeleteEntry, versions=(V[1],)))
    start = V[1][:-1]
    assert ids(catalog.versions_beginning(start)) == [one for one in (V[1], V[2]) if one.startswith(start)]
    assert ids(catalog.versions_beginning(V[2])) == [V[2]]
    assert catalog.versions_beginning("no hex") == []


# States that are kept


@st.composite
def small_worlds(draw):
    """Entries of few versions, series and names, so that they meet."""
    versions, series = st.sampled_from(V[:5]), st.sampled_from(S[:3])
    names = st.sampled_from(["cats", "dogs"])
    labels = st.sets(st.sampled_from(["a", "b"])).map(lambda some: tuple(sorted(some)))
    opens = st.none() | st.builds(SeriesName, project=st.sampled_from(["", "vision"]), name=names)
    packs = st.tuples(st.builds(PackRow, st.just(0), versions))
    numbers = st.sampled_from(["1.0.0", "1.0.1", "1.0", "2-rc.1", "any"])
    number = draw(st.integers(0, 4))
    kinds = [
        st.builds(
            lambda commit, **fields: version_entry(int(commit, 16), fields.pop("number"), **fields),
            versions,
            number=numbers,
            series=series,
            opens=opens,
            parents=st.sets(versions, max_size=2).map(tuple),
            tags=labels,
        ),
        st.builds(lambda version, add: other(TagsEntry, version=version, add=add, remove=()), versions, labels),
        st.builds(lambda version, remove: other(TagsEntry, version=version, add=(), remove=remove), versions, labels),
        st.builds(lambda version: other(PublishEntry, version=version), versions),
        st.builds(
            lambda version, archived: other(ArchiveEntry, version=version, archived=archived), versions, st.booleans()
        ),
        st.builds(lambda version, text: other(DescribeEntry, version=version, description=text), versions, names),
        st.builds(
            lambda version, value: other(MetadataEntry, version=version, name="m", value=value),
            versions,
            st.none() | names,
        ),
        st.builds(lambda version: other(MetadataEntry, version=version, name="m", blob=blob(1)), versions),
        st.builds(lambda one, name: other(MoveEntry, series=one, project="vision", name=name), series, names),
        st.builds(lambda some: other(DeleteEntry, versions=some), st.sets(versions, max_size=2).map(tuple)),
        st.builds(lambda hold, some: other(HoldEntry, hold=hold, packs=some), versions, packs),
        st.builds(lambda hold: other(HoldEntry, hold=hold, listed=blob(2)), versions),
        st.builds(lambda hold: other(ReleaseEntry, hold=hold), versions),
        st.builds(lambda some: other(CondemnedEntry, packs=some), packs),
        st.builds(lambda some: other(RepackEntry, packs=some, table=blob(3)), packs),
        st.builds(lambda name: other(ArtifactEntry, task="t", name=name, blob=blob(len(name))), names),
        st.builds(lambda n, url: other(StorageEntry, number=n, url=url), st.integers(1, 2), names),
        st.builds(
            lambda name, one: other(FeatureEntry, name=name, operations=(one,)), names, st.sampled_from(["gc", "read"])
        ),
    ]
    # Versions are what the others are about.
    return draw(st.one_of(*[kinds[0]] * 5, kinds[number], *kinds))


def all_that_it_says(catalog: Catalog) -> dict[str, object]:
    """What every question has for an answer, the ledger's in full."""
    queries = [
        Query(project=project, name=name, version=number, tags=parse_tags(tags), only_published=published)
        for project in (None, "", "vision")
        for name in (None, "cats")
        for number in (None, "1.0.0")
        for tags in ((), ("a",), ("a", "b"))
        for published in (False, True)
    ]
    ledger = catalog.packs
    return {
        "head": catalog.head,
        "slots": [catalog.slot_of(one) for one in (*V[:5], id_hex(10**6))],
        "versions": [catalog.version(one) for one in V[:5]],
        "beginning": catalog.versions_beginning(V[1][:-1]),
        "live": list(catalog.live_versions()),
        "children": [catalog.children(one) for one in V[:5]],
        "tagged": [catalog.with_tag(tag) for tag in "ab"],
        "series": [catalog.series(one) for one in S[:3]],
        "names": sorted(catalog.names()),
        "called": [catalog.series_called(name) for name in ("cats", "dogs")],
        "versions of": [catalog.versions_of(one) for one in S[:3]],
        "numbered": [catalog.numbered(one, number) for one in S[:3] for number in ("1.0.0", "1.0")],
        "next": [catalog.next_version(one) for one in S[:3]],
        "matching": [catalog.matching(query) for query in queries],
        "resolved": [catalog.resolve(query) for query in queries],
        "kept": (catalog.artifacts, catalog.storages, catalog.features, catalog.invalid),
        "numbers": [catalog.storage_number(url) for url in ("cats", "dogs")],
        "ledger": (ledger.lists, ledger.relocations, ledger.last_condemnation, sorted(ledger.hold_ids)),
        "unread": dict(ledger.unread_lists),
        "packs": None if ledger.unread_lists else (dict(ledger.condemned), ledger.holds),
    }


@settings(max_examples=150, deadline=None)
@given(st.lists(st.tuples(small_worlds(), st.booleans()), max_size=25))
def test_a_state_over_the_rows_of_an_earlier_one_says_what_the_whole_fold_says(entries):
    whole, kept = Catalog(), Catalog()
    for slot, (entry, keep) in enumerate(entries):
        whole.apply(slot, entry)
        if keep:
            kept = Catalog(base=RowsBase(kept.rows()), head=slot)
        kept.apply(slot, entry)
    assert all_that_it_says(kept) == all_that_it_says(whole)
    assert list(kept.rows()) == list(whole.rows())


def test_what_is_kept_is_raised_in_number_when_it_changes():
    """Whoever changes what `apply` does, or what rows are, finds this failing: raise `STATE`, accept the new hash."""
    entries = [
        opening(1, tags=("a", "c"), metadata={"m": "x", "b": blob(1)}, description="d"),
        following(2, "1.1-rc.2", parents=(V[1],)),
        opening(3, series=1),
        opening(4, "2", series=2, name="dogs"),
        other(TagsEntry, version=V[2], add=("b",), remove=()),
        other(TagsEntry, version=V[1], add=(), remove=("a",)),
        other(PublishEntry, version=V[2]),
        other(ArchiveEntry, version=V[4], archived=True),
        other(DescribeEntry, version=V[2], description="e"),
        other(MetadataEntry, version=V[2], name="m", value="y"),
        other(MoveEntry, series=S[2], project="", name="mice"),
        other(HoldEntry, hold=V[9], packs=(PackRow(0, V[3]),)),
        other(CondemnedEntry, packs=(PackRow(1, V[3]),)),
        other(RepackEntry, packs=(PackRow(0, V[5]),), table=blob(3)),
        other(ArtifactEntry, task="t", name="n", blob=blob(4)),
        other(StorageEntry, number=1, url="s3://b/x"),
        other(FeatureEntry, name="f", operations=("gc",)),
        following(5, "1.2", parents=(V[1], V[2])),
        other(DeleteEntry, versions=(V[5],)),
        following(6, "1.1-rc.2"),
    ]
    rows = b"".join(key + b"=" + value + b";" for key, value in fold(*entries).rows())
    assert (STATE, hash32(rows).hex()[:16]) == (1, "da3b37377dab3df7")
