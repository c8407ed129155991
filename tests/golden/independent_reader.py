"""Reads a store from what `docs/format.md` says, and from nothing else.

It shares no code with the library, so it shows that the page is enough to get every byte back. It goes for plainness,
not for speed. `read_store` opens a store; the classes and functions below stand in the order of the page's sections,
whose numbers they name. What a reader MUST check is checked while reading and raises `StoreError`. What only SHOULD be
so (cut points, footers, censuses, the shape of trees; §12) is checked by `problems`.

Checkpoints only repeat the log, so that `problems` alone reads them. Not read: storages other than folders of this
machine, and what external links lead to.

    python independent_reader.py <folder of a store>
"""

import bisect
import functools
import itertools
import json
import struct
import sys
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import unquote

import blake3
import zstandard

KINDS = {1: "file", 2: "symlink", 3: "directory", 4: "external"}
DATA, SEGMENT_LIST, NODE, CENSUS = 1, 2, 3, 4
FRAME_LIMITS = {DATA: 1 << 18, SEGMENT_LIST: 1 << 24, NODE: 1 << 24, CENSUS: 1 << 24}
SHAPES = {"leaf": (64, 1024, 22_369_621), "inner": (16, 256, 89_478_485)}
COMMON_FIELDS = {"kind", "commit", "prev", "time"}
FIELDS = {  # of each kind of log entry: (those that it has, those that it may have)
    "version": ("series version parents tree stats tags", "opens description metadata producer"),
    "tags": ("version add remove", ""),
    "describe": ("version description", ""),
    "metadata": ("version name", "value blob"),
    "publish": ("version", ""),
    "archive": ("version archived", ""),
    "move": ("series project name", ""),
    "delete": ("versions", ""),
    "hold": ("hold", "packs list"),
    "release": ("hold", ""),
    "condemned": ("", "packs list"),
    "repack": ("table", "packs list"),
    "artifact": ("task name blob", ""),
    "storage": ("number url", ""),
    "feature": ("name operations", ""),
}


class StoreError(Exception):
    """The store does not hold what the format says, or holds what this reader does not know."""


def need(condition: bool, message: str) -> None:
    if not condition:
        raise StoreError(message)


# ------------------------------------------------------------------------------------------------------- §4 encoding


def hash_of(*parts: bytes) -> bytes:
    return blake3.blake3(b"".join(parts)).digest()


class Columns:
    """Takes one column after another from some bytes."""

    def __init__(self, data: bytes, at: int = 0) -> None:
        self.data, self.at = data, at

    def take(self, length: int) -> bytes:
        need(self.at + length <= len(self.data), "the bytes end too early")
        self.at += length
        return self.data[self.at - length : self.at]

    def ints(self, code: str, count: int) -> tuple[int, ...]:
        layout = f"<{count}{code}"
        return struct.unpack(layout, self.take(struct.calcsize(layout)))

    def ids(self, width: int, count: int) -> list[bytes]:
        data = self.take(width * count)
        return [data[i : i + width] for i in range(0, len(data), width)]

    def done(self) -> None:
        need(self.at == len(self.data), "there are bytes left over")


def read_json(data: bytes) -> dict[str, Any]:
    def no_float(text: str) -> float:
        raise StoreError(f"{text} is not an integer")

    try:
        value = json.loads(data.decode(), parse_float=no_float, parse_constant=no_float)
        again = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
    except ValueError as error:
        raise StoreError(f"this is not JSON: {error}") from error
    need(isinstance(value, dict) and again == data, "this JSON object is not in its canonical form")
    return value


def read_payload(data: bytes, kind: str) -> bytes:
    fields = Columns(data)
    need(fields.take(6) == b"DSTORE" and fields.take(1) == kind.encode(), f"this is no envelope of kind {kind}")
    need(fields.take(1) == b"\x01", "this needs a newer version of the reader")
    need(fields.ints("I", 1)[0] == len(data) - 28, "the payload has another length")
    need(fields.take(16) == hash_of(data[:12], data[28:])[:16], "the envelope's hash differs")
    return data[28:]


def read_envelope(data: bytes, kind: str) -> dict[str, Any]:
    return read_json(read_payload(data, kind))


# --------------------------------------------------------------------------------------------------------- §5 chunks


@functools.cache
def gear_table() -> tuple[int, ...]:
    return struct.unpack("<256Q", blake3.blake3(b"dataset_store gear64 v1").digest(length=2048))


