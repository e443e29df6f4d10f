"""Making prepared rows: read, understand, render, tokenise, hold out, write; bad rows stop it or are set aside, as the user says."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerBase

from swarm.errors import UserError
from swarm.settings import Dataset, StreamSettings
from trainer.data.files import BadRow, raw_rows
from trainer.data.prepared import BAD_ROWS, HELD_OUT, TRAIN, Key, RowFile, counts_all, fingerprint, read_rows
from trainer.data.render import Rendered, rendered
from trainer.data.rows import NotARow, understood
from trainer.data.splits import held_out_rows
from trainer.data.tokens import Tokeniser, Tokens

GATHERED = "gathered.arrow"
BAD_ROWS_SHOWN = 5

Progress = Callable[[int], None]
"""Told the number of rows done; may raise to end the work."""


def rendered_rows(
    datasets: Sequence[Dataset], tokenizer: PreTrainedTokenizerBase
) -> Iterator[tuple[str, Rendered] | BadRow]:
    """All rows of the datasets with their places, rendered; what cannot be is a BadRow."""
    for dataset in datasets:
        for raw in raw_rows(dataset):
            row = raw if isinstance(raw, BadRow) else understood(raw, dataset)
            if isinstance(row, BadRow):
                yield row
                continue
            try:
                yield raw.where, rendered(row, tokenizer)
            except NotARow as error:
                yield BadRow(raw.where, error.what, error.fix, json.dumps(str(row), ensure_ascii=False))


class Preparation:
    """One making of prepared rows in `folder`, which is staged by the caller."""

    def __init__(self, settings: StreamSettings, tokeniser: Tokeniser, folder: Path, progress: Progress) -> None:
        self.settings, self.tokeniser, self.folder, self._progress = settings, tokeniser, folder, progress
        self.bad = self.empty = self._done = 0
        self.first_bad: list[str] = []

    def make(self, key: Key) -> dict[str, Any]:
        """Write the rows; returns the facts for the manifest."""
        if self.settings.test_datasets:
            train = self._gather(self.settings.datasets, TRAIN)
            held_out = self._gather(self.settings.test_datasets, HELD_OUT)
        else:
            train, held_out = self._split(self._gather(self.settings.datasets, GATHERED), key)
        self._refuse_none(train, "datasets")
        self._refuse_none(held_out, "test_datasets")
        return {
            "key": key.sha256, "rows": train.rows, "held_out": held_out.rows, "held_out_sha256": held_out.sha256,
            "tokens": train.tokens, "supervised": train.supervised, "cut": train.cut + held_out.cut,
            "bad": self.bad, "empty": self.empty, "duplicates": self._duplicates(),
            "sequence_len": self.settings.sequence_len, "stop_tokens": sorted(self.tokeniser.stops),
        }  # fmt: skip

    def _gather(self, datasets: Sequence[Dataset], name: str) -> RowFile:
        with RowFile(self.folder / name) as file:
            for item in rendered_rows(datasets, self.tokeniser.tokenizer):
                if isinstance(item, BadRow):
                    self._set_aside(item)
                else:
                    self._add(file, self.tokeniser.tokens(item[1]))
        return file

    def _add(self, file: RowFile, row: Tokens) -> None:
        self._done += 1
        self._progress(self._done)
        if counts_all(row):
            file.add(row)
        else:
            self.empty += 1

    def _set_aside(self, row: BadRow) -> None:
        if self.settings.on_bad_row == "fail":
            raise UserError(row.where, row.what, f"{row.fix}, or set on_bad_row: skip")
        self.bad += 1
        if len(self.first_bad) < BAD_ROWS_SHOWN:
            self.first_bad.append(str(row))
        line = json.dumps({"where": row.where, "what": row.what, "fix": row.fix, "text": row.text}, ensure_ascii=False)
        with (self.folder / BAD_ROWS).open("a", encoding="utf-8") as file:
            file.write(line + "\n")

    def _split(self, gathered: RowFile, key: Key) -> tuple[RowFile, RowFile]:
        self._refuse_none(gathered, "datasets")
        chosen = held_out_rows(gathered.rows, self.settings.val_set_size, key.data_sha256)
        path = self.folder / GATHERED
        with RowFile(self.folder / TRAIN) as train, RowFile(self.folder / HELD_OUT) as held_out:
            for index, row in enumerate(read_rows(path)):
                (held_out if index in chosen else train).add(row)
        path.unlink()
        return train, held_out

    def _refuse_none(self, file: RowFile, setting: str) -> None:
        if not file.rows:
            what = f"no row is left to use ({self.bad} bad, {self.empty} cut before their answer)"
            raise UserError(setting, what, "check the columns, or raise sequence_len")

    def _duplicates(self) -> int:
        """Training rows that equal a held-out row: the judging would be of learning by heart."""
        held_out = {fingerprint(row) for row in read_rows(self.folder / HELD_OUT)}
        return sum(fingerprint(row) in held_out for row in read_rows(self.folder / TRAIN))
