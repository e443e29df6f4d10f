"""A controller with modes as a part of the loop: each step's loss in, a factor of the learning rate out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Generic, TypeVar

from trainer.loop.parts import Controller, Stepped
from trainer.orbital import OrbitalController
from trainer.unified import UnifiedController

C = TypeVar("C", bound=UnifiedController | OrbitalController)


class Steering(Controller, Generic[C]):
    def __init__(self, controller: C) -> None:
        self.controller: C = controller
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
