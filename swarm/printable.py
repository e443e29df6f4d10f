"""An author's text made fit for a screen: nothing in it can steer a terminal, draw over a line or pass for another one."""

from __future__ import annotations

from unicodedata import category

HARMLESS = "\n\t\u200c\u200d"
"""Line breaks and tabs, and what joins letters and pictures, or keeps them apart."""
TEXT_CHARACTERS = 400
"""Of an author's text in a line; `swarm log --json` has all of it."""


def one_line(text: str | None, characters: int = TEXT_CHARACTERS) -> str:
    """An author's text as printable characters of one line, cut at `characters`."""
    words = " ".join((text or "")[: 4 * characters].split())
    safe = "".join(c if c.isprintable() else code_of(c) for c in words)
    return safe if len(safe) <= characters else f"{safe[:characters]}…"


def printable(text: str) -> str:
    """Text of several lines with everything that could steer a terminal as its code; white space and joined letters stay."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c in HARMLESS or category(c) == "Zs" else code_of(c) for c in text)


def code_of(character: str) -> str:
    return character.encode("unicode_escape").decode()
