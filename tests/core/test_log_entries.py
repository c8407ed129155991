"""Log entries: one encoding each, and nothing but typed errors for anything else."""

import json
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dataset_store.core.envelope import HEADER_SIZE, LOG_ENTRY, seal
from dataset_store.core.log_entries import (
    MAX_ENTRY_BYTES,
    MAX_PACK_ROWS,
    CondemnedEntry,
    DescribeEntry,
    HoldEntry,
    MetadataEntry,
    PackRow,
    TagsEntry,
    decode_entry,
    decode_pack_list,
    encode_entry,
    encode_pack_list,
    same_body,
    with_prev,
)
from dataset_store.errors import CorruptObject, FormatTooNew, InvalidRequest
from dataset_store.testing.log_entries import (
    blob,
    entry_strategies,
    hash_hex,
    id_hex,
    log_entries,
    version_entry,
)

GOLDEN = json.loads((Path(__file__).parent.parent / "golden" / "log_entries.json").read_text())


def payload_of(data: bytes) -> dict:
    return json.loads(data[HEADER_SIZE:])


def sealed(fields: object) -> bytes:
    return seal(LOG_ENTRY, json.dumps(fields).encode())


def describe(**fields):
    return DescribeEntry(**({"commit": id_hex(1), "prev": hash_hex(2), "time": 3, "version": id_hex(4)} | fields))


@given(log_entries())
def test_decoding_gives_the_entry_back(entry):
    assert decode_entry(encode_entry(entry), "it") == entry


