"""How rows are read, by the names of their columns, where `type: auto` leaves it open; pure."""

from __future__ import annotations

from collections.abc import Sequence

PAIRS = (
    ("prompt", "completion"), ("question", "answer"), ("instruction", "output"), ("instruction", "response"),
    ("input", "output"), ("source", "target"), ("query", "response"), ("prompt", "chosen"),
)  # fmt: skip
"""Pairs of column names that usually hold prompt and completion."""
Choice = tuple[tuple[str, str], ...]
"""`type`, and the columns whose names are not the default."""


def guessed(columns: Sequence[str]) -> Choice | None:
    """The row type that fits the columns, or None."""
    if "messages" in columns or "conversations" in columns:
        name = "messages" if "messages" in columns else "conversations"
        return (("type", "chatml"), *((("messages", name),) if name != "messages" else ()))
    if {"instruction", "output"} <= set(columns):
        return (("type", "alpaca"),)
    for prompt, completion in PAIRS:
        if prompt in columns and completion in columns:
            return (("type", "prompt_completion"), ("prompt", prompt), ("completion", completion))
    if {"chosen", "rejected"} <= set(columns):
        return (("type", "chatml"), ("messages", "chosen"))
    return (("type", "text"),) if "text" in columns else None
