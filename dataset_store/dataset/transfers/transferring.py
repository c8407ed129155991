"""Versions of one store into another: parents first, each with only what is missing there.

A version is the same everywhere: its id, and with it its parents, files, statistics and producer. Whatever breaks a
transfer off, a version is there whole or not at all (see `bringing`); the same call again passes over versions that are
there, and over packs that this machine has put.

Nothing in the source is changed, and nothing in the target but what a new version, its labels, or a storage that the
caller names, adds to it.
"""

import os
from collections.abc import Callable, Sequence
from typing import Literal

from msgspec import Struct

from dataset_store.core.arrays import np
from dataset_store.core.catalog import Catalog, Query, Version
from dataset_store.core.merge import parents_first
from dataset_store.core.relocation import Relocations
from dataset_store.core.standing import Standing
from dataset_store.core.version_numbers import title_of
from dataset_store.dataset.catalog.lineage import ancestors_of
from dataset_store.dataset.catalog.outputs import output_of, storage_url
from dataset_store.dataset.progress import Told, progress_bar
from dataset_store.dataset.transfers.arriving import Arrival, Naming, arrival, complete, differs, make_equal
from dataset_store.dataset.transfers.bringing import Bases, Bringing, changes_in_parts, is_live, require_same
from dataset_store.dataset.transfers.relaying import wanted
from dataset_store.dataset.workspace import Workspace
from dataset_store.errors import Conflict, InvalidRequest

__all__ = ["Terms", "TransferReport", "Transferred", "chosen", "transfer"]

_ATTEMPTS = 8
_NONE = Standing(0, frozenset(), Relocations())

Outcome = Literal["sent", "to send", "there", "deleted there"]


class Terms(Struct, frozen=True):
    """How versions are to be transferred.

    Attributes:
        history: Take the ancestors that the target lacks along.
        labels: Give versions that are there already the tags, description, metadata and state of the source.
        as_name: What the dataset of the chosen versions is to be called there; by default as in the source.
        as_project: Its project there; by default as in the source.
        renumber: Give a version whose number another one has there the next free number.
        output: A URL or path where packs go; by default where those of a version's last parent lie, else the store.
        dry_run: Only tell what would be done.
    """

    history: bool = True
    labels: bool = False
    as_name: str | None = None
    as_project: str | None = None
    renumber: bool = False
    output: str | None = None
    dry_run: bool = False


class Transferred(Struct, frozen=True):
    """What became, or would become, of one version.

    Attributes:
        id: The version.
        project, name, number: What it is called in the target; of one that was deleted there, in the source.
        outcome: `sent`, in a dry run `to send`, `there` where the target had it, or `deleted there`, where it was
            deleted and is passed over.
        files: Contents that the target was not known to have.
        new_bytes: Bytes of these that were sent, before compression; in a dry run the most that would be.
        stored: Bytes that were sent: these compressed, and the nodes of the tree.
        packs: In how many packs.
        labels_differ: Whether it has, or had before a transfer with `labels`, other labels there.
    """

    id: str
    project: str
    name: str
    number: str
    outcome: Outcome
    files: int = 0
    new_bytes: int = 0
    stored: int = 0
    packs: int = 0
    labels_differ: bool = False


class TransferReport(Struct, frozen=True):
    """What a transfer did, or in a dry run would do: one row a version, parents first."""

    versions: tuple[Transferred, ...]

    def of(self, *outcomes: Outcome) -> list[Transferred]:
        """The versions with one of these outcomes."""
        return [row for row in self.versions if row.outcome in outcomes]

    @property
    def new_bytes(self) -> int:
        """Bytes of files that were sent, before compression."""
        return sum(row.new_bytes for row in self.versions)

    @property
    def stored(self) -> int:
        """Bytes that were sent."""
        return sum(row.stored for row in self.versions)

    @property
    def packs(self) -> int:
        """In how many packs."""
        return sum(row.packs for row in self.versions)


Done = Callable[[Transferred], object]


def chosen(source: Workspace, ids: Sequence[str], query: Query, *, every: bool) -> list[str]:
    """The ids of the versions that are meant: those given, else the one that a query finds, or every one.

    Raises:
        DatasetNotFound: There is none, or it was deleted.
        InvalidRequest: Nothing was asked for.
    """
    if ids:
        return [source.live_version(version_id).id for version_id in ids]
    if every:
        return [version.id for version in source.refresh().matching(query)]
    if query == Query():
        raise InvalidRequest("No version was asked for.", "Name one, or ask for all of them with --all.")
    return [source.resolve(query).id]


