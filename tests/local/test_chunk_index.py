"""The chunk index says where chunks are that were added, gives footers back, and doubts its own files."""

import os
from pathlib import Path

import numpy as np
import pytest
from blake3 import blake3
from hypothesis import given, settings
from hypothesis import strategies as st

from dataset_store.core.digest import ContentId, PackName, StoreId, hash32
from dataset_store.core.frames import FrameCodec, FrameKind
from dataset_store.core.packfile import Footer, PackBuilder, PackRef
from dataset_store.local.chunk_index import ChunkHit, ChunkIndex
from dataset_store.local.lmdb_environment import open_environment

CODEC = FrameCodec()
STORE = StoreId(bytes(16))
A, B, C = (PackRef(storage, PackName(bytes([name]) * 16)) for storage, name in [(0, 1), (0, 2), (7, 1)])


def noise(seed: object, length: int) -> bytes:
    return blake3(repr(seed).encode()).digest(length=length)


def built(frames: list[tuple[FrameKind, list[bytes]]]) -> tuple[bytes, Footer]:
    """A pack of these frames, and its footer."""
    builder = PackBuilder(STORE, A.name)
    for kind, chunks in frames:
        builder.append(CODEC.encode_frame(kind, chunks, [hash32(chunk) for chunk in chunks]))
    return b"".join(builder.finish()), builder.footer()


def footer_of(*frames: list[bytes]) -> Footer:
    return built([(FrameKind.DATA, chunks) for chunks in frames])[1]


def chunk_in(pack: bytes, hit: ChunkHit) -> bytes:
    """The bytes that a hit says are there."""
    frame = CODEC.decode_frame(pack[hit.offset : hit.offset + hit.stored], what="The frame")
    return bytes(frame.plain[hit.plain_offset : hit.plain_offset + hit.plain_length])


def same(one: Footer, other: Footer) -> bool:
    return one.encode() == other.encode() and one.run_digest(0, len(one.ids)) == other.run_digest(0, len(other.ids))


@pytest.fixture
def folder(tmp_path: Path) -> str:
    return str(tmp_path / "chunks")


@pytest.fixture
def index(folder: str) -> ChunkIndex:
    return ChunkIndex(folder)


@pytest.fixture(scope="module")
def shared_index(tmp_path_factory: pytest.TempPathFactory) -> ChunkIndex:
    return ChunkIndex(str(tmp_path_factory.mktemp("chunks")))


CHUNKS = st.builds(noise, st.integers(0, 50), st.integers(1, 400))


class AllBut:
    """Every pack but one."""

    def __init__(self, one):
        self.one = one

    def __contains__(self, pack):
        return pack != self.one


@settings(deadline=None, max_examples=60)
@given(
    data=st.lists(st.lists(CHUNKS, min_size=1, max_size=5), max_size=6),
    nodes=st.lists(st.binary(min_size=401, max_size=500), max_size=2),
    storage=st.integers(0, 2**32 - 1),
)
def test_a_hit_leads_to_the_bytes_of_its_chunk(shared_index: ChunkIndex, data, nodes, storage) -> None:
    frames = [(FrameKind.DATA, chunks) for chunks in data] + [(FrameKind.NODE, [node]) for node in nodes]
    pack, footer = built(frames)
    reference = PackRef(storage, PackName(os.urandom(16)))
    shared_index.add_footer(reference, footer, avoid=AllBut(reference))
    chunks = [chunk for row in data for chunk in row]
    hits = shared_index.find_many([hash32(chunk) for chunk in chunks])
    assert {hit.pack for hit in hits} <= {reference}
    assert [chunk_in(pack, hit) for hit in hits] == chunks
    alone = {row[0] for row in data if len(row) == 1}
    in_blocks = {chunk for row in data if len(row) > 1 for chunk in row}
    assert all(hit.alone for hit, chunk in zip(hits, chunks, strict=True) if chunk not in in_blocks)
    assert not any(hit.alone for hit, chunk in zip(hits, chunks, strict=True) if chunk not in alone)
    assert shared_index.find_many([hash32(node) for node in nodes]) == [None] * len(nodes)
    kept = shared_index.footer(reference)
    assert kept is not None
    assert same(kept, footer)


def test_what_was_never_added_is_a_miss(index: ChunkIndex) -> None:
    index.add_footer(A, footer_of([b"here"]))
    hit, miss = index.find_many([hash32(b"here"), hash32(b"not here")])
    assert hit == ChunkHit(A, 40, 24, 0, 4, alone=True)
    assert miss is None
    assert index.find_many([]) == []


def test_a_pack_is_known_once_its_footer_was_added(index: ChunkIndex) -> None:
    assert not index.knows_pack(A)
    assert index.footer(A) is None
    index.add_footer(A, footer_of([b"one"]))
    assert index.knows_pack(A)
    assert not index.knows_pack(B)
    assert not index.knows_pack(C)


def test_a_pack_without_chunks_is_known_too(index: ChunkIndex) -> None:
    index.add_footer(A, footer_of())
    footer = index.footer(A)
    assert footer is not None
    assert same(footer, footer_of())


def test_a_footer_that_comes_back_has_the_columns_that_were_added(index: ChunkIndex) -> None:
    footer = footer_of([b"one", b"two"], [b"three"])
    index.add_footer(A, footer)
    kept = index.footer(A)
    assert kept is not None
    for column in Footer.__struct_fields__:
        np.testing.assert_array_equal(getattr(kept, column), getattr(footer, column))


