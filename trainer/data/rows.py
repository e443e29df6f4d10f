"""What a raw row means: a chat, a prompt with its completion, or plain text, by the dataset's `type`; nothing is rendered here."""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from swarm.policy import templates
from swarm.settings import PLAIN, Dataset
from trainer.data.bad import NotARow
from trainer.data.gate import plain_row
from trainer.data.messages import TRAIN, Turn, tools_of, turns_of, words_of_turn
from trainer.data.raw import RawRow


@dataclass(frozen=True)
class Chat:
    """Messages; the assistant's are supervised."""

    turns: Sequence[Turn]
    tools: Sequence[dict[str, Any]] = ()
    """What the assistant may call, as JSON schemas."""

    def words(self) -> list[str]:
        """System messages aside: who has learned an answer has learned it under every system prompt."""
        asked = [turn for turn in self.turns if turn["role"] not in SYSTEM] or self.turns
        return [json.dumps(self.tools, sort_keys=True)] * bool(self.tools) + [words_of_turn(turn) for turn in asked]


@dataclass(frozen=True)
class Pair:
    """A prompt and the completion that is supervised."""

    prompt: str
    completion: str
    separator: str = "\n"
    """Between the two on a base without a chat template."""
    system: str = ""
    """The system message, on a base with one."""

    def words(self) -> list[str]:
        """Those of the same chat."""
        return [words_of_turn(turn) for turn in self.turns if turn["role"] not in SYSTEM]

    @property
    def turns(self) -> list[Turn]:
        asked = {"role": "user", "content": self.prompt}
        return [*_system(self.system), asked, {"role": "assistant", "content": self.completion}]


@dataclass(frozen=True)
class Text:
    """Plain text, supervised as a whole."""

    text: str

    def words(self) -> list[str]:
        return [self.text]


@dataclass(frozen=True)
class Labelled:
    """A text, or two of them, with a label."""

    text: str
    pair: str | None
    label: str

    def words(self) -> list[str]:
        """Without the label: who has learned one has learned the text."""
        return [self.text, self.pair or ""]


Row = Chat | Pair | Text | Labelled
SYSTEM = ("system", "developer")
"""Roles of a system message."""


def _system(text: str) -> list[Turn]:
    return [{"role": "system", "content": text}] if text else []


def with_system(row: Row, prompt: str) -> Row:
    """The row with this system message, where it may have one and has none."""
    match row:
        case Pair(system=""):
            return replace(row, system=prompt)
        case Chat(turns) if prompt and not any(turn["role"] in SYSTEM for turn in turns):
            return replace(row, turns=[*_system(prompt), *turns])
        case _:
            return row


def normalised(row: Row) -> str:
    """Rows that a reader would call equal have equal ones: compatibility forms, case and white space do not count."""
    parts = (" ".join(unicodedata.normalize("NFKC", part).casefold().split()) for part in row.words())
    return "\x00".join(parts)


def read(raw: RawRow, dataset: Dataset) -> Row:
    """A raw row by the dataset's type; raises NotARow."""
    cells, columns = plain_row(raw.values, filled=raw.filled), list(raw.values)
    row = _of_type(cells, columns, dataset)
    if (name := _system_column(dataset)) is None or not _is_filled(cells.get(name)):
        return row
    return with_system(row, _words(cells, name, "system", columns))


def _system_column(dataset: Dataset) -> str | None:
    """The one whose text becomes a message; a prompt's template may have it already."""
    in_prompt = dataset.prompt_template is not None and dataset.system in columns_of_templates(dataset)
    return None if dataset.type in PLAIN or in_prompt else dataset.system


def _of_type(cells: dict[str, Any], columns: list[str], dataset: Dataset) -> Row:
    match dataset.type:
        case "chatml":
            return _chat(cells, dataset, columns)
        case "text":
            return Text(_words(cells, dataset.text, "text", columns))
        case "document":
            return Text("" if _is_blank(cells, dataset, columns) else _words(cells, dataset.text, "text", columns))
        case "labelled":
            pair = _words(cells, dataset.text_pair, "text_pair", columns) if dataset.text_pair else None
            text = _words(cells, dataset.text, "text", columns)
            return Labelled(text, pair, _words(cells, dataset.label, "label", columns))
        case "alpaca" if dataset.prompt_template is None:
            return _alpaca(cells, columns)
        case "alpaca":
            return Pair(_templated(cells, dataset, columns), _words(cells, "output", None, columns), dataset.separator)
        case "prompt_completion" | "toon" if isinstance(cells.get(dataset.prompt), list):
            return _continued(cells, dataset, columns)
        case "prompt_completion" | "toon":
            prompt = (
                _words(cells, dataset.prompt, "prompt", columns)
                if dataset.prompt_template is None
                else _templated(cells, dataset, columns)
            )
            return Pair(prompt, _words(cells, dataset.completion, "completion", columns), dataset.separator)
        case "auto":
            raise AssertionError("a dataset is settled before its rows are read")


