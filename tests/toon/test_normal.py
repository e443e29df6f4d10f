"""What becomes of Python values that JSON does not know."""

from __future__ import annotations

import datetime as dt
from collections import OrderedDict, namedtuple
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from enum import Enum, IntEnum, StrEnum
from types import MappingProxyType
from typing import Any

import pytest

import toon


@dataclass
class Point:
    x: int
    y: float


class Colour(Enum):
    RED = "red"


class Level(IntEnum):
    HIGH = 3


class Word(StrEnum):
    YES = "true"


class Shout(str):
    __slots__ = ()

    def __str__(self) -> str:
        return "never this"


class Half(float):
    pass


class View(Mapping[str, int]):
    def __getitem__(self, key: str) -> int:
        return {"a": 1}[key]

    def __iter__(self) -> Iterator[str]:
        return iter(["a"])

    def __len__(self) -> int:
        return 1


Pair = namedtuple("Pair", "left right")  # noqa: PYI024 - the untyped kind is what is tested


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (Point(1, 2.0), "x: 1\ny: 2"),
        ([Point(1, 2.5), Point(3, 4.5)], "[2]{x,y}:\n  1,2.5\n  3,4.5"),
        ({"a": Point(1, 2), "b": Point(3, 4)}, "[2:]{x,y}:\n  a: 1,2\n  b: 3,4"),
        ([Colour.RED, Level.HIGH, Word.YES], '[3]: red,3,"true"'),
        ((1, (2, 3)), "[2]:\n  - 1\n  - [2]: 2,3"),
        (Pair(1, 2), "[2]: 1,2"),
        (Decimal("1.50"), "1.5"),
        (
            [
                Decimal("1E+5"),
                Decimal("1E-30"),
                Decimal("NaN"),
                Decimal("-0.0"),
                Decimal("0.10000000000000000000000001"),
            ],
            "[5]: 100000,1e-30,null,0,0.10000000000000000000000001",
        ),
        (dt.date(2026, 11, 21), "2026-11-21"),
        (dt.datetime(2026, 11, 21, 9, tzinfo=dt.UTC), '"2026-11-21T09:00:00+00:00"'),
        (dt.time(9, 30), '"09:30:00"'),
        (OrderedDict(b=1, a=2), "b: 1\na: 2"),
        (MappingProxyType({"a": 1}), "a: 1"),
        (View(), "a: 1"),
        ({1: "x", Colour.RED: 2, Level.HIGH: 4}, '"1": x\nred: 2\n"3": 4'),
        ([Shout("hi"), Half(0.5), True], "[3]: hi,0.5,true"),
        ([float("nan"), float("inf"), -float("inf")], "[3]: null,null,null"),
        (range(0), None),
    ],
)
def test_a_value_encodes_as_one_would_expect(value: Any, text: str | None) -> None:
    if text is None:
        with pytest.raises(toon.ToonError):
            toon.encode(value)
    else:
        assert toon.encode(value) == text


@pytest.mark.parametrize(
    ("value", "code", "path"),
    [
        ({"a": {"b": [1, {2}]}}, "value", "a.b[1]"),
        ({"a": b"x"}, "value", "a"),
        ([dt.timedelta(1)], "value", "[0]"),
        ({"a": [object()]}, "value", "a[0]"),
        ({"a": Point}, "value", "a"),
        ({"t": [{"x": 1}, {"x": 1j}]}, "value", "t[1].x"),
        ({"a": {None: 1}}, "key", "a"),
        ({"a": {True: 1}}, "key", "a"),
        ({"a": {(1,): 1}}, "key", "a"),
        ({1: 1, "1": 2}, "key", ""),
        ({"a": ["\ud800"]}, "surrogate", "a[0]"),
        ({"a": {"\udfff": 1}}, "surrogate", "a"),
        ({"t": [{"x": "a"}, {"x": "\ud83d"}]}, "surrogate", "t[1].x"),
        ("\ud800", "surrogate", ""),
        ({"odd key": {"x": {1}}}, "value", '"odd key".x'),
    ],
)
def test_what_has_no_json_form_is_refused_with_its_path(value: Any, code: str, path: str) -> None:
    with pytest.raises(toon.ToonError) as caught:
        toon.encode(value)
    assert (caught.value.code, caught.value.path) == (code, path)


