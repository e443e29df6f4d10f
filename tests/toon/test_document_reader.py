"""The reader's quick ways beside its long way, and what its errors say."""

from __future__ import annotations

import multiprocessing
import os
import random
from typing import Any

import pytest

import toon
from tests.toon.drawn import DELIMITERS, document, mutated, scalar
from tests.toon.test_properties import outcome
from toon.document_reader import Reader
from toon.limits import DEFAULT_LIMITS, Limits
from toon.lines import prepared


def long_way(text: str, *, strict: bool, indent: int = 2) -> Any:
    reader = Reader(indent, strict, DEFAULT_LIMITS)
    reader.read(prepared(text.removeprefix("\ufeff")))
    return reader.finish()


def assert_same_either_way(text: str, indent: int = 2) -> None:
    for strict in (True, False):
        quick = outcome(lambda strict=strict: toon.decode(text, strict=strict, indent=indent))
        slow = outcome(lambda strict=strict: long_way(text, strict=strict, indent=indent))
        assert quick == slow and repr(quick) == repr(slow), text


def test_the_quick_ways_and_the_long_way_agree_on_sound_and_on_damaged_documents() -> None:
    draw = random.Random(77)
    for _ in range(30000 if os.environ.get("TORTURE") else 2500):
        indent = draw.choice([1, 2, 2, 3])
        text = toon.encode(document(draw), delimiter=draw.choice(DELIMITERS), indent=indent)
        assert_same_either_way(text, indent)
        assert_same_either_way(mutated(text, draw), indent)


def test_they_agree_on_tables_of_many_rows_with_one_injury() -> None:
    draw = random.Random(78)
    for _ in range(60):
        names = [f"c{number}" for number in range(draw.randrange(1, 6))]
        pools = [[scalar(draw) for _ in range(draw.randrange(1, 6))] for _ in names]
        rows = [
            {name: draw.choice(pool) for name, pool in zip(names, pools, strict=True)}
            for _ in range(draw.randrange(90, 140))
        ]
        value = draw.choice(
            [
                rows,
                {"t": rows},
                {"t": {f"k{number}": row for number, row in enumerate(rows)}},
                [list(row.values()) for row in rows],
            ]
        )
        text = toon.encode(value, delimiter=draw.choice(DELIMITERS))
        assert_same_either_way(text)
        for _ in range(4):
            assert_same_either_way(mutated(text, draw))


FAULTS = [
    # document, code, line, column, path, a part of the message
    ("a: 1\nb", "syntax", 2, 1, "", "found no ':'"),
    ("hello\nworld", "trailing", 2, 1, "", "end of the document"),
    ('runs:\n  w03:\n    loss: "x', "string", 3, 13, "runs.w03.loss", 'closing "'),
    ("items[2]{a,b}:\n  1,2\n  3", "width", 3, 3, "items[1]", "expected 2 cells, found 1"),
    ('items[2]{a,g{x}}:\n  1,2\n  3,"\\q"', "escape", 3, 6, "items[1].g.x", "found '\\\\q'"),
    ("items[3]:\n  - 1\n  - 2", "count", 1, 7, "items", "expected 3 items, found 2"),
    ("items[1]:\n  - 1\n  - 2", "count", 3, 3, "items[1]", "declared in line 1"),
    ("a[2]: 1,2,3", "count", 1, 7, "a", "expected 2 values, found 3"),
    ("m[1:]{v}:\n  a: 1\n  b: 2", "count", 3, 3, "m.b", "declared in line 1"),
    ("a:\n   b: 1", "indent", 2, 4, "", "multiple of 2"),
    ("a:\n\tb: 1", "indent", 2, 1, "", "found a tab"),
    ("a:\n    b: 1", "depth", 2, 5, "a", "at most 2 spaces"),
    ("a: 1\na: 2", "duplicate", 2, 1, "a", "each key once"),
    ("a[1]{x,x}:\n  1,2", "duplicate", 1, 8, "", "each field once"),
    ("a[2]:\n  - 1\n\n  - 2", "blank", 3, 1, "a", "no blank line"),
    ("a[02]: 1,2", "header", 1, 3, "", "leading zeros"),
    ("a[2:]: 1", "header", 1, 6, "", "field list"),
    ("a[1]{x|y}:\n  1", "header", 1, 7, "", "declared delimiter"),
    ("a [1]: 1", "header", 1, 2, "", "whitespace"),
    ("a:\n  [1]: 1", "header", 2, 3, "a", "key before '['"),
    ("x: 1e999", "number", 1, 4, "x", "double can hold"),
    ("t[1]{v}:\n  1e999", "number", 2, 3, "t[0].v", "double can hold"),
    ("t[2]: 1,1e999", "number", 1, 9, "t[1]", "double can hold"),
    ("[1]:\n  - a: 1\n    b: 2\n    b: 3", "duplicate", 4, 5, "[0].b", "each key once"),
    ('"odd key":\n  x', "syntax", 2, 3, '"odd key"', "found no ':'"),
]


