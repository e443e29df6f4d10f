"""Each token is predicted from those before it, by a causal language model; answers are generated.

An objective reads rows too, so what only judges need is imported by what they call: rows are prepared while the rest is imported.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from swarm.errors import UserError
from trainer.data.tokens import IGNORED, RowReader, Tokens, stop_tokens, tokeniser_of
from trainer.families import auto_class, reads_both_ways
from trainer.judge.objective import Objective
from trainer.loop.losses import wide
from trainer.objectives import losses

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from swarm.settings import StreamSettings
    from trainer.judge.answers import Answer, Question, Sampling
    from trainer.judge.heldout import RowLoss


class NextToken(Objective):
    def model_class(self, config: Any) -> Any:
        if reads_both_ways(config):
            what = f"reads in both directions ({config.model_type}), and is asked for what comes next"
            raise UserError("base_model", what, "take a causal language model (decoder only)")
        return auto_class(config)

    def reader(self, settings: StreamSettings, tokenizer: PreTrainedTokenizerBase, folder: Path) -> RowReader:
        return tokeniser_of(settings, tokenizer, stop_tokens(tokenizer, folder))

    def counted(self, rows: Sequence[Tokens], keys: Sequence[int]) -> int:
        return sum(label != IGNORED for row in rows for label in row.labels[1:])

    def loss(self, model: nn.Module, rows: Sequence[Tokens], keys: Sequence[int], *, weighted: bool = False) -> Tensor:
        """The sum over the supervised tokens."""
        from trainer.judge import heldout

        device, width = next(model.parameters()).device, max(len(row.ids) for row in rows)
        ids, labels, mask = (
            torch.tensor([[*values, *[fill] * (width - len(values))] for values in columns], device=device)  # (B, T)
            for columns, fill in (
                ([row.ids for row in rows], 0),
                ([row.labels for row in rows], IGNORED),
                ([[1] * len(row.ids) for row in rows], 0),
            )
        )
        targets = labels[:, 1:]
        counted = targets != IGNORED  # (B, T-1)
        chosen = heldout.counted_logits(self.logits, model, ids, mask, rows, counted)  # (n, V)
        nats = cross_entropy(wide(chosen), targets[counted], reduction="none")  # (n,)
        return losses.total(nats, weighted=weighted)

    def losses(self, model: PreTrainedModel, rows: Sequence[Tokens], check: Callable[[], None]) -> list[RowLoss]:
        from trainer.judge import heldout

        return heldout.row_losses(model, rows, check, self.logits)

    def logits(self, model: nn.Module, ids: Tensor, mask: Tensor, rows: Sequence[Tokens], places: Tensor) -> Tensor:
        """(B, K, V) at K of the T places."""
        from trainer.judge import heldout

        return heldout.plain_logits(model, ids, mask, rows, places)

    def questions(
        self, rows: Sequence[Tokens], tokenizer: PreTrainedTokenizerBase, stops: Sequence[int], count: int
    ) -> list[Question]:
        from trainer.judge import answers

        return answers.questions(rows, tokenizer, stops, count)

    def answers(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        asked: Sequence[Question],
        stops: Sequence[int],
        max_new_tokens: int,
        check: Callable[[], None],
        how: Sampling,
    ) -> list[Answer]:
        from trainer.judge import answers

        return answers.answers(model, tokenizer, asked, stops, max_new_tokens, check, how)
