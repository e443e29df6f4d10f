"""`python -m trainer suggest`: Optuna's samplers through the trials of a log (issue 21)."""

from __future__ import annotations

import math
from typing import Any

import pytest

from swarm.errors import UserError
from swarm.settings import Range, Search
from trainer.suggest import suggested

SPACE: dict[str, Any] = {"lora_r": [4, 8, 16], "learning_rate": Range(low=1e-4, high=1e-1, log=True)}


def trial(values: dict[str, Any], loss: float | None, state: str = "done") -> dict[str, Any]:
    return {"values": values, "losses": [] if loss is None else [[5, loss]], "state": state}


def loss_of(values: dict[str, Any]) -> float:
    return abs(math.log10(values["learning_rate"]) + 2) + abs(values["lora_r"] - 8) / 8


def searched(sampler: str, seed: int) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    for _ in range(20):
        values = suggested(Search(space=SPACE, sampler=sampler, trials=20, seed=seed), found)  # type: ignore[arg-type]
        found.append(trial(values, loss_of(values)))
    return found


@pytest.mark.parametrize("sampler", ["tpe", "gp"])
def test_a_sampler_learns_from_the_trials_that_it_is_told(sampler: str) -> None:
    found = searched(sampler, 1)
    losses = [one["losses"][0][1] for one in found]
    assert sum(losses[10:]) < sum(losses[:10]), "later trials are nearer to the optimum"
    assert len({str(one["values"]) for one in found}) == 20
    assert all(1e-4 <= one["values"]["learning_rate"] <= 1e-1 for one in found)


@pytest.mark.parametrize("sampler", ["cmaes", "qmc", "nsgaii", "nsgaiii"])
def test_every_sampler_suggests_values_of_the_space(sampler: str) -> None:
    values = suggested(Search(space=SPACE, sampler=sampler), [trial({"lora_r": 8, "learning_rate": 1e-3}, 1.0)])  # type: ignore[arg-type]
    assert values["lora_r"] in {4, 8, 16} and 1e-4 <= values["learning_rate"] <= 1e-1


def test_the_same_trials_give_the_same_suggestion_and_trials_that_train_or_stopped_count() -> None:
    told = [
        trial({"lora_r": 8, "learning_rate": 1e-2}, 0.1),
        trial({"lora_r": 4, "learning_rate": 1e-3}, None, "running"),
        trial({"lora_r": 16, "learning_rate": 1e-3}, 2.0, "stopped"),
        trial({"lora_r": 16, "learning_rate": 2e-3}, None, "failed"),
        trial({"lora_r": 99, "learning_rate": 2e-3}, 0.5),
    ]
    search = Search(space=SPACE, sampler="tpe", seed=3)
    assert suggested(search, told) == suggested(search, told)


def test_data_sets_can_be_searched_and_nothing_is_suggested_twice() -> None:
    sets = [[{"path": name, "type": "chatml"}] for name in ("a", "b", "c")]
    search = Search(space={"datasets": sets}, sampler="tpe", trials=3)
    known = [trial({"datasets": one}, 1.0) for one in sets[:2]]
    assert suggested(search, known) == {"datasets": sets[2]}
    with pytest.raises(UserError, match="holds no more than 3 trials"):
        suggested(search, [trial({"datasets": one}, 1.0) for one in sets])