@pytest.mark.parametrize(("text", "code", "line", "column", "path", "part"), FAULTS)
def test_an_error_names_its_place_and_what_was_expected(
    text: str, code: str, line: int, column: int, path: str, part: str
) -> None:
    with pytest.raises(toon.ToonError) as caught:
        toon.decode(text)
    fault = caught.value
    assert (fault.code, fault.line, fault.column, fault.path) == (code, line, column, path)
    assert part in fault.reason
    assert fault.source == text.split("\n")[line - 1]
    assert str(fault).split("\n")[-1] == "    " + " " * (column - 1) + "^"
    assert outcome(lambda: long_way(text, strict=True)) == ("error", (code, line, column, path))


def test_a_long_line_is_shown_around_its_fault() -> None:
    with pytest.raises(toon.ToonError) as caught:
        toon.decode("k: " + '"' + "x" * 5000 + '"y' + "z" * 5000)
    shown, caret = str(caught.value).split("\n")[-2:]
    assert len(shown) < 120
    assert shown[caret.index("^")] == "y"


def test_an_error_reaches_another_process_whole() -> None:
    with pytest.raises(toon.ToonError) as caught:
        toon.decode("a: 1\na: 2")
    here, there = multiprocessing.Pipe()
    with here, there:
        here.send(caught.value)
        again = there.recv()
    assert (str(again), again.code, again.line) == (str(caught.value), "duplicate", 2)


def test_bytes_that_are_no_utf8_are_shown_with_their_place() -> None:
    with pytest.raises(toon.ToonError) as caught:
        toon.decode("é: 1\nü: ".encode() + b"\xff")
    assert (caught.value.code, caught.value.line, caught.value.column) == ("utf8", 2, 4)


@pytest.mark.parametrize(
    ("text", "limits"),
    [
        ("a: 12345", Limits(max_bytes=5)),
        ("a:\n  b:\n    c: 1", Limits(max_depth=2)),
        ("[1]:\n  - [1]:\n    - [1]: 1", Limits(max_depth=2)),
        ("[1]{a{b{c}}}:\n  1", Limits(max_depth=3)),
        ("[1]{a,b,c}:\n  1,2,3", Limits(max_columns=2)),
        ("[3]{a}:\n  1\n  2\n  3", Limits(max_rows=2)),
        ("[3]: 1,2,3", Limits(max_rows=2)),
        ("[3]:\n  - a: 1\n  - a:\n  - 3", Limits(max_rows=2)),
        ("a: 123456", Limits(max_digits=5)),
        ("[2]{a}:\n  1\n  123456", Limits(max_digits=5)),
        ("[2]{a}:\n  1\n  1.23456", Limits(max_digits=5)),
    ],
)
def test_each_limit_is_an_error_of_its_own(text: str, limits: Limits) -> None:
    toon.decode(text)
    with pytest.raises(toon.ToonError) as caught:
        toon.decode(text, limits=limits)
    assert caught.value.code == "limit"


def test_what_just_meets_the_limits_is_read() -> None:
    assert toon.decode("a:\n  b: 1", limits=Limits(max_bytes=9, max_depth=2)) == {"a": {"b": 1}}
    assert toon.decode(
        "[2]{a,b}:\n  12,3\n  4,5", limits=Limits(max_columns=2, max_rows=2, max_digits=2, max_depth=2)
    ) == [{"a": 12, "b": 3}, {"a": 4, "b": 5}]
    number = 10**5000
    assert toon.decode("a: 1" + "0" * 5000, limits=Limits(max_digits=6000)) == {"a": number}


@pytest.mark.parametrize("indent", [0, -1, 1.5, "2"])
def test_an_indent_that_is_none_is_refused(indent: Any) -> None:
    for call in (lambda: toon.encode({}, indent=indent), lambda: toon.decode("", indent=indent)):
        with pytest.raises(toon.ToonError) as caught:
            call()
        assert caught.value.code == "option"
