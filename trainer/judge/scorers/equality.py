"""Is the answer the expected one, and does it stop by itself?"""

from __future__ import annotations

import string

from trainer.judge.scorers import Given

NO_PUNCTUATION = str.maketrans("", "", string.punctuation)


def exact_match(given: Given) -> float:
    """Leading and trailing blanks aside."""
    return given.text == given.expected


def exact_match_normalised(given: Given) -> float:
    """Case, ASCII punctuation and white space do not count."""
    return normalised(given.text) == normalised(given.expected)


def normalised(text: str) -> str:
    return " ".join(text.lower().translate(NO_PUNCTUATION).split())


def ended(given: Given) -> float:
    """Within `eval_max_new_tokens`."""
    return given.answer.ended
