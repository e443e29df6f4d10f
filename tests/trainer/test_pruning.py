"""`python -m trainer suggest`: Optuna's pruners through the course of a log (issue 21, G21)."""

from __future__ import annotations

import inspect
import random
from typing import Any

import optuna
import pytest

from swarm.settings import Pruner
from swarm.settings.pruner import PATIENCE, TAKES
from trainer.pruning import pruned

PRUNERS = [
    Pruner(type="median", n_startup_trials=2),
    Pruner(type="percentile", percentile=30.0, n_startup_trials=1, n_warmup_steps=10),
    Pruner(type="successive_halving", min_resource=5, reduction_factor=2),
    Pruner(type="hyperband", min_resource=5, max_resource=40, reduction_factor=2),
    Pruner(type="hyperband", reduction_factor=2),
    Pruner(type="patient", patience=1),
    Pruner(type="median", n_startup_trials=0, patience=1, min_delta=0.01),
    Pruner(type="threshold", upper=1.2, n_warmup_steps=10),
    Pruner(type="wilcoxon", p_threshold=0.3),
]


def entry(trial: str, step: int, loss: float | None, *, ended: bool = False) -> dict[str, Any]:
    return {"trial": trial, "step": step, "loss": loss, "ended": ended}


def race(seed: int) -> list[dict[str, Any]]:
    """Twelve trials, four at once, whose losses fall to levels of their own; now and then one has no loss that is a number."""
    draws = random.Random(seed)
    levels = {f"t{number}": draws.uniform(0.2, 1.5) for number in range(12)}
    left = {name: iter(range(5, 45, 5)) for name in levels}
    course = []
    while left:
        name = draws.choice(list(left)[:4])
        step = next(left[name], None)
        if step is None:
            course.append(entry(name, 40, None, ended=True))
            del left[name]
        else:
            loss = levels[name] + draws.gauss(0, 0.1) + 1 / step
            course.append(entry(name, step, float("nan") if draws.random() < 0.02 else loss))
    return course


@pytest.mark.parametrize("pruner", PRUNERS, ids=lambda one: "-".join(map(str, dict(one.keywords(), type=one.type).values())))  # fmt: skip
def test_what_it_says_of_an_entry_depends_on_those_before_alone(pruner: Pruner) -> None:
    course = race(4)
    found = pruned(pruner, course)
    assert found, "it stops somebody"
    for upto in (len(course) // 3, 2 * len(course) // 3):
        assert pruned(pruner, course[:upto]) == {name: at for name, at in found.items() if at < upto}
    for name, at in found.items():
        assert course[at]["trial"] == name and not course[at]["ended"]


def test_a_threshold_stops_who_is_above_it_from_a_step_on() -> None:
    pruner = Pruner(type="threshold", upper=1.0, n_warmup_steps=10)
    course = [entry("a", 5, 9.0), entry("b", 5, 0.5), entry("a", 10, 1.5), entry("b", 10, 0.4), entry("a", 15, 0.1)]
    assert pruned(pruner, course) == {"a": 2}


def test_the_median_goes_by_trials_that_were_trained_to_their_end() -> None:
    pruner = Pruner(type="median", n_startup_trials=1)
    course = [entry("b", 5, 3.0), entry("a", 5, 1.0), entry("a", 10, 0.5, ended=True), entry("c", 5, 2.0)]
    assert pruned(pruner, course) == {"c": 3}, "b was measured before anybody had ended"
    assert pruned(pruner, course[:3]) == {}


def test_patience_lets_who_has_just_become_better_go_on() -> None:
    course = [entry("a", step, 0.1, ended=step == 25) for step in range(5, 30, 5)]
    course += [entry("b", step, loss) for step, loss in ((5, 0.9), (10, 0.8), (15, 0.7), (20, 0.75), (25, 0.75))]
    assert pruned(Pruner(type="median", n_startup_trials=1), course) == {"b": 5}
    assert pruned(Pruner(type="median", n_startup_trials=1, patience=1), course) == {"b": 9}
    assert pruned(Pruner(type="patient", patience=1), course) == {"b": 9}


def test_a_step_that_is_trained_again_and_a_trial_without_a_loss_are_no_mistake() -> None:
    course = [entry("a", 5, 1.0), entry("a", 5, 1.0), entry("a", 10, 0.9, ended=True), entry("a", 10, 0.9, ended=True)]
    course += [entry("b", 9, None, ended=True), entry("c", 5, 2.0), entry("c", 5, 2.0)]
    assert pruned(Pruner(type="median", n_startup_trials=1), course) == {"c": 5}


def test_each_pruner_of_optuna_is_there_with_all_its_keywords() -> None:
    classes = {name.removesuffix("Pruner") for name in optuna.pruners.__all__} - {"Base", "Nop"}
    assert {"".join(word.capitalize() for word in name.split("_")) for name in TAKES} == classes
    for name, keys in TAKES.items():
        known = getattr(optuna.pruners, "".join(word.capitalize() for word in name.split("_")) + "Pruner")
        taken = set(inspect.signature(known).parameters) - {"wrapped_pruner", *PATIENCE}
        assert keys == taken, name
