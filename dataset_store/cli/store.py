"""Commands about what is kept and whether it is sound: verify, stats, doctor."""

import os
import platform
import sys
from argparse import Namespace
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from msgspec import Struct, to_builtins
from msgspec.structs import replace

from dataset_store import __version__
from dataset_store.cli.output import json_out, lines_out, problem, shown, size, table
from dataset_store.cli.presenting import counted, identity, summary_document, title
from dataset_store.cli.session import is_named, store_given, store_url, version_meant
from dataset_store.core.version_numbers import title_of
from dataset_store.errors import DatasetStoreError, InvalidRequest, NotFinal

if TYPE_CHECKING:
    from dataset_store.dataset import Dataset
    from dataset_store.dataset.catalog.overview import StorageUsage, StoreUsage
    from dataset_store.dataset.catalog.usage import DataUsage
    from dataset_store.dataset.checks.surviving import Lost
    from dataset_store.dataset.checks.verifying import FolderReport, StoreReport
    from dataset_store.dataset.workspace import Workspace

__all__ = ["config", "doctor", "stats", "verify"]

_FAILED = 1
_CORRUPT = 5
_COPIES = "copies"


# --- verify ------------------------------------------------------------------------------------------------------


def verify(arguments: Namespace) -> int:
    """Check a folder against a version, or a version's bytes in the store, or all of the store."""
    _require_one_meaning(arguments)
    if arguments.all:
        from dataset_store.cli.mending import verify_all

        return verify_all(arguments)
    dataset = _final(version_meant(arguments))
    return _verify_stored(dataset, arguments) if arguments.folder is None else _verify_folder(dataset, arguments)


def _require_one_meaning(arguments: Namespace) -> None:
    if arguments.filesize and arguments.folder is None:
        raise InvalidRequest("--filesize compares a folder with a version.", "Add --folder DIR.")
    if arguments.links and arguments.folder is not None:
        raise InvalidRequest("--links asks what a version's links lead to, and no folder.", "Leave out --folder.")
    of_one = (arguments.id, arguments.project, arguments.name, arguments.version, arguments.folder)
    if arguments.all and (arguments.links or any(one is not None for one in of_one)):
        raise InvalidRequest("--all checks the store, and no single version or folder.", "Leave out the rest.")
    if not arguments.all and (arguments.structure or arguments.sample is not None):
        raise InvalidRequest("--structure and --sample are ways to check a whole store.", "Add --all.")


def _verify_folder(dataset: "Dataset", arguments: Namespace) -> int:
    from dataset_store.dataset.checks.verifying import verify_folder
    from dataset_store.dataset.workspace import open_workspace

    report = verify_folder(open_workspace(), dataset.id, arguments.folder, sizes_only=arguments.filesize)
    found = {"missing": report.missing, "modified": report.modified, "extra": report.extra}
    if arguments.json:
        json_out(identity(dataset) | {"folder": arguments.folder, "matches": report.matches} | found)
    else:
        lines_out([f"{how}  {shown(path)}" for how, paths in found.items() for path in paths])
        lines_out([_folder_verdict(dataset, arguments, report)])
    return 0 if report.matches else _FAILED


def _folder_verdict(dataset: "Dataset", arguments: Namespace, report: "FolderReport") -> str:
    names = f"{shown(arguments.folder)} and {shown(title(dataset))}"
    if report.matches:
        same = "sizes" if arguments.filesize else "contents"
        return f"{names} agree: {counted(report.entries, 'entry')}, equal {same}"
    sums = f"{len(report.missing)} missing, {len(report.modified)} modified, {len(report.extra)} extra"
    return f"{names} differ: {sums}"


def _verify_stored(dataset: "Dataset", arguments: Namespace) -> int:
    from dataset_store.dataset.checks.verifying import verify_stored
    from dataset_store.dataset.workspace import open_workspace

    report = verify_stored(open_workspace(), dataset.id, ask_links=arguments.links, show_progress=True)
    if arguments.json:
        json_out(identity(dataset) | _stored_document(report))
    else:
        lines_out(list(_stored_lines(report, problems=arguments.verbose)))
        lines_out([f"{shown(title(dataset))}: {_stored_verdict(report)}"])
    if not report.sound:
        problem(
            "Error",
            f"The store at {store_url()} is damaged.",
            "Versions that do not hold what is named are unaffected: verify each. Keep every folder that holds these "
            "files.",
        )
        return _CORRUPT
    return _FAILED if report.broken else 0


