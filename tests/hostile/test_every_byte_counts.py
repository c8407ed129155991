"""Any flipped bit of any object of a store is found by whoever reads the whole object, but for those the format lists.

The store is the second golden one for small objects (it has checkpoints) and both for packs. That a reader never gets a
wrong byte is shown in `tests/dataset/test_flipped_bytes.py`.
"""

from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from random import Random

import pytest

from dataset_store.core.checkpoints import decode_checkpoint
from dataset_store.core.digest import PackName, StoreId
from dataset_store.core.envelope import decode_config, object_digest
from dataset_store.core.frames import HEADER_SIZE, FrameCodec, require
from dataset_store.core.packfile import PACK_HEADER_SIZE, check_pack, frame_offsets, rebuild_footer
from dataset_store.errors import Corrupt, FormatTooNew
from dataset_store.storage.log_reader import Position, chained

GOLDEN = Path(__file__).parents[1] / "golden"
ZSTD = 1
codec = FrameCodec()


class Store:
    """The objects of a golden store, and how each is checked as a whole."""

    def __init__(self, folder: Path) -> None:
        root = folder / "store"
        self.objects = {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}
        for path in (folder / "elsewhere").rglob("packs/*/*"):
            self.objects[f"packs/{path.parent.name}/{path.name}"] = path.read_bytes()
        self.id = StoreId(bytes.fromhex(decode_config(self.objects["config"], "the config").store))
        log = sorted(name for name in self.objects if name.startswith("log/"))
        digests = [object_digest(self.objects[name]) for name in ["config", *log]]
        self.before = {name: Position(slot, digests[slot]) for slot, name in enumerate(log)}
        self.after = {name: digests[slot + 1] for slot, name in enumerate(log)}
        self.entries = [self.objects[name] for name in log]

    def check(self, name: str, data: bytes) -> None:
        """Raise what a reader of the whole object raises."""
        kind, last = name.partition("/")[0], name.rpartition("/")[2]
        if kind == "packs":
            check_pack(data, self.id, PackName(bytes.fromhex(last)), codec, what=name)
        elif kind == "ckpt":
            assert decode_checkpoint(1, data, name) == self.entries[:64]
        elif kind == "log":
            assert chained(self.before[name], data, name).after.prev == self.after[name]
        else:
            decode_config(data, name)
            assert object_digest(data) == self.before["log/catalog/000000000000"].prev


STORES = [Store(GOLDEN / "store-1"), Store(GOLDEN / "store-2")]
OBJECTS = [(store, name) for store in STORES for name in sorted(store.objects)]


def may_be_inert(data: bytes, at: int) -> bool:
    """Whether a byte lies where the format says that bits may bear no meaning: in what zstd compressed."""
    for start, stored in frame_offsets(data, PACK_HEADER_SIZE, what="a pack"):
        if start <= at < start + stored:
            chunks = int.from_bytes(data[start + 16 : start + 20], "little")
            head = HEADER_SIZE + (4 * chunks if chunks > 1 else 0)
            return data[start + 5] == ZSTD and at >= start + head
    return False


def parts(store: Store, name: str, data: bytes) -> Iterator[tuple[int, int, Callable[[bytes], object]]]:
    """The parts of an object that can be checked by themselves, begin, end and how.

    Of a pack these are its frames: a footer made anew from a damaged one has other rows for it, or cannot be made.
    """
    if not name.startswith("packs/"):
        yield 0, len(data), partial(store.check, name)
        return
    end = PACK_HEADER_SIZE
    for start, stored in frame_offsets(data, PACK_HEADER_SIZE, what="a pack"):
        end = start + stored
        yield start, end, partial(check_frame, data[start:end])
    for start, stop in ((0, PACK_HEADER_SIZE), (end, len(data))):
        yield start, stop, lambda part, at=start: store.check(name, data[:at] + part + data[at + len(part) :])


def check_frame(right: bytes, found: bytes) -> None:
    """Raise where a pack of this one frame would have another footer, or none."""
    head = bytes(PACK_HEADER_SIZE)
    footers = [rebuild_footer(head + frame, codec, what="a pack").encode() for frame in (found, right)]
    require(footers[0] == footers[1], "a pack", "has a footer that differs from its frames")


def flipped(every: int, bits: int) -> Counter[str]:
    """Flip bits of every k-th byte of each object; how many were found, and how many are inert."""
    rng, told = Random(every), Counter[str]()
    for store, name in OBJECTS:
        right = store.objects[name]
        for start, stop, check in parts(store, name, right):
            part = bytearray(right[start:stop])
            for at in range((-start) % every, len(part), every):
                for bit in rng.sample(range(8), bits):
                    part[at] ^= 1 << bit
                    try:
                        check(bytes(part))
                    except (Corrupt, FormatTooNew):
                        told["found"] += 1
                    else:
                        assert name.startswith("packs/"), (name, start + at, bit)
                        assert may_be_inert(right, start + at), (name, start + at, bit)
                        told["inert"] += 1
                    part[at] ^= 1 << bit
    return told


@pytest.mark.parametrize(
    ("every", "bits"),
    [
        (97, 1),
        pytest.param(1, 1, marks=[pytest.mark.heavy, pytest.mark.timeout(1500)]),
        pytest.param(1, 8, marks=[pytest.mark.long, pytest.mark.timeout(7200)]),
    ],
)
def test_each_flipped_byte_is_found_or_bears_no_meaning(every, bits, tell):
    told = flipped(every, bits)
    tell("flipped bytes of the golden stores", **told)
    assert told["found"] > 1_000
    assert told["inert"] * 500 < told["found"]


def test_all_objects_are_right_as_they_are():
    for store, name in OBJECTS:
        store.check(name, store.objects[name])
    assert {name.partition("/")[0] for _, name in OBJECTS} == {"config", "log", "ckpt", "packs"}


def test_what_is_inert_is_listed_in_the_specification():
    page = (GOLDEN.parents[1] / "docs/format.md").read_text()
    assert "*Inert bits.*" in page.partition("## 6. Frames")[2].partition("## 7. Packs")[0]
