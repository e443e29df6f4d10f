"""A Unified controller as a callback of transformers' Trainer: in scripts of your own, `UnifiedCallback`; in `engine: trl`, `Steers`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import torch
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_callback import ExportableState

from trainer.loop.parts import Controller, Stepped
from trainer.loop.steering import Steering
from trainer.unified import UnifiedController


class Steers(TrainerCallback, ExportableState):
    """Multiplies the scheduled learning rate by the controller's factor for each optimizer step.

    The factor is taken off again before the schedule steps, so that one that goes on from the rate it finds is not disturbed.
    What the controller knows is kept in `trainer_state.json`: a training that is resumed goes on with it.
    """

    def __init__(self, controller: Controller) -> None:
        self.controller = controller
        self.factor = 1.0
        self._used = 1.0
        """The factor of the newest step."""
        self._scheduled: list[float] = []

    def follow(self, step: Stepped) -> None:
        """What the controller decides after this step."""
        self.factor = self.controller(step)

    @property
    def kept(self) -> dict[str, Any]:
        return {"factor": self.factor, "controller": self.controller.state_dict()}

    @kept.setter
    def kept(self, state: dict[str, Any]) -> None:
        self.factor = state["factor"]
        self.controller.load_state_dict(state["controller"])

    def state(self) -> dict[str, Any]:
        return {"args": {}, "attributes": {"kept": self.kept}}

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        saved: Any = state.stateful_callbacks
        if state.global_step and (mine := saved.get(type(self).__name__)):
            self.kept = mine["attributes"]["kept"]

    def on_pre_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl,
        optimizer: torch.optim.Optimizer | None = None, **kwargs: Any,
    ) -> None:  # fmt: skip
        assert optimizer is not None
        self._used = self.factor
        self._scheduled = [group["lr"] for group in optimizer.param_groups]
        for group in optimizer.param_groups:
            group["lr"] = group["lr"] * self.factor

    def on_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl,
        optimizer: torch.optim.Optimizer | None = None, **kwargs: Any,
    ) -> None:  # fmt: skip
        assert optimizer is not None
        for group, rate in zip(optimizer.param_groups, self._scheduled, strict=True):
            group["lr"] = rate

    def on_log(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl,
        logs: dict[str, float] | None = None, **kwargs: Any,
    ) -> None:  # fmt: skip
        """Phi and mode are logged beside the loss, and the learning rate as the step had it."""
        if logs is None or "loss" not in logs:
            return
        known = dict(self.controller.figures)
        if "learning_rate" in logs:
            known["learning_rate"] = logs["learning_rate"] * self._used
        logs.update(known)
        if state.log_history and state.log_history[-1].get("step") == state.global_step:
            state.log_history[-1].update(known)


class UnifiedCallback(Steers):
    """`Trainer(..., callbacks=[UnifiedCallback("relative", theta1=0.8)])`: a preset, and the arguments of a UnifiedController.

    It follows the loss that is logged: `logging_steps=1` in TrainingArguments lets it see every step.
    """

    def __init__(
        self, preset: str = "relative", *, stress: Callable[[], float] | None = None, **arguments: Any
    ) -> None:
        """`stress`: measured outside, 0 to 1, read at each logged step."""
        self.unified = UnifiedController.preset(preset, **arguments)
        self._arguments = {"preset": preset, **arguments, "weights": asdict(self.unified.weights)}
        self.stress = stress
        super().__init__(Steering(self.unified))

    def state(self) -> dict[str, Any]:
        return {"args": self._arguments, "attributes": {"kept": self.kept}}

    def on_log(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl,
        logs: dict[str, float] | None = None, **kwargs: Any,
    ) -> None:  # fmt: skip
        if logs is not None and "loss" in logs:
            outside = self.stress() if self.stress else None
            self.factor = float(self.unified.update(float(logs["loss"]), stress=outside))
        super().on_log(args, state, control, logs=logs, **kwargs)
