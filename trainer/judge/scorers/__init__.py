"""Scores of answers: each figure is a function of its name in a module of this package, and stands in `swarm.figures`.

A scorer gets one answer with what was expected and returns a number; the figure is the mean over the answers.  Where a figure of all
answers is no mean, its module has it in `WHOLE` too.  Style is that of the generated text alone: no prompt is in it.
"""

from __future__ import annotations

import pkgutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from types import ModuleType
from typing import Any

from swarm import figures
from swarm.errors import UserError
from swarm.settings import StreamSettings
from trainer.judge.answers import Answer


@dataclass(frozen=True)
class Given:
    """An answer, with all that a scorer may look at."""

    expected: str
    answer: Answer
    settings: StreamSettings

    @property
    def text(self) -> str:
        return self.answer.text


Scorer = Callable[[Given], float]
Whole = Callable[[Sequence[Given]], float]


@cache
def _modules() -> list[ModuleType]:
    names = sorted(module.name for module in pkgutil.iter_modules(__path__))
    return [import_module(f"{__name__}.{name}") for name in names]


@cache
def scorers() -> dict[str, Scorer]:
    """By the names of their figures."""
    wanted = {name for name in figures.measurable() if figures.of(name).of == "answers"}
    return {name: value for module in _modules() for name, value in vars(module).items() if name in wanted}


@cache
def whole() -> dict[str, Whole]:
    """Figures of all answers together that are no means."""
    return {name: value for module in _modules() for name, value in getattr(module, "WHOLE", {}).items()}


def of_each(metrics: Sequence[str], given: Sequence[Given]) -> dict[str, list[float]]:
    """The scores answer by answer, of those metrics that are measured on answers.  Raises UserError where a library is missing."""
    known = scorers()
    return {name: [float(known[name](one)) for one in given] for name in metrics if name in known}


def of_all(scores: Mapping[str, Sequence[float]], given: Sequence[Given]) -> dict[str, float]:
    """The figures; none where nothing was asked."""
    if not given:
        return {}
    return {
        name: round(whole()[name](given) if name in whole() else sum(values) / len(values), 6)
        for name, values in scores.items()
    }


def package_of(figure: str) -> Any:
    """The module that computes a figure.  Raises UserError where it is not installed."""
    name = figures.of(figure).package
    try:
        return import_module(name)
    except ImportError as error:
        fix = "install it with `pip install 'toonswarm[judge]'`, or take the metric out"
        raise UserError("metrics", f"{figure} needs the package {name}", fix) from error
