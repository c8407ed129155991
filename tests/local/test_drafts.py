"""Drafts: a journal whose fold is the state, whoever reads it and wherever it was torn."""

import os
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dataset_store.core.entries import Changes, make_entries
from dataset_store.core.paths import PathKey
from dataset_store.errors import Conflict, CorruptObject, DatasetNotFound, DiskFull, StorageFailed
from dataset_store.local.draft_records import Committing, Labels, Opened, Output, Source
from dataset_store.local.drafts import Draft


def opened() -> Opened:
    return Opened("00" * 16, "11" * 16, "p", "d", None, [], None, 1)


def rows(keys, sizes=None):
    keys = sorted(keys)
    count = len(keys)
    sizes = np.array(sizes or [1] * count, np.uint64)
    return make_entries([PathKey(key) for key in keys], np.ones(count, np.uint8), sizes)


def source(name: bytes) -> Source:
    return Source(b"/" + name, PathKey(b""), {})


def create(tmp_path) -> Draft:
    return Draft.create(str(tmp_path / "drafts" / "one"), opened(), Labels(["t"], "text"), Output(None))


def state(draft: Draft):
    entries = draft.changes.entries
    roots = [each.root for each in draft.sources_of(draft.pending().keys)]
    return (entries.keys, entries.sizes.tolist(), draft.changes.removed, roots, draft.labels, draft.committing)


CALLS = st.lists(
    st.tuples(st.sets(st.sampled_from([b"a", b"b", b"c", b"d"])), st.sets(st.sampled_from([b"a", b"b", b"x"]))),
    max_size=6,
)


@given(calls=CALLS)
@settings(max_examples=60)
def test_a_draft_read_back_is_the_draft_that_was_changed(calls, tmp_path_factory):
    draft = create(tmp_path_factory.mktemp("draft"))
    latest: dict[bytes, bytes] = {}
    for number, (added, removed) in enumerate(calls):
        gone = sorted(PathKey(key) for key in removed - added)
        draft.change(Changes(rows(added), gone), source(b"%d" % number))
        latest = {key: root for key, root in latest.items() if key not in removed}
        latest |= {key: b"/%d" % number for key in added}
    assert state(Draft.load(draft.directory)) == state(draft)
    found = zip(draft.pending().keys, draft.sources_of(draft.pending().keys), strict=True)
    assert {key: each.root for key, each in found} == latest


def test_a_journal_torn_anywhere_in_its_last_record_is_the_draft_before_that_call(tmp_path):
    draft = create(tmp_path)
    draft.change(Changes(rows([b"a"]), []), source(b"first"))
    before, end = state(draft), os.path.getsize(draft.path)
    draft.change(Changes(rows([b"%03d" % number for number in range(50)]), [PathKey(b"a")]), source(b"second"))
    after = state(draft)
    whole = Path(draft.path).read_bytes()
    for cut in range(end, len(whole)):
        with open(draft.path, "wb") as file:
            file.write(whole[:cut])
        assert state(Draft.load(draft.directory)) == before
    sectors = range(end - end % 512 + 512, len(whole), 512)
    assert len(sectors) > 2
    for cut in sectors:  # the length is there, and the sectors behind never came
        with open(draft.path, "wb") as file:
            file.write(whole[:cut] + bytes(len(whole) - cut))
        assert state(Draft.load(draft.directory)) == before
    with open(draft.path, "wb") as file:
        file.write(whole)
    assert state(Draft.load(draft.directory)) == after


def test_a_torn_record_is_cut_off_by_the_next_call(tmp_path):
    draft = create(tmp_path)
    with open(draft.path, "ab") as file:
        file.write(b"\x07\0\0")
    again = Draft.load(draft.directory)
    again.change(Changes(rows([b"a"]), []), source(b"first"))
    assert Draft.load(draft.directory).changes.entries.keys == [b"a"]


def test_damage_before_the_last_record_is_an_error_that_names_the_draft(tmp_path):
    draft = create(tmp_path)
    ends = [os.path.getsize(draft.path)]
    for key in (b"a", b"b"):
        draft.change(Changes(rows([key]), []), source(key))
        ends.append(os.path.getsize(draft.path))
    whole = Path(draft.path).read_bytes()
    for begin, end in pairwise(ends[:2]):
        for at in range(begin, end):
            with open(draft.path, "wb") as file:
                file.write(whole[:at] + bytes([whole[at] ^ 0x10]) + whole[at + 1 :])
            with pytest.raises(CorruptObject, match="one"):
                Draft.load(draft.directory)


def test_a_change_of_another_process_is_not_passed_over(tmp_path):
    draft = create(tmp_path)
    other = Draft.load(draft.directory)
    other.change(Changes(rows([b"a"]), []), source(b"first"))
    assert not draft.is_current()
    with pytest.raises(Conflict, match="Another process has changed"):
        draft.change(Changes(rows([b"b"]), []), source(b"second"))
    assert Draft.load(draft.directory).changes.entries.keys == [b"a"]


