"""Answers by greedy generation, and how many of them are exactly the expected ones."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import cast

import torch
from transformers import GenerationConfig, PreTrainedModel, PreTrainedTokenizerBase

from trainer.data.tokens import Tokens

BATCH_ROWS = 16
MARGIN_TOKENS = 8
"""An exact answer may be cut into tokens differently from the expected one; beyond this it is not waited for."""


@dataclass(frozen=True)
class Question:
    """A prompt in tokens, and the answer that is expected of it."""

    prompt_ids: list[int]
    prompt: str
    expected: str
    expected_tokens: int


def questions(
    rows: Sequence[Tokens], tokenizer: PreTrainedTokenizerBase, stops: Sequence[int], count: int
) -> list[Question]:
    """The first `count` held-out rows that can be asked: with a prompt, and an answer that was not cut."""
    asked = [
        row for row in rows if not row.cut and row.answer_start > 0 and _words(row.ids[: row.answer_start], tokenizer)
    ]
    return [
        Question(
            prompt_ids=row.ids[: row.answer_start],
            prompt=_words(row.ids[: row.answer_start], tokenizer),
            expected=_words(_until_stop(row.ids[row.answer_start :], stops), tokenizer),
            expected_tokens=len(row.ids) - row.answer_start,
        )
        for row in asked[:count]
    ]


def answers(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    asked: Sequence[Question],
    stops: Sequence[int],
    max_new_tokens: int,
    check: Callable[[], None],
) -> list[str]:
    """One answer a question, in their order; `check` is called between batches and may raise."""
    order = sorted(range(len(asked)), key=lambda at: len(asked[at].prompt_ids))
    given: dict[int, str] = {}
    for start in range(0, len(order), BATCH_ROWS):
        check()
        batch = order[start : start + BATCH_ROWS]
        longest = max(asked[at].expected_tokens for at in batch) + MARGIN_TOKENS
        prompts = [asked[at].prompt_ids for at in batch]
        ids = generated(model, prompts, stops, min(max_new_tokens, longest))
        given |= {at: _words(answer, tokenizer) for at, answer in zip(batch, ids, strict=True)}
    return [given[at] for at in range(len(asked))]


@torch.no_grad()
def generated(
    model: PreTrainedModel, prompts: Sequence[list[int]], stops: Sequence[int], max_new_tokens: int
) -> list[list[int]]:
    """Greedy continuations up to the first stop token, padded on the left so that all prompts end together."""
    length = max(map(len, prompts))
    ids = torch.full((len(prompts), length), stops[0])  # (B, T)
    mask = torch.zeros(len(prompts), length, dtype=torch.long)  # (B, T)
    for index, prompt in enumerate(prompts):
        ids[index, length - len(prompt) :] = torch.tensor(prompt)
        mask[index, length - len(prompt) :] = 1
    how = GenerationConfig(  # type: ignore[no-untyped-call]  # its __init__ has no annotations
        do_sample=False, max_new_tokens=max_new_tokens, eos_token_id=list(stops), pad_token_id=stops[0], use_cache=True
    )
    # Every causal model has generate(), from a mixin that its common ancestor lacks.
    generate = cast("Callable[..., torch.Tensor]", model.generate)
    out = generate(
        input_ids=ids.to(model.device), attention_mask=mask.to(model.device), generation_config=how
    )  # (B, T+N)
    return [_until_stop(row[length:].tolist(), stops) for row in out]


def _until_stop(ids: list[int], stops: Sequence[int]) -> list[int]:
    end = next((at for at, token in enumerate(ids) if token in stops), len(ids))
    return ids[:end]


def exact_share(given: Sequence[str], asked: Sequence[Question]) -> float | None:
    """Share of answers that equal the expected ones, leading and trailing blanks aside; None where nothing was asked."""
    equal = sum(answer == question.expected for answer, question in zip(given, asked, strict=True))
    return round(equal / len(asked), 4) if asked else None


def _words(ids: list[int], tokenizer: PreTrainedTokenizerBase) -> str:
    return str(tokenizer.decode(ids, skip_special_tokens=True)).strip()
