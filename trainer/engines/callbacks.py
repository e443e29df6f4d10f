"""What runs beside TRL's trainer: callbacks that ask `progress` after each step, and give it Trainer's figures and checkpoints."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol, TypeGuard

import torch
from peft import PeftModel
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from swarm.errors import UserError
from swarm.events import Post
from swarm.figures import as_name
from swarm.policy.batching import Engine
from trainer import training, warm
from trainer.callback import Steers
from trainer.device import widest
from trainer.loop.parts import Stepped
from trainer.progress import TrainingProgress

ENGINE: Engine = "trl"
FILES = ("optimizer.pt", "scheduler.pt", "trainer_state.json")
"""What Trainer needs in a checkpoint beside the adapter to go on."""
NAMES = {"num_tokens": "tokens", "mean_token_accuracy": "token_accuracy"}
"""Trainer's names of figures that have another here."""
COUNTED = frozenset({"tokens", "supervised_tokens"})
"""Figures that Trainer counts from the start of an attempt."""


class NotFinite(Exception):
    """The loss of a forward pass, or the adapter after a step, was NaN or infinite."""

    def __init__(self, what: str, step: int) -> None:
        super().__init__(f"{what} was not finite at step {step}")
        self.step = step


class Counts(Protocol):
    """What is asked of a trainer after each step."""

    trained_tokens: int

    def step_loss(self) -> float: ...


def is_number(value: object) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool)


class Figures(TrainerCallback):
    """Every logged step becomes a metric row."""

    def __init__(self, progress: TrainingProgress) -> None:
        self.progress = progress
        last = progress.newest.get("train")
        self._before = {**(last.figures if last else {}), "tokens": progress.before_tokens}

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self.progress.start()

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self.progress.end()

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        state.log_history.clear()  # Trainer would keep every row in every checkpoint
        if not logs or "loss" not in logs:
            return  # the summary at the end
        figures = {NAMES.get(name, as_name(name)): value for name, value in logs.items() if is_number(value)}
        for name in COUNTED.intersection(figures):
            figures[name] += self._before.get(name, 0)
        self.progress.log_step(state.global_step, state.max_steps, {**figures, "epoch": state.epoch})


class Begin(TrainerCallback):
    """A clone's training begins with the weights and moments of another stream."""

    def __init__(self, model: PeftModel, progress: TrainingProgress) -> None:
        self.model, self.progress = model, progress

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        trained = [(name, value) for name, value in self.model.named_parameters() if value.requires_grad]
        warm.begin(self.progress, trained, kwargs["optimizer"], self.model.peft_config["default"])


class Steps(TrainerCallback):
    """At each step's end: weights that move, and what `progress` says is due.  A pause waits here: Trainer has one training."""

    trainer: Counts

    def __init__(
        self, progress: TrainingProgress, held_out: Callable[[], dict[str, float]], steers: Steers | None = None
    ) -> None:
        """`steers`: what follows each step's loss with the learning rate."""
        self.progress, self.steers = progress, steers
        self.moved = False
        """Whether a step with a learning rate above zero was made in this attempt, and changed the weights."""
        self._held_out = held_out
        self._sums: torch.Tensor | None = None
        self._rate = 0.0
        """Learning rate of the step that is being made."""

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl,
        model: torch.nn.Module | None = None, optimizer: torch.optim.Optimizer | None = None, **kwargs: Any,
    ) -> None:  # fmt: skip
        assert model is not None and optimizer is not None
        each_in_one_group(model, optimizer)
        training.refuse_unreachable_stops(self.progress.assign.settings, state.max_steps)
        self._sums = _sums(model)
        self.progress.measured_at_start(state.max_steps, self._held_out)

    def on_step_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl,
        optimizer: torch.optim.Optimizer | None = None, **kwargs: Any,
    ) -> None:  # fmt: skip
        assert optimizer is not None
        self._rate = max(float(group["lr"]) for group in optimizer.param_groups)

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl,
        model: torch.nn.Module | None = None, **kwargs: Any,
    ) -> None:  # fmt: skip
        assert model is not None
        progress = self.progress
        self._must_move(state, model)
        losses = {"loss": self.trainer.step_loss()}
        self._steer(state, losses)
        tokens = progress.before_tokens + self.trainer.trained_tokens
        due = progress.measured(state.global_step, state.max_steps, losses, tokens, self._held_out)
        progress.lease.boundary(state.global_step)
        due = progress.ordered(due)
        control.should_log, control.should_save, control.should_training_stop = due
        if due.save:
            self._refuse_to_save(state, model)

    def _steer(self, state: TrainerState, losses: dict[str, float]) -> None:
        if self.steers is None:
            return
        self.steers.follow(Stepped(state.global_step, losses))
        for event in self.steers.controller.events:
            self.progress.lease.report(Post(ref=self.progress.assign.ref, body=f"step {state.global_step}: {event}"))

    def _must_move(self, state: TrainerState, model: torch.nn.Module) -> None:
        """The first step with a learning rate above zero changes a weight, or nothing will; a warm-up begins at zero."""
        if self.moved or not self._rate:
            return
        if self._sums is not None and torch.equal(_sums(model), self._sums):
            what = f"{self._rate:g} moved no weight at step {state.global_step}"
            raise UserError("learning_rate", what, "raise it, or look at the rows with `swarm show`")
        self.moved, self._sums = True, None

    def _refuse_to_save(self, state: TrainerState, model: torch.nn.Module) -> None:
        if not bool(_sums(model).isfinite().all()):  # a gradient that overflowed shows in the loss one step too late
            raise NotFinite("adapter", state.global_step)
        self.progress.refuse_full_disk()


class Saves(TrainerCallback):
    """A checkpoint that Trainer has staged is kept."""

    def __init__(self, progress: TrainingProgress, staging: Path) -> None:
        self.progress, self.staging = progress, staging

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        of = self.progress.snapshot(state.global_step, state.max_steps, ends=control.should_training_stop)
        self.progress.keep(self.staging / f"checkpoint-{state.global_step}", of, ENGINE, FILES)


def each_in_one_group(model: torch.nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """House invariant: every trainable tensor is stepped, by one optimizer group only, and nothing else is."""
    trainable = {id(value): name for name, value in model.named_parameters() if value.requires_grad}
    assert trainable, "no parameter is trainable"
    times = Counter(id(value) for group in optimizer.param_groups for value in group["params"])
    wrong = [f"{name} is in {times[key]} optimizer groups" for key, name in trainable.items() if times[key] != 1]
    assert not wrong, wrong[0]
    assert times.keys() == trainable.keys(), (
        f"{len(times.keys() - trainable.keys())} frozen tensors are in the optimizer"
    )


def _sums(model: torch.nn.Module) -> torch.Tensor:
    """One number a trainable tensor, which a step changes: its sum alone stays where a new head moves two labels apart."""
    trained = [value.detach().to(widest(value.device)) for value in model.parameters() if value.requires_grad]
    return torch.stack([value.sum() + value.square().sum() for value in trained]).cpu()  # (P,)
