"""Decoding with a schema: the types come back, and what does not fit is named by its path."""

from __future__ import annotations

import typing
from dataclasses import InitVar, dataclass, field
from datetime import date, datetime
from decimal import Decimal
from enum import Enum
from typing import Annotated, Any, Literal, NotRequired, TypedDict

import pytest

import toon


class State(Enum):
    OK = "ok"
    BAD = 0


class Seen(TypedDict):
    at: str
    note: NotRequired[str]


@dataclass
class Run:
    name: str
    loss: float
    steps: int = 0
    tags: list[str] = field(default_factory=list)
    best: Run | None = None


class Exotic(Enum):
    LOW = 0.1
    EXACT = Decimal("0.1000000000000000000001")
    DAY = date(2026, 11, 24)
    PAIR = (1, 2)


class Rate(Enum):
    LOW = 0.1


@dataclass(frozen=True)
class Circle:
    r: float
    area_given: InitVar[float | None] = None
    area: float = field(init=False)

    def __post_init__(self, area_given: float | None) -> None:
        if self.r < 0:
            raise ValueError("a radius below 0")
        object.__setattr__(self, "area", area_given or self.r**2 * 3)


@dataclass
class Unkind:
    x: int
    y: InitVar[int]


@pytest.mark.parametrize(
    ("text", "schema", "value"),
    [
        ("name: x\nloss: 1", Run, Run("x", 1.0)),
        (
            "name: x\nloss: 1\nbest:\n  name: y\n  loss: 2\n  tags[1]: a",
            Run,
            Run("x", 1.0, best=Run("y", 2.0, tags=["a"])),
        ),
        ("[2]{name,loss}:\n  a,1\n  b,2.5", list[Run], [Run("a", 1.0), Run("b", 2.5)]),
        ("a: 1\nb: x", {"a": float, "b": str}, {"a": 1.0, "b": "x"}),
        ("[1]{a}:\n  1.10", [{"a": Decimal}], [{"a": Decimal("1.10")}]),
        ("at: now", Seen, {"at": "now"}),
        ("1.0", int, 1),
        ("1e3", int, 1000),
        ("7", Decimal, Decimal(7)),
        ("1e400", Decimal, Decimal("1e400")),
        ("0.1000000000000000000001", Decimal, Decimal("0.1000000000000000000001")),
        ("null", int | None, None),
        ("[2]: 1,x", tuple[int, str], (1, "x")),
        ("[2]: 1,2", tuple[float, ...], (1.0, 2.0)),
        ("ok", State, State.OK),
        ("0", State, State.BAD),
        ("a: 2026-11-21", dict[str, date], {"a": date(2026, 11, 21)}),
        ('"2026-11-21T09:00:00"', datetime, datetime(2026, 11, 21, 9)),  # noqa: DTZ001
        ("a: 1\nb: 1.5", {"a": Any, "b": Decimal}, {"a": 1, "b": Decimal("1.5")}),
        ("a: 1.5\nb: 1.5", {"a": Any, "b": Decimal}, {"a": 1.5, "b": Decimal("1.5")}),
        ("b", Literal["a", "b"], "b"),
        ("5", Annotated[int, "unit"], 5),
        ("x", str | int, "x"),
        ("[1]: 1", list, [1]),
        ("[1]: 1", typing.List, [1]),  # noqa: UP006 - the old names without arguments are schemas too
        ("a: 1", typing.Dict, {"a": 1}),  # noqa: UP006
        ("[2]: 1,x", tuple, (1, "x")),
        ("[2]: 1,x", typing.Tuple, (1, "x")),  # noqa: UP006
        ("[]", tuple[()], ()),
        ('"1": x\n"-7": y', dict[int, str], {1: "x", -7: "y"}),
        ('ok: 1\n"0": 2', dict[State, int], {State.OK: 1, State.BAD: 2}),
        ('"1": x', dict[str, str], {"1": "x"}),
        ('"1": x', dict[Any, str], {"1": "x"}),
        ('"1": x\ny: z', dict[int | Literal["y"], str], {1: "x", "y": "z"}),
        ("9007199254740993", float | int, 9007199254740993),
        ("9007199254740993", float | None | int, 9007199254740993),
        ("1.5", float | int, 1.5),
        ("0.1000000000000000000001", float | Decimal, Decimal("0.1000000000000000000001")),
        ("0.1", Exotic, Exotic.LOW),
        ("0.1000000000000000000001", Exotic, Exotic.EXACT),
        ("2026-11-24", Exotic, Exotic.DAY),
        ("[2]: 1,2", Exotic, Exotic.PAIR),
        ("r: 2\narea: 12.5", Circle, Circle(2, 12.5)),
        ("r: 2", Circle, Circle(2)),
    ],
)
def test_a_fitting_document_comes_back_in_its_types(text: str, schema: Any, value: Any) -> None:
    got = toon.decode(text, schema=schema)
    assert got == value
    assert type(got) is type(value)


