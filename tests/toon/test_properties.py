"""Round trips of any JSON value, and the incremental decoder at every place a document can be cut."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from datetime import date, datetime, time
from decimal import Decimal
from enum import Enum
from typing import Any, Literal, TypedDict

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import toon
from tests.toon.drawn import DELIMITERS, STRINGS
from tests.toon.test_differential import same
from tests.toon.test_fixtures import cases

settings.register_profile(
    "toon",
    max_examples=5000 if os.environ.get("TORTURE") else 250,
    derandomize=True,
    deadline=None,
    database=None,
    suppress_health_check=list(HealthCheck),
)
PROFILE = settings.get_profile("toon")

texts = st.one_of(st.sampled_from(STRINGS), st.text(st.characters(exclude_categories=["Cs"]), max_size=8))
numbers = st.one_of(
    st.integers(),
    st.integers(10**15, 10**25),
    st.integers(-5, 5).map(lambda number: 10**400 + number),
    st.floats(allow_nan=False, allow_infinity=False),
    st.floats(-1e-300, 1e-300),
    st.sampled_from([5e-324, -5e-324, 2.2250738585072014e-308, 1.7976931348623157e308, 7.97408833289794e19, -0.0]),
)
scalars = st.one_of(st.none(), st.booleans(), numbers, texts)
rows = st.lists(texts, min_size=1, max_size=4, unique=True).flatmap(
    lambda names: st.lists(st.fixed_dictionaries(dict.fromkeys(names, scalars)), min_size=1, max_size=5)
)
values: st.SearchStrategy[Any] = st.recursive(
    st.one_of(scalars, rows),
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.dictionaries(texts, inner, max_size=4),
        st.lists(st.fixed_dictionaries({"a": inner, "b": scalars}), max_size=4),
        st.dictionaries(
            texts, st.fixed_dictionaries({"a": scalars, "g": st.fixed_dictionaries({"x": scalars})}), max_size=4
        ),
    ),
    max_leaves=25,
)


def unordered(value: Any) -> Any:
    """A value without its keys' order, which tables may change (section 2)."""
    if isinstance(value, dict):
        return {key: unordered(item) for key, item in sorted(value.items())}
    return [unordered(item) for item in value] if isinstance(value, list) else value


@given(values, st.sampled_from(DELIMITERS), st.sampled_from([1, 2, 3, 4]))
@settings(PROFILE)
def test_what_is_encoded_decodes_to_the_same_json_value(value: Any, delimiter: str, indent: int) -> None:
    text = toon.encode(value, delimiter=delimiter, indent=indent)
    assert same(unordered(toon.decode(text, indent=indent)), unordered(value))
    assert same(unordered(toon.decode(text.encode(), indent=indent)), unordered(value))
    assert toon.encode(toon.decode(text, indent=indent), delimiter=delimiter, indent=indent) == text


@given(values)
@settings(PROFILE)
def test_an_encoded_document_is_clean(value: Any) -> None:
    lines = toon.encode(value).split("\n")
    assert all(line and not line.endswith(" ") and not line.lstrip(" ").startswith("#") for line in lines) or lines == [
        ""
    ]


@given(rows)
@settings(PROFILE)
def test_columns_give_the_same_document_as_rows(table: list[dict[str, Any]]) -> None:
    columns = {name: [row[name] for row in table] for name in table[0]}
    text = toon.encode_columns(columns)
    assert text == toon.encode(table)
    assert same(toon.decode_columns(text), columns)


class Colour(Enum):
    RED = "red"
    DEEP = 7


class Place(TypedDict):
    city: str
    height: float


@dataclass
class Everything:
    whole: int
    number: float
    exact: Decimal
    flag: bool
    text: str
    colour: Colour
    day: date
    moment: datetime
    hour: time
    places: list[Place]
    pair: tuple[int, str]
    maybe: float | None
    choice: Literal["a", 1]
    table: dict[str, float]


typed = st.builds(
    Everything,
    whole=st.integers(),
    number=st.floats(allow_nan=False, allow_infinity=False),
    exact=st.decimals(allow_nan=False, allow_infinity=False),
    flag=st.booleans(),
    text=texts,
    colour=st.sampled_from(Colour),
    day=st.dates(),
    moment=st.datetimes(),
    hour=st.times(),
    places=st.lists(st.fixed_dictionaries({"city": texts, "height": st.floats(-1e9, 1e9)}), max_size=3),
    pair=st.tuples(st.integers(), texts),
    maybe=st.none() | st.floats(-1e9, 1e9),
    choice=st.sampled_from(["a", 1]),
    table=st.dictionaries(texts, st.floats(-1e9, 1e9), max_size=3),
)


@given(typed)
@settings(PROFILE)
def test_with_a_schema_the_types_come_back_too(value: Everything) -> None:
    back = toon.decode(toon.encode(value), schema=Everything)
    assert back == value
    assert [type(item) for item in vars(back).values()] == [type(item) for item in vars(value).values()]
    assert all(type(place["height"]) is float for place in back.places)
    assert [toon.decode(toon.encode([value, value]), schema=list[Everything])] == [[value, value]]


def outcome(decode: Any) -> tuple[str, Any]:
    """The value, or the error's code and place."""
    try:
        return "value", decode()
    except toon.ToonError as fault:
        return "error", (fault.code, fault.line, fault.column, fault.path)


def fed(pieces: list[Any], **options: Any) -> Any:
    """The value of a document fed in pieces."""
    decoder = toon.Decoder(**options)
    for piece in pieces:
        decoder.feed(piece)
    return decoder.finish()


@pytest.mark.parametrize("case", cases("decode"))
def test_a_document_cut_anywhere_decodes_as_the_whole(case: dict[str, Any]) -> None:
    if not isinstance(case["input"], str):
        pytest.skip("no text")
    options = {
        "indent": case.get("options", {}).get("indentSize", 2),
        "strict": case.get("options", {}).get("strict", True),
    }
    text: str = case["input"]
    data = text.encode()
    whole = outcome(lambda: toon.decode(text, **options))
    for at in range(len(text) + 1):
        assert outcome(lambda at=at: fed([text[:at], text[at:]], **options)) == whole
    for at in range(len(data) + 1):
        assert outcome(lambda at=at: fed([data[:at], data[at:]], **options)) == whole
    assert outcome(lambda: fed([bytes([byte]) for byte in data], **options)) == whole


@given(values, st.lists(st.integers(1, 9), max_size=30))
@settings(PROFILE)
def test_any_value_in_any_pieces_is_the_same(value: Any, lengths: list[int]) -> None:
    data = toon.encode(value).encode()
    pieces, start = [], 0
    for length in lengths:
        pieces.append(data[start : start + length])
        start += length
    assert json.dumps(fed([*pieces, data[start:]])) == json.dumps(toon.decode(data))
