"""What can be changed of final versions: published, archived, described, renamed, moved, deleted; and searched."""

import re
from datetime import UTC, datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dataset_store import Dataset
from dataset_store.core.catalog import Catalog
from dataset_store.core.log_entries import SeriesName
from dataset_store.dataset import workspace as workspaces
from dataset_store.dataset.catalog import changing
from dataset_store.errors import (
    Conflict,
    DatasetNotFound,
    InvalidRequest,
    NotFinal,
    PathNotFound,
    VersionExists,
    VersionIsFinal,
)
from dataset_store.testing.folders import read, write
from dataset_store.testing.log_entries import id_hex, version_entry


def version(home, files=None, **create) -> Dataset:
    dataset = Dataset.create(**({"dataset_name": "d", "dataset_project": "p"} | create))
    if files is not None:
        dataset.sync_folder(write(home / f"in-{dataset.id}", files))
    dataset.finalize(auto_upload=True)
    return dataset


def entries_in_the_log(home) -> int:
    return len(list((home / "store" / "log" / "catalog").iterdir()))


# --- one version -----------------------------------------------------------------------------------------------------


def test_a_version_is_published_once(home):
    one = version(home, {"a": b"1"})
    assert one.status == "completed"
    with pytest.raises(DatasetNotFound, match="been published"):
        Dataset.get(dataset_name="d", only_published=True)
    assert one.publish()
    before = entries_in_the_log(home)
    assert one.publish()
    assert entries_in_the_log(home) == before
    assert one.status == "published"
    assert Dataset.get(dataset_name="d", only_published=True).id == one.id


def test_a_draft_is_not_published_nor_archived(home):
    draft = Dataset.create(dataset_name="d")
    assert draft.status == "in_progress"
    for call in (draft.publish, draft.archive, draft.unarchive):
        with pytest.raises(NotFinal):
            call()
    assert draft.publish(raise_on_error=False) is False


def test_an_archived_version_is_found_by_id_alone(home):
    old, new = version(home, {"a": b"1"}, dataset_tags=["t"]), version(home, {"a": b"2"}, dataset_tags=["t"])
    new.archive()
    assert Dataset.get(dataset_name="d").id == old.id
    assert Dataset.get(dataset_tags="t").id == old.id
    assert Dataset.get(dataset_name="d", include_archived=True).id == new.id
    assert read(Dataset.get(new.id).get_local_copy()) == {"a": b"2"}
    new.unarchive()
    assert Dataset.get(dataset_name="d").id == new.id


def test_a_description_can_be_changed_before_and_after_finalize(home):
    draft = Dataset.create(dataset_name="d", description="first", dataset_tags=["t"])
    assert draft.description == "first"
    draft.set_description("second")
    assert draft.tags == ["t"]
    draft.finalize()
    assert Dataset.get(draft.id).description == "second"
    draft.set_description("")
    assert Dataset.get(draft.id).description == ""
    with pytest.raises(InvalidRequest):
        draft.set_description("x" * 100_000)


def test_a_draft_can_be_given_a_version_number(home):
    version(home)
    draft = Dataset.create(dataset_name="d", dataset_project="p", dataset_tags=["t"], description="text")
    assert draft.version == "1.0.1"
    draft.version = "2.0.0"
    assert (draft.version, draft.tags, draft.description) == ("2.0.0", ["t"], "text")
    with pytest.raises(VersionExists):
        draft.version = "1.0.0"
    draft.finalize()
    assert Dataset.get(dataset_name="d").version == "2.0.0"
    with pytest.raises(VersionIsFinal):
        draft.version = "3.0.0"


