"""Answers by generation, greedy or sampled: what was asked, what came, and whether it stopped by itself."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple, cast

import torch
from transformers import (
    GenerationConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    StoppingCriteria,
    StoppingCriteriaList,
)

from swarm.settings import StreamSettings
from trainer.control.tuner import signed
from trainer.data.tokens import Tokens
from trainer.inspection import positions_of
from trainer.kv_cache import can_select, growing_cache
from trainer.prefix import Ahead, given_of

BATCH_ROWS = 16


Serving = Callable[[list[int]], AbstractContextManager[None]]
"""What is held while these rows of a batch are computed, by their numbers."""


@dataclass(frozen=True)
class Question:
    """A prompt in tokens, and the answer that is expected of it."""

    prompt_ids: list[int]
    prompt: str
    expected: str
    expected_tokens: int
    segment: int = 0
    """Where a second text begins, of questions about texts."""
    sign: int = 1
    """Of the expected answer's class, for a control adapter."""


class Generated(NamedTuple):
    """The tokens of an answer, without the one that ended it."""

    ids: list[int]
    ended: bool
    """A stop token came; else it was cut at the limit."""


@dataclass(frozen=True)
class Answer:
    text: str
    ended: bool
    tokens: int
    seconds: float
    """Of the batch that it was generated in, divided among its answers by their tokens."""


@dataclass(frozen=True)
class Sampling:
    """How the next token is chosen."""

    temperature: float = 0.0
    top_p: float = 1.0
    seed: int = 0

    @classmethod
    def of(cls, settings: StreamSettings) -> Sampling:
        return cls(settings.temperature, settings.top_p, settings.eval_seed)

    def options(self) -> dict[str, Any]:
        """For transformers' GenerationConfig."""
        if not self.temperature:
            return {"do_sample": False}
        return {"do_sample": True, "temperature": self.temperature, "top_p": self.top_p, "top_k": 0}


GREEDY = Sampling()


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
            expected=_words(_until_stop(row.ids[row.answer_start :], stops).ids, tokenizer),
            expected_tokens=len(row.ids) - row.answer_start,
            sign=-1 if row.classes and row.classes[row.answer_start] < 0 else 1,
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
    how: Sampling = GREEDY,
    ahead: Ahead | None = None,
) -> list[Answer]:
    """One answer a question, in their order; `check` is called at each token and may raise."""
    given: dict[int, Answer] = {}
    for batch in batches_of(asked, positions_behind(model, ahead)):
        signs = torch.tensor([[asked[at].sign] for at in batch], device=model.device)  # (B, 1)
        serving = partial(_signed_rows, model, signs)
        prompts = [asked[at].prompt_ids for at in batch]
        found = timed(model, tokenizer, prompts, stops, max_new_tokens, check, how, serving, ahead)
        given |= zip(batch, found, strict=True)
    return [given[at] for at in range(len(asked))]


def timed(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, prompts: Sequence[list[int]], stops: Sequence[int], max_new_tokens: int,
    check: Callable[[], None], how: Sampling, serving: Serving, ahead: Ahead | None = None,
) -> list[Answer]:  # fmt: skip
    """Of one batch (`generated`)."""
    began = time.perf_counter()
    found = generated(model, prompts, stops, max_new_tokens, how, check, serving, ahead)
    each = (time.perf_counter() - began) / max(1, sum(len(one.ids) + one.ended for one in found))
    return [_answer_of(one, tokenizer, each) for one in found]


def _signed_rows(model: PreTrainedModel, signs: torch.Tensor, rows: list[int]) -> AbstractContextManager[None]:
    return signed(model, signs[rows])


def batches_of(asked: Sequence[Question], positions: int | None) -> Iterator[list[int]]:
    """Questions of like length, by their index; no prompt of a batch leaves another's answer too few positions."""
    batch: list[int] = []
    for at in sorted(range(len(asked)), key=lambda at: len(asked[at].prompt_ids)):
        answer = max(asked[other].expected_tokens for other in (*batch, at))
        full = positions is not None and len(asked[at].prompt_ids) + answer > positions
        if batch and (full or len(batch) == BATCH_ROWS):
            yield batch
            batch = []
        batch.append(at)
    if batch:
        yield batch


def _answer_of(found: Generated, tokenizer: PreTrainedTokenizerBase, seconds_per_token: float) -> Answer:
    tokens = len(found.ids) + found.ended
    return Answer(_words(found.ids, tokenizer), found.ended, tokens, tokens * seconds_per_token)


