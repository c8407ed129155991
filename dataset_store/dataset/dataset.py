"""`Dataset`: what users hold. A version being made (a draft of this machine), or a final one.

Names, arguments, defaults and return types are those of ClearML's `Dataset`. A method that would change a final version
raises before it touches anything.
"""

import logging
import os
from collections.abc import Iterable, Sequence

from dataset_store.core.catalog import Query, Version
from dataset_store.core.diff import Difference, diff, diff_entries
from dataset_store.core.entries import Entries
from dataset_store.core.tree import read_all
from dataset_store.dataset import drafting
from dataset_store.dataset.committing import finalize_draft
from dataset_store.dataset.copying import local_copy, mutable_copy
from dataset_store.dataset.labels import require_tags
from dataset_store.dataset.lineage import dependency_graph, merged_entries
from dataset_store.dataset.listing import FileEntry, file_entries, paths_of
from dataset_store.dataset.tagging import change_tags
from dataset_store.dataset.uploading import upload_draft
from dataset_store.dataset.workspace import Workspace, open_workspace
from dataset_store.errors import (
    DatasetNotFound,
    InvalidRequest,
    NotFinal,
    PathNotFound,
    PendingUploads,
    VersionIsFinal,
)
from dataset_store.local.drafts import Draft
from dataset_store.storage.trees import root_of

__all__ = ["Dataset"]

_log = logging.getLogger(__name__)