def test_a_copy_is_compared_with_the_version_by_content_or_by_size(home):
    one = version(home, {"a": b"1", "d/b": b"22", "c": b"3"})
    assert one.verify_dataset_hash() == []
    copy = one.get_mutable_local_copy(home / "copy")
    write(home / "copy", {"a": b"x", "more": b"not looked at"})
    (home / "copy" / "d" / "b").unlink()
    assert one.verify_dataset_hash(copy) == ["a", "d/b"]
    assert one.verify_dataset_hash(copy, skip_hash=True) == ["d/b"]
    with pytest.raises(PathNotFound):
        one.verify_dataset_hash(home / "missing")


# --- names -----------------------------------------------------------------------------------------------------------


def test_a_renamed_dataset_keeps_its_versions_and_ids(home):
    first = version(home, {"a": b"1"})
    second = version(home, {"a": b"2"}, parent_datasets=[first])
    Dataset.rename("cats", "p", "d")
    assert (first.name, second.name) == ("cats", "cats")
    assert Dataset.get(dataset_project="p", dataset_name="cats").id == second.id
    with pytest.raises(DatasetNotFound):
        Dataset.get(dataset_project="p", dataset_name="d")
    Dataset.move_to_project("q/r", "p", "cats")
    assert Dataset.get(dataset_project="q/r").id == second.id
    assert version(home, {"a": b"3"}, dataset_name="cats", dataset_project="q/r").version == "1.0.2"
    assert version(home, {"a": b"3"}).version == "1.0.0"  # the old name is free


def test_a_dataset_can_not_take_the_name_of_another(home):
    version(home)
    version(home, dataset_name="e")
    before = entries_in_the_log(home)
    with pytest.raises(VersionExists, match="p/e"):
        Dataset.rename("e", "p", "d")
    with pytest.raises(DatasetNotFound, match="p/x"):
        Dataset.rename("y", "p", "x")
    with pytest.raises(InvalidRequest):
        Dataset.rename("", "p", "d")
    Dataset.rename("d", "p", "d")
    assert entries_in_the_log(home) == before


def test_of_two_machines_that_take_one_name_the_second_is_refused(home, another_machine):
    version(home)
    version(home, dataset_name="e")
    behind = workspaces.open_workspace()
    behind.refresh()
    another_machine()
    Dataset.rename("f", "p", "e")
    with pytest.raises(VersionExists):
        changing.move_series(behind, "p", "d", to_name="f")
    changing.move_series(behind, "p", "d", to_name="e")


# --- squashing -------------------------------------------------------------------------------------------------------


def packs_bytes(home):
    return sum(path.stat().st_size for path in (home / "store" / "packs").rglob("*") if path.is_file())


def test_one_version_is_squashed_without_storing_anything_but_its_entry(home):
    parent = version(home, {"a": b"1" * 100_000, "b": b"2"})
    child = version(home, {"a": b"1" * 100_000, "c": b"3"}, parent_datasets=[parent])
    before = packs_bytes(home)
    squashed = Dataset.squash("all", [child])
    assert packs_bytes(home) == before
    assert (squashed.project, squashed.name, squashed.version) == ("p", "all", "1.0.0")
    assert squashed.get_dependency_graph() == {squashed.id: []}
    assert squashed.list_added_files() == squashed.list_files() == ["a", "c"]
    Dataset.delete(child.id)
    Dataset.delete(parent.id)
    assert read(squashed.get_local_copy()) == {"a": b"1" * 100_000, "c": b"3"}


def test_several_versions_are_squashed_by_the_rule_of_merging(home):
    base = version(home, {"a": b"1", "b": b"2", "c": b"3"})
    without_a = version(home, {"b": b"2", "c": b"3", "d": b"4"}, parent_datasets=[base])
    changed_c = version(home, {"a": b"1", "b": b"2", "c": b"33"}, parent_datasets=[base])
    merged = Dataset.create(dataset_name="m", parent_datasets=[without_a, changed_c])
    squashed = Dataset.squash("all", dataset_ids=[without_a.id, changed_c])
    assert read(squashed.get_local_copy()) == {"b": b"2", "c": b"33", "d": b"4"}
    assert merged.list_files() == squashed.list_files()
    assert Dataset.list_datasets(ids=[squashed.id])[0]["status"] == "completed"


