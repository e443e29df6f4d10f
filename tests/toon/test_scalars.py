"""The rules of `toon.scalars`, and every fast path beside the plain rule that it must equal."""

from __future__ import annotations

import math
import random
import re
from itertools import product
from typing import Any

import pytest

from tests.toon.drawn import DELIMITERS, KEYS, STRINGS, scalar
from toon.columns import FORMATS, column_texts
from toon.errors import ToonError
from toon.row_lines import column_values
from toon.scalars import (
    BARE,
    NUMBER,
    canonical,
    find_unquoted,
    float_text,
    key_text,
    needs_quotes,
    quoted,
    split_unquoted,
    string_text,
    token_value,
    unquoted,
)

ALPHABET = [
    "a",
    "t",
    "1",
    "0",
    ".",
    "e",
    "+",
    "-",
    "#",
    " ",
    "\t",
    "\n",
    "\x00",
    ":",
    ",",
    "|",
    '"',
    "\\",
    "[",
    "}",
    "é",
    "\u00a0",
]


def short_strings() -> list[str]:
    """Every string of up to three characters that matter, and the odd ones."""
    return ["".join(chars) for length in range(4) for chars in product(ALPHABET, repeat=length)] + STRINGS


@pytest.mark.parametrize("delimiter", DELIMITERS)
def test_the_pattern_for_bare_strings_is_the_quoting_rule(delimiter: str) -> None:
    for text in short_strings():
        plain = text if not needs_quotes(text, delimiter) else quoted(text)
        assert string_text(text, delimiter) == plain
        assert bool(BARE[delimiter].fullmatch(text)) is not needs_quotes(text, delimiter)


@pytest.mark.parametrize("delimiter", DELIMITERS)
def test_a_column_of_strings_is_quoted_as_each_of_them_is(delimiter: str) -> None:
    draw = random.Random(3)
    strings = short_strings()
    for _ in range(4000):
        column = [draw.choice(strings) for _ in range(draw.randrange(1, 4))] + ["plain"] * draw.randrange(2)
        assert list(column_texts(column, delimiter)) == [string_text(text, delimiter) for text in column]
    for text in strings:
        assert list(column_texts(["x", text, "y"], delimiter))[1] == string_text(text, delimiter)


def test_a_column_of_anything_is_written_as_each_value_is() -> None:
    draw = random.Random(4)
    for _ in range(4000):
        column = [scalar(draw) for _ in range(draw.randrange(1, 5))]
        one_kind = [value for value in column if type(value) is type(column[0])]
        for values in (column, one_kind):
            alone = [string_text(value, ",") if type(value) is str else FORMATS[type(value)](value) for value in values]
            assert list(column_texts(values, ",")) == alone


def test_a_column_of_cells_is_read_as_each_cell_is() -> None:
    draw = random.Random(5)
    words = [
        "1",
        "-1",
        "05",
        "1.5",
        "1e5",
        "-0",
        "1e400",
        "true",
        "null",
        "net",
        "fun",
        "",
        "x",
        "a b",
        '"q"',
        '"a\\"b"',
        "NaN",
        "1-2",
        "e",
        "-",
        '"',
        "9" * 30,
        "é",
        "1 ",
        " x",
    ]
    for _ in range(20000):
        cells = [draw.choice(words) for _ in range(draw.randrange(1, 5))]
        try:
            plain: Any = [token_value(cell.strip(" ")) for cell in cells]
        except ToonError:
            plain = ToonError
        try:
            together: Any = column_values(cells)
        except ToonError:
            together = ToonError
        assert together == plain and repr(together) == repr(plain), cells


def test_keys_stand_bare_by_the_pattern_alone() -> None:
    for key in [*short_strings(), *KEYS, "a.b", ".a", "A_9", "é", "ª", "a\u0301"]:
        bare = re.fullmatch(r"[A-Za-z_][A-Za-z0-9_.]*", key)
        assert key_text(key) == (key if bare else quoted(key))


