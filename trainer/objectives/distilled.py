"""The model's own answers, scored against the base that has read the row's answer: on-policy self-distillation (SDFT, arXiv 2601.19897).

The loss is KL(model, teacher) at each token of an answer that the model has sampled; no gradient goes through the sampling.  Held-out
rows are judged by the likelihood of their own answers, as those of `method: sft`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn

from swarm.errors import UserError
from swarm.policy import templates
from trainer import bases
from trainer.data.bad import NotARow
from trainer.data.rows import Chat, Pair, Row
from trainer.data.tokens import IGNORED, Tokeniser, Tokens, stop_tokens, tokeniser_of
from trainer.inspection import positions_of
from trainer.judge.answers import Sampling, generated
from trainer.loading import load_tokenizer
from trainer.objectives import losses
from trainer.objectives.next_token import NextToken

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from swarm.settings import StreamSettings


class DemonstratingReader:
    """Rows as `method: sft` reads them, each with the teacher's prompt beside it."""

    train_on_inputs = False

    def __init__(self, tokeniser: Tokeniser, template: str) -> None:
        self.tokenizer, self.stops = tokeniser.tokenizer, tokeniser.stops
        self._rows, self._template = tokeniser, template
        longest = 2 * tokeniser.sequence_len + len(template)  # prompt, answer and template, each token of a character
        self._prompts = Tokeniser(tokeniser.tokenizer, tokeniser.stops, longest, train_on="last")

    def tokens(self, row: Row) -> Tokens:
        tokens = self._rows.tokens(row)
        if tokens.cut:
            what = f"it has about {len(tokens.ids) + tokens.cut} tokens, and the teacher reads answers whole"
            raise NotARow(what, "raise sequence_len")
        return replace(tokens, demonstrated=self._prompts.prompt(demonstrated(row, self._template)))


def demonstrated(row: Row, template: str) -> Row:
    """The row whose last question shows its answer.  Raises NotARow."""
    if isinstance(row, Pair):
        return replace(row, prompt=_shown(template, row.prompt, row.completion))
    if not isinstance(row, Chat):
        raise NotARow("it has no prompt, and distill shows the answer beside it", "write `method: sft`")
    turns = row.turns
    if [turn["role"] for turn in turns[-2:]] != ["user", "assistant"]:
        raise NotARow("its last two messages are no question of the user and its answer", "leave the row out")
    question, answer = (turn.get("content") for turn in turns[-2:])
    if not isinstance(question, str) or not isinstance(answer, str):
        raise NotARow("its last question or answer is no plain text", "leave the row out")
    asked = {**turns[-2], "content": _shown(template, question, answer)}
    return replace(row, turns=[*turns[:-2], asked, turns[-1]])


def _shown(template: str, prompt: str, completion: str) -> str:
    return templates.filled(template, {"prompt": prompt, "completion": completion})


@dataclass(frozen=True)
class Distilled(NextToken):
    base_model: str
    trust_remote_code: bool
    template: str
    top_k: int
    rollout_tokens: int
    temperature: float
    sequence_len: int

    figure = "kl"

    def reader(self, settings: StreamSettings, tokenizer: PreTrainedTokenizerBase, folder: Path) -> DemonstratingReader:
        return DemonstratingReader(tokeniser_of(settings, tokenizer, stop_tokens(tokenizer, folder)), self.template)

    def refuse_too_long(self, model: Any, prompts: Sequence[Sequence[int]]) -> None:
        """Raises UserError where the base has too few positions for a teacher's prompt and an answer."""
        positions, longest = positions_of(model), max(map(len, prompts))
        if positions is not None and longest + self.rollout_tokens > positions:
            what = f"{self.rollout_tokens} behind a prompt of {longest} with its demonstration exceed the base's {positions} positions"
            raise UserError("rollout_tokens", what, "lower it, or leave long rows out")

    def to_learn(self, model: nn.Module, rows: Sequence[Tokens], keys: Sequence[int]) -> list[Tokens]:
        """The model's own answers to these rows, sampled by the first one's key."""
        prompts = [row.ids[: row.answer_start] for row in rows]
        room = min(self.rollout_tokens, self.sequence_len - max(map(len, prompts)))
        stops = _stops(self.base_model, self.trust_remote_code)
        with _judging(model):
            found = generated(
                cast("PreTrainedModel", model), prompts, stops, room, Sampling(self.temperature, seed=keys[0])
            )
        # Nothing is predicted behind a stop token, so that any of them stands for the one that came.
        answers = [[*one.ids, *stops[: one.ended]] for one in found]
        return [
            replace(row, ids=[*prompt, *answer], labels=[*[IGNORED] * len(prompt), *answer])
            for row, prompt, answer in zip(rows, prompts, answers, strict=True)
        ]

    def loss(self, model: nn.Module, rows: Sequence[Tokens], keys: Sequence[int], *, weighted: bool = False) -> Tensor:
        """The sum over the tokens of the model's answers (`to_learn`)."""
        assert not weighted, "likelihoods are weighted, and this is none; no engine asks for it"
        answers = [row.ids[row.answer_start :] for row in rows]
        with _judging(model), torch.no_grad(), cast("Any", model).disable_adapter():
            teacher = _predicted(model, [row.demonstrated for row in rows], answers)  # (M, V)
        student = _predicted(model, [row.ids[: row.answer_start] for row in rows], answers)
        return losses.divergence(student, teacher, self.top_k).sum()


@contextmanager
def _judging(model: nn.Module) -> Iterator[None]:
    """Without dropout."""
    was_training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(was_training)


def _predicted(model: nn.Module, prompts: Sequence[Sequence[int]], answers: Sequence[Sequence[int]]) -> Tensor:
    """(M, V): the logits of each token of the answers, one answer behind the other."""
    rows = [[*prompt, *answer] for prompt, answer in zip(prompts, answers, strict=True)]
    device, width = next(model.parameters()).device, max(map(len, rows))
    ids, mask = (
        torch.tensor([[*values, *[0] * (width - len(values))] for values in columns], device=device)  # (B, T)
        for columns in (rows, [[1] * len(row) for row in rows])
    )
    logits = model(input_ids=ids, attention_mask=mask, use_cache=False).logits  # (B, T, V)
    places = [slice(len(prompt) - 1, len(row) - 1) for prompt, row in zip(prompts, rows, strict=True)]
    return torch.cat([logits[at, place] for at, place in enumerate(places)])


@cache
def _stops(base_model: str, trust_remote_code: bool) -> tuple[int, ...]:
    folder = bases.folder_of(base_model)
    return tuple(sorted(stop_tokens(load_tokenizer(folder, trust_remote_code=trust_remote_code), folder)))
