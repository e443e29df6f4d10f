"""Columns in and out, of lists and of what numpy, pandas and Arrow call columns."""

from __future__ import annotations

import json
import math
import random
from collections import deque
from typing import Any

import pytest

import toon
from tests.toon.drawn import mutated


def test_columns_are_written_as_a_table_and_come_back_as_columns() -> None:
    text = toon.encode_columns({"a": [1, 2], "b c": ("x", "y,z")}, delimiter=",")
    assert text == '[2]{a,"b c"}:\n  1,x\n  2,"y,z"'
    assert toon.decode_columns(text) == {"a": [1, 2], "b c": ["x", "y,z"]}


def test_a_table_without_rows_keeps_its_columns() -> None:
    text = toon.encode_columns({"a": [], "b": []})
    assert text == "[0]{a,b}:"
    assert toon.decode(text) == []
    assert toon.decode_columns(text) == {"a": [], "b": []}
    assert toon.encode_columns({}) == "[]"
    assert toon.decode_columns("[]") == {}


def test_nested_fields_become_columns_with_dotted_names() -> None:
    text = toon.encode([{"a": 1, "g": {"x": 2, "y": {"z": 3}}}])
    assert toon.decode_columns(text) == {"a": [1], "g.x": [2], "g.y.z": [3]}
    with pytest.raises(toon.ToonError) as caught:
        toon.decode_columns("[1]{g.x,g{x}}:\n  1,2")
    assert caught.value.code == "duplicate"


def test_long_and_awkward_tables_give_the_columns_of_their_rows() -> None:
    rows = [
        {"n": number, "t": f'say "{number}", \\ok' if number % 3 else "plain", "v": number / 8 if number % 5 else None}
        for number in range(10_000)
    ]
    text = toon.encode(rows)
    columns = toon.decode_columns(text)
    assert columns == {name: [row[name] for row in rows] for name in rows[0]}
    assert toon.encode_columns(columns) == text


@pytest.mark.parametrize(
    "text", ["a: 1", "[2]: 1,2", "x", "", "[1]:\n  - 1", "a[1]{x}:\n  1", "[1:]{x}:\n  a: 1", "[1]:\n  - a: 1"]
)
def test_a_document_that_is_no_table_has_no_columns(text: str) -> None:
    with pytest.raises(toon.ToonError) as caught:
        toon.decode_columns(text)
    assert caught.value.code == "syntax"


@pytest.mark.parametrize("text", ["[2]{a}:\n  1", "[1]{a}:\n  1,2", "[1]{a}:\n  1\n  2", '[1]{a}:\n  "x'])
def test_a_faulty_table_is_as_faulty_by_columns(text: str) -> None:
    faults = []
    for decode in (toon.decode, toon.decode_columns):
        with pytest.raises(toon.ToonError) as caught:
            decode(text)
        faults.append(str(caught.value))
    assert faults[0] == faults[1]


def test_every_table_of_a_document_can_come_as_columns_wherever_it_stands() -> None:
    rows = [{"x": 1, "g": {"y": "a"}}, {"x": None, "g": {"y": "b c"}}]
    columns = {"x": [1, None], "g.y": ["a", "b c"]}
    value = {
        "name": "n",
        "rows": rows,
        "list": [1, {"rows": rows}],
        "tags": ["t"],
        "none": [],
        "by": {"a": rows[0], "b": rows[1]},
    }
    assert toon.decode_tables(toon.encode(value)) == value | {"rows": columns, "list": [1, {"rows": columns}]}
    assert toon.decode_tables(toon.encode(rows)) == columns
    assert toon.decode_tables("t[0]{a,b}:") == {"t": {"a": [], "b": []}}
    assert toon.decode_tables("7") == 7


def _as_columns(value: Any) -> Any:
    """What `decode_tables` makes of a decoded document whose every list of objects stood as a table without groups."""
    if isinstance(value, dict):
        return {key: _as_columns(item) for key, item in value.items()}
    if isinstance(value, list) and value and isinstance(value[0], dict):
        return {name: [row[name] for row in value] for name in value[0]}
    return value


