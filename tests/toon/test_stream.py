"""Streaming in and out: what is held back, what memory it takes, what becomes of faults."""

from __future__ import annotations

import io
import tracemalloc
from collections.abc import Iterator
from datetime import date
from decimal import Decimal
from types import MappingProxyType
from typing import Any

import pytest

import toon
from tests.toon.payloads import table


def chunks_of(rows: int) -> Iterator[str]:
    """A table document that never exists as a whole."""
    yield f"[{rows}]{{seq,stream,loss,note}}:"
    for number in range(rows):
        yield f'\n  {number},wide,0.{number},"a, b"'


def test_200_000_rows_come_one_by_one_in_flat_memory() -> None:
    rows = toon.iter_rows(chunks_of(200_000))
    assert next(rows) == {"seq": 0, "stream": "wide", "loss": 0.0, "note": "a, b"}
    tracemalloc.start()
    count, seqs = 1, 0
    for row in rows:
        count, seqs = count + 1, seqs + row["seq"]
    peak_bytes = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert count == 200_000 and seqs == sum(range(200_000))
    assert peak_bytes < 20 * 1024 * 1024


def test_rows_are_written_in_batches_and_nothing_more_is_held() -> None:
    written: list[str] = []
    with toon.RowWriter(["a", "b"], written.append, batch_rows=2) as rows:
        for number in range(5):
            rows.write({"b": f"x,{number}", "a": number})
            assert len(written) == 1 + (number + 1) // 2
    text = "".join(written)
    assert text == '[0]{a,b}:\n  0,"x,0"\n  1,"x,1"\n  2,"x,2"\n  3,"x,3"\n  4,"x,4"'
    assert rows.rows_written == 5
    assert (
        toon.decode(text, strict=False)
        == list(toon.iter_rows([text], strict=False))
        == [{"a": n, "b": f"x,{n}"} for n in range(5)]
    )
    with pytest.raises(toon.ToonError):
        toon.decode(text)


def test_writing_100_000_rows_takes_the_memory_of_a_batch() -> None:
    written_bytes = 0

    def count(text: str) -> None:
        nonlocal written_bytes
        written_bytes += len(text)

    tracemalloc.start()
    with toon.RowWriter(["step", "loss"], count) as rows:
        for number in range(100_000):
            rows.write((number, number / 7))
    peak_bytes = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert written_bytes > 2_000_000
    assert peak_bytes < 2 * 1024 * 1024


@pytest.mark.parametrize("row", [{"a": 1}, {"a": 1, "b": 2, "c": 3}, [1], "ab", {"a": 1, "c": 2}])
def test_a_row_that_does_not_fit_is_refused(row: Any) -> None:
    rows = toon.RowWriter(["a", "b"], lambda text: None)
    with pytest.raises(toon.ToonError) as caught:
        rows.write(row)
    assert caught.value.code == "value"


@pytest.mark.parametrize(
    ("cell", "code"),
    [({"x": 1}, "value"), ({1}, "value"), ("\ud800", "surrogate"), pytest.param(10**5000, "limit", id="digits")],
)
def test_a_refused_row_is_named_by_its_place_in_the_table_and_leaves_the_others(cell: Any, code: str) -> None:
    written: list[str] = []
    with toon.RowWriter(["a", "b"], written.append, batch_rows=2) as rows:
        for number in range(3):
            rows.write([number, 0])
        with pytest.raises(toon.ToonError) as caught:
            rows.write([3, cell])
        assert (caught.value.code, caught.value.path) == (code, "[3].b")
        rows.write((3, "é"))
    assert rows.rows_written == 4
    assert toon.decode("".join(written), strict=False) == [{"a": n, "b": "é" if n == 3 else 0} for n in range(4)]


def test_the_caller_may_use_its_row_again() -> None:
    written: list[str] = []
    row = [0, 0]
    with toon.RowWriter(["a", "b"], written.append) as rows:
        for row[0] in range(3):
            rows.write(row)
    assert "".join(written) == "[0]{a,b}:\n  0,0\n  1,0\n  2,0"