def cut(content: bytes, average: int) -> list[int]:
    """The lengths of the chunks that a file is cut into."""
    table, lengths, start, rolling = gear_table(), [], 0, 0
    shift = 64 - (average // 2).bit_length() + 1
    for end, byte in enumerate(content, 1):  # `rolling` is H(end): bytes before the last 64 are shifted out
        rolling = ((rolling << 1) + table[byte]) & 0xFFFF_FFFF_FFFF_FFFF
        length = end - start
        if length == 4 * average or (length >= average // 2 and end >= 64 and not rolling >> shift):
            lengths.append(length)
            start = end
    return lengths + [len(content) - start] * (start < len(content))


# --------------------------------------------------------------------------------------------------------- §6 frames


class Chunk(NamedTuple):
    id: bytes
    data: bytes


class Frame(NamedTuple):
    kind: int
    stored: int
    chunks: list[Chunk]


def read_frame(data: bytes, at: int) -> Frame:
    fields = Columns(data, at)
    need(fields.take(4) == b"DSF1", "no frame begins here")
    kind, codec, *zeros = fields.ints("B", 4)
    plain_length, payload_length, count = fields.ints("I", 3)
    need(kind in FRAME_LIMITS and codec in (0, 1) and zeros == [0, 0], "the frame's header is unknown")
    need(plain_length <= FRAME_LIMITS[kind], "the frame is longer than its kind may be")
    need(count == 1 or (count > 1 and kind == DATA), "the frame has a number of chunks that it may not have")
    lengths = fields.ints("I", count) if count > 1 else (plain_length,)
    need(sum(lengths) == plain_length, "the lengths of the chunks do not give the frame's")
    payload = fields.take(payload_length)
    plain = unzstd(payload, plain_length) if codec else payload
    need(len(plain) == plain_length, "the frame's content has another length")
    ends = list(itertools.accumulate(lengths))
    pieces = [plain[end - length : end] for end, length in zip(ends, lengths)]
    return Frame(kind, fields.at - at, [Chunk(hash_of(piece), piece) for piece in pieces])


def unzstd(payload: bytes, plain_length: int) -> bytes:
    try:
        need(zstandard.get_frame_parameters(payload).content_size == plain_length, "the zstd frame has another length")
        stream = zstandard.ZstdDecompressor().decompressobj()
        plain = stream.decompress(payload)
    except zstandard.ZstdError as error:
        raise StoreError(f"a frame cannot be decompressed: {error}") from error
    need(stream.eof and not stream.unused_data, "bytes are left over after the zstd frame, or it ends too early")
    return plain


# ---------------------------------------------------------------------------------------------------------- §7 packs


class Place(NamedTuple):
    storage: int
    pack: str
    offset: int
    stored: int


class Segment(NamedTuple):
    place: Place
    plain_offset: int
    plain_length: int
    digest: bytes


def rows_digest(rows: list[tuple[bytes, int]]) -> bytes:
    return hash_of(*(chunk_id + struct.pack("<I", length) for chunk_id, length in rows))


def check_pack(file: Path, store_id: str) -> None:
    """The footer says what the frames say, and the frames stand as the page says."""
    data = file.read_bytes()
    need(len(data) >= 104 and len(data) < 1 << 32, "this is no pack: its length cannot be")
    need(data[:8] == b"DSTOREP\x01" == data[-8:], "this is no pack, or it needs a newer version of the reader")
    need(data[8:40].hex() == store_id + file.name, "the pack belongs elsewhere")
    footer_at, footer_length, first_node = struct.unpack("<3Q", data[-64:-40])
    need(footer_at + footer_length == len(data) - 64, "the footer is elsewhere")
    need(data[-40:-8] == hash_of(data[:40], data[footer_at:-40]), "the footer's hash differs")
    found, at = [], 40
    while at < footer_at:
        frame = read_frame(data[:footer_at], at)
        found.append((at, frame))
        at += frame.stored
    chunks = [chunk for _, frame in found for chunk in frame.chunks]
    footer = Columns(data[footer_at:-64])
    need(footer.ints("I", 2) == (len(found), len(chunks)), "the footer has another number of rows")
    need(footer.ints("I", len(found)) == tuple(at for at, _ in found), "the footer's offsets differ")
    need(footer.ints("I", len(found)) == tuple(frame.stored for _, frame in found), "the footer's lengths differ")
    need(footer.ints("I", len(found)) == tuple(len(frame.chunks) for _, frame in found), "the footer's counts differ")
    need(footer.ints("I", len(chunks)) == tuple(len(chunk.data) for chunk in chunks), "the chunks' lengths differ")
    need(footer.ids(32, len(chunks)) == [chunk.id for chunk in chunks], "the footer's chunk ids differ")
    kinds = footer.ints("B", len(found))
    footer.done()
    need(list(kinds) == [frame.kind for _, frame in found], "the footer's kinds differ")
    order = [min(kind, NODE) for kind in kinds]
    need(order == sorted(order), "frames of data, lists and nodes are mixed")
    nodes = [at for at, frame in found if frame.kind == NODE]
    need(first_node == (nodes[0] if nodes else footer_at), "the first node is elsewhere")


# ---------------------------------------------------------------------------------------------------------- §8 trees


class Entry(NamedTuple):
    key: bytes
    kind: str
    executable: bool
    size: int
    mtime_ns: int
    content_id: bytes
    origin: bytes
    segments: tuple[Segment, ...]
    in_list: bool  # the only segment is the place of a list of the segments


class Child(NamedTuple):
    """What a row of an inner node says of the node below, or the manifest of the root."""

    key: bytes | None  # of the root it is not told
    count: int
    size: int
    place: Place
    plain_length: int
    digest: bytes
    id: bytes


class Node(NamedTuple):
    level: int
    keys: list[bytes]
    rows: list[Any]  # of `Entry` in a leaf, of `Child` in an inner node
    digest: bytes


def check_keys(keys: list[bytes]) -> None:
    for key in keys:
        names = key.split(b"\0")
        need(len(key) <= 16_384 and len(names) <= 1_000, "a path is too long or too deep")
        for name in names:
            need(1 <= len(name) <= 255 and b"/" not in name and name not in (b".", b".."), f"{name!r} is no name")
    need(all(a < b for a, b in itertools.pairwise(keys)), "the keys are not in order")


def runs(ends: tuple[int, ...], values: Any) -> list[Any]:
    """What belongs to each row, by a column of running totals."""
    edges = (0, *ends)
    need(list(edges) == sorted(edges) and edges[-1] == len(values), "the running totals cannot be")
    return [values[start:end] for start, end in itertools.pairwise(edges)]


def check_table(uses: tuple[int, ...], table: list[Any]) -> None:
    """A table holds each value once, in order of first use."""
    need(list(dict.fromkeys(uses)) == list(range(len(table))), "a table is not in order of first use")
    need(len(set(table)) == len(table), "a table holds a value twice")


@functools.lru_cache(maxsize=64)
def read_node(data: bytes) -> Node:
    node = Columns(data)
    need(node.take(4) == b"DSN1", "this is no node, or it needs a newer version of the reader")
    level, *zeros = node.ints("B", 4)
    need(zeros == [0, 0, 0], "a node's reserved bytes are set")
    counts = node.ints("I", 6)
    read = read_inner_node(node, level, *counts) if level else read_leaf(node, *counts)
    node.done()
    check_keys(read.keys)
    return read


def read_inner_node(node: Columns, level: int, n: int, p: int, s: int, d: int, o: int, b: int) -> Node:
    need(1 <= n <= SHAPES["inner"][1] and s == d == o == 0, "an inner node has counts that cannot be")
    below, sizes = node.ints("Q", n), node.ints("Q", n)
    key_ends, pack_of, offsets, stored, plain = (node.ints("I", n) for _ in range(5))
    storages, digests, ids, packs = node.ints("I", p), node.ids(32, n), node.ids(32, n), node.ids(16, p)
    key_bytes = node.take(b)
    keys, table = runs(key_ends, key_bytes), list(zip(storages, packs))
    check_table(pack_of, table)
    rows = []
    for i in range(n):
        place = Place(storages[pack_of[i]], packs[pack_of[i]].hex(), offsets[i], stored[i])
        rows.append(Child(keys[i], below[i], sizes[i], place, plain[i], digests[i], ids[i]))
    header = b"dataset_store tree v1 inner\n" + struct.pack("<BI", level, n)
    return Node(level, keys, rows, hash_of(header, *digests, struct.pack(f"<{n}I", *key_ends), key_bytes))


def read_leaf(node: Columns, n: int, p: int, s: int, d: int, o: int, b: int) -> Node:
    need(n <= SHAPES["leaf"][1], "a leaf has too many rows")
    sizes, mtimes, plain_lengths = node.ints("Q", n), node.ints("q", n), node.ints("Q", s)
    key_ends, segment_ends, origin_of = (node.ints("I", n) for _ in range(3))
    pack_of, offsets, stored, plain_offsets = (node.ints("I", s) for _ in range(4))
    storages, flags, content_ids, digests = node.ints("I", p), node.ints("B", n), node.ids(32, n), node.ids(32, d)
    packs, origins, key_bytes = node.ids(16, p), node.ids(16, o), node.take(b)
    check_table(pack_of, list(zip(storages, packs)))
    check_table(origin_of, origins)
    keys, segments_of, unused = runs(key_ends, key_bytes), runs(segment_ends, range(s)), iter(digests)
    rows = []
    for i, flag in enumerate(flags):
        kind, executable, in_list, one_chunk = KINDS.get(flag & 15), bool(flag & 128), flag & 64, flag & 32
        need(kind is not None and not flag & 16, "an entry has an unknown kind or flag")
        need(kind == "file" or not executable, "only a file may be executable")
        need(not (in_list or one_chunk) or (len(segments_of[i]) == 1 and not (in_list and one_chunk)), "flags disagree")
        segments = []
        for j in segments_of[i]:
            place = Place(storages[pack_of[j]], packs[pack_of[j]].hex(), offsets[j], stored[j])
            digest = rows_digest([(content_ids[i], plain_lengths[j])]) if one_chunk else next(unused, b"")
            segments.append(Segment(place, plain_offsets[j], plain_lengths[j], digest))
        if kind == "directory":
            need(sizes[i] == 0 and content_ids[i] == hash_of() and not segments, "a directory has a content")
        if kind in ("file", "symlink") and not in_list:
            need(sum(segment.plain_length for segment in segments) == sizes[i], "the segments do not give the size")
        origin = origins[origin_of[i]]
        entry = (executable, sizes[i], mtimes[i], content_ids[i], origin, tuple(segments), bool(in_list))
        rows.append(Entry(keys[i], kind, *entry))
    need(sum(len(row.segments) for row, flag in zip(rows, flags) if not flag & 32) == d, "there are other digests")
    header = b"dataset_store tree v1 leaf\n" + struct.pack("<I", n) + bytes(flag & 0x8F for flag in flags)
    columns = (struct.pack(f"<{n}Q", *sizes), *content_ids, struct.pack(f"<{n}I", *key_ends), key_bytes)
    return Node(0, keys, rows, hash_of(header, *columns))


def read_segment_list(data: bytes) -> tuple[Segment, ...]:
    columns = Columns(data)
    s, p = columns.ints("I", 2)
    plain_lengths = columns.ints("Q", s)
    pack_of, offsets, stored, plain_offsets = (columns.ints("I", s) for _ in range(4))
    storages, digests, packs = columns.ints("I", p), columns.ids(32, s), columns.ids(16, p)
    columns.done()
    check_table(pack_of, list(zip(storages, packs)))
    places = [Place(storages[k], packs[k].hex(), *place) for k, *place in zip(pack_of, offsets, stored)]
    return tuple(Segment(*row) for row in zip(places, plain_offsets, plain_lengths, digests))


def regroup(keys: list[bytes], level: int) -> list[list[bytes]]:
    """Where the rows of one level are cut into nodes (§8.4)."""
    minimum, maximum, threshold = SHAPES["inner" if level else "leaf"]
    groups: list[list[bytes]] = [[]]
    for key in keys:
        x = zlib.crc32(key) ^ (level * 0x9E3779B1 & 0xFFFF_FFFF)
        x = (x ^ x >> 16) * 0x85EBCA6B & 0xFFFF_FFFF
        x = (x ^ x >> 13) * 0xC2B2AE35 & 0xFFFF_FFFF
        x ^= x >> 16
        if len(groups[-1]) == maximum or (len(groups[-1]) >= minimum and x < threshold):
            groups.append([])
        groups[-1].append(key)
    return groups


class Version:
    """One version; its fields are those of the manifest (§9.2) after the fold."""

    def __init__(self, store: "Store", series: str, manifest: dict[str, Any]) -> None:
        self._store, self._series, self.manifest = store, series, manifest
        self.id, self.version, self.parents = manifest["commit"], manifest["version"], manifest["parents"]
        self.labels = set(manifest["tags"])
        self.pieces: dict[str, str | dict[str, Any]] = dict(manifest.get("metadata", {}))
        self.digest = manifest["tree"]["digest"]
        stats, (*place, plain_length) = manifest["stats"], manifest["tree"]["place"]
        ids = bytes.fromhex(self.digest), bytes.fromhex(manifest["tree"]["node"])
        self._root = Child(None, stats["files"], stats["bytes"], Place(*place), plain_length, *ids)

    @property
    def project(self) -> str:
        return self._store.names[self._series][0]

    @property
    def name(self) -> str:
        return self._store.names[self._series][1]

    @property
    def tags(self) -> list[str]:
        return sorted(self.labels)

    def set_piece(self, entry: dict[str, Any]) -> None:
        self.pieces.pop(entry["name"], None)
        if "value" in entry or "blob" in entry:
            self.pieces[entry["name"]] = entry.get("value", entry.get("blob"))

    @property
    def metadata(self) -> dict[str, bytes]:
        """The bytes of every piece of metadata, reports among them (§9.6)."""
        return {name: self._store.piece(piece) for name, piece in self.pieces.items()}

    def nodes(self, child: Child | None = None, level: int | None = None) -> Iterator[tuple[Child, Node]]:
        child = child or self._root
        node = self._store.node(child)
        need(level in (None, node.level), "a node stands at another level than its parent says")
        yield child, node
        for below in node.rows if node.level else ():
            yield from self.nodes(below, node.level - 1)

    def rows(self) -> Iterator[Entry]:
        last = None
        for entry in itertools.chain.from_iterable(node.rows for _, node in self.nodes() if node.level == 0):
            disorder = last is not None and (entry.key <= last or entry.key.startswith(last + b"\0"))
            need(not disorder, "the entries are not in order, or one lies below another")
            last = entry.key
            yield entry

    def entries(self) -> Iterator[tuple[bytes, str, int, str, bool, int, str]]:
        """Path, kind, size, content id, executable, mtime in ns, origin."""
        for row in self.rows():
            ids = row.content_id.hex(), row.origin.hex()
            yield row.key.replace(b"\0", b"/"), row.kind, row.size, ids[0], row.executable, row.mtime_ns, ids[1]

    def content(self, path: bytes) -> bytes:
        key = path.replace(b"/", b"\0")
        node = self._store.node(self._root)
        while True:
            at = bisect.bisect_right(node.keys, key) - 1
            if at < 0 or (node.level == 0 and node.keys[at] != key):
                raise KeyError(path)
            if node.level == 0:
                return b"".join(chunk.data for chunk in self._store.chunks(node.rows[at]))
            node = self._store.node(node.rows[at])


# ----------------------------------------------------------------------------------------------------------- §9 log


class Store:
    def __init__(self, root: Path, elsewhere: dict[str, Path]) -> None:
        self.root, self._elsewhere = root, elsewhere
        self.names: dict[str, tuple[str, str]] = {}  # of a series: its project and name
        self._same_series: dict[str, str] = {}  # a series that was opened under a name that another one held
        self._versions: dict[str, Version] = {}
        self._storages = {0: root}
        self._repacks: list[dict[str, Any]] = []
        self._data = functools.lru_cache(maxsize=256)(self._read_data_once)
        self.node = functools.lru_cache(maxsize=256)(self._read_node_once)
        need((root / "config").is_file(), f"{root} is not a store")
        config = (root / "config").read_bytes()
        fields = read_envelope(config, "C")
        need(fields.keys() == {"store", "chunker", "tree"}, "the config has other fields")
        chunker, _, average = fields["chunker"].partition("/")
        known = chunker == "gear64-v1" and average.isdecimal() and int(average).bit_count() == 1
        need(known and fields["tree"] == "v1", "the chunker or the tree is unknown: a newer reader is needed")
        self.id, self.average = fields["store"], int(average)
        log = list(self._read_log(config))
        self.slots = len(log)
        for entry in log:
            if entry["kind"] == "feature":
                need("read" not in entry["operations"], f"reading needs the feature {entry['name']}: a newer reader")
        for entry in log:
            self._fold(entry)

    @property
    def roots(self) -> list[Path]:
        """The folders of all its storages."""
        return list(self._storages.values())

    @property
    def versions(self) -> list[Version]:
        return list(self._versions.values())

    def _read_log(self, config: bytes) -> Iterator[dict[str, Any]]:
        previous, commits = hash_of(config), set()
        for slot in itertools.count():
            file = self.root / "log" / "catalog" / f"{slot:012}"
            if not file.exists():
                return
            data = file.read_bytes()
            entry = read_envelope(data, "L")
            need(entry.get("kind") in FIELDS, f"slot {slot} is of an unknown kind: a newer reader is needed")
            required, optional = (set(names.split()) for names in FIELDS[entry["kind"]])
            fields = entry.keys() - COMMON_FIELDS
            need(not fields - required - optional, f"slot {slot} has unknown fields: a newer reader is needed")
            need(required <= fields and entry.keys() >= COMMON_FIELDS, f"slot {slot} lacks fields")
            need(entry["prev"] == previous.hex(), f"slot {slot} does not follow the slot before")
            need(entry["commit"] not in commits, f"slot {slot} repeats a commit")
            previous = hash_of(data)
            commits.add(entry["commit"])
            yield entry

    def _fold(self, entry: dict[str, Any]) -> None:
        """The kinds that are not named here change neither what a version holds nor what it is called."""
        match entry["kind"]:
            case "version":
                self._fold_version(entry)
            case "tags" if entry["version"] in self._versions:
                labels = self._versions[entry["version"]].labels
                labels |= set(entry["add"])
                labels -= set(entry["remove"])
            case "metadata" if entry["version"] in self._versions:
                self._versions[entry["version"]].set_piece(entry)
            case "delete":
                for version in entry["versions"]:
                    self._versions.pop(version, None)
            case "move":
                series = self._same_series.get(entry["series"], entry["series"])
                if (entry["project"], entry["name"]) not in self.names.values():
                    self.names[series] = (entry["project"], entry["name"])
            case "storage" if entry["url"].startswith("file://"):
                folder = self._elsewhere.get(entry["url"], Path(unquote(entry["url"].removeprefix("file://"))))
                self._storages.setdefault(entry["number"], folder / "dataset-store" / self.id)
            case "repack":
                self._repacks.append(entry)

    def _fold_version(self, entry: dict[str, Any]) -> None:
        series = entry["series"]
        if "opens" in entry:
            name = (entry["opens"]["project"], entry["opens"]["name"])
            holders = [holder for holder, held in self.names.items() if held == name]
            if holders:
                self._same_series[series] = holders[0]
            else:
                self.names[series] = name
        series = self._same_series.get(series, series)
        need(series in self.names, f"nothing opened the series of version {entry['commit']}")
        numbers = [other.version for other in self._versions.values() if other._series == series]
        if entry["version"] not in numbers:
            self._versions[entry["commit"]] = Version(self, series, entry)

    # --------------------------------------------------------------------------------------------- reading by place

    def _fetch(self, place: Place) -> bytes:
        """The stored bytes of frames, wherever they are now (§11)."""
        return b"".join(map(self._fetch_here, self._moved(place)))

    def _fetch_here(self, place: Place) -> bytes:
        need(place.storage in self._storages, f"storage {place.storage} is not a folder of this machine")
        try:
            with (self._storages[place.storage] / "packs" / place.pack[:2] / place.pack).open("rb") as pack:
                pack.seek(place.offset)
                data = pack.read(place.stored)
        except FileNotFoundError:
            raise StoreError(f"pack {place.pack} is missing") from None
        need(len(data) == place.stored, "a place lies beyond the end of its pack")
        return data

    def _moved(self, place: Place) -> list[Place]:
        """The places of the frames of a run, if rows of a relocation table make it up (§9.3); else the run itself."""
        rows, found = self._relocation.get((place.storage, place.pack), {}), []
        at, end = place.offset, place.offset + place.stored
        while at < end and at in rows:
            stored, new = rows[at]
            found += [new] if (new.storage, new.pack) == (place.storage, place.pack) else self._moved(new)
            at += stored
        return found if at == end else [place]

    @functools.cached_property
    def _relocation(self) -> dict[tuple[int, str], dict[int, tuple[int, Place]]]:
        """For each pack that a table tells of its frames' stored lengths and new places; the last table counts."""
        moved: dict[tuple[int, str], dict[int, tuple[int, Place]]] = {}
        self.__dict__["_relocation"] = {}  # tables themselves are where their entries say
        for entry in self._repacks:
            table: dict[tuple[int, str], dict[int, tuple[int, Place]]] = {}
            for row in struct.iter_unpack("<I16sIII16sIII", self.piece(entry["table"])):
                new = Place(row[4], row[5].hex(), row[6], row[7])
                table.setdefault((row[0], row[1].hex()), {})[row[2]] = (row[3], new)
            moved |= table
        return moved

    def piece(self, piece: str | dict[str, Any]) -> bytes:
        """The bytes of a text or blob."""
        if isinstance(piece, str):
            return piece.encode()
        segments = [Segment(Place(*row[:4]), row[4], row[5], bytes.fromhex(row[6])) for row in piece["segments"]]
        data = b"".join(chunk.data for segment in segments for chunk in self._segment(segment))
        need((len(data), hash_of(data).hex()) == (piece["size"], piece["id"]), "a blob has another content")
        return data

    def _read_frames(self, place: Place) -> list[Frame]:
        data, frames, at = self._fetch(place), [], 0
        while at < len(data):
            frames.append(read_frame(data, at))
            at += frames[-1].stored
        return frames

    def single(self, place: Place, kind: int, plain_length: int, content_id: bytes) -> bytes:
        """The plain bytes of a frame that holds one chunk: a node, a census or a list of segments."""
        frames = self._read_frames(place)
        need(len(frames) == 1 and frames[0].kind == kind, "a place does not hold one frame of its kind")
        chunk = frames[0].chunks[0]
        need(len(chunk.data) == plain_length and chunk.id == content_id, "a frame holds something else")
        return chunk.data

    def _read_node_once(self, child: Child) -> Node:
        node = read_node(self.single(child.place, NODE, child.plain_length, child.id))
        need(node.digest == child.digest, "a node's content digest differs")
        need(child.key is None or node.keys[:1] == [child.key], "a node begins with another key")
        count = sum(row.count for row in node.rows) if node.level else len(node.rows)
        need((count, sum(row.size for row in node.rows)) == (child.count, child.size), "a node's totals differ")
        return node

    def _read_data_once(self, place: Place) -> tuple[list[Chunk], dict[int, int]]:
        """The chunks of some frames, and at which of their plain bytes which chunk begins."""
        frames = self._read_frames(place)
        need(all(frame.kind == DATA for frame in frames), "a segment holds frames that are not data")
        chunks = [chunk for frame in frames for chunk in frame.chunks]
        need(all(chunk.data for chunk in chunks), "a chunk is empty")
        starts = itertools.accumulate((len(chunk.data) for chunk in chunks), initial=0)
        return chunks, {start: i for i, start in enumerate(starts)}

    def _segment(self, segment: Segment) -> list[Chunk]:
        chunks, edges = self._data(segment.place)
        ends = segment.plain_offset, segment.plain_offset + segment.plain_length
        need(ends[0] in edges and ends[1] in edges, "a segment begins or ends within a chunk")
        taken = chunks[edges[ends[0]] : edges[ends[1]]]
        digest = rows_digest([(chunk.id, len(chunk.data)) for chunk in taken])
        need(digest == segment.digest, "a segment's digest differs")
        return taken

    def chunks(self, entry: Entry) -> list[Chunk]:
        """The chunks of an entry's content, checked against its content id."""
        segments = entry.segments
        if entry.in_list:
            place, _, plain_length, digest = segments[0]
            segments = read_segment_list(self.single(place, SEGMENT_LIST, plain_length, digest))
        chunks = [chunk for segment in segments for chunk in self._segment(segment)]
        content = b"".join(chunk.data for chunk in chunks)
        if entry.kind == "external":  # the content id may be that of the object's bytes, which are elsewhere
            record = read_json(content)
            need(record.keys() == {"etag", "size", "url"} and record["size"] == entry.size, "a link record differs")
        else:
            need((len(content), hash_of(content)) == (entry.size, entry.content_id), "a content id or size differs")
        return chunks


def read_store(path: str | Path, elsewhere: dict[str, Path] | None = None) -> Store:
    """A store; `elsewhere` are the folders of output storages by URL, where they are not where their URL says."""
    return Store(Path(path), elsewhere or {})


# ---------------------------------------------------------------------------------------- §12: what only should be so


def check_shape(version: Version) -> None:
    levels: dict[int, list[list[bytes]]] = {}
    for _, node in version.nodes():
        levels.setdefault(node.level, []).append(node.keys)
    keys = [key for leaf in levels[0] for key in leaf]
    for level in range(max(levels) + 1):
        groups = regroup(keys, level)
        need(groups == levels[level], f"the nodes of level {level} are cut elsewhere")
        need((len(groups) == 1) == (level == max(levels)), "the root is not the first level of one node")
        keys = [group[0] for group in groups if group]


def check_census(store: Store, version: Version) -> None:
    census = version.manifest["tree"]["census"]
    *place, plain_length = census["place"]
    columns = Columns(store.single(Place(*place), CENSUS, plain_length, bytes.fromhex(census["id"])))
    (p,) = columns.ints("I", 1)
    rows = list(zip(columns.ints("Q", p), columns.ints("I", p), columns.ids(16, p)))
    columns.done()
    live: dict[tuple[int, str], int] = {}
    for child, _ in version.nodes():
        pack = (child.place.storage, child.place.pack)
        live[pack] = live.get(pack, 0) + child.place.stored
    need(rows == sorted(rows), "the census is not in order")
    need({(storage, name.hex()): count for count, storage, name in rows} == live, "the census counts otherwise")
    bound = 32 + max(0, sum(live.values()) - (1 << 31)) // (1 << 26)
    need(len(rows) == len(live) <= bound, "the nodes lie in too many packs")


def check_slots(store: Store) -> None:
    slots = sorted(file.name for file in (store.root / "log" / "catalog").iterdir())
    need(slots == [f"{slot:012}" for slot in range(store.slots)], "slots stand after a gap in the log")


def check_checkpoints(store: Store) -> None:
    for file in sorted((store.root / "ckpt" / "catalog").glob("*/*")):
        payload = read_payload(file.read_bytes(), "K")
        level, count, length = struct.unpack_from("<B3xIQ", payload)
        need((str(level), count) == (file.parent.name, 64**level), f"checkpoint {file.name} has another head")
        plain = Columns(zstandard.ZstdDecompressor().decompress(payload[16:]))
        need(len(plain.data) == length, f"checkpoint {file.name} has another length")
        for slot in range(int(file.name) * count, (int(file.name) + 1) * count):
            entry = plain.take(*plain.ints("I", 1))
            held = (store.root / "log" / "catalog" / f"{slot:012}").read_bytes()
            need(entry == held, f"checkpoint {file.name} tells slot {slot} otherwise")
        plain.done()


def check_contents(store: Store, version: Version) -> None:
    for entry in version.rows():
        pieces = [chunk.data for chunk in store.chunks(entry)]
        if entry.kind == "file":
            lengths = cut(b"".join(pieces), store.average)
            need(lengths == [len(piece) for piece in pieces], f"{entry.key!r} is cut elsewhere")


def problems(store: Store) -> Iterator[str]:
    """Reads everything, and tells what is not as it should be."""
    checks: list[tuple[str, Any, tuple[Any, ...]]] = [
        ("log", check_slots, (store,)),
        ("checkpoints", check_checkpoints, (store,)),
    ]
    for version in store.versions:
        checks.append((f"version {version.id}", check_shape, (version,)))
        checks.append((f"version {version.id}", check_census, (store, version)))
        checks.append((f"version {version.id}", check_contents, (store, version)))
        checks.append((f"version {version.id}", getattr, (version, "metadata")))
    for file in sorted(file for root in store.roots for file in (root / "packs").glob("*/*")):
        checks.append((f"pack {file.name}", check_pack, (file, store.id)))
    for what, check, arguments in checks:
        try:
            check(*arguments)
        except StoreError as error:
            yield f"{what}: {error}"


def main() -> int:
    if len(sys.argv) != 2:
        print(__doc__, file=sys.stderr)
        return 2
    try:
        store = read_store(sys.argv[1])
        for version in store.versions:
            count, size = version.manifest["stats"]["files"], version.manifest["stats"]["bytes"]
            tags = " ".join(version.tags)
            print(f"{version.id} {version.project}/{version.name} {version.version}: {count} entries, {size} B {tags}")
    except StoreError as error:
        print(f"The store cannot be read: {error}", file=sys.stderr)
        return 1
    found = list(problems(store))
    for problem in found:
        print(problem, file=sys.stderr)
    print(f"{len(found)} problems")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
