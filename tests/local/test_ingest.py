"""Packing: files turned into frames and segments, storing only what is not stored yet."""

import gc
import itertools
import os
import subprocess
import sys
import threading
import tracemalloc
from dataclasses import dataclass, field
from unittest import mock

import pytest
from blake3 import blake3
from hypothesis import given, settings
from hypothesis import strategies as st

from dataset_store.core.chunking import ChunkerParams
from dataset_store.core.digest import PackName, rows_digest
from dataset_store.core.entries import ONE_CHUNK
from dataset_store.core.frames import PLAIN_LIMITS, FrameCodec, FrameKind
from dataset_store.core.packfile import PackRef, Place
from dataset_store.core.segments import ChunkHit
from dataset_store.errors import AccessDenied, FileChanged, StorageFailed
from dataset_store.local import batches
from dataset_store.local import ingest as ingesting
from dataset_store.local.ingest import SegmentAssembler, SourceFile, ingest
from dataset_store.local.reading import FileStat

pytestmark = pytest.mark.usefixtures("both_ways")

DEFAULT = ChunkerParams()
SMALL = ChunkerParams(256)
SMALL_READ = 4096  # bytes; stands for 4 MiB where chunks are cut by SMALL


def random_bytes(seed, length):
    return blake3(f"{seed}".encode()).digest(length=length) if length else b""


def content_id(data):
    return blake3(data).digest()


@dataclass
class MemoryPacks:
    """Packs in memory: takes the frames of units, gives places, and reads segments back."""

    store: dict = field(default_factory=dict)
    hits: dict = field(default_factory=dict)
    frames: list = field(default_factory=list)
    pack_size: int = 1 << 16
    codec: FrameCodec = field(default_factory=FrameCodec)

    def put(self, unit):
        places = [self._append(frame) for frame in unit.frames]
        self.frames += unit.frames
        return places

    def _append(self, frame):
        ref = PackRef(0, PackName(len(self.store).to_bytes(16, "big")))
        if not self.store or len(self.store[self._last()]) > self.pack_size:
            self.store[ref] = bytearray(40)
        ref = self._last()
        place = Place(ref, len(self.store[ref]), len(frame.data), frame.plain)
        self.store[ref] += frame.data
        starts = itertools.accumulate(frame.lengths, initial=0)
        for chunk_id, length, start in zip(frame.ids, frame.lengths, starts, strict=False):
            alone = len(frame.ids) == 1
            self.hits[chunk_id] = ChunkHit(ref, place.offset, place.stored, start, length, alone)
        return place

    def _last(self):
        return next(reversed(self.store))

    def lookup(self, ids):
        return [self.hits.get(chunk_id) for chunk_id in ids]

    def read(self, entry, data):
        """The bytes of an entry, every segment checked; of one chunk the digest follows from the content."""
        parts = []
        for segment in entry.rows:
            one = entry.bits == ONE_CHUNK
            digest = rows_digest([content_id(data)], [len(data)]) if one else segment.digest
            frames = bytes(self.store[segment.pack][segment.offset : segment.offset + segment.stored])
            run = segment.plain_offset, segment.plain_length, digest
            parts.append(bytes(self.codec.decode_segment(frames, *run, what="a segment")))
        return b"".join(parts)


def nothing_stored(ids):
    return [None] * len(ids)


def write(folder, contents):
    sources = []
    for index, data in enumerate(contents):
        path = folder / f"{index:04}"
        path.write_bytes(data)
        sources.append(SourceFile(index, os.fsencode(path), len(data), content_id(data)))
    return sources


def literals(contents):
    return [SourceFile(index, b"a link", len(d), content_id(d), d) for index, d in enumerate(contents)]


def pack_all(sources, packs, lookup=nothing_stored, params=DEFAULT, workers=2):
    """Ingest everything; the segments of each source by index, in the order in which they were complete."""
    assembler = SegmentAssembler()
    entries = {}
    for unit in ingest(sources, params, lookup, workers=workers):
        for index, entry in assembler.add(unit, packs.put(unit)):
            assert index not in entries
            entries[index] = entry
    return entries


@pytest.fixture
def small_reads(monkeypatch):
    monkeypatch.setattr(ingesting, "READ_SIZE", SMALL_READ)


# --- packing: what comes out ---

