"""What a model may not bring with the overrides of a run that it starts: code, commands, and addresses that get answers or keys.

A config on disk is its user's; the words beside it may come of whatever the model has read.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from swarm import config
from swarm.errors import UserError, UserErrors
from swarm.settings import RunSettings


def refuse_code(path: Path, words: Sequence[str]) -> Sequence[str]:
    """The words themselves.  Raises UserError, UserErrors."""
    if words and path.is_file():
        known = _given(path, ())
        for key, value in _risks(config.load(path, words, cwd=Path.cwd()).run):
            if (key, value) not in known:
                fix = "write it into the config, which is its user's to decide, or leave it out"
                raise UserError("overrides", f"{key} cannot be changed over MCP", fix)
    return words


def _given(path: Path, words: Sequence[str]) -> list[tuple[str, Any]]:
    """Of the config alone; nothing where it is not whole without the words."""
    try:
        return list(_risks(config.load(path, words, cwd=Path.cwd()).run))
    except (UserError, UserErrors):
        return []


def _risks(run: RunSettings) -> Iterator[tuple[str, Any]]:
    yield from (("alerts", alert) for alert in run.alerts)
    for stream in run.streams.values():
        yield from [("judge", stream.judge)] if stream.judge else []
        yield from (("trust_remote_code", part.base_model) for part in stream.parts.values() if part.trust_remote_code)
