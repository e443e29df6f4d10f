"""One answer: tokens are sampled one by one, their text is handed on as it comes, and it ends where it should or when nobody listens."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, cast

import torch
from transformers import (
    GenerationConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    StoppingCriteria,
    StoppingCriteriaList,
)
from transformers.generation.streamers import BaseStreamer

from trainer.kv_cache import growing_cache
from trainer.prefix import Ahead, given_of

UNFINISHED = "\ufffd"
"""How a tokenizer shows the first bytes of a character whose other bytes are in the next token."""

OnText = Callable[[str], None]


@dataclass(frozen=True)
class Sampling:
    """How tokens are chosen, and where an answer ends."""

    max_new_tokens: int
    temperature: float = 0.0
    """0: always the likeliest token."""
    top_p: float = 1.0
    """Only the likeliest tokens that together have this probability (arXiv 1904.09751)."""
    seed: int | None = None
    stop: tuple[str, ...] = ()
    """Texts that end an answer; they are no part of it."""


@dataclass(frozen=True)
class Answer:
    text: str
    prompt_tokens: int
    tokens: int
    """Of the answer, with the one that ended it."""
    seconds: float
    ended: Literal["stop", "length", "left"]
    """By itself or by a text in `stop`; cut; or because nobody listens any more."""

    @property
    def tokens_per_second(self) -> float:
        return self.tokens / self.seconds if self.seconds else 0.0


class Watch(BaseStreamer):
    """Told of each token by `generate`; makes text of them and knows when to end."""

    def __init__(
        self, tokenizer: PreTrainedTokenizerBase, stops: frozenset[int], sampling: Sampling, on_text: OnText
    ) -> None:
        self.tokenizer, self.stops, self.sampling, self.on_text = tokenizer, stops, sampling, on_text
        self.ids: list[int] = []
        self.text = ""
        self.ended = False
        self._handed_on = 0
        self._prompt_is_over = False
        self._whole = 0
        """So many ids have become text."""

    def put(self, value: torch.Tensor) -> None:
        """The prompt comes first, as one batch of ids, then each new token."""
        if not self._prompt_is_over:
            self._prompt_is_over = True
            return
        self.ids += value.flatten().tolist()
        if self.ids[-1] in self.stops:
            self.ended = True
        else:
            self._add_text()

    def end(self) -> None:
        """The rest: what a stop text might have begun with, and a character that stays unfinished."""
        if not self.ended:
            self.text += self._undecoded()
        self._hand_on(len(self.text))

    def _add_text(self) -> None:
        new = self._undecoded()
        if new.endswith(UNFINISHED):
            return
        self.text, self._whole = self.text + new, len(self.ids)
        found = [at for stop in self.sampling.stop if (at := self.text.find(stop)) >= 0]
        if found:
            self.text, self.ended = self.text[: min(found)], True
        self._hand_on(len(self.text) - self._held_back())

    def _undecoded(self) -> str:
        """What the ids since the last whole character add: spaces at a border depend on the ids before it."""
        before = self.ids[max(0, self._whole - 4) : self._whole]
        known = self._decoded(before)
        return self._decoded([*before, *self.ids[self._whole :]])[len(known) :]

    def _decoded(self, ids: list[int]) -> str:
        return str(self.tokenizer.decode(ids, skip_special_tokens=True))

    def _held_back(self) -> int:
        """Characters at the end that may be the beginning of a stop text."""
        lengths = (n for stop in self.sampling.stop for n in range(1, len(stop)) if self.text.endswith(stop[:n]))
        return 0 if self.ended else max(lengths, default=0)

    def _hand_on(self, end: int) -> None:
        if end > self._handed_on:
            self.on_text(self.text[self._handed_on : end])
            self._handed_on = end


class _Until(StoppingCriteria):
    def __init__(self, watch: Watch, left: Callable[[], bool]) -> None:
        self.watch, self.left = watch, left

    def __call__(self, input_ids: torch.Tensor, scores: Any, **more: Any) -> torch.Tensor:
        ends = self.watch.ended or self.left()
        return torch.full((input_ids.shape[0],), ends, device=input_ids.device)  # (B,)


def answer(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, prompt: Sequence[int], stops: Sequence[int], sampling: Sampling,
    on_text: OnText = lambda _: None, left: Callable[[], bool] = lambda: False, ahead: Ahead | None = None,
) -> Answer:  # fmt: skip
    """Generate one answer to a prompt in tokens; `left` says whether everybody who wanted it has gone; `ahead`: what stands before the prompt."""
    watch = Watch(tokenizer, frozenset(stops), sampling, on_text)
    if sampling.seed is not None:
        torch.manual_seed(sampling.seed)
    how = GenerationConfig(  # type: ignore[no-untyped-call]  # its __init__ has no annotations
        max_new_tokens=sampling.max_new_tokens, eos_token_id=list(stops), pad_token_id=stops[0], use_cache=True, **_chosen(sampling)
    )  # fmt: skip
    ids = torch.tensor([list(prompt)], device=model.device)  # (1, T)
    began = time.perf_counter()
    generate = cast("Callable[..., torch.Tensor]", model.generate)  # from a mixin that PreTrainedModel lacks
    generate(
        **given_of(model, ids, torch.ones_like(ids), ahead, [prompt]), generation_config=how, streamer=watch,
        stopping_criteria=StoppingCriteriaList([_Until(watch, left)]), **growing_cache(model),
    )  # fmt: skip
    seconds = time.perf_counter() - began
    ended: Literal["stop", "length", "left"] = "stop" if watch.ended else "left" if left() else "length"
    return Answer(watch.text, len(prompt), len(watch.ids), seconds, ended)


def _chosen(sampling: Sampling) -> dict[str, Any]:
    """Everything is set, since what is left out is taken from the base's generation_config.json."""
    neutral = {"repetition_penalty": 1.0, "num_beams": 1, "top_k": 0}
    if sampling.temperature == 0:
        return {**neutral, "do_sample": False}
    return {**neutral, "do_sample": True, "temperature": sampling.temperature, "top_p": sampling.top_p}
