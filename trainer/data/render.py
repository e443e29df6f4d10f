"""Rows as the text that the base reads, with what is the assistant's in it; no tokens are made here.

A chat template is run on words that know whose they are (`traced`), so that an answer's place is never guessed by searching.  An
answer begins where the template's generation prompt ends and runs to its last own character; the stop token after it is
found on tokens.  A template that shows no such place refuses the row: NotProven, with the reason.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from jinja2 import TemplateError
from transformers import PreTrainedTokenizerBase

from trainer.data.bad import NotARow, NotProven, reason_of
from trainer.data.messages import TRAIN, Turn
from trainer.data.rows import Chat, Labelled, Pair, Row, Text
from trainer.data.templates import plainly, rendered
from trainer.data.traced import MIXED, TOOLS, Owner, runs_of, unmarked

TrainOn = Literal["all", "last", "marked"]
Span = tuple[int, int]
WORDS = "x"
"""Stands for an answer that calls nothing."""
DELIBERATE, UNFORESEEN = 2, 0
"""How much a reason says: a template that raises on purpose, and one that fails on a form of the row that it does not know."""
ANOTHER_BASE = "change the row, or take a base whose chat template has room for it"


@dataclass(frozen=True)
class Answer:
    """Where the assistant speaks, in characters of the text."""

    start: int
    """Behind the header."""
    end: int
    """Behind the last character of its own."""
    after: int
    """Behind the words of the message before it; between that and `start` stands the template's."""
    limit: int
    """Where the words of the next message begin: its stop token stands before that."""
    counts: bool
    """Whether the loss counts it."""


@dataclass(frozen=True)
class Piece:
    """A run of characters whose author is not the template."""

    start: int
    end: int
    is_answer: bool


@dataclass(frozen=True)
class Rendered:
    text: str
    answers: tuple[Answer, ...]
    pieces: tuple[Piece, ...] = ()
    """Text in which control tokens are words like others."""
    is_plain: bool = False
    """No chat template was used: the tokenizer's own begin and end belong around it."""


