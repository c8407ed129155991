"""Chunks of an earlier copy: those that lie one behind the other are copied at once."""

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from dataset_store.core.digest import hash32
from dataset_store.local import seeds

CHUNKS = [(bytes([number]) * 32, 200_000 + 10_000 * number) for number in range(12)]
orders = st.lists(st.sampled_from(CHUNKS), max_size=30)


@given(orders, st.permutations(CHUNKS))
def test_runs_are_the_chunks_in_order_each_where_it_lies(wanted, lying):
    held = seeds._offsets(lying)
    runs = list(seeds._runs(wanted, held))
    assert [chunk for _, run in runs for chunk in run] == wanted
    for start, run in runs:
        at = start
        for chunk_id, length in run:
            assert held[chunk_id] == at
            at += length
        assert at - start < seeds._AT_ONCE + max(length for _, length in CHUNKS)
    for (start, run), (following, _) in pairwise(runs):
        length = sum(length for _, length in run)
        assert following != start + length or length >= seeds._AT_ONCE, "one read would have done"


@given(st.binary(max_size=40), st.data())
def test_chunks_are_copied_only_where_each_is_what_it_must_be(tmp_path_factory, data, drawn):
    folder = tmp_path_factory.mktemp("seed")
    (folder / "seed").write_bytes(data)
    cuts = sorted(drawn.draw(st.sets(st.integers(1, max(1, len(data) - 1))))) if len(data) > 1 else []
    pieces = [data[start:stop] for start, stop in pairwise([0, *cuts, len(data)]) if start < stop]
    wanted = [(hash32(piece), len(piece)) for piece in pieces]
    held = seeds._offsets(wanted)
    changed = drawn.draw(st.none() | st.integers(0, len(data) - 1)) if data else None
    if changed is not None:
        (folder / "seed").write_bytes(data[:changed] + bytes([data[changed] ^ 1]) + data[changed + 1 :])
    with (folder / "copy").open("wb") as copy:
        done = seeds._copy_chunks(bytes(folder / "seed"), wanted, held, copy.fileno(), 0)
    places = [(held[chunk_id], length) for chunk_id, length in wanted]
    hit = changed is not None and any(start <= changed < start + length for start, length in places)
    assert done == (bool(wanted) and not hit)
    if done:
        assert (folder / "copy").read_bytes() == data
