"""Commands about damage: verify of a whole store, and repair."""

from argparse import Namespace
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from msgspec import to_builtins

from dataset_store.cli.output import json_out, lines_out, problem, shown, size
from dataset_store.cli.presenting import NOT_APPLIED, counted
from dataset_store.cli.session import store_url
from dataset_store.core.packfile import pack_key
from dataset_store.errors import InvalidRequest

if TYPE_CHECKING:
    from dataset_store.dataset.checks.repairing import Repair
    from dataset_store.dataset.checks.store_check import AffectedVersion, StoreCheck
    from dataset_store.dataset.checks.surveying import Depth
    from dataset_store.storage.findings import Finding

__all__ = ["repair", "verify_all"]

_CORRUPT = 5
_TOLD_AT_MOST = 20


def verify_all(arguments: Namespace) -> int:
    """Check a whole store; every byte of it, a sample of its data, or its structure only."""
    from dataset_store.dataset.checks.store_check import verify_store
    from dataset_store.dataset.workspace import open_workspace

    found = verify_store(open_workspace(), _depth(arguments), show_progress=True)
    if arguments.json:
        json_out(_check_document(found))
    else:
        lines_out([*map(_finding_line, found.findings), *_affected_lines(found.affected, whole=arguments.verbose)])
        lines_out([_verdict(found)])
    if found.sound:
        return 0
    problem(
        "Error",
        f"The store at {store_url()} is damaged.",
        "What is not named is unaffected. Keep every copy and folder of the versions named; "
        "`dataset-store repair` tells what can be restored.",
    )
    return _CORRUPT


def repair(arguments: Namespace) -> int:
    """Restore what a store has lost, or tell what could be restored."""
    from dataset_store.dataset.checks.repairing import repair_store
    from dataset_store.dataset.checks.surveying import EVERY_BYTE, STRUCTURE
    from dataset_store.dataset.workspace import open_workspace

    done = repair_store(
        open_workspace(),
        folders=arguments.folders or (),
        other=None if arguments.source is None else open_workspace(arguments.source),
        depth=STRUCTURE if arguments.structure else EVERY_BYTE,
        apply=arguments.apply,
        show_progress=True,
    )
    if arguments.json:
        json_out(_repair_document(done, applied=arguments.apply))
    else:
        lines_out([*map(_finding_line, done.findings), *_repair_lines(done, applied=arguments.apply)])
        lines_out([*_affected_lines(done.affected, whole=arguments.verbose)])
    if not done.affected and not done.left_alone:
        return 0
    lost = "stays lost" if arguments.apply else "would stay lost"
    problem(
        "Error",
        f"The store at {store_url()} cannot be restored in whole; what {lost} is named above.",
        "Name folders that may hold these files with --folder, or another store with --from; or bring the objects back "
        "from a backup.",
    )
    return _CORRUPT


def _repair_lines(done: "Repair", *, applied: bool) -> Iterator[str]:
    how = "restored" if applied else "can be restored"
    for one in done.packs:
        name = pack_key(one.pack.name)
        if one.superseded:
            yield f"{name}  another repaired or repacked it meanwhile: run this again"
            continue
        copied = f"{one.recovered} of its frames {how} from elsewhere, {one.frames - one.recovered} intact"
        left = f", {size(one.left)} are nowhere" if one.left else ""
        yield f"{name}  {copied}{left}"
    for pack in done.left_alone:
        yield f"{pack_key(pack.name)}  the log needs it where it is; only a backup of this object helps"
    if not done.packs and not done.left_alone:
        yield "There is nothing to repair in packs."
    elif not applied:
        yield NOT_APPLIED
    elif any(one.condemned for one in done.packs):
        yield "`dataset-store gc` deletes what is left of packs that were restored in whole."


def _repair_document(done: "Repair", *, applied: bool) -> dict[str, Any]:
    return {
        "store": store_url(),
        "applied": applied,
        "findings": [_finding_document(one) for one in done.findings],
        "packs": [
            {
                "storage": one.pack.storage,
                "pack": one.pack.name.hex(),
                "frames": one.frames,
                "recovered": one.recovered,
                "left_bytes": one.left,
                "slot": one.slot,
                "condemned": one.condemned,
                "superseded": one.superseded,
            }
            for one in done.packs
        ],
        "affected": [to_builtins(one) for one in done.affected],
        "left_alone": [{"storage": one.storage, "pack": one.name.hex()} for one in done.left_alone],
    }


def _depth(arguments: Namespace) -> "Depth":
    from dataset_store.dataset.checks.surveying import EVERY_BYTE, STRUCTURE, Depth
    from dataset_store.local.settings import parse_bytes

    if arguments.structure and arguments.sample is not None:
        raise InvalidRequest("--structure reads no data, and --sample some.", "Give one of them.")
    if arguments.sample is None:
        return STRUCTURE if arguments.structure else EVERY_BYTE
    seed = arguments.seed
    if arguments.sample.endswith("%"):
        return Depth(share=_percent(arguments.sample), seed=seed)
    return Depth(size=parse_bytes(arguments.sample, "--sample"), seed=seed)


def _percent(text: str) -> float:
    try:
        return float(text.removesuffix("%")) / 100
    except ValueError:
        raise InvalidRequest(f"{text!r} is no share.", "Give 5% or 10GiB, for example.") from None


def _check_document(found: "StoreCheck") -> dict[str, Any]:
    return {
        "store": store_url(),
        "sound": found.sound,
        "findings": [_finding_document(one) for one in found.findings],
        "affected": [to_builtins(one) for one in found.affected],
        "slots": found.slots,
        "versions": found.versions,
        "packs": found.packs,
        "bytes": found.bytes,
        "frames": found.frames,
        "frames_read": found.frames_read,
        "seed": found.seed,
    }


def _finding_document(one: "Finding") -> dict[str, Any]:
    return {
        "id": one.id,
        "severity": one.severity.value,
        "object": one.object,
        "storage": None if one.pack is None else one.pack.storage,
        "offset": one.offset,
        "length": one.length,
        "problem": one.problem,
    }


def _finding_line(one: "Finding") -> str:
    where = "" if one.offset is None else f" at {one.offset}"
    return f"{one.severity}  {one.id}  {shown(one.object)}{where}  {shown(one.problem)}"


def _affected_lines(affected: "tuple[AffectedVersion, ...]", *, whole: bool) -> Iterator[str]:
    for one in affected:
        names = [*one.paths, *(f"metadata {name!r}" for name in one.metadata)]
        names += [f"{counted(part.entries, 'entry')} that cannot be listed" for part in one.lost]
        yield f"version {one.id} lacks {counted(len(one.paths), 'file')}"
        told = names if whole else names[:_TOLD_AT_MOST]
        yield from (f"  {shown(name)}" for name in told)
        if len(told) < len(names):
            yield f"  and {len(names) - len(told)} more (--verbose)"


def _verdict(found: "StoreCheck") -> str:
    held = f"{counted(found.slots, 'log entry')}, {counted(found.versions, 'version')}, "
    held += f"{counted(found.packs, 'pack')} of {size(found.bytes)}"
    if not found.frames_read or found.frames_read == found.frames:
        read = f"{found.frames_read} of {counted(found.frames, 'data frame')} read"
    else:
        read = f"{found.frames_read} of {counted(found.frames, 'data frame')} read (seed {found.seed})"
    if found.overlooked is not None:
        read += f": damage of more than {100 * found.overlooked:.2g} % of them would have been met with 95 % certainty"
    return f"{held}; {read}; {'no damage found' if found.sound else 'damaged'}"
