"""Commands that keep a store small: gc, repack, expire. Each only tells what it would do unless it is applied."""

from argparse import Namespace
from collections.abc import Collection as Packs
from typing import TYPE_CHECKING, Any

from dataset_store.cli.output import json_out, lines_out, note, shown, size, table
from dataset_store.cli.presenting import NOT_APPLIED, counted
from dataset_store.cli.references import full_id, project_meant
from dataset_store.cli.session import store_url
from dataset_store.core.version_numbers import title_of
from dataset_store.errors import InvalidRequest

if TYPE_CHECKING:
    from dataset_store.core.catalog import Version
    from dataset_store.core.packfile import PackRef
    from dataset_store.dataset.upkeep.maintaining import Expiry
    from dataset_store.dataset.workspace import Workspace
    from dataset_store.storage.collecting import Collection
    from dataset_store.storage.repacking import Candidate

__all__ = ["expire", "gc", "repack"]


def gc(arguments: Namespace) -> int:
    """Delete the packs that nothing needs, or tell which these are."""
    from dataset_store.dataset.upkeep.maintaining import collect_garbage, drop_hold
    from dataset_store.dataset.workspace import open_workspace

    workspace = open_workspace()
    if arguments.drop_hold is not None:
        workspace.refresh()
        drop_hold(workspace, arguments.drop_hold)
    found = collect_garbage(workspace, min_age=arguments.min_age, apply=arguments.apply, show_progress=True)
    holds = sorted(workspace.catalog.packs.hold_ids)
    if arguments.json:
        json_out(_collection_document(found, holds, applied=arguments.apply))
        return 0
    for number, problem in sorted(found.listed.silent.items()):
        note(f"The storage {number} was left out: {problem.what}")
    lines_out(_collection_lines(found, holds, applied=arguments.apply))
    return 0


def repack(arguments: Namespace) -> int:
    """Copy what lives of wasteful packs, or of those of a version, into new packs."""
    from dataset_store.dataset.upkeep.maintaining import packs_of_version, repack_packs, wasteful_packs
    from dataset_store.dataset.workspace import open_workspace

    workspace = open_workspace()
    version = None
    if arguments.sequential is not None:
        workspace.refresh()
        version = workspace.live_version(full_id(arguments.sequential))
        found = packs_of_version(workspace, version)
    else:
        found = wasteful_packs(workspace, dead_share=arguments.dead / 100)
    document = {"store": store_url(), "applied": arguments.apply, "packs": [_candidate(one) for one in found]}
    lines = _candidates_lines(found)
    if arguments.apply and found:
        done = repack_packs(workspace, [one.pack for one in found], version, show_progress=True)
        document |= {"repacked": len(done.packs), "new_packs": len(done.new_packs), "new_bytes": done.new_bytes}
        document |= {"bytes": done.bytes, "slot": done.slot}
        freed = f"{counted(len(done.packs), 'pack')} of {size(done.bytes)} became "
        lines = [*lines, freed + f"{counted(len(done.new_packs), 'pack')} of {size(done.new_bytes)}."]
    elif found:
        lines = [*lines, NOT_APPLIED]
    if arguments.json:
        json_out(document)
    else:
        lines_out(lines)
    return 0


def expire(arguments: Namespace) -> int:
    """Delete the versions that no rule keeps, or tell which these are."""
    from dataset_store.core.catalog import Query
    from dataset_store.dataset.upkeep.maintaining import KeepRules
    from dataset_store.dataset.upkeep.maintaining import expire as expire_versions
    from dataset_store.dataset.workspace import open_workspace

    if (arguments.project is not None or arguments.name is not None) == arguments.all:
        raise InvalidRequest("Nothing says of which datasets.", "Give --name, --project or both, or --all.")
    project = arguments.project
    if arguments.name is not None and project is None:
        project = project_meant(None, arguments.name)
    rules = KeepRules(
        last=arguments.keep_last,
        within=arguments.keep_within,
        tagged=arguments.keep_tagged,
        tags=frozenset(arguments.keep_tags or ()),
    )
    workspace = open_workspace()
    query = Query(project, arguments.name, include_archived=True)
    found = expire_versions(workspace, query, rules, apply=arguments.apply)
    if arguments.json:
        json_out(_expiry_document(workspace, found, applied=arguments.apply))
        return 0
    lines_out(_expiry_lines(workspace, found, applied=arguments.apply))
    return 0