def test_datasets_are_squashed_by_name_and_left_open_on_request(home):
    version(home, {"a": b"1"})
    version(home, {"a": b"2"})
    version(home, {"b": b"3"}, dataset_name="e")
    draft = Dataset.squash("all", dataset_project_name_pairs=[("p", "d"), ("p", "e")], close_squashed_dataset=False)
    assert not draft.is_final()
    draft.add_files(write(home / "more", {"x": b"9"}))
    draft.finalize(auto_upload=True)
    assert read(draft.get_local_copy()) == {"a": b"2", "b": b"3", "x": b"9"}


def test_what_can_not_be_squashed_is_refused(home):
    draft = Dataset.create(dataset_name="d")
    with pytest.raises(NotFinal):
        Dataset.squash("all", [draft])
    for asked in ({}, {"dataset_ids": ["x"], "dataset_project_name_pairs": [("p", "d")]}):
        with pytest.raises(InvalidRequest):
            Dataset.squash("all", **asked)
    with pytest.raises(DatasetNotFound):
        Dataset.squash("all", ["0" * 32])


# --- deleting --------------------------------------------------------------------------------------------------------


def test_a_parent_is_deleted_only_by_force_and_its_child_is_read_as_before(home, another_machine):
    parent = version(home, {"a": b"1" * 100_000, "b": b"2"})
    child = version(home, {"a": b"1" * 100_000, "b": b"3"}, parent_datasets=[parent])
    with pytest.raises(Conflict, match=child.id):
        Dataset.delete(parent.id)
    Dataset.delete(parent.id, force=True)
    another_machine()
    with pytest.raises(DatasetNotFound):
        Dataset.get(parent.id)
    found = Dataset.get(dataset_name="d")
    assert found.id == child.id
    assert read(found.get_local_copy()) == {"a": b"1" * 100_000, "b": b"3"}
    assert found.list_modified_files() == ["b"]
    assert list(found.get_dependency_graph()) == [child.id, parent.id]
    with pytest.raises(DatasetNotFound):
        Dataset.create(parent_datasets=[parent.id])


def test_a_parent_can_be_deleted_once_its_children_are(home):
    parent = version(home, {"a": b"1"})
    child = version(home, {"a": b"2"}, parent_datasets=[parent])
    Dataset.delete(child.id)
    Dataset.delete(parent.id)
    assert Dataset.list_datasets() == []
    with pytest.raises(DatasetNotFound):
        Dataset.delete(parent.id)


def test_a_child_that_another_machine_made_meanwhile_protects_its_parent(home, another_machine):
    parent = version(home, {"a": b"1"})
    behind = workspaces.open_workspace()
    behind.refresh()
    another_machine()
    version(home, {"a": b"2"}, parent_datasets=[parent.id])
    with pytest.raises(Conflict):
        changing.delete_versions(behind, lambda catalog: [catalog.version(parent.id)], force=False)
    assert Dataset.get(parent.id).is_final()


def test_by_name_one_version_is_deleted_or_all_of_them(home, monkeypatch):
    monkeypatch.setattr(changing, "_MOST_IDS", 2)
    ids = [version(home, dataset_version=f"1.{number}").id for number in range(5)]
    other = version(home, dataset_name="e", parent_datasets=[ids[0]])
    with pytest.raises(InvalidRequest, match="5 versions"):
        Dataset.delete(dataset_project="p", dataset_name="d")
    Dataset.delete(dataset_project="p", dataset_name="d", dataset_version="1.4")
    with pytest.raises(InvalidRequest, match="force"):
        Dataset.delete(dataset_project="p", dataset_name="d", entire_dataset=True)
    assert len(Dataset.list_datasets()) == 5
    Dataset.delete(dataset_project="p", dataset_name="d", entire_dataset=True, force=True)
    assert [row["id"] for row in Dataset.list_datasets()] == [other.id]


