"""The envelope: what was sealed comes back, and nothing else passes."""

import pytest
from blake3 import blake3
from hypothesis import given
from hypothesis import strategies as st

from dataset_store.core.envelope import (
    CHECKPOINT,
    CONFIG,
    HEADER_SIZE,
    LOG_ENTRY,
    StoreConfig,
    decode_config,
    encode_config,
    object_digest,
    seal,
    unseal,
)
from dataset_store.errors import CorruptObject, FormatTooNew, InvalidRequest

CONFIG_VALUE = StoreConfig(store="0123456789abcdef" * 2, chunker="gear64-v1/65536", tree="v1")


def sealed_config(payload: bytes) -> bytes:
    return seal(CONFIG, payload)


@given(st.sampled_from([CONFIG, LOG_ENTRY, CHECKPOINT]), st.binary(max_size=300))
def test_unsealing_gives_the_payload_back(kind, payload):
    assert unseal(kind, seal(kind, payload), "it") == payload


def test_the_bytes_are_those_of_the_specification():
    data = seal(LOG_ENTRY, b"abc")
    assert data[:12] == b"DSTOREL\x01\x03\x00\x00\x00"
    assert data[12:28] == blake3(data[:12] + b"abc").digest()[:16]
    assert data[28:] == b"abc"


@given(st.binary(max_size=60), st.data())
def test_a_flipped_bit_anywhere_is_noticed(payload, data):
    sealed = bytearray(seal(LOG_ENTRY, payload))
    bit = data.draw(st.integers(0, len(sealed) * 8 - 1))
    sealed[bit // 8] ^= 1 << bit % 8
    with pytest.raises((CorruptObject, FormatTooNew)):
        unseal(LOG_ENTRY, bytes(sealed), "it")


@given(st.binary(max_size=60), st.binary(min_size=1, max_size=5), st.data())
def test_an_object_cut_short_or_with_bytes_left_over_is_refused(payload, more, data):
    sealed = seal(LOG_ENTRY, payload)
    with pytest.raises(CorruptObject):
        unseal(LOG_ENTRY, sealed[: data.draw(st.integers(0, len(sealed) - 1))], "it")
    with pytest.raises(CorruptObject):
        unseal(LOG_ENTRY, sealed + more, "it")


@given(st.binary(max_size=100))
def test_bytes_that_are_no_object_are_refused_by_name(data):
    with pytest.raises(CorruptObject, match="log/catalog/7"):
        unseal(LOG_ENTRY, data, "log/catalog/7")


def test_an_object_of_another_kind_is_refused():
    with pytest.raises(CorruptObject):
        unseal(CONFIG, seal(LOG_ENTRY, b"x"), "it")


def test_a_later_format_is_named_as_such_whatever_follows():
    with pytest.raises(FormatTooNew, match="Install a newer version"):
        unseal(CONFIG, b"DSTOREC\x02" + bytes(HEADER_SIZE), "config")


def test_a_config_comes_back_and_has_one_encoding():
    data = encode_config(CONFIG_VALUE)
    assert decode_config(data, "config") == CONFIG_VALUE
    assert data[HEADER_SIZE:] == (
        b'{"chunker":"gear64-v1/65536","store":"0123456789abcdef0123456789abcdef","tree":"v1"}'
    )


@pytest.mark.parametrize("change", [{"chunker": "gear65-v1/65536"}, {"chunker": "gear64-v1/"}, {"tree": "v2"}])
def test_a_config_of_unknown_algorithms_is_too_new(change):
    fields = {"store": "00" * 16, "chunker": "gear64-v1/65536", "tree": "v1"} | change
    payload = str(fields).replace("'", '"').encode()
    with pytest.raises(FormatTooNew):
        decode_config(sealed_config(payload), "config")


def test_a_config_with_an_unknown_field_is_too_new():
    payload = encode_config(CONFIG_VALUE)[HEADER_SIZE:].replace(b'"tree"', b'"new":1,"tree"')
    with pytest.raises(FormatTooNew, match="fields"):
        decode_config(sealed_config(payload), "config")


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"[]",
        b"{}",
        b'"\xff"',
        b"[" * 4000,
        b'{"store":"0123","chunker":"gear64-v1/65536","tree":"v1"}',
        b'{"store":"' + b"A" * 32 + b'","chunker":"gear64-v1/65536","tree":"v1"}',
        encode_config(CONFIG_VALUE)[HEADER_SIZE:] + b" " * 5000,
    ],
)
def test_a_payload_that_is_no_config_is_corrupt(payload):
    with pytest.raises(CorruptObject):
        decode_config(sealed_config(payload), "config")


def test_a_config_that_no_reader_would_accept_is_not_made():
    with pytest.raises(InvalidRequest):
        encode_config(StoreConfig(store="short", chunker="gear64-v1/65536", tree="v1"))


def test_the_digest_of_an_object_is_the_hash_of_all_its_bytes():
    assert object_digest(b"abc") == blake3(b"abc").hexdigest()
