"""Rendered text as token ids with labels: what the loss counts keeps its id, everything else is -100.

Labels are made here and handed over: SFTTrainer given prepared `input_ids` with a mask but no labels trains on everything.
An answer always ends in a supervised stop token, else the tuned model never stops (TRL pull request 5988).
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from transformers import PreTrainedTokenizerBase

from swarm.errors import UserError
from trainer.data.render import Rendered, Span, prompt_text

IGNORED = -100
"""torch's cross entropy leaves this label out by default."""

END_OF_TURN = (
    "<|im_end|>",
    "<|eot_id|>",
    "<|eom_id|>",
    "<end_of_turn>",
    "<|end|>",
    "<|endoftext|>",
    "</s>",
    "<|return|>",
)
"""What the chat templates in use end a turn with, where a base does not list it among its end tokens."""


@dataclass(frozen=True)
class Tokens:
    ids: list[int]
    labels: list[int]
    """As long as `ids`."""
    answer_start: int
    """Index of the first token of the last answer: what stands before it is that answer's prompt."""
    cut: int = 0
    """Tokens that stood beyond `sequence_len`."""

    @property
    def supervised(self) -> int:
        return sum(label != IGNORED for label in self.labels)


def stop_tokens(tokenizer: PreTrainedTokenizerBase, folder: Path | None) -> frozenset[int]:
    """Ids that end an answer: the tokenizer's own, those of generation_config.json and the known ends of a turn."""
    stops = {tokenizer.eos_token_id} if isinstance(tokenizer.eos_token_id, int) else set()
    path = folder / "generation_config.json" if folder is not None else None
    if path is not None and path.is_file():
        listed = json.loads(path.read_text(encoding="utf-8")).get("eos_token_id") or []
        stops |= {listed} if isinstance(listed, int) else set(listed)
    vocabulary = tokenizer.get_vocab()
    return frozenset(stops | {vocabulary[word] for word in END_OF_TURN if word in vocabulary})


class Tokeniser:
    """Turns rendered rows into ids and labels for one base, one length and one choice of what is supervised."""

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        stops: frozenset[int],
        sequence_len: int,
        *,
        train_on_inputs: bool = False,
    ) -> None:
        if not tokenizer.is_fast:
            raise UserError("base_model", "its tokenizer has no fast version", "take a base with tokenizer.json")
        if not stops:
            raise UserError(
                "base_model", "its tokenizer has no end token", "take a base whose tokenizer names an eos_token"
            )
        self.tokenizer, self.stops = tokenizer, stops
        self.sequence_len, self.train_on_inputs = sequence_len, train_on_inputs
        self.end = tokenizer.eos_token_id if isinstance(tokenizer.eos_token_id, int) else min(stops)
        self.begin = _begin_token(tokenizer)

    def tokens(self, row: Rendered) -> Tokens:
        encoded = self.tokenizer(row.text, add_special_tokens=False, return_offsets_mapping=True)
        ids, offsets = list(encoded["input_ids"]), encoded["offset_mapping"]
        counted = _counted(offsets, row.spans)
        if row.ends_open and self._lacks_an_end(row.text, ids, offsets):
            ids, counted = [*ids, self.end], [*counted, True]
        counted = self._ends_at_stops(ids, counted)
        if not self.tokenizer.chat_template and self.begin is not None:  # a chat template writes its own
            ids, counted = [self.begin, *ids], [False, *counted]
        labels = [
            token if count or self.train_on_inputs else IGNORED for token, count in zip(ids, counted, strict=True)
        ]
        length = self.sequence_len
        answer_start = _runs(counted)[-1][0]
        return Tokens(ids[:length], labels[:length], answer_start, cut=max(0, len(ids) - length))

    def _lacks_an_end(self, text: str, ids: list[int], offsets: list[Span]) -> bool:
        """True unless the text ends in a stop token, blanks after it aside (many templates put a line break there)."""
        last = next((at for at in range(len(ids) - 1, -1, -1) if ids[at] in self.stops), None)
        return last is None or bool(text[offsets[last][1] :].strip())

    def _ends_at_stops(self, ids: list[int], counted: list[bool]) -> list[bool]:
        """Let each supervised run end with its stop token: none left out, no line break after it taken in."""
        counted = list(counted)
        for start, end in _runs(counted):
            last = next((at for at in range(end - 1, start - 1, -1) if ids[at] in self.stops), None)
            if last is not None:
                counted[last + 1 : end] = [False] * (end - last - 1)
            elif end < len(ids) and ids[end] in self.stops:
                counted[end] = True
            else:
                fix = "give the base a template that ends the assistant's turns with its end token"
                raise UserError("base_model", "its chat template ends an answer without a stop token", fix)
        return counted


def prompt_ids(question: str, tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """A question as the rows that were trained on ask it, up to where the answer begins."""
    ids = list(tokenizer(prompt_text(question, tokenizer), add_special_tokens=False)["input_ids"])
    begin = None if tokenizer.chat_template else _begin_token(tokenizer)
    return ids if begin is None else [begin, *ids]


def _counted(offsets: list[Span], spans: tuple[Span, ...]) -> list[bool]:
    """For each token whether any of its characters lies in a span; a token that straddles a start belongs to the answer."""
    counted, at = [], 0
    for start, end in offsets:
        while at < len(spans) and spans[at][1] <= start:
            at += 1
        counted.append(at < len(spans) and end > spans[at][0] and end > start)
    return counted


def _runs(counted: list[bool]) -> list[Span]:
    """The [start, end) ranges of True."""
    runs, start = [], None
    for at, count in enumerate([*counted, False]):
        if count and start is None:
            start = at
        elif not count and start is not None:
            runs.append((start, at))
            start = None
    return runs


def _begin_token(tokenizer: PreTrainedTokenizerBase) -> int | None:
    """The token that the tokenizer itself puts in front of a text, if it does."""
    first = tokenizer("x")["input_ids"][:1]
    return tokenizer.bos_token_id if first and first[0] == tokenizer.bos_token_id else None
