"""What runs beside a training loop: its figures, the lease's orders and time cap at each step boundary, and checkpoints as they are saved.

Three callbacks of transformers' Trainer, called in the order of `callbacks`; none of them touches weights.
"""

from __future__ import annotations

import json
import math
import shutil
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from swarm.errors import UserError
from swarm.events import Checkpoint
from swarm.messages import Kind, MetricRow, Piece
from trainer import checkpoint, resident
from trainer.checkpoint import FIGURES
from trainer.engines.trl import NotFinite
from trainer.lease import Lease
from trainer.place import Place


@dataclass
class Course:
    """One training as it goes: what the callbacks share and the role reports at the end."""

    assign: Piece
    lease: Lease
    place: Place
    trainable: int = 0
    before_seconds: float = 0.0
    """Training time of earlier attempts."""
    before_tokens: int = 0
    rows: list[MetricRow] = field(default_factory=list)
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
        return next(
            (int(row.figures["tokens"]) for row in reversed(self.rows) if "tokens" in row.figures), self.before_tokens
        )

    def add(self, kind: Kind, state: TrainerState, figures: Mapping[str, float | None]) -> None:
        """What was measured at this step: kept for the stream's own log, and sent."""
        known = {name: value for name, value in figures.items() if value is not None}
        row = MetricRow(state.global_step, kind, time.time(), known)
        self.rows.append(row)
        self.lease.figures(row, state.max_steps)

    def figures_at(self, step: int) -> dict[str, float]:
        """Training loss as last logged, and what was measured on held-out rows at this very step."""
        last = next((row.figures for row in reversed(self.rows) if row.kind == "train"), {})
        judged = next((row.figures for row in reversed(self.rows) if (row.kind, row.step) == ("eval", step)), {})
        return {**({"loss": last["loss"]} if "loss" in last else {}), **judged}

    @property
    def best(self) -> tuple[int, float] | None:
        """Step and held-out loss of the evaluation with the lowest one; the first of equals."""
        measured = [(row.figures["eval_loss"], row.step) for row in self.rows if "eval_loss" in row.figures]
        return min(measured)[::-1] if measured else None

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


class Figures(TrainerCallback):
    """Every logged step becomes a metric row: sent, and kept for the stream's own log."""

    def __init__(self, course: Course) -> None:
        self.course = course
        self._last = (0.0, 0)

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self.course.began = self.course.lease.began = time.monotonic()

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self.course.ended = time.monotonic()

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        if not logs or "loss" not in logs:
            return  # the summary at the end
        course, tokens = self.course, int(logs["num_tokens"])
        seconds, before = course.loop_seconds, self._last
        self._last = (seconds, tokens)
        figures = {
            "epoch": _rounded(state.epoch, 4),
            "loss": _rounded(logs["loss"], 6),
            "learning_rate": _rounded(logs.get("learning_rate"), 12),
            "grad_norm": _rounded(logs.get("grad_norm"), 6),
            "tokens": course.before_tokens + tokens,
            "tokens_per_second": _rounded((tokens - before[1]) / max(1e-9, seconds - before[0]), 1),
            "memory_bytes": course.memory_bytes(),
        }
        course.add("train", state, figures)


class Boundary(TrainerCallback):
    """At each step's end: the house's invariants, held-out loss when it is due, then orders and the time cap."""

    def __init__(self, course: Course, held_out_loss: Callable[[], float]) -> None:
        self.course = course
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
        match self.course.lease.boundary(state.global_step):
            case "stop":
                self.course.why = "stop"
                control.should_training_stop = control.should_save = True
            case "revoke":
                control.should_training_stop, control.should_save, control.should_log = True, False, False
            case "go":
                pass

    def _must_move(self, state: TrainerState, model: torch.nn.Module) -> None:
        """The first step with a learning rate above zero changes a weight, or nothing will; a warm-up begins at zero."""
        if self.course.moved or not self._rate:
            return
        if self._sums is not None and torch.equal(_sums(model), self._sums):
            what = f"{self._rate:g} moved no weight at step {state.global_step}"
            raise UserError("learning_rate", what, "raise it, or look at the rows with `swarm show`")
        self.course.moved, self._sums = True, None

    def _evaluate(self, state: TrainerState, control: TrainerControl) -> None:
        """Every `eval_steps`, and at the end: the best checkpoint is chosen among those that were measured."""
        every = self.course.assign.settings.eval_steps
        ends = control.should_training_stop or state.global_step >= state.max_steps
        if every is None or (state.global_step % every and not ends):
            return
        began = time.monotonic()
        loss = _rounded(self._held_out_loss(), 6)
        self.course.eval_seconds += time.monotonic() - began
        self.course.add("eval", state, {"eval_loss": loss})
        if self.course.kept_step == state.global_step:
            control.should_save = True

    def _limits(self, state: TrainerState, control: TrainerControl) -> None:
        settings = self.course.assign.settings
        if state.global_step >= state.max_steps:
            self.course.why = "max_steps" if settings.max_steps else "num_epochs"
        elif settings.max_minutes is not None and self.course.spent_seconds >= settings.max_minutes * 60:
            self.course.why = "max_minutes"
            control.should_training_stop = control.should_save = True


class Saves(TrainerCallback):
    """A checkpoint that Trainer has staged is completed, published, reported, and the oldest one removed."""

    def __init__(self, course: Course, staging: Path) -> None:
        self.course, self.staging = course, staging

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl,
        model: torch.nn.Module | None = None, **kwargs: Any,
    ) -> None:  # fmt: skip
        assert model is not None
        if not control.should_save:
            return
        if not bool(_sums(model).isfinite().all()):  # a gradient that overflowed shows in the loss one step too late
            raise NotFinite("adapter", state.global_step)
        checkpoint.refuse_full_disk(self.course.folder_of(self.course.lease.token), self.course.trainable)

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        began, course = time.monotonic(), self.course
        if course.lease.revoked:  # it came while Trainer was saving: the folder is another's now
            shutil.rmtree(self.staging)
            return
        staged = self.staging / f"checkpoint-{state.global_step}"
        token = course.lease.token  # the folder, the manifest and the report bear one and the same
        place = course.folder_of(token) / staged.name
        rows = [{"step": row.step, "kind": row.kind, "time": row.time, **row.figures} for row in course.rows]
        (staged / FIGURES).write_text(json.dumps({"tokens": course.tokens, "rows": rows}), encoding="utf-8")
        facts = {
            "step": state.global_step,
            "token": token,
            "spent_seconds": round(course.spent_seconds, 3),
        }
        sha256 = checkpoint.keep(staged, place, facts)
        checkpoint.remove_old(place.parent, course.assign.settings.save_total_limit, course.kept_step)
        course.saved = Checkpoint(
            ref=course.assign.ref, tok=course.assign.token, step=state.global_step, path=course.place.relative(place),
            sha256=sha256, figures=course.figures_at(state.global_step),
        )  # fmt: skip
        course.lease.flush_metrics()
        if not control.should_training_stop or course.why == "stop":  # else it is stated with the end of the training
            course.lease.report(course.saved)
        course.save_seconds += time.monotonic() - began


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
