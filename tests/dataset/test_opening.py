"""Files of a version as file objects: they read like files, fetch what is asked for, and hand out no wrong byte."""

import io
import random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dataset_store import Dataset
from dataset_store.errors import CorruptObject, InvalidPath, InvalidRequest, NotFinal, PathNotFound
from dataset_store.testing.folders import write

LARGE = random.Random(1).randbytes(3_000_000)
FILES = {
    "large.bin": LARGE,
    "sub/short.txt": "grüße\nsecond line\n".encode(),
    "sub/other.txt": b"x" * 5_000,
    "empty": b"",
    "one": b"1" * 40_000,
}


@pytest.fixture
def version(home):
    folder = write(home / "in", FILES)
    (folder / "link").symlink_to("one")
    dataset = Dataset.create(dataset_name="d")
    dataset.sync_folder(folder)
    dataset.finalize(auto_upload=True)
    return dataset


def counted(another_machine, backends):
    """The version as a machine sees it that knows nothing, and the counts of what it reads."""
    another_machine()
    dataset = Dataset.get(dataset_name="d")
    backends[-1].reset()
    return dataset, backends[-1]


@pytest.mark.parametrize("path", FILES)
def test_a_file_reads_as_it_was(version, path):
    with version.open(path) as file:
        assert file.read() == FILES[path]
        assert file.read(1) == b""
    assert file.closed


def test_reading_all_of_a_file_is_few_requests(version, another_machine, backends):
    dataset, backend = counted(another_machine, backends)
    assert dataset.open("large.bin").read() == LARGE
    assert backend.snapshot().total_calls <= 8


def test_text_is_decoded_line_by_line(version):
    with version.open("sub/short.txt", "r", encoding="utf-8") as file:
        assert list(file) == ["grüße\n", "second line\n"]


@given(st.data())
@settings(max_examples=15, suppress_health_check=list(HealthCheck))
def test_seeking_and_reading_is_as_in_any_file(version, data):
    ours, plain = version.open("large.bin"), io.BytesIO(LARGE)
    for _ in range(data.draw(st.integers(1, 8))):
        whence = data.draw(st.sampled_from([io.SEEK_SET, io.SEEK_CUR, io.SEEK_END]))
        low = {io.SEEK_SET: 0, io.SEEK_CUR: -plain.tell(), io.SEEK_END: -len(LARGE)}[whence]
        offset = data.draw(st.integers(low, low + len(LARGE) + 10))
        assert ours.seek(offset, whence) == plain.seek(offset, whence)
        length = data.draw(st.integers(0, 300_000))
        assert ours.read(length) == plain.read(length)
        assert ours.tell() == plain.tell()
    with pytest.raises(ValueError, match="negative"):
        ours.seek(-1)


def test_only_what_is_asked_for_is_fetched(version, another_machine, backends):
    dataset, backend = counted(another_machine, backends)
    file = dataset.open("large.bin")
    file.seek(1_500_000)
    assert file.read(1_000) == LARGE[1_500_000:1_501_000]
    first = backend.snapshot()
    assert first.bytes_read < 1_700_000  # a buffer, and the chunks at its ends
    backend.reset()
    assert file.read(1_000) == LARGE[1_501_000:1_502_000]
    assert backend.snapshot().total_calls == 0


def test_a_damaged_chunk_is_an_error_and_the_rest_can_be_read(version, home, another_machine, backends):
    dataset, _ = counted(another_machine, backends)
    packs = [path for path in (home / "store" / "packs").rglob("*") if path.is_file()]
    pack = max(packs, key=lambda path: path.stat().st_size)
    data = bytearray(pack.read_bytes())
    at = data.find(LARGE[2_000_000:2_000_100])
    assert at > 0
    data[at] ^= 1
    pack.chmod(0o644)
    pack.write_bytes(data)
    file = dataset.open("large.bin")
    assert file.read(100_000) == LARGE[:100_000]
    file.seek(2_000_000)
    with pytest.raises(CorruptObject, match=r"large\.bin"):
        file.read(10)


def test_what_is_no_file_of_the_version_is_refused(version):
    with pytest.raises(PathNotFound):
        version.open("missing")
    with pytest.raises(PathNotFound):
        version.open("sub")
    with pytest.raises(InvalidRequest, match="symlink"):
        version.open("link")
    with pytest.raises(InvalidRequest, match="'w'"):
        version.open("one", "w")
    with pytest.raises(InvalidPath):
        version.open("../one")
    with pytest.raises(NotFinal):
        Dataset.create(dataset_name="new").open("one")
