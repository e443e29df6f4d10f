"""A document's text as prepared lines (specification section 12, decoding steps 1 to 4); judges none of them."""

from __future__ import annotations

COMMENT = "#"
"""What a comment line becomes: it keeps its place, so that lines can be counted, and says nothing."""


def prepared(text: str) -> list[str]:
    """Lines without their CR and trailing spaces, comments blotted out. Each step is skipped where no line can need it."""
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
