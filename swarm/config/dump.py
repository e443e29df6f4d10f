"""A run's settings as YAML text: one setting per line, with its origin as a comment."""

from __future__ import annotations

import json
import re
from typing import Any

from swarm.printable import visible
from swarm.settings import RunSettings

HEAD = """\
# Every setting of this run and where it came from.  `swarm resume` reads this file.
"""
PLAIN_TEXT = re.compile(r"[A-Za-z/][A-Za-z0-9_./-]*")
"""Text that needs no quotes in YAML, unless it is one of WORDS."""
WORDS = {"true", "false", "null", "yes", "no", "on", "off", "y", "n"}
COMMENT_COLUMN = 60
EXACT = 1e15
"""Whole numbers below it are written without a point."""


def text(run: RunSettings, origins: dict[str, str]) -> str:
    lines: list[tuple[str, str]] = []
    _write_group(run.dumped(), "", 0, origins, lines)
    return HEAD + "".join(f"{line:<{COMMENT_COLUMN}} # {origin}\n" if origin else f"{line}\n" for line, origin in lines)


def _write_group(
    group: dict[str, Any], path: str, indent: int, origins: dict[str, str], lines: list[tuple[str, str]]
) -> None:
    for key, value in group.items():
        below = f"{path}.{key}" if path else key
        head = f"{' ' * indent}{_scalar(key)}:"
        match value:
            case dict() if value:
                lines.append((head, ""))
                _write_group(value, below, indent + 2, origins, lines)
            case [dict(), *_]:
                lines.append((head, ""))
                for number, item in enumerate(value):
                    _write_item(item, f"{below}.{number}", indent + 2, origins, lines)
            case _:
                lines.append((f"{head} {_value(value)}", visible(origins.get(below, ""))))


def _write_item(
    item: dict[str, Any], path: str, indent: int, origins: dict[str, str], lines: list[tuple[str, str]]
) -> None:
    """A group in a list: its first line carries the dash."""
    start = len(lines)
    _write_group(item, path, indent + 2, origins, lines)
    line, origin = lines[start]
    lines[start] = (f"{' ' * indent}- {line.lstrip()}", origin)


def _value(value: Any) -> str:
    return f"[{', '.join(map(_scalar, value))}]" if isinstance(value, list) else _scalar(value)


def flow(value: Any) -> str:
    """Any value on one line, as `key.path=VALUE` takes it."""
    match value:
        case dict():
            return f"{{{', '.join(f'{_scalar(key)}: {flow(below)}' for key, below in value.items())}}}"
        case list():
            return f"[{', '.join(map(flow, value))}]"
        case _:
            return _scalar(value)


def _scalar(value: Any) -> str:
    match value:
        case str() if PLAIN_TEXT.fullmatch(value) and value.lower() not in WORDS:
            return value
        case str():
            return _quoted(value)
        case dict():
            return "{}"
        case float() if value.is_integer() and abs(value) < EXACT:
            return str(int(value))
        case _:
            return json.dumps(value)


def _quoted(value: str) -> str:
    """In double quotes with YAML's escapes; JSON's write a character above U+FFFF as two."""
    escaped = value.replace("\\", "\\\\").replace('"', '\\"')
    return '"' + "".join(sign if sign.isprintable() else f"\\U{ord(sign):08X}" for sign in escaped) + '"'
