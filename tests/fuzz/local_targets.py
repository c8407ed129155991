"""The decoders of what lies on this machine, of what users write, and of values kept with versions."""

import atexit
import gzip
import io
import json
import os
import tarfile
import tempfile
import zipfile
from contextlib import suppress
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
from mutation import Layer, Target, changed_json
from stored_targets import CONFIGS, FRAMES, GOLDEN, PACKS

from dataset_store.core import key_tables, packfile
from dataset_store.core.digest import PackName, hash32
from dataset_store.core.entries import Changes, make_entries
from dataset_store.core.envelope import object_digest
from dataset_store.core.frames import FrameKind
from dataset_store.core.packfile import PackRef
from dataset_store.core.paths import (
    MAX_COMPONENTS,
    MAX_NAME_BYTES,
    MAX_PATH_BYTES,
    check_key,
    check_keys,
    directory_key,
    link_stays_inside,
    portability_problems,
    to_key,
    to_path,
    to_text,
)
from dataset_store.core.urls import has_secrets, is_remote, redacted, require_whole_scheme, scheme_of
from dataset_store.core.version_numbers import increment, rank
from dataset_store.core.wildcards import globbed, matching
from dataset_store.dataset.annotations.arrow import decode_value, encode_value
from dataset_store.dataset.annotations.reports import Report, decode_reports
from dataset_store.errors import Corrupt, DatasetStoreError, InvalidRequest
from dataset_store.local import current_draft, draft_records, ignore, settings, stat_cache
from dataset_store.local.archives import extract_archive
from dataset_store.local.chunk_index import ChunkIndex, _sealed
from dataset_store.local.draft_records import Labels, Metadata, Opened, Output, Source
from dataset_store.local.drafts import Draft
from dataset_store.local.local_copies import LocalCopies
from dataset_store.local.removal import remove_tree
from dataset_store.storage.catalog_cache import CatalogCache
from dataset_store.storage.log_reader import Position

__all__ = ["TARGETS"]

SCRATCH = Path(tempfile.mkdtemp(prefix="fuzz-", dir="/dev/shm" if os.path.isdir("/dev/shm") else None))
atexit.register(remove_tree, os.fsencode(SCRATCH))


# --- caches ------------------------------------------------------------------------------------------------------


class _Environment:
    """What an LMDB environment answers: one value, whatever the key."""

    def __init__(self, value: bytes) -> None:
        self.value = value

    def get_many(self, keys: Any) -> list[bytes]:
        return [self.value for _ in keys]

    def write(self, _: Any) -> None:
        """Keep nothing."""


PACK = PackRef(0, PackName(bytes(16)))
_FOOTER_KEY = b"f" + bytes(20)


def _index(data: bytes) -> None:
    """A value of each of the chunk index's tables, as it is and behind the checksum that it should have."""
    index = ChunkIndex.__new__(ChunkIndex)
    for key in (b"c" + bytes(32), b"s" + bytes(32), _FOOTER_KEY):
        for value in (data, _sealed(key, data)):
            index._environment = _Environment(value)
            index.find_many([bytes(32)])
            index.find_contents([bytes(32)])
            with suppress(Corrupt):
                index.footer(PACK)


def _footer_bodies() -> list[bytes]:
    found = []
    for pack in PACKS:
        trailer = packfile._parse_trailer(pack, "a pack")
        found.append(pack[trailer.start : trailer.start + trailer.length])
    return found


def _stat_value(names: list[bytes]) -> bytes:
    count = len(names)
    columns = b"".join((bytes(range(256)) * count)[: 32 * count] for _ in range(2)) + bytes([1] * count)
    text = b"\0".join(names)
    return stat_cache._HEADER.pack(b"DSS1", count, len(text)) + bytes(16) + columns + text


def _resealed_stat(data: bytes) -> bytes:
    head, body = data[: stat_cache._HEADER.size], data[stat_cache._START :]
    return head + stat_cache._checksum(head, body) + body


def _stat(data: bytes) -> None:
    stored = stat_cache._decode(data)
    assert stored is None or stored.stat.shape[1] == len(stored.ids) == len(stored.mask)


def _key_table(data: bytes) -> None:
    """A number of keys, their ends, and the keys: compiled code gives the keys, or none where a rule is broken."""
    count = data[0] if data else 0
    ends, raw = data[1 : 1 + 4 * count], data[1 + 4 * count :]
    if key_tables._keys is not None:
        keys = key_tables._keys.cut_keys(raw, ends, MAX_PATH_BYTES, MAX_NAME_BYTES, MAX_COMPONENTS)
        if keys is not None:
            assert list(check_keys(keys)) == keys
            assert (b"".join(keys), np.cumsum([len(key) for key in keys]).astype("<u4").tobytes()) == (raw, ends)


