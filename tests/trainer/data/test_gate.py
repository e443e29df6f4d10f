"""Cells of every type, from every format: each becomes text in one fixed form, or is nothing, or is refused by name; none ends a file."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from swarm.errors import UserError
from swarm.settings import Dataset
from trainer.data.bad import BadRow, NotARow
from trainer.data.files import raw_rows
from trainer.data.gate import plain, plain_row, written
from trainer.data.raw import RawRow


def rows_in(path: Path, **options: object) -> list[RawRow | BadRow]:
    return list(raw_rows(Dataset(path=str(path), **options)))


@pytest.mark.parametrize(
    ("value", "wanted"),
    [
        (None, None), (float("nan"), None), (np.datetime64("NaT").item(), None), (Decimal("NaN"), None), ("", ""),
        (True, True), (np.int64(3), 3), (np.float32(0.5), 0.5), (np.array([1, 2]), [1, 2]), (10**30, 10**30),
        (Decimal("1.250"), "1.250"), (Decimal("1E+3"), "1000"), (date(2024, 1, 2), "2024-01-02"),
        (datetime(2024, 1, 2, 3, 4, tzinfo=UTC), "2024-01-02T03:04:00+00:00"), (time(3, 4), "03:04:00"),
        (timedelta(seconds=90), "PT90S"), (b"gr\xc3\xbc\xc3\x9f", "grüß"), ([("a", 1), ("b", None)], {"a": 1, "b": None}),
        ({"a": {"b": float("nan")}}, {"a": {"b": None}}), ("a\u2028b\x00", "a\u2028b\x00"),
    ],
)  # fmt: skip
def test_every_type_has_one_form(value: object, wanted: object) -> None:
    assert plain(value, "c") == wanted


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (float("inf"), "column 'c' holds an infinite number"), (b"\xff", "holds bytes that are not UTF-8 text (at byte 0)"),
        ("a\ud800", "not valid Unicode at character 1"), (object(), "holds object, which has no text form"),
        ({"deep": ["\udc80"]}, "not valid Unicode at character 0"),
    ],
)  # fmt: skip
def test_what_has_no_form_is_refused_with_its_column(value: object, words: str) -> None:
    with pytest.raises(NotARow) as caught:
        plain(value, "c")
    assert words in caught.value.what


def test_what_arrow_fills_in_is_taken_out_and_what_a_json_file_says_stays() -> None:
    values = {"m": [{"role": "user", "name": None}], "x": None}
    assert plain_row(values, filled=True) == {"m": [{"role": "user"}]}
    assert plain_row(values, filled=False) == {"m": [{"role": "user", "name": None}]}


def test_columns_of_all_types_come_through_parquet_and_arrow(tmp_path: Path) -> None:
    table = pa.table(
        {
            "decimal": pa.array([Decimal("1.25")]), "day": pa.array([date(2024, 1, 1)]), "bytes": pa.array([b"red"]),
            "map": pa.array([[("k", 1)]], type=pa.map_(pa.string(), pa.int64())), "struct": pa.array([{"a": 1, "b": None}]),
            "nan": pa.array([float("nan")]), "word": pa.array(["x"]).dictionary_encode(),
        }
    )  # fmt: skip
    pq.write_table(table, tmp_path / "x.parquet")
    with pa.OSFile(str(tmp_path / "file.arrow"), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)
    with pa.OSFile(str(tmp_path / "stream.arrow"), "wb") as sink, pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    for name in ("x.parquet", "file.arrow", "stream.arrow"):
        (row,) = rows_in(tmp_path / name)
        assert isinstance(row, RawRow)
        assert plain_row(row.values, filled=row.filled) == {
            "decimal": "1.25", "day": "2024-01-01", "bytes": "red", "map": {"k": 1}, "struct": {"a": 1}, "word": "x",
        }  # fmt: skip


def test_a_date_that_no_calendar_has_costs_its_row_alone(tmp_path: Path) -> None:
    days = pa.array([0, 10**8, 1], type=pa.int32()).cast(pa.date32())
    pq.write_table(pa.table({"day": days}), tmp_path / "x.parquet")
    rows = rows_in(tmp_path / "x.parquet")
    assert [type(row).__name__ for row in rows] == ["RawRow", "BadRow", "RawRow"]
    assert str(rows[1]).startswith(f"{tmp_path / 'x.parquet'}: row 2: cannot be read (")


ROW = '{"prompt": "grüß\\u2028", "completion": "ho"}'


@pytest.mark.parametrize(
    "written_as",
    [
        lambda text: text.encode("utf-8-sig"), lambda text: text.encode("utf-16"), lambda text: text.encode("utf-16-le"),
        lambda text: text.encode("utf-16-be"), lambda text: text.replace("\n", "\r\n").encode(), lambda text: text.encode()[:-1],
    ],
    ids=["UTF-8 with a mark", "UTF-16", "UTF-16 LE without a mark", "UTF-16 BE without a mark", "CRLF", "no last line break"],
)  # fmt: skip
def test_a_text_file_is_read_however_it_was_saved(tmp_path: Path, written_as: Callable[[str], bytes]) -> None:
    values = {"prompt": "grüß\u2028", "completion": "ho"}
    (tmp_path / "x.jsonl").write_bytes(written_as(f"{ROW}\n{json.dumps(values, ensure_ascii=False)}\n"))
    assert [row.values for row in rows_in(tmp_path / "x.jsonl") if isinstance(row, RawRow)] == [values, values]
    (tmp_path / "x.csv").write_bytes(written_as("prompt,completion\ngrüß\u2028,ho\n"))
    assert [row.values for row in rows_in(tmp_path / "x.csv") if isinstance(row, RawRow)] == [values]


def test_an_object_that_names_a_key_twice_costs_its_row_alone(tmp_path: Path) -> None:
    for name, text in {
        "x.jsonl": '{"a": 1, "a": 2}\n{"a": 3}\n',
        "x.json": '[{"b": {"a": 1, "a": 2}}, {"a": 3}]',
    }.items():
        (tmp_path / name).write_text(text)
        bad, good = rows_in(tmp_path / name)
        assert isinstance(bad, BadRow)
        assert bad.what == "the key 'a' stands twice in one object"
        assert isinstance(good, RawRow)


@pytest.mark.parametrize("name", ["x.csv", "x.parquet"])
def test_two_columns_of_one_name_are_refused(tmp_path: Path, name: str) -> None:
    if name == "x.csv":
        (tmp_path / name).write_text("a,b,a\n1,2,3\n")
    else:
        pq.write_table(pa.Table.from_arrays([pa.array([1]), pa.array([2])], names=["a", "a"]), tmp_path / name)
    with pytest.raises(UserError, match="2 columns are named 'a'; give each column a name of its own"):
        rows_in(tmp_path / name)


def test_quotes_that_are_no_csv_cost_their_lines_alone(tmp_path: Path) -> None:
    path = tmp_path / "x.csv"
    path.write_text('a,b\n1,2\n"x"y,2\n3,4\n"never closed,5\n6,7\n8,9\n', encoding="utf-8")
    rows = rows_in(path)
    assert [row.values["a"] for row in rows if isinstance(row, RawRow)] == ["1", "3", "6", "8"]
    assert [row.where for row in rows] == [f"{path}:{line}" for line in (2, 3, 4, 5, 6, 7)]
    assert [row.what.split(" (")[0] for row in rows if isinstance(row, BadRow)] == ["not CSV", "not CSV"]


def test_a_bad_row_is_kept_whole_whatever_stands_in_it(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    line = b'{"a": "\xff\xfe", "b": \x00\xf0\x9f\x98\x80\n'
    path.write_bytes(line)
    (bad,) = rows_in(path)
    assert isinstance(bad, BadRow)
    kept: Any = json.loads(json.dumps(bad.text()))
    assert kept.encode("utf-8", "surrogateescape") + b"\n" == line
    assert json.loads(written({"b": b"\xff", "d": Decimal("1.5"), "m": {"n": float("nan")}}))["b"] == {"base64": "/w=="}


def test_a_row_that_begins_as_utf_16_would_costs_itself_alone(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    for odd in (b"{\x00", b"\x00{", b'\xff\xfe{"a": 1}', b"\xfe\xff"):
        path.write_bytes(odd + b'\n{"a": 1}\n{"a": 2}\n{"a": 3}\n{"a": 4}\n')
        bad, *good = rows_in(path)
        assert isinstance(bad, BadRow)
        assert [row.values["a"] for row in good if isinstance(row, RawRow)] == [1, 2, 3, 4]
    for said in ("ગુજરાતી\u010a", "中文上" * 200):  # 0x0A is half of some characters
        for encoding, times in (("utf-16", 1), ("utf-16-le", 3), ("utf-16-be", 3)):
            path.write_bytes((json.dumps({"a": said}, ensure_ascii=False) + "\n").encode(encoding) * times)
            assert [row.values for row in rows_in(path) if isinstance(row, RawRow)] == [{"a": said}] * times
        whole = tmp_path / "x.json"
        whole.write_bytes(json.dumps([{"a": said}] * 3, ensure_ascii=False).encode("utf-16"))
        assert [row.values for row in rows_in(whole) if isinstance(row, RawRow)] == [{"a": said}] * 3
