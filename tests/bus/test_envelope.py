"""The wire protocol as `bus.envelope` specifies it, and bytes that break it."""

import contextlib
import os
import random

import msgpack
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bus.envelope import MAX_BODY_BYTES, MAX_MESSAGE_BYTES, MAX_NUMBER, VERSION, Envelope, check_type, pack, unpack
from bus.errors import ProtocolError, UnknownVersion

FUZZED = 1_000_000 if os.environ.get("TORTURE") == "1" else 20_000
envelopes = st.builds(
    Envelope,
    type=st.from_regex(r"[a-z][a-z0-9_-]{0,31}", fullmatch=True),
    body=st.text(st.characters(exclude_categories=["Cs"]), max_size=200),
    source=st.just(""),
    role=st.just(""),
    incarnation=st.from_regex(r"([a-z0-9][a-z0-9.-]{0,63})?", fullmatch=True),
    seq=st.integers(0, MAX_NUMBER),
    time_ms=st.integers(0, MAX_NUMBER),
    correlation=st.from_regex(r"[A-Za-z0-9._:-]{0,80}", fullmatch=True),
    after=st.integers(0, MAX_NUMBER),
)


@given(envelopes)
def test_what_is_packed_is_unpacked_the_same(envelope):
    assert unpack(pack(envelope)) == envelope


def test_the_bytes_are_the_array_of_eight_that_the_document_prints():
    data = pack(Envelope("fact", "a: 1", "never", "sent", "ab12", 7, 1000, "ab12:1", 6))
    assert msgpack.unpackb(data) == [1, "fact", "a: 1", "ab12", 7, 6, 1000, "ab12:1"]
    assert data[0] == 0x98, "a msgpack array of eight"
    assert VERSION == 1


def test_source_and_role_are_not_sent():
    received = unpack(pack(Envelope("fact", "", source="admin", role="admin")))
    assert (received.source, received.role) == ("", "")


def test_another_version_and_malformed_bytes_are_different_errors():
    with pytest.raises(UnknownVersion) as caught:
        unpack(msgpack.packb([2]))
    assert caught.value.version == 2


@pytest.mark.parametrize(
    "fields",
    [
        [], {}, 1, "x", None, [True, "fact"], ["1", "fact"], [1], [1, "fact", "", "", 0, 0, 0], [1, "fact", "", "", 0, 0, 0, "", ""],
        [1, "Fact", "", "", 0, 0, 0, ""], [1, "", "", "", 0, 0, 0, ""], [1, "a" * 33, "", "", 0, 0, 0, ""],
        [1, "fact\n", "", "", 0, 0, 0, ""], [1, "fact", b"", "", 0, 0, 0, ""], [1, "fact", None, "", 0, 0, 0, ""],
        [1, "fact", "", "../x", 0, 0, 0, ""], [1, "fact", "", "", -1, 0, 0, ""], [1, "fact", "", "", 0.5, 0, 0, ""],
        [1, "fact", "", "", True, 0, 0, ""], [1, "fact", "", "", 2**60, 0, 0, ""], [1, "fact", "", "", 0, 0, 0, "a b"],
        [1, "fact", "", "", 0, 0, 0, "a" * 81], [1, "fact", [[]], "", 0, 0, 0, ""], [1, "fact", {"a": 1}, "", 0, 0, 0, ""],
    ],
)  # fmt: skip
def test_an_array_that_is_no_envelope_is_a_protocol_error(fields):
    with pytest.raises(ProtocolError):
        unpack(msgpack.packb(fields))


@pytest.mark.parametrize(
    "data",
    [
        b"", b"\xc1", b"\x98", b"\x91" * 100_000, b"\xdd\xff\xff\xff\xff", b"\xdf\xff\xff\xff\xff", b"\xdb\xff\xff\xff\xff",
        b"\xc7\x01\x05x", pack(Envelope("fact", "")) + b"\x00", pack(Envelope("fact", "abc")).replace(b"abc", b"a\xffc"),
        b"\x98" + b"x" * MAX_MESSAGE_BYTES,
    ],
)  # fmt: skip
def test_bytes_that_are_no_msgpack_or_a_bomb_are_a_protocol_error(data):
    with pytest.raises(ProtocolError):
        unpack(data)


def test_a_sender_cannot_pack_what_a_receiver_would_refuse():
    for envelope in (
        Envelope("Fact", ""), Envelope("fact", "x" * MAX_MESSAGE_BYTES), Envelope("fact", "\ud800"), Envelope("fact", "", seq=-1),
    ):  # fmt: skip
        with pytest.raises(ProtocolError):
            pack(envelope)
    longest = Envelope("a" * 32, "x" * MAX_BODY_BYTES, "", "", "a" * 64, MAX_NUMBER, MAX_NUMBER, "a" * 80, MAX_NUMBER)
    assert len(pack(longest)) <= MAX_MESSAGE_BYTES


@pytest.mark.parametrize("name", ["bus-ack", "bus-", "Bad", "", "a" * 33, 5])
def test_callers_cannot_use_the_types_of_the_bus_itself(name):
    with pytest.raises(ProtocolError):
        check_type(name)


@settings(max_examples=300)
@given(st.binary(max_size=300))
def test_any_bytes_are_an_envelope_or_a_protocol_error(data):
    with contextlib.suppress(ProtocolError):
        assert isinstance(unpack(data), Envelope)


def test_damaged_envelopes_are_envelopes_or_protocol_errors_and_nothing_else():
    chance, refused = random.Random(7), 0
    whole = pack(Envelope("fact", "step: 1\nloss: 0.5", "", "", "ab12.t", 12, 1_700_000_000_000, "ab12:3", 11))
    for _ in range(FUZZED):
        data = bytearray(whole)
        for _ in range(chance.randint(1, 4)):
            data[chance.randrange(len(data))] = chance.randrange(256)
        try:
            unpack(bytes(data[: chance.randint(0, len(data))] if chance.random() < 0.2 else data))
        except ProtocolError:
            refused += 1
    assert 0 < refused < FUZZED
