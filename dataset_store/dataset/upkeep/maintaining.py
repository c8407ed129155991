"""Maintaining a store: collecting what nobody needs, repacking what is half dead, expiring versions by rule.

Each says first what it would do, from the same computation that does it; nothing is written unless it is applied. All
of it may run beside any number of writers and readers.
"""

import math
import os
import time
from collections.abc import Sequence

from msgspec import Struct

from dataset_store.core.catalog import Catalog, Query, Version
from dataset_store.core.entries import LISTED
from dataset_store.core.log_entries import ReleaseEntry
from dataset_store.core.nodes import Children, NodeRef
from dataset_store.core.packfile import PackRef, Place
from dataset_store.core.segments import segments_of
from dataset_store.core.tree import read_children
from dataset_store.dataset.catalog.changing import delete_versions
from dataset_store.dataset.catalog.overview import drafts_of
from dataset_store.dataset.entries.lists import with_lists
from dataset_store.dataset.progress import progress_bar
from dataset_store.dataset.workspace import Workspace, now_ns
from dataset_store.errors import InvalidRequest, NotFound
from dataset_store.local.summaries import Summaries
from dataset_store.storage.collecting import Collection, collect, list_packs, survey
from dataset_store.storage.liveness import Reached
from dataset_store.storage.repacking import Candidate, Repacked, candidates, repack
from dataset_store.storage.trees import place_of, root_of

__all__ = [
    "DEAD_SHARE",
    "MIN_AGE",
    "Expiry",
    "KeepRules",
    "collect_garbage",
    "drop_hold",
    "expire",
    "repack_packs",
    "wasteful_packs",
]

MIN_AGE = 24 * 3600.0
"""Seconds for which a pack that nothing needs is left, as an upload under way may be about to name it."""

DEAD_SHARE = 0.3
"""The part of a pack that must be dead for it to be worth repacking."""


def collect_garbage(
    workspace: Workspace, *, min_age: float = MIN_AGE, apply: bool = False, show_progress: bool = False
) -> Collection:
    """Condemn and delete the packs that nothing live needs, or tell which these are.

    Args:
        workspace: The store.
        min_age: Seconds; younger packs are left. For the progress of slow uploads only: 0 is safe at any time.
        apply: Do it; otherwise nothing is written.
        show_progress: Show a bar.

    Raises:
        InvalidRequest: `min_age` is negative.
        CorruptObject, ObjectMissing: A live version cannot be walked; nothing was collected.
        CommitOutcomeUnknown: Run it again; it goes on where it stopped.
        StorageFailed: The storage refused.
    """
    if min_age < 0:
        raise InvalidRequest("A pack cannot be younger than 0 seconds.", "Give a minimum age of 0 or more.")
    store, keeper = workspace.store, summaries_of(workspace)
    workspace.refresh().require("gc")
    older_than = time.time() - min_age if min_age else math.inf
    if not apply:
        listed, reached = list_packs(store), Reached(store.nodes, keeper)
        return Collection(listed, survey(store, listed, reached, older_than=older_than), None, frozenset())
    with progress_bar("deleting", None, show=show_progress) as told:
        return collect(store, keeper, older_than=older_than, now_ns=now_ns, told=told)


def drop_hold(workspace: Workspace, hold: str) -> None:
    """End a hold: what it kept of an upload that will never be finished can be collected.

    Raises:
        NotFound: There is no such hold, or it has ended.
    """

    def entry(catalog: Catalog, commit: str) -> ReleaseEntry:
        if hold not in catalog.packs.hold_ids:
            raise NotFound(f"There is no hold {hold}.", "`dataset-store gc` lists those that stand.")
        return ReleaseEntry(commit=commit, time=now_ns(), hold=hold)

    workspace.store.catalog.change(entry)


def summaries_of(workspace: Workspace) -> Summaries:
    """What this machine knows of what the store's nodes name."""
    return Summaries(os.path.join(workspace.settings.cache, workspace.store_id, "summaries"))


# --- repacking -------------------------------------------------------------------------------------------------------


def wasteful_packs(workspace: Workspace, *, dead_share: float = DEAD_SHARE) -> list[Candidate]:
    """The packs of which at least this part is dead, and that may be repacked.

    Raises:
        InvalidRequest: The share is none.
        CorruptObject, ObjectMissing: A live version cannot be walked.
        StorageFailed: The storage refused.
    """
    if not 0 < dead_share <= 1:
        raise InvalidRequest(f"{dead_share} is no part of a pack.", "Give a share above 0 and up to 1.")
    workspace.refresh().require("gc")
    listed = list_packs(workspace.store)
    return candidates(workspace.store, listed, summaries_of(workspace), dead_share)


def packs_of_version(workspace: Workspace, version: Version) -> list[Candidate]:
    """The packs in which a version lies, and that may be repacked. Raises as `wasteful_packs`."""
    named = {place.pack for place in reading_order(workspace, version)}
    found = candidates(workspace.store, list_packs(workspace.store), summaries_of(workspace))
    return [one for one in found if one.pack in named]


