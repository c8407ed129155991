"""Making a version: the methods that change a draft. On a final version each raises before it touches anything."""

import logging
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from dataset_store.dataset.handle import Handle
from dataset_store.errors import PathNotFound, PendingUploads
from dataset_store.local.draft_records import Output

if TYPE_CHECKING:
    from concurrent.futures import Executor

    from dataset_store.dataset.uploads.uploading import UploadReport

__all__ = ["EXTERNAL_TAG", "Counts", "Making", "add_counting", "entries_meant", "link_counting"]

EXTERNAL_TAG = "external files"
"""The tag that a version with external links gets, as ClearML gives it."""

_log = logging.getLogger(__name__)


class Counts(NamedTuple):
    """What adding did: entries that matched, and of these how many were added and modified."""

    matched: int
    added: int
    modified: int


class Making(Handle):
    """What changes a draft, sends it and makes it final."""

    __slots__ = ()

    def add_files(
        self,
        path: str | os.PathLike[str],
        wildcard: str | Sequence[str] | None = None,
        local_base_folder: str | None = None,
        dataset_path: str | None = None,
        recursive: bool = True,
        verbose: bool = False,
        max_workers: int | None = None,
        follow_links: bool = False,
        executor: "Executor | None" = None,
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
            follow_links: Take the files of folders outside that links lead to; without it such a link is refused.
            executor: Any `concurrent.futures.Executor` whose workers read and hash the files: other processes, or other
                machines that see the folder under the same path. What comes of it does not depend on it.

        Returns:
            How many files were added; modified ones are not counted.

        Raises:
            PathNotFound, UnsupportedFileType, AccessDenied, FileChanged, InvalidPath: Nothing was added.
            VersionIsFinal: It is finalized.
        """
        counts = add_counting(
            self,
            path,
            wildcard,
            local_base_folder,
            dataset_path,
            recursive=recursive,
            follow_links=follow_links,
            executor=executor,
        )
        if verbose:
            _log.info("%d files added, %d modified", counts.added, counts.modified)
        return counts.added

    def add_external_files(
        self,
        source_url: str | os.PathLike[str] | Sequence[str],
        wildcard: str | Sequence[str] | None = None,
        dataset_path: str | Sequence[str] | None = None,
        recursive: bool = True,
        verbose: bool = False,
        max_workers: int | None = None,
        read_hash: bool = False,
    ) -> int:
        """Add links to files that stay where they are. They are fetched, and checked, with a local copy.

        Of each its URL, size, time and entity tag are kept (what its source knows of them).

        Args:
            source_url: Of a file, or of a folder or prefix, whose files are linked; or several. Any scheme that fsspec
                has a driver for, or a path.
            wildcard: Only files whose path below the URL matches it, or any of them.
            dataset_path: The directory of the dataset to add to; or one for each URL.
            recursive: Look into sub-folders.
            verbose: Log what was added and modified.
            max_workers: Accepted; sources are asked 16 at a time.
            read_hash: Read the files now, and keep the hash of their bytes: then each copy is checked against that.

        Returns:
            How many links were added; modified ones are not counted.

        Raises:
            PathNotFound: There is nothing at a URL; nothing was added.
            AccessDenied, StoreUnreachable, StorageFailed: A source refused; nothing was added.
            DriverMissing, InvalidRequest, InvalidPath: A URL or path cannot be used; nothing was added.
            VersionIsFinal: It is finalized.
        """
        counts = link_counting(self, source_url, wildcard, dataset_path, recursive=recursive, read_hash=read_hash)
        if verbose:
            _log.info("%d links added, %d modified", counts.added, counts.modified)
        return counts.added

    def remove_files(self, dataset_path: str | None = None, recursive: bool = True, verbose: bool = False) -> int:
        """Remove files from the draft.

        Args:
            dataset_path: A path, a directory or a wildcard; none means everything. With a scheme, such as
                `s3://bucket/*`: the links whose URL it means.
            recursive: Let a wildcard reach into directories.
            verbose: Log how many were removed.

        Returns:
            How many entries were removed; none is no error.

        Raises:
            VersionIsFinal: It is finalized.
        """
        from dataset_store.dataset.drafts import drafting

        draft = self._open_draft("remove files from")
        removed = drafting.remove_paths(self._workspace, draft, dataset_path or "", recursive=recursive)
        if verbose:
            _log.info("%d files removed", removed)
        return removed

    def sync_folder(
        self,
        local_path: str | os.PathLike[str],
        dataset_path: str | None = None,
        verbose: bool = False,
        dry_run: bool = False,
        follow_links: bool = False,
        executor: "Executor | None" = None,
    ) -> tuple[int, int, int]:
        """Make the draft, or its directory `dataset_path`, hold exactly what a folder holds.

        Files that this machine has read before and that have not changed since are not opened. Long ones that are new,
        or of another length, are read once, by `upload`, and must stay as they are until then.

        Args:
            local_path: The folder.
            dataset_path: The directory of the dataset that it becomes; by default the whole.
            verbose: Log how many files were removed, added and modified.
            dry_run: Only tell what would change.
            follow_links: Take the files of folders outside that links lead to; without it such a link is refused.
            executor: As in `add_files`.

        Returns:
            How many files were removed, added and modified.

        Raises:
            PathNotFound, UnsupportedFileType, AccessDenied, FileChanged, InvalidPath: Nothing was changed.
            VersionIsFinal: It is finalized.
        """
        from dataset_store.dataset.drafts import drafting

        draft = self._open_draft("sync a folder into")
        folder = os.fspath(local_path)
        found = drafting.sync(
            self._workspace,
            draft,
            folder,
            dataset_path,
            dry_run=dry_run,
            how=drafting.Way(follow_links, executor),
        )
        counts = (len(found.removed), len(found.added), len(found.modified_new))
        if verbose:
            _log.info("%d files added, %d modified, %d removed", counts[1], counts[2], counts[0])
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
        upload_as_external_links: bool = False,
        executor: "Executor | None" = None,
    ) -> bool:
        """Send what the store lacks. Readers see nothing of it before `finalize`.

        An upload that was broken off goes on where it stopped when it is repeated.

        Args:
            show_progress: Show a progress bar where standard error is a terminal.
            verbose: Log what was sent.
            output_url: Send the packs to this URL or path instead, now and from here on.
            compression: Accepted without effect: each frame is compressed where that pays.
            chunk_size: Accepted without effect: packs have one size.
            max_workers: Accepted; the number of threads follows the machine.
            retries: Accepted without effect: on S3 and the web what may be repeated is, up to 6 times within a minute;
                other drivers repeat by their own rules.
            preview: Accepted without effect.
            upload_as_external_links: Keep the files as they are under `output_url` (or the store), and make them links:
                for others to read there, without deduplication. Executable files and symbolic links stay in packs.
            executor: Any `concurrent.futures.Executor` whose workers read, compress and send the files: other
                processes, or other machines that see files and store under the same paths and URLs.

        Returns:
            True.

        Raises:
            FileChanged: A file is not what it was when it was added; sync or add it again.
            StorageFailed: The store refused; nothing is lost, repeat.
            VersionIsFinal: It is finalized.
        """
        from dataset_store.dataset.catalog.outputs import storage_url
        from dataset_store.dataset.drafts.externals import upload_as_links
        from dataset_store.dataset.uploads.uploading import upload_draft

        draft = self._open_draft("upload")
        if output_url is not None:
            draft.redirect(Output(storage_url(self._workspace, output_url)))
        if upload_as_external_links:
            upload_as_links(self._workspace, draft, show_progress=show_progress)
        self._sent = upload_draft(self._workspace, draft, show_progress=show_progress, executor=executor)
        if verbose:
            _log.info("%s", self._sent)
        return True

    @property
    def last_upload(self) -> "UploadReport | None":
        """What the last upload through this object sent, that of `finalize` too; None before there was one."""
        return self._sent

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
        from dataset_store.dataset.drafts.committing import finalize_draft
        from dataset_store.dataset.uploads.uploading import upload_draft

        draft = self._open_draft("finalize")
        if self.is_dirty() and not auto_upload:
            if not raise_on_error:
                return False
            raise PendingUploads(
                "Cannot finalize dataset, it has pending uploads. Call Dataset.upload(...) first.",
                "Or finalize with auto_upload=True.",
            )
        if draft.sent is None:
            self._sent = upload_draft(self._workspace, draft, show_progress=auto_upload)
        finalize_draft(self._workspace, draft)
        self._held = None
        if verbose:
            _log.info("Version %s of %s/%s is final: %s", self._number(), self.project, self.name, self.id)
        return True

    def update_changed_files(
        self,
        num_files_added: int | None = None,
        num_files_modified: int | None = None,
        num_files_removed: int | None = None,
    ) -> None:
        """Accepted without effect: how many files changed is counted from the entries themselves.

        Args:
            num_files_added: Accepted without effect.
            num_files_modified: Accepted without effect.
            num_files_removed: Accepted without effect.
        """

    def discard(self) -> None:
        """Forget a draft of this machine; what it uploaded is left to gc.

        Raises:
            VersionIsFinal: It is finalized.
        """
        from dataset_store.dataset.uploads.holding import discard_draft

        discard_draft(self._workspace, self._open_draft("discard"))


def add_counting(
    dataset: Making,
    path: str | os.PathLike[str],
    wildcard: str | Sequence[str] | None = None,
    local_base_folder: str | None = None,
    dataset_path: str | None = None,
    *,
    recursive: bool = True,
    follow_links: bool = False,
    executor: "Executor | None" = None,
) -> Counts:
    """As `Dataset.add_files`, with all that there is to tell."""
    from dataset_store.dataset.drafts import drafting

    draft = dataset._open_draft("add files to")
    source = os.fspath(path)
    if not os.path.lexists(source):
        raise PathNotFound(f"There is nothing at {source!r}.", "Give an existing file or folder.")
    inside = drafting.below_base(source, local_base_folder, dataset_path)
    wildcards = [wildcard] if isinstance(wildcard, str) else list(wildcard or ())
    matched, found = drafting.add_path(
        dataset._workspace,
        draft,
        source,
        wildcards,
        inside,
        recursive=recursive,
        how=drafting.Way(follow_links, executor),
    )
    return Counts(matched, len(found.added), len(found.modified_new))


def link_counting(
    dataset: Making,
    source_url: str | os.PathLike[str] | Sequence[str],
    wildcard: str | Sequence[str] | None = None,
    dataset_path: str | Sequence[str] | None = None,
    *,
    recursive: bool = True,
    read_hash: bool = False,
) -> Counts:
    """As `Dataset.add_external_files`, with all that there is to tell."""
    from dataset_store.dataset.annotations import describing
    from dataset_store.dataset.drafts.linking import add_links, wanted_links

    draft = dataset._open_draft("add links to")
    urls = [os.fspath(source_url)] if isinstance(source_url, str | os.PathLike) else list(source_url)
    paths = [dataset_path or ""] if dataset_path is None or isinstance(dataset_path, str) else list(dataset_path)
    wildcards = [wildcard] if isinstance(wildcard, str) else list(wildcard or ())
    wanted = wanted_links(urls, paths, wildcards, recursive=recursive)
    matched, found = add_links(dataset._workspace, draft, wanted, read_hash=read_hash)
    if len(found.added) and EXTERNAL_TAG not in draft.labels.tags:
        describing.relabel(dataset._workspace, draft, tags={*draft.labels.tags, EXTERNAL_TAG})
    return Counts(matched, len(found.added), len(found.modified_new))


def entries_meant(dataset: Making, patterns: Sequence[str], *, recursive: bool) -> list[int]:
    """How many entries of a draft `Dataset.remove_files` would remove for each pattern alone."""
    from dataset_store.dataset.drafts import drafting

    draft = dataset._open_draft("remove files from")
    entries = drafting.current_entries(dataset._workspace, draft)
    meant = drafting.keys_meant(dataset._workspace, draft, entries, patterns, recursive=recursive)
    return [len(keys) for keys in meant]
