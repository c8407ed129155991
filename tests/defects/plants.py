"""For each number of docs/defects.md a plant: it puts the defect, or what it does, back by patching the library.

A plant says what its test then fails with; by default with an assertion of its own.
"""

import logging
import os
import re
import secrets
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

import msgspec
import numpy as np
import pytest
from msgspec.structs import replace

from dataset_store import Dataset, StorageManager
from dataset_store.cli import drafting as cli_drafting
from dataset_store.core import catalog as core_catalog
from dataset_store.core.catalog import Catalog, Query
from dataset_store.core.diff import Difference
from dataset_store.core.digest import hash32
from dataset_store.core.entries import KIND_BITS, Changes, Entries, overlay
from dataset_store.core.kinds import Kind
from dataset_store.core.log_entries import VersionEntry
from dataset_store.core.packfile import pack_key
from dataset_store.core.paths import to_text
from dataset_store.core.tree import read_all
from dataset_store.dataset import dataset as facade
from dataset_store.dataset.catalog import changing, lineage, searching
from dataset_store.dataset.checks import verifying
from dataset_store.dataset.copies import copying, filling
from dataset_store.dataset.drafts import beginning, committing, drafting, linking
from dataset_store.dataset.entries import links, listing
from dataset_store.dataset.handle import Handle
from dataset_store.dataset.uploads import locating, placing, uploading
from dataset_store.dataset.uploads.locating import Located
from dataset_store.errors import (
    CorruptObject,
    DatasetNotFound,
    DatasetStoreError,
    InvalidRequest,
    NotFound,
    ObjectMissing,
    PathNotFound,
    StorageFailed,
    StoreUnreachable,
    UnsupportedFileType,
    VersionIsFinal,
)
from dataset_store.local import batches, current_draft, folder_writer
from dataset_store.local.chunk_index import ChunkIndex
from dataset_store.local.draft_records import Batch, Labels, Opened, Output
from dataset_store.local.drafts import Draft
from dataset_store.local.folder import Folder
from dataset_store.local.folder_writer import FolderWriter
from dataset_store.local.local_copies import LocalCopies
from dataset_store.local.settings import load_settings
from dataset_store.storage import remote_objects
from dataset_store.storage.pack_reader import PackReader
from dataset_store.storage.pack_writer import PackWriter
from dataset_store.storage.storages import normal_url
from dataset_store.storage.trees import NoKeeper, StoredNodes, root_of

__all__ = ["BY_ASSERTION", "PLANTS", "Plant"]

BY_ASSERTION = (AssertionError, pytest.fail.Exception)

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Plant:
    """How a defect is put back, and what its test fails with then."""

    put_back: Callable[[pytest.MonkeyPatch], None]
    fails_with: tuple[type[BaseException], ...]


PLANTS: dict[str, Plant] = {}


def plant(*numbers, fails_with=BY_ASSERTION):
    """Register a plant under its numbers."""
    kinds = fails_with if isinstance(fails_with, tuple) else (fails_with,)

    def register(put_back):
        for number in numbers:
            assert number not in PLANTS, number
            PLANTS[number] = Plant(put_back, kinds)
        return put_back

    return register


# --- finding versions ----------------------------------------------------------------------------------------------


@plant("D01", fails_with=DatasetNotFound)
def a_plain_text_is_taken_for_a_list_of_tags(monkeypatch):
    monkeypatch.setattr(facade, "labels", lambda tags: list(tags or ()))


@plant("D02")
def the_highest_number_wins_among_tagged_versions(monkeypatch):
    monkeypatch.setattr(Query, "by_tag", False)


@plant("D03", fails_with=DatasetNotFound)
def only_numbers_of_three_parts_are_found(monkeypatch):
    real = Query.accepts
    usual = re.compile(r"\d+\.\d+\.\d+")
    monkeypatch.setattr(Query, "accepts", lambda query, one: bool(usual.fullmatch(one.number)) and real(query, one))


