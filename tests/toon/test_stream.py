"""Streaming in and out: what is held back, what memory it takes, what becomes of faults."""

from __future__ import annotations

import io
import tracemalloc
from collections.abc import Iterator
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


def test_a_cell_that_is_no_primitive_is_refused_with_its_place() -> None:
    rows = toon.RowWriter(["a"], lambda text: None)
    rows.write([1])
    rows.write([{"x": 1}])
    with pytest.raises(toon.ToonError) as caught:
        rows.flush()
    assert caught.value.path == "a[1]"


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