@pytest.mark.parametrize("asked", [{}, {"entire_dataset": True, "force": True}, {"dataset_version": "1.0.0"}])
def test_without_a_name_no_dataset_of_a_project_is_deleted(home, asked):
    version(home, dataset_name="d")
    version(home, dataset_name="e")
    with pytest.raises(InvalidRequest, match="No dataset is named"):
        Dataset.delete(dataset_project="p", **asked)
    with pytest.raises(InvalidRequest, match="No dataset is named"):
        Dataset.delete(dataset_project="p", dataset_name="", **asked)
    assert len(Dataset.list_datasets()) == 2


def test_datasets_of_several_projects_are_never_deleted_at_once(home):
    version(home, dataset_project="p")
    version(home, dataset_project="q")
    for asked in ({}, {"entire_dataset": True, "force": True}):
        with pytest.raises(Conflict, match="'p', 'q'"):
            Dataset.delete(dataset_name="d", **asked)
    assert len(Dataset.list_datasets()) == 2
    Dataset.delete(dataset_project="q", dataset_name="d", entire_dataset=True, force=True)
    assert [row["project"] for row in Dataset.list_datasets()] == ["p"]


def test_one_id_is_as_good_as_a_list_of_one(home):
    first = version(home, {"a": b"1"})
    for parent in (first.id, first, [first.id], [first]):
        child = Dataset.create(parent_datasets=parent)
        assert child.get_dependency_graph()[child.id] == [first.id]
        child.discard()
    for asked in (first.id, first, [first]):
        assert Dataset.squash("all", asked).list_files() == ["a"]
    assert [row["id"] for row in Dataset.list_datasets(ids=first.id)] == [first.id]


def test_a_draft_has_the_number_that_it_would_get_now(home):
    version(home, dataset_version="3.0")
    draft = Dataset.create(dataset_name="d", dataset_project="p")
    (row,) = Dataset.list_datasets(ids=draft.id, only_completed=False)
    assert row["version"] == draft.version == "3.1"
    assert draft.log()[0].number == "3.1"
    assert str(draft.log()).startswith("*  p/d 3.1 (draft)  ")


def test_where_only_an_archived_version_matches_the_error_names_it(home):
    one = version(home)
    one.archive()
    with pytest.raises(DatasetNotFound, match=f"{one.id} has, and is archived"):
        Dataset.get(dataset_name="d")
    with pytest.raises(DatasetNotFound, match="List what there is"):
        Dataset.get(dataset_name="d", dataset_version="2.0")


def test_a_draft_is_deleted_by_its_id(home):
    draft = Dataset.create(dataset_name="d")
    Dataset.delete(draft.id)
    with pytest.raises(DatasetNotFound):
        Dataset.get(draft.id)


@pytest.mark.parametrize(
    "asked",
    [
        {},
        {"dataset_version": "1.0.0"},
        {"dataset_id": "x", "dataset_name": "d"},
    ],
)
def test_what_is_not_clear_deletes_nothing(home, asked):
    version(home)
    with pytest.raises(InvalidRequest):
        Dataset.delete(**asked)
    with pytest.raises(DatasetNotFound, match="the name 'x'"):
        Dataset.delete(dataset_name="x")
    assert len(Dataset.list_datasets()) == 1


def test_an_empty_id_is_no_id(home):
    version(home)
    with pytest.raises(InvalidRequest, match="Nothing was asked for"):
        Dataset.get(dataset_id="", dataset_project="", dataset_name="")
    with pytest.raises(InvalidRequest, match="empty"):
        Dataset.delete(dataset_id="")
    with pytest.raises(InvalidRequest, match="empty"):
        Dataset.delete(dataset_id="", dataset_name="d", force=True, entire_dataset=True)
    assert len(Dataset.list_datasets()) == 1


