"""The next token behind what the tie of a pair puts before a prompt."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, cast

from torch import Tensor, nn

from swarm import kinds
from trainer import tie as tie_of
from trainer.data.tokens import IGNORED, Tokens
from trainer.judge import answers
from trainer.judge.answers import Answer, Question, Sampling
from trainer.judge.heldout import RowLoss, logits_at, row_losses
from trainer.objectives.next_token import NextToken
from trainer.prefix import prefixed
from trainer.tie import Tie

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from swarm.settings import StreamSettings
    from trainer.judge.objective import Objective
    from trainer.place import Place


@dataclass(frozen=True)
class Tied(NextToken):
    tie: Tie

    def logits(self, model: nn.Module, ids: Tensor, mask: Tensor, rows: Sequence[Tokens], places: Tensor) -> Tensor:
        return logits_at(places, model, **prefixed(model, ids, mask, self.tie([prompt_of(row) for row in rows])))

    def losses(self, model: PreTrainedModel, rows: Sequence[Tokens], check: Callable[[], None]) -> list[RowLoss]:
        # A tokenizer that cuts is asked by one thread at a time.
        return row_losses(model, rows, check, self.logits, at_once=False)

    def answers(
        self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, asked: Sequence[Question], stops: Sequence[int],
        max_new_tokens: int, check: Callable[[], None], how: Sampling,
    ) -> list[Answer]:  # fmt: skip
        return answers.answers(model, tokenizer, asked, stops, max_new_tokens, check, how, self.tie)


def prompt_of(row: Tokens) -> list[int]:
    """What stands before the first token that the loss counts."""
    return row.ids[: next((at for at, label in enumerate(row.labels) if label != IGNORED), 0)]


def objective_of(model: str, tuned: PreTrainedModel, copy: Path, pair: StreamSettings, place: Place) -> Objective:
    """What one of a stream's models is judged by, once its adapter is on it: `copy` holds those of all."""
    part = cast("StreamSettings", pair.parts[model or "model"])
    tie = tie_of.trained(tuned, copy, pair, place) if model == tie_of.DECODER else None
    made: Objective = Tied(tie) if tie else kinds.method(part.method).objective(part)
    return made
