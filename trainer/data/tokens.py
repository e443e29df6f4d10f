"""Rendered text as token ids with labels: what the loss counts keeps its id, everything else is -100.

Labels are made here and handed over: SFTTrainer given prepared `input_ids` with a mask but no labels trains on everything.
An answer always ends in a supervised stop token, else the tuned model never stops (TRL pull request 5988).
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from transformers import PreTrainedTokenizerBase

from swarm.errors import UserError
from swarm.settings import StreamSettings
from trainer.data.bad import NotARow, NotProven, TooLong
from trainer.data.encoding import Encoded, Encoder
from trainer.data.render import Answer, Rendered, Renderer, TrainOn
from trainer.data.rows import Chat, Row

IGNORED = -100
"""torch's cross entropy leaves this label out by default."""
CHARACTERS_PER_TOKEN = 8
"""Of a long text this many characters for each token of the limit are tokenised first; most tokens have fewer."""
FINGERPRINT_BYTES = 16
"""A set of them is held in memory."""
SPARE_TOKENS = 64
"""Tokens near a cut may be others than in the whole text; so many before it are thrown away."""

END_OF_TURN = (
    "<|im_end|>",
    "<|eot_id|>",
    "<|eom_id|>",
    "<end_of_turn>",
    "<|end|>",
    "<|call|>",
    "<|endoftext|>",
    "</s>",
    "<|return|>",
)
"""What the chat templates in use end a turn with, where a base does not list it among its end tokens."""
NO_STOP = "give the base a template that ends the assistant's turns with its end token"


@dataclass(frozen=True)
class Tokens:
    ids: list[int]
    labels: list[int]
    """As long as `ids`; of a text with a label the number of that alone."""
    answer_start: int
    """Index of the first token of the last answer: what stands before it is that answer's prompt."""
    cut: int = 0
    """Tokens that stood beyond `sequence_len`; of a very long text an estimate."""
    fingerprint: bytes = b""
    """Rows whose normalised words are equal have equal ones; a sequence cut out of documents has those of all of them."""
    rejected: Sequence[int] = ()
    """A worse answer to the same prompt, where there is one."""
    task: str = ""
    """Empty where its dataset names no column of tasks."""
    classes: Sequence[int] = ()
    """Of each token, where a control adapter is to be trained (`trainer.data.classes`)."""

    demonstrated: Sequence[int] = ()
    """The teacher's prompt, in which the last answer stands, where the row is learned by distillation."""

    @property
    def documents(self) -> frozenset[bytes]:
        """Fingerprints of what stands in it: its own, or those of the documents that it was cut out of."""
        size = FINGERPRINT_BYTES
        return frozenset(self.fingerprint[at : at + size] for at in range(0, len(self.fingerprint), size))

    @property
    def supervised(self) -> int:
        return sum(label != IGNORED for label in self.labels)


@dataclass(frozen=True)
class Window:
    """The beginning of a text as tokens, long enough for what is kept of it."""

    encoded: Encoded
    characters: int
    """So many characters of the text were read."""
    missing: int
    """Tokens that the rest would have, estimated."""


class RowReader(Protocol):
    """What makes tokens of rows."""

    tokenizer: PreTrainedTokenizerBase
    stops: frozenset[int]
    train_on_inputs: bool

    def tokens(self, row: Row) -> Tokens:
        """Raises NotARow."""


def stop_tokens(tokenizer: PreTrainedTokenizerBase, folder: Path | None) -> frozenset[int]:
    """Ids that end an answer: the tokenizer's own, those of generation_config.json, the known ends of a turn and the template's."""
    stops = {tokenizer.eos_token_id} if isinstance(tokenizer.eos_token_id, int) else set()
    path = folder / "generation_config.json" if folder is not None else None
    if path is not None and path.is_file():
        stops |= _listed_in(path)
    vocabulary = tokenizer.get_vocab()
    known = {vocabulary[word] for word in END_OF_TURN if word in vocabulary}
    return frozenset(stops | known | _of_template(tokenizer, stops | known))


