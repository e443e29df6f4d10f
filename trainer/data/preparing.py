"""Making prepared rows: each through the row boundary, then held out or not, then written; bad rows stop it or are set aside."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from swarm.errors import UserError
from swarm.policy.holding_out import held_out_count
from swarm.policy.mixing import in_words, shares
from swarm.settings import Dataset, StreamSettings
from trainer.data.bad import BadRow, reason_of
from trainer.data.boundary import GoodRow, RowBoundary
from trainer.data.classes import NEUTRAL
from trainer.data.documents import Cutting
from trainer.data.findings import EXAMPLES, Findings
from trainer.data.prepared import (
    BAD_ROWS,
    HELD_OUT,
    TRAIN,
    VALIDATION,
    Key,
    RowFile,
    counts_all,
    has_classes,
    read_rows,
    with_classes,
)
from trainer.data.prompt import prompt_of_rows
from trainer.data.selection import Selection
from trainer.data.splits import held_out_rows

GATHERED = "gathered-{}.arrow"
BAD_ROWS_NAMED = 10
OVERLAP_FIX = "hold out other rows, or set allow_overlap: true"

Progress = Callable[[int], None]
"""Told the number of rows done; may raise to end the work."""


class Gathered:
    """Rows of datasets in a file, with what decides on which side they go."""

    def __init__(self, file: RowFile, datasets: Sequence[Dataset]) -> None:
        self.file, self.datasets = file, datasets
        self.fingerprints: list[bytes] = []
        self.groups: list[bytes] = []
        self.sources: list[int] = []

    def add(self, row: GoodRow, settings: StreamSettings) -> None:
        self.file.add(with_classes(row.row, settings, self.datasets[row.source]))
        self.fingerprints.append(row.row.fingerprint)
        self.groups.append(row.group)
        self.sources.append(row.source)


class Preparation:
    """One making of prepared rows in `folder`, which is staged by the caller."""

    def __init__(self, settings: StreamSettings, boundary: RowBoundary, folder: Path, progress: Progress) -> None:
        self.settings, self.boundary, self.folder, self._progress = settings, boundary, folder, progress
        self.findings = Findings()
        self.cutting = Cutting.of(settings, boundary.tokeniser.tokenizer)
        self._done = self._of_base = 0
        self._gathered: list[Path] = []
        self.first_bad: list[BadRow] = []
        self.mixed: list[int] = []
        """Training rows of each dataset, where weights chose them."""

    def make(self, key: Key) -> dict[str, Any]:
        """Write the rows; returns the facts for the manifest."""
        settings, tokeniser = self.settings, self.boundary.tokeniser
        gathered = self._gather(settings.datasets)
        self._refuse_none(gathered.file, "datasets")
        if settings.val_datasets:
            self._refuse_none(self._judged(self._gather(settings.val_datasets), VALIDATION), "val_datasets")
        tests = self._gather(settings.test_datasets) if settings.test_datasets else None
        train, held_out = self._chosen(gathered, tests, key)
        self._refuse_no_sequence(train, gathered)
        self._refuse_lost_class(train)
        self._refuse_none(held_out, "test_datasets")
        for path in self._gathered:
            path.unlink()
        prompt_of_rows(settings, tokeniser.tokenizer, tokeniser.stops).write(self.folder)
        return {
            "key": key.sha256, "rows": train.rows, "held_out": held_out.rows, "held_out_sha256": held_out.sha256,
            "tokens": train.tokens, "supervised": train.supervised, "cut": train.cut + held_out.cut,
            "bad": self.findings.counts["bad"], "empty": self.findings.counts["lost"],
            "duplicates": self.findings.counts["duplicate"], "equal": self.findings.counts["equal"], "mixed": self.mixed,
            "overlap": self._overlap(gathered, tests), "blank": self.findings.counts["blank"], "dropped": self.cutting.dropped, "unread": dict(self.boundary.unread),
            "sequence_len": settings.sequence_len, "stop_tokens": sorted(tokeniser.stops),
        }  # fmt: skip

    def _gather(self, datasets: Sequence[Dataset]) -> Gathered:
        self._gathered.append(self.folder / GATHERED.format(len(self._gathered)))
        with RowFile(self._gathered[-1]) as file:
            gathered = Gathered(file, datasets)
            for item in self.boundary.rows(datasets):
                self._done += 1
                self._progress(self._done)
                if isinstance(item, BadRow):
                    self._set_aside(item)
                elif counts_all(item.row):
                    gathered.add(item, self.settings)
                    if item.row.cut:
                        self.findings.note("cut", item.where)
                else:
                    self.findings.note("lost" if item.row.ids else "blank", item.where)
        self._refuse_bad()
        self.findings.refuse_cut(self.settings, self._done)
        return gathered

    def _set_aside(self, row: BadRow) -> None:
        self.findings.note("bad", row.where)
        self._of_base += row.of_base
        if len(self.first_bad) < BAD_ROWS_NAMED:
            self.first_bad.append(row)
        if self.settings.on_bad_row == "skip":
            with (self.folder / BAD_ROWS).open("a", encoding="ascii") as file:
                file.write(_line(row) + "\n")

    def _refuse_bad(self) -> None:
        """Raises UserError where the base refuses every row, or where bad rows are to end the stream."""
        if not self.first_bad:
            return
        first, bad = self.first_bad[0], self.findings.counts["bad"]
        if self._of_base == self._done:
            raise UserError("base_model", f"{first.what} (so for all {bad} rows)", first.fix)
        if self.settings.on_bad_row == "fail":
            others = ", ".join(row.where for row in self.first_bad[1:])
            more = f" (and {bad - 1} more bad rows: {others}{', ...' if bad > BAD_ROWS_NAMED else ''})"
            raise UserError(first.where, first.what + (more if others else ""), f"{first.fix}, or set on_bad_row: skip")

    # ---- which rows are trained on ----

    def _chosen(self, gathered: Gathered, tests: Gathered | None, key: Key) -> tuple[RowFile, RowFile]:
        """Training rows and held-out ones, written."""
        settings, parts = self.settings, shares([dataset.weight for dataset in self.settings.datasets])
        selection = Selection(gathered.sources)
        if settings.dedupe is True or (settings.dedupe == "auto" and parts):
            self.findings.counts["duplicate"] = selection.dedupe(gathered.fingerprints)
        else:
            self.findings.counts["equal"] = len(gathered.fingerprints) - len(set(gathered.fingerprints))
        held_out = frozenset[int]() if tests else self._split(gathered, selection, key)
        judged = self._judged(tests or gathered, HELD_OUT, None if tests else held_out)
        selection.leave_out(held_out)
        if settings.ablate_examples:
            selection.ablate(settings.ablate_examples, settings.ablate_seed)
        if parts:
            self.mixed = selection.mix(parts, settings.mix_strategy, settings.mix_seed)
        return self._trained(gathered, selection), judged

    def _split(self, gathered: Gathered, selection: Selection, key: Key) -> frozenset[int]:
        """Rows to hold out, of those that are not equal to earlier ones where these are left out."""
        rows = selection.chosen()
        fingerprints, groups = ([keys[row] for row in rows] for keys in (gathered.fingerprints, gathered.groups))
        chosen = held_out_rows(fingerprints, self.settings.val_set_size, key.data_sha256, groups)
        return frozenset(rows[index] for index in chosen)

    def _judged(self, gathered: Gathered, name: str, held_out: frozenset[int] | None = None) -> RowFile:
        """Of the rows gathered those that are held out, or all, as they are judged."""
        numbered = enumerate(zip(gathered.sources, read_rows(gathered.file.path), strict=True))
        rows = (row for number, row in numbered if held_out is None or number in held_out)
        with RowFile(self.folder / name) as file:
            for row in self.cutting.held_out(rows, gathered.datasets):
                file.add(row)
        return file

    def _trained(self, gathered: Gathered, selection: Selection) -> RowFile:
        path, documents = gathered.file.path, self._documents(gathered, selection)
        with RowFile(self.folder / TRAIN) as train:
            for source, times, row in zip(gathered.sources, selection.times, read_rows(path), strict=True):
                for _ in range(0 if source in documents else times):
                    train.add(row)
            for row in self.cutting.to_train_on(path, gathered.datasets, documents):
                train.add(row)
        return train

    def _documents(self, gathered: Gathered, selection: Selection) -> dict[int, list[int]]:
        """By the number of its dataset the documents to train on, each as often as it is."""
        sources = [number for number, dataset in enumerate(gathered.datasets) if dataset.type == "document"]
        return {
            source: [row for row in selection.of_source(source) for _ in range(selection.times[row])]
            for source in sources
        }

    def _refuse_no_sequence(self, train: RowFile, gathered: Gathered) -> None:
        if not train.rows and (count := self.cutting.untaught):
            what = f"it masks every token of the {count} sequences to train on"
            raise UserError("mask_tokens", what, "mask fewer tokens, or leave it out")
        if not train.rows and self.settings.has_documents:
            what = f"the documents to train on do not fill one sequence ({self.cutting.dropped} tokens)"
            raise UserError("sequence_len", what, "lower it, or name more documents")
        self._refuse_none(train, "datasets")

    def _refuse_lost_class(self, train: RowFile) -> None:
        """Of what is trained on it is asked what a config is asked of its datasets: text of several classes."""
        if not has_classes(self.settings):
            return
        left = {one if abs(one) < NEUTRAL else 0 for one in train.classes - {0}}
        if lost := {dataset.control_class for dataset in self.settings.datasets} - left:
            what = f"no token of control_class {min(lost):+d} is left to train on"
            fix = "name more text of it, lower sequence_len or val_set_size, or leave the dataset out"
            raise UserError("datasets", what, fix)

    def _refuse_none(self, file: RowFile, setting: str) -> None:
        if file.rows:
            return
        counts, first = self.findings.counts, next(iter(self.first_bad), None)
        what = f"no row is left to use ({counts['bad']} bad, {counts['lost']} cut before their answer)"
        if first is None:
            raise UserError(setting, what, "check the columns, or raise sequence_len")
        raise UserError(setting, f"{what}; {first.where}: {first.what}", first.fix)

    # ---- rows on both sides ----

    def _overlap(self, gathered: Gathered, tests: Gathered | None) -> int:
        """Training rows that equal a row on which steps are chosen or streams are judged: it would judge learning by heart."""
        train = self._documents_in(TRAIN)
        for name, setting in ((HELD_OUT, "test_datasets"), (VALIDATION, "val_datasets")):
            equal = self._documents_in(name) & train
            count = sum(not equal.isdisjoint(row.documents) for row in read_rows(self.folder / TRAIN)) if equal else 0
            if count and not self.settings.allow_overlap:
                places = self._places(getattr(self.settings, setting), equal)
                raise UserError(setting, f"{count} training rows equal held-out rows ({places})", OVERLAP_FIX)
            self.findings.counts["overlap"] += count
        self._refuse_shared_groups(gathered, tests)
        return self.findings.counts["overlap"]

    def _documents_in(self, name: str) -> frozenset[bytes]:
        path = self.folder / name
        return frozenset().union(*(row.documents for row in read_rows(path))) if path.is_file() else frozenset()

    def _refuse_shared_groups(self, gathered: Gathered, tests: Gathered | None) -> None:
        both = {group for group in gathered.groups if group} & set(tests.groups if tests else ())
        if both and not self.settings.allow_overlap:
            count = sum(group in both for group in gathered.groups)
            what = f"{count} training rows belong to groups of held-out rows (`group_by`)"
            raise UserError("test_datasets", what, OVERLAP_FIX)

    def _places(self, datasets: Sequence[Dataset], fingerprints: frozenset[bytes]) -> str:
        """Where the first of these rows stand; the files are read again, since places are not kept."""
        rows = (item for item in self.boundary.rows(datasets) if isinstance(item, GoodRow))
        found = (item.where for item in rows if item.row.fingerprint in fingerprints)
        return ", ".join(islice(found, EXAMPLES))

    def remarks(self, facts: dict[str, Any]) -> list[str]:
        """What a reader should know beside the figures."""
        lines = []
        if facts["empty"]:
            places = self.findings.examples("lost")
            lines.append(
                f"{facts['empty']} rows were cut before their answer and left out ({places}); raise sequence_len to keep them"
            )
        if facts["blank"]:
            lines.append(f"{facts['blank']} documents without a word were left out ({self.findings.examples('blank')})")
        if facts["dropped"]:
            lines.append(
                f"{facts['dropped']} tokens of documents are in no sequence (an end that fills none, or drop_tails)"
            )
        if facts["duplicates"]:
            lines.append(f"{facts['duplicates']} rows equal earlier ones and were left out")
        if facts["equal"]:
            lines.append(f"{facts['equal']} rows equal earlier ones; `dedupe: true` trains on them once")
        if facts["mixed"]:
            lines.append(f"mixed by weight: {in_words(facts['mixed'])} rows")
        if facts["overlap"]:
            lines.append(f"warning: {facts['overlap']} training rows equal held-out rows (allow_overlap: true)")
        if not self.settings.test_datasets:
            lines += self._held_out_fewer(facts)
        if facts["unread"]:
            columns = ", ".join(f"{name} ({count} rows)" for name, count in sorted(facts["unread"].items())[:20])
            lines.append(f"columns that are not used: {columns}")
        return [*lines, *map(str, self.first_bad)]

    def _held_out_fewer(self, facts: dict[str, Any]) -> list[str]:
        if self.settings.has_documents:
            return [f"documents are held out whole: {facts['held_out']} sequences of them"]
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
