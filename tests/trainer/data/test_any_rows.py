"""Whatever stands in a row, of any type and size and in any format: with `skip` it costs that row alone, with `fail` it is named.

Seeded and short here; under `make torture` with thousands of files and larger values.
"""

from __future__ import annotations

import base64
import csv
import io
import json
import os
import re
import tempfile
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from swarm.errors import UserError
from swarm.events import Prepared
from swarm.messages import Report
from swarm.settings import Dataset, StreamSettings
from tests.trainer import tiny
from tests.trainer.data.odd_rows import COLUMNS, MAKERS, DrawnFile, Sizes, files, same
from trainer import whole
from trainer.data.bad import BadRow
from trainer.data.boundary import GoodRow, RowBoundary
from trainer.data.files import raw_rows
from trainer.data.formats.text import opened
from trainer.data.prepared import BAD_ROWS, Key
from trainer.data.preparing import Preparation
from trainer.data.raw import RawRow
from trainer.data.tokens import Tokeniser, stop_tokens

TORTURE = bool(os.environ.get("TORTURE"))
EXAMPLES = 300 if TORTURE else 5
"""Files for each format and each type of row."""
SIZES = (
    Sizes(words=12, characters=200_000, leaves=20, odd_rows=8)
    if TORTURE
    else Sizes(words=6, characters=4_000, leaves=8, odd_rows=12)
)
BOM = b"\xef\xbb\xbf"
LENGTH = 48
"""Tokens: long rows are cut, some before their answer."""
LINE_CHARACTERS = 1_000
"""No message to a user is longer, whatever stands in the row."""
NONE_LEFT = re.compile(
    r"^datasets: no row is left|^base_model: .* \(so for all \d+ rows\)|^val_set_size: |^datasets: all \d+ rows are equal"
)
"""What is refused where a file has no or hardly any good row."""


@cache
def tokeniser() -> Tokeniser:
    tokenizer = tiny.tokenizer()
    return Tokeniser(tokenizer, stop_tokens(tokenizer, None), LENGTH)


@dataclass(frozen=True)
class Outcome:
    facts: dict[str, Any]
    kept: list[dict[str, Any]]
    """The rows that were set aside."""


def prepared(dataset: Dataset, on_bad_row: str) -> Outcome:
    """What `prepare` does with the rows of a dataset, up to the report to the coordinator."""
    chosen = StreamSettings.model_validate(
        {
            "base_model": "x",
            "datasets": [dataset.model_dump()],
            "on_bad_row": on_bad_row,
            "val_set_size": 1,
            "sequence_len": LENGTH,
            "max_lost_rows": 1.0,
            "max_cut_rows": 1.0,
        }
    )
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        preparation = Preparation(chosen, RowBoundary(tokeniser()), folder, lambda rows: None)
        facts = preparation.make(Key("0" * 64, "0" * 64))
        whole.seal(folder, facts)
        counts = {name: facts[name] for name in ("rows", "held_out", "bad", "tokens", "supervised", "cut")}
        event = Prepared(
            ref="one/prepare",
            tok=1,
            path="prepared/x",
            sha256="0" * 64,
            body="\n".join(preparation.remarks(facts)),
            **counts,
        )
        read_back = Report.read(Report.of(event).toon()).event()
        assert read_back == event
        bad = folder / BAD_ROWS
        kept = [json.loads(line) for line in bad.read_text("ascii").splitlines()] if bad.exists() else []
        return Outcome(facts, kept)


def refused(dataset: Dataset, on_bad_row: str) -> UserError | Outcome:
    try:
        return prepared(dataset, on_bad_row)
    except UserError as error:
        assert re.fullmatch(r"[^\n]+: [^\n]+; [^\n]+", str(error)), str(error)
        assert len(str(error)) < LINE_CHARACTERS
        return error


