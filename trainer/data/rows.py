"""What a raw row means: a chat, a prompt with its completion, or plain text, by the dataset's `type`; nothing is rendered here."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from swarm.settings import Dataset
from trainer.data.files import BadRow, RawRow

CHAT_ROLES = ("system", "developer", "user", "assistant", "tool")

Turn = dict[str, Any]


@dataclass(frozen=True)
class Chat:
    """Messages; the assistant's are supervised."""

    turns: Sequence[Turn]


@dataclass(frozen=True)
class Pair:
    """A prompt and the completion that is supervised."""

    prompt: str
    completion: str


@dataclass(frozen=True)
class Text:
    """Plain text, supervised as a whole."""

    text: str


Row = Chat | Pair | Text


class NotARow(Exception):
    """What is wrong with a row, and the fix."""

    def __init__(self, what: str, fix: str) -> None:
        super().__init__(what)
        self.what, self.fix = what, fix


def understood(raw: RawRow, dataset: Dataset) -> Row | BadRow:
    try:
        return _row(raw.values, dataset)
    except NotARow as error:
        return BadRow(raw.where, error.what, error.fix, json.dumps(raw.values, ensure_ascii=False, default=str))


def _row(values: dict[str, Any], dataset: Dataset) -> Row:
    match dataset.type:
        case "chatml":
            return Chat(_turns(_column(values, dataset.messages, "messages")))
        case "alpaca":
            return _alpaca(values)
        case "prompt_completion" | "toon":
            prompt, completion = (
                _words(values, dataset.prompt, "prompt"),
                _words(values, dataset.completion, "completion"),
            )
            return Pair(prompt, completion)
        case "text":
            return Text(_words(values, dataset.text, "text"))


def _alpaca(values: dict[str, Any]) -> Pair:
    instruction, given = _words(values, "instruction", None), values.get("input") or ""
    prompt = f"{instruction}\n\n{given}" if given else instruction
    return Pair(prompt, _words(values, "output", None))


def _column(values: dict[str, Any], name: str, setting: str | None) -> Any:
    if values.get(name) is None:
        have = ", ".join(map(str, values)) or "none"
        fix = f"name the column with `{setting}:`" if setting else "alpaca rows have instruction, input, output"
        raise NotARow(f"no column {name!r} (it has {have})" if name not in values else f"column {name!r} is empty", fix)
    return values[name]


def _words(values: dict[str, Any], name: str, setting: str | None) -> str:
    """A column as text; numbers (a table's cells may be numbers) are written as JSON writes them."""
    value = _column(values, name, setting)
    if isinstance(value, dict | list):
        raise NotARow(
            f"column {name!r} is a {type(value).__name__}, not text", "write text, or use `type: chatml` for messages"
        )
    words = value if isinstance(value, str) else json.dumps(value)
    if not words.strip():
        raise NotARow(f"column {name!r} is empty", "fill it, or leave the row out")
    return words


def _turns(messages: Any) -> list[Turn]:
    if not isinstance(messages, list) or not messages:
        raise NotARow("messages is no list of messages", 'write [{"role": "user", "content": "..."}, ...]')
    turns = [_turn(number, message) for number, message in enumerate(messages, start=1)]
    if not any(turn["role"] == "assistant" for turn in turns):
        raise NotARow("no message of the assistant", "a row needs at least one answer to learn")
    return turns


def _turn(number: int, message: Any) -> Turn:
    if not isinstance(message, dict) or "role" not in message:
        raise NotARow(f"message {number} has no role", 'write {"role": "user", "content": "..."}')
    if message["role"] not in CHAT_ROLES:
        raise NotARow(f"message {number} has the role {message['role']!r}", f"use one of {', '.join(CHAT_ROLES)}")
    if not isinstance(message.get("content"), str) and not message.get("tool_calls"):
        raise NotARow(f"message {number} has no text as content", "write a string")
    return {key: value for key, value in message.items() if value is not None}  # Parquet fills absent keys with null
