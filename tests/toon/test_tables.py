"""Columns in and out, of lists and of what numpy, pandas and Arrow call columns."""

from __future__ import annotations

import math
from typing import Any

import pytest

import toon


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


def test_columns_of_different_lengths_and_cells_that_are_no_primitives_are_refused() -> None:
    with pytest.raises(toon.ToonError):
        toon.encode_columns({"a": [1], "b": [1, 2]})
    with pytest.raises(toon.ToonError) as caught:
        toon.encode_columns({"a": [1, [2]]})
    assert caught.value.path == "a[1]"
    with pytest.raises(toon.ToonError) as caught:
        toon.encode_columns({"a": [1, {2}]})
    assert caught.value.path == "a[1]"


def test_numpy_columns() -> None:
    np = pytest.importorskip("numpy")
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
