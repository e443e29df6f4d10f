"""Text of others made fit for a screen: nothing in it can steer a terminal, draw over a line or pass for another one.

The one place where this is done: for the log's file (`without_control`), for lines (`one_line`, `visible`), for text of
several lines (`printable`) and for a name inside a message (`in_message`).
"""

from __future__ import annotations

import re
from unicodedata import category

HARMLESS = "\n\t\u200c\u200d"
"""Line breaks and tabs, and the two marks that join or separate letters and pictures."""
TEXT_CHARACTERS = 400
"""Of an author's text in a line; `swarm log --json` has all of it."""
CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]|\r(?!\n)")


def one_line(text: str | None, characters: int = TEXT_CHARACTERS) -> str:
    """An author's text as printable characters of one line, cut at `characters`."""
    safe = visible(" ".join((text or "")[: 4 * characters].split()))
    return safe if len(safe) <= characters else f"{safe[:characters]}…"


def visible(text: str, keep: str = "") -> str:
    """The text with the code in place of each character that is not printable and not one of `keep`."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c in keep else code_of(c) for c in text)


def printable(text: str) -> str:
    """Text of several lines with everything that could steer a terminal as its code; white space and joined letters stay."""
    if text.isprintable():
        return text
    return visible(text, HARMLESS + "".join({c for c in text if category(c) == "Zs"}))


def in_message(text: str) -> str:
    """A key or a path of a user's inside a message of one line: as it is, or quoted where it would be misread."""
    return text if text and text.isprintable() else repr(text)


def without_control(text: str) -> str:
    """Text for a file that terminals show: control characters, and halves of surrogate pairs, as their codes."""
    safe = CONTROL.sub(lambda found: code_of(found[0]), text)
    return safe if safe.isascii() else safe.encode("utf-8", "backslashreplace").decode()


def code_of(character: str) -> str:
    return character.encode("unicode_escape").decode()
