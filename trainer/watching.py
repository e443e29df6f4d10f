"""What runs beside a training loop: its figures, the lease's orders and time cap at each step boundary, and checkpoints as they are saved.

Three callbacks of transformers' Trainer, called in the order of `callbacks`; none of them touches weights.
"""

from __future__ import annotations

import math
import shutil
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeGuard

import torch
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from swarm.errors import UserError
from swarm.events import Checkpoint
from swarm.figures import as_name
from swarm.messages import Kind, MetricRow, Piece
from trainer import checkpoint, resident
from trainer.engines.trl import NotFinite
from trainer.lease import Lease
from trainer.place import Place
from trainer.trainlog import TrainLog


@dataclass
class TrainingProgress:
    """What the callbacks of one training share, and its role reports at the end."""

    assign: Piece
    lease: Lease
    place: Place
    trainable: int = 0
    before_seconds: float = 0.0
    """Training time of earlier attempts."""
    before_tokens: int = 0
    log: TrainLog = field(init=False)
    newest: dict[Kind, MetricRow] = field(default_factory=dict)
    """The last row of each kind."""
    best: tuple[int, float] | None = None
    """Step and held-out loss of the evaluation with the lowest one; the first of equals."""
    why: str = "num_epochs"
    """What ended it."""
    moved: bool = False
    """Whether a step with a learning rate above zero was made in this attempt, and changed the weights."""
    saved: Checkpoint | None = None
    save_seconds: float = 0.0
    eval_seconds: float = 0.0
    began: float | None = None
    ended: float | None = None

    def folder_of(self, token: int) -> Path:
        """`streams/<name>/t<token>`: checkpoints appear here; after a hand-over in the new token's."""
        return self.place.stream_folder(self.assign.stream) / f"t{token}"

    @property
    def loop_seconds(self) -> float:
        """Seconds of this attempt's loop, pauses left out."""
        if self.began is None:
            return 0.0
        return (self.ended or time.monotonic()) - self.began - self.lease.paused_seconds

    @property
    def tokens_per_second(self) -> float | None:
        """Over this attempt's loop; None where it had none."""
        seconds = self.loop_seconds
        return round((self.tokens - self.before_tokens) / seconds, 1) if seconds else None

    @property
    def spent_seconds(self) -> float:
        return self.before_seconds + self.loop_seconds

    @property
    def tokens(self) -> int:
        """Seen since training began."""
        last = self.newest.get("train")
        return int(last.figures["tokens"]) if last else self.before_tokens

    def begin(self, kept: Sequence[MetricRow]) -> None:
        """After these rows of earlier attempts."""
        self.log = TrainLog(self.place.stream_folder(self.assign.stream), kept)
        for row in kept:
            self._remember(row)

    def add(self, kind: Kind, state: TrainerState, figures: Mapping[str, float | None]) -> None:
        """What was measured at this step: kept for the stream's own log, and sent."""
        known = {name: value for name, value in figures.items() if value is not None}
        row = MetricRow(state.global_step, kind, time.time(), known)
        self.log.add(row)
        self._remember(row)
        self.lease.figures(row, state.max_steps)

    def _remember(self, row: MetricRow) -> None:
        self.newest[row.kind] = row
        loss = row.figures.get("eval_loss")
        if loss is not None and (self.best is None or loss < self.best[1]):
            self.best = row.step, loss

    def figures_at(self, step: int) -> dict[str, float]:
        """Training loss as last logged, and what was measured on held-out rows at this very step."""
        trained, judged = self.newest.get("train"), self.newest.get("eval")
        loss = {name: value for name, value in trained.figures.items() if name == "loss"} if trained else {}
        return {**loss, **(judged.figures if judged and judged.step == step else {})}

    @property
    def kept_step(self) -> int | None:
        """The step whose checkpoint is kept for being the best; None where the last one counts."""
        return self.best[0] if self.best and self.assign.settings.save == "best" else None

    def memory_bytes(self) -> int:
        """Memory now, above the imports on a CPU."""
        if self.place.on_gpu:
            return torch.cuda.memory_allocated()
        return max(0, resident.resident_bytes() - self.place.floor_bytes)

    def peak_bytes(self) -> int | None:
        if self.place.on_gpu:
            return torch.cuda.max_memory_allocated()
        return resident.peak_bytes_above(self.place.floor_bytes)


OURS = frozenset({"epoch", "loss", "learning_rate", "grad_norm", "num_tokens"})
"""What Trainer logs of every training; whatever a method logs beside it is a figure of its own."""


def is_number(value: object) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool)


class Figures(TrainerCallback):
    """Every logged step becomes a metric row: sent, and kept for the stream's own log."""

    def __init__(self, progress: TrainingProgress) -> None:
        self.progress = progress
        self._last = (0.0, 0)

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self.progress.began = self.progress.lease.began = time.monotonic()

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self.progress.ended = time.monotonic()

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
        progress, tokens = self.progress, int(logs["num_tokens"])
        seconds, before = progress.loop_seconds, self._last
        self._last = (seconds, tokens)
        figures = {
            **{
                as_name(name): _rounded(value, 6)
                for name, value in logs.items()
                if name not in OURS and is_number(value)
            },
            "epoch": _rounded(state.epoch, 4),
            "loss": _rounded(logs["loss"], 6),
            "learning_rate": _rounded(logs.get("learning_rate"), 12),
            "grad_norm": _rounded(logs.get("grad_norm"), 6),
            "tokens": progress.before_tokens + tokens,
            "tokens_per_second": _rounded((tokens - before[1]) / max(1e-9, seconds - before[0]), 1),
            "memory_bytes": progress.memory_bytes(),
        }
        progress.add("train", state, figures)


