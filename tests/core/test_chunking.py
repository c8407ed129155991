"""Content-defined chunking: where a file is cut, by three implementations that agree to the byte."""

import importlib.util
import itertools
import json
import random
import sys
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from blake3 import blake3
from hypothesis import given, settings
from hypothesis import strategies as st

import dataset_store.core
from dataset_store.core import chunking
from dataset_store.core.chunking import (
    ChunkerParams,
    candidates,
    cut_ends,
    cut_ends_numpy,
    cut_ends_reference,
    gear_table,
    select,
)
from dataset_store.core.frames import PLAIN_LIMITS, FrameKind
from dataset_store.errors import FormatTooNew, InvalidRequest

DEFAULT = ChunkerParams()
SMALL = ChunkerParams(256)
GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "chunking.json").read_text())
WORDS = b"a of the and store chunk leaf tree pack \n frame slot entry tag log end".split(b" ")

needs_compiled = pytest.mark.skipif(chunking.ACTIVE_KERNEL != "c", reason="the compiled kernel is not built")
fast_kernels = [
    pytest.param(cut_ends, id="c", marks=needs_compiled),
    pytest.param(cut_ends_numpy, id="numpy"),
]
every_kernel = pytest.mark.parametrize("kernel", [*fast_kernels, pytest.param(cut_ends_reference, id="reference")])
relaxed = settings(deadline=None)


def random_bytes(seed, length):
    return blake3(f"{seed}".encode()).digest(length=length) if length else b""


def golden_input(kind, length):
    """`length` bytes of a kind that the golden file describes, made from extendable output."""
    source = random_bytes(f"golden {kind}", length)
    match kind:
        case "random":
            return source
        case "text":
            return b" ".join(WORDS[octet % 16] for octet in source)[:length]
        case "runs":
            pairs = zip(source[::2], source[1::2], strict=True)
            return b"".join(bytes([octet]) * (count + 1) for octet, count in pairs)[:length]
        case _:
            return bytes(length)


def repeated(pattern, count):
    return pattern * count


def slices(data, ends):
    return [data[start:end] for start, end in itertools.pairwise([0, *ends.tolist()])]


def chunk_ids(data):
    return {blake3(chunk).digest() for chunk in slices(data, cut_ends(data, DEFAULT, final=True))}


pieces = st.one_of(
    st.builds(random_bytes, st.integers(0, 10**6), st.integers(1, 2000)),
    st.builds(lambda octet, count: bytes([octet]) * count, st.integers(0, 255), st.integers(1, 2000)),
    st.builds(lambda octet, count: bytes([octet]) * count, st.sampled_from([0, 159, 192]), st.integers(1, 2000)),
    st.builds(lambda pattern, count: pattern * count, st.binary(min_size=1, max_size=70), st.integers(1, 50)),
)
some_params = st.sampled_from([ChunkerParams(average) for average in (128, 256, 512)])


@st.composite
def files(draw, params):
    """Bytes of mixed texture; every other one ends within a byte of where a rule changes."""
    data = b"".join(draw(st.lists(pieces, max_size=8)))
    edges = [64, params.minimum, params.maximum, params.maximum + params.minimum]
    if draw(st.booleans()):
        data += random_bytes("padding", 5 * params.average)
        data = data[: draw(st.sampled_from(edges)) + draw(st.integers(-1, 1))]
    return data


files_and_params = some_params.flatmap(lambda params: st.tuples(files(params), st.just(params)))


# The definition


def test_the_table_is_the_extendable_output_of_its_documented_seed():
    assert blake3(gear_table().astype("<u8").tobytes()).hexdigest() == GOLDEN["table_blake3"]
    assert int(gear_table()[0]) == GOLDEN["table_first_word"]


def test_a_candidate_is_a_position_whose_sum_of_64_shifted_words_has_zero_top_bits():
    params = ChunkerParams(128)
    data = random_bytes("sums", 1000) + bytes(100) + bytes([159]) * 100 + random_bytes("more sums", 1000)
    words = gear_table().tolist()
    sums = {e: sum(words[data[e - 1 - i]] << i for i in range(64)) % 2**64 for e in range(64, len(data) + 1)}
    expected = [e for e, total in sums.items() if total < 2 ** (64 - 6)]
    assert len(expected) > 20
    assert candidates(data, params).tolist() == expected