@plant("D04")
def a_listing_ends_after_its_first_page(monkeypatch):
    real = searching.search
    monkeypatch.setattr(searching, "search", lambda *arguments: real(*arguments)[:10])


@plant("D05")
def a_listing_has_no_status(monkeypatch):
    real = searching.found_as_dict
    monkeypatch.setattr(
        searching, "found_as_dict", lambda row: {name: value for name, value in real(row).items() if name != "status"}
    )


# --- making versions -----------------------------------------------------------------------------------------------


@plant("D06", fails_with=InvalidRequest)
def there_must_be_a_task(monkeypatch):
    def refuse():
        raise InvalidRequest("There is no task.", "Begin one.")

    monkeypatch.setattr(beginning, "_producer", refuse)


@plant("D07")
def every_draft_takes_the_number_that_was_free_when_it_began(monkeypatch):
    monkeypatch.setattr(Catalog, "next_version", lambda *_: "1.0.0")

    def fold(catalog, slot, entry):
        if entry.opens is not None and catalog.series(entry.series) is None:
            catalog._open(slot, entry.series, entry.opens)
        catalog._admit(slot, entry, catalog.series(entry.series))

    monkeypatch.setitem(core_catalog._EFFECTS, VersionEntry, fold)


@plant("D08")
def a_failed_create_leaves_a_version(monkeypatch):
    real = beginning.begin

    def leave(workspace, new, squashed=()):
        left = real(workspace, replace(new, parents=(), output=None), ())
        uploading.upload_draft(workspace, left, show_progress=False)
        committing.finalize_draft(workspace, left)
        return real(workspace, new, squashed)

    monkeypatch.setattr(beginning, "begin", leave)


@plant("D09")
def a_child_goes_to_the_default_storage(monkeypatch):
    monkeypatch.setattr(beginning, "output_of", lambda *_: None)


def _without(kind):
    """Folders are read as if they held nothing of a kind."""

    def put_back(monkeypatch):
        real = drafting.read_folder

        def skipping(*arguments, **named):
            found = real(*arguments, **named)
            return replace(found, entries=found.entries.take((found.entries.kinds & KIND_BITS) != kind))

        monkeypatch.setattr(drafting, "read_folder", skipping)

    return put_back


plant("D10")(_without(Kind.DIRECTORY))
plant("D11")(_without(Kind.SYMLINK))


@plant("D12")
def what_cannot_be_kept_is_skipped(monkeypatch):
    real = drafting.read_folder

    def skipping(folder, *arguments, **named):
        try:
            return real(folder, *arguments, **named)
        except UnsupportedFileType:
            return Folder(os.fsencode(folder), Entries.empty(), {})

    monkeypatch.setattr(drafting, "read_folder", skipping)


@plant("D13")
def a_pattern_that_ends_with_a_slash_means_nothing(monkeypatch):
    real = drafting.matching

    def matching(paths, pattern, **named):
        return [False] * len(paths) if (pattern or "").endswith("/") else real(paths, pattern, **named)

    monkeypatch.setattr(drafting, "matching", matching)


@plant("D14")
def changes_of_a_draft_stay_in_memory(monkeypatch):
    def change(draft, changes, source=None):
        draft._fold(Batch.of(changes, source), draft._end, changes)

    monkeypatch.setattr(Draft, "change", change)


@plant("D15")
def every_sync_makes_a_draft_dirty(monkeypatch):
    real_sync, real_dirty = drafting.sync, Handle.is_dirty
    synced = set()

    def sync(workspace, draft, *arguments, **named):
        synced.add(draft.opened.id)
        return real_sync(workspace, draft, *arguments, **named)

    monkeypatch.setattr(drafting, "sync", sync)
    monkeypatch.setattr(Handle, "is_dirty", lambda one: real_dirty(one) or (not one.is_final() and one.id in synced))