lengths = st.one_of(st.integers(0, 130), st.integers(0, 3000), st.integers(3000, 30_000))
contents = st.builds(
    lambda seed, length, period: (
        (random_bytes(seed, min(length, period)) * (length // period + 1))[:length] if length else b""
    ),
    st.integers(0, 5),
    lengths,
    st.sampled_from([7, 1000, 10**6]),
)


@settings(deadline=None, max_examples=40)
@given(st.lists(contents, max_size=12), st.lists(contents, max_size=3), st.integers(0, 2**16), st.integers(1, 3))
def test_every_file_can_be_read_back_whatever_was_stored_before(tmp_path_factory, files, stored, pattern, workers):
    folder = tmp_path_factory.mktemp("files")
    packs = MemoryPacks()
    with mock.patch.object(ingesting, "READ_SIZE", SMALL_READ):
        pack_all(write(folder, [*stored, *files[::2]]), packs, params=SMALL)
        known = {chunk_id: hit for chunk_id, hit in packs.hits.items() if pattern >> (chunk_id[0] & 15) & 1}
        sources = write(folder, files)
        entries = pack_all(sources, packs, lambda ids: [known.get(one) for one in ids], params=SMALL, workers=workers)
    assert list(entries) == [source.index for source in sources]
    for index, data in enumerate(files):
        assert packs.read(entries[index], data) == data
        assert (entries[index].bits == ONE_CHUNK) == (0 < len(data) <= SMALL.minimum or one_cut(data))
        assert bool(entries[index].rows) == bool(data)


def one_cut(data):
    return len(data) > 0 and len(ingesting.cut_ends(data, SMALL, final=True)) == 1


def test_files_longer_than_a_buffer_are_cut_as_if_they_were_read_at_once(tmp_path, small_reads):
    data = random_bytes("long", 50_000)
    packs = MemoryPacks()
    pack_all(write(tmp_path, [data]), packs, params=SMALL)
    ends = ingesting.cut_ends(data, SMALL, final=True).tolist()
    cuts = itertools.pairwise([0, *ends])
    assert [frame.ids for frame in packs.frames] == [(content_id(data[start:end]),) for start, end in cuts]


def test_frames_do_not_depend_on_the_number_of_threads(tmp_path, small_reads):
    files = [random_bytes(n, 50 + 700 * (n % 13) ** 2 * (n % 3)) for n in range(60)]
    sources = write(tmp_path, files)
    one, many = MemoryPacks(), MemoryPacks()
    assert pack_all(sources, one, params=SMALL, workers=1) == pack_all(sources, many, params=SMALL, workers=5)
    assert one.frames == many.frames


def test_short_files_share_blocks_in_their_order(tmp_path):
    files = [random_bytes(n, 20_000) for n in range(40)]
    packs = MemoryPacks()
    pack_all(write(tmp_path, files), packs)
    assert [one for frame in packs.frames for one in frame.ids] == [content_id(data) for data in files]
    assert [len(frame.ids) for frame in packs.frames] == [13, 13, 13, 1]
    assert all(frame.plain <= PLAIN_LIMITS[FrameKind.DATA] for frame in packs.frames)


def test_short_files_between_longer_ones_still_share_a_block(tmp_path):
    files = [random_bytes(n, 100 if n % 2 else 40_000) for n in range(20)]
    packs = MemoryPacks()
    entries = pack_all(write(tmp_path, files), packs)
    assert max(len(frame.ids) for frame in packs.frames) == 10
    assert all(packs.read(entries[index], data) == data for index, data in enumerate(files))


def test_the_text_of_a_link_is_stored_like_a_file_and_no_file_is_opened():
    texts = [b"../else/where", b"", b"x" * 4000]
    packs = MemoryPacks()
    with mock.patch.object(ingesting, "open_regular", side_effect=AssertionError):
        entries = pack_all(literals(texts), packs)
    assert [packs.read(entries[index], text) for index, text in enumerate(texts)] == texts


def test_what_is_stored_is_not_stored_again(tmp_path, small_reads):
    data = random_bytes("again", 100_000)
    packs = MemoryPacks()
    first, second = write(tmp_path, [data, data])
    pack_all([first], packs, params=SMALL)
    stored = len(packs.frames)
    entries = pack_all([second], packs, packs.lookup, params=SMALL)
    assert len(packs.frames) == stored
    assert packs.read(entries[1], data) == data


def test_chunks_placed_earlier_in_the_same_call_are_found_by_a_lookup_that_knows_them(tmp_path, small_reads):
    data = random_bytes("twice", 40_000)
    other = random_bytes("between", 400_000)
    packs = MemoryPacks()
    sources = write(tmp_path, [data, other, data])
    entries = pack_all(sources, packs, packs.lookup, params=SMALL, workers=1)
    assert sum(frame.plain for frame in packs.frames) == len(data) + len(other)
    assert packs.read(entries[2], data) == data


def test_lookups_never_overlap(tmp_path, small_reads):
    inside = threading.Lock()

    def lookup(ids):
        assert inside.acquire(blocking=False)
        content_id(bytes(1 << 20))  # long enough for others to come
        inside.release()
        return nothing_stored(ids)

    files = [random_bytes(n, 20_000) for n in range(6)]
    assert len(pack_all(write(tmp_path, files), MemoryPacks(), lookup, params=SMALL, workers=4)) == 6


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 60_000), st.integers(1, 4), st.integers(0, 10**6))
def test_a_file_of_scattered_chunks_keeps_no_more_reused_runs_than_its_length_allows(
    tmp_path_factory, length, every, seed
):
    """Each chunk is stored in a pack of its own, so that every hit is a run."""
    folder = tmp_path_factory.mktemp("scattered")
    data = random_bytes(seed, length)
    packs = MemoryPacks(pack_size=0)
    with mock.patch.object(ingesting, "READ_SIZE", SMALL_READ):
        pack_all(write(folder, [data]), packs, params=SMALL)
        scattered = set(packs.store)
        some = {chunk_id: hit for chunk_id, hit in packs.hits.items() if chunk_id[0] % every == 0}
        packs.pack_size = 1 << 30
        packs.store[PackRef(0, PackName(b"the next pack..."))] = bytearray(40)
        entries = pack_all(write(folder, [data]), packs, lambda ids: [some.get(one) for one in ids], params=SMALL)
    reused = [segment for segment in entries[0].rows if segment.pack in scattered]
    reads = -(-length // SMALL_READ)
    assert len(reused) <= ingesting.RUNS_PER_READ * reads + ingesting.FIRST_RUNS
    assert len(entries[0].rows) <= 2 * len(reused) + 1
    assert packs.read(entries[0], data) == data


def test_a_file_of_the_default_read_size_keeps_at_most_sixteen_scattered_runs_in_its_first_buffer(tmp_path):
    data = random_bytes("first", 4 << 20)
    packs = MemoryPacks(pack_size=0)
    pack_all(write(tmp_path, [data]), packs)
    scattered = set(packs.store)
    entries = pack_all(write(tmp_path, [data]), packs, packs.lookup)
    assert len(scattered) > 40
    assert sum(segment.pack in scattered for segment in entries[0].rows) == 16


# --- packing: files that are not what was added ---

SIZES = {"short": 1_000, "of several chunks": 200_000, "longer than a buffer": (4 << 20) + 70_000}
every_size = pytest.mark.parametrize("size", SIZES.values(), ids=SIZES.keys())


@every_size
@pytest.mark.parametrize("cut", [1, 500])
def test_a_file_that_became_shorter_is_refused(tmp_path, size, cut):
    (source,) = write(tmp_path, [random_bytes("shorter", size)])
    os.truncate(source.path, size - cut)
    with pytest.raises(FileChanged, match="since it was added"):
        pack_all([source], MemoryPacks())


@every_size
@pytest.mark.parametrize("at", [0, -1])
def test_a_file_of_the_same_size_and_other_bytes_is_refused_and_never_complete(tmp_path, size, at):
    data = bytearray(random_bytes("other", size))
    (source,) = write(tmp_path, [bytes(data)])
    data[at] ^= 1
    (tmp_path / "0000").write_bytes(data)
    units = []
    with pytest.raises(FileChanged, match="since it was added"):
        units.extend(ingest([source], DEFAULT, nothing_stored))
    assert all(unit.complete == [] for unit in units)


@every_size
def test_of_a_file_that_has_grown_what_was_added_is_stored(tmp_path, size):
    data = random_bytes("grown", size)
    (source,) = write(tmp_path, [data])
    with (tmp_path / "0000").open("ab") as file:
        file.write(b"more")
    packs = MemoryPacks()
    assert packs.read(pack_all([source], packs)[0], data) == data


@every_size
@pytest.mark.parametrize("kind", ["gone", "fifo", "folder"])
def test_a_source_that_is_no_file_any_more_is_refused_without_waiting(tmp_path, size, kind):
    path = tmp_path / "source"
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    source = SourceFile(0, os.fsencode(path), size, bytes(32))
    with pytest.raises(FileChanged, match="source"):
        pack_all([source], MemoryPacks())


def test_a_link_to_a_file_is_stored_as_the_bytes_of_the_file(tmp_path):
    data = random_bytes("target", 5_000)
    (tmp_path / "target").write_bytes(data)
    (tmp_path / "link").symlink_to("target")
    source = SourceFile(0, os.fsencode(tmp_path / "link"), len(data), content_id(data))
    packs = MemoryPacks()
    assert packs.read(pack_all([source], packs)[0], data) == data


# --- packing: files that nobody has read yet ---

UNREAD_SIZES = {"of several chunks": 200_000, "longer than a buffer": (4 << 20) + 70_000}
each_unread_size = pytest.mark.parametrize("size", UNREAD_SIZES.values(), ids=UNREAD_SIZES.keys())


def as_unread(sources):
    """The same files, of which nobody knows the contents."""
    return [
        SourceFile(one.index, one.path, one.size, None, mtime_ns=os.stat(one.path).st_mtime_ns)
        if one.size > DEFAULT.minimum
        else one
        for one in sources
    ]


def units_of(sources, **more):
    return list(ingest(sources, DEFAULT, nothing_stored, **more))


def all_of(units, name):
    return [one for unit in units for one in getattr(unit, name)]


def test_a_file_that_nobody_has_read_is_stored_as_if_it_had_been_read_before(tmp_path):
    files = [random_bytes(n, length) for n, length in enumerate([0, 7, 40_000, 200_000, (4 << 20) + 70_000, 9 << 20])]
    sources = write(tmp_path, files)
    known, unread = MemoryPacks(), MemoryPacks()
    entries = pack_all(sources, known)
    assert pack_all(as_unread(sources), unread) == entries
    assert unread.frames == known.frames
    read = all_of(units_of(as_unread(sources)), "read")
    assert {one.source: one.content_id for one in read} == {n: content_id(files[n]) for n in (2, 3, 4, 5)}
    assert all(one.stat == FileStat.of(os.stat(sources[one.source].path)) for one in read)


@each_unread_size
def test_each_file_that_nobody_has_read_is_opened_once_and_read_once(tmp_path, size, monkeypatch):
    sources, opened, filled = as_unread(write(tmp_path, [random_bytes("once", size)])), [], []
    real_open, real_fill = ingesting.open_regular, ingesting.fill
    monkeypatch.setattr(ingesting, "open_regular", lambda path: opened.append(path) or real_open(path))
    monkeypatch.setattr(ingesting, "fill", lambda fd, view: filled.append(len(view)) or real_fill(fd, view))
    units_of(sources)
    assert opened == [sources[0].path]
    assert sum(filled) == size


def test_of_equal_files_one_is_stored_whether_they_were_read_before_or_not(tmp_path):
    twin, other = random_bytes("twin", 300_000), random_bytes("other", 300_000)
    sources = write(tmp_path, [twin, other, twin, twin])
    for some in (as_unread(sources), [*sources[:2], *as_unread(sources)[2:]]):
        units = units_of(some, workers=1)
        assert sum(unit.plain for unit in units) == 600_000
        assert set().union(*(unit.repeated for unit in units)) == {2, 3}
        assert sorted(all_of(units, "complete")) == [0, 1, 2, 3]
        assembled = SegmentAssembler()
        packs = MemoryPacks()
        assert [index for unit in units for index, _ in assembled.add(unit, packs.put(unit))] == [0, 1]


def test_nothing_is_sent_of_a_file_whose_content_turns_out_to_be_stored(tmp_path):
    data = random_bytes("stored", 300_000)
    (unit,) = units_of(as_unread(write(tmp_path, [data])), stored=[content_id(data)])
    assert (unit.frames, unit.pieces, unit.repeated) == ([], [], {0})
    assert [one.content_id for one in unit.read] == [content_id(data)]


@each_unread_size
@pytest.mark.parametrize("change", ["shorter", "longer", "touched", "rewritten"])
def test_a_file_that_was_changed_before_anybody_read_it_is_refused(tmp_path, size, change):
    sources = as_unread(write(tmp_path, [random_bytes("changed", size)]))
    path = tmp_path / "0000"
    if change == "shorter":
        os.truncate(path, size - 1)
    elif change == "longer":
        os.truncate(path, size + 1)
    elif change == "rewritten":
        path.write_bytes(random_bytes("rewritten", size))
    later = sources[0].mtime_ns + (change in {"touched", "rewritten"})
    os.utime(path, ns=(later, later))
    with pytest.raises(FileChanged, match=r"0000.* since it was added"):
        units_of(sources)


def while_it_is_read(monkeypatch, change):
    """Change the file when its last bytes are asked for."""
    real = ingesting.fill

    def filling(fd, view):
        count = real(fd, view)
        if not os.pread(fd, 1, os.lseek(fd, 0, os.SEEK_CUR)):
            change(fd)
        return count

    monkeypatch.setattr(ingesting, "fill", filling)


@each_unread_size
def test_a_file_that_is_changed_while_it_is_read_for_the_first_time_is_refused(tmp_path, size, monkeypatch):
    sources = as_unread(write(tmp_path, [random_bytes("meanwhile", size)]))
    while_it_is_read(monkeypatch, lambda fd: os.utime(fd, ns=(1, 1)))
    units = []
    with pytest.raises(FileChanged, match=r"0000.* since it was added"):
        units.extend(ingest(sources, DEFAULT, nothing_stored))
    assert all_of(units, "complete") == []


@each_unread_size
def test_a_file_that_vanished_before_anybody_read_it_is_refused(tmp_path, size):
    source = SourceFile(0, os.fsencode(tmp_path / "gone"), size, None, mtime_ns=1)
    with pytest.raises(FileChanged, match="gone"):
        units_of([source])


def test_an_error_ends_the_call_and_leaves_no_thread_behind(tmp_path, small_reads):
    files = [random_bytes(n, 20_000) for n in range(20)]
    sources = write(tmp_path, files)
    (tmp_path / "0007").unlink()
    with pytest.raises(FileChanged, match="0007"):
        pack_all(sources, MemoryPacks(), params=SMALL)
    assert not threads_named("ingest")


def test_a_call_that_is_abandoned_leaves_no_thread_and_no_open_file_behind(tmp_path, small_reads):
    sources = write(tmp_path, [random_bytes("abandoned", 200_000)])
    before = os.listdir("/proc/self/fd") if os.path.isdir("/proc/self/fd") else []
    units = ingest(sources, SMALL, nothing_stored, workers=2)
    next(units)
    assert threads_named("ingest")
    units.close()
    assert not threads_named("ingest")
    assert len(os.listdir("/proc/self/fd") if before else []) == len(before)


def threads_named(prefix):
    return [thread.name for thread in threading.enumerate() if thread.name.startswith(prefix)]


@pytest.mark.parametrize(
    ("problem", "meaning"), [(PermissionError(13, "denied"), AccessDenied), (OSError(5, "I/O"), StorageFailed)]
)
@pytest.mark.parametrize("call", ["open", "read"])
def test_a_source_that_cannot_be_read_is_named(tmp_path, problem, meaning, call, monkeypatch):
    monkeypatch.setattr(batches, "_files", None)
    (source,) = write(tmp_path, [b"secret"])
    with mock.patch.object(ingesting.os, call, side_effect=problem), pytest.raises(meaning, match="0000"):
        pack_all([source], MemoryPacks())


def test_file_systems_that_return_less_than_was_asked_for_do_not_change_what_is_stored(tmp_path):
    files = [random_bytes("a", 3_000), random_bytes("b", 300_000)]
    sources = write(tmp_path, files)
    plain_read, plain_readv = os.read, os.readv
    packs = MemoryPacks()
    with mock.patch.multiple(
        ingesting.os,
        read=lambda opened, count: plain_read(opened, min(count, 700)),
        readv=lambda opened, buffers: plain_readv(opened, [buffers[0][:70_001]]),
    ):
        entries = pack_all(sources, packs)
    assert [packs.read(entries[index], data) for index, data in enumerate(files)] == files


# --- memory ---


def test_packing_a_file_holds_a_bounded_part_of_it(tmp_path):
    size = 160 << 20
    path = tmp_path / "sparse"
    path.touch()
    os.truncate(path, size)
    source = SourceFile(0, os.fsencode(path), size, content_id(bytes(size)))
    gc.collect()
    tracemalloc.start()
    try:
        for _ in ingest([source], DEFAULT, nothing_stored, workers=8):
            pass
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 48 << 20


MEASURED = """
import resource, sys
from blake3 import blake3
from dataset_store.core.chunking import ChunkerParams
from dataset_store.local.ingest import SourceFile, ingest
from dataset_store.local.reading import default_workers

path, size, digest = sys.argv[1].encode(), int(sys.argv[2]), bytes.fromhex(sys.argv[3])
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
source = SourceFile(0, path, size, digest)
for unit in ingest([source], ChunkerParams(), lambda ids: [None] * len(ids), workers=8):
    pass
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


@pytest.mark.heavy
def test_packing_256_mib_of_random_bytes_with_eight_threads_takes_less_than_64_mib(tmp_path):
    hasher = blake3()
    with (tmp_path / "random").open("wb") as file:
        for part in range(64):
            data = random_bytes(part, 4 << 20)
            hasher.update(data)
            file.write(data)
    arguments = [os.fsencode(tmp_path / "random"), str(256 << 20), hasher.hexdigest()]
    done = subprocess.run([sys.executable, "-c", MEASURED, *arguments], capture_output=True, check=True)
    assert int(done.stdout) < 64 << 10  # kilobytes