def test_settings_that_may_be_empty_and_a_number_beside_an_id_are_taken(home):
    one = version(home)
    found = Dataset.get(dataset_id="", dataset_project="", dataset_name=one.name, dataset_version="")
    assert found == Dataset.get(dataset_id=one.id, dataset_version=one.version) == one
    with pytest.raises(DatasetNotFound, match="not 7"):
        Dataset.get(dataset_id=one.id, dataset_version="7")


def test_a_store_that_is_not_there_yet_holds_no_datasets(home, caplog):
    assert Dataset.list_datasets() == []
    assert "no store" in caplog.text


def test_a_version_finalized_while_others_are_deleted_stays(home, monkeypatch):
    version(home)
    commit, made = changing.commit_entry, []

    def and_then_another(workspace, make):
        done = commit(workspace, make)
        if not made:
            made.append(version(home).id)
        return done

    monkeypatch.setattr(changing, "commit_entry", and_then_another)
    Dataset.delete(dataset_project="p", dataset_name="d")
    assert [row["id"] for row in Dataset.list_datasets()] == made


# --- searching and finding -------------------------------------------------------------------------------------------


def test_datasets_are_listed_with_what_they_are_called_the_last_first(home):
    one = version(home, dataset_project="a", dataset_name="cats", dataset_tags=["t"])
    two = version(home, dataset_project="a/b", dataset_name="big.cats", dataset_version="7")
    version(home, dataset_project="ab", dataset_name="dogs")
    draft = Dataset.create(dataset_project="a", dataset_name="cats", dataset_tags=["t"])
    two.publish()

    def names(**asked):
        return [f"{row['project']}/{row['name']}" for row in Dataset.list_datasets(**asked)]

    assert names() == ["ab/dogs", "a/b/big.cats", "a/cats"]
    assert names(dataset_project="a") == ["a/b/big.cats", "a/cats"]
    assert names(dataset_project="a", recursive_project_search=False) == ["a/cats"]
    assert names(partial_name="c.t") == ["a/b/big.cats", "a/cats"]
    assert names(partial_name=re.escape("g.c")) == ["a/b/big.cats"]
    assert names(tags="t") == names(tags=["__$all", "t"]) == ["a/cats"]
    assert names(ids=[one.id]) == names(ids=[one.id, one.id, two.id, "no such id"], partial_name="^c") == ["a/cats"]
    assert names(ids=[one.id, two.id], dataset_project="a/b") == ["a/b/big.cats"]
    assert names(ids=[two.id], tags="t") == names(ids=[]) == []
    assert names(tags=["-t"]) == ["ab/dogs", "a/b/big.cats"]
    assert names(only_completed=False, tags=["t"]) == ["a/cats", "a/cats"]
    two.archive()
    assert names(include_archived=False) == ["ab/dogs", "a/cats"]
    found = Dataset.list_datasets(ids=[two.id, draft.id], only_completed=False)
    assert [row["status"] for row in found] == ["in_progress", "published"]
    created = found[1].pop("created")
    assert isinstance(created, datetime)
    assert abs((datetime.now(UTC) - created).total_seconds()) < 600
    expected = {"name": "big.cats", "project": "a/b", "id": two.id, "tags": [], "version": "7", "status": "published"}
    assert found[1] == expected
    with pytest.raises(InvalidRequest, match="regular expression"):
        Dataset.list_datasets(partial_name="(")


def test_tags_find_a_version_with_operators(home):
    one = version(home, dataset_tags=["a", "b"])
    two = version(home, dataset_tags=["a"])
    assert Dataset.get(dataset_tags=["a", "b"]).id == two.id
    assert Dataset.get(dataset_tags=["__$all", "a", "b"]).id == one.id
    assert Dataset.get(dataset_name="d", dataset_tags=["-b"]).id == two.id
    assert Dataset.get(dataset_tags=["__$all", "a", "__$not", "b"]).id == two.id
    with pytest.raises(DatasetNotFound, match="all of the tags 'b', not 'a'"):
        Dataset.get(dataset_tags=["__$all", "b", "__$not", "a"])