@plant("D16")
def a_sync_of_which_nothing_is_new_or_gone_is_dropped(monkeypatch):
    real = drafting.sync

    def sync(*arguments, **named):
        found = real(*arguments, **named | {"dry_run": True})
        return real(*arguments, **named) if len(found.added) or len(found.removed) else found

    monkeypatch.setattr(drafting, "sync", sync)


@plant("D17")
def whatever_was_uploaded_is_copied(monkeypatch):
    upload, entries_of = uploading.upload_draft, filling.entries_of
    uploaded = Changes.none()

    def remembering(workspace, draft, **named):
        nonlocal uploaded
        report = upload(workspace, draft, **named)
        if not len(uploaded):
            uploaded = draft.changes
        return report

    monkeypatch.setattr(uploading, "upload_draft", remembering)
    monkeypatch.setattr(filling, "entries_of", lambda *arguments: overlay(entries_of(*arguments), uploaded))


@plant("D18", "D19", "D20")
def a_final_version_can_be_changed(monkeypatch):
    real = Handle._open_draft

    def open_draft(one, action):
        try:
            return real(one, action)
        except VersionIsFinal:
            workspace, final = one._workspace, one._final()
            opened = Opened(
                id=one.id,
                store=workspace.store_id,
                project=one.project,
                name=one.name,
                series=final.series,
                parents=list(final.entry.parents),
                base=final.entry.tree,
                created=0,
            )
            directory = os.path.join(workspace.drafts_directory, secrets.token_hex(16))
            one._held = Draft.create(directory, opened, Labels([], None), Output(None))
            return one._held

    monkeypatch.setattr(Handle, "_open_draft", open_draft)
    monkeypatch.setattr(cli_drafting, "draft_meant", lambda words: Dataset.get(words.id))


# --- storing -------------------------------------------------------------------------------------------------------


@plant("D21")
def equal_files_of_one_add_are_not_compared(monkeypatch):
    monkeypatch.setattr(locating, "_leads", lambda content_ids: np.arange(len(content_ids)))


@plant("D22", fails_with=CorruptObject)
def a_content_known_from_the_parent_is_looked_for_where_it_is_not(monkeypatch):
    real = Located.add_from

    def add_from(located, entries, condemned):
        segments = entries.segments
        real(located, replace(entries, segments=replace(segments, offset=segments.offset + np.uint32(1))), condemned)

    monkeypatch.setattr(Located, "add_from", add_from)


@plant("D23", "D24", "D25")
def nothing_that_is_stored_is_found(monkeypatch):
    monkeypatch.setattr(Located, "add_from", lambda *_: None)
    monkeypatch.setattr(placing, "earlier_chunks", lambda *_: {})
    monkeypatch.setattr(ChunkIndex, "find_many", lambda _index, ids, _avoid=(): [None] * len(ids))
    monkeypatch.setattr(ChunkIndex, "find_contents", lambda _index, ids: [None] * len(ids))


@plant("D26")
def the_entry_of_a_version_lists_its_files(monkeypatch):
    real = committing._entry

    def entry(catalog, draft, *arguments):
        listed = " ".join(to_text(key) for key in draft.changes.entries.keys)
        return msgspec.structs.replace(real(catalog, draft, *arguments), description=listed)

    monkeypatch.setattr(committing, "_entry", entry)


@plant("D27")
def each_change_of_a_draft_is_sent(monkeypatch):
    _send_state_with(monkeypatch, drafting, "_record")


def _send_state_with(monkeypatch, module, name):
    """Each call of a function, whose first argument is the workspace, also writes an object to the store."""
    real = getattr(module, name)

    def sending(workspace, *arguments, **named):
        workspace.store.backend.put(pack_key(secrets.token_bytes(16)), [b"state"])
        return real(workspace, *arguments, **named)

    monkeypatch.setattr(module, name, sending)


@plant("D28", fails_with=InvalidRequest)
def times_before_1980_are_refused(monkeypatch):
    real = drafting.read_folder

    def refusing(*arguments, **named):
        found = real(*arguments, **named)
        if (found.entries.mtimes < 315_532_800 * 10**9).any():
            raise InvalidRequest("There are times before 1980.", "Change them.")
        return found

    monkeypatch.setattr(drafting, "read_folder", refusing)


