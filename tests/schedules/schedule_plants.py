"""Faults planted in the code of commit, gc and repack, each by replacing one function: the schedules must find it."""

from contextlib import contextmanager
from unittest import mock

from msgspec.structs import replace

from dataset_store.core import relocation
from dataset_store.dataset.drafts import committing
from dataset_store.dataset.uploads import placing, uploading
from dataset_store.errors import CommitOutcomeUnknown, ObjectMissing
from dataset_store.local.reading import content_id_at
from dataset_store.storage import collecting, log, repacking
from dataset_store.storage.log import Committed, Log
from dataset_store.storage.log_reader import Position
from dataset_store.storage.pack_reader import PackReader


def condemned_not_checked():
    return mock.patch.object(committing, "still_stands", return_value=True)


@contextmanager
def source_not_checked():
    """A file that changed since is sent for what it was."""
    sources = placing._sources

    def as_they_are(*arguments):
        for one in sources(*arguments):
            yield replace(one, content_id=content_id_at(one.path) or one.content_id)

    with (
        mock.patch.object(uploading, "can_be_read", lambda _, rows: rows.kinds == rows.kinds),
        mock.patch.object(placing, "_sources", as_they_are),
    ):
        yield


def a_lost_slots_winner_is_not_subtracted():
    """gc appends the list that it computed for its first slot."""
    first, survey = {}, collecting.survey

    def once(store, listed, *arguments, **options):
        if id(listed) not in first:
            first[id(listed)] = (listed, survey(store, listed, *arguments, **options))
        return first[id(listed)][1]

    return mock.patch.object(collecting, "survey", once)


@contextmanager
def a_repacks_new_pack_is_not_live():
    def as_named(store, _standing, reached):
        return reached.at(store.catalog.catalog)

    with mock.patch.object(collecting, "live_extents", as_named):
        yield


def relocation_rows_are_not_merged():
    return mock.patch.object(relocation, "_forwarded", lambda moved, _table, _staying: moved)


def a_reader_retries_once():
    def current(self, read):
        try:
            return read()
        except ObjectMissing:
            if self._whereabouts is None or not self._whereabouts.newer():
                raise
            return read()

    return mock.patch.object(PackReader, "_current", current)


def read_back_is_by_id_alone():
    return mock.patch.object(committing, "_require_same")


def a_slot_is_skipped():
    """Where a slot's fate is unknown the next one is taken."""
    append = Log.append

    def skipping(self, entry, position):
        try:
            return append(self, entry, position)
        except CommitOutcomeUnknown:
            beyond = Position(position.slot + 1, position.prev)
            return append(self, entry, beyond)

    return mock.patch.object(Log, "append", skipping)


def an_unknown_outcome_is_taken_for_success():
    append = Log.append

    def trusting(self, entry, position):
        try:
            return append(self, entry, position)
        except CommitOutcomeUnknown:
            data = log.encode_entry(log.with_prev(entry, position.prev))
            return Committed(log.read_record(self._name, position, data, known=True))

    return mock.patch.object(Log, "append", trusting)


def copies_of_a_repack_are_not_made_again():
    """A repack keeps copies in packs that were condemned before its entry."""
    state = repacking._state

    def blind(store, keeper):
        found = state(store, keeper)
        return replace(found, standing=replace(found.standing, condemned=frozenset()))

    return mock.patch.object(repacking, "_state", blind)


PLANTS = [
    condemned_not_checked,
    source_not_checked,
    a_lost_slots_winner_is_not_subtracted,
    a_repacks_new_pack_is_not_live,
    relocation_rows_are_not_merged,
    a_reader_retries_once,
    read_back_is_by_id_alone,
    a_slot_is_skipped,
    an_unknown_outcome_is_taken_for_success,
    copies_of_a_repack_are_not_made_again,
]
