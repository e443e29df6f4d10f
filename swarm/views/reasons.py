"""Reasons of failures (`place: what is wrong; the fix`) in little room: what is wrong is what stays; pure."""

from __future__ import annotations

import re

FOLDERS = re.compile(r"(?<![\w.~])(?:~|\.{1,2})?/(?:[^\s/:;,'\"]+/)+")
"""The folders of a path in a text; the file's name stands behind them."""
ROLE = re.compile(r"^(?:again: )?(?:prepare|train|validate|evaluate): ")
"""Whose work it was: the row says so too."""


FIX = re.compile(r"; [^;]*$")
"""What to do about it; the detail pane and the log have it."""


PLACE = re.compile(r"^[^\s:]+:\d+: ")
"""The file and line that a person has to open: it stays, and the rest is cut from the right."""


def short(text: str, characters: int) -> str:
    """The reason in at most so many characters: without the role, then the folders, then the fix, then cut."""
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