def repack_packs(
    workspace: Workspace, packs: Sequence[PackRef], first: Version | None = None, *, show_progress: bool = False
) -> Repacked:
    """Copy what is live of some packs into new ones, and delete the old ones.

    Args:
        workspace: The store.
        packs: Which.
        first: A version whose frames come first and in the order in which it is read.
        show_progress: Show a bar.

    Raises:
        CorruptObject: A frame is damaged; nothing was changed.
        CommitOutcomeUnknown: Run it again.
        StorageFailed: The storage refused.
    """
    order = reading_order(workspace, first) if first is not None else []
    with progress_bar("repacking", None, show=show_progress) as told:
        return repack(
            workspace.store,
            summaries_of(workspace),
            frozenset(packs),
            now_ns=now_ns,
            first=order,
            told=told,
        )


def reading_order(workspace: Workspace, version: Version) -> list[Place]:
    """Where the frames of a version are now: its nodes level by level, then contents in the order of their paths."""
    nodes, tree = workspace.store.nodes, version.entry.tree
    places, contents = [place_of(tree.census.place)], []
    refs: list[NodeRef] = [root_of(tree).ref]
    while refs:
        places += [ref.place for ref in refs]
        found = read_children(refs, nodes)
        refs = [ref for node in found if isinstance(node, Children) for ref in node.refs()]
        for leaf in found:
            if not isinstance(leaf, Children):
                whole = with_lists(leaf, nodes)
                listed = (leaf.kinds & LISTED) != 0
                contents += [one for row in range(len(leaf)) if listed[row] for one in segments_of(leaf, row)]
                contents += [one for row in range(len(whole)) for one in segments_of(whole, row)]
    places += [one.place for one in contents]
    return [now for parts in workspace.store.standings.moved(places) for now in parts]


# --- expiring --------------------------------------------------------------------------------------------------------


class KeepRules(Struct, frozen=True):
    """Which versions of a dataset are kept: those that any of the rules keeps.

    Attributes:
        last: So many of the highest version numbers; None: no such rule.
        within: Those finalized in the last so many seconds, by the clocks of their makers; None: no such rule.
        tagged: Those that carry any tag.
        tags: Those that carry one of these.
    """

    last: int | None = None
    within: float | None = None
    tagged: bool = False
    tags: frozenset[str] = frozenset()

    @property
    def are_none(self) -> bool:
        """Whether there is no rule at all."""
        return self.last is None and self.within is None and not self.tagged and not self.tags


class Expiry(Struct, frozen=True):
    """What a rule does with the versions of some datasets, each with the reason.

    Attributes:
        kept: Versions, with what keeps them.
        expired: The rest.
    """

    kept: tuple[tuple[Version, str], ...]
    expired: tuple[Version, ...]


def expire(workspace: Workspace, query: Query, rules: KeepRules, *, apply: bool = False) -> Expiry:
    """Delete the versions that no rule keeps, or tell which these are.

    What nothing else needs of them is left to `collect_garbage`. Published versions are kept, and those that a draft
    of this machine is made from. Versions made from an expired one stay whole; that they were made from it is still
    recorded.

    Args:
        workspace: The store.
        query: Which datasets, by name, project or both; every rule counts for each of them alone.
        rules: What is kept.
        apply: Do it; otherwise nothing is written.

    Raises:
        InvalidRequest: There is no rule, or one that means nothing.
        NotFound: No dataset matches.
    """
    _require_sound(rules)
    needed = {parent for draft in drafts_of(workspace) for parent in draft.parents}
    found: list[Expiry] = []

    def choose(catalog: Catalog) -> Sequence[Version]:
        found.append(_expiry(catalog, query, rules, needed, time.time()))
        return found[-1].expired

    if not choose(workspace.refresh()) or not apply:
        return found[-1]
    delete_versions(workspace, choose, force=True)
    return found[-1]


def _require_sound(rules: KeepRules) -> None:
    if rules.are_none:
        raise InvalidRequest(
            "Nothing says which versions to keep.", "Give --keep-last, --keep-within or --keep-tagged."
        )
    if (rules.last is not None and rules.last < 0) or (rules.within is not None and rules.within < 0):
        raise InvalidRequest("A number of versions or days below 0 means nothing.", "Give 0 or more.")


def _expiry(catalog: Catalog, query: Query, rules: KeepRules, needed: set[str], now: float) -> Expiry:
    kept: list[tuple[Version, str]] = []
    expired: list[Version] = []
    by_series: dict[str, list[Version]] = {}
    for version in catalog.matching(query):
        by_series.setdefault(version.series, []).append(version)
    if not by_series:
        raise NotFound(
            f"No version has {query.in_words()}.", "List what there is with `dataset-store list --versions`."
        )
    for series in by_series:
        # The highest first; archived ones count like any other.
        for place, version in enumerate(reversed(catalog.versions_of(series))):
            why = _why_kept(version, place, rules, needed, now)
            if why:
                kept.append((version, why))
            else:
                expired.append(version)
    return Expiry(tuple(kept), tuple(expired))


def _why_kept(version: Version, place: int, rules: KeepRules, needed: set[str], now: float) -> str:
    """What keeps a version that is the `place`-th highest of its dataset, from 0; nothing where it expires."""
    carried = sorted(version.tags & rules.tags) or (sorted(version.tags) if rules.tagged else [])
    if version.published:
        return "published"
    if version.id in needed:
        return "a draft is made from it"
    if rules.last is not None and place < rules.last:
        return f"one of the last {rules.last}"
    if carried:
        return f"tagged {', '.join(carried)}"
    if rules.within is not None and now - version.entry.time / 1e9 <= rules.within:
        return "young enough"
    return ""