def test_the_row_of_an_older_pack_stays_as_long_as_it_may_be_used(index: ChunkIndex) -> None:
    both, only = hash32(b"both"), hash32(b"only in A")
    index.add_footer(A, footer_of([b"both"], [b"only in A"]))
    index.add_footer(B, footer_of([b"both"]))
    assert [hit and hit.pack for hit in index.find_many([both, only])] == [A, A]


def test_the_row_of_a_pack_that_must_be_avoided_gives_way(index: ChunkIndex) -> None:
    index.add_footer(A, footer_of([b"both"]))
    index.add_footer(B, footer_of([b"both"]), avoid={A})
    (hit,) = index.find_many([hash32(b"both")])
    assert hit is not None
    assert hit.pack == B


def test_packs_of_one_name_in_two_storages_are_two_packs(index: ChunkIndex) -> None:
    index.add_footer(A, footer_of([b"in A"]))
    index.add_footer(C, footer_of([b"in C"]))
    ids = [hash32(b"in A"), hash32(b"in C")]
    assert [hit and hit.pack for hit in index.find_many(ids)] == [A, C]


def test_contents_come_back_as_they_were_added_and_newer_ones_replace_older_ones(index: ChunkIndex) -> None:
    one, two, three = (ContentId(hash32(name)) for name in (b"one", b"two", b"three"))
    index.add_contents([(one, b"segments of one"), (two, b"")])
    index.add_contents([(one, b"newer segments")])
    index.add_contents([])
    assert index.find_contents([three, two, one]) == [None, b"", b"newer segments"]


def test_a_chunk_and_a_content_of_one_id_do_not_meet(index: ChunkIndex) -> None:
    content = ContentId(hash32(b"bytes"))
    index.add_footer(A, footer_of([b"bytes"]))
    assert index.find_contents([content]) == [None]
    index.add_contents([(content, b"segments")])
    (hit,) = index.find_many([content])
    assert hit is not None
    assert hit.pack == A


def test_whoever_opens_the_folder_later_knows_the_same(folder: str) -> None:
    ChunkIndex(folder).add_footer(A, footer_of([b"chunk"]))
    index = ChunkIndex(folder)
    assert index.knows_pack(A)
    assert index.find_many([hash32(b"chunk")]) != [None]


def flip_a_bit(folder: str, key: bytes, at: int) -> None:
    environment = open_environment(folder)
    (value,) = environment.read(lambda txn: txn.get_many([key]))
    assert value is not None
    damaged = bytearray(value)
    damaged[at] ^= 1
    environment.write(lambda txn: txn.put_many([(key, bytes(damaged))]))


CHUNK_KEY = b"c" + hash32(b"chunk")


@pytest.mark.parametrize("at", [0, 3, 4, 8, 24, 28, 32, 36, 40])
def test_a_row_with_one_wrong_bit_is_a_miss(index: ChunkIndex, folder: str, at: int) -> None:
    index.add_footer(A, footer_of([b"chunk"], [b"other chunk"]))
    flip_a_bit(folder, CHUNK_KEY, at)
    damaged, other = index.find_many([hash32(b"chunk"), hash32(b"other chunk")])
    assert damaged is None
    assert other is not None


def test_the_row_of_another_chunk_is_a_miss(index: ChunkIndex, folder: str) -> None:
    index.add_footer(A, footer_of([b"chunk"], [b"other chunk"]))
    environment = open_environment(folder)
    (row,) = environment.read(lambda txn: txn.get_many([b"c" + hash32(b"other chunk")]))
    assert row is not None
    environment.write(lambda txn: txn.put_many([(CHUNK_KEY, row)]))
    assert index.find_many([hash32(b"chunk")]) == [None]


def test_a_row_cut_to_nothing_is_a_miss(index: ChunkIndex, folder: str) -> None:
    open_environment(folder).write(lambda txn: txn.put_many([(CHUNK_KEY, b"")]))
    assert index.find_many([hash32(b"chunk")]) == [None]


def test_a_damaged_footer_is_forgotten_so_that_it_can_be_added_again(index: ChunkIndex, folder: str) -> None:
    footer = footer_of([b"chunk"])
    index.add_footer(A, footer)
    flip_a_bit(folder, b"f" + bytes(4) + A.name, 20)
    assert index.footer(A) is None
    assert not index.knows_pack(A)
    index.add_footer(A, footer)
    kept = index.footer(A)
    assert kept is not None
    assert same(kept, footer)


def test_a_damaged_content_is_a_miss(index: ChunkIndex, folder: str) -> None:
    content = ContentId(hash32(b"content"))
    index.add_contents([(content, b"segments")])
    flip_a_bit(folder, b"s" + content, 6)
    assert index.find_contents([content]) == [None]


def test_where_its_folder_cannot_be_used_the_index_knows_nothing(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    index = ChunkIndex(str(tmp_path / "file" / "chunks"))
    index.add_footer(A, footer_of([b"chunk"]))
    index.add_contents([(ContentId(hash32(b"content")), b"segments")])
    assert not index.knows_pack(A)
    assert index.footer(A) is None
    assert index.find_many([hash32(b"chunk")]) == [None]
    assert index.find_contents([hash32(b"content")]) == [None]