@pytest.mark.parametrize("shorter", [0, 1])
def test_a_journal_that_lost_what_this_process_has_seen_is_not_written_to(tmp_path, shorter):
    draft = create(tmp_path)
    draft.change(Changes(rows([b"a"]), []), source(b"first"))
    os.truncate(draft.path, 0 if not shorter else os.path.getsize(draft.path) - 1)
    with pytest.raises(Conflict):
        draft.change(Changes(rows([b"b"]), []), source(b"second"))


def test_a_draft_whose_commit_may_have_been_sent_takes_no_change(tmp_path):
    draft = create(tmp_path)
    draft.append(Committing())
    for change in (lambda: draft.change(Changes(rows([b"a"]), [])), lambda: draft.relabel(Labels([], None))):
        with pytest.raises(Conflict, match="being finalized"):
            change()
    draft.append(Committing(active=False))
    draft.relabel(Labels(["later"], None))
    assert Draft.load(draft.directory).labels.tags == ["later"]


def test_a_draft_whose_first_record_never_came_is_none(tmp_path):
    draft = create(tmp_path)
    os.truncate(draft.path, 10)
    with pytest.raises(DatasetNotFound):
        Draft.load(draft.directory)
    draft.discard()
    with pytest.raises(DatasetNotFound):
        Draft.load(draft.directory)


def test_a_header_of_zeros_before_the_last_record_is_no_end(tmp_path):
    draft = create(tmp_path)
    at = os.path.getsize(draft.path)
    for key in (b"a", b"b"):
        draft.change(Changes(rows([key]), []), source(key))
    whole = bytearray(Path(draft.path).read_bytes())
    whole[at : at + 24] = bytes(24)
    Path(draft.path).write_bytes(whole)
    with pytest.raises(CorruptObject):
        Draft.load(draft.directory)


def test_a_change_that_could_not_be_made_durable_is_not_there(tmp_path, monkeypatch):
    draft = create(tmp_path)

    def full(_descriptor):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(DiskFull):
            draft.change(Changes(rows([b"a"]), []), source(b"first"))
    assert Draft.load(draft.directory).changes.entries.keys == []
    draft.change(Changes(rows([b"b"]), []), source(b"second"))
    assert Draft.load(draft.directory).changes.entries.keys == [b"b"]


def test_a_draft_is_not_lost_with_the_folders_that_were_made_for_it(tmp_path, monkeypatch):
    flushed = []
    fsync = os.fsync

    def noted(descriptor):
        flushed.append(Path(f"/proc/self/fd/{descriptor}").readlink())
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", noted)
    directory = tmp_path / "own" / "drafts" / "store" / "one"
    Draft.create(str(directory), opened(), Labels([], None), Output(None))
    assert {tmp_path, tmp_path / "own", *directory.parents[:2], directory} <= set(flushed)


def test_a_draft_behind_which_a_broken_off_call_left_something_can_be_finalized(tmp_path):
    draft = create(tmp_path)
    with open(draft.path, "ab") as file:
        file.write(b"\x07\0\0")
    again = Draft.load(draft.directory)
    with again.finalizing():
        again.append(Committing())
    assert Draft.load(draft.directory).committing


@pytest.mark.parametrize(("number", "kind"), [(24, StorageFailed), (28, DiskFull), (5, StorageFailed)])
def test_a_draft_that_cannot_be_locked_says_why(tmp_path, monkeypatch, number, kind):
    draft = create(tmp_path)

    def refused(path, *_arguments, **_named):
        raise OSError(number, os.strerror(number), path)

    with monkeypatch.context() as patch:
        patch.setattr(os, "open", refused)
        with pytest.raises(kind), draft.finalizing():
            pass
        with pytest.raises(kind):
            draft.append(Committing())


def test_one_process_at_a_time_finalizes_a_draft(tmp_path):
    draft, other = create(tmp_path), Draft.load(str(tmp_path / "drafts" / "one"))
    with draft.finalizing():
        with pytest.raises(Conflict, match="is finalizing"), other.finalizing():
            pass
        draft.append(Committing())
    with pytest.raises(Conflict, match="has changed"), other.finalizing():
        pass
    draft.discard()
    with pytest.raises(DatasetNotFound), other.finalizing():
        pass


def test_a_draft_that_is_gone_has_no_sources(tmp_path):
    draft = create(tmp_path)
    for key in (b"a", b"b"):
        draft.change(Changes(rows([key]), []), source(key))
    draft.discard()
    with pytest.raises(DatasetNotFound):
        list(draft.sources_of(draft.pending().keys))


def test_a_content_of_which_no_call_says_where_it_lies_is_told(tmp_path):
    draft = create(tmp_path)
    draft.change(Changes(rows([b"a\0b"]), []))
    with pytest.raises(CorruptObject, match="where 'a/b' was added from"):
        list(draft.sources_of(draft.pending().keys))
    assert list(draft.sources_of([])) == []