def _stored_document(report: "StoreReport") -> dict[str, Any]:
    broken = report.broken or ()
    return {
        "sound": report.sound,
        "entries": report.entries,
        "bytes": report.bytes,
        "packs": report.packs,
        "damaged": [to_builtins(one) | {"path": one.path or None} for one in report.damaged],
        "lost": [to_builtins(one) for one in report.lost],
        "links": {
            "count": report.links,
            "asked": report.broken is not None,
            "broken": [to_builtins(one) for one in broken],
        },
    }


def _stored_lines(report: "StoreReport", *, problems: bool) -> Iterator[str]:
    for one in report.damaged:
        # What belongs to no single file is told in any case.
        told = problems or not one.path
        yield "  ".join(["damaged", *filter(None, (shown(one.path), shown(one.problem) if told else ""))])
    for part in report.lost:
        yield f"lost  {_lost_range(part)}  {shown(part.problem)}"
    for link in report.broken or ():
        yield "  ".join([link.state, shown(link.path), shown(link.url), *([shown(link.problem)] if problems else [])])


def _lost_range(part: "Lost") -> str:
    """Where the entries of a lost node lay, and how many there were."""
    first = "" if part.first is None else f" from {shown(part.first)!r}"
    before = "" if part.before is None else f" up to before {shown(part.before)!r}"
    return f"{f'{first}{before}'.strip() or 'the tree'} ({counted(part.entries, 'entry')})"


def _stored_verdict(report: "StoreReport") -> str:
    held = f"{counted(report.entries, 'entry')}, {size(report.bytes)}"
    if report.sound:
        return f"{held}, {counted(report.packs, 'pack')} read, all sound{_links_verdict(report)}"
    files = sum(1 for one in report.damaged if one.path)
    wrong = {
        f"{counted(files, 'entry')} damaged": files,
        f"{counted(len(report.damaged) - files, 'object')} damaged": len(report.damaged) - files,
        f"{counted(sum(one.entries for one in report.lost), 'entry')} lost": report.lost,
    }
    said = ", ".join(text for text, there_is in wrong.items() if there_is)
    return f"{held} in {counted(report.packs, 'pack')}: {said}{_links_verdict(report)}"


def _links_verdict(report: "StoreReport") -> str:
    links = counted(report.links, "external link")
    if report.broken is None:
        return f"; what {links} {'leads' if report.links == 1 else 'lead'} to was not read" if report.links else ""
    how = Counter(one.state for one in report.broken)
    told = ", ".join(f"{how[state]} {state}" for state in ("changed", "missing", "unreachable") if how[state])
    return f"; {links}: {told or 'as when linked'}"


def _final(dataset: "Dataset") -> "Dataset":
    if not dataset.is_final():
        raise NotFinal(f"The version {dataset.id} is not final.", f"Run `dataset-store close --id {dataset.id}` first.")
    return dataset


# --- stats -------------------------------------------------------------------------------------------------------


def stats(arguments: Namespace) -> int:
    """Tell how much a store holds: one version, or all."""
    from dataset_store.core.catalog import Query
    from dataset_store.dataset.catalog.overview import summary_of, usage_of, versions_of
    from dataset_store.dataset.workspace import open_workspace

    chosen = _final(version_meant(arguments)) if is_named(arguments) else None
    workspace = open_workspace()
    deep = _data_usage(workspace) if arguments.deep else None
    usage = usage_of(workspace)
    if deep is not None:
        usage = replace(usage, linked_bytes=sum(one.linked_bytes for one in deep.versions))
    if chosen is not None:
        rows = [summary_of(workspace, workspace.version(chosen.id))]
    else:
        rows = versions_of(workspace, Query(include_archived=True))
    if arguments.json:
        versions = [summary_document(row) | _deep_document(deep, row.id) for row in rows]
        totals = _usage_document(usage) | ({} if deep is None else {"compression": deep.compression})
        json_out({"store": store_url(), "usage": totals, "versions": versions})
        return 0
    header = ("DATASET", "VERSION", "ENTRIES", "SIZE", "ADDED", "MODIFIED", "REMOVED", "ID")
    cells = [
        (
            title_of(row.project, row.name, ""),
            row.number,
            *map(str, (row.entries, size(row.bytes or 0), row.added, row.modified, row.removed)),
            row.id,
        )
        for row in rows
    ]
    lines_out([*table(header, cells, right=range(2, 7)), "", *_usage_lines(usage)])
    if deep is not None:
        lines_out(_deep_lines(deep, {row.id for row in rows}))
    return 0


def _data_usage(workspace: "Workspace") -> "DataUsage":
    from dataset_store.dataset.catalog.usage import data_usage

    return data_usage(workspace, list(workspace.catalog.live_versions()))