class Renderer:
    """Renders rows for one base and one choice of what is trained on."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, train_on: TrainOn = "all") -> None:
        self.tokenizer, self.train_on = tokenizer, train_on
        self.specials = sorted(
            (str(token) for token in tokenizer.added_tokens_decoder.values() if token.special), key=len, reverse=True
        )
        self._headers: dict[tuple[str, str], int] = {}
        """Length of the header in the template's text before an answer, by that text and the role before."""

    def rendered(self, row: Row) -> Rendered:
        """Raises NotARow, or NotProven where the base's template or tokenizer is the reason."""
        match row:
            case Text(text):
                return Rendered(text, (Answer(0, len(text), 0, len(text), counts=True),), is_plain=True)
            case Pair() if not self.tokenizer.chat_template:
                return self._pair(row)
            case Pair():
                return self._chat(Chat(row.turns))
            case Chat():
                return self._chat(row)
            case Labelled():
                raise NotARow("a label is no answer in words", "write `method: classify`, or `type: prompt_completion`")

    def _pair(self, row: Pair) -> Rendered:
        """Prompt and completion; a begin token in front and an end token behind are what they look like."""
        if row.system:
            fix = "name its column in `prompt_template`, write `system: null`, or take an instruct model"
            raise NotProven("the base has no chat template, so that its system message would stand nowhere", fix)
        begin, end = str(self.tokenizer.bos_token or ""), str(self.tokenizer.eos_token or "")
        start = len(row.prompt) + len(row.separator)
        text = f"{row.prompt}{row.separator}{row.completion}"
        begun = len(begin) if begin and row.prompt.startswith(begin) else 0
        ended = len(text) - (len(end) if end and row.completion.endswith(end) else 0)
        pieces = (Piece(begun, len(row.prompt), is_answer=False), Piece(start, ended, is_answer=True))
        answer = Answer(start, len(text), len(row.prompt), len(text), counts=True)
        return Rendered(text, (answer,), pieces, is_plain=True)

    # ---- chats ----

    def _chat(self, row: Chat) -> Rendered:
        counts = _counts(row.turns, self.train_on)
        why: list[NotProven] = []
        for turns in _forms(row.turns):
            try:
                return self._form(turns, row.tools, counts)
            except NotProven as error:
                why.append(error)
            except Exception as error:  # a template is code of the base's: it may raise anything
                why.append(self._refused(error, turns, row.tools))
        raise max(why[: len(why) - 1 or 1], key=lambda error: error.weight)

    def _refused(self, error: Exception, turns: Sequence[Turn], tools: Sequence[dict[str, Any]]) -> NotProven:
        """The template's own reason, in transformers' words."""
        try:
            plainly(turns, tools, self.tokenizer)
        except TemplateError as reason:
            weight = DELIBERATE if type(reason) is TemplateError else UNFORESEEN
            what = reason_of(reason).removeprefix("TemplateError: ")
        except Exception as reason:
            weight, what = UNFORESEEN, reason_of(reason)
        else:
            weight, what = UNFORESEEN, f"it cannot be followed: {reason_of(error)}"
        return NotProven(f"the base's chat template refuses it ({what})", ANOTHER_BASE, weight)

    def _form(self, turns: Sequence[Turn], tools: Sequence[dict[str, Any]], counts: Sequence[bool]) -> Rendered:
        text = rendered(turns, tools, self.tokenizer)
        owned = _owned(text)
        _refuse_left_out(text, owned, turns, tools, counts)
        answers = [
            self._answer(index, text, owned, turns, tools, counts=counts[index])
            for index, turn in enumerate(turns)
            if turn["role"] == "assistant" and index in owned
        ]
        plain = unmarked(text)
        if plain != plainly(turns, tools, self.tokenizer):
            raise NotProven("its chat template gives another text each time", "take a base whose template does not")
        pieces = (
            Piece(start, end, is_answer=owner >= 0 and turns[owner]["role"] == "assistant")
            for owner, spans in owned.items()
            for start, end in spans
        )
        return Rendered(plain, tuple(answers), tuple(sorted(pieces, key=lambda piece: piece.start)))

    def _answer(
        self, index: int, text: str, owned: dict[Owner, list[Span]], turns: Sequence[Turn],
        tools: Sequence[dict[str, Any]], *, counts: bool,
    ) -> Answer:  # fmt: skip
        own = owned[index][: self._own_spans(index, text, owned[index], turns, tools)]
        first, last = own[0][0], own[-1][1]
        others = [span for owner, spans in owned.items() for span in spans if owner != index or span not in own]
        if any(first < end and start < last for start, end in others):
            raise NotProven(f"its chat template mixes message {index + 1} with others", ANOTHER_BASE)
        after = max((end for _, end in others if end <= first), default=0)
        limit = min((start for start, _ in others if start >= last), default=len(text))
        gap = unmarked(text[after:first])
        return Answer(after + self._header(index, gap, turns, tools), last, after, limit, counts)

    def _own_spans(
        self, index: int, text: str, spans: list[Span], turns: Sequence[Turn], tools: Sequence[dict[str, Any]]
    ) -> int:  # fmt: skip
        """How many of a message's spans stand in its own turn: some templates name the tool again where its result stands."""
        following = turns[index + 1]["role"] if index + 1 < len(turns) else ""
        if following != "tool" or not turns[index].get("tool_calls"):
            return len(spans)
        try:
            alone = rendered(turns[: index + 1], tools, self.tokenizer)
        except Exception:  # a conversation that ends with a call is no conversation to it
            return len(spans)
        words = _text_of(alone, _owned(alone).get(index, []))
        fitting = (count for count in range(1, len(spans)) if _text_of(text, spans[:count]) == words)
        return next(fitting, len(spans))

    def _header(self, index: int, gap: str, turns: Sequence[Turn], tools: Sequence[dict[str, Any]]) -> int:
        """Characters of the gap before an answer that are its header: what a generation prompt writes."""
        key = (gap, turns[index - 1]["role"] if index else "")
        if key not in self._headers:
            asked = self._tail(turns[:index], tools, prompt=True)
            unasked = self._tail(turns[:index], tools, prompt=False)
            found = len(gap) if asked is None else self._header_of(gap, asked, unasked or "")
            called = found == len(gap) and bool(turns[index].get("tool_calls"))
            self._headers[key] = self._before_call(index, gap, turns, tools) if called else found
        return self._headers[key]

    def _before_call(self, index: int, gap: str, turns: Sequence[Turn], tools: Sequence[dict[str, Any]]) -> int:
        """Of a template without a generation prompt: what it writes before a call, and not before words, is the assistant's to write."""
        try:
            text = rendered([*turns[:index], {"role": "assistant", "content": WORDS}], tools, self.tokenizer)
        except Exception:  # it may want another conversation
            return len(gap)
        owned = _owned(text)
        first = owned.get(index, [(0, 0)])[0][0]
        after = max((end for spans in owned.values() for _, end in spans if end <= first), default=0)
        common = _common(gap, unmarked(text[after:first]))
        begins = [at for at in range(common + 1) if any(gap.startswith(special, at) for special in self.specials)]
        return len(gap) if common == len(gap) else max([*begins, self._word_end(gap, common)]) or len(gap)

    def _tail(self, turns: Sequence[Turn], tools: Sequence[dict[str, Any]], *, prompt: bool) -> str | None:
        """What the template writes behind the last words of a conversation; None where it refuses to."""
        try:
            text = rendered(turns, tools, self.tokenizer, prompt=prompt)
        except Exception:  # many templates want a user's message in front
            return None
        end = max((end for spans in _owned(text).values() for _, end in spans), default=0)
        return unmarked(text[end:])

    def _header_of(self, gap: str, asked: str, unasked: str) -> int:
        """`asked`, `unasked`: what the template writes at the end with and without a generation prompt."""
        before = _common(asked, unasked)
        if before == len(asked):  # no generation prompt: only the words are known to be the assistant's
            return len(gap)
        common = _common(gap, asked)
        if common in (len(asked), len(gap)):  # in the second case the generation prompt goes on, with a thought say
            return common
        # They part behind the header, where the generation prompt opens a thought and this answer does not.
        common = self._word_end(gap, common)
        return common if common > before else len(gap)

    def _word_end(self, text: str, at: int) -> int:
        """The last place up to `at` that stands behind white space or a special token."""
        ends = [end for end in range(1, at + 1) if text[end - 1].isspace()]
        found = ((text.rfind(special, 0, at), len(special)) for special in self.specials)
        ends += [start + length for start, length in found if start >= 0]
        return max(ends, default=0)


