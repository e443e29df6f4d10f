"""Hostile input ends in a ToonError or a value, in time that grows with its size and no faster.

The bounds are those the project sets itself: twice the size in at most 2.3 times the time, and a byte at most 3 times as dear as in an
ordinary document. `tests/toon/hostile.py` says how a busy machine is kept from failing this; time is the processor's, not the wall's.
`python tests/benchmarks/bench_toon.py --hostile` prints the figures themselves.
"""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterator
from typing import Any

import pytest

import toon
from tests.toon.hostile import DOCUMENTS, assert_doubling, assert_within, ordinary, seconds_of

SIZE = 400_000


@pytest.fixture
def no_collection() -> Iterator[None]:
    """Keep the collector out of what is timed: it looks at everything that other tests have left."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


@pytest.mark.usefixtures("no_collection")
@pytest.mark.parametrize("name", DOCUMENTS)
def test_twice_the_document_takes_about_twice_the_time(name: str) -> None:
    small, large = DOCUMENTS[name](SIZE), DOCUMENTS[name](2 * SIZE)
    assert_doubling(lambda: (seconds_of(small)[0], seconds_of(large)[0]))


@pytest.mark.usefixtures("no_collection")
@pytest.mark.parametrize("name", DOCUMENTS)
def test_a_hostile_document_costs_little_more_a_byte_than_an_ordinary_one(name: str) -> None:
    text, usual = DOCUMENTS[name](SIZE), ordinary(SIZE)
    share = len(text) / len(usual)
    assert_within(lambda: (seconds_of(usual)[0] * share, seconds_of(text)[0]), 3)


def test_a_list_nested_100_000_deep_is_refused_and_not_the_interpreters_end() -> None:
    value: Any = []
    for _ in range(100_000):
        value = [value]
    _refused(value, "limit")
    record: Any = {}
    for _ in range(100_000):
        record = {"a": record}
    _refused(record, "limit")
    _refused([record, record], "limit")
    while value:  # taken apart step by step, so that this test's own clean-up is no test of the interpreter
        value = value.pop()
    while record:
        record = record.pop("a")


def test_cyclic_values_are_refused() -> None:
    items: list[Any] = [1]
    items.append(items)
    record: dict[str, Any] = {}
    record["self"] = record
    twins: dict[str, Any] = {}
    twins["a"] = twins["b"] = twins
    table: list[Any] = [{"a": 1}, {"a": 2}]
    table[1]["a"] = table
    for value in (items, record, twins, table, (items,), {"t": (twins,)}):
        _refused(value, "limit")


def _refused(value: Any, code: str) -> None:
    for write in (toon.encode, toon.compact, toon.stats):
        with pytest.raises(toon.ToonError) as caught:
            write(value)
        assert caught.value.code == code


def test_what_is_as_deep_as_the_limit_goes_there_and_back() -> None:
    value: Any = 1
    for level in range(toon.Limits().max_depth):
        value = [value] if level % 2 else {"k": value}
    text = toon.encode(value)
    assert toon.decode(text) == value
    _refused([value], "limit")
    with pytest.raises(toon.ToonError) as caught:
        toon.decode(text, limits=toon.Limits(max_depth=toon.Limits().max_depth - 1))
    assert caught.value.code == "limit"


def test_a_stack_that_is_nearly_used_up_gives_an_error_of_ours() -> None:
    value: Any = 1
    for _ in range(250):
        value = [[value], 2]

    def deep(frames: int) -> str:
        return toon.encode(value) if frames == 0 else deep(frames - 1)

    with pytest.raises(toon.ToonError) as caught:
        deep(sys.getrecursionlimit() - 200)
    assert caught.value.code == "limit"


def test_100_000_columns_are_refused_by_default_and_read_on_demand() -> None:
    text = "[1]{" + ",".join(f"c{number}" for number in range(100_000)) + "}:\n  " + ",".join("1" * 100_000)
    with pytest.raises(toon.ToonError) as caught:
        toon.decode(text)
    assert caught.value.code == "limit"
    assert len(toon.decode(text, limits=toon.Limits(max_columns=100_000))[0]) == 100_000


def test_a_declared_length_reserves_nothing() -> None:
    for length in ("99999999999", "1" + "0" * 1_000_000):
        with pytest.raises(toon.ToonError) as caught:
            toon.decode(f"[{length}]{{a}}:\n  1")
        assert (caught.value.code, caught.value.line) == ("count", 1)
        assert toon.decode(f"[{length}]{{a}}:\n  1", strict=False) == [{"a": 1}]


def test_numbers_of_a_million_digits_are_refused_at_once() -> None:
    for text in ("1" * 1_000_000, "-" + "1" * 1_000_000, "0." + "1" * 1_000_000, "1e" + "1" * 1_000_000):
        with pytest.raises(toon.ToonError) as caught:
            toon.decode(f"a: {text}")
        assert caught.value.code == "limit"
    with pytest.raises(toon.ToonError) as caught:
        toon.encode({"a": 10**5000})
    assert (caught.value.code, caught.value.path) == ("limit", "a")


@pytest.mark.parametrize(
    "data", [b"\xff", b"a: \xc3", b"a: \xed\xa0\x80", b"a: 1\n\x80", b"\xf8\x88\x80\x80\x80", b"a: \xc0\xaf"]
)
def test_bytes_that_are_no_utf8_are_never_replaced(data: bytes) -> None:
    with pytest.raises(toon.ToonError) as caught:
        toon.decode(data)
    assert caught.value.code == "utf8"
    decoder = toon.Decoder()
    with pytest.raises(toon.ToonError):
        for byte in data:
            decoder.feed(bytes([byte]))
        decoder.finish()


def test_nul_is_an_ordinary_character() -> None:
    assert toon.decode("a\x00: \x00") == {"a\x00": "\x00"}
    assert toon.decode('"\\u0000": "\x00"') == {"\x00": "\x00"}
    assert toon.encode({"\x00": "\x00"}) == '"\\u0000": "\\u0000"'
