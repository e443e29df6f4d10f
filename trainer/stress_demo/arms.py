"""What the demonstrations share: arms with a learning rate and a seed each, trained together on one base."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from statistics import fmean, stdev
from typing import Any, NamedTuple, TypeVar

import torch
from peft import LoraConfig
from transformers import PreTrainedModel

from swarm.errors import UserError
from swarm.settings import StreamSettings
from trainer import bases
from trainer.loading import load_base
from trainer.loop.batches import Batches
from trainer.loop.boundary import Boundary
from trainer.loop.fusable import unfusable
from trainer.loop.loop import Loop
from trainer.loop.recipe import Recipe
from trainer.loop.schedules import NamedSchedule
from trainer.loop.stream import Stream
from trainer.place import Place

RATES = (3e-4, 1e-3, 3e-3, 1e-2)
SWEEP_SEED = 100
T = TypeVar("T")


class Run(NamedTuple):
    arm: str
    rate: float
    seed: int

    @property
    def name(self) -> str:
        return f"{self.arm} {self.rate:g} {self.seed}"


def at_best_rates(
    arms: Sequence[str], seeds: int, train: Callable[[Sequence[Run]], list[T]], loss: Callable[[T], float]
) -> dict[Run, T]:
    """What came of each arm and seed, at the arm's best learning rate."""
    swept = [Run(arm, rate, SWEEP_SEED) for arm in arms for rate in RATES]
    losses = {run: loss(ended) for run, ended in zip(swept, train(swept), strict=True)}
    best = {arm: min((run for run in swept if run.arm == arm), key=losses.__getitem__).rate for arm in arms}
    runs = [Run(arm, best[arm], seed) for arm in arms for seed in range(seeds)]
    return dict(zip(runs, train(runs), strict=True))


def of_arm(found: Mapping[Run, T], arm: str) -> list[T]:
    return [ended for run, ended in found.items() if run.arm == arm]


def rate_of(found: Mapping[Run, object], arm: str) -> float:
    return next(run.rate for run in found if run.arm == arm)


def spread(values: Sequence[float], digits: int = 3) -> str:
    if not all(map(math.isfinite, values)):
        return "failed"
    return f"{fmean(values):.{digits}f} ± {stdev(values) if len(values) > 1 else 0:.{digits}f}"


def load(base: str, place: Place) -> PreTrainedModel:
    settings = StreamSettings.model_validate({"base_model": base, "datasets": [{"path": "rows.jsonl"}]})
    model = load_base(bases.folder_of(base), settings, place)
    if why := unfusable(model):
        raise UserError("--base", f"{base} cannot be trained by the shared loop: {why}", "take another base")
    return model


def recipe(batches: Batches, run: Run, steps: int, **parts: Any) -> Recipe:
    return Recipe(
        config=LoraConfig(task_type="CAUSAL_LM", target_modules="all-linear", r=8, lora_alpha=16),
        optimizer=lambda values: torch.optim.AdamW(values, lr=run.rate), batches=batches, steps=steps, seed=run.seed,
        **{"schedule": NamedSchedule("constant", steps=steps), **parts},
    )  # fmt: skip


def trained(model: PreTrainedModel, boundary: Boundary, recipes: Mapping[Run, Recipe]) -> list[Stream]:
    """Streams of one loop, which leaves the model as it was.  One whose loss was not finite has a `failure`."""
    loop = Loop(model, boundary)
    streams = [recipe.stream(loop, run.name) for run, recipe in recipes.items()]
    loop.add(*streams)
    loop.run()
    loop.layers.remove()
    return streams
