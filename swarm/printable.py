"""Makes text from other people safe to show: it cannot control a terminal, overwrite a line or imitate another line.

The one place where this is done: for the log's file (`without_control`), for lines (`one_line`, `visible`), for text of
several lines (`printable`) and for a name inside a message (`in_message`).
"""

from __future__ import annotations

import re
from unicodedata import category

HARMLESS = "\n\t\u200c\u200d"
"""Line breaks, tabs, and the two marks that join or separate letters and emoji (ZWJ, ZWNJ)."""
TEXT_CHARACTERS = 400
"""Longest text of an author in a line; `swarm log --json` has all of it."""
CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]|\r(?!\n)")


def one_line(text: str | None, characters: int = TEXT_CHARACTERS) -> str:
    """An author's text as printable characters of one line, cut at `characters`."""
    safe = visible(" ".join((text or "")[: 4 * characters].split()))
    return safe if len(safe) <= characters else f"{safe[:characters]}…"


def visible(text: str, keep: str = "") -> str:
    """The text with an escape code for each character that is neither printable nor one of `keep`."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c in keep else code_of(c) for c in text)


def printable(text: str) -> str:
    """Text of several lines with escape codes for control characters; white space and joined letters stay."""
    if text.isprintable():
        return text
    return visible(text, HARMLESS + "".join({c for c in text if category(c) == "Zs"}))


def in_message(text: str) -> str:
    """A user's key or path inside a message of one line; quoted where it is empty or not printable."""
    return text if text and text.isprintable() else repr(text)


def without_control(text: str) -> str:
    """Text for a file: escape codes for control characters and for halves of surrogate pairs."""
    safe = CONTROL.sub(lambda found: code_of(found[0]), text)
    return safe if safe.isascii() else safe.encode("utf-8", "backslashreplace").decode()


def code_of(character: str) -> str:
    return character.encode("unicode_escape").decode()
