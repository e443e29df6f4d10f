"""Warns of a loss that keeps rising (U22).  It needs no torch and can be used in anybody's loop."""

from __future__ import annotations

import math
from typing import Any


class JumpMonitor:
    """The smoothed rise was at least `bound` for `steps` steps, from step `first` on."""

    def __init__(self, bound: float = 0.10, steps: int = 3, first: int = 60, beta: float = 0.8) -> None:
        self.bound, self.steps, self.first, self.beta = bound, steps, first, beta
        self.step = self.above = 0
        self.rise = 0.0
        self.before: float | None = None

    def update(self, loss: float) -> str | None:
        """What is wrong, or None; a loss that is not finite is told apart from a rise and never counts as healthy."""
        self.step += 1
        if not math.isfinite(loss):
            return "the loss is not finite"
        jump = 0.0 if self.before is None else max(0.0, loss - self.before)
        self.before = loss
        self.rise = self.beta * self.rise + (1 - self.beta) * jump
        self.above = self.above + 1 if self.rise >= self.bound and self.step >= self.first else 0
        return f"the loss rose by {self.rise:.2f} a step for {self.above} steps" if self.above >= self.steps else None

    def state_dict(self) -> dict[str, Any]:
        return {"step": self.step, "above": self.above, "rise": self.rise, "before": self.before}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.step, self.above, self.rise, self.before = (state[key] for key in ("step", "above", "rise", "before"))
