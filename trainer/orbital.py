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
from collections import deque
from dataclasses import asdict, dataclass, field
from statistics import fmean
from typing import Any

from trainer.unified import MOST_ROWS, Decision, summary_of

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


class OrbitalController:
    """Update it once a step with the training loss.  The defaults are the source's."""

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
        self._rows: deque[dict[str, Any]] = deque(maxlen=MOST_ROWS)

    def update(self, loss: float) -> Decision:
        """The factor of the learning rate after this loss, with the state as its `mode`.

        A loss that is not finite leads one state towards low at once and leaves mean and deviation as they are.
        """
        trace = self.trace
        trace.step += 1
        if not math.isfinite(loss):
            return self._decision(loss, self._go(min(LOW, trace.mode + 1), "the loss is not finite"))
        if not trace.phis:
            trace.smooth = trace.before = loss
        trace.smooth += self.alpha * (loss - trace.smooth)
        trace.phi = abs(loss - trace.smooth) + self.spike * max(0.0, loss - trace.before)
        trace.before = loss
        trace.phis = [*trace.phis, trace.phi][-self.window :]
        return self._decision(loss, self._follow())

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
        return self._go(nearest, f"phi is {trace.phi:.3g}, calm below {low:.3g} and stressed above {high:.3g}")

    def _go(self, mode: int, why: str) -> list[str]:
        """The event of going to a state, if it is another one."""
        trace = self.trace
        if mode == trace.mode:
            return []
        event = f"{STATES[trace.mode]} -> {STATES[mode]}: {why}"
        trace.transitions.append({"step": trace.step, "from": trace.mode, "to": mode, "phi": trace.phi, "why": why})
        trace.mode, trace.since = mode, trace.step
        return [event]

    def _decision(self, loss: float, events: list[str]) -> Decision:
        trace = self.trace
        value = self.values[trace.mode]
        self._rows.append(
            {
                "step": trace.step, "loss": loss, "smooth": trace.smooth, "phi": trace.phi, "mode": trace.mode, "value": value,
                "event": "; ".join(events),
            }
        )  # fmt: skip
        return Decision(value, trace.mode, trace.phi, events)

    # ---- what it knows ----

    @staticmethod
    def mode_name(mode: int) -> str:
        return STATES[mode]

    def phi_log(self) -> list[dict[str, Any]]:
        """All of each step, since it was made or reset: `trainer.philog.write` makes files and a picture of it."""
        return list(self._rows)

    def transition_log(self) -> list[dict[str, Any]]:
        return list(self.trace.transitions)

    def get_summary(self) -> dict[str, Any]:
        return summary_of(self._rows, STATES)

    def state_dict(self) -> dict[str, Any]:
        return asdict(self.trace)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.trace = Orbit(**state)

    def __repr__(self) -> str:
        trace = self.trace
        return f"OrbitalController(step={trace.step}, mode={STATES[trace.mode]}, phi={trace.phi:.3f})"