def test_what_is_not_there_can_be_made_by_getting_it(home):
    made = Dataset.get(dataset_name="new", dataset_project="p", dataset_tags=["t"], auto_create=True)
    assert (made.name, made.project, made.tags, made.is_final()) == ("new", "p", ["t"], False)
    made.finalize()
    assert Dataset.get(dataset_name="new", dataset_project="p", auto_create=True).id == made.id
    with pytest.raises(DatasetNotFound):
        Dataset.get("0" * 32, auto_create=True)
    other = Dataset.get(dataset_name="other", dataset_tags=["__$all", "a", "-old"], auto_create=True)
    assert other.tags == ["a"]


def test_a_writable_copy_is_a_child_of_what_was_found(home):
    found = version(home, {"a": b"1"}, dataset_tags=["t"])
    child = Dataset.get(dataset_name="d", writable_copy=True)
    assert not child.is_final()
    assert (child.name, child.project, child.tags) == ("d", "p", ["t"])
    child.add_files(write(home / "more", {"b": b"2"}))
    child.finalize(auto_upload=True)
    assert child.list_files() == ["a", "b"]
    assert child.get_dependency_graph()[child.id] == [found.id]


def test_an_argument_that_get_does_not_know_is_refused(home):
    found = version(home)
    assert Dataset.get(found.id, _dont_populate_runtime_props=True).id == found.id
    with pytest.raises(InvalidRequest, match="dataset_nmae"):
        Dataset.get(dataset_nmae="d")


@given(
    st.lists(st.text("ab.-\n /$^", min_size=1, max_size=4), min_size=1, max_size=8, unique=True),
    st.text("ab.-\n /", max_size=3),
    st.sampled_from(["{}", "^{}", "{}$", "^{}$"]),
    st.booleans(),
)
@settings(max_examples=200)
def test_looking_for_plain_text_finds_what_the_expression_means(names, text, frame, escaped):
    from dataset_store.dataset.catalog.searching import _names

    catalog = Catalog()
    for number, name in enumerate(names):
        opens = SeriesName(project="p", name=name)
        catalog.apply(number, version_entry(number, series=id_hex(number), opens=opens))
    pattern = re.compile(frame.format(re.escape(text) if escaped else text))
    assert sorted(_names(catalog, pattern)) == sorted(name for name in names if pattern.search(name))


def test_a_plain_text_given_to_add_tags_is_a_tag_for_each_word(home):
    draft = Dataset.create(dataset_name="d", dataset_tags="two words")
    for final in (False, True):
        draft.add_tags("train  latest")
        draft.add_tags(["a b"])
        assert draft.tags == ["a b", "latest", "train", "two words"]
        with pytest.raises(InvalidRequest):
            draft.add_tags("")
        if not final:
            draft.tags = ["two words"]
            draft.finalize()


@pytest.mark.parametrize(("given", "kept"), [(2, "2"), (1.5, "1.5"), (" 1.0.0\n", "1.0.0")])
def test_a_version_number_may_be_a_number_and_have_spaces_around_it(home, given, kept):
    draft = Dataset.create(dataset_name="d")
    draft.version = given
    assert draft.version == kept
    draft.finalize()
    assert Dataset.get(draft.id).version == kept


def test_what_is_deleted_before_it_is_made_anew_may_not_be_there_yet(home, caplog):
    for _ in range(3):
        Dataset.delete(dataset_project="p", dataset_name="fresh", entire_dataset=True, force=True)
        Dataset.create("fresh", "p").finalize()
    assert [record.levelname for record in caplog.records].count("WARNING") == 1
    assert [row["version"] for row in Dataset.list_datasets(partial_name="fresh")] == ["1.0.0"]
    with pytest.raises(DatasetNotFound):
        Dataset.delete(dataset_project="p", dataset_name="none", force=True)