@torch.no_grad()
def generated(
    model: PreTrainedModel,
    prompts: Sequence[list[int]],
    stops: Sequence[int],
    max_new_tokens: int,
    how: Sampling = GREEDY,
    check: Callable[[], None] = lambda: None,
    serving: Serving = lambda rows: nullcontext(),
    ahead: Ahead | None = None,
) -> list[Generated]:
    """Continuations up to the first stop token, padded on the left so that all prompts end together.

    Prompt and continuation together have no more tokens than the model has positions.  Whenever half of the rows have ended they leave
    the batch, so that one long answer is not paid for by all; `serving` is held while the rows that it is given (by their numbers) are
    computed.  With vectors `ahead` of the prompts all stay.  `check` is called at each token and may raise: on a large model or a busy
    machine one batch takes minutes.
    """
    length = max(map(len, prompts))
    if (room := room_for(model, length, max_new_tokens, ahead)) <= 0:
        return [Generated([], False) for _ in prompts]
    ids = torch.full((len(prompts), length), stops[0], device=model.device)  # (B, T)
    mask = torch.zeros_like(ids)
    for index, prompt in enumerate(prompts):
        ids[index, length - len(prompt) :] = torch.tensor(prompt)
        mask[index, length - len(prompt) :] = 1
    # Every causal model has generate(), from a mixin that its common ancestor lacks.
    generate = cast("Callable[..., torch.Tensor]", model.generate)
    cache, selects = growing_cache(model), ahead is None and can_select(model)
    rows, found = list(range(len(prompts))), dict[int, Generated]()
    with torch.random.fork_rng():
        torch.manual_seed(how.seed)
        while rows:
            config = GenerationConfig(  # type: ignore[no-untyped-call]  # its __init__ has no annotations
                max_new_tokens=length + room - ids.shape[1], eos_token_id=list(stops), pad_token_id=stops[0], use_cache=True,
                **how.options(),
            )  # fmt: skip
            enough = _Enough(check, stops, (len(rows) + 1) // 2 if selects else len(rows))
            with serving(rows):
                made = generate(
                    **given_of(model, ids, mask, ahead, prompts), generation_config=config,
                    stopping_criteria=StoppingCriteriaList([enough]), **cache,
                )  # (B, T+N), behind vectors (B, N)  # fmt: skip
            ids = torch.cat([ids, made], dim=1) if ahead else made
            found |= {row: _until_stop(one[length:].tolist(), stops) for row, one in zip(rows, ids, strict=True)}
            going = [at for at, row in enumerate(rows) if not found[row].ended and ids.shape[1] < length + room]
            rows, kept = [rows[at] for at in going], torch.tensor(going, dtype=torch.long, device=ids.device)
            if rows:
                cache["past_key_values"].batch_select_indices(kept)
                ids, mask = ids[kept], torch.nn.functional.pad(mask[kept], (0, ids.shape[1] - mask.shape[1]), value=1)
    return [found[row] for row in range(len(prompts))]


class _Enough(StoppingCriteria):
    """Ends the batch when so many rows have ended; what it calls at each token may raise."""

    def __init__(self, check: Callable[[], None], stops: Sequence[int], rows: int) -> None:
        self._check, self._stops, self._rows = check, torch.tensor(stops), rows
        self._ended: torch.Tensor | None = None

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor, **_: Any) -> torch.Tensor:
        """Returns the same for each of the (B, T) sequences."""
        self._check()
        ends = torch.isin(input_ids[:, -1].cpu(), self._stops)  # (B,)
        self._ended = ends if self._ended is None else self._ended | ends
        return torch.full((len(ends),), int(self._ended.sum()) >= self._rows, device=input_ids.device)


def positions_behind(model: PreTrainedModel, ahead: Ahead | None) -> int | None:
    """Those of prompt and answer; None where nothing bounds them."""
    positions = positions_of(model)
    return positions if positions is None or ahead is None else positions - ahead.tokens


def room_for(model: PreTrainedModel, prompt_tokens: int, max_new_tokens: int, ahead: Ahead | None = None) -> int:
    """New tokens that the model has positions for behind a prompt."""
    positions = positions_behind(model, ahead)
    return max_new_tokens if positions is None else min(max_new_tokens, positions - prompt_tokens)


def _until_stop(ids: list[int], stops: Sequence[int]) -> Generated:
    end = next((at for at, token in enumerate(ids) if token in stops), None)
    return Generated(ids[:end], end is not None)


def _words(ids: list[int], tokenizer: PreTrainedTokenizerBase) -> str:
    return str(tokenizer.decode(ids, skip_special_tokens=True)).strip()
