"""Begin and end of a training, the same for every engine: its rows and checkpoints are verified, and what came of it is written and reported."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator
from functools import cache
from importlib import metadata
from typing import Any

from swarm import kinds
from swarm.errors import UserError
from swarm.event import SHORT
from swarm.events import Checkpoint, Post, Trained
from swarm.messages import MetricRow, Piece
from swarm.plainfiles import make_folder, remove_tree
from swarm.policy.batching import Engine
from swarm.settings import Part, StreamSettings
from swarm.weights import adapter_sha256
from trainer import bases, checkpoint, models, resident, time_metrics
from trainer.checkpoint import Whole
from trainer.data.prepared import verified
from trainer.errors import Elsewhere, LeaseRevoked
from trainer.gpu_peak import GPU_PEAK
from trainer.lease import Lease
from trainer.place import Place
from trainer.progress import TrainingProgress
from trainer.trainlog import CSV, rows_in, rows_of_older

AVERAGED_SHARE = 20
"""First and last loss are means over one in so many of the logged rows, since the loss of a single batch is mostly noise."""


def begin(assign: Piece, lease: Lease, place: Place) -> TrainingProgress:
    """From the newest checkpoint that verifies, else from the start; the caller closes it.

    Raises UserError where the rows are not those of the log, or another engine wrote the checkpoint.
    """
    lease.check()
    if not place.on_gpu and any(part.fp16 for part in assign.settings.parts.values()):
        raise UserError("fp16", "a CPU computes in float32", "leave it out, or train the stream on a GPU")
    _refuse_start_of_another_base(assign.settings)
    assert assign.prepared is not None, "a train task comes with prepared rows"
    prepared = verified(place.run_folder / assign.prepared, assign.prepared_sha256)
    progress = TrainingProgress(assign, lease, place, prepared)
    progress.resumed = _resumed(progress)
    progress.before_seconds = max(assign.spent_seconds, progress.resumed.spent_seconds if progress.resumed else 0.0)
    progress.before_tokens = progress.resumed.tokens if progress.resumed else 0
    _arm_stops(progress)
    remove_tree(progress.staging, ignore_errors=True)
    make_folder(progress.staging)
    progress.begin(_rows_before(progress))
    _note_what_a_cpu_does_otherwise(progress)
    return progress


def _arm_stops(progress: TrainingProgress) -> None:
    settings, resumed = progress.assign.settings, progress.resumed
    begun = {stop.name: stop.begin(settings) for stop in kinds.stops_armed(settings)}
    progress.stops = {name: watch for name, watch in begun.items() if watch is not None}
    for name, state in (resumed.stops if resumed else {}).items():
        if name in progress.stops:
            progress.stops[name].load_state_dict(state)
    from_start = resumed.seconds_from_start if resumed else 0.0
    progress.before_seconds_from_start = max(from_start, progress.before_seconds)


def _note_what_a_cpu_does_otherwise(progress: TrainingProgress) -> None:
    if progress.place.on_gpu:
        return
    for part in progress.assign.settings.parts.values():
        if note := kinds.optimizer(part.optimizer).on_cpu():
            progress.lease.report(Post(ref=progress.assign.ref, body=f"{part.optimizer}: {note}"))


def _resumed(progress: TrainingProgress) -> Whole | None:
    """The newest checkpoint that verifies; the log notes those that were passed over."""
    folders = [progress.place.run_folder / path for path in progress.assign.resume_from]
    found, passed_over = checkpoint.newest_whole(folders)
    if passed_over:
        goes_on = f"goes on from step {found.step}" if found else "starts again from step 0"
        body = f"{goes_on}; passed over: " + "; ".join(passed_over)
        progress.lease.report(Post(ref=progress.assign.ref, body=body))
    return found


def _rows_before(progress: TrainingProgress) -> list[MetricRow]:
    """The stream's history up to the checkpoint; one of the version before holds it itself."""
    resumed = progress.resumed
    if resumed is None:
        return []
    kept = resumed.older_rows
    return list(rows_in(progress.folder / CSV, resumed.step) if kept is None else rows_of_older(kept))


def refuse_other(progress: TrainingProgress, engine: Engine) -> None:
    """A checkpoint goes on under the engine that wrote it.  Raises Elsewhere where that is TRL and the settings allow it, else UserError."""
    resumed = progress.resumed
    if resumed is None or resumed.engine == engine:
        return
    if resumed.engine == "trl" and progress.assign.settings.engine == "auto":
        raise Elsewhere(f"{resumed.folder.name} was written by it")
    what = f"{resumed.folder.name} was written by {resumed.engine}, and {engine} cannot read its optimizer"
    raise UserError("engine", what, f"write `engine: {resumed.engine}`, or start a new run")


def is_finished(progress: TrainingProgress) -> bool:
    """Whether the checkpoint is the end of a training: its worker died after saving it and before reporting it."""
    assign, resumed = progress.assign, progress.resumed
    if resumed is None:
        return False
    if resumed.over is None and resumed.step < resumed.steps:
        return False
    progress.why = resumed.over or progress.why_all_steps
    progress.saved = Checkpoint(
        ref=assign.ref, tok=assign.token, step=resumed.step, path=progress.place.relative(resumed.folder),
        sha256=adapter_sha256(resumed.folder),
    )  # fmt: skip
    return True


