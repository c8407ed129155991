"""Commands that bring versions into another store, or from one: push, pull, clone."""

from argparse import Namespace
from typing import TYPE_CHECKING, Any

from dataset_store.cli.output import json_out, lines_out, shown, size
from dataset_store.cli.presenting import counted
from dataset_store.cli.references import full_id, full_ids, require_one_dataset
from dataset_store.cli.session import is_named, store_url, version_meant
from dataset_store.core.urls import redacted
from dataset_store.core.version_numbers import title_of
from dataset_store.errors import InvalidRequest, NotFinal

if TYPE_CHECKING:
    from dataset_store.core.catalog import Query
    from dataset_store.dataset import Dataset
    from dataset_store.dataset.transfers.transferring import Transferred, TransferReport
    from dataset_store.dataset.workspace import Workspace

__all__ = ["clone", "pull", "push"]

_TOLD = {"there": "is there already", "deleted there": "was deleted there, and is passed over"}


def push(arguments: Namespace) -> int:
    """Send a version and its history to another store."""
    from dataset_store.dataset.transfers.transferring import chosen
    from dataset_store.dataset.workspace import open_workspace

    _require_one_choice(arguments)
    if arguments.all:
        ids = chosen(open_workspace(), [], _query(arguments), every=True)
    else:
        ids = [_final(version_meant(arguments)).id]
    return _transfer(open_workspace(), arguments.url, ids, arguments)


def pull(arguments: Namespace) -> int:
    """Fetch a version and its history from another store."""
    from dataset_store.dataset.transfers.transferring import chosen
    from dataset_store.dataset.workspace import open_workspace

    _require_one_choice(arguments)
    source = open_workspace(arguments.url)
    ids = [] if arguments.id is None else [full_id(arguments.id, source)]
    if not (ids or arguments.all):
        source.refresh()
        require_one_dataset(source.catalog, arguments)
    found = chosen(source, ids, _query(arguments), every=arguments.all)
    return _transfer(source, None, found, arguments)


def clone(arguments: Namespace) -> int:
    """Bring all versions of a store into another one."""
    from dataset_store.dataset.transfers.transferring import chosen
    from dataset_store.dataset.workspace import open_workspace

    source = open_workspace(arguments.url)
    ids = full_ids(arguments.ids, source) if arguments.ids else []
    found = chosen(source, ids, _query(arguments), every=True)
    return _transfer(source, arguments.to, found, arguments)


def _final(dataset: "Dataset") -> "Dataset":
    if not dataset.is_final():
        raise NotFinal(f"The version {dataset.id} is not final.", "Close it first, then repeat.")
    return dataset


def _require_one_choice(arguments: Namespace) -> None:
    if arguments.id is not None and (arguments.all or arguments.project or arguments.name or arguments.tags):
        raise InvalidRequest("An id was given together with other names, or --all.", "Give one or the other.")
    if arguments.command == "pull" and not (arguments.all or is_named(arguments)):
        raise InvalidRequest("No version is named.", "Name one (--id, --project, --name, --tags), or give --all.")


def _query(arguments: Namespace) -> "Query":
    from dataset_store.core.catalog import Query
    from dataset_store.core.tag_filters import parse_tags

    return Query(
        project=arguments.project,
        name=arguments.name,
        version=getattr(arguments, "version", None),
        tags=parse_tags(arguments.tags or ()),
        include_archived=getattr(arguments, "all", True),
    )


def _transfer(source: "Workspace", target_url: str | None, ids: list[str], arguments: Namespace) -> int:
    from dataset_store.dataset.sharing import target_workspace
    from dataset_store.dataset.transfers.transferring import Terms, transfer

    terms = Terms(
        history=not getattr(arguments, "no_history", False),
        labels=arguments.labels,
        as_name=getattr(arguments, "as_name", None),
        as_project=getattr(arguments, "as_project", None),
        renumber=getattr(arguments, "renumber", False),
        output=arguments.storage,
        dry_run=arguments.dry_run,
    )
    target = target_workspace(target_url, dry_run=terms.dry_run)

    def told(row: "Transferred") -> None:
        if not arguments.json and (row.outcome != "there" or arguments.verbose or row.id in ids):
            lines_out([_line(row)])

    report = transfer(source, target, ids, terms, told=told)
    if arguments.json:
        place = store_url() if target_url is None else redacted(target_url)
        json_out({"source": source.store.backend.describe(), "target": place} | _document(report))
    else:
        lines_out([_sum(report)])
    return 0


def _line(row: "Transferred") -> str:
    return f"{shown(title_of(row.project, row.name, row.number))} {row.id} {_what(row)}"


def _what(row: "Transferred") -> str:
    contents = f"{counted(row.files, 'file')}, {size(row.new_bytes)}"
    if row.outcome == "sent":
        return f"copied: {contents} new; {size(row.stored)} in {counted(row.packs, 'pack')}"
    if row.outcome == "to send":
        return f"would be copied: {contents} new at most"
    labels = "; its labels differ: --labels makes them equal" if row.labels_differ else ""
    return _TOLD[row.outcome] + labels


def _sum(report: "TransferReport") -> str:
    done, left = report.of("sent"), report.of("to send")
    there = f"{len(report.of('there'))} there already"
    if left:
        return f"{counted(len(left), 'version')} to copy, {there}; {size(report.new_bytes)} at most, before compression"
    return f"{counted(len(done), 'version')} copied, {there}; {size(report.stored)} in {counted(report.packs, 'pack')}"


def _document(report: "TransferReport") -> dict[str, Any]:
    rows = [
        {
            "id": row.id,
            "project": row.project,
            "name": row.name,
            "version": row.number,
            "outcome": row.outcome.replace(" ", "-"),
            "files": row.files,
            "new_bytes": row.new_bytes,
            "stored": row.stored,
            "packs": row.packs,
            "labels_differ": row.labels_differ,
        }
        for row in report.versions
    ]
    return {"versions": rows, "new_bytes": report.new_bytes, "stored": report.stored, "packs": report.packs}
