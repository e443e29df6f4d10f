"""How a function becomes a tool for MCP clients: the smallest schema that says the same, and refusals with their reasons."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable
from typing import Any, ParamSpec

from mcp.server.mcpserver.exceptions import ToolError
from mcp.server.mcpserver.tools import Tool
from pydantic import ValidationError

from swarm.errors import UserError, UserErrors
from swarm.log import LogError
from swarm.printable import printable

REASON_CHARACTERS = 4000
COMMAND = re.compile(r"`swarm ([a-z-]+)[^`]*`")
TOOL_OF = {
    **dict.fromkeys(("renew", "done", "drop", "hand"), "settle"),
    **dict.fromkeys(("approve", "object"), "judge"),
    **dict.fromkeys(("pause", "resume", "stop", "clone", "add", "task", "yield"), "steer"),
    **dict.fromkeys(("status", "inbox"), "digest"),
    **dict.fromkeys(("run", "open", "plan", "check", "runs"), "runs"),
    "log": "read_log", "export": "metrics",
}  # fmt: skip
"""The tool that does what a command does."""

Words = ParamSpec("Words")


def tool_of(call: Callable[..., str]) -> Tool:
    """The tool with the smallest equivalent schema: every byte of it is read again with every request."""
    tool = Call.from_function(with_reasons(call), structured_output=False)
    tool.parameters = untitled(tool.parameters)
    return tool


def untitled(schema: Any) -> Any:
    """The schema without titles that repeat the names, and without defaults that mean: not given."""
    match schema:
        case {"anyOf": [given, {"type": "null"}]}:
            return untitled(given)
        case dict():
            empty = {"title"} | ({"default"} if schema.get("default") in {"", 0} else set())
            return {
                key: untitled(value) for key, value in schema.items() if key not in empty or isinstance(value, dict)
            }
        case list():
            return [untitled(item) for item in schema]
        case _:
            return schema


def with_reasons(tool: Callable[Words, str]) -> Callable[Words, str]:
    """The same tool; an error that the model can correct reaches it with its reason, as text that can do no harm in a terminal."""

    @functools.wraps(tool)
    def call(*words: Words.args, **named: Words.kwargs) -> str:
        try:
            return tool(*words, **named)
        except (UserError, UserErrors, LogError, OSError) as error:
            raise ToolError(shortened(printable(in_tools(str(error))))) from error
        except ValueError as error:  # a NUL in a path, half of a surrogate pair
            what = f"arguments: {error}; write text without control characters"
            raise ToolError(shortened(printable(what))) from error

    return call


def shortened(reason: str) -> str:
    """A refusal repeats what was given, which may be of any length; what it says of that stands at its end."""
    half = REASON_CHARACTERS // 2
    return reason if len(reason) <= REASON_CHARACTERS else f"{reason[:half]}…{reason[-half:]}"


def in_tools(reason: str) -> str:
    """A refusal's commands as the tools that do the same, its options as their arguments."""
    return COMMAND.sub(lambda found: f"`{TOOL_OF.get(found[1], found[1])}`", reason).replace("`--", "`")


class Call(Tool):
    """A tool whose refusal of wrong arguments names them, without the schema's own wording."""

    async def run(self, arguments: dict[str, Any], *rest: Any, **named: Any) -> Any:
        try:
            self.fn_metadata.validate_arguments(arguments)
        except ValidationError as error:
            wrong = [f"{'.'.join(map(str, one['loc']))}: {one['msg'].lower()}" for one in error.errors()]
            raise ToolError(f"{self.name}: {'; '.join(wrong)}; the tool's schema names what it takes") from error
        try:
            return await super().run(arguments, *rest, **named)
        except ToolError as error:
            raise ToolError(str(error).removeprefix(f"Error executing tool {self.name}: ")) from error