@pytest.mark.parametrize("kind", COLUMNS)
@pytest.mark.parametrize("suffix", MAKERS)
@settings(max_examples=EXAMPLES, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_a_row_costs_itself_alone_or_is_named_with_what_is_wrong_and_the_fix(
    suffix: str, kind: str, data: st.DataObject
) -> None:
    file = data.draw(files(suffix, kind, SIZES))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"x{file.suffix}"
        file.write(path)
        dataset = Dataset(path=str(path), type=file.type)
        skipped = refused(dataset, "skip")
        if isinstance(skipped, UserError):
            assert not file.row_by_row or (not file.good and NONE_LEFT.search(str(skipped))), skipped
            return
        facts = skipped.facts
        assert file.rows in (None, facts["rows"] + facts["held_out"] + facts["empty"] + facts["bad"])
        assert len(skipped.kept) == facts["bad"]
        every_good_row_is_used(file, dataset, Path(folder))
        nothing_is_lost(skipped.kept, dataset)
        failed = refused(dataset, "fail")
        if not facts["bad"]:
            assert isinstance(failed, Outcome)
            assert {**failed.facts} == {**facts}
            return
        first = skipped.kept[0]
        assert isinstance(failed, UserError)
        assert failed.where == first["where"]
        assert failed.where.startswith(str(path))
        assert failed.what.startswith(first["what"])
        assert failed.fix == f"{first['fix']}, or set on_bad_row: skip"


def every_good_row_is_used(file: DrawnFile, dataset: Dataset, folder: Path) -> None:
    """With the same tokens as where no odd row stands beside it."""
    if not file.row_by_row:
        return
    alone = folder / "good.jsonl"
    alone.write_text("".join(json.dumps(row) + "\n" for row in file.good))
    wanted = [
        row.row.ids
        for row in RowBoundary(tokeniser()).rows([Dataset(path=str(alone), type=file.type)])
        if isinstance(row, GoodRow)
    ]
    assert len(wanted) == len(file.good)
    found = [row.row.ids for row in RowBoundary(tokeniser()).rows([dataset]) if isinstance(row, GoodRow)]
    for ids in wanted:
        assert ids in found
        found.remove(ids)


def nothing_is_lost(kept: list[dict[str, Any]], dataset: Dataset) -> None:
    """What is set aside says all that the file says at that place."""
    raw = {row.where: row for row in raw_rows(dataset)}
    path = Path(dataset.path)
    lines = path.read_bytes().removeprefix(BOM).split(b"\n")
    for row in kept:
        match path.suffix, raw[row["where"]]:
            case ".jsonl", _:
                number = int(row["where"].rpartition(":")[2])
                assert row["text"].encode("utf-8", "surrogateescape") == lines[number - 1]
            case ".csv", RawRow(values=values):
                assert list(values.values()) == next(csv.reader(io.StringIO(row["text"], newline="")))
            case ".csv", BadRow():
                assert row["text"].encode("utf-8", "surrogateescape").rstrip(b"\n") in lines
            case ".parquet" | ".arrow", BadRow():
                assert same_as_column(json.loads(row["text"]), path, int(row["where"].rpartition(" ")[2]) - 1)
            case ".json", _:
                with opened(path) as document_file:
                    document = json.loads(document_file.read(), object_pairs_hook=list)
                given = document[int(row["where"].rpartition(" ")[2]) - 1]
                assert repr(json.loads(row["text"], object_pairs_hook=list)) == repr(given)
            case _, RawRow(values=values):
                assert same(json.loads(row["text"]), dict(values))
            case _:
                raise AssertionError(row)


def same_as_column(kept: dict[str, Any], path: Path, at: int) -> bool:
    """Whether each cell of a row is as the file has it; one that cannot be read stands there as an Arrow stream."""
    given = pq.read_table(path) if path.suffix == ".parquet" else pa.ipc.open_file(path.read_bytes()).read_all()
    return list(kept) == given.column_names and all(
        pa.ipc.open_stream(base64.b64decode(cell["arrow"])).read_all().column(0).equals(given.column(name).slice(at, 1))
        if isinstance(cell, dict) and "arrow" in cell
        else same(cell, given.column(name)[at].as_py())
        for name, cell in kept.items()
    )
