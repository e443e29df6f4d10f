"""Which trials one of Optuna's pruners stops, by all that was measured; the study is made anew for each answer and kept nowhere."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

from swarm.errors import UserError
from swarm.settings import Pruner


def pruned(pruner: Pruner, course: Sequence[Mapping[str, Any]]) -> dict[str, int]:
    """By trial, the first entry of the course at which it is stopped.  Raises UserError where Optuna or what it needs is missing.

    An entry: `trial`, `step`, `loss` (None: not measured there), `ended` (it was trained to its end).  A trial that goes on
    although it was stopped, since somebody revived it, is one of those with which the others are compared.
    """
    try:
        return _stopped(pruner, course)
    except ModuleNotFoundError as error:
        raise UserError("pruner", f"{pruner.type} needs {error.name}", "pip install 'toonswarm[search]'") from error


def _stopped(pruner: Pruner, course: Sequence[Mapping[str, Any]]) -> dict[str, int]:
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    warnings.simplefilter("ignore")  # an infinite loss, a step that was trained twice: both are answered
    study = optuna.create_study(
        study_name="run",  # by which hyperband draws the bracket of a trial
        pruner=_made(pruner), sampler=optuna.samplers.RandomSampler(0), direction="minimize",
    )  # fmt: skip
    trials: dict[str, Any] = {}
    found: dict[str, int] = {}
    for number, entry in enumerate(course):
        name, loss = entry["trial"], entry["loss"]
        trial = trials[name] if name in trials else trials.setdefault(name, study.ask({}))
        if trial is None:
            continue  # trained to its end before, and then again
        if loss is not None:
            trial.report(loss, entry["step"])
            if not entry["ended"] and trial.should_prune():
                found.setdefault(name, number)
        if entry["ended"]:
            _end(study, trial)
            trials[name] = None
    return found


def _made(pruner: Pruner) -> Any:
    from optuna import pruners

    made = None
    if pruner.type != "patient":
        known = "".join(word.capitalize() for word in pruner.type.split("_"))
        made = getattr(pruners, f"{known}Pruner")(**pruner.keywords())
    if pruner.patience is None:
        return made
    return pruners.PatientPruner(made, pruner.patience, pruner.min_delta or 0.0)


def _end(study: Any, trial: Any) -> None:
    """With its last loss; one without any is no trial to compare with."""
    losses = study.trials[trial.number].intermediate_values
    last = losses[max(losses)] if losses else math.nan
    study.tell(trial, None if math.isnan(last) else last, state=_state(last))


def _state(loss: float) -> Any:
    from optuna.trial import TrialState

    return TrialState.FAIL if math.isnan(loss) else TrialState.COMPLETE
