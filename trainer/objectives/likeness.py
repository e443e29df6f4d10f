"""Two texts that belong together have vectors that are alike among all pairs of a batch; a vector is the mean of the last layer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from trainer.data.bad import NotARow
from trainer.data.rows import Pair, Row
from trainer.data.tokens import IGNORED, Tokens
from trainer.families import auto_class, is_encoder
from trainer.judge.heldout import RowLoss
from trainer.judge.objective import Objective
from trainer.objectives import losses, texts
from trainer.vectors import vectors

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from swarm.settings import StreamSettings

JUDGED_PAIRS = 32
"""Held-out pairs that each is told apart from, in the order of the rows."""


class PairReader(texts.TextReader):
    """Of two texts, each as the tokenizer makes it alone; `answer_start` is where the second begins."""

    train_on_inputs = True
    """Neither text is an answer, which would have to end."""

    def tokens(self, row: Row) -> Tokens:
        if not isinstance(row, Pair):
            raise NotARow("it is no pair of texts", "write `type: prompt_completion`, with its columns")
        (first, _, cut), (second, _, more) = (self._read(text, None) for text in (row.prompt, row.completion))
        return Tokens([*first, *second], [*[IGNORED] * len(first), *second], len(first), cut + more)


@dataclass(frozen=True)
class Likeness(Objective):
    temperature: float

    def model_class(self, config: Any) -> Any:
        from transformers import AutoModelForMaskedLM

        return AutoModelForMaskedLM if is_encoder(config) else auto_class(config)

    def is_made_here(self, model: PreTrainedModel, tensor: str) -> bool:
        """A head, which sentence encoders are saved without, is asked nothing."""
        return not tensor.startswith(f"{model.base_model_prefix}.")

    def reader(self, settings: StreamSettings, tokenizer: PreTrainedTokenizerBase, folder: Path) -> PairReader:
        return PairReader(tokenizer, settings.sequence_len)

    def counted(self, rows: Sequence[Tokens], keys: Sequence[int]) -> int:
        return len(rows)

    def loss(
        self, model: torch.nn.Module, rows: Sequence[Tokens], keys: Sequence[int], *, weighted: bool = False
    ) -> Tensor:
        """The sum over pairs, each told apart from the others of this forward pass."""
        return losses.total(self._nats(model, rows), weighted=weighted)

    @torch.no_grad()
    def losses(self, model: PreTrainedModel, rows: Sequence[Tokens], check: Callable[[], None]) -> list[RowLoss]:
        was_training, found = model.training, list[RowLoss]()
        model.eval()  # type: ignore[no-untyped-call]
        try:
            for start in range(0, len(rows), JUDGED_PAIRS):
                check()
                nats = self._nats(model, rows[start : start + JUDGED_PAIRS])
                found += [RowLoss(value, 1) for value in nats.tolist()]
        finally:
            model.train(was_training)
        return found

    def _nats(self, model: torch.nn.Module, rows: Sequence[Tokens]) -> Tensor:
        """(B,)"""
        first = vectors(model, [row.ids[: row.answer_start] for row in rows])  # (B, d)
        second = vectors(model, [row.ids[row.answer_start :] for row in rows])  # (B, d)
        return losses.contrastive(first, second, self.temperature)