def columns_read(dataset: Dataset) -> frozenset[str]:
    """The columns that are looked at; any other is not used."""
    more = (_system_column(dataset), dataset.group_by, dataset.task, dataset.rejected)
    return frozenset({*_columns_of_type(dataset), *filter(None, more)})


def _columns_of_type(dataset: Dataset) -> set[str]:
    if dataset.type == "chatml":
        return {dataset.messages, dataset.tools}
    if dataset.type == "labelled":
        return {dataset.text, dataset.label, *([dataset.text_pair] if dataset.text_pair else [])}
    if dataset.type in PLAIN:
        return {dataset.text, "file"}
    completion = "output" if dataset.type == "alpaca" else dataset.completion
    if dataset.prompt_template is not None:
        return {completion, *columns_of_templates(dataset)}
    return {completion, *(("instruction", "input") if dataset.type == "alpaca" else (dataset.prompt,))}


def columns_of_templates(dataset: Dataset) -> set[str]:
    """Raises UserError where one cannot be read."""
    found = templates.settled(dataset.prompt_template or "", dataset.no_input_template)
    return {name for template in found if template for name in templates.placeholders(template)}


def _templated(cells: dict[str, Any], dataset: Dataset, columns: list[str]) -> str:
    template, without_input = templates.settled(dataset.prompt_template or "", dataset.no_input_template)
    chosen = without_input if without_input and not _is_filled(cells.get(templates.INPUT)) else template
    return templates.filled(
        chosen, {name: _words(cells, name, "prompt_template", columns) for name in templates.placeholders(chosen)}
    )


def _chat(cells: dict[str, Any], dataset: Dataset, columns: list[str]) -> Chat:
    turns = turns_of(_column(cells, dataset.messages, "messages", columns))
    return Chat(turns, tuple(tools_of(cells.get(dataset.tools))))


def _continued(cells: dict[str, Any], dataset: Dataset, columns: list[str]) -> Chat:
    """A prompt of messages, and its answer as messages, one message or text; of the prompt nothing is trained on."""
    asked, answer = cells[dataset.prompt], _column(cells, dataset.completion, "completion", columns)
    if isinstance(answer, str):
        answer = {"role": "assistant", "content": answer}
    turns = turns_of([*asked, *(answer if isinstance(answer, list) else [answer])])
    return Chat([{**turn, TRAIN: False} if at < len(asked) else turn for at, turn in enumerate(turns)])


def _alpaca(cells: dict[str, Any], columns: list[str]) -> Pair:
    instruction = _words(cells, "instruction", None, columns)
    given = _words(cells, "input", None, columns) if _is_filled(cells.get("input")) else ""
    prompt = f"{instruction}\n\n{given}" if given else instruction
    return Pair(prompt, _words(cells, "output", None, columns))


def _is_blank(cells: dict[str, Any], dataset: Dataset, columns: list[str]) -> bool:
    return dataset.text in columns and not _is_filled(cells.get(dataset.text))


def _is_filled(value: Any) -> bool:
    return value is not None and (not isinstance(value, str) or bool(value.strip()))


FIXES = {
    None: "alpaca rows have instruction, input, output",
    "prompt_template": "`prompt_template` names it: correct it",
}
"""Of a column that is missing, by the setting that names it."""


def _column(cells: dict[str, Any], name: str, setting: str | None, columns: list[str]) -> Any:
    if name in columns and name not in cells:
        raise NotARow(f"column {name!r} is empty", "fill it, or leave the row out")
    if name not in cells:
        have = ", ".join(columns) or "none"
        fix = FIXES.get(setting, f"name the column with `{setting}:`")
        raise NotARow(f"no column {name!r} (it has {have})", fix)
    return cells[name]


def _words(cells: dict[str, Any], name: str, setting: str | None, columns: list[str]) -> str:
    """A column as text; numbers (a table's cells may be numbers) are written as JSON writes them."""
    value = _column(cells, name, setting, columns)
    if isinstance(value, dict | list):
        raise NotARow(
            f"column {name!r} is a {type(value).__name__}, not text", "write text, or use `type: chatml` for messages"
        )
    words = value if isinstance(value, str) else json.dumps(value)
    if not words.strip():
        raise NotARow(f"column {name!r} is empty", "fill it, or leave the row out")
    return words
