"""A Unified controller as a part of the loop: each step's loss in, a factor of the learning rate out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from trainer.loop.parts import Controller, Stepped
from trainer.unified import UnifiedController


class Steering(Controller):
    def __init__(self, controller: UnifiedController) -> None:
        self.controller = controller
        self._events: tuple[str, ...] = ()

    def __call__(self, step: Stepped) -> float:
        decided = self.controller.update(step.figures["loss"])
        self._events = decided.events
        return float(decided)

    @property
    def figures(self) -> Mapping[str, float]:
        trace = self.controller.trace
        return {"phi": trace.phi, "mode": trace.mode}

    @property
    def events(self) -> Sequence[str]:
        return self._events

    def state_dict(self) -> dict[str, Any]:
        return self.controller.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.controller.load_state_dict(state)