def transfer(
    source: Workspace,
    target: Workspace | None,
    version_ids: Sequence[str],
    terms: Terms,
    *,
    show_progress: bool = False,
    told: Done = lambda _row: None,
) -> TransferReport:
    """Bring versions, and by default their ancestors, into another store.

    Args:
        source: Where they are.
        target: Where they go; None only in a dry run, where there is no store yet.
        version_ids: Live versions of the source.
        terms: How.
        show_progress: Show bars.
        told: Called with each version that is done with.

    Raises:
        DatasetNotFound: There is no such version.
        VersionExists: A number is taken there. Nothing was sent, unless somebody took it meanwhile.
        Conflict: A dataset there has the name, a chosen version was deleted there, or an id names other files there.
        CorruptObject, ObjectMissing: The source is damaged; no version was made of it.
        InvalidRequest: Source and target are one store, or versions of several datasets are to get one name.
        StorageFailed: A store refused; repeat.
    """
    _require_two(source, target)
    going = _Transfer(source, target, _naming(source, version_ids, terms), terms, show_progress=show_progress)
    versions = _in_order(source.catalog, version_ids, history=terms.history)
    going.require_welcome(versions, frozenset(version_ids))
    rows = []
    for number, version in enumerate(versions):
        rows.append(going.take(version, f"{number + 1}/{len(versions)}"))
        told(rows[-1])
    return TransferReport(tuple(rows))


def _require_two(source: Workspace, target: Workspace | None) -> None:
    source.refresh()
    if target is not None:
        target.refresh().require("write")
        if source.store_id == target.store_id:
            raise InvalidRequest(
                f"{target.store.backend.describe()} is the store that the versions are in.", "Name another one."
            )


def _naming(source: Workspace, version_ids: Sequence[str], terms: Terms) -> Naming:
    if terms.as_name is None and terms.as_project is None:
        return Naming(renumber=terms.renumber)
    series = {source.live_version(version_id).series for version_id in version_ids}
    if len(series) != 1:
        raise InvalidRequest(
            f"The versions are of {len(series)} datasets, and one name was given.", "Transfer one dataset at a time."
        )
    (one,) = series
    held = source.catalog.series(one)
    name = terms.as_name if terms.as_name is not None or held is None else held.name
    return Naming(one, terms.as_project, name, os.urandom(16).hex(), terms.renumber)


def _in_order(catalog: Catalog, version_ids: Sequence[str], *, history: bool) -> list[Version]:
    """The versions to transfer, parents first, otherwise in the order in which they were finalized."""
    ids = ancestors_of(catalog, version_ids) if history else dict.fromkeys(version_ids)
    found = {one.id: one for each in ids if (one := catalog.version(each)) is not None and not one.deleted}
    by_slot = sorted(found.values(), key=lambda one: one.slot)
    order = parents_first([one.id for one in by_slot], {one.id: one.entry.parents for one in by_slot})
    return [found[version_id] for version_id in order]


