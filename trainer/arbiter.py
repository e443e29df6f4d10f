"""How far each of several models is updated in a step: a factor of its learning rate, by what is known of all of them; no torch.

    from trainer import Arbiter
    arbiter = Arbiter("loss_slope", ["encoder", "decoder"])
    factors = arbiter.update({"encoder": (loss, grad_norm), "decoder": (loss, grad_norm)})

Of equal losses and norms always the same; `state_dict` holds all that it remembers.  grad_norm follows GradNorm's aim (arXiv 1711.02257):
models whose gradients are long are slowed.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

ALTERNATE = "alternate:"
LEAST = 1e-12


@dataclass
class Arbiter:
    policy: str
    """none, round_robin, proportional, loss_slope, grad_norm or alternate:STEPS."""
    names: Sequence[str]
    low: float = 0.25
    """The smallest factor of a model that is updated,"""
    high: float = 2.0
    """and the largest."""
    beta: float = 0.9
    """How much of its means is kept at each step."""
    temperature: float = 1.0
    rows: Mapping[str, int] = field(default_factory=dict)
    """That each model has, for `proportional`."""
    _losses: dict[str, float] = field(default_factory=dict)
    _slopes: dict[str, float] = field(default_factory=dict)
    _norms: dict[str, float] = field(default_factory=dict)

    def whose_turn(self, step: int) -> Sequence[str]:
        """Who is updated in this step, counted from 0."""
        every = (
            1 if self.policy == "round_robin" else int(self.policy.removeprefix(ALTERNATE)) if self.alternates else 0
        )
        return [self.names[step // every % len(self.names)]] if every else list(self.names)

    @property
    def alternates(self) -> bool:
        return self.policy.startswith(ALTERNATE)

    def update(self, measured: Mapping[str, tuple[float, float]]) -> dict[str, float]:
        """Loss and norm of the gradient of those that were updated; returns the factor of each for its next step."""
        for name, (loss, norm) in measured.items():
            before = self._losses.get(name, loss)
            self._losses[name] = self._mean(before, loss)
            change = (self._losses[name] - before) / max(abs(before), LEAST)
            self._slopes[name] = self._mean(self._slopes.get(name, change), change)
            self._norms[name] = self._mean(self._norms.get(name, norm), norm)
        return self.factors()

    def factors(self) -> dict[str, float]:
        """1 for all until each has been measured."""
        if any(name not in self._losses for name in self.names):
            return dict.fromkeys(self.names, 1.0)
        match self.policy:
            case "loss_slope":
                raw = {name: math.exp(-self._slopes[name] / self.temperature) for name in self.names}
            case "grad_norm":
                raw = {name: 1 / max(self._norms[name], LEAST) for name in self.names}
            case "proportional":
                raw = {name: float(self.rows[name]) for name in self.names}
            case _:
                return dict.fromkeys(self.names, 1.0)
        mean = sum(raw.values()) / len(raw)
        return {name: min(self.high, max(self.low, value / mean)) for name, value in raw.items()}

    def _mean(self, before: float, now: float) -> float:
        return self.beta * before + (1 - self.beta) * now

    def state_dict(self) -> dict[str, Any]:
        return {"losses": dict(self._losses), "slopes": dict(self._slopes), "norms": dict(self._norms)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self._losses, self._slopes, self._norms = (dict(state[key]) for key in ("losses", "slopes", "norms"))
