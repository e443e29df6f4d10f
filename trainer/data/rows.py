"""What a raw row means: a chat, a prompt with its completion, or plain text, by the dataset's `type`; nothing is rendered here."""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from swarm.settings import Dataset
from trainer.data.bad import NotARow
from trainer.data.gate import plain_row
from trainer.data.messages import Turn, tools_of, turns_of, words_of_turn
from trainer.data.raw import RawRow


@dataclass(frozen=True)
class Chat:
    """Messages; the assistant's are supervised."""

    turns: Sequence[Turn]
    tools: Sequence[dict[str, Any]] = ()
    """What the assistant may call, as JSON schemas."""

    def words(self) -> list[str]:
        return [json.dumps(self.tools, sort_keys=True)] * bool(self.tools) + [
            words_of_turn(turn) for turn in self.turns
        ]


@dataclass(frozen=True)
class Pair:
    """A prompt and the completion that is supervised."""

    prompt: str
    completion: str
    separator: str = "\n"
    """Between the two on a base without a chat template."""

    def words(self) -> list[str]:
        return [self.prompt, self.completion]


@dataclass(frozen=True)
class Text:
    """Plain text, supervised as a whole."""

    text: str

    def words(self) -> list[str]:
        return [self.text]


Row = Chat | Pair | Text


def normalised(row: Row) -> str:
    """Rows that a reader would call equal have equal ones: compatibility forms, case and white space do not count."""
    parts = (" ".join(unicodedata.normalize("NFKC", part).casefold().split()) for part in row.words())
    return "\x00".join(parts)


def read(raw: RawRow, dataset: Dataset) -> Row:
    """A raw row by the dataset's type; raises NotARow."""
    cells, columns = plain_row(raw.values, filled=raw.filled), list(raw.values)
    match dataset.type:
        case "chatml":
            return _chat(cells, dataset, columns)
        case "alpaca":
            return _alpaca(cells, columns)
        case "prompt_completion" | "toon":
            prompt = _words(cells, dataset.prompt, "prompt", columns)
            return Pair(prompt, _words(cells, dataset.completion, "completion", columns), dataset.separator)
        case "text":
            return Text(_words(cells, dataset.text, "text", columns))


def columns_read(dataset: Dataset) -> frozenset[str]:
    """The columns that `read` looks at; any other is not used."""
    match dataset.type:
        case "chatml":
            return frozenset({dataset.messages, dataset.tools})
        case "alpaca":
            return frozenset({"instruction", "input", "output"})
        case "prompt_completion" | "toon":
            return frozenset({dataset.prompt, dataset.completion})
        case "text":
            return frozenset({dataset.text})


def _chat(cells: dict[str, Any], dataset: Dataset, columns: list[str]) -> Chat:
    turns = turns_of(_column(cells, dataset.messages, "messages", columns))
    return Chat(turns, tuple(tools_of(cells.get(dataset.tools))))


def _alpaca(cells: dict[str, Any], columns: list[str]) -> Pair:
    instruction = _words(cells, "instruction", None, columns)
    given = _words(cells, "input", None, columns) if _is_filled(cells.get("input")) else ""
    prompt = f"{instruction}\n\n{given}" if given else instruction
    return Pair(prompt, _words(cells, "output", None, columns))


def _is_filled(value: Any) -> bool:
    return value is not None and (not isinstance(value, str) or bool(value.strip()))


def _column(cells: dict[str, Any], name: str, setting: str | None, columns: list[str]) -> Any:
    if name not in cells:
        have = ", ".join(columns) or "none"
        fix = f"name the column with `{setting}:`" if setting else "alpaca rows have instruction, input, output"
        raise NotARow(
            f"no column {name!r} (it has {have})" if name not in columns else f"column {name!r} is empty", fix
        )
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
