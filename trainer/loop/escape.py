"""What is done at a plateau of the training loss in place of ending: the stream's schedule or its loss is changed (rows D17, D20).

The change is taken back when the held-out loss gets worse after it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Literal

from trainer.loop.parts import Controller, Stepped
from trainer.loop.schedules import CosineRestart, Scaled

if TYPE_CHECKING:
    from swarm.kinds import Watch
    from trainer.loop.stream import Stream

Action = Literal["cosine", "bump", "reweight"]


class Escape(Controller):
    """Its own factor of the learning rate is 1: it changes what the stream is made of."""

    def __init__(self, fresh: Callable[[], Watch], action: Action, times: int = 1, factor: float = 2.0) -> None:
        """`fresh`: what finds a plateau, from its first step on."""
        self._fresh, self.patience = fresh, fresh()
        self.action, self.factor = action, factor
        self.left = times
        """How often it still acts."""
        self.acts: list[tuple[int, float | None]] = []
        """Those in force: the step, and the last held-out loss before it, where one was measured."""
        self.held_out_loss: float | None = None
        self._news: list[str] = []
        self._events: list[str] = []

    def join(self, stream: Stream) -> None:
        self._stream, self._schedule, self._loss = stream, stream.schedule, stream.loss

    def __call__(self, step: Stepped) -> float:
        why = self.patience(step.step, step.figures) if self.left else None
        if why and step.step < self._stream.steps:
            self.left -= 1
            self.acts.append((step.step, self.held_out_loss))
            self._changed(f"{why}: {self._what}")
        self._events, self._news = self._news, []
        return 1.0

    def judged(self, held_out_loss: float) -> None:
        before = self.acts[-1][1] if self.acts else None
        if before is not None and held_out_loss > before:
            step, _ = self.acts.pop()
            what = f"the held-out loss rose from {before:.4g} to {held_out_loss:.4g}"
            self._changed(f"{what}: {self.action} of step {step} is taken back")
        self.held_out_loss = held_out_loss

    def _changed(self, news: str) -> None:
        self._news.append(news)
        self.patience = self._fresh()
        self._apply()

    def _apply(self) -> None:
        """Makes the stream what the acts in force say."""
        stream = self._stream
        stream.schedule, stream.loss = self._schedule, self._loss
        if not self.acts:
            return
        match self.action:
            case "cosine":
                stream.schedule = CosineRestart(self.acts[-1][0], stream.steps)
            case "bump":
                stream.schedule = Scaled(self._schedule, self.factor ** len(self.acts))
            case "reweight":
                stream.loss = self._loss.reweighted()

    @property
    def _what(self) -> str:
        match self.action:
            case "cosine":
                return "the learning rate starts again along a cosine"
            case "bump":
                return f"the learning rate is multiplied by {self.factor:g}"
            case "reweight":
                return "each token counts by its probability"

    @property
    def events(self) -> Sequence[str]:
        return self._events

    def state_dict(self) -> dict[str, Any]:
        return {
            "patience": self.patience.state_dict(), "left": self.left, "acts": [list(act) for act in self.acts],
            "held_out_loss": self.held_out_loss, "news": list(self._news),
        }  # fmt: skip

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.patience.load_state_dict(state["patience"])
        self.left, self.held_out_loss, self._news = state["left"], state["held_out_loss"], list(state["news"])
        self.acts = [(step, before) for step, before in state["acts"]]
        self._apply()
