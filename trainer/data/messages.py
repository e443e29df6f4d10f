"""Messages of a conversation, as OpenAI, Mistral or ShareGPT write them, as the turns that chat templates read.

What is understood: role and content, or from and value; text in parts; tool calls with their arguments as an object or as a string, also as
the `function_call` and the role `function` that OpenAI had before; `weight` and `train`; thoughts under `reasoning_content`, `reasoning` or `thinking`.
"""

from __future__ import annotations

import json
from typing import Any

from trainer.data.bad import NotARow

ROLES = ("system", "developer", "user", "assistant", "tool")
SHAREGPT_ROLES = {
    "human": "user", "user": "user", "gpt": "assistant", "chatgpt": "assistant", "bing": "assistant", "bard": "assistant",
    "model": "assistant", "assistant": "assistant", "system": "system", "tool": "tool", "observation": "tool",
    "function": "tool", "function_response": "tool", "function_call": "assistant", "developer": "developer",
}  # fmt: skip
THOUGHTS = ("reasoning_content", "thinking", "reasoning")
"""Keys of a message's thoughts; the first is the one that most templates read."""
TRAIN = "train"
"""Key of a turn: True or False where the row says whether the loss counts it."""

Turn = dict[str, Any]


def turns_of(messages: Any) -> list[Turn]:
    """Raises NotARow where they are no conversation with an answer to learn."""
    if isinstance(messages, str):
        messages = _parsed(messages)
    if not isinstance(messages, list) or not messages:
        raise NotARow("messages is no list of messages", 'write [{"role": "user", "content": "..."}, ...]')
    turns = [_turn(number, message) for number, message in enumerate(messages, start=1)]
    if not any(turn["role"] == "assistant" for turn in turns):
        raise NotARow("no message of the assistant", "a row needs at least one answer to learn")
    return turns


def tools_of(value: Any) -> list[dict[str, Any]]:
    """The tools of a conversation: a list of JSON schemas, or that as text."""
    if isinstance(value, str):
        value = _parsed(value) if value.strip() else None
    if not value:
        return []
    if not isinstance(value, list) or not all(isinstance(tool, dict) for tool in value):
        raise NotARow("tools is no list of objects", 'write [{"type": "function", "function": {...}}, ...]')
    return list(value)


def words_of_turn(turn: Turn) -> str:
    """All that a message says, for comparing rows."""
    message = {key: value for key, value in turn.items() if key != TRAIN}
    return (
        json.dumps(message, ensure_ascii=False, sort_keys=True)
        if set(message) > {"role", "content"}
        else " ".join((message["role"], message["content"]))
    )


