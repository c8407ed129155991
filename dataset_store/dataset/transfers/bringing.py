"""One version of a store brought into another that lacks it.

Its tree is written as the difference from the nearest version that both stores have, so what it costs follows the
change; its contents are those of the source, hashed on the way (see `relaying`), and the tree that comes out must have
the content digest of the source's. Only then the one log entry is appended, by the rules of docs/format.md §11.
"""

from collections.abc import Callable, Iterator, Mapping

from dataset_store.core.catalog import Catalog, Version
from dataset_store.core.diff import changes_between
from dataset_store.core.entries import Changes
from dataset_store.core.log_entries import Blob, TreeRootRow, VersionEntry
from dataset_store.core.packfile import PackRef
from dataset_store.core.shares import ranges_of
from dataset_store.core.tree import read_range
from dataset_store.dataset.annotations.blobs import write_blob
from dataset_store.dataset.catalog.outputs import number_of
from dataset_store.dataset.progress import Told
from dataset_store.dataset.transfers.arriving import Naming, arrival, piece_bytes, version_entry
from dataset_store.dataset.transfers.relaying import relay, wanted
from dataset_store.dataset.uploads.finding import finder, remember_contents
from dataset_store.dataset.uploads.sending import Sender
from dataset_store.dataset.workspace import Workspace
from dataset_store.errors import Conflict, CorruptObject, DatasetStoreError
from dataset_store.storage.blobs import packs_of
from dataset_store.storage.trees import root_of, write_tree

__all__ = ["Bases", "Bringing", "changes_in_parts", "is_live", "require_same"]

_MOST_ENTRIES = 1_000_000
"""Entries of a whole tree that are worked on together; of each some hundred bytes are kept meanwhile."""


class Bases:
    """From which versions others differ least, as the source's history suggests it.

    Args:
        source: The source's state.
    """

    def __init__(self, source: Catalog) -> None:
        self._source = source
        self._alike: dict[str, list[Version]] = {}

    def nearest(self, version: Version, is_there: Callable[[str], bool]) -> Version | None:
        """The live version, of those that are there too, from which a version probably differs least; None without one.

        The nearest ancestor; else the version of the same dataset that was finalized before it, or else after it; else
        one with the same files.
        """
        candidates = (self._ancestors(version), self._siblings(version), self._with_the_same_files(version))
        found = (one for some in candidates for one in some if is_there(one.id) and not one.deleted)
        return next(found, None)

    def _ancestors(self, version: Version) -> Iterator[Version]:
        """Nearest first; of parents the first, whose tree is the one that a version's was edited from."""
        level, seen = [version], {version.id}
        while level:
            ids = dict.fromkeys(parent for one in level for parent in one.entry.parents if parent not in seen)
            seen.update(ids)
            level = [one for each in ids if (one := self._source.version(each)) is not None]
            yield from level

    def _siblings(self, version: Version) -> Iterator[Version]:
        others = [one for one in self._source.versions_of(version.series) if one.id != version.id]
        yield from sorted(others, key=lambda one: (one.slot > version.slot, abs(one.slot - version.slot)))

    def _with_the_same_files(self, version: Version) -> Iterator[Version]:
        if not self._alike:
            for one in self._source.live_versions():
                self._alike.setdefault(one.entry.tree.digest, []).append(one)
        return (one for one in self._alike.get(version.entry.tree.digest, ()) if one.id != version.id)


def changes_in_parts(source: Workspace, base: Version | None, version: Version) -> Iterator[Changes]:
    """What turns the tree of a base, or the empty one, into a version's; one part or more, places are the source's."""
    nodes, root = source.store.nodes, root_of(version.entry.tree)
    if base is not None:
        yield changes_between(root_of(base.entry.tree), root, nodes)
        return
    for start, stop in ranges_of(root, _MOST_ENTRIES, nodes):
        yield Changes(read_range(root, start, stop, nodes), [])


