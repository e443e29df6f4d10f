"""Texts as their own tokenizer makes them, special tokens included: rows of models that are asked about a whole text; and their batches."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

from swarm.policy.fitting import judged_tokens
from trainer.data.bad import NotARow
from trainer.data.rows import Labelled, Row, Text
from trainer.data.tokens import IGNORED, Tokens
from trainer.vectors import SECOND

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedTokenizerBase


class TextReader:
    """Of a labelled row the label is the number of its label; of a plain text each token that may be masked is its own.

    `answer_start` is where the second text begins, where there is one.
    """

    train_on_inputs = False

    def __init__(self, tokenizer: PreTrainedTokenizerBase, sequence_len: int, labels: Sequence[str] = ()) -> None:
        self.tokenizer, self.sequence_len, self.labels = tokenizer, sequence_len, list(labels)
        known = (tokenizer.eos_token_id, tokenizer.sep_token_id, tokenizer.pad_token_id)
        self.stops = frozenset([next((token for token in known if isinstance(token, int)), 0)])
        """Nothing is generated; prepared rows name one all the same."""

    def tokens(self, row: Row) -> Tokens:
        if isinstance(row, Text):
            return self._text(row)
        if not isinstance(row, Labelled):
            raise NotARow("it is no labelled text", "write `type: labelled`, with its columns")
        if row.label not in self.labels:
            raise NotARow(f"its label is {row.label[:40]!r}, and `labels` has no such one", "add it to `labels`")
        ids, start, cut = self._read(row.text, row.pair)
        return Tokens(ids, [self.labels.index(row.label)], start, cut)

    def _text(self, row: Text) -> Tokens:
        ids, start, cut = self._read(row.text, None)
        special = self.tokenizer.get_special_tokens_mask(ids, already_has_special_tokens=True)
        return Tokens(ids, [IGNORED if mark else token for token, mark in zip(ids, special, strict=True)], start, cut)

    def _read(self, text: str, pair: str | None) -> tuple[list[int], int, int]:
        """Ids, where the second text begins, and how many tokens are cut off."""
        whole = self.tokenizer(text, pair, return_token_type_ids=True, verbose=False)
        kept = self.tokenizer(
            text, pair, truncation="longest_first", max_length=self.sequence_len, return_token_type_ids=True
        )
        kinds = list(kept[SECOND])
        ids = list(kept["input_ids"])
        return ids, kinds.index(1) if 1 in kinds else len(ids), len(whole["input_ids"]) - len(ids)


def batches(rows: Sequence[Tokens], check: Callable[[], None], device: torch.device) -> Iterator[list[int]]:
    """Numbers of rows of like length, so many as the token budget holds; `check` is called before each and may raise."""
    batch: list[int] = []
    budget = judged_tokens(on_gpu=device.type != "cpu")
    for at in sorted(range(len(rows)), key=lambda at: len(rows[at].ids)):
        if batch and len(rows[at].ids) * (len(batch) + 1) > budget:
            check()
            yield batch
            batch = []
        batch.append(at)
    if batch:
        check()
        yield batch
