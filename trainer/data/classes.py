"""The class of each token, of a control adapter's rows: kept beside ids and labels, and read by whoever computes with the adapter.

1, -1    the class of the token's dataset
2, -2    neutral text, taken as 1 or -1: which of them the content of its row or document says
0        the adapter adds nothing: what is not supervised, and by default what stands before the text itself
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import dropwhile

from swarm.settings import Dataset
from trainer.data.tokens import IGNORED, Tokens

NEUTRAL = 2


def classes_of(row: Tokens, dataset: Dataset) -> list[int]:
    own = dataset.control_class or NEUTRAL * (1 if row.fingerprint[-1] % 2 else -1)
    found = [own if label != IGNORED else 0 for label in row.labels]
    before = len(found) - sum(1 for _ in dropwhile(lambda one: not one, found))
    return [*[dataset.prefix_class] * before, *found[before:]]


def predicted(classes: Sequence[int], length: int) -> list[int]:
    """By position: the class of the token that it predicts, 0 of the last one, which predicts none; without classes all are 1."""
    return [*classes[1:], 0] if classes else [1] * length
