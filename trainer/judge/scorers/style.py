"""How an answer looks: headings, lists, bold, length, banned strings, speed; of the generated text alone."""

from __future__ import annotations

import re
from collections.abc import Sequence

from trainer.judge.scorers import Given

HEADING = re.compile(r"^#{1,3} ", re.MULTILINE)
ITEM = re.compile(r"^\s*(?:[-*+]|\d+[.)]) ", re.MULTILINE)
BOLD = re.compile(r"\*\*[^*\n]+\*\*|__[^_\n]+__")


def headings(given: Given) -> float:
    return HEADING.search(given.text) is not None


def lists(given: Given) -> float:
    return ITEM.search(given.text) is not None


def bold(given: Given) -> float:
    return BOLD.search(given.text) is not None


def words(given: Given) -> float:
    return len(given.text.split())


def banned(given: Given) -> float:
    """How often any of `banned_strings` stands in it."""
    return sum(given.text.count(string) for string in given.settings.banned_strings)


def answer_tokens_per_second(given: Given) -> float:
    return given.answer.tokens / max(given.answer.seconds, 1e-9)


def _all_tokens_per_second(given: Sequence[Given]) -> float:
    return sum(one.answer.tokens for one in given) / max(1e-9, sum(one.answer.seconds for one in given))


WHOLE = {"answer_tokens_per_second": _all_tokens_per_second}