def _common(one: str, other: str) -> int:
    """Length of the prefix that two texts share."""
    pairs = zip(one, other, strict=False)
    return next((at for at, (left, right) in enumerate(pairs) if left != right), min(len(one), len(other)))


def _counts(turns: Sequence[Turn], train_on: TrainOn) -> list[bool]:
    """For each message whether the loss counts it; raises NotARow where it counts none."""
    last = max(index for index, turn in enumerate(turns) if turn["role"] == "assistant")
    counts = [
        turn["role"] == "assistant"
        and turn.get(TRAIN) is not False
        and {"all": True, "last": index == last, "marked": turn.get(TRAIN) is True}[train_on]
        for index, turn in enumerate(turns)
    ]
    if not any(counts):
        ways = {"all": "its weight or train is 0 everywhere", "last": "its last answer has weight or train 0",
                "marked": "`train_on: marked`, and none has train: true or weight: 1"}  # fmt: skip
        raise NotARow(f"no message to train on ({ways[train_on]})", "mark one, or leave the row out")
    return counts


def _owned(text: str) -> dict[Owner, list[Span]]:
    found: dict[Owner, list[Span]] = {}
    at = 0
    for length, owner in runs_of(text):
        if owner is not None:
            found.setdefault(owner, []).append((at, at + length))
        at += length
    return found


def _refuse_left_out(
    text: str, owned: dict[Owner, list[Span]], turns: Sequence[Turn], tools: Sequence[dict[str, Any]], counts: Sequence[bool]
) -> None:  # fmt: skip
    """Raises NotProven where the template drops what the row has, or does with it what cannot be followed."""
    if MIXED in owned:
        raise NotProven("its chat template mixes the words of several messages", ANOTHER_BASE)
    if tools and TOOLS not in owned:
        raise NotProven(
            "its chat template does not write the tools", "remove the tools, or take a base that calls tools"
        )
    for index, turn in enumerate(turns):
        supervised = _text_of(text, owned.get(index, []))
        names = [call.get("function", call)["name"] for call in turn.get("tool_calls", ())]
        silent = not supervised and (counts[index] or _has_words(turn))
        if silent or not all(name in supervised for name in names):
            what = "leaves out" if silent else "leaves out the tool calls of"
            raise NotProven(f"its chat template {what} message {index + 1} ({turn['role']})", ANOTHER_BASE)


def _text_of(text: str, spans: Sequence[Span]) -> str:
    return "".join(unmarked(text[start:end]) for start, end in spans)


def _has_words(turn: Turn) -> bool:
    content = turn.get("content", "")
    return bool(content.strip()) if isinstance(content, str) else any(part["text"].strip() for part in content)


# ---- the forms in which templates read messages ----


def _forms(turns: Sequence[Turn]) -> Iterator[list[Turn]]:
    """The same messages as different templates want them; the first is the commonest."""
    yield from _written(turns)
    if any(turn["role"] == "developer" for turn in turns):  # OpenAI's word for who writes the system message
        yield from _written([{**turn, "role": "system"} if turn["role"] == "developer" else turn for turn in turns])


def _written(turns: Sequence[Turn]) -> Iterator[list[Turn]]:
    yield list(turns)
    if any(turn.get("tool_calls") for turn in turns):
        yield [_without_empty_content(turn) for turn in turns]
        yield [_with_text_arguments(turn) for turn in turns]
        yield [_without_empty_content(_with_text_arguments(turn)) for turn in turns]
    yield [{**turn, "content": [{"type": "text", "text": turn["content"]}]} for turn in turns]


def _without_empty_content(turn: Turn) -> Turn:
    return turn if turn["content"] else {key: value for key, value in turn.items() if key != "content"}


def _with_text_arguments(turn: Turn) -> Turn:
    calls = [_with_text(call) for call in turn.get("tool_calls", ())]
    return {**turn, "tool_calls": calls} if calls else turn


def _with_text(call: dict[str, Any]) -> dict[str, Any]:
    function = call.get("function", call)
    arguments = function["arguments"]
    text = arguments if isinstance(arguments, str) else json.dumps(arguments, ensure_ascii=False)
    made = {**function, "arguments": text}
    return {**call, "function": made} if "function" in call else made