def test_damaged_tables_are_refused_by_columns_for_the_same_reason_at_the_same_place() -> None:
    draw = random.Random(5)
    whole = toon.encode(
        {"a": 1, "rows": [{"n": n, "t": f"t {n}" if n % 3 else '"', "v": n / 8} for n in range(6)], "z": [1, 2]}
    )
    refused = 0
    for _ in range(2000):
        text, found = mutated(whole, draw), []
        for decode in (lambda text: _as_columns(toon.decode(text)), toon.decode_tables):
            try:
                found.append(decode(text))
            except toon.ToonError as fault:
                found.append(str(fault))
        refused += isinstance(found[1], str)
        if not (isinstance(found[1], str) and "each column name once" in found[1]):
            assert json.dumps(found[0]) == json.dumps(found[1]), text
    assert 500 < refused < 1900


def test_columns_of_different_lengths_and_cells_that_are_no_primitives_are_refused() -> None:
    with pytest.raises(toon.ToonError):
        toon.encode_columns({"a": [1], "b": [1, 2]})
    with pytest.raises(toon.ToonError) as caught:
        toon.encode_columns({"a": [1, [2]]})
    assert caught.value.path == "a[1]"
    with pytest.raises(toon.ToonError) as caught:
        toon.encode_columns({"a": [1, {2}]})
    assert caught.value.path == "a[1]"


@pytest.mark.parametrize("column", ["abc", b"abc", 5, {"x": 1}, iter([1]), None])
def test_what_is_no_column_is_refused_by_name(column: Any) -> None:
    with pytest.raises(toon.ToonError) as caught:
        toon.encode_columns({"a": column})
    assert (caught.value.code, caught.value.path) == ("value", "a")
    with pytest.raises(toon.ToonError) as caught:
        toon.encode_columns(column if isinstance(column, str) else [column])  # type: ignore[arg-type]
    assert caught.value.code == "value"


def test_any_sequence_is_a_column() -> None:
    assert toon.encode_columns({"a": range(2), "b": deque("xy")}) == "[2]{a,b}:\n  0,x\n  1,y"


def test_numpy_columns() -> None:
    np = pytest.importorskip("numpy")
    with pytest.raises(toon.ToonError) as caught:
        toon.encode_columns({"a": np.array(5)})
    assert (caught.value.code, caught.value.path) == ("value", "a")
    columns: dict[str, Any] = {
        "i": np.array([1, 2], dtype=np.int32),
        "f": np.array([0.5, math.nan]),
        "b": np.array([True, False]),
        "s": np.array(["x", "y z"]),
        "t": np.array(["2026-11-21T09:00:00.000000001", "NaT"], dtype="datetime64[ns]"),
        "d": np.array(["2026-11-21", "2026-11-22"], dtype="datetime64[D]"),
    }
    back = toon.decode_columns(toon.encode_columns(columns))
    assert back == {
        "i": [1, 2],
        "f": [0.5, None],
        "b": [True, False],
        "s": ["x", "y z"],
        "t": ["2026-11-21T09:00:00", None],
        "d": ["2026-11-21", "2026-11-22"],
    }


def test_pandas_frames() -> None:
    pd = pytest.importorskip("pandas")
    frame = pd.DataFrame(
        {"a": [1, 2], "t": pd.to_datetime(["2026-11-21", "2026-11-22"]), "s": ["x", None], "f": [1.5, None]}
    )
    back = toon.decode_columns(toon.encode_columns(frame))
    assert back == {
        "a": [1, 2],
        "t": ["2026-11-21T00:00:00", "2026-11-22T00:00:00"],
        "s": ["x", None],
        "f": [1.5, None],
    }
    assert pd.DataFrame(back).shape == (2, 4)


def test_arrow_tables() -> None:
    pa = pytest.importorskip("pyarrow")
    table = pa.table({"a": [1, None], "s": ["x", "y"]})
    assert toon.decode_columns(toon.encode_columns(dict(zip(table.column_names, table.columns, strict=True)))) == {
        "a": [1, None],
        "s": ["x", "y"],
    }