def test_any_mapping_and_any_sequence_is_a_row() -> None:
    written: list[str] = []
    with toon.RowWriter(["a", "b"], written.append) as rows:
        rows.write(MappingProxyType({"b": 2, "a": 1}))
        rows.write(range(2))
        rows.write([Decimal("1.50"), date(2026, 11, 24)])
    assert "".join(written) == "[0]{a,b}:\n  1,2\n  0,1\n  1.5,2026-11-24"


def test_an_exception_in_the_block_comes_through_and_the_rows_before_it_are_written() -> None:
    written: list[str] = []
    with pytest.raises(KeyError), toon.RowWriter(["a"], written.append) as rows:
        rows.write([1])
        raise KeyError
    assert "".join(written) == "[0]{a}:\n  1"


def test_a_broken_file_does_not_hide_the_exception_of_the_block() -> None:
    written: list[str] = []

    def write(text: str) -> None:
        if written:
            raise OSError("disk full")
        written.append(text)

    with pytest.raises(KeyError) as caught, toon.RowWriter(["a"], write) as rows:
        rows.write([1])
        raise KeyError
    assert caught.value.__notes__ == ["the last 1 rows could not be written: disk full"]
    written.clear()
    rows = toon.RowWriter(["a"], write)
    rows.write([1])
    with pytest.raises(OSError, match="disk full"):
        rows.flush()
    rows.flush()  # not a second time
    assert rows.rows_written == 0


@pytest.mark.parametrize("fields", [[1], [], ["a", "a"], None, ["\ud800"], [[]]])
def test_fields_that_are_no_names_are_refused(fields: Any) -> None:
    with pytest.raises(toon.ToonError) as caught:
        toon.RowWriter(fields, print)
    assert caught.value.code == "option"


def test_a_decoder_that_is_used_up_says_so() -> None:
    faulty, finished = toon.Decoder(), toon.Decoder()
    with pytest.raises(toon.ToonError):
        faulty.feed("a: 1\na: 2\n")
    finished.feed("a: 1\n")
    finished.finish()
    for decoder, reason in ((faulty, "faulty"), (finished, "finished")):
        for call in (lambda decoder=decoder: decoder.feed("a: 1\n"), decoder.finish):
            with pytest.raises(toon.ToonError) as caught:
                call()
            assert caught.value.code == "option"
            assert reason in caught.value.reason


def test_rows_of_a_table_inside_a_document_are_found_by_their_path() -> None:
    value = {"name": "x", "runs": {"w03": table(30), "other": table(3)}, "tail": 1}
    text = toon.encode(value)
    assert list(toon.iter_rows([text], path="runs.w03")) == value["runs"]["w03"]
    assert list(toon.iter_rows(io.BytesIO(text.encode()), path="runs.other")) == value["runs"]["other"]
    with pytest.raises(toon.ToonError) as caught:
        list(toon.iter_rows([text], path="runs.w04"))
    assert caught.value.code == "syntax"
    assert list(toon.iter_rows(["[]"])) == []


def test_rows_before_a_fault_are_given_before_it_is_raised() -> None:
    text = "[3]{a}:\n  1\n  2\n  3,4"
    rows = toon.iter_rows([text[:12], text[12:]])
    with pytest.raises(toon.ToonError) as caught:
        list(rows)
    assert (caught.value.code, caught.value.line) == ("width", 4)


def test_a_decoder_reports_a_fault_as_soon_as_its_line_is_complete() -> None:
    decoder = toon.Decoder()
    decoder.feed("a: 1\na: 2")
    with pytest.raises(toon.ToonError) as caught:
        decoder.feed("\n")
    assert (caught.value.line, caught.value.path) == (2, "a")


def test_a_decoder_keeps_the_limits() -> None:
    decoder = toon.Decoder(limits=toon.Limits(max_bytes=10))
    decoder.feed("a: 12345\n")
    with pytest.raises(toon.ToonError) as caught:
        decoder.feed("b: 1")
    assert caught.value.code == "limit"


def test_a_byte_order_mark_is_dropped_once_however_it_is_cut() -> None:
    data = "\ufeff\ufeffa: 1".encode()
    for at in range(len(data)):
        decoder = toon.Decoder()
        decoder.feed(data[:at])
        decoder.feed(data[at:])
        assert decoder.finish() == toon.decode(data) == {"\ufeffa": 1}