def refuse_unreachable_stops(settings: StreamSettings, steps: int) -> None:
    """Raises UserError where a stop could end nothing: with `num_epochs`, the steps are known only now."""
    for stop in kinds.stops_armed(settings):
        if why := stop.unreachable(settings, steps):
            raise UserError(why.key, why.what, why.fix)


def forget_peak(place: Place) -> None:
    """Peak memory counts from here."""
    if place.on_cuda:
        GPU_PEAK.forget()
    elif not place.on_gpu:
        resident.forget_peak()


def finish(progress: TrainingProgress) -> None:
    """Write and report what came of it.  Raises LeaseRevoked or LeaseStopped where it was ended from outside."""
    lease = progress.lease
    if lease.revoked:
        raise LeaseRevoked(lease.ref)
    rows = progress.log.finish()
    losses = _first_and_last_loss(rows)
    time_metrics.write(progress, losses)
    settings = progress.assign.settings
    steps = [{"step": row.step, **row.figures} for row in rows if row.kind == "train"]
    for name, (part, rows_of_it) in models.rows_by_model(settings, steps).items():
        kinds.controller(part.controller).finish(part, progress.folder / name, rows_of_it)
    if progress.why == "stop":
        lease.check()  # raises: the checkpoint is reported, the task goes back
    _report(progress, losses)


def refuse_unmoved(progress: TrainingProgress, *, moved: bool) -> None:
    """Raises UserError where a whole training made no step with a learning rate above zero."""
    if progress.resumed is None and not moved and progress.why != "stop" and not progress.lease.revoked:
        raise UserError("learning_rate", "it was zero at every step", "lower warmup_ratio, or raise max_steps")


def _published(progress: TrainingProgress, last: Checkpoint) -> tuple[str, str, str]:
    """Path and hash of the checkpoint that is reported, and why: the last, or the one with the lowest held-out loss."""
    best = progress.best
    if best is None or progress.kept_step in (None, last.step):
        return last.path, last.sha256, progress.why
    step, loss = best
    found = checkpoint.of_step(progress.folder, step)
    lowest = f"step {step} has the lowest held-out loss, {loss:.4g}"
    if found is None:
        return (
            last.path,
            last.sha256,
            f"{progress.why}; {lowest}, but its checkpoint is gone: the last one is handed over",
        )
    why = f"{progress.why}; {lowest} (the last {progress.figures_at(last.step).get('eval_loss', math.nan):.4g}): it is handed over"
    return progress.place.relative(found.folder), adapter_sha256(found.folder), why


def _report(progress: TrainingProgress, losses: dict[str, float]) -> None:
    assign, saved = progress.assign, progress.saved
    assert saved is not None, "a training ends with a checkpoint"
    path, sha256, why = _published(progress, saved)
    if path != saved.path:
        progress.lease.report(saved)
    measured = {
        **(saved.figures if path == saved.path else {}),
        **losses,
        "seconds": round(progress.spent_seconds, 1),
        "tokens_per_second": speed if (speed := progress.tokens_per_second) is None else round(speed),
        "peak_bytes": progress.peak_bytes(),
    }
    progress.lease.report(
        Trained(
            ref=assign.ref, tok=assign.token, step=saved.step, path=path, sha256=sha256, trainable=progress.trainable, why=why,
            base_sha256=bases.weights_sha256(assign.settings.base_model)[:SHORT], start_sha256=_start_sha256(assign.settings),
            versions=versions(),
            figures={name: value for name, value in measured.items() if value is not None},
        )
    )  # fmt: skip


def _start_sha256(settings: StreamSettings) -> str | None:
    return next((start.sha256()[:SHORT] for _, start in _starts(settings)), None)


def _starts(settings: StreamSettings) -> Iterator[tuple[Part, Any]]:
    """The parts that begin on another adapter, with that."""
    for part in settings.parts.values():
        if start := kinds.adapter(part.adapter).start(part):
            yield part, start


def _refuse_start_of_another_base(settings: StreamSettings) -> None:
    """A base and what was tuned of it have the same shapes: only the lineage tells that an adapter belongs to the other one."""
    for part, start in _starts(settings):
        stated = start.base_sha256
        if stated and not bases.weights_sha256(part.base_model).startswith(stated):
            what = f"{start.folder} was trained on other weights (SHA-256 {stated}) than those of {part.base_model}"
            raise UserError("start_adapter", what, "name the base that it was trained on as base_model")


@cache
def versions() -> str:
    """Of what decides the numbers of a training: trl too where it was loaded for one."""
    deciding = ("toonswarm", "torch", "transformers", "peft", *(["trl"] if "trl" in sys.modules else []))
    return ", ".join(f"{name} {metadata.version(name)}" for name in deciding)


def _first_and_last_loss(rows: list[MetricRow]) -> dict[str, float]:
    losses = [row.figures["loss"] for row in rows if "loss" in row.figures]
    if not losses:
        return {}
    count = max(1, len(losses) // AVERAGED_SHARE)
    return {"first_loss": round(sum(losses[:count]) / count, 4), "loss": round(sum(losses[-count:]) / count, 4)}