def _key_tables() -> list[bytes]:
    tables = [[b"a", b"b\0c", b"b\0d"], [b"n" * 255], [b"x" * 30 + bytes([48 + n]) for n in range(9)]]
    ends = [np.cumsum([len(key) for key in keys]).astype("<u4").tobytes() for keys in tables]
    return [bytes([len(keys)]) + some + b"".join(keys) for keys, some in zip(tables, ends)]


def _log_file(data: bytes) -> None:
    """The file of log objects that this machine keeps."""
    folder = SCRATCH / "catalog"
    folder.mkdir(exist_ok=True)
    (folder / "catalog.records").write_bytes(data)
    slots = [record.slot for record in CatalogCache(str(folder)).load(Position(0, object_digest(CONFIGS[0])))]
    assert slots == list(range(len(slots)))


_OWN_ENTRIES = [path.read_bytes() for path in sorted((GOLDEN / "store-1/store/log").rglob("0*"))]
_LOG_FILE = b"".join(len(data).to_bytes(4, "little") + data for data in _OWN_ENTRIES)


# --- drafts ------------------------------------------------------------------------------------------------------


def _journals() -> list[bytes]:
    """A journal of every kind of record."""
    folder = SCRATCH / "draft"
    rows = make_entries([to_key("a/b"), to_key("c")], np.array([1, 1], np.uint8), np.array([5, 0], np.uint64))
    inherited = draft_records.Batch.of(Changes(rows, [to_key("other")]), None)
    opened = Opened("1" * 32, "2" * 32, "p", "d", None, [], None, 5, inherited=inherited)
    draft = Draft.create(str(folder), opened, Labels(["a"], "text", "1.0.0"), Output("file:///elsewhere"))
    draft.change(Changes(rows, [to_key("gone")]), Source(b"/source", to_key("a"), {to_key("a/b"): b"target"}))
    draft.annotate(Metadata("name", b"value"), Metadata("other", None))
    draft.report(b'["text","","",null,0,"x"]')
    draft.append(draft_records.Committing(), draft_records.Committing(active=False))
    return [Path(draft.path).read_bytes()]


def _records(journal: bytes) -> list[bytes]:
    bodies, at = [], 0
    while at < len(journal):
        length = int.from_bytes(journal[at : at + 4], "little")
        bodies.append(journal[at + 24 : at + 24 + length])
        at += 24 + length
    return bodies


def _record(body: bytes) -> bytes:
    return draft_records._RECORD.pack(len(body), len(body) ^ 0xFFFFFFFF, hash32(body)[:16]) + body


def _draft(data: bytes) -> None:
    folder = SCRATCH / "loaded"
    folder.mkdir(exist_ok=True)
    (folder / "journal").write_bytes(data)
    try:
        draft = Draft.load(str(folder))
    except DatasetStoreError as error:
        assert error.next_step
        raise
    draft.pending()
    list(draft.sources_of(draft.changes.entries.keys))


JOURNALS = _journals()
BODIES = _records(JOURNALS[0])
_FIRST = _record(BODIES[0])


def _batch_of(rows: bytes) -> bytes:
    body = draft_records._encoder.encode(draft_records.Batch(b"/source", to_key("a"), memoryview(rows), []))
    return _FIRST + _record(body)


def _stamp(data: bytes) -> None:
    folder = SCRATCH / "copies"
    (folder / "x").mkdir(parents=True, exist_ok=True)
    (folder / "x.stamp").write_bytes(data)
    for copy in LocalCopies(str(folder), 1 << 40).all():
        assert copy.stamp.size is not None


def _current(data: bytes) -> None:
    path = Path(current_draft._path(str(SCRATCH), "/somewhere"))
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(data)
    current_draft.recall(str(SCRATCH), "/somewhere")


# --- metadata and reports ----------------------------------------------------------------------------------------


def _streams() -> list[bytes]:
    frame = pd.DataFrame({"a": [1, 2], "b": ["x", None], "c": [1.5, float("nan")]})
    frame["d"] = pd.to_datetime(["2020-01-01"] * 2)
    mixed = pd.DataFrame({"m": [1, "x"], "n": [(1, 2), {"k": 1}]}, index=[("a", 1), ("b", 2)])
    values = [
        frame,
        mixed,
        frame.set_index(["a", "b"]),
        pd.DataFrame({"k": pd.Categorical(["u", "v", "u"])}),
        pd.Series([1, 2, 3], name="s"),
        np.arange(6, dtype=">i4").reshape(2, 3),
        np.array(["a", "bc"]),
        np.array([1 + 2j, 3]),
        pa.table({"x": [[1], [2, 3], None], "y": [{"k": 1}, None, {"k": 2}], "z": [None, None, None]}),
        pa.table({"d": pa.array(["a", "b", "a"]).dictionary_encode()}),
    ]
    return [encode_value(value) for value in values]