@plant("D29")
def exec_bits_and_times_are_lost(monkeypatch):
    real = FolderWriter.write_small

    def write_small(writer, keys, contents, executable, mtimes_ns):
        real(writer, keys, contents, [False] * len(keys), [time.time_ns()] * len(keys))

    monkeypatch.setattr(FolderWriter, "write_small", write_small)


@plant("D30")
def packs_that_could_not_be_put_count_as_sent(monkeypatch):
    real = PackWriter.flush

    def flush(writer):
        with suppress(StorageFailed):
            real(writer)
        writer._packs.clear()

    monkeypatch.setattr(PackWriter, "flush", flush)


def _ask_for_every_ancestor(workspace, version_id):
    """Read the trees of a version's ancestors from the store, whatever this machine keeps of them."""
    nodes = StoredNodes(workspace.store.packs, NoKeeper())
    for ancestor in lineage.dependency_graph(
        workspace.catalog, version_id, workspace.version(version_id).entry.parents
    ):
        read_all(root_of(workspace.version(ancestor).entry.tree), nodes)


@plant("D31")
def finalizing_reads_all_ancestors(monkeypatch):
    real = committing.finalize_draft

    def finalize_draft(workspace, draft):
        for parent in draft.opened.parents:
            _ask_for_every_ancestor(workspace, parent)
        real(workspace, draft)

    monkeypatch.setattr(committing, "finalize_draft", finalize_draft)


# --- parents -------------------------------------------------------------------------------------------------------


@plant("D32")
def only_the_first_parent_counts(monkeypatch):
    monkeypatch.setattr(beginning, "merged_parents", lambda *_: Changes.none())


def _entries_by_origin(entries, origins):
    """The rows that these versions introduced."""
    numbers = [number for number, origin in enumerate(entries.origin_ids) if origin.hex() in origins]
    return entries.take(np.isin(entries.origins, numbers))


@plant("D33")
def ancestors_far_up_are_not_fetched(monkeypatch):
    real = filling.fill

    def fill(workspace, version, *arguments, **named):
        near = list(lineage.dependency_graph(workspace.catalog, version.id, version.entry.parents))[:4]
        with pytest.MonkeyPatch.context() as patch:
            entries_of = filling.entries_of
            patch.setattr(filling, "entries_of", lambda *these: _entries_by_origin(entries_of(*these), near))
            return real(workspace, version, *arguments, **named)

    monkeypatch.setattr(filling, "fill", fill)


@plant("D34")
def parents_without_files_are_pruned(monkeypatch):
    real = Handle.get_dependency_graph

    def graph(one):
        used = {origin.hex() for origin in one._entries().origin_ids} | {one.id}
        found = {child: [parent for parent in parents if parent in used] for child, parents in real(one).items()}
        return {child: parents for child, parents in found.items() if child in used}

    monkeypatch.setattr(Handle, "get_dependency_graph", graph)


@plant("D35")
def removals_are_not_replayed(monkeypatch):
    def merged_parents(workspace, versions):
        nodes = workspace.store.nodes
        total = Entries.empty()
        for version in versions:
            total = overlay(total, Changes(read_all(root_of(workspace.base_of(version)), nodes), []))
        return Changes(total, [])

    monkeypatch.setattr(beginning, "merged_parents", merged_parents)


@plant("D36")
def squashing_fetches_the_versions(monkeypatch):
    real = Dataset.squash.__func__

    def squash(cls, dataset_name, dataset_ids=None, *arguments, **named):
        for version_id in dataset_ids or ():
            cls.get(version_id).get_local_copy()
        return real(cls, dataset_name, dataset_ids, *arguments, **named)

    monkeypatch.setattr(Dataset, "squash", classmethod(squash))


# --- reading -------------------------------------------------------------------------------------------------------