# --- what is told ----------------------------------------------------------------------------------------------------


def _collection_lines(found: "Collection", holds: list[str], *, applied: bool) -> list[str]:
    seen = found.survey
    told = [
        ("live", seen.live, "something needs them"),
        ("held", seen.held, "kept for an upload that once lost its packs (--drop-hold)"),
        ("young", seen.young, "may be of uploads under way (--min-age)"),
        ("condemned", seen.doomed, "of a collection that was broken off"),
        ("dead", seen.dead, "nothing needs them"),
    ]
    rows = [
        (name, str(len(packs)), size(found.listed.bytes_of(packs)), why)
        for name, packs, why in told
        if packs or name in {"live", "dead"}
    ]
    lines = table(("PACKS", "NUMBER", "BYTES", ""), rows, right=(1, 2))
    lines += [f"hold {hold}" for hold in holds]
    if applied:
        freed = size(found.listed.bytes_of(found.deleted))
        return [*lines, f"{counted(len(found.deleted), 'pack')} of {freed} deleted."]
    return [*lines, NOT_APPLIED] if seen.dead or seen.doomed else [*lines, "There is nothing to delete."]


def _collection_document(found: "Collection", holds: list[str], *, applied: bool) -> dict[str, Any]:
    def part(packs: "Packs[PackRef]") -> dict[str, int]:
        return {"packs": len(packs), "bytes": found.listed.bytes_of(frozenset(packs))}

    seen = found.survey
    return {
        "store": store_url(),
        "applied": applied,
        "listed": part(found.listed.packs.keys()),
        "live": part(seen.live),
        "held": part(seen.held),
        "young": part(seen.young),
        "condemned": part(seen.doomed),
        "dead": part(seen.dead),
        "deleted": part(found.deleted),
        "slot": found.slot,
        "holds": holds,
        "unlisted": [{"storage": number, "kind": one.kind} for number, one in sorted(found.listed.silent.items())],
    }


def _candidate(one: "Candidate") -> dict[str, Any]:
    return {
        "storage": one.pack.storage,
        "pack": one.pack.name.hex(),
        "bytes": one.size,
        "live": one.live,
        "dead_percent": round(100 * one.dead_share),
    }


def _candidates_lines(found: "list[Candidate]") -> list[str]:
    if not found:
        return ["There is nothing to repack."]
    rows = [(one.pack.name.hex(), size(one.size), size(one.live), f"{100 * one.dead_share:.0f} %") for one in found]
    return table(("PACK", "BYTES", "LIVE", "DEAD"), rows, right=(1, 2, 3))


def _expiry_lines(workspace: "Workspace", found: "Expiry", *, applied: bool) -> list[str]:
    rows = [(_title(workspace, one), one.id, "kept", why) for one, why in found.kept]
    rows += [(_title(workspace, one), one.id, "deleted" if applied else "would go", "") for one in found.expired]
    lines = table(("VERSION", "ID", "", "WHY"), sorted(rows))
    if not found.expired:
        return [*lines, "Every version is kept."]
    if not applied:
        return [*lines, NOT_APPLIED]
    return [*lines, f"{counted(len(found.expired), 'version')} deleted; `dataset-store gc` frees what they needed."]


def _expiry_document(workspace: "Workspace", found: "Expiry", *, applied: bool) -> dict[str, Any]:
    return {
        "store": store_url(),
        "applied": applied,
        "kept": [{"id": one.id, "title": _title(workspace, one), "why": why} for one, why in found.kept],
        "expired": [{"id": one.id, "title": _title(workspace, one)} for one in found.expired],
    }


def _title(workspace: "Workspace", version: "Version") -> str:
    series = workspace.catalog.series(version.series)
    assert series is not None  # noqa: S101  (a version belongs to one)
    return shown(title_of(series.project, series.name, version.number))
