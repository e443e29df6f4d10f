"""One training, whatever engine runs it: its figures, what follows each of its steps, and its checkpoints as they are kept.

An engine makes the steps and asks `measured` and `ordered` after each; it logs where `Next` says so, stages a checkpoint where it
says so and hands it to `keep`.  Nothing here touches weights.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean
from typing import Any, NamedTuple

import torch

from swarm.events import Checkpoint, Post
from swarm.kinds import Watch
from swarm.messages import Kind, MetricRow, Piece
from swarm.plainfiles import remove_tree
from trainer import checkpoint, resident
from trainer.checkpoint import Whole
from trainer.errors import LeaseRevoked
from trainer.gpu_peak import GPU_PEAK
from trainer.lease import Lease
from trainer.place import Place
from trainer.trackers import Trackers
from trainer.trainlog import TrainLog

HeldOut = Callable[[], Mapping[str, float]]
"""Measures `eval_loss`, and of two models that of each beside it."""


class Next(NamedTuple):
    """What follows a step."""

    log: bool = False
    save: bool = False
    ends: bool = False


class Snapshot(NamedTuple):
    """What is stated of a checkpoint, as of its step: it may be written while training goes on."""

    step: int
    steps: int
    spent_seconds: float
    tokens: int
    figures: dict[str, float]
    kept_step: int | None
    is_stated: bool
    """Whether it is reported by itself; the last one is stated with the end of the training."""
    stops: dict[str, dict[str, Any]]
    """What the stops remember, by name."""
    over: str | None
    """Why training ends here, where no order ends it."""


@dataclass
class TrainingProgress:
    """What the engine and the role of one training share; the role reports it at the end."""

    assign: Piece
    lease: Lease
    place: Place
    prepared: Mapping[str, Any] = field(default_factory=dict)
    """The facts of its rows, as their manifest states them."""
    resumed: Whole | None = None
    """The checkpoint from which this attempt goes on."""
    trainable: int = 0
    before_seconds: float = 0.0
    """Training time of earlier attempts."""
    before_tokens: int = 0
    log: TrainLog = field(init=False)
    trackers: Trackers = field(init=False)
    stops: dict[str, Watch] = field(default_factory=dict)
    """Those that are armed, by name."""
    before_seconds_from_start: float = 0.0
    """Of earlier attempts: since a worker took the stream, loading included."""
    taken: float = field(default_factory=time.monotonic)
    means: dict[str, float] = field(default_factory=dict)
    """Of the losses of the steps since one was last logged, as of the last logged one."""
    _losses: list[dict[str, float]] = field(default_factory=list)
    """Of those steps."""
    newest: dict[Kind, MetricRow] = field(default_factory=dict)
    """The last row of each kind."""
    best: tuple[int, float] | None = None
    """Step and held-out loss of the evaluation with the lowest one; the first of equals."""
    why: str = "num_epochs"
    """What ended it."""
    saved: Checkpoint | None = None
    load_seconds: float = 0.0
    save_seconds: float = 0.0
    eval_seconds: float = 0.0
    evaluations: int = 0
    """Of this attempt."""
    began: float | None = None
    ended: float | None = None
    _saved_at: float = 0.0
    """Seconds of training at the newest checkpoint."""
    _logged: tuple[float, int] | None = None
    """Seconds and tokens at the last logged step."""

    @property
    def folder(self) -> Path:
        """Of the stream."""
        return self.place.stream_folder(self.assign.stream)

    def folder_of(self, token: int) -> Path:
        """`streams/<name>/t<token>`: checkpoints appear here; after a hand-over in the new token's."""
        return self.folder / f"t{token}"

    @property
    def staging(self) -> Path:
        """Where the engine writes checkpoints before they are whole."""
        return self.folder_of(self.assign.token) / ".staging"

    def close(self) -> None:
        """However it ended."""
        self.log.close()
        self.trackers.close()
        remove_tree(self.staging, ignore_errors=True)

    # ---- time and tokens ----

    def start(self) -> None:
        """The first step of this attempt begins."""
        self.began = self.lease.began = time.monotonic()

    def end(self) -> None:
        self.ended = time.monotonic()

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
    def seconds_from_start(self) -> float:
        return self.before_seconds_from_start + time.monotonic() - self.taken - self.lease.paused_seconds

    @property
    def tokens(self) -> int:
        """Seen since training began."""
        last = self.newest.get("train")
        return int(last.figures["tokens"]) if last else self.before_tokens

    # ---- figures ----

    def begin(self, kept: Sequence[MetricRow]) -> None:
        """After these rows of earlier attempts."""
        self._saved_at = self.before_seconds
        self.log = TrainLog(self.folder, kept)
        self.trackers = Trackers(self.place.run_folder, self.assign.stream, self.assign.settings, self._say)
        for row in kept:
            self._remember(row)

    def _say(self, text: str) -> None:
        self.lease.report(Post(ref=self.assign.ref, body=text))

    def log_step(self, step: int, steps: int, figures: Mapping[str, float | None]) -> None:
        """A logged step's figures, `tokens` since training began among them."""
        tokens, seconds = int(figures["tokens"] or 0), self.loop_seconds
        seconds_before, tokens_before = self._logged or (0.0, self.before_tokens)
        self._logged = seconds, tokens
        speed = (tokens - tokens_before) / max(1e-9, seconds - seconds_before)
        self.add(
            "train", step, steps,
            {
                **{name: rounded(value, digits_of(name)) for name, value in figures.items()},
                "tokens": tokens, "seconds": round(seconds + self.before_seconds, 3), "tokens_per_second": round(speed, 1), "memory_bytes": self.memory_bytes(),
            },
        )  # fmt: skip

    def lose_step(self, step: int, steps: int) -> None:
        """A step whose figures were not finite: a row of what is left."""
        self.add("train", step, steps, {"memory_bytes": self.memory_bytes()})

    def add(self, kind: Kind, step: int, steps: int, figures: Mapping[str, float | None]) -> None:
        """What was measured at this step: kept for the stream's own log, and sent."""
        known = {name: value for name, value in figures.items() if value is not None}
        row = MetricRow(step, kind, time.time(), known)
        self.log.add(row)
        self.trackers.add(row)
        self._remember(row)
        self.lease.figures(row, steps)

    def _remember(self, row: MetricRow) -> None:
        self.newest[row.kind] = row
        loss = row.figures.get("eval_loss") if row.step else None  # there is no checkpoint of step 0
        if loss is not None and (self.best is None or loss < self.best[1]):
            self.best = row.step, loss

    def figures_at(self, step: int) -> dict[str, float]:
        """Training loss as last logged, and the held-out losses measured at this very step."""
        trained, judged = self.newest.get("train"), self.newest.get("eval")
        loss = {name: value for name, value in trained.figures.items() if name == "loss"} if trained else {}
        held_out = judged.figures if judged and judged.step == step else {}
        return {**loss, **{name: value for name, value in held_out.items() if name.endswith("eval_loss")}}

    @property
    def kept_step(self) -> int | None:
        """The step whose checkpoint is kept for being the best; None where the last one counts."""
        return self.best[0] if self.best and self.assign.settings.save == "best" else None

    def memory_bytes(self) -> int:
        """Memory now, above the imports on a CPU."""
        if self.place.on_cuda:
            return torch.cuda.memory_allocated()
        if self.place.on_gpu:
            return torch.mps.current_allocated_memory()
        return max(0, resident.resident_bytes() - self.place.floor_bytes)

    def peak_bytes(self) -> int | None:
        if self.place.on_cuda:
            return GPU_PEAK.bytes
        if self.place.on_gpu:  # MPS counts none
            return None
        return resident.peak_bytes_above(self.place.floor_bytes)

    # ---- after each step ----

    def measured(self, step: int, steps: int, losses: Mapping[str, float], tokens: int, held_out: HeldOut) -> Next:
        """What is due after this step: the stops, held-out loss, figures and checkpoints.

        `losses`: `loss` of this very step and what it is made of; `tokens`: trained on so far.
        """
        settings = self.assign.settings
        logs, evaluates = step % settings.logging_steps == 0, settings.evaluates_after(step, steps)
        self._losses.append(dict(losses))
        if logs:
            names = {name: None for one in self._losses for name in one}  # one of classes may be in some steps only
            self.means = {name: fmean(one[name] for one in self._losses if name in one) for name in names}
            self._losses.clear()
        figures = {
            "tokens": float(tokens),
            "seconds": self.spent_seconds,
            "seconds_from_start": self.seconds_from_start,
        }
        if evaluates:
            figures["eval_loss"] = self._evaluated(step, steps, held_out)
        ends = self._is_over(step, steps, {**figures, **(self.means if logs else {})})
        if ends and settings.evaluates_itself and not evaluates:
            self._evaluated(step, steps, held_out)
        saves = ends or step % settings.save_steps == 0 or (self.kept_step == step and settings.evaluates_itself)
        return Next(logs, saves or self._save_hours_are_over(), ends)

    def measured_at_start(self, steps: int, held_out: HeldOut) -> None:
        """What is due before the first step of a training that begins."""
        if self.resumed is None and self.assign.settings.evaluates_after(0, steps):
            self._evaluated(0, steps, held_out)

    def _save_hours_are_over(self) -> bool:
        hours = self.assign.settings.save_hours
        return hours is not None and self.spent_seconds - self._saved_at >= hours * 3600

    def _evaluated(self, step: int, steps: int, held_out: HeldOut) -> float:
        began = time.monotonic()
        found = held_out()
        self.eval_seconds += time.monotonic() - began
        self.evaluations += 1
        self.add("eval", step, steps, {name: rounded(value, 6) for name, value in found.items()})
        return found["eval_loss"]

    def _is_over(self, step: int, steps: int, figures: Mapping[str, float]) -> bool:
        """Every stop sees every step."""
        answers = [watch(step, figures) for watch in self.stops.values()]
        over = self.why_all_steps if step >= steps else next(filter(None, answers), None)
        self.why = over or self.why
        return over is not None

    @property
    def why_all_steps(self) -> str:
        return "max_steps" if self.assign.settings.max_steps else "num_epochs"

    def ordered(self, due: Next) -> Next:
        """The same under the lease's orders: a stop saves and ends, a lease that is over ends without a word."""
        match self.lease.order:
            case "stop":
                self.why = "stop"
                return due._replace(save=True, ends=True)
            case "revoke":
                return Next(ends=True)
            case _:
                return due

    # ---- checkpoints ----

    def snapshot(self, step: int, steps: int, *, ends: bool) -> Snapshot:
        self._saved_at = self.spent_seconds
        return Snapshot(
            step=step, steps=steps, spent_seconds=round(self.spent_seconds, 3), tokens=self.tokens, figures=self.figures_at(step),
            kept_step=self.kept_step, is_stated=not ends or self.why == "stop",
            stops={name: watch.state_dict() for name, watch in self.stops.items()},
            over=self.why if ends and self.why != "stop" else None,
        )  # fmt: skip

    def refuse_full_disk(self) -> None:
        checkpoint.refuse_full_disk(self.folder_of(self.lease.token), self.trainable)

    def keep(self, staged: Path, of: Snapshot, engine: str, files: Sequence[str]) -> None:
        """Complete a checkpoint that the engine has staged, put it into place, report it and remove the oldest.

        `files`: what this engine needs to go on from it.  Raises LeaseRevoked where the folder is another's by now.
        """
        began, lease = time.monotonic(), self.lease
        if lease.revoked:
            remove_tree(staged)
            raise LeaseRevoked(lease.ref)
        token = (
            lease.token
        )  # a lease that changes hands from here on reports under a newer one what lies in this one's folder
        place = self.folder_of(token) / f"checkpoint-{of.step}"
        self.log.write()
        facts = {
            "step": of.step, "steps": of.steps, "token": token, "spent_seconds": of.spent_seconds, "tokens": of.tokens,
            "engine": engine, "stops": of.stops, "over": of.over,
            "seconds_from_start": round(self.seconds_from_start, 3),
        }  # fmt: skip
        sha256 = checkpoint.keep(staged, place, facts, files)
        checkpoint.remove_old(place.parent, self.assign.settings.save_total_limit, of.kept_step)
        self.saved = Checkpoint(
            ref=self.assign.ref, tok=token, step=of.step, path=self.place.relative(place), sha256=sha256,
            figures=of.figures,
        )  # fmt: skip
        lease.flush_metrics()
        if of.is_stated:
            lease.report(self.saved)
        self.save_seconds += time.monotonic() - began


DIGITS = {"epoch": 4, "learning_rate": 12}
"""Of a figure, and of the same figure of one of two models."""


def digits_of(name: str) -> int:
    return next((digits for figure, digits in DIGITS.items() if name.endswith(figure)), 6)


def rounded(value: float | None, digits: int) -> float | None:
    """Readable in a log; None where it is not finite."""
    return round(float(value), digits) if value is not None and math.isfinite(value) else None
