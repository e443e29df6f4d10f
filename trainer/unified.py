"""Unified LoRA's controller: one number, phi, says how much stress a training is under, and chooses one of three modes by it.

    stress  ->  phi (smoothed, 0 to 1)  ->  mode: 0 single, 1 multi, 2 mirror  ->  a factor of the learning rate

It needs no torch and can be used in anybody's loop:

    controller = UnifiedController()
    for batch in batches:
        rate = controller.update(loss)          # a float; it knows its mode, phi and events too

Source: Unified LoRA (github.com/Sva76/Unified-LoRa, 2025); the equations and where they were changed stand in `docs/unified.md`.  Its author found no
regime in which it beats a constant learning rate on his task: measure it beside a baseline.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from copy import deepcopy
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, Self

from trainer.moded import Decision, Moded

MODES = ("single", "multi", "mirror")
SINGLE, MULTI, MIRROR = range(3)

SPREAD_SHARE, TREND_SHARE = 0.01, 0.02
"""Of a step in the usual deviation, and in the trend that it is measured from."""
LEAST_SPREAD = 0.001
"""A rise of less than so large a share of the loss is no stress, however steady the loss was."""
STRESSED = 0.1
"""How much slower the usual loss follows under stress: a shock is not to become usual, a lasting change is to."""

Stress = Literal["absolute", "relative"]


@dataclass(frozen=True)
class Weights:
    """Of the parts of stress: error E, conflict C, stability S, and of how fast each gets worse."""

    error: float = 1.0
    conflict: float = 0.0
    stability: float = 0.0
    error_rise: float = 0.0
    conflict_rise: float = 0.0
    stability_fall: float = 0.0


@dataclass
class Trace:
    """All that goes on from one step to the next."""

    phi: float
    smooth: float
    """The smoothed loss."""
    mode: int
    step: int = 0
    since: int = 0
    """The step of the last change of mode."""
    reference: float = 0.0
    """The usual loss, for relative stress: smoothed longer, and longest under stress."""
    trend: float = 0.0
    """The usual excess of the smoothed loss over it, as a share of it: below 0 while the loss falls."""
    spread: float = 0.0
    """The usual deviation of the excess from the trend."""
    conflict: float = 0.0
    stability: float = 1.0
    error: float = 0.0
    transitions: list[dict[str, Any]] = field(default_factory=list)
    tasks: dict[str, Trace] = field(default_factory=dict)
    """Where losses are given by task: what is smoothed of each."""


class UnifiedController(Moded):
    """Update it once a step with the training loss.

    The defaults are the source's: absolute stress, learning rates 5e-5, 3e-5 and 1e-5 by mode, no hysteresis.  `preset` names
    others, and every argument that is given wins over it.
    """

    names = MODES
    trace: Trace

    def __init__(
        self,
        alpha: float = 0.1,
        beta: float = 0.9,
        theta0: float = 0.3,
        theta1: float = 0.7,
        lr_single: float = 5e-5,
        lr_multi: float = 3e-5,
        lr_mirror: float = 1e-5,
        *,
        stress: Stress = "absolute",
        stress_share: float = 0.5,
        warmup: int = 50,
        sigmas: float = 5.0,
        reference_beta: float = 0.95,
        band: float = 0.0,
        dwell: int = 0,
        skip: bool = True,
        mirror_lock: bool = False,
        weights: Weights | Mapping[str, float] | None = None,
        phi: float = 0.5,
        smooth: float = 1.0,
        mode: int = MULTI,
    ) -> None:
        """
        alpha, beta: how fast phi and the smoothed loss follow; theta0, theta1: phi from which on the mode is multi, mirror.
        lr_*: the value of `update` in each mode: a learning rate, or a factor of one.
        stress: `absolute` takes the loss itself, E / (1 + E), so that a loss of 0.43 and one of 2.33 are the thresholds whatever the
        task; `relative` takes the square of how far the loss stands above its usual value, in usual deviations: `sigmas` of them are a
        stress of one half.  They are measured in the first `warmup` steps, in which the mode does not change, and followed slowly after.
        stress_share: of a stress that `update` is given from outside, beside the loss.
        band: phi must pass a threshold by so much; dwell: a mode lasts so many steps at least; skip: from single to mirror at once and
        back; mirror_lock: from mirror only to single.
        weights: of the parts of stress, also as {"error": 1.0, "conflict": 0.5}.
        phi, smooth, mode: at the start.
        """
        if not 0 < theta0 < theta1 < 1:
            raise ValueError(f"0 < theta0 < theta1 < 1 is needed, not {theta0}, {theta1}")
        if not (0 < alpha <= 1 and 0 <= beta < 1):
            raise ValueError(f"0 < alpha <= 1 and 0 <= beta < 1 are needed, not {alpha}, {beta}")
        self.alpha, self.beta = alpha, beta
        self.theta0, self.theta1 = theta0, theta1
        self.values = (lr_single, lr_multi, lr_mirror)
        self.stress: Stress = stress
        self.stress_share = stress_share
        self.warmup = warmup if stress == "relative" else 0
        self.sigmas = sigmas
        self.reference_beta = reference_beta
        self.band, self.dwell, self.skip, self.mirror_lock = band, dwell, skip, mirror_lock
        self.weights = weights if isinstance(weights, Weights) else Weights(**(weights or {}))
        self._start = Trace(phi=phi, smooth=smooth, mode=mode)
        self.reset()

    @classmethod
    def preset(cls, name: str, **changes: Any) -> Self:
        """`absolute`: the source's own; `relative`: for language models; `glue`, `tinker`: its factors of a learning rate."""
        if name not in PRESETS:
            raise ValueError(f"{name!r} is no preset; take one of {', '.join(PRESETS)}")
        return cls(**{**PRESETS[name], **changes})

    def reset(self) -> None:
        self.trace = Trace(**{**asdict(self._start), "transitions": [], "tasks": {}})
        self._forget()

    def update(
        self,
        loss: float | Mapping[str, float],
        *,
        stress: float | None = None,
        conflict: float | None = None,
        stability: float | None = None,
    ) -> Decision:
        """The learning rate (or its factor) after this loss, or after these losses of several tasks, whose errors are averaged.

        stress: from outside, 0 to 1; conflict of the tasks, 0 to 1; stability of what was learned before, 1 is undisturbed.
        A loss that is not finite leads to mirror mode at once and leaves all averages as they are.
        """
        trace = self.trace
        trace.step += 1
        given = loss if isinstance(loss, Mapping) else {"": loss}
        losses = {task: float(value) for task, value in given.items()}  # a tensor would keep its graph
        mean = sum(losses.values()) / len(losses)
        if not math.isfinite(mean):
            return self._decision(self._row(mean, math.nan), self._change(MIRROR, "the loss is not finite"))
        target = self._target(losses, stress, conflict, stability)
        trace.phi = (1 - self.alpha) * trace.phi + self.alpha * target
        return self._decision(self._row(mean, target), self._follow(self._mode_of(trace.phi)))

    # ---- stress ----

    def _target(
        self, losses: Mapping[str, float], outside: float | None, conflict: float | None, stability: float | None
    ) -> float:
        """What phi moves towards: the weighted parts of stress and their changes for the worse, within 0 and 1."""
        trace, weights = self.trace, self.weights
        error = self._error(losses)
        if outside is not None:
            error = self.stress_share * outside + (1 - self.stress_share) * error
        conflict = trace.conflict if conflict is None else conflict
        stability = trace.stability if stability is None else stability
        target = (
            weights.error * error
            + weights.conflict * conflict
            + weights.stability * (1 - stability)
            + weights.error_rise * max(0.0, error - trace.error)
            + weights.conflict_rise * max(0.0, conflict - trace.conflict)
            + weights.stability_fall * max(0.0, trace.stability - stability)
        )
        trace.error, trace.conflict, trace.stability = error, conflict, stability
        return min(1.0, max(0.0, target))

    def _error(self, losses: Mapping[str, float]) -> float:
        """The mean of E / (1 + E), 0 to 1."""
        if "" in losses:
            return self._error_of(losses[""], self.trace)
        traces = self.trace.tasks
        for task in losses:
            traces.setdefault(task, Trace(phi=0.0, smooth=self._start.smooth, mode=self.trace.mode)).step += 1
        errors = [self._error_of(loss, traces[task]) for task, loss in losses.items()]
        self.trace.smooth = sum(traces[task].smooth for task in losses) / len(losses)
        return sum(errors) / len(errors)

    def _error_of(self, loss: float, trace: Trace) -> float:
        if self.stress == "relative" and trace.step == 1:
            trace.smooth = loss  # an average that began elsewhere would be stress of its own
        trace.smooth = self.beta * trace.smooth + (1 - self.beta) * loss
        error = trace.smooth if self.stress == "absolute" else self._excess(trace)
        return error / (1 + error)

    def _excess(self, trace: Trace) -> float:
        """The square of how far the smoothed loss stands above the usual one, `sigmas` usual deviations being 1.

        That a loss falls is no deviation, and a shock is not to become usual: deviations count up to `sigmas` usual ones.
        """
        if trace.step == 1:
            trace.reference = trace.smooth
        excess = trace.smooth / trace.reference - 1 if trace.reference > 0 else 0.0
        most = self.sigmas * max(LEAST_SPREAD, trace.spread)
        stress = (max(0.0, excess) / most) ** 2
        calibrated = trace.step > self.warmup
        deviation = min(abs(excess - trace.trend), most if calibrated else math.inf)
        slower = STRESSED if stress > 1 and calibrated else 1.0

        def share(least: float) -> float:
            return slower * max(least, 1 / trace.step)

        trace.reference += share(1 - self.reference_beta) * (trace.smooth - trace.reference)
        trace.spread += share(SPREAD_SHARE) * (deviation - trace.spread)
        trace.trend += share(TREND_SHARE) * (excess - trace.trend)
        return stress if calibrated else 0.0

    # ---- modes ----

    def _mode_of(self, phi: float) -> int:
        """The mode for this phi, seen from the present one: a threshold is passed only beyond its band."""
        now = self.trace.mode
        up0, up1 = (
            theta + (self.band if now <= at else -self.band) for at, theta in enumerate((self.theta0, self.theta1))
        )
        wanted = SINGLE if phi < up0 else MULTI if phi < up1 else MIRROR
        if self.mirror_lock and now == MIRROR:
            return SINGLE if phi < self.theta0 - self.band else MIRROR
        return wanted if self.skip else max(now - 1, min(now + 1, wanted))

    def _follow(self, mode: int) -> list[str]:
        """Goes to the mode, unless the usual loss is still being measured or the present mode has to last longer."""
        trace = self.trace
        held = trace.since > 0 and trace.step - trace.since < self.dwell
        if trace.step <= self.warmup or held:
            return []
        return self._change(mode, f"phi is {trace.phi:.3f}")

    # ---- what it knows ----

    def _row(self, loss: float, target: float) -> dict[str, float]:
        trace = self.trace
        return {
            "loss": loss, "E_smooth": trace.smooth, "error": trace.error, "conflict": trace.conflict,
            "stability": trace.stability, "target": target,
        }  # fmt: skip

    def get_state(self) -> dict[str, float]:
        trace = self.trace
        return {"phi": trace.phi, "E_smooth": trace.smooth, "mode": trace.mode, "step": trace.step}

    def get_history(self) -> dict[str, list[float]]:
        """By step, since it was made or reset."""
        return {key: [row[key] for row in self._rows] for key in ("step", "phi", "E_smooth", "mode", "value")}

    def state_dict(self) -> dict[str, Any]:
        return asdict(self.trace)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        kept = deepcopy(state)  # whoever keeps it may load it again
        tasks = {task: Trace(**of_task) for task, of_task in kept.get("tasks", {}).items()}
        self.trace = Trace(**{**kept, "tasks": tasks})


def stability_of(anchor: float, best: float, kappa: float = 1.0) -> float:
    """S, 0 to 1, of a loss on anchor rows beside the lowest that it was: 1 / (1 + kappa (anchor / best - 1)), 1 where it got no worse."""
    return 1 / (1 + kappa * max(0.0, anchor / best - 1)) if best > 0 else 1.0


FACTORS_GLUE = {"lr_single": 1.0, "lr_multi": 0.6, "lr_mirror": 0.2, "phi": 0.0, "smooth": 0.0, "mode": SINGLE}
PRESETS: dict[str, dict[str, Any]] = {
    "absolute": {},
    "glue": FACTORS_GLUE,
    "tinker": {"lr_single": 4.0, "lr_multi": 1.0, "lr_mirror": 0.2},
    "relative": {**FACTORS_GLUE, "stress": "relative", "band": 0.02, "dwell": 10},
}