@plant("D37")
def whole_packs_are_fetched(monkeypatch):
    read = PackReader._read_places

    def read_places(reader, places):
        for pack in {place.pack for place in places}:
            reader._resolve(pack.storage).get_many([pack_key(pack.name)])
        return read(reader, places)

    monkeypatch.setattr(PackReader, "_read_places", read_places)


def _before_each_copy(monkeypatch, act):
    real = copying.local_copy

    def local_copy(workspace, version, *arguments):
        act(workspace, version.id)
        return real(workspace, version, *arguments)

    monkeypatch.setattr(copying, "local_copy", local_copy)


@plant("D38", "D39")
def reading_asks_for_every_ancestor(monkeypatch):
    _before_each_copy(monkeypatch, _ask_for_every_ancestor)


@plant("D40")
def only_sizes_are_compared(monkeypatch):
    real = verifying.verify_folder
    monkeypatch.setattr(
        verifying, "verify_folder", lambda *arguments, sizes_only=False: real(*arguments, sizes_only=True)
    )


@plant("D41", fails_with=PathNotFound)
def a_missing_file_ends_the_verification(monkeypatch):
    real = verifying.verify_folder

    def verify_folder(*arguments, **named):
        report = real(*arguments, **named)
        if report.missing:
            raise PathNotFound(f"There is nothing at {report.missing[0]!r}.", "Bring it back.")
        return report

    monkeypatch.setattr(verifying, "verify_folder", verify_folder)


@plant("D42")
def copies_can_be_written(monkeypatch):
    real = FolderWriter.__init__
    monkeypatch.setattr(FolderWriter, "__init__", lambda writer, root, **_: real(writer, root, read_only=False))


@plant("D43")
def a_mutable_copy_is_copied_from_the_cache(monkeypatch):
    real = copying.mutable_copy

    def mutable_copy(workspace, version, *arguments, **named):
        copying.local_copy(workspace, version)
        return real(workspace, version, *arguments, **named)

    monkeypatch.setattr(copying, "mutable_copy", mutable_copy)


# --- the cache -----------------------------------------------------------------------------------------------------


@plant("D44")
def only_a_number_of_copies_bounds_the_cache(monkeypatch):
    real = LocalCopies.__init__
    monkeypatch.setattr(LocalCopies, "__init__", lambda copies, directory, *_: real(copies, directory, 2**62, 100))


@plant("D45")
def locks_of_other_processes_do_not_count(monkeypatch):
    def remove(copies, copy_id):
        if copy_id in copies._held:
            return False
        os.unlink(copies._stamp_path(copy_id))
        copies._remove_folders(copy_id)
        return True

    monkeypatch.setattr(LocalCopies, "remove", remove)


@plant("D46")
def a_copy_points_into_that_of_its_parent(monkeypatch):
    def link(source, name, directory):
        os.symlink(source, name, dir_fd=directory)
        return True

    monkeypatch.setattr(batches, "_files", None)
    monkeypatch.setattr(folder_writer, "_link", link)


# --- deleting and renaming -----------------------------------------------------------------------------------------


@plant("D47")
def nobody_asks_for_children(monkeypatch):
    monkeypatch.setattr(changing, "_require_no_children", lambda *_: None)


@plant("D48", fails_with=ObjectMissing)
def a_delete_takes_what_children_need(monkeypatch):
    real = changing.delete_versions

    def delete_versions(workspace, choose, *, force):
        deleted = real(workspace, choose, force=force)
        trees = [root_of(workspace.version(version_id).entry.tree) for version_id in deleted]
        used = [pack for tree in trees for pack in read_all(tree, workspace.store.nodes).segments.packs]
        workspace.store.backend.delete_many([pack_key(pack.name) for pack in used])
        return deleted

    monkeypatch.setattr(changing, "delete_versions", delete_versions)


