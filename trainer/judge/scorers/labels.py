"""Scores of labels: how many are right, and F1 of each label, whose mean does not let a frequent one hide a rare one."""

from __future__ import annotations

from collections.abc import Sequence

from trainer.judge.scorers import Given


def accuracy(given: Given) -> float:
    return given.text == given.expected


def f1(given: Given) -> float:
    """Of one answer: whether it is right."""
    return given.text == given.expected


positive_f1 = f1


def f1_of_the_last(given: Sequence[Given]) -> float:
    """Of the label that stands last in `labels`, or in order of the alphabet where the method has none."""
    labels = getattr(given[0].settings, "labels", None) or sorted({one.expected for one in given})
    return _f1(labels[-1], [(one.expected, one.text) for one in given])


def mean_f1(given: Sequence[Given]) -> float:
    """The mean over the labels that stand in the rows or in the answers (macro F1)."""
    pairs = [(one.expected, one.text) for one in given]
    labels = sorted({label for pair in pairs for label in pair})
    return sum(_f1(label, pairs) for label in labels) / len(labels)


def _f1(label: str, pairs: Sequence[tuple[str, str]]) -> float:
    right = sum(label == expected == answer for expected, answer in pairs)
    named = sum(expected == label for expected, _ in pairs) + sum(answer == label for _, answer in pairs)
    return 2 * right / named if named else 0.0


WHOLE = {"f1": mean_f1, "positive_f1": f1_of_the_last}