class Boundary(TrainerCallback):
    """At each step's end: the house's invariants, held-out loss when it is due, then orders and the time cap."""

    def __init__(self, progress: TrainingProgress, held_out_loss: Callable[[], float]) -> None:
        self.progress = progress
        self._held_out_loss = held_out_loss
        self._sums: torch.Tensor | None = None
        self._rate = 0.0
        """Learning rate of the step that is being made."""

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl,
        model: torch.nn.Module | None = None, optimizer: torch.optim.Optimizer | None = None, **kwargs: Any,
    ) -> None:  # fmt: skip
        assert model is not None and optimizer is not None
        each_in_one_group(model, optimizer)
        self._sums = _sums(model)

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
        self._must_move(state, model)
        self._limits(state, control)
        self._evaluate(state, control)
        match self.progress.lease.boundary(state.global_step):
            case "stop":
                self.progress.why = "stop"
                control.should_training_stop = control.should_save = True
            case "revoke":
                control.should_training_stop, control.should_save, control.should_log = True, False, False
            case "go":
                pass

    def _must_move(self, state: TrainerState, model: torch.nn.Module) -> None:
        """The first step with a learning rate above zero changes a weight, or nothing will; a warm-up begins at zero."""
        if self.progress.moved or not self._rate:
            return
        if self._sums is not None and torch.equal(_sums(model), self._sums):
            what = f"{self._rate:g} moved no weight at step {state.global_step}"
            raise UserError("learning_rate", what, "raise it, or look at the rows with `swarm show`")
        self.progress.moved, self._sums = True, None

    def _evaluate(self, state: TrainerState, control: TrainerControl) -> None:
        """Every `eval_steps`, and at the end: the best checkpoint is chosen among those that were measured."""
        every = self.progress.assign.settings.eval_steps
        ends = control.should_training_stop or state.global_step >= state.max_steps
        if every is None or (state.global_step % every and not ends):
            return
        began = time.monotonic()
        loss = _rounded(self._held_out_loss(), 6)
        self.progress.eval_seconds += time.monotonic() - began
        self.progress.add("eval", state, {"eval_loss": loss})
        if self.progress.kept_step == state.global_step:
            control.should_save = True

    def _limits(self, state: TrainerState, control: TrainerControl) -> None:
        settings = self.progress.assign.settings
        if state.global_step >= state.max_steps:
            self.progress.why = "max_steps" if settings.max_steps else "num_epochs"
        elif settings.max_minutes is not None and self.progress.spent_seconds >= settings.max_minutes * 60:
            self.progress.why = "max_minutes"
            control.should_training_stop = control.should_save = True


class Saves(TrainerCallback):
    """A checkpoint that Trainer has staged is completed, published, reported, and the oldest one removed."""

    def __init__(self, progress: TrainingProgress, staging: Path) -> None:
        self.progress, self.staging = progress, staging

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl,
        model: torch.nn.Module | None = None, **kwargs: Any,
    ) -> None:  # fmt: skip
        assert model is not None
        if not control.should_save:
            return
        if not bool(_sums(model).isfinite().all()):  # a gradient that overflowed shows in the loss one step too late
            raise NotFinite("adapter", state.global_step)
        checkpoint.refuse_full_disk(self.progress.folder_of(self.progress.lease.token), self.progress.trainable)

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        began, progress = time.monotonic(), self.progress
        if progress.lease.revoked:  # it came while Trainer was saving: the folder is another's now
            shutil.rmtree(self.staging)
            return
        staged = self.staging / f"checkpoint-{state.global_step}"
        token = progress.lease.token  # the folder, the manifest and the report bear one and the same
        place = progress.folder_of(token) / staged.name
        progress.log.write()
        facts = {
            "step": state.global_step,
            "token": token,
            "spent_seconds": round(progress.spent_seconds, 3),
            "tokens": progress.tokens,
        }
        sha256 = checkpoint.keep(staged, place, facts)
        checkpoint.remove_old(place.parent, progress.assign.settings.save_total_limit, progress.kept_step)
        progress.saved = Checkpoint(
            ref=progress.assign.ref, tok=progress.assign.token, step=state.global_step, path=progress.place.relative(place),
            sha256=sha256, figures=progress.figures_at(state.global_step),
        )  # fmt: skip
        progress.lease.flush_metrics()
        if not control.should_training_stop or progress.why == "stop":  # else it is stated with the end of the training
            progress.lease.report(progress.saved)
        progress.save_seconds += time.monotonic() - began


def each_in_one_group(model: torch.nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """House invariant: every trainable tensor is stepped, and by one optimizer group only."""
    trainable = {id(value): name for name, value in model.named_parameters() if value.requires_grad}
    assert trainable, "no parameter is trainable"
    times = Counter(id(value) for group in optimizer.param_groups for value in group["params"])
    wrong = [f"{name} is in {times[key]} optimizer groups" for key, name in trainable.items() if times[key] != 1]
    assert not wrong, wrong[0]


def _sums(model: torch.nn.Module) -> torch.Tensor:
    """One number a trainable tensor, which a step changes."""
    return torch.stack(
        [value.detach().double().sum() for value in model.parameters() if value.requires_grad]
    ).cpu()  # (P,)


def _rounded(value: float | None, digits: int) -> float | None:
    """Readable in a log; None where it is not finite."""
    return round(float(value), digits) if value is not None and math.isfinite(value) else None