@given(log_entries())
def test_the_payload_is_json_with_sorted_keys_and_no_white_space(entry):
    payload = encode_entry(entry)[HEADER_SIZE:]
    canonical = json.dumps(json.loads(payload), sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    assert payload == canonical.encode()


@given(log_entries())
def test_absent_fields_are_left_out(entry):
    assert None not in payload_of(encode_entry(entry)).values()


@pytest.mark.parametrize("kind", entry_strategies)
def test_every_kind_has_a_golden_object_that_reads_and_writes_alike(kind):
    data = bytes.fromhex(GOLDEN[kind]["sealed"])
    entry = decode_entry(data, kind)
    assert payload_of(data) == GOLDEN[kind]["payload"]
    assert payload_of(data)["kind"] == kind
    assert encode_entry(entry) == data


def test_the_golden_file_has_every_kind():
    assert set(GOLDEN) == set(entry_strategies)


@given(st.sampled_from(sorted(GOLDEN)), st.data())
def test_damaged_objects_raise_only_typed_errors(kind, data):
    damaged = bytearray(bytes.fromhex(GOLDEN[kind]["sealed"]))
    damaged[data.draw(st.integers(0, len(damaged) - 1))] ^= data.draw(st.integers(1, 255))
    with pytest.raises((CorruptObject, FormatTooNew)):
        decode_entry(bytes(damaged), "it")


@given(st.sampled_from(sorted(GOLDEN)), st.data())
def test_hostile_payloads_raise_only_typed_errors(kind, data):
    payload = bytearray(bytes.fromhex(GOLDEN[kind]["sealed"])[HEADER_SIZE:])
    start = data.draw(st.integers(0, len(payload)))
    stop = data.draw(st.integers(start, min(start + 8, len(payload))))
    payload[start:stop] = data.draw(st.binary(max_size=8))
    try:
        entry = decode_entry(seal(LOG_ENTRY, bytes(payload)), "it")
    except (CorruptObject, FormatTooNew):
        return
    assert decode_entry(encode_entry(entry), "it") == entry


@given(st.binary(max_size=200))
def test_random_payloads_raise_only_typed_errors(payload):
    with pytest.raises((CorruptObject, FormatTooNew)):
        decode_entry(seal(LOG_ENTRY, payload), "it")


@pytest.mark.parametrize("payload", [b"[" * 60_000, b'{"kind":' * 8_000, b'{"a":"\xed\xa0\x80"}', b"1e999"])
def test_deep_and_ill_formed_payloads_are_corrupt(payload):
    with pytest.raises(CorruptObject):
        decode_entry(seal(LOG_ENTRY, payload), "it")


def test_an_unknown_kind_asks_for_a_newer_version():
    with pytest.raises(FormatTooNew, match=r"log/catalog/9 is of kind 'frobnicate'.*Install a newer version"):
        decode_entry(sealed({"kind": "frobnicate"}), "log/catalog/9")


@pytest.mark.parametrize("kind", entry_strategies)
def test_an_unknown_field_of_any_kind_asks_for_a_newer_version(kind):
    with pytest.raises(FormatTooNew, match=r"the field 'later'.*Install a newer version"):
        decode_entry(sealed(GOLDEN[kind]["payload"] | {"later": 1}), "it")


@pytest.mark.parametrize(
    ("kind", "path"),
    [
        ("version", ("tree",)),
        ("version", ("tree", "census")),
        ("version", ("stats",)),
        ("version", ("opens",)),
        ("version", ("producer",)),
        ("metadata", ("blob",)),
        ("repack", ("table",)),
        ("condemned", ("list",)),
    ],
)
def test_an_unknown_field_inside_a_part_asks_for_a_newer_version(kind, path):
    payload = json.loads(json.dumps(GOLDEN[kind]["payload"]))
    part = payload
    for name in path:
        part = part[name]
    part["later"] = 1
    with pytest.raises(FormatTooNew, match="'later'"):
        decode_entry(sealed(payload), "it")


@pytest.mark.parametrize(
    "change",
    [
        {"commit": "A" * 32},
        {"commit": "0" * 31},
        {"commit": "0" * 32 + "\n"},
        {"prev": "0" * 63},
        {"prev": ""},
        {"time": -1},
        {"time": 1.5},
        {"time": 10**30},
        {"time": None},
        {"description": 7},
        {"kind": 7},
        {"kind": None},
    ],
)
def test_a_field_out_of_its_bounds_is_corrupt(change):
    with pytest.raises(CorruptObject, match="it"):
        decode_entry(sealed(payload_of(encode_entry(describe(description="d"))) | change), "it")


def test_an_entry_without_a_place_can_be_neither_written_nor_read():
    entry = describe(description="d", prev="")
    with pytest.raises(InvalidRequest):
        encode_entry(entry)
    fields = payload_of(encode_entry(with_prev(entry, hash_hex(1))))
    del fields["prev"]
    with pytest.raises(CorruptObject):
        decode_entry(sealed(fields), "it")


def test_an_entry_longer_than_64_kib_is_neither_written_nor_read():
    room = MAX_ENTRY_BYTES - len(encode_entry(describe(description="")))
    longest = encode_entry(describe(description="x" * room))
    assert len(longest) == MAX_ENTRY_BYTES
    with pytest.raises(InvalidRequest):
        encode_entry(describe(description="x" * (room + 1)))
    with pytest.raises(CorruptObject, match="longer"):
        decode_entry(seal(LOG_ENTRY, longest[HEADER_SIZE:] + b" "), "it")


def test_a_text_that_is_no_unicode_is_not_written():
    with pytest.raises(InvalidRequest):
        encode_entry(describe(description="\ud800"))


def test_a_list_of_more_than_500_packs_must_be_a_blob():
    rows = tuple(PackRow(0, id_hex(i)) for i in range(MAX_PACK_ROWS + 1))
    fitting = CondemnedEntry(commit=id_hex(1), prev=hash_hex(1), time=0, packs=rows[1:])
    assert decode_entry(encode_entry(fitting), "it") == fitting
    with pytest.raises(InvalidRequest):
        encode_entry(msgspec.structs.replace(fitting, packs=rows))
    blob_instead = CondemnedEntry(commit=id_hex(1), prev=hash_hex(1), time=0, listed=blob())
    assert "packs" not in payload_of(encode_entry(blob_instead))


@pytest.mark.parametrize(
    ("kind", "fields"),
    [
        (HoldEntry, {"hold": id_hex(1)}),
        (HoldEntry, {"hold": id_hex(1), "packs": (), "listed": blob()}),
        (TagsEntry, {"version": id_hex(1), "add": ("b", "a"), "remove": ()}),
        (TagsEntry, {"version": id_hex(1), "add": ("a",), "remove": ("a",)}),
        (MetadataEntry, {"version": id_hex(1), "name": "n", "value": "", "blob": blob()}),
    ],
)
def test_an_entry_that_contradicts_itself_is_refused_where_it_is_made(kind, fields):
    with pytest.raises(ValueError, match="an entry has"):
        kind(commit=id_hex(1), time=0, **fields)


def test_unsorted_tags_in_a_stored_entry_are_corrupt():
    with pytest.raises(CorruptObject, match="tags"):
        decode_entry(sealed(GOLDEN["version"]["payload"] | {"tags": ["b", "a"]}), "it")


def test_bodies_are_compared_apart_from_the_place_and_the_time():
    entry = version_entry(1)
    assert same_body(entry, msgspec.structs.replace(entry, prev=hash_hex(9), time=99))
    assert not same_body(entry, msgspec.structs.replace(entry, version="1.0.1"))
    assert not same_body(entry, describe(description="d"))


@given(st.lists(st.builds(PackRow, st.integers(0, 2**32 - 1), st.integers(0, 2**128 - 1).map(id_hex))))
def test_a_long_list_of_packs_comes_back_from_its_rows(rows):
    plain = encode_pack_list(tuple(rows))
    assert len(plain) == 20 * len(rows)
    assert decode_pack_list(plain, "it") == tuple(rows)


def test_a_list_of_packs_cut_short_is_corrupt():
    with pytest.raises(CorruptObject):
        decode_pack_list(bytes(21), "it")
