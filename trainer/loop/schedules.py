"""Learning-rate schedules: transformers' own, by the names that its Trainer knows, and RMS-ratio, as functions of the step."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

import torch
from transformers import get_scheduler

from trainer.loop.parts import Schedule

if TYPE_CHECKING:
    from swarm.settings import StreamSettings

RMS_RATIO = "rms_ratio"


class NamedSchedule(Schedule):
    """Constant, linear, cosine, ...: a factor of the highest rate for each step."""

    def __init__(
        self, name: str, *, steps: int, warmup: float = 0.0, learning_rate: float = 1.0, beta2: float = 0.999
    ) -> None:
        """`warmup`: a share of the steps below 1, else steps.

        `learning_rate` matters to `polynomial` alone, which ends at 1e-7, and `beta2` to `rms_ratio`.
        """
        self._factor: Callable[[int], float]
        if name == RMS_RATIO:
            self._factor = lambda step: rms_ratio(step, beta2)
            return
        asked = math.ceil(warmup * steps) if warmup < 1 else int(warmup)
        warmup_steps = min(asked, max(0, steps - 1))  # it begins at zero: a training of one step has none
        optimizer = torch.optim.SGD([torch.zeros(1)], lr=learning_rate)
        scheduler = get_scheduler(name, optimizer, num_warmup_steps=warmup_steps, num_training_steps=steps)
        self._factor = scheduler.lr_lambdas[0]

    @classmethod
    def of(cls, settings: StreamSettings, steps: int) -> Self:
        beta2 = getattr(settings, "beta2", 0.999)  # of the optimizer, where it has one: `rms_ratio` is refused without
        rate = settings.learning_rate
        return cls(settings.lr_scheduler, steps=steps, warmup=settings.warmup, learning_rate=rate, beta2=beta2)

    def __call__(self, step: int) -> float:
        return float(self._factor(step))


@dataclass(frozen=True)
class CosineRestart(Schedule):
    """From the highest rate, at step `start`, along half a cosine to zero at the end."""

    start: int
    steps: int

    def __call__(self, step: int) -> float:
        return 0.5 * (1 + math.cos(math.pi * (step - self.start) / (self.steps - self.start)))


@dataclass(frozen=True)
class Scaled(Schedule):
    of: Schedule
    factor: float

    def __call__(self, step: int) -> float:
        return self.factor * self.of(step)


def rms_ratio(step: int, beta2: float) -> float:
    """sqrt((1 - beta2^t) / (1 + beta2^t)) with t = step + 1: how far Adam's mean of squares can be trusted after t gradients.

    It rises by itself and has no end, so that a training may be made longer; at t = 0, where others begin, it would be zero.
    """
    kept = beta2 ** (step + 1)
    return math.sqrt((1 - kept) / (1 + kept))