_VALUES = [
    {"a": [1, None, "x", 1.5, {"b": []}]},
    {"dataset_store.date": "2020-01-02"},
    [{"dataset_store.tuple": [1, {"dataset_store.dict": [[1, 2], ["a", {"dataset_store.time": "01:02:03"}]]}]}],
]
_PLAIN = [encode_value({"a": [1]}), *(json.dumps(value).encode() for value in _VALUES)]
_REPORTS = [
    b'["text","","",null,0,"x"]\n["scalar","t","s",1,2,0.5]',
    b'["table","t","s",null,0,{"columns":["a"],"rows":[[1]]}]',
]


def _value(data: bytes) -> None:
    decode_value(data, what="A piece")


def _reports(data: bytes) -> None:
    for one in decode_reports(data, what="A report"):
        assert isinstance(one, Report)
        texts = (one.kind, one.title, one.series)
        assert all(isinstance(text, str) for text in texts), one
        assert one.iteration is None or isinstance(one.iteration, int), one
        assert isinstance(one.time_ns, int), one


def _changed_report(rng: Random, data: bytes, others: Any) -> bytes:
    lines = data.split(b"\n")
    at = rng.randrange(len(lines))
    lines[at] = changed_json(rng, lines[at], others)
    return b"\n".join(lines)


# --- texts -------------------------------------------------------------------------------------------------------


def _url(data: bytes) -> None:
    text = data.decode("utf-8", "surrogateescape")
    shown = redacted(text)
    assert redacted(shown) == shown
    assert not has_secrets(shown)
    assert scheme_of(shown) == scheme_of(text)
    is_remote(text)
    require_whole_scheme(text)


_URLS = [
    b"s3://user:pass@bucket/path?x#y",
    b"https://u:p/w@h:80/p?q=1#f",
    b"file:///a%20b",
    b"sftp://h/p",
    b"/plain/path",
    b"c:/x",
]


def _path(data: bytes) -> None:
    text = data.decode("utf-8", "surrogateescape")
    portability_problems([])
    link_stays_inside(2, data)
    for parse in (to_key, directory_key):
        with suppress(InvalidRequest):
            key = parse(text)
            names = key.split(b"\0") if key else []
            assert all(name not in {b"", b".", b".."} and b"/" not in name for name in names)
            assert not os.path.normpath(b"/root/" + to_path(key)).split(b"/root", 1)[0]
            portability_problems([key])
            assert check_key(key) == key if key else True
            to_text(key).encode("utf-8", "surrogateescape")
    keys = data.split(b"\n")
    check_keys(keys)
    check_key(data)


_PATHS = [
    b"a/b/c",
    b"../../etc/passwd",
    b"/abs",
    b"a\0b\na\0c",
    b"CON/nul.txt",
    "stra\u00dfe/STRASSE".encode(),
    b"x" * 256,
    b"a/./b",
    b"caf\xe9",
]


def _settings(data: bytes) -> None:
    path = SCRATCH / "config.toml"
    path.write_bytes(data)
    real = settings.config_file
    settings.config_file = lambda: str(path)
    try:
        settings.load_settings(environment={})
        settings.settings_sources(environment={"DATASET_STORE_CACHE_BYTES": data[:40].decode("latin-1")})
    finally:
        settings.config_file = real


_SETTINGS = [
    b'store = "s3://b/p"\ncache = "/c"\ndata = "~/d"\ncache_bytes = 5\nsingle_writer = true\n',
    b'cache_bytes = "5 GiB"\n',
]


def _ignored(data: bytes) -> None:
    rules = ignore.Rules(to_key("a"), [*ignore._patterns(data, b"x")][::-1], None)
    for name, is_directory in ((b"name.txt", False), (b"a" * 255, False), (b"b", True), (b"caf\xe9", False)):
        rules.leaves_out(to_key("a/b/c/d/e/f"), name, is_directory=is_directory)


_IGNORED = [
    b"*.py[cod]\n!keep.pyc\n/build/\n**/tmp/**\ndoc/*.txt\n",
    b"a*b*c\n[!x]?\\*\n#no\n\\#yes\n**/x/**/y\n",
    b"*" * 8 + b"a*a*a*b\n",
]


def _text(data: bytes) -> None:
    """Version numbers, wildcards and tags as users and logs write them."""
    text = data[:1_024].decode("utf-8", "surrogateescape")
    assert rank(increment(text)) >= rank(text)
    matching(["a/b.txt", "a" * 200, text], text)
    globbed(["a/b.txt", "a" * 200], text, recursive=True)


_TEXTS = [b"1.2.3", b"v2024.09-rc.1+linux", b"*.txt", b"[a-z]*/**/b?", b"a*a*a*a*b", b"1.0.0-9a"]


# --- archives ----------------------------------------------------------------------------------------------------


