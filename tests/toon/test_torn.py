"""Salvage: the complete part of a document that was cut anywhere."""

from __future__ import annotations

from typing import Any

import pytest

import toon
from tests.toon.payloads import session, table
from toon.torn import Missing


def test_a_whole_document_has_nothing_missing() -> None:
    for value in (session(), table(5), 7, [], {}):
        assert toon.salvage(toon.encode(value)) == (value, [])


def test_a_cut_table_keeps_its_whole_rows() -> None:
    text = toon.encode({"runs": table(5)})
    cut = text[: text.rindex(",")]
    assert toon.salvage(cut) == ({"runs": table(4)}, [Missing("runs", 5, 4)])
    assert toon.salvage(cut.encode()) == toon.salvage(cut)


def test_the_last_line_counts_only_if_it_is_ended() -> None:
    assert toon.salvage("[3]{a}:\n  1\n  23") == ([{"a": 1}], [Missing("", 3, 1)])
    assert toon.salvage("[3]{a}:\n  1\n  23\n") == ([{"a": 1}, {"a": 23}], [Missing("", 3, 2)])


@pytest.mark.parametrize(
    ("text", "value", "missing"),
    [
        ('a: 1\nb: "tor', {"a": 1}, [Missing("", None, 1)]),
        ('a:\n  b: 1\n  c: "x', {"a": {"b": 1}}, [Missing("a", None, 1)]),
        ('a:\n  b: 1\nc: "x', {"a": {"b": 1}}, [Missing("", None, 1)]),
        ("tags[5]: a,b,cc", {"tags": ["a", "b"]}, [Missing("tags", 5, 2), Missing("", None, 1)]),
        ("items[2]:\n  - a: 1\n    b[3]: 1,2", {"items": [{"a": 1, "b": [1]}]}, [Missing("items[0].b", 3, 1), Missing("items", 2, 1), Missing("items[0]", None, 2)]),
        ('items[2]:\n  - a: 1\n  - "x', {"items": [{"a": 1}]}, [Missing("items", 2, 1)]),
        ("items[2]{a,b}:", {"items": []}, [Missing("items", 2, 0)]),
        ("m[2:]{v}:\n  a: 1\n  b", {"m": {"a": {"v": 1}}}, [Missing("m", 2, 1)]),
        ('"torn', {}, [Missing("", None, 0)]),
        ("a: 1\nb[2]{x}:\n  1\nc: 2\nd: 3\n", {"a": 1, "b": [{"x": 1}], "c": 2, "d": 3}, [Missing("b", 2, 1)]),
    ],
)  # fmt: skip
def test_what_is_missing_is_listed(text: str, value: Any, missing: list[Missing]) -> None:
    got, told = toon.salvage(text)
    assert got == value
    assert sorted(told, key=str) == sorted(missing, key=str)


def is_part(part: Any, whole: Any) -> bool:
    """Whether one value is another with things missing at ends, and nothing changed."""
    if isinstance(part, dict) and isinstance(whole, dict):
        return all(key in whole and is_part(item, whole[key]) for key, item in part.items())
    if isinstance(part, list) and isinstance(whole, list):
        return len(part) <= len(whole) and all(map(is_part, part, whole))
    return bool(part == whole) or (part == {} and isinstance(whole, dict))


def test_wherever_a_document_is_cut_what_is_given_is_part_of_it() -> None:
    value = {
        "runs": table(3),
        "tags": ["a1", "b2", "c3"],
        "deep": [{"x": 1, "y": [10, 20]}, {"x": {"d": "text"}}],
        "z": {"k": 10, "l": 20},
    }
    text = toon.encode(value) + "\n"
    for at in range(text.index("}") + 3, len(text)):
        got, missing = toon.salvage(text[:at] + "\n" if text[at - 1] == "\n" else text[:at])
        if missing:
            assert is_part(got, value), text[:at]


def test_a_fault_in_the_middle_ends_the_reading_there() -> None:
    value, missing = toon.salvage('a: 1\nb[3]:\n  - 1\n  - "x"y\n  - 3\nc: 4\n')
    assert value == {"a": 1, "b": [1]}
    assert missing == [Missing("b", 3, 1)]


def test_bytes_cut_within_a_character_are_cut_before_it() -> None:
    data = "a: 1\nb: é".encode()[:-1]
    assert toon.salvage(data) == ({"a": 1}, [Missing("", None, 1)])


def test_limits_hold_for_torn_documents_too() -> None:
    with pytest.raises(toon.ToonError) as caught:
        toon.salvage('a:\n  b:\n    c: "x', limits=toon.Limits(max_depth=1))
    assert caught.value.code == "limit"
