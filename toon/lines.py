"""Splits a document's text into lines (specification section 12, decoding steps 1 to 4) without validating them."""

from __future__ import annotations

COMMENT = "#"
"""What a comment line becomes: it keeps its place, so that lines can be counted, and says nothing."""


def prepared(text: str) -> list[str]:
    """Lines without CR and trailing spaces, comments blanked. A step that no line needs is skipped."""
    lines = text.split("\n")
    if "\r" in text:
        lines = [line.removesuffix("\r") for line in lines]
        spaces = True
    else:
        spaces = " \n" in text or text.endswith(" ")
    if spaces:
        lines = [line.rstrip(" ") for line in lines]
    if "#" in text:
        lines = [COMMENT if line.lstrip(" ").startswith("#") else line for line in lines]
    return lines