def _zip() -> bytes:
    held = io.BytesIO()
    with zipfile.ZipFile(held, "w", zipfile.ZIP_DEFLATED) as made:
        made.writestr("a/b.txt", b"text " * 50)
        made.writestr("../outside", b"x")
        made.writestr("empty/", b"")
        link = zipfile.ZipInfo("a/link")
        link.external_attr = 0o120777 << 16
        made.writestr(link, "b.txt")
    return held.getvalue()


def _tar(form: int) -> bytes:
    held = io.BytesIO()
    with tarfile.open(fileobj=held, mode="w", format=form) as made:
        for name, kind, target in (
            ("a/b.txt", tarfile.REGTYPE, ""), ("l", tarfile.SYMTYPE, "a/b.txt"),
            ("d" * 120 + "/f", tarfile.REGTYPE, ""), ("h", tarfile.LNKTYPE, "a/b.txt"),
            ("caf\u00e9", tarfile.REGTYPE, ""),
        ):  # fmt: skip
            info = tarfile.TarInfo(name)
            info.type, info.linkname, info.size = kind, target, 5 if kind == tarfile.REGTYPE else 0
            made.addfile(info, io.BytesIO(b"12345"))
    return held.getvalue()


def _right_sums(data: bytes) -> bytes:
    """Tar headers with the sums that go with them, compressed."""
    made = bytearray(data)
    for at in range(0, len(made) - 511, 512):
        if made[at + 257 : at + 262] == b"ustar":
            made[at + 148 : at + 156] = b"        "
            made[at + 148 : at + 156] = b"%06o\0 " % sum(made[at : at + 512])
    return gzip.compress(bytes(made), 1, mtime=0)


def _extract(ending: str, data: bytes) -> None:
    folder, archive = SCRATCH / "inside" / "folder", SCRATCH / f"archive{ending}"
    remove_tree(os.fsencode(SCRATCH / "inside"))
    folder.mkdir(parents=True)
    archive.write_bytes(data)
    try:
        extract_archive(str(archive), str(folder))
    finally:
        assert os.listdir(SCRATCH / "inside") == ["folder"]


_TARS = [_tar(tarfile.GNU_FORMAT), _tar(tarfile.PAX_FORMAT), _tar(tarfile.USTAR_FORMAT)]

_JSON_STAMP = [b'{"size":5,"tree":null,"source":"x"}', b'{"size":5}']
_JSON_CURRENT = [b'{"store":"/s","id":"' + b"1" * 32 + b'","final":true,"folder":"/f"}']
_ROWS = [bytes(plain) for _, plain in FRAMES[FrameKind.NODE] if plain[4] == 0][:6]

TYPED = (DatasetStoreError,)

TARGETS: dict[str, Target] = {
    "chunk-index": Target(_index, [Layer(_footer_bodies()), Layer([bytes(37), bytes(range(37)), bytes(41)])], TYPED),
    "stat-cache": Target(
        _stat,
        [
            Layer([_resealed_stat(_stat_value([b"a", b"bc", b"d" * 200]))]),
            Layer([_stat_value([b"a", b"bc", b"d"]), _stat_value([])], _resealed_stat),
        ],
        (),
    ),
    "key-table": Target(_key_table, [Layer(_key_tables())], ()),
    "log-file": Target(_log_file, [Layer([_LOG_FILE])], ()),
    "draft": Target(
        _draft,
        [
            Layer(JOURNALS),
            Layer(BODIES, lambda body: _FIRST + _record(body)),
            Layer(BODIES[:1], lambda body: _record(body) + JOURNALS[0]),
            Layer(_ROWS, _batch_of),
        ],
        TYPED,
    ),
    "stamp": Target(_stamp, [Layer(_JSON_STAMP, change=changed_json)], ()),
    "current-draft": Target(_current, [Layer(_JSON_CURRENT, change=changed_json)], TYPED),
    "metadata-json": Target(_value, [Layer(_PLAIN, change=changed_json)], TYPED),
    "metadata-arrow": Target(_value, [Layer(_streams())], TYPED),
    "reports": Target(_reports, [Layer(_REPORTS, change=_changed_report), Layer(_REPORTS)], TYPED),
    "url": Target(_url, [Layer(_URLS)], TYPED),
    "path": Target(_path, [Layer(_PATHS)], TYPED),
    "settings": Target(_settings, [Layer(_SETTINGS)], TYPED),
    "ignore-file": Target(_ignored, [Layer(_IGNORED)], TYPED),
    "text": Target(_text, [Layer(_TEXTS)], TYPED),
    "zip": Target(partial(_extract, ".zip"), [Layer([_zip()])], TYPED),
    "tar": Target(
        partial(_extract, ".tar.gz"), [Layer(_TARS, _right_sums), Layer([_right_sums(one) for one in _TARS])], TYPED
    ),
}
