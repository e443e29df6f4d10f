"""Issue 17: the demonstrations of the Unified controller, in small (U02, U10)."""

from __future__ import annotations

import random

import pytest

from trainer import stress_demo
from trainer.data.tokens import IGNORED
from trainer.loop.batches import Batches


@pytest.fixture(autouse=True)
def few_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stress_demo, "STEPS", 12)


def test_answers_are_shuffled_from_the_onset_on_for_a_while_and_questions_never_are() -> None:
    rows, _ = stress_demo.demo_rows("tiny-toon")
    shocked = stress_demo.Shocked(rows[:8], micro_batch_size=8, seed=1)
    shocked.onset = 3
    plain = Batches(rows[:8], micro_batch_size=8, seed=1)
    changed = []
    for step in range(3 + stress_demo.SHOCK_STEPS + 2):
        [[*mine], [*other]] = [shocked.of_step(step)[0], plain.of_step(step)[0]]
        changed.append(any(a.ids != b.ids for a, b in zip(mine, other, strict=True)))
        for a, b in zip(mine, other, strict=True):
            start = list(b.labels).count(IGNORED)
            assert a.ids[:start] == b.ids[:start] and sorted(a.ids) == sorted(b.ids)
    assert changed == [False] * 3 + [True] * stress_demo.SHOCK_STEPS + [False] * 2


def test_recovery_is_counted_from_the_end_of_the_shock_until_the_loss_is_back() -> None:
    losses = {5: 2.0, 10: 1.0, 15: 3.0, 20: 4.0, 25: 2.5, 30: 2.0, 35: 1.01, 40: 0.9, 12: 0.9}
    found = stress_demo.found(losses, 10)
    assert (found.before, found.peak, found.final) == (1.0, 4.0, 0.9)
    assert found.recovery == 35 - 30 and found.forgot == 2.0


def test_of_two_tasks_that_contradict_each_other_clones_learn_both_and_one_adapter_neither() -> None:
    """U02: on real weights, with equal questions and opposite answers."""
    rows = random.Random(0).sample(stress_demo.opposed("tiny-toon"), 64)
    single, multi = (
        stress_demo.tasks_once(stress_demo.load("tiny-toon", "cpu"), rows, arm, 3e-3, 0) for arm in ("single", "multi")
    )
    assert max(multi[:2]) < 0.3 < 0.5 < max(single[:2])
    assert multi[2] > 0 == single[2]
