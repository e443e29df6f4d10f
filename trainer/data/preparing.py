"""Making prepared rows: each through the row boundary, then held out or not, then written; bad rows stop it or are set aside."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from swarm.errors import UserError
from swarm.policy.holding_out import held_out_count
from swarm.settings import Dataset, StreamSettings
from trainer.data.bad import BadRow, reason_of
from trainer.data.boundary import RowBoundary
from trainer.data.prepared import BAD_ROWS, HELD_OUT, TRAIN, VALIDATION, Key, RowFile, counts_all, read_rows
from trainer.data.prompt import prompt_of_rows
from trainer.data.splits import held_out_rows
from trainer.data.tokens import Tokeniser, Tokens

GATHERED = "gathered.arrow"
BAD_ROWS_NAMED = 10
OVERLAP_FIX = "hold out other rows, or set allow_overlap: true"

Progress = Callable[[int], None]
"""Told the number of rows done; may raise to end the work."""


class Preparation:
    """One making of prepared rows in `folder`, which is staged by the caller."""

    def __init__(self, settings: StreamSettings, tokeniser: Tokeniser, folder: Path, progress: Progress) -> None:
        self.settings, self.tokeniser, self.folder, self._progress = settings, tokeniser, folder, progress
        self.boundary = RowBoundary(tokeniser)
        self.bad = self.empty = self._done = self._of_base = 0
        self.first_bad: list[BadRow] = []

    def make(self, key: Key) -> dict[str, Any]:
        """Write the rows; returns the facts for the manifest."""
        if self.settings.test_datasets:
            train = self._gather(self.settings.datasets, TRAIN)
            held_out = self._gather(self.settings.test_datasets, HELD_OUT)
            self._refuse_bad()
        else:
            gathered = self._gather(self.settings.datasets, GATHERED)
            self._refuse_bad()
            train, held_out = self._split(gathered, key)
        if self.settings.val_datasets:
            self._refuse_none(self._gather(self.settings.val_datasets, VALIDATION), "val_datasets")
            self._refuse_bad()
        self._refuse_none(train, "datasets")
        self._refuse_none(held_out, "test_datasets")
        prompt_of_rows(self.settings.datasets, self.tokeniser.tokenizer, self.tokeniser.stops).write(self.folder)
        return {
            "key": key.sha256, "rows": train.rows, "held_out": held_out.rows, "held_out_sha256": held_out.sha256,
            "tokens": train.tokens, "supervised": train.supervised, "cut": train.cut + held_out.cut,
            "bad": self.bad, "empty": self.empty, "overlap": self._overlap(), "unread": dict(self.boundary.unread),
            "sequence_len": self.settings.sequence_len, "stop_tokens": sorted(self.tokeniser.stops),
        }  # fmt: skip

    def _gather(self, datasets: Sequence[Dataset], name: str) -> RowFile:
        with RowFile(self.folder / name) as file:
            for item in self.boundary.rows(datasets):
                self._done += 1
                self._progress(self._done)
                if isinstance(item, BadRow):
                    self._set_aside(item)
                else:
                    self._add(file, item.row)
        return file

    def _add(self, file: RowFile, row: Tokens) -> None:
        if counts_all(row):
            file.add(row)
        else:
            self.empty += 1

    def _set_aside(self, row: BadRow) -> None:
        self.bad += 1
        self._of_base += row.of_base
        if len(self.first_bad) < BAD_ROWS_NAMED:
            self.first_bad.append(row)
        if self.settings.on_bad_row == "skip":
            with (self.folder / BAD_ROWS).open("a", encoding="ascii") as file:
                file.write(_line(row) + "\n")

    def _refuse_bad(self) -> None:
        """Raises UserError where the base refuses every row, or where bad rows are to end the stream."""
        if not self.bad:
            return
        first = self.first_bad[0]
        if self._of_base == self._done:
            raise UserError("base_model", f"{first.what} (so for all {self.bad} rows)", first.fix)
        if self.settings.on_bad_row == "fail":
            others = ", ".join(row.where for row in self.first_bad[1:])
            more = f" (and {self.bad - 1} more bad rows: {others}{', ...' if self.bad > BAD_ROWS_NAMED else ''})"
            raise UserError(first.where, first.what + (more if others else ""), f"{first.fix}, or set on_bad_row: skip")

    def _split(self, gathered: RowFile, key: Key) -> tuple[RowFile, RowFile]:
        self._refuse_none(gathered, "datasets")
        path = self.folder / GATHERED
        fingerprints = [row.fingerprint for row in read_rows(path)]
        chosen = held_out_rows(fingerprints, self.settings.val_set_size, key.data_sha256)
        with RowFile(self.folder / TRAIN) as train, RowFile(self.folder / HELD_OUT) as held_out:
            for index, row in enumerate(read_rows(path)):
                (held_out if index in chosen else train).add(row)
        path.unlink()
        return train, held_out

    def _refuse_none(self, file: RowFile, setting: str) -> None:
        if not file.rows:
            what = f"no row is left to use ({self.bad} bad, {self.empty} cut before their answer)"
            raise UserError(setting, what, "check the columns, or raise sequence_len")

    def _overlap(self) -> int:
        """Training rows that equal a held-out row: the judging would be of learning by heart."""
        held_out = {row.fingerprint for row in read_rows(self.folder / HELD_OUT)}
        count = sum(row.fingerprint in held_out for row in read_rows(self.folder / TRAIN))
        if count and not self.settings.allow_overlap:
            raise UserError("test_datasets", f"{count} training rows equal held-out rows", OVERLAP_FIX)
        return count

    def remarks(self, facts: dict[str, Any]) -> list[str]:
        """What a reader should know beside the figures."""
        lines = []
        if facts["empty"]:
            lines.append(
                f"{facts['empty']} rows were cut before their answer and left out; raise sequence_len to keep them"
            )
        if facts["overlap"]:
            lines.append(f"warning: {facts['overlap']} training rows equal held-out rows (allow_overlap: true)")
        if not self.settings.test_datasets:
            lines += self._held_out_fewer(facts)
        if facts["unread"]:
            columns = ", ".join(f"{name} ({count} rows)" for name, count in sorted(facts["unread"].items())[:20])
            lines.append(f"columns that are not used: {columns}")
        return [*lines, *map(str, self.first_bad)]

    def _held_out_fewer(self, facts: dict[str, Any]) -> list[str]:
        wanted = held_out_count(facts["rows"] + facts["held_out"], self.settings.val_set_size)
        if wanted == facts["held_out"]:
            return []
        return [f"{facts['held_out']} rows are held out, not {wanted}: equal rows stay together"]


def _line(row: BadRow) -> str:
    """A bad row for its file: ASCII, so that any content can be written and read back."""
    try:
        text = row.text()
    except Exception as error:  # what even the reader's own values refuse
        text = reason_of(error)
    return json.dumps({"where": row.where, "what": row.what, "fix": row.fix, "text": text})
