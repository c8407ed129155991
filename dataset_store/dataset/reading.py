"""Reading a version: copies of it, lists of its files, and what it changed."""

import logging
import os
from collections.abc import Sequence
from functools import partial
from typing import IO, TYPE_CHECKING, Literal, cast, overload

from dataset_store.core.arrays import np
from dataset_store.core.entries import Entries
from dataset_store.dataset.entries.selecting import parts_of, selection_of
from dataset_store.dataset.handle import Handle
from dataset_store.storage.trees import root_of

if TYPE_CHECKING:
    from concurrent.futures import Executor

    import pyarrow

    from dataset_store.core.diff import Difference
    from dataset_store.dataset.catalog.differences import DatasetDiff
    from dataset_store.dataset.catalog.history import Lineage
    from dataset_store.dataset.checks.verifying import FolderReport
    from dataset_store.dataset.entries.links import LinkEntry
    from dataset_store.dataset.entries.listing import FileEntry

__all__ = ["Reading"]

_log = logging.getLogger(__name__)


class Reading(Handle):
    """What gives a version's files, or tells of them."""

    __slots__ = ()

    def get_local_copy(
        self,
        use_soft_links: bool | None = None,
        part: int | None = None,
        num_parts: int | None = None,
        raise_on_error: bool = True,
        max_workers: int | None = None,
        files: Sequence[str] | str | None = None,
        executor: "Executor | None" = None,
    ) -> str:
        """A read-only folder that holds the version, from this machine's cache where it is there.

        Args:
            use_soft_links: Accepted without effect: files are hard links to those of earlier copies where they can be.
            part: Only this share of the entries, from 0. Shares are contiguous, disjoint, of nearly equal bytes, and
                together everything.
            num_parts: How many shares there are; by default `get_num_chunks()`.
            raise_on_error: Accepted without effect: a copy that is not whole is never handed out.
            max_workers: Accepted; the number of threads follows the machine.
            files: Only these paths, directories or wildcards; with `part`, a share of them.
            executor: Any `concurrent.futures.Executor` whose workers fetch and write the files: other processes, or
                other machines that see this machine's cache and the store under the same paths and URLs.

        Returns:
            Its path. Do not change it: its files may be shared between versions. It is not removed while this
            process lives.

        Raises:
            NotFinal: It is not finalized.
            PathNotFound: A path of `files` that is no wildcard is not in the version.
            InvalidRequest: There is no such part.
            CorruptObject, ObjectMissing: The store is damaged; nothing wrong was handed out.
            ExternalFileChanged: A linked file is not what was linked; nothing was handed out.
        """
        from dataset_store.dataset.copies.copying import local_copy

        selected = selection_of(files, part, num_parts, self.get_num_chunks())
        return local_copy(self._workspace, self._final(), selected, executor).path

    def get_mutable_local_copy(
        self,
        target_folder: str | os.PathLike[str],
        overwrite: bool = False,
        part: int | None = None,
        num_parts: int | None = None,
        raise_on_error: bool = True,
        max_workers: int | None = None,
        executor: "Executor | None" = None,
    ) -> str:
        """A folder of the caller's own that holds the version, sharing nothing with the cache.

        Args:
            target_folder: Made if it does not exist.
            overwrite: Replace what a folder that is not empty holds. A file is never replaced.
            part: As in `get_local_copy`.
            num_parts: As in `get_local_copy`.
            raise_on_error: Accepted without effect: what cannot be made whole is not made.
            max_workers: Accepted; the number of threads follows the machine.
            executor: As in `get_local_copy`; the machines must see the folder that holds the target.

        Returns:
            The folder's path.

        Raises:
            TargetNotEmpty: It is a file, or the folder holds something and `overwrite` is not set.
            NotFinal: It is not finalized.
            InvalidRequest: There is no such part.
        """
        from dataset_store.dataset.copies.copying import mutable_copy

        selected = selection_of(None, part, num_parts, self.get_num_chunks())
        target = os.fspath(target_folder)
        return mutable_copy(
            self._workspace, self._final(), target, overwrite=overwrite, selected=selected, executor=executor
        )

    def get_num_chunks(self, include_parents: bool = True) -> int:
        """Into how many parts the version is divided where nobody says: one for each 512 MiB of its files.

        Args:
            include_parents: With False, only what this version itself added or changed is counted.

        Raises:
            NotFinal: It is not finalized.
        """
        if include_parents:
            return parts_of(self._final().entry.stats.bytes)
        self._final()
        return parts_of(int(self._introduced_by(self.id).sizes.sum()))

    @overload
    def open(self, path: str, mode: Literal["rb"] = "rb", encoding: str | None = None) -> IO[bytes]: ...

    @overload
    def open(self, path: str, mode: Literal["r", "rt"], encoding: str | None = None) -> IO[str]: ...

    def open(self, path: str, mode: str = "rb", encoding: str | None = None) -> IO[bytes] | IO[str]:
        """A file of the version as a file object, which reads from the store only the parts that are asked for.

        Args:
            path: Its path in the version.
            mode: `rb`, or `r` for text.
            encoding: Of text; by default that of `open`.

        Raises:
            NotFinal: It is not finalized.
            PathNotFound: The version has no such path.
            InvalidRequest: It is no regular file, or the mode is not for reading.
            CorruptObject, ObjectMissing: From its methods; the store is damaged.
        """
        from dataset_store.dataset.copies.opening import open_file

        return open_file(self._workspace, self._final(), path, mode, encoding)

    def compare_folder(self, local_path: str | os.PathLike[str]) -> "FolderReport":
        """What a folder changes in the version or draft, without writing anything.

        Files that this machine has read before and that have not changed since are not opened.

        Returns:
            The paths that are `missing` in the folder, `modified` and `extra`, and whether it `matches`.

        Raises:
            PathNotFound, UnsupportedFileType, AccessDenied, FileChanged, InvalidPath: The folder cannot be read.
        """
        from dataset_store.dataset.checks.verifying import compare_folder

        return compare_folder(self._workspace, self._read_entries(), os.fspath(local_path), self._draft)

    def verify_dataset_hash(
        self, local_copy_path: str | os.PathLike[str] | None = None, skip_hash: bool = False, verbose: bool = False
    ) -> list[str]:
        """Compare a folder with the version, reading every file whatever this machine remembers of it.

        Args:
            local_copy_path: The folder; by default the version's local copy.
            skip_hash: Compare sizes only, and read nothing.
            verbose: Log each path.

        Returns:
            The paths whose file is missing or differs, sorted. Files that the version does not have are not looked at.

        Raises:
            NotFinal: It is not finalized.
            PathNotFound, AccessDenied: The folder cannot be read.
        """
        from dataset_store.dataset.checks.verifying import verify_folder
        from dataset_store.dataset.copies.copying import local_copy

        version = self._final()
        folder = local_copy(self._workspace, version).path if local_copy_path is None else os.fspath(local_copy_path)
        report = verify_folder(self._workspace, version.id, folder, sizes_only=skip_hash)
        wrong = sorted([*report.missing, *report.modified])
        for path in wrong if verbose else ():
            _log.info("%s is missing or differs", path)
        return wrong

    def list_files(
        self, dataset_path: str | None = None, recursive: bool = True, dataset_id: str | None = None
    ) -> list[str]:
        """The paths of all files, or of those that a wildcard or directory means, sorted.

        Args:
            dataset_path: A path, a directory or a wildcard; none means everything.
            recursive: Let a wildcard reach into directories.
            dataset_id: Only files that this version of the lineage introduced.
        """
        from dataset_store.dataset.entries.listing import paths_of
        from dataset_store.dataset.entries.selecting import plain_directory

        if dataset_id:
            return paths_of(self._introduced_by(dataset_id), dataset_path, recursive=recursive)
        entries = self._entries(plain_directory(dataset_path or ""))
        return paths_of(entries, dataset_path, recursive=recursive)

    @property
    def file_entries_dict(self) -> "dict[str, FileEntry]":
        """As `file_entries`, by path."""
        return {entry.relative_path: entry for entry in self.file_entries}

    @property
    def file_entries(self) -> "list[FileEntry]":
        """One object for each entry but external links, in the order of the tree."""
        from dataset_store.dataset.entries.listing import file_entries

        return file_entries(self._read_entries())

    @property
    def link_entries(self) -> "list[LinkEntry]":
        """One object for each external link, in the order of the tree."""
        from dataset_store.dataset.entries.links import link_entries

        return link_entries(self._workspace, self._entries(), self._draft)

    @property
    def link_entries_dict(self) -> "dict[str, LinkEntry]":
        """As `link_entries`, by path."""
        return {entry.relative_path: entry for entry in self.link_entries}

    def entries_table(self) -> "pyarrow.Table":
        """All entries as a pyarrow Table, in the order of the tree.

        Columns: `path` (text; bytes that are not UTF-8 are escaped with a backslash), `kind` (`file`, `symlink`,
        `directory` or `external`), `size` (bytes), `mtime` (UTC, ns), `executable`, `content_id` (32 bytes), `origin`
        (the id of the version that introduced it), `link` (the URL of an external link, else null).
        """
        from dataset_store.dataset.annotations.arrow import table_of_entries
        from dataset_store.dataset.entries.links import link_rows, links_of

        entries = self._read_entries()
        rows = link_rows(entries).tolist()
        links = links_of(self._workspace, entries, rows, self._draft)
        return table_of_entries(entries, {row: link.url for row, link in zip(rows, links, strict=True)})

    def diff(self, other: "Reading | str | None" = None) -> "DatasetDiff":
        """What this version has that another has not, and the reverse: paths, sizes, renames, and of tables more.

        Rows are counted of tables whose length a footer tells, and of CSV files up to 64 MiB, which are read for it.

        Args:
            other: A version or its id, the old side; by default the merged parents.

        Returns:
            The changes, by path; it shows itself in notebooks.

        Raises:
            DatasetNotFound: There is no such version, or it was deleted.
        """
        from dataset_store.dataset.catalog.differences import DatasetDiff, changes_of

        other_id = other.id if isinstance(other, Reading) else other
        old = other_id or (self._parents()[0] if len(self._parents()) == 1 else None)
        opener = None if old is None else partial(self._open_of, old)
        own = None if self._draft is not None else partial(self._open_of, self.id)
        return DatasetDiff(changes_of(self._difference(other_id)), opener, own)

    def _open_of(self, version_id: str, path: str) -> IO[bytes]:
        from dataset_store.dataset.copies.opening import open_file

        opened = open_file(self._workspace, self._workspace.version(version_id), path, "rb", None)
        return cast("IO[bytes]", opened)

    def log(self) -> "Lineage":
        """This version and all its ancestors, deleted ones too, every child before its parents.

        Printed it is a graph as text; it draws itself in notebooks, and has `mermaid()` and `svg()`.
        """
        from dataset_store.dataset.catalog.history import Lineage
        from dataset_store.dataset.catalog.overview import lineage_of

        return Lineage(lineage_of(self._workspace, self.id))

    def list_added_files(self, dataset_id: str | None = None) -> list[str]:
        """Paths that the merged parents, or the given version, do not have, sorted."""
        from dataset_store.dataset.entries.listing import paths_of

        return paths_of(self._changes_since(dataset_id).added)

    def list_removed_files(self, dataset_id: str | None = None) -> list[str]:
        """Paths that only the merged parents, or the given version, have, sorted."""
        from dataset_store.dataset.entries.listing import paths_of

        return paths_of(self._changes_since(dataset_id).removed)

    def list_modified_files(self, dataset_id: str | None = None) -> list[str]:
        """Paths on both sides whose content or kind differs, sorted."""
        from dataset_store.dataset.entries.listing import paths_of

        return paths_of(self._changes_since(dataset_id).modified_new)

    def _changes_since(self, dataset_id: str | None) -> "Difference":
        """As `_difference`; the version's own id, or an empty one, means the parents, as in ClearML."""
        return self._difference(dataset_id if dataset_id not in {"", self.id} else None)

    def _difference(self, other_id: str | None) -> "Difference":
        from dataset_store.core.diff import diff, diff_entries
        from dataset_store.dataset.catalog.lineage import merged_entries

        parents = [other_id] if other_id is not None else self._parents()
        nodes = self._workspace.store.nodes
        if self._draft is None and len(parents) == 1:
            return diff(root_of(self._workspace.base_of(parents[0])), root_of(self._final().entry.tree), nodes)
        before, entries = merged_entries(self._workspace, parents), self._entries()
        if self._draft is None:
            return diff_entries(before, entries)
        from dataset_store.dataset.uploads.unread import difference_of

        return difference_of(self._workspace, self._draft, before, entries)

    def _introduced_by(self, version_id: str) -> Entries:
        entries = self._entries()
        numbers = [number for number, origin in enumerate(entries.origin_ids) if origin.hex() == version_id]
        return entries.take(np.isin(entries.origins, numbers))
