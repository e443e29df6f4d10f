"""Rows as the text that the base reads, with the supervised spans marked; no tokens are made here.

With a chat template the assistant's turns come from its `{% generation %}` markers where it has them, else from rendering the
conversation up to each turn and taking the difference.  Without one, prompt and completion stand one under the other.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

from jinja2 import TemplateError
from transformers import PreTrainedTokenizerBase
from transformers.utils.chat_template_utils import render_jinja_template

from swarm.errors import UserError
from trainer.data.rows import Chat, NotARow, Pair, Row, Text, Turn

MARKERS = re.compile(r"\{%-?\s*generation\s*-?%\}")

Span = tuple[int, int]


@dataclass(frozen=True)
class Rendered:
    text: str
    spans: tuple[Span, ...]
    """Character ranges [start, end) that the loss counts."""
    ends_open: bool = False
    """True where the last span reaches the end of the text: an end token has to follow if none stands there."""


def rendered(row: Row, tokenizer: PreTrainedTokenizerBase) -> Rendered:
    """Raises NotARow where the chat template refuses the row, UserError where it cannot be used at all."""
    match row:
        case Text(text):
            return Rendered(text, ((0, len(text)),), ends_open=True)
        case Pair(prompt, completion) if not tokenizer.chat_template:
            start = len(prompt) + 1
            return Rendered(f"{prompt}\n{completion}", ((start, start + len(completion)),), ends_open=True)
        case Pair(prompt, completion):
            turns = [{"role": "user", "content": prompt}, {"role": "assistant", "content": completion}]
            return _chat(turns, tokenizer)
        case Chat(turns):
            if not tokenizer.chat_template:
                raise UserError(
                    "base_model", "its tokenizer has no chat template", "take an instruct model, or other row types"
                )
            return _chat(list(turns), tokenizer)


def _chat(turns: list[Turn], tokenizer: PreTrainedTokenizerBase) -> Rendered:
    try:
        if MARKERS.search(tokenizer.get_chat_template()):
            text, spans = _by_markers(turns, tokenizer)
        else:
            text, spans = _by_prefixes(turns, tokenizer)
    except TemplateError as error:
        raise NotARow(
            f"the base's chat template refuses it ({error})", "change the row, or take another base"
        ) from error
    return Rendered(text, tuple(spans), ends_open=spans[-1][1] == len(text))


def _by_markers(turns: list[Turn], tokenizer: PreTrainedTokenizerBase) -> tuple[str, list[Span]]:
    # Annotated as giving a string; it gives the texts and, for each, the ranges between the markers.
    render = cast("Callable[..., tuple[list[str], list[list[Span]]]]", render_jinja_template)
    texts, spans = render(
        conversations=[turns],
        chat_template=tokenizer.get_chat_template(),
        return_assistant_tokens_mask=True,
        **tokenizer.special_tokens_map,
    )
    found = [(start, end) for start, end in spans[0] if end > start]
    if not found:
        raise UserError(
            "base_model", "its chat template marks no text of the assistant's", "mend its {% generation %} markers"
        )
    return texts[0], found


def _by_prefixes(turns: list[Turn], tokenizer: PreTrainedTokenizerBase) -> tuple[str, list[Span]]:
    text, spans, at = _text(turns, tokenizer), [], 0
    for index, turn in enumerate(turns):
        if turn["role"] == "assistant":
            spans.append(_span_of_turn(text, turns, index, at, tokenizer))
            at = spans[-1][1]
    return text, spans


def _span_of_turn(text: str, turns: list[Turn], index: int, at: int, tokenizer: PreTrainedTokenizerBase) -> Span:
    before = _text(turns[:index], tokenizer, prompt=True)
    until = _text(turns[: index + 1], tokenizer)
    if text.startswith(until) and until.startswith(before) and len(before) >= at:
        return len(before), len(until)
    # Templates that write a turn differently once others follow it (Qwen3 drops earlier thoughts): look for its words.
    words = str(turns[index].get("content") or "").strip()
    start = text.find(words, at) if words else -1
    if start < 0:
        fix = "give the base a template with {% generation %} markers"
        raise UserError("base_model", "its chat template does not show which text is the assistant's", fix)
    return start, start + len(words)


def _text(turns: list[Turn], tokenizer: PreTrainedTokenizerBase, *, prompt: bool = False) -> str:
    return cast("str", tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=prompt))


def prompt_text(question: str, tokenizer: PreTrainedTokenizerBase) -> str:
    """A question as the base is asked it, up to where its answer begins."""
    if not tokenizer.chat_template:
        return f"{question}\n"
    return _text([{"role": "user", "content": question}], tokenizer, prompt=True)