@pytest.mark.parametrize(("average", "bits"), [(128, 6), (256, 7), (32_768, 14), (65_536, 15)])
def test_all_parameters_follow_from_the_average(average, bits):
    params = ChunkerParams(average)
    assert (params.minimum, params.maximum) == (average // 2, 4 * average)
    assert (params.mask_bits, params.shift) == (bits, 64 - bits)


def test_a_chunk_of_any_average_fits_into_a_frame():
    assert ChunkerParams(65_536).maximum == PLAIN_LIMITS[FrameKind.DATA]
    with pytest.raises(InvalidRequest):
        ChunkerParams(131_072)


def test_no_window_of_equal_bytes_is_a_candidate_at_the_default_average():
    assert [octet for octet in range(256) if candidates(bytes([octet]) * 64, DEFAULT).size] == []


@every_kernel
def test_a_run_of_one_byte_is_cut_at_the_maximum_or_where_its_window_is_a_candidate_at_the_minimum(kernel):
    assert np.diff(kernel(bytes(5000), SMALL, final=False)).tolist() == [1024] * 3
    assert np.diff(kernel(bytes([159]) * 5000, SMALL, final=False)).tolist() == [128] * 38


# The twins


@pytest.mark.parametrize("kernel", fast_kernels)
@given(files_and_params, st.booleans())
@relaxed
def test_both_fast_kernels_cut_where_the_definition_says(kernel, case, final):
    data, params = case
    expected = cut_ends_reference(data, params, final=final)
    assert kernel(data, params, final=final).tolist() == expected.tolist()


def test_all_kernels_agree_on_4_mib_of_random_data_at_the_default_average():
    data = random_bytes("agreement", 4 << 20)
    expected = cut_ends_reference(data, DEFAULT, final=True).tolist()
    assert len(expected) > 50
    assert cut_ends(data, DEFAULT, final=True).tolist() == expected
    assert cut_ends_numpy(data, DEFAULT, final=True).tolist() == expected


@pytest.mark.parametrize("kernel", fast_kernels)
def test_no_candidate_is_missed_where_the_blocks_of_a_kernel_meet(kernel):
    at_maximum = list(range(1024, 16_385, 1024))
    for position in range(16_384 + SMALL.minimum, 16_700):
        data = bytes(position - 64) + bytes([159]) * 64
        assert kernel(data, SMALL, final=False).tolist() == [*at_maximum, position]


@every_kernel
@pytest.mark.parametrize("case", GOLDEN["cases"], ids=lambda case: f"{case['kind']}-{case['average']}")
def test_golden_inputs_are_cut_at_the_recorded_positions(kernel, case):
    data = golden_input(case["kind"], case["length"])
    assert blake3(data).hexdigest() == case["input_blake3"]
    assert kernel(data, ChunkerParams(case["average"]), final=True).tolist() == case["ends"]


@given(files_and_params, st.randoms(use_true_random=False), st.booleans())
@relaxed
def test_blocks_scanned_in_any_order_find_the_same_candidates_and_these_give_the_same_cuts(case, rng, final):
    data, params = case
    starts = list(range(64, len(data) + 1, 700))
    rng.shuffle(starts)
    found = set()
    for start in starts:
        found |= {start - 64 + e for e in candidates(data[start - 64 : start + 700], params).tolist()}
    assert sorted(found) == candidates(data, params).tolist()
    ends = select(np.array(sorted(found), np.int64), len(data), params, final=final)
    assert ends.tolist() == cut_ends_reference(data, params, final=final).tolist()


# What the cuts promise


@given(files_and_params)
@relaxed
def test_chunks_partition_the_file_and_all_but_the_last_are_between_the_minimum_and_the_maximum(case):
    data, params = case
    chunks = slices(data, cut_ends(data, params, final=True))
    assert b"".join(chunks) == data
    assert all(params.minimum <= len(chunk) <= params.maximum for chunk in chunks[:-1])
    assert all(0 < len(chunk) <= params.maximum for chunk in chunks)


@every_kernel
def test_the_empty_file_has_no_chunk_and_a_file_no_longer_than_the_minimum_has_one(kernel):
    assert kernel(b"", SMALL, final=True).tolist() == []
    for octet, length in itertools.product([0, 159], [1, 63, 64, 127, 128]):
        assert kernel(bytes([octet]) * length, SMALL, final=True).tolist() == [length]


@every_kernel
def test_without_a_candidate_a_chunk_stays_open_until_its_maximum_is_there(kernel):
    for length, ends in [(1023, []), (1024, [1024]), (1025, [1024]), (2047, [1024]), (2048, [1024, 2048])]:
        assert kernel(bytes(length), SMALL, final=False).tolist() == ends


@every_kernel
def test_a_candidate_settles_its_chunk_as_soon_as_the_bytes_before_it_are_there(kernel):
    data = bytes(300) + bytes([159]) * 64
    assert kernel(data[:-1], SMALL, final=False).tolist() == []
    assert kernel(data, SMALL, final=False).tolist() == [364]


@given(files_and_params, st.lists(st.integers(0, 3000)))
@relaxed
def test_a_file_fed_in_pieces_with_the_open_chunk_carried_over_is_cut_as_in_one_go(case, sizes):
    data, params = case
    ends, start, read = [], 0, 0
    for size in sizes:
        read = min(read + size, len(data))
        settled = cut_ends(data[start:read], params, final=False)
        ends += [start + end for end in settled.tolist()]
        start = ends[-1] if ends else 0
        assert read - start < params.maximum
    ends += [start + end for end in cut_ends(data[start:], params, final=True).tolist()]
    assert ends == cut_ends(data, params, final=True).tolist()


@given(files_and_params)
@relaxed
def test_the_end_of_a_chunk_is_decided_by_the_bytes_of_that_chunk_alone(case):
    data, params = case
    for chunk in slices(data, cut_ends(data, params, final=False)):
        assert cut_ends(chunk, params, final=False).tolist() == [len(chunk)]


@given(st.binary(max_size=300), st.binary(max_size=300), st.integers(0, 100))
@relaxed
def test_a_cut_depends_only_on_the_64_bytes_before_it(before, after, pick):
    data = random_bytes("windows", 20_000)
    e = int(candidates(data, SMALL)[pick])
    moved = before + data[e - 64 : e] + after
    assert len(before) + 64 in candidates(moved, SMALL).tolist()


def test_the_mean_chunk_of_random_data_is_near_the_average():
    ends = cut_ends(random_bytes("mean", 4 << 20), ChunkerParams(1024), final=True)
    assert (4 << 20) / len(ends) == pytest.approx(1024, rel=0.03)


def test_an_insertion_changes_only_the_chunks_near_it():
    data = random_bytes("insertion", 8 << 20)
    old = chunk_ids(data)
    assert len(old) > 100
    for position in (0, 1, 65_536, 3 << 20, (5 << 20) + 12_345, 8 << 20):
        changed = data[:position] + random_bytes(position, 1024) + data[position:]
        assert 1 <= len(chunk_ids(changed) - old) <= 6


# Names and parameters


@pytest.mark.parametrize("average", [1 << power for power in range(7, 17)])
def test_the_name_of_parameters_parses_back_to_them(average):
    params = ChunkerParams(average)
    assert params.name == f"gear64-v1/{average}"
    assert ChunkerParams.parse(params.name) == params


@pytest.mark.parametrize(
    "name",
    [
        "",
        "gear64-v1",
        "gear64-v1/",
        "gear64-v2/65536",
        "GEAR64-v1/65536",
        "gear64-v1/065536",
        "gear64-v1/65_536",
        "gear64-v1/+65536",
        "gear64-v1/-65536",
        "gear64-v1/65536\n",
        " gear64-v1/65536",
        "gear64-v1/65536/1",
        "gear64-v1/\uff16\uff15\uff15\uff13\uff16",
        "gear64-v1/65537",
        "gear64-v1/64",
        "gear64-v1/33554432",
        "gear64-v1/1" + "0" * 10_000,
    ],
)
def test_an_unknown_name_is_a_format_too_new_and_the_message_stays_short(name):
    with pytest.raises(FormatTooNew) as caught:
        ChunkerParams.parse(name)
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize("average", [-65_536, 0, 1, 64, 127, 129, 65_535, 1 << 17, 1 << 100])
def test_an_average_that_is_no_power_of_two_in_range_is_refused(average):
    with pytest.raises(InvalidRequest, match="power of two"):
        ChunkerParams(average)


# Buffers and kernels


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview, lambda data: memoryview(b"x" + data)[1:]])
@every_kernel
def test_every_kind_of_buffer_is_cut_alike(kernel, kind):
    data = random_bytes("buffers", 10_000)
    assert kernel(kind(data), SMALL, final=True).tolist() == cut_ends(data, SMALL, final=True).tolist()