def _deep_document(deep: "DataUsage | None", version_id: str) -> dict[str, Any]:
    found = next((one for one in deep.versions if one.id == version_id), None) if deep is not None else None
    if found is None:
        return {}
    return {
        "stored_bytes": found.stored_bytes,
        "own_bytes": found.own_bytes,
        "ranges": found.ranges,
        "ranges_per_gib": found.ranges_per_gib,
    }


def _deep_lines(deep: "DataUsage", ids: set[str]) -> list[str]:
    ratio = deep.compression
    rows = [
        (size(one.stored_bytes), size(one.own_bytes), str(one.ranges), _decimal(one.ranges_per_gib), one.id)
        for one in deep.versions
        if one.id in ids
    ]
    told = "-" if ratio is None else f"{ratio:.2f} plain bytes for each stored byte of data"
    return [
        f"compression    {told}",
        "",
        *table(("STORED", "ITS OWN", "RANGES", "PER GiB", "ID"), rows, right=range(4)),
    ]


def _decimal(number: float | None) -> str:
    return "-" if number is None else f"{number:.1f}"


def _usage_document(usage: "StoreUsage") -> dict[str, Any]:
    return {
        "packs": {"count": usage.packs, "bytes": usage.pack_bytes},
        "storages": [
            {"number": one.number, "url": one.url, "packs": one.packs, "bytes": one.bytes, "problem": one.problem}
            for one in usage.storages
        ],
        "log": {"count": usage.log_entries, "bytes": usage.log_bytes},
        "checkpoints": {"count": usage.checkpoints, "bytes": usage.checkpoint_bytes},
        "stored_bytes": usage.stored_bytes,
        "versions": usage.versions,
        "logical_bytes": usage.logical_bytes,
        "deduplication": usage.deduplication,
    }


def _usage_lines(usage: "StoreUsage") -> list[str]:
    ratio = usage.deduplication
    several = len(usage.storages) > 1
    return [
        f"store          {shown(store_url())}",
        f"packs          {size(usage.pack_bytes)} in {usage.packs}{'' if usage.is_whole else ' that could be counted'}",
        *(f"  storage {one.number:<5}{_storage_text(one)}" for one in usage.storages if several),
        f"log            {size(usage.log_bytes)} in {usage.log_entries}, checkpoints {size(usage.checkpoint_bytes)}",
        f"versions       {size(usage.logical_bytes)} in {usage.versions}",
        f"deduplication  {'-' if ratio is None else f'{ratio:.2f} bytes of versions for each stored byte'}",
    ]


def _storage_text(one: "StorageUsage") -> str:
    held = f"{size(one.bytes)} in {one.packs}" if one.problem is None else f"cannot be listed: {shown(one.problem)}"
    return f"{held}  {shown(one.url)}"


# --- doctor ------------------------------------------------------------------------------------------------------


class _Finding(Struct, frozen=True):
    """One thing that doctor looked at. `value` is what `--json` gives, `text` what people read."""

    name: str
    value: Any
    text: str
    sound: bool = True


def config(arguments: Namespace) -> int:
    """Print or change settings."""
    from dataset_store.local.settings import change_settings, config_file, settings_sources

    changes: dict[str, str | None] = dict.fromkeys(arguments.unset or ())
    for pair in arguments.set or ():
        name, is_pair, value = pair.partition("=")
        if not is_pair:
            raise InvalidRequest(f"{pair!r} is no setting.", "Write NAME=VALUE.")
        changes[name] = value
    if changes:
        change_settings(changes)
    found = settings_sources()
    if arguments.json:
        values = {name: {"value": value, "source": source} for name, (value, source) in found.items()}
        json_out({"file": config_file(), "settings": values})
        return 0
    lines_out(table(("SETTING", "VALUE", "FROM"), [(name, *about) for name, about in found.items()]))
    return 0


def doctor(arguments: Namespace) -> int:
    """Tell what this installation is made of, and whether the store can be reached; try a store that is named."""
    store = [*_store_findings()]
    if arguments.store is not None and all(finding.sound for finding in store):
        store += _trial()
    findings = [*_installation(), *store, *_folders()]
    sound = all(finding.sound for finding in findings)
    if arguments.json:
        json_out({finding.name: finding.value for finding in findings} | {"sound": sound})
    else:
        rows = [("ok" if one.sound else "!!", one.name.replace("_", " "), one.text) for one in findings]
        lines_out(table(("", "WHAT", ""), rows)[1:])
    return 0 if sound else _FAILED


def _fact(name: str, value: str, about: str = "") -> _Finding:
    return _Finding(name, value, f"{value} ({about})" if about else value)


