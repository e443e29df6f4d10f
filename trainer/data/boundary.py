"""The boundary round one row: read, convert, render, tokenise; whatever goes wrong in it is that row's, with its place and a reason."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerBase

from swarm import kinds
from swarm.errors import UserError
from swarm.printable import one_line
from swarm.settings import PLAIN, Dataset, StreamSettings
from trainer.data.bad import BadRow, NotARow, NotProven, reason_of
from trainer.data.documents import ids_of_document, refuse_unknown_ids
from trainer.data.files import raw_rows
from trainer.data.gate import plain
from trainer.data.raw import RawRow
from trainer.data.rows import Row, Text, columns_read, normalised, read, with_system
from trainer.data.settling import settled
from trainer.data.soundness import refuse_unsound
from trainer.data.tokens import FINGERPRINT_BYTES, RowReader, Tokens

COLUMNS_NOTED, NAME_CHARACTERS = 200, 80
TASK_CHARACTERS = 40


@dataclass(frozen=True)
class GoodRow:
    where: str
    row: Tokens
    source: int = 0
    """Number of its dataset."""
    group: bytes = b""
    """Equal for rows that stay together; empty where the dataset has no `group_by`."""


class RowBoundary:
    """All rows of datasets as tokens; a row that cannot be used costs itself alone."""

    def __init__(
        self, tokeniser: RowReader, system_prompt: str | None = None, embedding_rows: int | None = None
    ) -> None:
        """`system_prompt`: of rows that have no system message, in datasets that do not say it; `embedding_rows`: the base's, if known."""
        self.tokeniser = tokeniser
        self.system_prompt, self.embedding_rows = system_prompt, embedding_rows
        self.unread: Counter[str] = Counter()
        """Columns that nothing reads, with the rows that have them: the first hundreds of columns."""

    def rows(self, datasets: Sequence[Dataset]) -> Iterator[GoodRow | BadRow]:
        for source, dataset in enumerate(map(settled, datasets)):
            system = self.system_prompt if dataset.system_prompt is None else dataset.system_prompt
            self._refuse_without_template(dataset, system)
            if dataset.type == "document":
                refuse_unknown_ids(dataset, self.tokeniser.tokenizer)
            known = columns_read(dataset)
            for raw in raw_rows(dataset):
                if isinstance(raw, RawRow):
                    self._note_unread(raw, known)
                yield raw if isinstance(raw, BadRow) else self._row(raw, dataset, source, system or "")

    def _refuse_without_template(self, dataset: Dataset, system: str | None) -> None:
        if self.tokeniser.tokenizer.chat_template:
            return
        if dataset.type == "chatml":
            fix = "take an instruct model, or other row types"
            raise UserError("base_model", "its tokenizer has no chat template", fix)
        if system and dataset.type not in PLAIN:
            fix = "write it into `prompt_template`, or take an instruct model"
            raise UserError("system_prompt", "the base has no chat template, so that it would stand nowhere", fix)

    def _note_unread(self, raw: RawRow, known: frozenset[str]) -> None:
        """A column's name may be of any length, and rows may name columns without end."""
        names = [
            one_line(str(name), NAME_CHARACTERS) for name in islice(raw.values, COLUMNS_NOTED) if name not in known
        ]
        room = COLUMNS_NOTED - len(self.unread)
        self.unread.update(name for name in names if room > 0 or name in self.unread)

    def _row(self, raw: RawRow, dataset: Dataset, source: int, system: str) -> GoodRow | BadRow:
        try:
            row = read(raw, dataset)
            tokens = self._tokens(with_system(row, system), dataset)
            refuse_unsound(row, tokens, self.tokeniser, self.embedding_rows)
            if dataset.rejected:
                tokens = self._with_worse(tokens, raw, dataset, system)
            group, task = _group(raw, dataset), _task(raw, dataset)
        except NotARow as error:
            return BadRow(raw.where, error.what, error.fix, raw.text, of_base=isinstance(error, NotProven))
        except BaseException as error:
            # A panic inside the tokenizers library is a BaseException of its own.
            if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
                raise
            return BadRow(raw.where, reason_of(error), "correct the row, or leave it out", raw.text, of_base=True)
        fingerprint = _digest(normalised(row))
        return GoodRow(raw.where, replace(tokens, fingerprint=fingerprint, task=task), source, group)

    def _tokens(self, row: Row, dataset: Dataset) -> Tokens:
        """A document's are those of all of it."""
        if dataset.type != "document" or not isinstance(row, Text):
            return self.tokeniser.tokens(row)
        ids = ids_of_document(row.text, dataset, self.tokeniser.tokenizer)
        return Tokens(ids, ids, answer_start=0)

    def _with_worse(self, tokens: Tokens, raw: RawRow, dataset: Dataset, system: str) -> Tokens:
        """The row with its worse completion.  Raises NotARow where they do not answer one prompt, or are one."""
        other = read(raw, dataset.model_copy(update={"completion": dataset.rejected, "messages": dataset.rejected}))
        worse, start = self.tokeniser.tokens(with_system(other, system)), tokens.answer_start
        if worse.answer_start != start or worse.ids[:start] != tokens.ids[:start]:
            raise NotProven("its prompt is tokenised otherwise before its two completions", "take another base")
        if worse.ids == tokens.ids:
            raise NotARow("its two completions are equal", "leave the row out, or raise sequence_len where it cut them")
        if len(worse.ids) <= start:
            raise NotARow("it is cut before its worse completion", "raise sequence_len")
        return replace(tokens, rejected=worse.ids[start:])


def boundary_of(
    settings: StreamSettings,
    tokenizer: PreTrainedTokenizerBase,
    base_folder: Path,
    embedding_rows: int | None = None,
) -> RowBoundary:
    """As one stream reads its rows."""
    tokeniser = kinds.method(settings.method).objective(settings).reader(settings, tokenizer, base_folder)
    return RowBoundary(tokeniser, settings.system_prompt, embedding_rows)


def _group(raw: RawRow, dataset: Dataset) -> bytes:
    """Raises NotARow where the row does not say to which group it belongs."""
    if dataset.group_by is None:
        return b""
    value = _filled(raw, dataset.group_by, "by which rows are kept together", "group_by")
    return _digest(json.dumps(value, sort_keys=True))


def _task(raw: RawRow, dataset: Dataset) -> str:
    """Raises NotARow where the row does not say of which task it is."""
    if dataset.task is None:
        return ""
    value = _filled(raw, dataset.task, "which names a row's task", "task")
    if not isinstance(value, str | int) or len(str(value)) > TASK_CHARACTERS:
        what = f"column {dataset.task!r} holds no name of at most {TASK_CHARACTERS} characters"
        raise NotARow(what, "write a short name, or name another column with `task:`")
    return one_line(str(value), TASK_CHARACTERS)


def _filled(raw: RawRow, column: str, use: str, setting: str) -> Any:
    """A row's value in a column.  Raises NotARow where there is none."""
    value = plain(raw.values.get(column), column)
    if value is None or value == "":
        what = f"column {column!r} is empty" if column in raw.values else f"no column {column!r}"
        raise NotARow(f"{what}, {use}", f"fill it, or name another column with `{setting}:`")
    return value


def _digest(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()[:FINGERPRINT_BYTES]
