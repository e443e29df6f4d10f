"""The next trial of a search, by one of Optuna's samplers, or what a pruner stops: reads a request as JSON on stdin, writes the answer on stdout.

The study is made anew of the trials in the request and kept nowhere, so that the log of the run is the only record of a search.
"""

from __future__ import annotations

import itertools
import json
import math
import sys
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

from swarm.errors import UserError
from swarm.settings import Pruner, Range, Search
from trainer.pruning import pruned

DIGITS = 3
"""Significant ones of a number that is suggested."""
ASKED, DRAWN = 8, 64
"""After so many suggestions that were all there before it is drawn at random, then the first combination that was not there is taken."""


def main() -> int:
    request = json.load(sys.stdin)
    try:
        print(json.dumps(_answer(request)))
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


def _answer(request: Mapping[str, Any]) -> Any:
    if "pruner" in request:
        return pruned(Pruner.model_validate(request["pruner"]), request["course"])
    return suggested(Search.model_validate(request["search"]), request["trials"])


def suggested(search: Search, trials: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Values that no trial has.  Raises UserError where Optuna or what its sampler needs is missing, or nothing is left."""
    try:
        study, distributions = _study(search, len(trials))
        for trial in trials:
            _tell(study, search, distributions, trial)
        return _new(study, search, distributions, [trial["values"] for trial in trials])
    except ModuleNotFoundError as error:
        raise UserError("search.sampler", f"{search.sampler} needs {error.name}", "pip install 'toonswarm[search]'") from error  # fmt: skip


def _study(search: Search, number: int) -> tuple[Any, dict[str, Any]]:
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
    samplers, seed = optuna.samplers, search.seed + number  # each suggestion draws anew
    kinds: dict[str, Any] = {
        "tpe": lambda: samplers.TPESampler(seed=seed, constant_liar=True, n_startup_trials=4),
        "gp": lambda: samplers.GPSampler(seed=seed, n_startup_trials=4),
        "cmaes": lambda: samplers.CmaEsSampler(seed=seed, n_startup_trials=4),
        "qmc": lambda: samplers.QMCSampler(seed=search.seed),
        "nsgaii": lambda: samplers.NSGAIISampler(seed=seed, population_size=4),
        "nsgaiii": lambda: samplers.NSGAIIISampler(seed=seed, population_size=4),
    }
    study = optuna.create_study(sampler=kinds[search.sampler](), direction="minimize")
    return study, {key: _distribution(values) for key, values in search.space.items()}


def _distribution(values: list[Any] | Range) -> Any:
    """A value of a list goes by its number: a data set is no category that Optuna could keep."""
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    if isinstance(values, list):
        return CategoricalDistribution(range(len(values)))
    if values.is_whole:
        return IntDistribution(int(values.low), int(values.high), log=values.log)
    return FloatDistribution(values.low, values.high, log=values.log)


def _tell(study: Any, search: Search, distributions: Mapping[str, Any], trial: Mapping[str, Any]) -> None:
    """Nothing for the stream's own values where they lie outside the space."""
    from optuna.trial import TrialState, create_trial

    values = {key: _number_of(trial["values"][key], space) for key, space in search.space.items()}
    if any(value is None or not distributions[key]._contains(value) for key, value in values.items()):
        return
    losses = {step: loss for step, loss in trial["losses"] if math.isfinite(loss)}
    ended = trial["state"] != "running"
    word = {"running": "RUNNING", "done": "COMPLETE", "stopped": "PRUNED", "failed": "FAIL"}[trial["state"]]
    state = TrialState[word] if losses or not ended else TrialState.FAIL
    study.add_trial(
        create_trial(
            params=values, distributions=dict(distributions), state=state, intermediate_values=losses,
            value=losses[max(losses)] if state in {TrialState.COMPLETE, TrialState.PRUNED} else None,
        )
    )  # fmt: skip


def _number_of(value: Any, space: list[Any] | Range) -> Any:
    """As Optuna knows it; None: it is none of the list."""
    if isinstance(space, list):
        return next((number for number, one in enumerate(space) if one == value), None)
    return int(value) if space.is_whole and value == int(value) else value


def _new(study: Any, search: Search, distributions: Mapping[str, Any], known: Sequence[Mapping[str, Any]]) -> dict[str, Any]:  # fmt: skip
    from optuna.samplers import RandomSampler
    from optuna.trial import TrialState

    for number in range(ASKED + DRAWN):
        if number == ASKED:
            study.sampler = RandomSampler(search.seed + len(known))
        asked = study.ask(dict(distributions))
        values = {key: _value_of(asked.params[key], space) for key, space in search.space.items()}
        if values not in known:
            return values
        study.tell(asked, state=TrialState.FAIL)
    lists = [_all_of(space) for space in search.space.values()]
    for combination in itertools.product(*lists):
        values = dict(zip(search.space, combination, strict=True))
        if values not in known:
            return values
    raise UserError("search.space", f"holds no more than {len(known)} trials", "lower `trials`, or widen the space")


def _value_of(number: Any, space: list[Any] | Range) -> Any:
    if isinstance(space, list):
        return space[number]
    if space.is_whole:
        return int(number)
    return min(max(float(f"{number:.{DIGITS}g}"), space.low), space.high)


def _all_of(space: list[Any] | Range) -> Sequence[Any]:
    if isinstance(space, list):
        return space
    return range(int(space.low), int(space.high) + 1) if space.is_whole else ()