def _installation() -> Iterator[_Finding]:
    import blake3
    import lmdb
    import numpy as np
    import zstandard

    from dataset_store.core.chunking import ACTIVE_KERNEL
    from dataset_store.core.key_tables import compiled as keys_compiled
    from dataset_store.local.batches import compiled as files_compiled

    native = find_spec("dataset_store.core._cdc")
    yield _fact("version", __version__)
    yield _fact("python", platform.python_version(), sys.executable)
    yield _fact("platform", platform.platform())
    yield _fact("chunking_kernel", ACTIVE_KERNEL, "compiled" if ACTIVE_KERNEL == "c" else "slower, same cuts")
    yield _Finding(
        "native_file",
        native.origin if native else None,
        str(native.origin) if native else "absent: reinstall where there is a C compiler",
        # Absent is slow; there and not usable is broken.
        sound=native is None or ACTIVE_KERNEL == "c",
    )
    for name, compiled in (("files_in_batches", files_compiled()), ("keys_in_batches", keys_compiled())):
        yield _fact(name, *(("yes", "compiled") if compiled else ("no", "slower, one by one")))
    yield _fact("lmdb", ".".join(map(str, lmdb.version())), f"python package {lmdb.__version__}")
    yield _fact("zstd", ".".join(map(str, zstandard.ZSTD_VERSION)), f"python package {zstandard.__version__}")
    yield _fact("blake3", blake3.__version__)
    yield _fact("numpy", np.__version__)


def _store_findings() -> Iterator[_Finding]:
    """Whether the store answers, asked of itself: what this machine remembers of it does not count."""
    from dataset_store.core.envelope import decode_config
    from dataset_store.storage.storages import backend_at
    from dataset_store.storage.store import fetch_config

    url = store_url()
    yield _fact("store", url)
    try:
        backend = backend_at(store_given())
        config = fetch_config(backend)
        store_id = decode_config(config, f"the config of {backend.describe()}").store if config is not None else None
    except DatasetStoreError as error:
        yield _Finding("reachable", False, shown(str(error)), sound=False)
        yield _Finding("store_id", None, "unknown")
        return
    yield _Finding("reachable", True, "yes")
    yield _Finding("store_id", store_id, store_id or "no store yet: the first `dataset-store create` makes it")


def _trial() -> Iterator[_Finding]:
    """What came of trying the storage itself: seconds, and some requests."""
    from dataset_store.local.settings import load_settings
    from dataset_store.storage.checkup import check_storage
    from dataset_store.storage.filesystems import is_remote, local_path
    from dataset_store.storage.storages import backend_at

    url = store_given()
    if not (is_remote(url) or os.path.isdir(local_path(url))):
        return  # the first `create` makes the folder; there is nothing to try yet
    for one in check_storage(backend_at(url, single_writer=load_settings().single_writer)):
        yield _Finding(one.id, {"sound": one.sound, "text": one.text, **one.figures}, one.text, sound=one.sound)


def _folders() -> Iterator[_Finding]:
    """Where this machine keeps things, and how much."""
    from dataset_store.local.settings import config_file, load_settings

    settings = load_settings()
    written = config_file()
    yield _fact("settings_file", written, "" if os.path.exists(written) else "does not exist")
    yield _fact("cache", settings.cache)
    indexes = _disk_bytes(settings.cache)
    yield _Finding("index_bytes", indexes, size(indexes))
    copies = _local_copies(settings.cache)
    yield _Finding("local_copies", len(copies), str(len(copies)))
    yield _Finding(
        "local_copy_bytes", sum(copies), f"{size(sum(copies))}, at most {size(settings.cache_bytes)} of each store"
    )
    yield _fact("data", settings.data)
    drafts = os.path.join(settings.data, "drafts")
    count = sum(len(_names(os.path.join(drafts, store))) for store in _names(drafts))
    yield _Finding("drafts", count, f"{count}, {size(_disk_bytes(drafts))}")


def _local_copies(cache: str) -> list[int]:
    """The bytes of each local copy, of whatever store, as its stamp says; their files are not looked at."""
    from dataset_store.local.local_copies import LocalCopies

    folders = [os.path.join(cache, store, _COPIES) for store in _names(cache)]
    return [copy.stamp.size for folder in folders for copy in LocalCopies(folder, 0).all()]


def _disk_bytes(folder: str) -> int:
    """What the files below a folder take on the disk, local copies left out."""
    total = 0
    for here, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if name != _COPIES]
        for name in files:
            with suppress(FileNotFoundError):
                total += os.lstat(os.path.join(here, name)).st_blocks * 512
    return total


def _names(folder: str) -> list[str]:
    try:
        return sorted(os.listdir(folder))
    except (FileNotFoundError, NotADirectoryError):
        return []