def test_numpy_scalars_and_arrays() -> None:
    np = pytest.importorskip("numpy")
    value = {
        "i": np.int64(3),
        "f": np.float32(1.5),
        "d": np.float64(0.1),
        "b": np.bool_(True),
        "a": np.arange(4).reshape(2, 2),
        "t": np.datetime64("2026-11-21"),
    }
    assert toon.decode(toon.encode(value)) == {
        "i": 3,
        "f": 1.5,
        "d": 0.1,
        "b": True,
        "a": [[0, 1], [2, 3]],
        "t": "2026-11-21",
    }
    with pytest.raises(toon.ToonError):
        toon.encode({"d": np.timedelta64(1, "s")})


def test_numpy_instants_are_text_wherever_they_stand_and_durations_are_refused() -> None:
    np = pytest.importorskip("numpy")
    instants = np.array(["NaT", "2026-01-01"], dtype="datetime64[ns]")
    assert toon.decode(toon.encode(instants)) == [None, "2026-01-01T00:00:00"]
    assert toon.decode(toon.encode(np.array([instants, instants]))) == [[None, "2026-01-01T00:00:00"]] * 2
    assert toon.decode(toon.encode_columns({"t": instants})) == [{"t": None}, {"t": "2026-01-01T00:00:00"}]
    assert toon.encode([instants[0], instants[1]]) == '[2]: null,"2026-01-01T00:00:00"'
    durations = np.array([5, 6], dtype="timedelta64[ns]")
    too_late = np.datetime64("300000-01-01", "D")
    for refused in (durations, durations[0], too_late, np.array([too_late]), np.longdouble("0.1")):
        with pytest.raises(toon.ToonError) as caught:
            toon.encode({"a": refused})
        assert (caught.value.code, caught.value.path) == ("value", "a")
        assert "cyclic" not in caught.value.reason
    with pytest.raises(toon.ToonError) as caught:
        toon.encode_columns({"a": durations})
    assert caught.value.path == "a"


def test_numpy_integers_are_keys_as_integers_are() -> None:
    np = pytest.importorskip("numpy")
    assert toon.encode({np.int64(3): 1, np.uint8(4): 2}) == '"3": 1\n"4": 2'
    for key in (np.float64(1.5), np.bool_(True), np.datetime64("2026-01-01")):
        with pytest.raises(toon.ToonError) as caught:
            toon.encode({key: 1})
        assert caught.value.code == "key"


@pytest.mark.parametrize(
    "write",
    [
        lambda: toon.encode(1, delimiter=[]),  # type: ignore[arg-type]
        lambda: toon.encode([1], delimiter=None),  # type: ignore[arg-type]
        lambda: toon.encode(1, indent="2"),  # type: ignore[arg-type]
        lambda: toon.decode(None),  # type: ignore[arg-type]
        lambda: toon.Decoder().feed(1),  # type: ignore[arg-type]
    ],
)
def test_a_wrong_argument_is_an_error_of_the_same_class(write: Any) -> None:
    with pytest.raises(toon.ToonError) as caught:
        write()
    assert caught.value.code == "option"


def test_a_field_that_was_never_set_is_named() -> None:
    @dataclass
    class Late:
        when: int = field(init=False)

    with pytest.raises(toon.ToonError) as caught:
        toon.encode({"a": Late()})
    assert (caught.value.code, caught.value.path) == ("value", "a")
    assert "when" in caught.value.reason


def test_mixed_tables_of_foreign_types_are_still_tables() -> None:
    rows = [{"p": Point(1, 2), "c": Colour.RED}, {"p": Point(3, 4), "c": Word.YES}]
    assert toon.encode(rows) == '[2]{p{x,y},c}:\n  1,2,red\n  3,4,"true"'
