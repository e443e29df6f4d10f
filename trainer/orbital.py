"""The orbital variant of Unified LoRA: jumps of the loss choose one of three states, and each a learning rate and a number of ranks (U19).

    smooth <- smooth + alpha (loss - smooth)
    phi     = |loss - smooth| + spike max(0, loss - loss before)
    high    where phi < mean - recovery deviations of the newest phis: the most ranks, a higher learning rate
    low     where phi > mean + stress deviations: the fewest ranks, a lower learning rate
    base    between them

It goes one state at a time.  It needs no torch and can be used in anybody's loop.

Source: `OrbitalController` of Unified LoRA (github.com/Sva76/Unified-LoRa, 2025); what was changed stands in `docs/unified.md`.
"""

from __future__ import annotations

import math
from copy import deepcopy
from dataclasses import asdict, dataclass, field
from statistics import fmean
from typing import Any

from trainer.moded import Decision, Moded

STATES = ("high", "base", "low")
HIGH, BASE, LOW = range(3)


@dataclass
class Orbit:
    """All that goes on from one step to the next."""

    phi: float = 0.0
    """Of the newest finite loss."""
    smooth: float = 0.0
    """The smoothed loss."""
    before: float = 0.0
    """The newest finite loss."""
    mode: int = BASE
    step: int = 0
    since: int = 0
    """The step of the last change of state."""
    phis: list[float] = field(default_factory=list)
    """The newest ones."""
    transitions: list[dict[str, Any]] = field(default_factory=list)


class OrbitalController(Moded):
    """Update it once a step with the training loss.  The defaults are the source's."""

    names = STATES
    trace: Orbit

    def __init__(
        self,
        alpha: float = 0.1,
        spike: float = 0.5,
        stress: float = 1.5,
        recovery: float = 1.0,
        window: int = 500,
        warmup: int = 50,
        dwell: int = 30,
        every: int = 5,
        lr_high: float = 1.5,
        lr_base: float = 1.0,
        lr_low: float = 0.3,
    ) -> None:
        """
        alpha: how fast the smoothed loss follows; spike: weight of a rise of the loss in phi.
        stress, recovery: deviations of the newest `window` phis above and below their mean.
        warmup: the first step after which the state may change; dwell: the steps that one lasts at least; every: it may change
        after every so many steps.
        lr_*: the value of `update` in each state: a factor of the learning rate.
        """
        self.alpha, self.spike = alpha, spike
        self.stress, self.recovery, self.window = stress, recovery, window
        self.warmup, self.dwell, self.every = warmup, dwell, every
        self.values = (lr_high, lr_base, lr_low)
        self.reset()

    def reset(self) -> None:
        self.trace = Orbit()
        self._forget()

    def update(self, loss: float) -> Decision:
        """The factor of the learning rate after this loss, with the state as its `mode`.

        A loss that is not finite leads one state towards low at once and leaves mean and deviation as they are.
        """
        trace = self.trace
        trace.step += 1
        if not math.isfinite(loss):
            return self._decision(self._row(loss), self._change(min(LOW, trace.mode + 1), "the loss is not finite"))
        if not trace.phis:
            trace.smooth = trace.before = loss
        trace.smooth += self.alpha * (loss - trace.smooth)
        trace.phi = abs(loss - trace.smooth) + self.spike * max(0.0, loss - trace.before)
        trace.before = loss
        trace.phis = [*trace.phis, trace.phi][-self.window :]
        return self._decision(self._row(loss), self._follow())

    def thresholds(self) -> tuple[float, float]:
        """Of phi: the state is high below the first and low above the second."""
        phis = self.trace.phis
        mean = fmean(phis)
        deviation = math.sqrt(fmean((phi - mean) ** 2 for phi in phis))
        return mean - self.recovery * deviation, mean + self.stress * deviation

    def _follow(self) -> list[str]:
        trace = self.trace
        if trace.step < self.warmup or trace.step % self.every or trace.step - trace.since < self.dwell:
            return []
        low, high = self.thresholds()
        wanted = HIGH if trace.phi < low else LOW if trace.phi > high else BASE
        nearest = max(trace.mode - 1, min(trace.mode + 1, wanted))
        return self._change(nearest, f"phi is {trace.phi:.3g}, calm below {low:.3g} and stressed above {high:.3g}")

    # ---- what it knows ----

    def _row(self, loss: float) -> dict[str, float]:
        return {"loss": loss, "smooth": self.trace.smooth}

    def state_dict(self) -> dict[str, Any]:
        return asdict(self.trace)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.trace = Orbit(**deepcopy(state))  # whoever keeps it may load it again
