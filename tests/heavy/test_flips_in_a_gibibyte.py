"""100,000 random flips in a store of 1 GiB, in batches of 1,000: verify of the store tells each, by pack and frame."""

import os
import random
import shutil
import time
from pathlib import Path

import pytest
from versions import version_of

from dataset_store.core.packfile import footer_start
from dataset_store.dataset.checks.store_check import verify_store
from dataset_store.dataset.workspace import open_workspace
from dataset_store.storage.findings import Severity

FILES, FILE_BYTES, FLIPS, BATCHES = 256, 4 << 20, 1_000, 100


@pytest.fixture
def big(tmp_path, monkeypatch):
    """A store of 1 GiB of bytes that do not compress, in memory where there is room."""
    base = Path("/dev/shm") if os.access("/dev/shm", os.W_OK) else tmp_path
    home = base / f"repair-flips-{os.getpid()}"
    home.mkdir()
    for name, folder in (("URL", "store"), ("CACHE", "cache"), ("DATA", "own")):
        monkeypatch.setenv(f"DATASET_STORE_{name}", str(home / folder))
    rng = random.Random(1)
    for begin in range(0, FILES, 32):
        folder = home / "source"
        folder.mkdir()
        for number in range(begin, begin + 32):
            (folder / f"{number:03}").write_bytes(rng.randbytes(FILE_BYTES))
        for number in range(500):
            (folder / f"small-{begin}-{number}").write_bytes(rng.randbytes(rng.randrange(1, 3_000)))
        version_of(folder, dataset_name=f"d{begin}")
        shutil.rmtree(folder)
    yield home
    shutil.rmtree(home)


@pytest.mark.heavy
@pytest.mark.timeout(1500)
def test_each_of_very_many_flips_is_told_by_pack_and_frame(big, tell):
    """A flip that bears no meaning is not told: in what zstd compressed, see the inert bits of the format."""
    packs = sorted(path for path in (big / "store/packs").rglob("*") if path.is_file())
    sizes = [path.stat().st_size for path in packs]
    footers = [footer_start(path.read_bytes()[-64:], what=path.name) for path in packs]
    assert sum(sizes) > 1 << 30
    workspace = open_workspace()
    rng, begun = random.Random(2), time.monotonic()
    found = missed = 0
    batches = int(os.environ.get("DATASET_STORE_TEST_BATCHES", BATCHES))
    for _ in range(batches):
        places = rng.choices(range(len(packs)), sizes, k=FLIPS)
        flips = [(which, rng.randrange(sizes[which]), rng.randrange(8)) for which in places]
        flips = list({(which, at): bit for which, at, bit in flips}.items())
        flip(packs, flips)
        told = {}
        for one in verify_store(workspace).findings:
            if one.severity is not Severity.INFORMATION and one.pack is not None:
                told.setdefault(one.pack.name.hex(), []).append(one)
        for (which, at), _bit in flips:
            is_told = any(covers(one, at, footers[which]) for one in told.get(packs[which].name, ()))
            found += is_told
            missed += not is_told
        flip(packs, flips)
    assert verify_store(workspace).sound
    minutes = (time.monotonic() - begun) / 60
    tell(f"{found} flips of {found + missed} told by pack and frame, {minutes:.1f} minutes")
    assert missed == 0
    assert found > 990 * batches


def flip(packs, flips):
    for (which, at), bit in flips:
        packs[which].chmod(0o644)
        with open(packs[which], "r+b") as file:
            file.seek(at)
            (byte,) = file.read(1)
            file.seek(at)
            file.write(bytes([byte ^ (1 << bit)]))


def covers(one, at, footer):
    """Whether a finding names the place: a frame, the header, or the footer behind all frames."""
    if one.id == "pack-footer-damaged":
        return at >= footer
    return one.offset is not None and one.offset <= at < one.offset + one.length
