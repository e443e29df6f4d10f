"""An orbital controller as a part of the loop: its state chooses how many ranks are used, beside the learning rate or alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from trainer.loop.parts import Stepped
from trainer.loop.ranks import Ranks
from trainer.loop.steering import Steering
from trainer.loop.stream import Stream
from trainer.orbital import OrbitalController


class Orbit(Steering[OrbitalController]):
    def __init__(self, controller: OrbitalController, shares: Sequence[float]) -> None:
        """`shares`: of each adapter's rank that are trained and used, by state."""
        super().__init__(controller)
        self.shares = shares

    def join(self, stream: Stream) -> None:
        """The first step already has the ranks of the state that it begins in."""
        self._ranks = Ranks(stream.adapter)
        self._use()

    def __call__(self, step: Stepped) -> float:
        factor = super().__call__(step)
        self._use()
        return factor

    def _use(self) -> None:
        self._active = self._ranks.use(self.shares[self.controller.trace.mode])

    @property
    def figures(self) -> Mapping[str, float]:
        return {**super().figures, "active_rank": self._active}

    def state_dict(self) -> dict[str, Any]:
        return {"controller": self.controller.state_dict(), "ranks": self._ranks.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.controller.load_state_dict(state["controller"])
        self._ranks.load_state_dict(state["ranks"])