class Bringing:
    """A version on its way. Hits are taken from the state at one slot of the target's log, the lowest of all.

    Args:
        source: Where it is.
        target: Where it goes.
        version: As the source has it.
        naming: What it is to be called there.
        output: The root where its packs go; None for the target's own.
    """

    def __init__(
        self, source: Workspace, target: Workspace, version: Version, naming: Naming, output: str | None
    ) -> None:
        self.source = source
        self.target = target
        self.version = version
        self.naming = naming
        standing = target.store.standings.now()
        self.sender = Sender(target, standing, number_of(target, output))
        self.files = 0
        self._packs: set[PackRef] = set()

    def send(self, base: Version | None, there: Version | None, told: Told) -> bool:
        """Put packs, then append the entry; False where what the version would use was collected meanwhile.

        Args:
            base: A version of the source that is near to this one, and in the target too.
            there: The same as the target has it.
            told: Told of what there is to send, and of what was done.

        Raises:
            VersionExists, Conflict: As `arrival`.
            CorruptObject, ObjectMissing: The source is damaged; nothing was committed.
            CommitOutcomeUnknown: Repeat; it cannot land twice.
            StorageFailed: A store refused; repeat.
        """
        metadata = self._metadata()
        tree = self._tree(base, there, told)
        self._packs |= {pack for piece in metadata.values() if isinstance(piece, Blob) for pack in packs_of(piece)}
        return self._commit(tree, metadata, there)

    def _metadata(self) -> Mapping[str, str | Blob]:
        """The metadata that the version's entry will hold, long pieces sent."""
        place = arrival(self.source.catalog, self.target.catalog, self.version, self.naming)
        as_it_is = version_entry(self.version, place, self.version.entry.tree, self.version.metadata)
        find = finder(self.target, {}, self.sender.standing)
        return {
            name: write_blob(self.target, self.sender.writer, piece_bytes(self.source, piece), find)
            if isinstance(piece, Blob)
            else piece
            for name, piece in as_it_is.metadata.items()
        }

    def _tree(self, base: Version | None, there: Version | None, told: Told) -> TreeRootRow:
        """Send contents and nodes; the tree, which is what the source's is."""
        before = there.entry.tree if there is not None else None
        tree, size = before, 0
        for changes in changes_in_parts(self.source, base, self.version):
            found = wanted(self.source, self.target, before, changes, self.sender.standing)
            self.files += found.files
            size += found.bytes
            told.expect(self.files, size)
            brought, packs = relay(self.source, self.sender, found, told)
            tree = write_tree(tree, brought, self.sender.writer, self.target.store.nodes)
            # The next part is written into nodes of this one, which must be there to be read.
            self.sender.writer.flush()
            remember_contents(self.target, brought.entries)
            self._packs |= packs
        assert tree is not None  # noqa: S101  (there is at least one part)
        if tree.digest != self.version.entry.tree.digest:
            raise CorruptObject(
                f"The tree of the version {self.version.id} came out as another one than the source has.",
                "Nothing of it was committed; run `dataset-store verify` on the version in both stores.",
            )
        return tree

    def _commit(self, tree: TreeRootRow, metadata: Mapping[str, str | Blob], base: Version | None) -> bool:
        def entry(catalog: Catalog) -> VersionEntry:
            standing = catalog.version(self.version.id)
            if standing is not None:
                require_same(self.version, standing)
                return standing.entry
            if not self._stands(catalog, base):
                raise _Fallen(self.version.id)
            place = arrival(self.source.catalog, catalog, self.version, self.naming)
            return version_entry(self.version, place, tree, metadata)

        try:
            self.target.store.catalog.commit(entry)
        except _Fallen:
            return False
        return True

    def _stands(self, catalog: Catalog, base: Version | None) -> bool:
        """Whether nothing that the version would use fell after the state from which it was taken.

        What its tree shares with that of a version that lives needs no look.
        """
        last = catalog.packs.last_condemnation
        if last is None or last < self.sender.standing.slot:
            return True
        standing = self.target.store.standings.now()
        # Nodes of each part lie in packs of their own, so all that were put count, not only those of contents.
        put = self._packs.union(self.sender.packs)
        return not any(map(standing.is_touched, put)) and (base is None or is_live(catalog, base.id))


class _Fallen(DatasetStoreError):
    """Gives an attempt up; it counts only in the state at the end of the log."""


def is_live(catalog: Catalog, version_id: str) -> bool:
    """Whether there is such a version and it was not deleted."""
    version = catalog.version(version_id)
    return version is not None and not version.deleted


def require_same(version: Version, there: Version) -> None:
    """The same id must name the same files in both stores.

    Raises:
        Conflict: It does not.
    """
    if version.entry.tree.digest != there.entry.tree.digest:
        raise Conflict(
            f"The id {version.id} names other files there than in the source.",
            "One of them is not what was finalized under it; nothing was changed. Run `dataset-store verify` on both.",
        )