def test_quoting_and_unquoting_are_inverse() -> None:
    for text in [*short_strings(), "".join(map(chr, range(0x180))), "😀"]:
        assert unquoted(quoted(text)) == text


@pytest.mark.parametrize(
    ("token", "code", "column"),
    [('"', "string", 2), ('"a', "string", 3), ('"a"b', "string", 4), ('"a\\', "escape", 3), ('"\\x"', "escape", 2), ('"a\\u12"', "escape", 3),
     ('"\\ud800"', "escape", 2), ('"\\ud83d\\ude00"', "escape", 2), ('"a" ', "string", 4), ('"\\"', "string", 4), ("1e400", "number", 1)],
)  # fmt: skip
def test_a_faulty_token_says_where(token: str, code: str, column: int) -> None:
    with pytest.raises(ToonError) as caught:
        token_value(token)
    assert (caught.value.code, caught.value.column) == (code, column)


@pytest.mark.parametrize(
    ("number", "text"),
    [(0.0, "0"), (-0.0, "0"), (1.0, "1"), (1.5, "1.5"), (1e-6, "0.000001"), (9.5e-7, "9.5e-7"), (1e-7, "1e-7"), (5e-324, "5e-324"), (1e16, "10000000000000000"),
     (7.97408833289794e19, "79740883328979402752"), (1e20, "100000000000000000000"), (1e21, "1e+21"), (1.5e300, "1.5e+300"), (-2.5e-10, "-2.5e-10"),
     (0.1, "0.1"), (1e-5, "0.00001"), (-2.5e-05, "-0.000025"), (9.99e-5, "0.0000999"), (1.5e-6, "0.0000015"), (123456.789e-9, "0.000123456789"), (math.nan, "null"), (math.inf, "null"), (-math.inf, "null")],
)  # fmt: skip
def test_floats_are_written_in_canonical_form(number: float, text: str) -> None:
    assert float_text(number) == text


@pytest.mark.parametrize(
    ("spelled", "text"),
    [("1.50", "1.5"), ("1E+5", "100000"), ("0E+3", "0"), ("-0.0", "0"), ("1E-7", "1e-7"), ("1E+21", "1e+21"), ("12E+19", "120000000000000000000"), ("-0.0000010", "-0.000001"), ("999999999999999999999.5", "999999999999999999999.5"), ("00.5", "0.5")],
)  # fmt: skip
def test_decimals_are_written_in_canonical_form(spelled: str, text: str) -> None:
    assert canonical(spelled) == text


def test_numbers_are_exactly_those_of_the_json_grammar() -> None:
    grammar = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?")
    for text in [
        *short_strings(),
        "05",
        "+5",
        ".5",
        "1.",
        "1_0",
        "٣",
        "0x1",
        "1e",
        "1e+",
        "-",
        "Infinity",
        "1e5",
        "-1E+03",
    ]:
        assert bool(NUMBER.fullmatch(text)) is bool(grammar.fullmatch(text))
        if not text.startswith('"'):
            assert isinstance(token_value(text), int | float) is bool(grammar.fullmatch(text)) or text in {
                "true",
                "false",
            }


def test_what_stands_in_quotes_is_neither_found_nor_split() -> None:
    assert find_unquoted('a"b:c"d: 1', ":") == 7
    assert find_unquoted('"a\\":": 1', ":") == 6
    assert find_unquoted('"open: 1', ":") == -1
    assert find_unquoted('x"[2]: y', "[") == -1
    assert split_unquoted('a"b,c",d,,"e\\",f"', ",") == ['a"b,c"', "d", "", '"e\\",f"']
    assert split_unquoted('a,"b,c', ",") == ["a", '"b,c']
    assert split_unquoted('"a|b"|c|', "|") == ['"a|b"', "c", ""]
    assert split_unquoted('\\"a,b', ",") == ['\\"a,b']
