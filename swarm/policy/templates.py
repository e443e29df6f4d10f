"""Prompt templates: text with `{column}` where a row's value belongs; `{{` and `}}` are braces.  Pure."""

from __future__ import annotations

from collections.abc import Mapping
from string import Formatter

from swarm.errors import UserError

ALPACA = "alpaca"
_OPENING = "Below is an instruction that describes a task"
_ASKED = "Write a response that appropriately completes the request.\n\n### Instruction:\n{instruction}\n\n"
_WITH_INPUT = (
    f"{_OPENING}, paired with an input that provides further context. {_ASKED}### Input:\n{{input}}\n\n### Response:"
)
BUILT_IN = {ALPACA: (_WITH_INPUT, f"{_OPENING}. {_ASKED}### Response:")}
"""By name: with an input, and without one.  Source: tatsu-lab/stanford_alpaca, train.py, PROMPT_DICT."""
INPUT = "input"
"""The column whose emptiness chooses the second template."""


def settled(template: str, without_input: str | None) -> tuple[str, str | None]:
    """Both templates; a name stands for built-in ones."""
    return BUILT_IN.get(template, (template, without_input))


def placeholders(template: str) -> tuple[str, ...]:
    """The columns that it names.  Raises UserError where it is no template."""
    try:
        parts = list(Formatter().parse(template))
    except ValueError as error:
        what = f"cannot be read ({error})"
        raise UserError("prompt_template", what, "write {{ and }} for braces that name no column") from None
    named = [name for _, name, form, conversion in parts if name is not None and not _is_plain(name, form, conversion)]
    if named:
        fix = "write {column} alone, and {{ and }} for braces that name no column"
        raise UserError("prompt_template", f"{{{named[0]}}} is no name of a column", fix)
    found = tuple(dict.fromkeys(name for _, name, _, _ in parts if name))
    if not found:
        fix = f"write {{column}} where a row's value belongs, or one of {', '.join(BUILT_IN)}"
        raise UserError("prompt_template", "names no column", fix)
    return found


def _is_plain(name: str, form: str | None, conversion: str | None) -> bool:
    return bool(name) and not form and conversion is None


def filled(template: str, values: Mapping[str, str]) -> str:
    return "".join(
        text + (values[name] if name is not None else "") for text, name, _, _ in Formatter().parse(template)
    )