def _listed_in(path: Path) -> set[int]:
    """The end tokens of a generation_config.json.  Raises UserError."""
    try:
        found = json.loads(path.read_text(encoding="utf-8")).get("eos_token_id")
    except (OSError, ValueError, AttributeError) as error:
        raise UserError("base_model", f"{path} cannot be read", "download it again, or remove it") from error
    return {token for token in (found if isinstance(found, list) else [found]) if isinstance(token, int) and token >= 0}


def _of_template(tokenizer: PreTrainedTokenizerBase, known: set[int]) -> set[int]:
    """The special token that the chat template writes right behind a last answer, where no known stop token stands there."""
    if not tokenizer.chat_template:
        return set()
    turns = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    try:
        row = Renderer(tokenizer).rendered(Chat(turns))
    except NotARow:
        return set()
    behind = row.text[row.answers[-1].end :].lstrip()
    specials = {token: words.content for token, words in tokenizer.added_tokens_decoder.items() if words.special}
    if any(word in behind for token, word in specials.items() if token in known):
        return set()
    fits = [token for token, words in specials.items() if words and behind.startswith(words)]
    return {max(fits, key=lambda token: len(specials[token]))} if fits else set()


class Tokeniser:
    """Turns rows into ids and labels for one base, one length and one choice of what is supervised."""

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        stops: frozenset[int],
        sequence_len: int,
        *,
        train_on_inputs: bool = False,
        train_on: TrainOn = "all",
    ) -> None:
        if not stops:
            raise UserError(
                "base_model", "its tokenizer has no end token", "take a base whose tokenizer names an eos_token"
            )
        self.tokenizer, self.stops = tokenizer, stops
        self.sequence_len, self.train_on_inputs = sequence_len, train_on_inputs
        self.end = tokenizer.eos_token_id if isinstance(tokenizer.eos_token_id, int) else min(stops)
        self.before, self.behind = _round_plain_text(tokenizer)
        self._renderer, self._encoder = Renderer(tokenizer, train_on), Encoder(tokenizer)

    def tokens(self, row: Row) -> Tokens:
        """Raises NotARow, or NotProven where template and tokenizer do not show what is the assistant's."""
        text = self._renderer.rendered(row)
        window = self._window(text)
        encoded = window.encoded
        counted = [False] * len(encoded.ids)
        answer_start = len(encoded.ids)
        for answer in text.answers:
            if not answer.counts or answer.start >= window.characters:
                continue
            first, last, ends = self._range(text, answer, encoded, window)
            if not ends:
                encoded, counted = encoded.with_end(self.end), [*counted, False]
                last = len(encoded.ids)
            counted[first:last] = [True] * (last - first)
            answer_start = first
        ids, counted, put_before = self._begun(text, encoded.ids, counted)
        labels = [
            token if count or self.train_on_inputs else IGNORED for token, count in zip(ids, counted, strict=True)
        ]
        length = self.sequence_len
        cut = max(0, len(ids) - length) + window.missing
        return Tokens(ids[:length], labels[:length], answer_start + put_before, cut)

    def prompt(self, row: Row) -> list[int]:
        """What stands before the last answer of a row: a question as the rows that were trained on ask it."""
        tokens = self.tokens(row)
        if tokens.cut:
            what = f"the question has about {len(tokens.ids) + tokens.cut} tokens, and at most {self.sequence_len} have room"
            raise TooLong(what, "ask a shorter one")
        return tokens.ids[: tokens.answer_start]

    def _window(self, text: Rendered) -> Window:
        """As much of the text as can matter: time and memory go with what is kept, not with the row."""
        characters = CHARACTERS_PER_TOKEN * (self.sequence_len + SPARE_TOKENS)
        cuts = [at for answer in text.answers for at in (answer.start, answer.end)]
        while characters < len(text.text):
            found = self._encoder.encoded(text.text[:characters], text.pieces, [at for at in cuts if at < characters])
            if len(found.ids) >= self.sequence_len + SPARE_TOKENS:
                kept = len(found.ids) - SPARE_TOKENS
                rest = (len(text.text) - found.places[kept - 1][1]) * len(found.ids) // characters
                return Window(Encoded(found.ids[:kept], found.places[:kept]), found.places[kept - 1][1], max(1, rest))
            characters *= 4
        return Window(self._encoder.encoded(text.text, text.pieces, cuts), len(text.text), 0)

    def _range(self, text: Rendered, answer: Answer, encoded: Encoded, window: Window) -> tuple[int, int, bool]:
        """The tokens [first, last) of an answer, proven: nobody else's words, and a stop token at its end.

        The third value is False where the text ends with the answer and the end token has yet to be put there.
        """
        within = [
            at
            for at, (start, end) in enumerate(encoded.places)
            if end > max(start, answer.start) and start < answer.end
        ]
        if not within:
            raise NotProven("its tokenizer makes no token of an answer", "change the row, or take another base")
        first, last = within[0], within[-1] + 1
        if not text.is_plain and (
            encoded.places[first][0] < answer.after or encoded.places[last - 1][1] > answer.limit
        ):
            raise NotProven("its tokenizer makes one token of two messages' words", "take another base")
        if window.characters < answer.limit:  # cut off inside it or right behind it
            return first, self._stop_after(answer, encoded, last) or last, True
        if stop := self._stop_after(answer, encoded, last) or self._stop_within(text, encoded, first, last):
            return first, stop, True
        if self._ends_open(text, answer, encoded, last):
            return first, len(encoded.ids), False
        raise NotProven("its chat template ends an answer without a stop token", NO_STOP)

    def _stop_after(self, answer: Answer, encoded: Encoded, last: int) -> int | None:
        """The index behind the first stop token between the answer's words and the next message's."""
        for at in range(last, len(encoded.ids)):
            if encoded.places[at][1] > answer.limit:
                return None
            if encoded.ids[at] in self.stops:
                return at + 1
        return None

    def _stop_within(self, text: Rendered, encoded: Encoded, first: int, last: int) -> int | None:
        """The index behind the stop token that plain text brings along at its end, blanks after it aside."""
        stops = (at for at in range(last - 1, first - 1, -1) if encoded.ids[at] in self.stops)
        at = next(stops, None) if text.is_plain else None
        return None if at is None or text.text[encoded.places[at][1] :].strip() else at + 1

    def _ends_open(self, text: Rendered, answer: Answer, encoded: Encoded, last: int) -> bool:
        """True where nothing but ordinary text of the template's follows the last answer."""
        return answer.limit == len(text.text) and not any(
            token in self._encoder.special for token in encoded.ids[last:]
        )

    def _begun(self, text: Rendered, ids: list[int], counted: list[bool]) -> tuple[list[int], list[bool], int]:
        """What the tokenizer itself puts round plain text; a chat template writes its own, and one begin token is enough."""
        if text.is_plain:
            before = [] if ids[: len(self.before)] == self.before else self.before
            behind = [] if not self.behind or ids[-len(self.behind) :] == self.behind else self.behind
            return [*before, *ids, *behind], [*[False] * len(before), *counted, *[True] * len(behind)], len(before)
        doubled = len(ids) > 1 and ids[0] == ids[1] == self.tokenizer.bos_token_id
        return ids[doubled:], counted[doubled:], -int(doubled)


def tokeniser_of(settings: StreamSettings, tokenizer: PreTrainedTokenizerBase, stops: frozenset[int]) -> Tokeniser:
    return Tokeniser(
        tokenizer, stops, settings.sequence_len, train_on_inputs=settings.train_on_inputs, train_on=settings.train_on
    )


def _round_plain_text(tokenizer: PreTrainedTokenizerBase) -> tuple[list[int], list[int]]:
    """The ids that the tokenizer itself puts before and behind a text."""
    whole, bare = (list(tokenizer("x", add_special_tokens=add)["input_ids"]) for add in (True, False))
    starts = (at for at in range(len(whole) - len(bare) + 1) if whole[at : at + len(bare)] == bare)
    start = next(starts, 0)
    return whole[:start], whole[start + len(bare) :] if start or whole[: len(bare)] == bare else []
