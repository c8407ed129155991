"""The decoders of what a store holds, with the golden stores' objects to begin from."""

import json
import re
import struct
from collections import defaultdict
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from random import Random
from typing import Any
from zlib import crc32

import numpy as np
from mutation import Layer, Target, changed_json
from zstandard import ZstdCompressor, ZstdError, get_frame_parameters

from dataset_store.core import packfile
from dataset_store.core.catalog import Catalog, Query
from dataset_store.core.census import decode_census, encode_census, packs_to_empty
from dataset_store.core.checkpoints import MAX_PLAIN, decode_checkpoint
from dataset_store.core.digest import NodeId, PackName, StoreId, hash32
from dataset_store.core.entries import LISTED, Entries
from dataset_store.core.envelope import CHECKPOINT, CONFIG, HEADER_SIZE, LOG_ENTRY, decode_config, seal
from dataset_store.core.frames import PLAIN_LIMITS, FrameCodec, FrameKind
from dataset_store.core.graph_drawing import svg
from dataset_store.core.graph_lines import graph_lines
from dataset_store.core.links import Link, decode_link, encode_link
from dataset_store.core.log_entries import decode_entry, decode_pack_list
from dataset_store.core.merge import common_bases
from dataset_store.core.node_decoding import decode_node
from dataset_store.core.nodes import Children, NodeRef, content_digest, encode_node
from dataset_store.core.packfile import (
    PackRef,
    Place,
    check_pack,
    decode_footer,
    footer_start,
    rebuild_footer,
    tail_length,
)
from dataset_store.core.paths import check_keys, to_key, to_path
from dataset_store.core.relocation import Moved, Relocations, decode_table, encode_table
from dataset_store.core.segments import decode_segment_list, segment_rows, segments_of
from dataset_store.dataset.catalog.lineage import dependency_graph
from dataset_store.errors import Corrupt, FormatTooNew
from dataset_store.storage.liveness import _split, _summary

__all__ = ["TARGETS"]

GOLDEN = Path(__file__).parents[1] / "golden"
WRONG = (Corrupt, FormatTooNew)
"""What bytes of a store may be called."""

OBJECTS = {path.name: path for number in (1, 2) for path in sorted((GOLDEN / f"store-{number}").rglob("packs/*/*"))}
ENTRIES = [
    path.read_bytes() for number in (1, 2) for path in sorted((GOLDEN / f"store-{number}/store/log").rglob("0*"))
]
CONFIGS = [(GOLDEN / f"store-{number}/store/config").read_bytes() for number in (1, 2)]
EACH_KIND = [bytes.fromhex(row["sealed"]) for row in json.loads((GOLDEN / "log_entries.json").read_text()).values()]
CHECKPOINTS = [path.read_bytes() for path in sorted((GOLDEN / "store-2/store/ckpt").rglob("0*"))]

PACKS = [path.read_bytes() for path in OBJECTS.values()]
codec = FrameCodec()


def _frames() -> dict[FrameKind, list[tuple[bytes, bytes]]]:
    """Frames and their plain bytes, by kind."""
    found = defaultdict(list)
    for pack in PACKS:
        for at, stored in packfile.frame_offsets(pack, packfile.PACK_HEADER_SIZE, what="a pack"):
            data = pack[at : at + stored]
            frame = codec.decode_frame(data, what="a frame")
            found[frame.kind].append((data, bytes(frame.plain)))
    return found