def _only_logged(monkeypatch, owner, name, *errors):
    """A class method that logs these errors and returns None."""
    real = getattr(owner, name).__func__

    def logging_only(cls, *arguments, **named):
        try:
            return real(cls, *arguments, **named)
        except errors as error:
            _log.info("%s", error)
            return None

    monkeypatch.setattr(owner, name, classmethod(logging_only))


@plant("D49")
def a_delete_that_is_not_clear_is_only_logged(monkeypatch):
    _only_logged(monkeypatch, Dataset, "delete", InvalidRequest)


@plant("D50")
def a_rename_that_fails_is_only_logged(monkeypatch):
    _only_logged(monkeypatch, Dataset, "rename", DatasetStoreError)


# --- external links ------------------------------------------------------------------------------------------------


@plant("D51")
def a_link_is_known_by_its_size_alone(monkeypatch):
    real = remote_objects._object
    monkeypatch.setattr(remote_objects, "_object", lambda *arguments: replace(real(*arguments), etag="any"))


@plant("D52")
def what_is_fetched_is_not_checked(monkeypatch):
    monkeypatch.setattr(
        links, "_fetch", lambda link, _content, _path, write: links.read_object(link.url, link.size, write)
    )


@plant("D53")
def a_source_that_cannot_be_reached_is_only_logged(monkeypatch):
    real = linking.add_links

    def add_links(*arguments, **named):
        try:
            return real(*arguments, **named)
        except (NotFound, StoreUnreachable) as error:
            _log.info("%s", error)
            return 0, Difference(*[Entries.empty()] * 4)

    monkeypatch.setattr(linking, "add_links", add_links)


@plant("D54")
def paths_are_cut_as_if_the_folder_ended_with_a_slash(monkeypatch):
    real = linking.find_objects

    def find_objects(url, **named):
        cut = 0 if url.endswith("/") else 1
        return [replace(one, name=one.name[cut:]) for one in real(url, **named)]

    monkeypatch.setattr(linking, "find_objects", find_objects)


@plant("D55")
def links_are_left_out_of_lists(monkeypatch):
    real = listing.paths_of

    def paths_of(entries, *arguments, **named):
        return real(entries.take((entries.kinds & KIND_BITS) != Kind.EXTERNAL), *arguments, **named)

    monkeypatch.setattr(listing, "paths_of", paths_of)


@plant("D56")
def each_link_is_sent_by_itself(monkeypatch):
    real = linking.add_links

    def add_links(workspace, *arguments, **named):
        matched, found = real(workspace, *arguments, **named)
        for key in found.added.keys:
            workspace.store.backend.put(pack_key(hash32(key)[:16]), [b"state"])
        return matched, found

    monkeypatch.setattr(linking, "add_links", add_links)


# --- elsewhere -----------------------------------------------------------------------------------------------------


@plant("D57")
def a_file_that_cannot_be_had_is_none(monkeypatch):
    _only_logged(monkeypatch, StorageManager, "get_local_copy", DatasetStoreError)


@plant("D58", fails_with=(ObjectMissing, StoreUnreachable))
def a_version_remembers_where_its_store_was(monkeypatch):
    monkeypatch.setattr(beginning, "_output", lambda *_: normal_url(load_settings().store))


@plant("D59")
def all_folders_remember_one_version(monkeypatch):
    monkeypatch.setattr(current_draft, "_path", lambda data, _folder: os.path.join(data, "current", "one"))


@plant("D60")
def every_error_ends_with_the_same_code(monkeypatch):
    waiting = [DatasetStoreError]
    while waiting:
        kind = waiting.pop()
        waiting += kind.__subclasses__()
        monkeypatch.setattr(kind, "exit_code", 1)


@plant("D61")
def each_file_of_a_copy_is_looked_at(monkeypatch):
    real = LocalCopies.find

    def find(copies, copy_id):
        found = real(copies, copy_id)
        for folder, _, names in os.walk(found.path) if found else ():
            for name in names:
                os.stat(os.path.join(folder, name))
        return found

    monkeypatch.setattr(LocalCopies, "find", find)
