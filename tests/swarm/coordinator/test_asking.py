"""Optuna is asked in a process of its own (issue 21): an answer, or the reason why there is none."""

from __future__ import annotations

import asyncio

import pytest

from swarm.coordinator.asking import answer


def test_the_process_answers_for_a_pruner_and_for_a_sampler() -> None:
    course = [{"trial": "a", "step": 5, "loss": 3.0, "ended": False}, {"trial": "b", "step": 5, "loss": 1.0, "ended": False}]  # fmt: skip
    pruner = {"type": "threshold", "upper": 2.0}
    assert asyncio.run(answer({"pruner": pruner, "course": course})) == {"a": 0}
    search = {"space": {"lora_r": [4, 8]}, "sampler": "qmc", "trials": 2}
    trials = [{"values": {"lora_r": 4}, "losses": [], "state": "running"}]
    assert asyncio.run(answer({"search": search, "trials": trials})) == {"lora_r": 8}


def test_without_an_answer_the_reason_is_the_last_line_of_what_the_process_says() -> None:
    with pytest.raises(ValueError, match="lower should be smaller than upper"):
        asyncio.run(answer({"pruner": {"type": "threshold", "lower": 2.0, "upper": 1.0}, "course": [{"trial": "a", "step": 1, "loss": 1.0, "ended": False}]}))  # fmt: skip
