"""Reasons as screens have room for: what is wrong of a failure (`place: what is wrong; the fix`), how far work without steps is; pure."""

from __future__ import annotations

import re

from swarm import units
from swarm.views.snapshot import StreamRow

FOLDERS = re.compile(r"(?<![\w.~])(?:~|\.{1,2})?/(?:[^\s/:;,'\"]+/)+")
"""The folders of a path, without the name of the file."""
ROLE = re.compile(r"^(?:again: )?(?:prepare|train|validate|evaluate): ")
"""The role, which the row shows in its own column."""


FIX = re.compile(r"; [^;]*$")
"""The fix; the detail pane and the log show it."""


PLACE = re.compile(r"^[^\s:]+:\d+: ")
"""File and line, which a person has to open: such a reason is cut from the right."""


WORDS = {"prepare": "rows", "validate": "passes", "evaluate": "passes"}
"""What is counted in the roles that have no steps: rows, or forward passes through the model, one for each token of an answer."""


def work(row: StreamRow) -> str:
    """What a task without steps has done so far: `12 passes · for 8s`; empty in other states."""
    if row.state not in WORDS or row.held_seconds is None:
        return ""
    counted = f"{row.done:,} {WORDS[row.state]} · " if row.done else ""
    return f"{counted}for {units.duration(row.held_seconds)}"


def short(text: str, characters: int) -> str:
    """The reason in at most so many characters: role, folders and fix are removed in turn, then the text is cut from the left."""
    if len(text) <= characters:
        return text
    for what in (ROLE, FOLDERS, FIX):
        text = what.sub("", text)
        if len(text) <= characters:
            return text
    if PLACE.match(text):
        return f"{text[: max(0, characters - 1)]}…"
    cut = text[len(text) - max(0, characters - 1) :]
    word = cut.find(" ")
    if 0 <= word < characters // 3:
        cut = cut[word + 1 :]
    return f"…{cut}"