class _Transfer:
    """One call: takes versions one after another."""

    def __init__(
        self, source: Workspace, target: Workspace | None, naming: Naming, terms: Terms, *, show_progress: bool
    ) -> None:
        self.source = source
        self.target = target
        self.naming = naming
        self.terms = terms
        self.show_progress = show_progress
        self.bases = Bases(source.catalog)
        self.planned: set[str] = set()
        self.seen: set[bytes] = set()

    @property
    def there(self) -> Catalog:
        """The target's state."""
        return Catalog() if self.target is None else self.target.catalog

    def require_welcome(self, versions: Sequence[Version], asked_for: frozenset[str]) -> None:
        """See to it, before anything is sent, that the target can take these versions as it is now."""
        target = self.there
        for version in versions:
            there = target.version(version.id)
            if there is None:
                arrival(self.source.catalog, target, version, self.naming)
                continue
            require_same(version, there)
            if there.deleted and version.id in asked_for:
                raise Conflict(
                    f"The version {version.id} was deleted there, and an id is never used again.",
                    "Make a new version of it, which copies nothing: `dataset-store squash --ids ID --name NAME`; then "
                    "transfer that.",
                )

    def take(self, version: Version, which: str) -> Transferred:
        """Do what is to be done with one version."""
        there = self.there.version(version.id)
        if there is None:
            return self._measured(version) if self.target is None or self.terms.dry_run else self._sent(version, which)
        if there.deleted:
            return self._row(version, self.source.catalog, "deleted there")
        differ = differs(self.there, version)
        if self.target is not None and differ and not self.terms.dry_run:
            if self.terms.labels:
                make_equal(self.source, self.target, version)
            elif complete(self.source, self.target, version):
                differ = differs(self.there, version)
        return self._row(there, self.there, "there", labels_differ=differ)

    # --- one version that the target lacks ---

    def _sent(self, version: Version, which: str) -> Transferred:
        target = self._open_target()
        with progress_bar(f"sending {which} {self._title(version)}", 0, 0, show=self.show_progress) as bar:
            bringing = self._brought(version, bar)
        complete(self.source, target, version)
        sent = bringing.sender
        row = target.version(version.id)
        return self._row(row, target.catalog, "sent", bringing.files, (sent.new_bytes, sent.stored, len(sent.packs)))

    def _brought(self, version: Version, bar: Told) -> Bringing:
        """Bring a version; where what it would use was collected meanwhile, that is sent again."""
        target = self._open_target()
        for _ in range(_ATTEMPTS):
            base = self.bases.nearest(version, lambda one: is_live(target.catalog, one))
            there = target.version(base.id) if base is not None else None
            bringing = Bringing(self.source, target, version, self.naming, self._output(version))
            with self.source.reading(version.id, *([base.id] if base is not None else [])):
                if bringing.send(base, there, bar):
                    return bringing
        raise Conflict(
            f"What was sent of the version {version.id} was collected {_ATTEMPTS} times before it could be committed.",
            "Repeat the command, and collect with a --min-age that leaves it time.",
        )

    def _measured(self, version: Version) -> Transferred:
        """What would be sent, with what earlier versions of this call would bring."""
        catalog = self.there
        base = self.bases.nearest(version, lambda one: one in self.planned or is_live(catalog, one))
        there = catalog.version(base.id) if base is not None else None
        standing = _NONE if self.target is None else self.target.store.standings.now()
        files = size = 0
        for changes in changes_in_parts(self.source, base, version):
            found = wanted(self.source, self.target, there.entry.tree if there else None, changes, standing)
            missing = found.located.missing()
            ids = [found.stored.content_ids[row].tobytes() for row in missing.tolist()]
            fresh = [row for row, content in zip(missing.tolist(), ids, strict=True) if content not in self.seen]
            self.seen.update(ids)
            files += len(fresh)
            size += int(found.stored.sizes[fresh].sum(dtype=np.uint64))
        self.planned.add(version.id)
        place = arrival(self.source.catalog, catalog, version, self.naming)
        return self._row(version, catalog, "to send", files, (size, 0, 0), place=place)

    def _open_target(self) -> Workspace:
        assert self.target is not None  # noqa: S101  (only a dry run has none)
        return self.target

    def _output(self, version: Version) -> str | None:
        """The root where the packs of a version go; None for the store's own."""
        target = self._open_target()
        if self.terms.output is not None:
            return storage_url(target, self.terms.output)
        there = [one for each in version.entry.parents if (one := target.catalog.version(each)) is not None]
        return output_of(target.catalog, there[-1]) if there else None

    def _title(self, version: Version) -> str:
        series = self.source.catalog.series(version.series)
        return title_of(series.project, series.name, version.number) if series else version.number

    def _row(
        self,
        version: Version,
        catalog: Catalog,
        outcome: Outcome,
        files: int = 0,
        sent: tuple[int, int, int] = (0, 0, 0),
        *,
        place: Arrival | None = None,
        labels_differ: bool = False,
    ) -> Transferred:
        series = catalog.series(place.series if place else version.series)
        named = place.opens if place and place.opens else series
        project, name = (named.project, named.name) if named else ("", "")
        number = place.number if place else version.number
        return Transferred(version.id, project, name, number, outcome, files, *sent, labels_differ=labels_differ)