def _parsed(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


def _turn(number: int, message: Any) -> Turn:
    if not isinstance(message, dict):
        raise NotARow(f"message {number} is no object", 'write {"role": "user", "content": "..."}')
    message = {key: value for key, value in message.items() if value is not None}
    if "role" not in message and "from" in message:
        message = _from_sharegpt(number, message)
    if "role" not in message:
        raise NotARow(f"message {number} has no role", 'write {"role": "user", "content": "..."}')
    message = _with_tool_calls(message)
    if message["role"] not in ROLES:
        raise NotARow(f"message {number} has the role {message['role']!r}", f"use one of {', '.join(ROLES)}")
    turn = {key: value for key, value in message.items() if key not in {"weight", TRAIN}}
    turn["content"] = _content(number, message)
    if calls := message.get("tool_calls"):
        turn["tool_calls"] = _calls(number, calls)
    else:
        turn.pop("tool_calls", None)
    _mark(number, message, turn)
    if turn["role"] == "assistant" and turn.get(TRAIN) is not False and _is_silent(turn):
        raise NotARow(f"message {number} (assistant) is empty", "fill it, or leave the row out")
    return turn


def _from_sharegpt(number: int, message: dict[str, Any]) -> dict[str, Any]:
    name = message["from"]
    if not isinstance(name, str) or name not in SHAREGPT_ROLES:
        known = ", ".join(SHAREGPT_ROLES)
        raise NotARow(f"message {number} is from {name!r}", f"use one of {known}")
    rest = {key: value for key, value in message.items() if key not in {"from", "value"}}
    value = message.get("value", "")
    if name == "function_call":
        return {**rest, "role": "assistant", "content": "", "tool_calls": _function_calls(number, value)}
    return {**rest, "role": SHAREGPT_ROLES[name], "content": value}


def _with_tool_calls(message: dict[str, Any]) -> dict[str, Any]:
    """A message of the older form, with one call and its result, as those of today."""
    role = "tool" if message["role"] == "function" else message["role"]
    if not (call := message.get("function_call")) or message.get("tool_calls"):
        return {**message, "role": role}
    rest = {key: value for key, value in message.items() if key != "function_call"}
    return {**rest, "role": role, "tool_calls": [{"type": "function", "function": call}]}


def _function_calls(number: int, value: Any) -> list[Any]:
    """A call, or several, as {"name": ..., "arguments": ...} in text."""
    parsed = _parsed(value) if isinstance(value, str) else value
    calls = parsed if isinstance(parsed, list) else [parsed]
    if not all(isinstance(call, dict) and "name" in call for call in calls):
        raise NotARow(f"message {number} is no function call", 'write {"name": "...", "arguments": {...}}')
    return [{"type": "function", "function": call} for call in calls]


def _content(number: int, message: dict[str, Any]) -> str:
    content = message.get("content")
    if content is None and message["role"] == "assistant":
        return ""  # it calls a tool; else it is refused as empty
    if isinstance(content, str):
        return content
    if isinstance(content, list):
        return "".join(_part(number, part) for part in content)
    if message["role"] == "tool" and content is not None:
        return json.dumps(content, ensure_ascii=False)
    raise NotARow(f"message {number} has no text as content", "write a string, or a list of text parts")


def _part(number: int, part: Any) -> str:
    if isinstance(part, str):
        return part
    if isinstance(part, dict) and part.get("type", "text") in {"text", "input_text", "output_text"}:
        text = part.get("text", "")
        if isinstance(text, str):
            return text
    kind = part.get("type") if isinstance(part, dict) else type(part).__name__
    raise NotARow(f"message {number} has a part of type {kind!r}; only text is read", "leave such rows out")


def _calls(number: int, calls: Any) -> list[dict[str, Any]]:
    if not isinstance(calls, list) or not all(isinstance(call, dict) for call in calls):
        raise NotARow(f"message {number} has tool_calls that are no list of objects", "write them as OpenAI does")
    return [_call(number, call) for call in calls]


def _call(number: int, call: dict[str, Any]) -> dict[str, Any]:
    """A call with its arguments as an object, which is what most templates read; `render` tries the text form too."""
    function = call.get("function", call)
    if not isinstance(function, dict) or not isinstance(function.get("name"), str) or not function["name"].strip():
        raise NotARow(f"message {number} calls a tool without a name", 'write {"function": {"name": "...", ...}}')
    arguments = function.get("arguments", {})
    if isinstance(arguments, str):
        parsed = _parsed(arguments) if arguments.strip() else {}
        arguments = parsed if isinstance(parsed, dict) else arguments
    made = {**function, "arguments": arguments}
    return {**call, "function": made} if "function" in call else {"type": "function", "function": made}


def _mark(number: int, message: dict[str, Any], turn: Turn) -> None:
    """`weight` and `train` of a message say whether the loss counts it."""
    marks = [(key, message[key]) for key in ("weight", TRAIN) if key in message]
    for key, value in marks:
        if isinstance(value, str) or value not in (0, 1):
            raise NotARow(f"message {number} has {key} {value!r}", "write 0 or 1, or true or false")
    if not marks:
        return
    turn[TRAIN] = all(bool(value) for _, value in marks)
    if turn[TRAIN] and turn["role"] != "assistant" and TRAIN in message:
        what = f"message {number} is the {turn['role']}'s and is marked for training"
        raise NotARow(what, "mark the assistant's messages only")


def _thoughts(message: dict[str, Any]) -> str:
    return next((message[key] for key in THOUGHTS if isinstance(message.get(key), str)), "")


def _is_silent(turn: Turn) -> bool:
    return not turn["content"].strip() and not turn.get("tool_calls") and not _thoughts(turn).strip()