def test_ends_are_counted_in_bytes_whatever_the_items_of_the_buffer():
    data = random_bytes("items", 8192)
    assert cut_ends(memoryview(data).cast("Q"), SMALL, final=True)[-1] == 8192


def test_a_buffer_with_gaps_is_refused():
    with pytest.raises(TypeError):
        cut_ends(memoryview(bytes(1000))[::2], SMALL, final=True)


def test_a_buffer_is_free_again_after_it_was_cut():
    data = bytearray(random_bytes("exports", 5000))
    cut_ends(data, SMALL, final=True)
    data.clear()
    assert cut_ends(data, SMALL, final=True).tolist() == []


def test_the_numpy_twin_takes_over_silently_where_the_compiled_kernel_is_absent(monkeypatch):
    monkeypatch.delattr(dataset_store.core, "_cdc", raising=False)
    monkeypatch.setitem(sys.modules, "dataset_store.core._cdc", None)
    spec = importlib.util.spec_from_file_location("chunking_without_compiled_kernel", chunking.__file__)
    without = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, spec.name, without)
    spec.loader.exec_module(without)
    data = random_bytes("fallback", 100_000)
    assert without.ACTIVE_KERNEL == "numpy"
    ends = without.cut_ends(data, without.ChunkerParams(256), final=True)
    assert ends.tolist() == cut_ends(data, SMALL, final=True).tolist()


