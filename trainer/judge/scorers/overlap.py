"""How much of the expected text an answer holds: ROUGE by rouge-score (without stemming), BLEU and chrF by sacrebleu, as they stand."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from trainer.judge.scorers import Given, package_of


def rouge_1(given: Given) -> float:
    return _rouge(given.expected, given.text)["rouge1"]


def rouge_2(given: Given) -> float:
    return _rouge(given.expected, given.text)["rouge2"]


def rouge_l(given: Given) -> float:
    return _rouge(given.expected, given.text)["rougeL"]


@lru_cache(maxsize=4096)
def _rouge(expected: str, text: str) -> dict[str, float]:
    """F1 of each."""
    scores: dict[str, Any] = _rouge_scorer().score(expected, text)
    return {name: float(score.fmeasure) for name, score in scores.items()}


@lru_cache(maxsize=1)
def _rouge_scorer() -> Any:
    package_of("rouge_1")
    from rouge_score.rouge_scorer import RougeScorer

    return RougeScorer(["rouge1", "rouge2", "rougeL"])


def bleu(given: Given) -> float:
    """Of one answer: sacrebleu's sentence BLEU, with effective order."""
    return float(package_of("bleu").sentence_bleu(given.text, [given.expected]).score)


def chrf(given: Given) -> float:
    return float(package_of("chrf").sentence_chrf(given.text, [given.expected]).score)


def _corpus_bleu(given: Sequence[Given]) -> float:
    return float(package_of("bleu").corpus_bleu(*_texts(given)).score)


def _corpus_chrf(given: Sequence[Given]) -> float:
    return float(package_of("chrf").corpus_chrf(*_texts(given)).score)


def _texts(given: Sequence[Given]) -> tuple[list[str], list[list[str]]]:
    return [one.text for one in given], [[one.expected for one in given]]


WHOLE = {"bleu": _corpus_bleu, "chrf": _corpus_chrf}