FRAMES = _frames()
SMALL_PACKS = [pack for pack in PACKS if len(pack) < 20_000]
SOME_FRAMES = [data for kind in FrameKind for data, _ in FRAMES[kind][:: max(1, len(FRAMES[kind]) // 12)]]


# --- envelopes ---------------------------------------------------------------------------------------------------


def _payloads(objects: Sequence[bytes]) -> list[bytes]:
    return [data[HEADER_SIZE:] for data in objects]


def _sealed_checkpoint(level: int, count: int, plain: bytes) -> bytes:
    head = struct.pack("<B3xIQ", level, count, len(plain))
    return seal(CHECKPOINT, head + ZstdCompressor(level=1).compress(plain))


def _checkpoint(data: bytes) -> None:
    for level in (1, 2):
        try:
            objects = decode_checkpoint(level, data, "a checkpoint")
        except WRONG:
            if level == 2:
                raise
        else:
            assert sum(map(len, objects)) <= MAX_PLAIN[level]


def _plain_checkpoints(objects: Sequence[bytes]) -> bytes:
    return b"".join(struct.pack("<I", len(data)) + data for data in objects)


def _fold(data: bytes) -> None:
    """Entries one after another, each on a line, folded; then what users ask of the fold."""
    catalog, slot = Catalog(), 0
    for line in data.split(b"\n"):
        try:
            entry = decode_entry(seal(LOG_ENTRY, line), "an entry")
        except WRONG:
            continue
        catalog.apply(slot, entry)
        slot += 1
    for version in catalog.live_versions():
        assert catalog.version(version.id) is version
        catalog.next_version(version.series)
        graph = dependency_graph(catalog, version.id, version.entry.parents)
        graph_lines(list(graph), graph)
        svg(list(graph), graph, dict.fromkeys(graph, "<x>"))
        common_bases([version.id], version.id, graph)
        catalog.resolve(Query(name=catalog.series(version.series).name))
    list(catalog.invalid)
    catalog.require("read")


def _some_id(rng: Random, lines: Sequence[bytes]) -> bytes:
    """The id of any commit; so a version may come from itself, or from one of its children."""
    found = re.search(rb'"commit":"([0-9a-f]{32})"', rng.choice(lines))
    return found[1] if found else b"0" * 32


def _changed_lines(rng: Random, data: bytes, others: Sequence[bytes]) -> bytes:
    """A log with some entries changed, left out, doubled or moved."""
    lines = data.split(b"\n")
    for _ in range(rng.randrange(1, 4)):
        at = rng.randrange(len(lines))
        act = rng.random()
        if act < 0.6:
            lines[at] = changed_json(rng, lines[at], lines)
        elif act < 0.7:
            lines[at] = lines[at].replace(b'"parents":[', b'"parents":["%s",' % _some_id(rng, lines))
        elif act < 0.85:
            lines.insert(rng.randrange(len(lines)), lines[at])
        elif len(lines) > 1:
            del lines[at]
    return b"\n".join(lines)


_LOG = [b"\n".join(_payloads(EACH_KIND)), b"\n".join(_payloads(ENTRIES)[:7]), b"\n".join(_payloads(ENTRIES)[7:23])]


# --- frames and packs --------------------------------------------------------------------------------------------


def _frame(data: bytes) -> None:
    """One frame, a run of frames, and segments of them."""
    errors = []
    for attempt in (
        lambda: codec.decode_frame(data, what="a frame").chunks(),
        lambda: [frame.chunks() for frame in codec.decode_frames(data, what="frames")],
        lambda: codec.decode_whole(data, FrameKind.NODE, hash32(data), what="a node"),
        lambda: codec.decode_segment(data, len(data) % 7, 1 + len(data) % 911, bytes(32), what="a segment"),
        lambda: codec.decode_segment(data, 0, 2**63, bytes(32), what="a segment"),
    ):
        try:
            attempt()
        except WRONG as error:
            errors.append(error)
    if len(errors) == 5:
        raise errors[0]


def _with_payload(payload: bytes, plain: int = 4_096) -> bytes:
    """A frame around a payload, which is a zstd frame that may say anything."""
    return (
        struct.pack("<4sBBHIII", b"DSF1", 3, 1, 0, min(plain, PLAIN_LIMITS[FrameKind.NODE]), len(payload), 1) + payload
    )


_ZSTD = [data[20:] for data, plain in FRAMES[FrameKind.NODE] if data[5] == 1]
_ZSTD += [ZstdCompressor(level=level).compress(bytes(1 << 20)) for level in (1, 19)]


def _declared(payload: bytes) -> bytes:
    """The frame header as an honest one would be: with the length that the payload declares."""
    try:
        return _with_payload(payload, max(1, get_frame_parameters(payload).content_size % (1 << 24)))
    except ZstdError:
        return _with_payload(payload)


STORE, NAME = StoreId(bytes(range(16))), PackName(bytes(range(16, 32)))


def _tail(data: bytes) -> None:
    length = tail_length(data, what="a pack") if len(data) >= 64 else 64
    footer_start(data, what="a pack") if len(data) >= 64 else None
    footer = decode_footer(data[-length:], STORE, NAME, what="a pack")
    assert len(footer.frame_of_chunk()) == len(footer.ids) == len(footer.plain_offsets())
    assert footer.first_node <= footer.frames_end < 1 << 32
    footer.run_digest(0, len(footer.lengths))


def _footers() -> list[tuple[bytes, int, int]]:
    found = []
    for name, pack in zip(OBJECTS, PACKS, strict=True):
        trailer = packfile._parse_trailer(pack, name)
        found.append((pack[trailer.start : trailer.start + trailer.length], trailer.start, trailer.first_node))
    return found


def _tail_of(body: bytes) -> bytes:
    """A footer's bytes with the trailer that goes with them, as far as they can tell it."""
    try:
        footer = packfile.Footer.decode(body, what="a footer")
        start, first = footer.frames_end, footer.first_node
    except (Corrupt, ValueError):
        start, first = 40 + crc32(body) % 5_000, 40
    header = packfile.pack_header(STORE, NAME)
    return body + packfile._trailer(header, start % (1 << 64), first % (1 << 64), body)


def _renamed(pack: bytes) -> bytes:
    """A pack as one of the store and the name that are asked for, its footer made anew from its frames if it can be."""
    header = packfile.pack_header(STORE, NAME)
    inside = header + pack[packfile.PACK_HEADER_SIZE :]
    try:
        footer = rebuild_footer(inside, codec, what="a pack")
    except Corrupt:
        return inside
    body = footer.encode()
    return inside[: footer.frames_end] + body + packfile._trailer(header, footer.frames_end, footer.first_node, body)


def _pack(data: bytes) -> None:
    check_pack(data, STORE, NAME, codec, what="a pack")


# --- trees -------------------------------------------------------------------------------------------------------


def _node(data: bytes) -> None:
    """A node as a reader takes it, and what it does with it then."""
    try:
        drafted = decode_node(data, "a draft", placed=False)
    except Corrupt:
        drafted = None
    node = decode_node(data, "a pack")
    assert drafted is not None
    assert len(node.keys) <= len(data)
    check_keys(node.keys)
    assert all(to_key(to_path(key)) == key for key in node.keys)
    if isinstance(node, Children):
        node.refs()
        assert int(np.sum(node.counts, dtype=object)) >= 0
        return
    encode_node(node)
    content_digest(node)
    for row in range(len(node)):
        for one in segments_of(node, row):
            assert one.plain_length >= 0
    assert isinstance(node, Entries)
    assert (node.segment_counts[(node.kinds & LISTED) != 0] == 1).all()


def _census(data: bytes) -> None:
    census = decode_census(data, "a pack")
    packs_to_empty(census)
    encode_census(census)


def _list(data: bytes) -> None:
    """A segment list of a file as long as the list itself says, and of any other."""
    count = int.from_bytes(data[:4], "little")
    said = np.frombuffer(
        data[8 : 8 + 8 * min(count, 10_000)][: (len(data) - 8) // 8 * 8 if len(data) > 8 else 0], "<u8"
    )
    segments = decode_segment_list(data, sum(said.tolist()), what="of a file")
    assert len(segment_rows(segments)) == count
    try:
        decode_segment_list(data, 2**63 - 1, what="of a file")
    except Corrupt:
        return


def _table(count: int) -> bytes:
    """A relocation table of so many frames of one pack, moved into two others."""
    offset = np.arange(count, dtype=np.uint32) * 100 + 40
    packs = (PackRef(0, PackName(bytes([1] * 16))), PackRef(1, PackName(bytes([2] * 16))))
    stored = np.full(count, 90, np.uint32)
    which = np.arange(count, dtype=np.uint32) % 2
    moved = Moved(offset, stored, packs, which, offset + 7, stored + which, which == 1)
    return encode_table({PackRef(0, PackName(bytes(16))): moved})


def _relocation(data: bytes) -> None:
    """A table, merged behind another one, and what is asked of both."""
    table = decode_table(data, "a table")
    merged = Relocations().with_table(decode_table(_table(5), "a table")).with_table(table)
    for pack, moved in table.items():
        encode_table({pack: moved})
        for offset, stored in zip(moved.offset[:5].tolist(), moved.stored[:5].tolist(), strict=True):
            found = merged.places(Place(pack, offset, stored, 0))
            assert (
                found is None or sum(place.stored for place in found) == moved.new_stored[moved.offset == offset].sum()
            )
        merged.places(Place(pack, 40, 1 << 31, 0))


def _summarised(data: bytes) -> None:
    """What collecting garbage keeps of a node or list."""
    ref = NodeRef(NodeId(bytes(32)), Place(PackRef(0, NAME), 40, 9, 9))
    errors = []
    for kind in (FrameKind.NODE, FrameKind.LIST):
        try:
            _split(_summary(kind, data, ref))
        except WRONG as error:
            errors.append(error)
    if len(errors) == 2:
        raise errors[0]


_LISTS = [plain for _, plain in FRAMES[FrameKind.LIST]]
_LINKS = [encode_link(Link(etag, size, url)) for etag, size, url in (
    ("abc", 5, "s3://bucket/name"), (None, 2**40, "file:///data/x%20y"), ("mtime:1", 0, "https://example.org/a?b=c"),
)]  # fmt: skip


def _link(data: bytes) -> None:
    link = decode_link(data, what="a record")
    assert isinstance(link.url, str)
    assert 0 <= link.size < 1 << 63


def _json(wrap: Any = bytes) -> partial[Layer]:
    return partial(Layer, wrap=wrap, change=changed_json)


_NODE_PLAINS = [plain for _, plain in FRAMES[FrameKind.NODE]]
_SMALL_NODES = sorted(_NODE_PLAINS, key=len)[:40]

TARGETS: dict[str, Target] = {
    "config": Target(
        partial(decode_config, what="a config"),
        [Layer(CONFIGS), _json(partial(seal, CONFIG))(_payloads(CONFIGS))],
        WRONG,
    ),
    "log-entry": Target(
        partial(decode_entry, what="an entry"),
        [
            Layer(ENTRIES),
            _json(partial(seal, LOG_ENTRY))(_payloads(ENTRIES)),
            _json(partial(seal, LOG_ENTRY))(_payloads(EACH_KIND)),
        ],
        WRONG,
    ),
    "fold": Target(_fold, [Layer(_LOG, change=_changed_lines)], WRONG),
    "checkpoint": Target(
        _checkpoint,
        [
            Layer(CHECKPOINTS),
            Layer(_payloads(CHECKPOINTS), partial(seal, CHECKPOINT)),
            Layer(
                [_plain_checkpoints([b"entry %d" % n for n in range(64)]), _plain_checkpoints([b""] * 64)],
                partial(_sealed_checkpoint, 1, 64),
            ),
            Layer([_plain_checkpoints([b"e"] * 4096)], partial(_sealed_checkpoint, 2, 4096)),
        ],
        WRONG,
    ),
    "frame": Target(
        _frame,
        [Layer(SOME_FRAMES), Layer(_ZSTD, _declared), Layer(_ZSTD, _with_payload)],
        WRONG,
    ),
    "pack-tail": Target(
        _tail,
        [
            Layer([_tail_of(body) for body, _, _ in _footers()]),
            Layer([body for body, _, _ in _footers()], _tail_of),
        ],
        WRONG,
    ),
    "pack": Target(_pack, [Layer(SMALL_PACKS, _renamed), Layer([_renamed(pack) for pack in SMALL_PACKS])], WRONG),
    "node": Target(_node, [Layer(_SMALL_NODES), Layer(_NODE_PLAINS[:: max(1, len(_NODE_PLAINS) // 20)])], WRONG),
    "census": Target(_census, [Layer([plain for _, plain in FRAMES[FrameKind.CENSUS]])], WRONG),
    "segment-list": Target(_list, [Layer([plain for _, plain in FRAMES[FrameKind.LIST]])], WRONG),
    "pack-list": Target(partial(decode_pack_list, what="a list"), [Layer([b"", bytes(20), bytes(range(200))])], WRONG),
    "relocation": Target(
        _relocation, [Layer([_table(1), _table(40), b""]), Layer([b"".join([_table(3), _table(2)])])], WRONG
    ),
    "summary": Target(_summarised, [Layer(_LISTS), Layer(_SMALL_NODES)], WRONG),
    "link": Target(_link, [_json()(_LINKS)], WRONG),
}