@needs_compiled
@pytest.mark.parametrize(
    ("table", "minimum", "maximum", "shift"),
    [
        (bytes(2047), 64, 512, 58),
        (bytes(2056), 64, 512, 58),
        (bytes(2048), 63, 512, 58),
        (bytes(2048), 0, 512, 58),
        (bytes(2048), 64, 64, 58),
        (bytes(2048), 64, 512, 0),
        (bytes(2048), 64, 512, 64),
    ],
)
def test_the_compiled_kernel_refuses_parameters_outside_its_range(table, minimum, maximum, shift):
    with pytest.raises(ValueError, match="out of range"):
        chunking._cdc.cut_ends(bytes(5000), table, minimum, maximum, shift, True)


@pytest.mark.parametrize("octet", [0, 159])
def test_the_numpy_twin_holds_at_most_2_mib_besides_the_ends(octet):
    data = bytes([octet]) * (1 << 20)
    tracemalloc.start()
    try:
        ends = cut_ends_numpy(data, SMALL, final=True)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    ends_as_list_and_as_array = len(ends) * 60  # bytes
    assert peak < (2 << 20) + ends_as_list_and_as_array


def test_long_random_files_of_any_length_are_cut_alike_by_the_fast_kernels():
    rng = random.Random("lengths")
    data = random_bytes("lengths", 1 << 20)
    for average in (4096, 16_384, 65_536):
        params = ChunkerParams(average)
        for length in [rng.randrange(len(data)) for _ in range(10)]:
            expected = cut_ends_numpy(data[:length], params, final=False).tolist()
            assert cut_ends(data[:length], params, final=False).tolist() == expected
