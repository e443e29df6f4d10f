"""How a model is asked: as the rows were rendered that it was trained on.

`prepare` writes it as `prompt.json` beside the rows, and it is published beside the adapter, so that whatever asks the adapter later
(`swarm ask`, `chat`, `serve`, `compare`, `eval`) makes the same tokens, also after the base's chat template was changed.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerBase

from swarm.errors import UserError
from swarm.files import write_whole
from swarm.plainfiles import read_file
from swarm.policy import templates
from swarm.settings import PLAIN, StreamSettings
from swarm.weights import PROMPT
from trainer.data.bad import NotARow, TooLong
from trainer.data.messages import Turn
from trainer.data.rows import Chat, Pair, with_system
from trainer.data.settling import settled
from trainer.data.tokens import Tokeniser

PLACEHOLDER = "x"
"""Stands for the answer while a prompt is rendered: a template shows where an answer begins only where there is one."""


@dataclass(frozen=True)
class Prompt:
    """What rows were rendered with."""

    chat_template: str | dict[str, str] | None
    """In Jinja; a base may have several by name.  None: the rows had none."""
    separator: str | None
    """Between prompt and answer where there is no chat template; None: the rows were plain text, and an answer continues it."""
    stop_tokens: tuple[int, ...]
    """Ids that end an answer."""
    system: str = ""
    """The system message of a conversation that has none."""
    template: str | None = None
    """The `prompt_template` of the rows: a question stands in it where it has one place for it."""
    no_input_template: str | None = None
    """The one of rows without an input, which a question is."""

    def write(self, folder: Path) -> None:
        write_whole(folder / PROMPT, json.dumps(asdict(self), indent=1) + "\n")


def prompt_of_rows(settings: StreamSettings, tokenizer: PreTrainedTokenizerBase, stops: Collection[int]) -> Prompt:
    """Of the first dataset whose rows have a prompt; where none has, the rows are plain text."""
    asked = next((dataset for dataset in map(settled, settings.datasets) if dataset.type not in PLAIN), None)
    stop_tokens = tuple(sorted(stops))
    if asked is None:
        return Prompt(None, None, stop_tokens)
    separator = Pair.separator if asked.type == "alpaca" and asked.prompt_template is None else asked.separator
    system = settings.system_prompt if asked.system_prompt is None else asked.system_prompt
    made = asked.prompt_template and templates.settled(asked.prompt_template, asked.no_input_template)
    return Prompt(tokenizer.chat_template, separator, stop_tokens, system or "", *(made or ()))


def prompt_of_base(tokenizer: PreTrainedTokenizerBase, stops: Collection[int]) -> Prompt:
    """A bare base's: its own chat template, or a line break between question and answer."""
    return Prompt(tokenizer.chat_template, Pair.separator, tuple(sorted(stops)))


def read_prompt(folder: Path) -> Prompt | None:
    """What stands beside an adapter; None where nothing does, as with adapters of other programs.  Raises UserError."""
    path = folder / PROMPT
    if not path.exists():
        return None
    try:
        stored: Any = json.loads(read_file(path.resolve()))
        stop_tokens = tuple(stored["stop_tokens"])
        prompt = Prompt(
            stored["chat_template"],
            stored["separator"],
            stop_tokens,
            stored.get("system", ""),
            stored.get("template"),
            stored.get("no_input_template"),
        )
    except (OSError, ValueError, TypeError, LookupError, RecursionError) as error:
        fix = "put it back as it was, or remove it: then the base's own template is used"
        raise UserError(str(path), "cannot be read", fix) from error
    if not _is_sound(prompt):
        raise UserError(str(path), "holds values of other types than `prepare` writes", "put it back as it was")
    return prompt


def _is_sound(prompt: Prompt) -> bool:
    template, stops = prompt.chat_template, prompt.stop_tokens
    named = isinstance(template, dict) and all(isinstance(text, str) for text in template.values())
    return (
        (template is None or isinstance(template, str) or named)
        and isinstance(prompt.separator, str | None)
        and isinstance(prompt.system, str)
        and isinstance(prompt.template, str | None)
        and isinstance(prompt.no_input_template, str | None)
        and bool(stops)
        and all(isinstance(token, int) and token >= 0 for token in stops)
    )


class Asker:
    """Makes prompts in tokens for one base and one way of asking."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, prompt: Prompt, longest: int) -> None:
        """`longest`: tokens of prompt and answer together, at most."""
        own = copy.copy(tokenizer)
        own.chat_template = prompt.chat_template
        self.tokenizer, self.prompt, self.longest = own, prompt, longest
        self._tokeniser = Tokeniser(own, frozenset(prompt.stop_tokens), longest)

    def question(self, text: str) -> list[int]:
        """Raises NotARow, as the others do."""
        return self.conversation([{"role": "user", "content": self._in_template(text)}])

    def _in_template(self, text: str) -> str:
        """As the rows' prompts were written; a template of several columns cannot be filled with one text."""
        template = self.prompt.no_input_template or self.prompt.template
        names = templates.placeholders(template) if template else ()
        return templates.filled(template, {names[0]: text}) if template and len(names) == 1 else text

    def conversation(self, turns: Sequence[Turn], tools: Sequence[dict[str, Any]] = ()) -> list[int]:
        """The tokens up to where the next answer begins."""
        if self.prompt.chat_template is not None:
            answer = {"role": "assistant", "content": PLACEHOLDER}
            return self._tokeniser.prompt(with_system(Chat([*turns, answer], tools), self.prompt.system))
        text = _only_question(turns, tools)
        if self.prompt.separator is None:
            return self.text(text)
        return self._tokeniser.prompt(Pair(text, PLACEHOLDER, self.prompt.separator))

    def text(self, text: str) -> list[int]:
        """A text to continue, with what the tokenizer itself puts before it; nothing is rendered."""
        ids = list(self.tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"])
        before = self._tokeniser.before
        ids = ids if ids[: len(before)] == before else [*before, *ids]
        if not ids:
            raise NotARow("the prompt is empty", "write something")
        if len(ids) >= self.longest:
            raise TooLong(f"the prompt has {len(ids)} tokens, at most {self.longest - 1} have room", "make it shorter")
        return ids


def _only_question(turns: Sequence[Turn], tools: Sequence[dict[str, Any]]) -> str:
    if len(turns) == 1 and turns[0]["role"] == "user" and not tools:
        return str(turns[0]["content"])
    what = "this model has no chat template, so that it is asked one question at a time"
    raise NotARow(what, "send one message of the user alone, or ask for a completion of text")