@pytest.mark.parametrize(
    ("text", "schema", "path", "part"),
    [
        ("name: 1\nloss: 1", Run, "name", "expected text, found 1"),
        ("name: x", Run, "", "the field 'loss'"),
        ("name: x\nloss: 1\nwhat: 2", Run, "what", "found 'what'"),
        ("[2]{name,loss}:\n  a,1\n  b,x", list[Run], "[1].loss", "expected a number, found text 'x'"),
        ("name: x\nloss: 1\nbest:\n  name: y\n  loss: z", Run, "best.loss", "found text 'z'"),
        ("a: true", {"a": int}, "a", "found true"),
        ("a: 1", {"a": bool}, "a", "expected true or false"),
        ("a: 1.5", {"a": int}, "a", "expected a whole number"),
        ("a: 1e999999", {"a": int, "b": Decimal | None}, "", "'b'"),
        ("[2]: 1,2", tuple[int, int, int], "", "an array of 3, found an array of 2"),
        ("x", State, "", "expected one of 'ok', 0"),
        ("c", Literal["a", "b"], "", "expected one of"),
        ("a: tomorrow", {"a": date}, "a", "ISO 8601 date"),
        ("a: 1", list[int], "", "expected an array, found an object of 1"),
        ("[1]: 1", Run, "", "expected an object, found an array of 1"),
        ("null", str, "", "expected text, found null"),
        ("a: x", {"a": int | float}, "a", "found text 'x'"),
        ("x: y", dict[int, str], "x", "expected a whole number, found text 'x'"),
        ('"01": y', dict[int, str], '"01"', "found text '01'"),
        ("true: y", dict[bool, str], "true", "expected true or false"),
        ("[2]{r,area}:\n  1,2\n  1,x", list[Circle], "[1].area", "expected a number"),
    ],
)
def test_what_does_not_fit_is_named(text: str, schema: Any, path: str, part: str) -> None:
    with pytest.raises(toon.ToonError) as caught:
        toon.decode(text, schema=schema)
    assert (caught.value.code, caught.value.path) == ("schema", path)
    assert part in caught.value.reason


def test_a_huge_exponent_cannot_be_made_an_integer() -> None:
    with pytest.raises(toon.ToonError) as caught:
        toon.decode("a: 1e999999\nb: 1", schema={"a": int, "b": Decimal})
    assert (caught.value.code, caught.value.path) == ("schema", "a")
    with pytest.raises(toon.ToonError) as caught:
        toon.decode("a: 1e999999\nb: 1", schema={"a": float, "b": Decimal})
    assert caught.value.code == "schema"
    with pytest.raises(toon.ToonError) as caught:
        toon.decode("1e99999999999999999999", schema=Decimal)
    assert caught.value.code == "number"


def test_an_enum_is_found_by_its_text_beside_decimals() -> None:
    got = toon.decode("a: 1.5\nlr: 0.1", schema={"a": Decimal, "lr": Rate})
    assert got == {"a": Decimal("1.5"), "lr": Rate.LOW}


def test_an_instance_comes_back_as_it_was_even_where_its_constructor_does_not_take_a_field() -> None:
    circle = Circle(2)
    object.__setattr__(circle, "area", 99.0)
    assert toon.decode(toon.encode([circle, Circle(1)]), schema=list[Circle]) == [circle, Circle(1)]


@pytest.mark.parametrize(
    ("text", "schema", "path", "cause"),
    [
        ("[2]{r}:\n  1\n  -1", list[Circle], "[1]", ValueError),
        ("u:\n  x: 1", {"u": Unkind}, "u", TypeError),
    ],
)
def test_what_a_class_itself_refuses_has_a_path_and_a_cause(
    text: str, schema: Any, path: str, cause: type[Exception]
) -> None:
    with pytest.raises(toon.ToonError) as caught:
        toon.decode(text, schema=schema)
    assert (caught.value.code, caught.value.path) == ("schema", path)
    assert type(caught.value.__cause__) is cause
    assert str(caught.value.__cause__) in caught.value.reason


@pytest.mark.parametrize(
    "schema",
    [object, set[int], print, 3, [], [int, str], {1: int}, {"a": []}, dict[str], typing.Union, typing.Optional],
)
def test_a_schema_that_is_none_is_an_error_of_the_caller(schema: Any) -> None:
    with pytest.raises(toon.ToonError) as caught:
        toon.decode("a: 1", schema=schema)
    assert caught.value.code == "option"


def test_a_schema_that_holds_itself_ends_in_an_error_of_ours_when_it_goes_too_deep() -> None:
    text = "\n".join(
        "  " * level + "name: x\n" + "  " * level + "loss: 1\n" + "  " * level + "best:" for level in range(200)
    )
    with pytest.raises(toon.ToonError) as caught:
        toon.decode(text + " null", schema=Run)
    assert caught.value.code == "limit"