class Dataset:
    """One version of a dataset. Made by `create` or `get`, never directly."""

    __slots__ = ("_held", "_version_id", "_workspace")

    def __init__(self, workspace: Workspace, draft: Draft | None, version_id: str) -> None:
        self._workspace = workspace
        self._held = draft
        self._version_id = version_id

    # --- making and finding ------------------------------------------------------------------------------------

    @classmethod
    def create(
        cls,
        dataset_name: str | None = None,
        dataset_project: str | None = None,
        dataset_tags: Sequence[str] | None = None,
        parent_datasets: Sequence["str | Dataset"] | None = None,
        use_current_task: bool = False,
        dataset_version: str | None = None,
        output_uri: str | None = None,
        description: str | None = None,
    ) -> "Dataset":
        """Begin a new version. Nothing is written to the store before `upload`.

        Args:
            dataset_name: The dataset's name; by default the last parent's.
            dataset_project: The project; by default the last parent's, else none.
            dataset_tags: Tags that the version will carry from its first moment.
            parent_datasets: Versions, or their ids, whose entries it begins with; later ones win.
            use_current_task: Record the running task as the producer; outside any, a warning.
            dataset_version: Its version number; by default the next free one at finalize.
            output_uri: Not supported yet: the packs go into the store.
            description: Text kept with the version.

        Raises:
            DatasetNotFound, NotFinal: A parent is not there or not final.
            VersionExists: The version number is taken.
            InvalidRequest: No name is given or implied.
        """
        if output_uri is not None:
            raise InvalidRequest("output_uri is not supported yet.", "Leave it out: data goes into the store.")
        workspace = open_workspace(create=True)
        parents = [_id_of(parent) for parent in parent_datasets or ()]
        versions = [drafting.require_final(workspace, parent) for parent in parents]
        series = workspace.catalog.series(versions[-1].series) if versions else None
        name = drafting.require_name(dataset_name or (series.name if series else None))
        project = dataset_project if dataset_project is not None else (series.project if series else "")
        new = drafting.NewVersion(
            project,
            name,
            dataset_version,
            tuple(parents),
            tuple(_labels(dataset_tags)),
            description,
            use_current_task,
        )
        draft = drafting.begin(workspace, new)
        return cls(workspace, draft, draft.opened.id)

    @classmethod
    def get(
        cls,
        dataset_id: str | None = None,
        dataset_project: str | None = None,
        dataset_name: str | None = None,
        dataset_tags: Sequence[str] | str | None = None,
        only_completed: bool = False,
        only_published: bool = False,
        include_archived: bool = False,
        dataset_version: str | None = None,
    ) -> "Dataset":
        """Find a version.

        By id: without a request where this machine has seen it; a draft of this machine is found too. Else the
        version must match all that is given: with tags (any of them) the one finalized last, otherwise the one with
        the highest version number.

        Args:
            dataset_id: Excludes the project, name and version.
            dataset_project: The project.
            dataset_name: The name.
            dataset_tags: A tag or several.
            only_completed: Versions found by name are always final; with an id it excludes drafts.
            only_published: Only published versions.
            include_archived: Archived versions too.
            dataset_version: Exactly this version number.

        Raises:
            DatasetNotFound: Nothing matches.
            InvalidRequest: Nothing was asked for, or an id together with a name.
        """
        named = (dataset_project, dataset_name, dataset_version)
        if dataset_id is not None and any(part is not None for part in named):
            raise InvalidRequest("An id and a project, name or version were given.", "Give one or the other.")
        workspace = open_workspace()
        if dataset_id is not None:
            draft = None if only_completed else drafting.open_draft(workspace, dataset_id)
            if draft is None:
                _require_live(workspace.version(dataset_id))
            return cls(workspace, draft, dataset_id)
        tags = tuple(_labels(dataset_tags))
        if not tags and all(part is None for part in named):
            raise InvalidRequest("Nothing was asked for.", "Give an id, a project, a name or tags.")
        query = Query(
            project=dataset_project,
            name=dataset_name,
            version=dataset_version,
            tags=tags,
            only_published=only_published,
            include_archived=include_archived,
        )
        version = workspace.resolve(query)
        if version is None:
            raise DatasetNotFound(
                f"Could not find Dataset project/name/version ({dataset_project}, {dataset_name}, {dataset_version})"
                + (f" with tags {list(tags)}." if tags else "."),
                "List what there is with `dataset-store list --versions`; a draft is found by name once it is final.",
            )
        return cls(workspace, None, version.id)

    # --- what it is --------------------------------------------------------------------------------------------

    @property
    def id(self) -> str:
        """The version's id, 32 hex digits, the same before and after finalize."""
        return self._version_id

    @property
    def name(self) -> str:
        """The dataset's name, as it is now."""
        return self._draft.opened.name if self._draft else self._series_name()[1]

    @property
    def project(self) -> str:
        """The project, empty for none."""
        return self._draft.opened.project if self._draft else self._series_name()[0]

    @property
    def version(self) -> str:
        """The version number; of a draft without an explicit one, the number that it would get now."""
        if self._draft is None:
            return self._final().number
        opened = self._draft.opened
        if opened.version:
            return opened.version
        series = self._workspace.catalog.series_named(opened.project, opened.name)
        return self._workspace.catalog.next_version(series.id if series else None)

    @property
    def tags(self) -> list[str]:
        """The version's tags, sorted. Assigning replaces them, also after finalize."""
        if self._draft is not None:
            return list(self._draft.labels.tags)
        return sorted(self._workspace.version(self.id).tags)

    @tags.setter
    def tags(self, values: Sequence[str] | str) -> None:
        wanted = set(_labels(values))
        if self._draft is not None:
            drafting.relabel(self._draft, wanted)
            return
        require_tags(list(wanted))
        change_tags(self._workspace, self.id, lambda _now: frozenset(wanted))

    def add_tags(self, tags: Sequence[str] | str) -> None:
        """Add a tag or several, also after finalize; tags that others add meanwhile stay."""
        require_tags(_labels(tags))
        self._change_tags(set(_labels(tags)), set())

    def remove_tags(self, tags: Sequence[str] | str) -> None:
        """Remove a tag or several, also after finalize; tags that others add meanwhile stay."""
        self._change_tags(set(), set(_labels(tags)))

    def _change_tags(self, add: set[str], remove: set[str]) -> None:
        if self._draft is not None:
            self.tags = sorted((set(self.tags) | add) - remove)
        else:
            change_tags(self._workspace, self.id, lambda now: (now | add) - remove)

    def discard(self) -> None:
        """Forget a draft of this machine; what it uploaded is left to gc.

        Raises:
            VersionIsFinal: It is finalized.
        """
        self._open_draft("discard").discard()

    def is_final(self) -> bool:
        """Whether it is finalized."""
        return self._draft is None

    def is_dirty(self) -> bool:
        """Whether files were added or changed that are not uploaded yet."""
        return self._draft is not None and len(self._draft.pending()) > 0

    def get_dependency_graph(self) -> dict[str, list[str]]:
        """Every version of its lineage, itself first, with the ids of its parents."""
        return dependency_graph(self._workspace.catalog, self.id, self._parents())

    # --- changing ----------------------------------------------------------------------------------------------

    def add_files(
        self,
        path: str | os.PathLike[str],
        wildcard: str | Sequence[str] | None = None,
        local_base_folder: str | None = None,
        dataset_path: str | None = None,
        recursive: bool = True,
        verbose: bool = False,
        max_workers: int | None = None,
    ) -> int:
        """Add a file, or a folder's content, to the draft. Files that it already holds unchanged are skipped.

        Args:
            path: A file, which is added under its name, or a folder, whose content is added.
            wildcard: Only files that match it, or any of them.
            local_base_folder: Paths in the dataset are relative to this folder instead of `path`.
            dataset_path: The directory of the dataset to add to.
            recursive: Look into sub-folders.
            verbose: Log what was added and modified.
            max_workers: Accepted; the number of threads follows the machine.

        Returns:
            How many files were added; modified ones are not counted.

        Raises:
            PathNotFound, UnsupportedFileType, AccessDenied, FileChanged, InvalidPath: Nothing was added.
            VersionIsFinal: It is finalized.
        """
        draft = self._open_draft("add files to")
        source = os.fspath(path)
        if not os.path.lexists(source):
            raise PathNotFound(f"There is nothing at {source!r}.", "Give an existing file or folder.")
        inside = drafting.below_base(source, local_base_folder, dataset_path)
        wildcards = [wildcard] if isinstance(wildcard, str) else list(wildcard or ())
        found = drafting.add_path(self._workspace, draft, source, wildcards, inside, recursive=recursive)
        if verbose:
            _log.info("%d files added, %d modified", len(found.added), len(found.modified_new))
        return len(found.added)

    def remove_files(self, dataset_path: str | None = None, recursive: bool = True, verbose: bool = False) -> int:
        """Remove files from the draft.

        Args:
            dataset_path: A path, a directory or a wildcard; none means everything.
            recursive: Let a wildcard reach into directories.
            verbose: Log how many were removed.

        Returns:
            How many entries were removed; none is no error.

        Raises:
            VersionIsFinal: It is finalized.
        """
        draft = self._open_draft("remove files from")
        removed = drafting.remove_paths(self._workspace, draft, dataset_path or "", recursive=recursive)
        if verbose:
            _log.info("%d files removed", removed)
        return removed

    def sync_folder(
        self, local_path: str | os.PathLike[str], dataset_path: str | None = None, verbose: bool = False
    ) -> tuple[int, int, int]:
        """Make the draft, or its directory `dataset_path`, hold exactly what a folder holds.

        Files that this machine has read before and that have not changed since are not opened.

        Returns:
            How many files were removed, added and modified.

        Raises:
            PathNotFound, UnsupportedFileType, AccessDenied, FileChanged, InvalidPath: Nothing was changed.
            VersionIsFinal: It is finalized.
        """
        draft = self._open_draft("sync a folder into")
        found = drafting.sync(self._workspace, draft, os.fspath(local_path), dataset_path)
        counts = (len(found.removed), len(found.added), len(found.modified_new))
        if verbose:
            _log.info("%d files removed, %d added, %d modified", *counts)
        return counts

    def upload(
        self,
        show_progress: bool = True,
        verbose: bool = False,
        output_url: str | None = None,
        compression: str | None = None,
        chunk_size: int | None = None,
        max_workers: int | None = None,
        retries: int = 3,
        preview: bool = True,
    ) -> bool:
        """Send what the store lacks. Readers see nothing of it before `finalize`.

        An upload that was broken off goes on where it stopped when it is repeated.

        Args:
            show_progress: Show a progress bar where standard error is a terminal.
            verbose: Log what was sent.
            output_url: Not supported yet.
            compression: Accepted without effect: each frame is compressed where that pays.
            chunk_size: Accepted without effect: packs have one size.
            max_workers: Accepted; the number of threads follows the machine.
            retries: Accepted without effect on a folder.
            preview: Accepted without effect.

        Returns:
            True.

        Raises:
            FileChanged: A file is not what it was when it was added; sync or add it again.
            StorageFailed: The store refused; nothing is lost, repeat.
            VersionIsFinal: It is finalized.
        """
        draft = self._open_draft("upload")
        if output_url is not None:
            raise InvalidRequest("output_url is not supported yet.", "Leave it out: data goes into the store.")
        report = upload_draft(self._workspace, draft, show_progress=show_progress)
        if verbose:
            _log.info("%d files, %d bytes sent in %d packs", report.files, report.stored, report.packs)
        return True

    def finalize(self, verbose: bool = False, raise_on_error: bool = True, auto_upload: bool = False) -> bool:
        """Make the version final and visible, by one entry of the store's log.

        Args:
            verbose: Log the version's id and number.
            raise_on_error: With False, return False where files still wait for upload.
            auto_upload: Upload first what was not.

        Returns:
            True once it is final.

        Raises:
            PendingUploads: Files wait for upload.
            VersionExists: Another version took its explicit number.
            CommitOutcomeUnknown: Call it again; it cannot land twice.
            VersionIsFinal: It is finalized already.
        """
        draft = self._open_draft("finalize")
        if self.is_dirty() and not auto_upload:
            if not raise_on_error:
                return False
            raise PendingUploads(
                "Cannot finalize dataset, it has pending uploads. Call Dataset.upload(...) first.",
                "Or finalize with auto_upload=True.",
            )
        if draft.sent is None:
            upload_draft(self._workspace, draft, show_progress=auto_upload)
        finalize_draft(self._workspace, draft)
        self._held = None
        if verbose:
            _log.info("Version %s of %s/%s is final: %s", self.version, self.project, self.name, self.id)
        return True

    # --- reading -----------------------------------------------------------------------------------------------

    def get_local_copy(self) -> str:
        """A read-only folder that holds the version, from this machine's cache where it is there.

        Returns:
            Its path. Do not change it: its files may be shared between versions. It is not removed while this
            process lives.

        Raises:
            NotFinal: It is not finalized.
            CorruptObject, ObjectMissing: The store is damaged; nothing wrong was handed out.
        """
        return local_copy(self._workspace, self._final()).path

    def get_mutable_local_copy(self, target_folder: str | os.PathLike[str], overwrite: bool = False) -> str:
        """A folder of the caller's own that holds the version, sharing nothing with the cache.

        Args:
            target_folder: Made if it does not exist.
            overwrite: Replace what a folder that is not empty holds.

        Returns:
            The folder's path.

        Raises:
            TargetNotEmpty: The folder holds something and `overwrite` is not set.
            NotFinal: It is not finalized.
        """
        return mutable_copy(self._workspace, self._final(), os.fspath(target_folder), overwrite=overwrite)

    def list_files(self, dataset_path: str | None = None, recursive: bool = True) -> list[str]:
        """The paths of all files, or of those that a wildcard or directory means, sorted."""
        return paths_of(self._entries(), dataset_path, recursive=recursive)

    @property
    def file_entries(self) -> list[FileEntry]:
        """One object for each entry, in the order of the tree."""
        return file_entries(self._entries())

    def list_added_files(self, dataset_id: str | None = None) -> list[str]:
        """Paths that the merged parents, or the given version, do not have, sorted."""
        return paths_of(self._difference(dataset_id).added)

    def list_removed_files(self, dataset_id: str | None = None) -> list[str]:
        """Paths that only the merged parents, or the given version, have, sorted."""
        return paths_of(self._difference(dataset_id).removed)

    def list_modified_files(self, dataset_id: str | None = None) -> list[str]:
        """Paths on both sides whose content or kind differs, sorted."""
        return paths_of(self._difference(dataset_id).modified_new)

    def __repr__(self) -> str:
        state = "final" if self.is_final() else "draft"
        return f"<Dataset {self.project}/{self.name} {self.version} {state} {self.id}>"

    # --- inside ------------------------------------------------------------------------------------------------

    @property
    def _draft(self) -> Draft | None:
        """The draft as it is now, whoever changed it; None once it is final."""
        if self._held is not None and not self._held.is_current():
            self._held = drafting.open_draft(self._workspace, self.id)
            if self._held is None:
                self._workspace.version(self.id)  # raises where it was discarded
        return self._held

    def _entries(self) -> Entries:
        if self._draft is not None:
            return drafting.current_entries(self._workspace, self._draft)
        return read_all(root_of(self._final().entry.tree), self._workspace.repository.nodes)

    def _difference(self, other_id: str | None) -> Difference:
        parents = [other_id] if other_id is not None else self._parents()
        nodes = self._workspace.repository.nodes
        if self._draft is None and len(parents) == 1:
            return diff(root_of(self._workspace.base_of(parents[0])), root_of(self._final().entry.tree), nodes)
        return diff_entries(merged_entries(self._workspace, parents), self._entries())

    def _parents(self) -> Sequence[str]:
        return self._draft.opened.parents if self._draft else self._final().entry.parents

    def _series_name(self) -> tuple[str, str]:
        series = self._workspace.catalog.series(self._final().series)
        return (series.project, series.name) if series else ("", "")

    def _final(self) -> Version:
        if self._draft is not None:
            raise NotFinal(f"The version {self.id} is not final.", "Upload and finalize it first.")
        return self._workspace.version(self.id)

    def _open_draft(self, action: str) -> Draft:
        if self._draft is None:
            raise VersionIsFinal(
                f"Cannot {action} the version {self.id}: it is final.",
                "Make a child version: Dataset.create(parent_datasets=[...]).",
            )
        return self._draft


def _id_of(dataset: "str | Dataset") -> str:
    return dataset.id if isinstance(dataset, Dataset) else dataset


def _labels(tags: Iterable[str] | str | None) -> list[str]:
    return [tags] if isinstance(tags, str) else list(tags or ())


def _require_live(version: Version) -> None:
    if version.deleted:
        raise DatasetNotFound(f"The version {version.id} was deleted.", "Its children can still be read.")
