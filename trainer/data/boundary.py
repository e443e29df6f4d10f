"""The boundary round one row: read, convert, render, tokenise; whatever goes wrong in it is that row's, with its place and a reason."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice

from swarm.errors import UserError
from swarm.printable import one_line
from swarm.settings import Dataset
from trainer.data.bad import BadRow, NotARow, NotProven, reason_of
from trainer.data.files import raw_rows
from trainer.data.raw import RawRow
from trainer.data.rows import columns_read, normalised, read
from trainer.data.tokens import Tokeniser, Tokens

COLUMNS_NOTED, NAME_CHARACTERS = 200, 80


@dataclass(frozen=True)
class GoodRow:
    where: str
    row: Tokens


class RowBoundary:
    """All rows of datasets as tokens; a row that cannot be used costs itself alone."""

    def __init__(self, tokeniser: Tokeniser) -> None:
        self.tokeniser = tokeniser
        self.unread: Counter[str] = Counter()
        """Columns that nothing reads, with the rows that have them: the first hundreds of columns."""

    def rows(self, datasets: Sequence[Dataset]) -> Iterator[GoodRow | BadRow]:
        for dataset in datasets:
            if dataset.type == "chatml" and not self.tokeniser.tokenizer.chat_template:
                fix = "take an instruct model, or other row types"
                raise UserError("base_model", "its tokenizer has no chat template", fix)
            known = columns_read(dataset)
            for raw in raw_rows(dataset):
                if isinstance(raw, RawRow):
                    self._note_unread(raw, known)
                yield raw if isinstance(raw, BadRow) else self._row(raw, dataset)

    def _note_unread(self, raw: RawRow, known: frozenset[str]) -> None:
        """A column's name may be of any length, and rows may name columns without end."""
        names = [
            one_line(str(name), NAME_CHARACTERS) for name in islice(raw.values, COLUMNS_NOTED) if name not in known
        ]
        room = COLUMNS_NOTED - len(self.unread)
        self.unread.update(name for name in names if room > 0 or name in self.unread)

    def _row(self, raw: RawRow, dataset: Dataset) -> GoodRow | BadRow:
        try:
            row = read(raw, dataset)
            tokens = self.tokeniser.tokens(row)
        except NotARow as error:
            return BadRow(raw.where, error.what, error.fix, raw.text, of_base=isinstance(error, NotProven))
        except BaseException as error:
            # A panic inside the tokenizers library is a BaseException of its own.
            if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
                raise
            return BadRow(raw.where, reason_of(error), "correct the row, or leave it out", raw.text, of_base=True)
        fingerprint = hashlib.sha256(normalised(row).encode()).digest()[:16]
        return GoodRow(raw.where, replace(tokens, fingerprint=fingerprint))
