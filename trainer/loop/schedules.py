"""Learning-rate schedules: transformers' own, by the names that its Trainer knows, as functions of the step."""

from __future__ import annotations

import math
from typing import Any

import torch
from transformers import get_scheduler


class NamedSchedule:
    """Constant, linear, cosine, ...: a factor of the highest rate for each step."""

    def __init__(self, name: str, *, steps: int, warmup: float = 0.0, learning_rate: float = 1.0) -> None:
        """`warmup`: a share of the steps below 1, else steps.  `learning_rate` matters to `polynomial` alone, which ends at 1e-7."""
        asked = math.ceil(warmup * steps) if warmup < 1 else int(warmup)
        warmup_steps = min(asked, max(0, steps - 1))  # it begins at zero: a training of one step has none
        optimizer = torch.optim.SGD([torch.zeros(1)], lr=learning_rate)
        scheduler = get_scheduler(name, optimizer, num_warmup_steps=warmup_steps, num_training_steps=steps)
        self._factor = scheduler.lr_lambdas[0]

    def __call__(self, step: int) -> float:
        return float(self._factor(step))

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        assert not state
