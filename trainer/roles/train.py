"""train: one stream is trained on its prepared rows, from the start or from the newest whole checkpoint, and ends with a final checkpoint."""

from __future__ import annotations

import json
import math
import shutil
import time
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from datasets import Dataset
from peft import PeftModel
from transformers import set_seed

from swarm import kinds
from swarm.errors import UserError
from swarm.events import Checkpoint, Post, Trained
from swarm.files import write_whole
from swarm.messages import MetricRow, Piece
from swarm.weights import adapter_sha256
from trainer import bases, checkpoint, resident
from trainer.checkpoint import Whole
from trainer.data.prepared import HELD_OUT, TRAIN, read_rows, verified
from trainer.engines.trl import Ingredients, NotFinite, StreamTrainer
from trainer.errors import LeaseRevoked
from trainer.judge.heldout import held_out_loss
from trainer.lease import Lease
from trainer.loading import compute_dtype, load_base, load_tokenizer, new_adapter
from trainer.place import Place
from trainer.trainlog import CSV, rows_in, rows_of_older
from trainer.watching import Boundary, Figures, Saves, TrainingProgress

if TYPE_CHECKING:
    from swarm.settings import StreamSettings

AVERAGED_SHARE = 20
"""First and last loss are means over one in so many of the logged rows, since the loss of a single batch is mostly noise."""


def run(assign: Piece, lease: Lease, place: Place) -> None:
    began = time.monotonic()
    assert assign.prepared is not None, "a train task comes with prepared rows"
    verified(place.run_folder / assign.prepared, assign.prepared_sha256)
    progress = TrainingProgress(assign, lease, place)
    staging = progress.folder_of(assign.token) / ".staging"
    shutil.rmtree(staging, ignore_errors=True)
    staging.mkdir(parents=True)
    resumed = _resumed(progress)
    with closing(progress.log):
        _fresh_peak(place)
        trainer = _trainer(progress, staging)
        load_seconds = time.monotonic() - began
        if resumed is None or not _finished(progress, resumed):
            _train(trainer, progress, resumed)
        shutil.rmtree(staging, ignore_errors=True)
        if lease.revoked:
            raise LeaseRevoked(assign.ref)
        rows = progress.log.finish()
    _write_times(progress, load_seconds)
    if progress.why == "stop":
        lease.check()  # raises: the checkpoint is reported, the task goes back
    _report(progress, rows)


def _resumed(progress: TrainingProgress) -> Whole | None:
    """The newest checkpoint that verifies; the log notes those that were passed over."""
    folders = [progress.place.run_folder / path for path in progress.assign.resume_from]
    found, passed_over = checkpoint.newest_whole(folders)
    if passed_over:
        goes_on = f"goes on from step {found.step}" if found else "starts again from step 0"
        body = f"{goes_on}; passed over: " + "; ".join(passed_over)
        progress.lease.report(Post(ref=progress.assign.ref, body=body))
    progress.before_seconds = max(progress.assign.spent_seconds, found.spent_seconds if found else 0.0)
    if found is not None:
        progress.before_tokens = found.tokens
    progress.begin(_rows_before(found, progress.place.stream_folder(progress.assign.stream)) if found else [])
    return found


def _rows_before(resumed: Whole, folder: Path) -> list[MetricRow]:
    """The stream's history up to the checkpoint; one of the version before holds it itself."""
    kept = resumed.older_rows
    return list(rows_in(folder / CSV, resumed.step) if kept is None else rows_of_older(kept))


def _finished(progress: TrainingProgress, resumed: Whole) -> bool:
    """Whether the checkpoint is the end of a training: its worker died after saving it and before reporting it."""
    assign, state = progress.assign, json.loads((resumed.folder / "trainer_state.json").read_text(encoding="utf-8"))
    cap = assign.settings.max_minutes
    if resumed.step >= state["max_steps"]:
        progress.why = "max_steps" if assign.settings.max_steps else "num_epochs"
    elif cap is not None and progress.before_seconds >= cap * 60:
        progress.why = "max_minutes"
    else:
        return False
    progress.saved = Checkpoint(
        ref=assign.ref, tok=assign.token, step=resumed.step, path=progress.place.relative(resumed.folder),
        sha256=adapter_sha256(resumed.folder),
    )  # fmt: skip
    return True


def _fresh_peak(place: Place) -> None:
    if place.on_gpu:
        torch.cuda.reset_peak_memory_stats()
    else:
        resident.forget_peak()


def _trainer(progress: TrainingProgress, staging: Path) -> StreamTrainer:
    settings, place = progress.assign.settings, progress.place
    base_folder = bases.folder_of(settings.base_model)
    model = _with_adapter(settings, base_folder, place)
    progress.trainable = sum(value.numel() for value in model.parameters() if value.requires_grad)
    prepared = place.run_folder / (progress.assign.prepared or "")
    rows = Dataset.from_file(str(prepared / TRAIN)).select_columns(["input_ids", "labels"])
    judged = list(read_rows(prepared / HELD_OUT)) if settings.eval_steps else []
    boundary = Boundary(progress, lambda: held_out_loss(model, judged, lambda: None))
    made: StreamTrainer = kinds.method(settings.method).trainer(
        Ingredients(
            settings=settings,
            model=model,
            tokenizer=load_tokenizer(base_folder, trust_remote_code=settings.trust_remote_code),
            rows=rows,
            folder=staging,
            dtype=compute_dtype(settings, place),
            on_gpu=place.on_gpu,
            callbacks=[Figures(progress), boundary, Saves(progress, staging)],
        )
    )
    return made


def _with_adapter(settings: StreamSettings, base_folder: Path, place: Place) -> PeftModel:
    base = load_base(base_folder, settings, place)
    set_seed(settings.seed)  # A's random start is the stream's own
    model = new_adapter(base, settings)
    model.peft_config["default"].base_model_name_or_path = bases.name_in_adapters(settings.base_model)
    return model


def _train(trainer: StreamTrainer, progress: TrainingProgress, resumed: Whole | None) -> None:
    lease = progress.lease
    lease.check()
    try:
        trainer.train(resume_from_checkpoint=str(resumed.folder) if resumed else None)
    except NotFinite as error:
        row = MetricRow(error.step, "train", time.time(), {"memory_bytes": progress.memory_bytes()})
        lease.figures(row, trainer.state.max_steps)
        raise UserError(progress.assign.stream, str(error), "lower learning_rate") from error
    if resumed is None and not progress.moved and progress.why != "stop" and not lease.revoked:
        raise UserError("learning_rate", "it was zero at every step", "lower warmup_ratio, or raise max_steps")


def _published(progress: TrainingProgress, last: Checkpoint) -> tuple[str, str, str]:
    """Path and hash of the checkpoint that is reported, and why: the last, or the one with the lowest held-out loss."""
    best = progress.best
    if best is None or progress.kept_step in (None, last.step):
        return last.path, last.sha256, progress.why
    step, loss = best
    found = checkpoint.of_step(progress.place.stream_folder(progress.assign.stream), step)
    lowest = f"step {step} has the lowest held-out loss, {loss:.4g}"
    if found is None:
        return (
            last.path,
            last.sha256,
            f"{progress.why}; {lowest}, but its checkpoint is gone: the last one is handed over",
        )
    why = f"{progress.why}; {lowest} (the last {progress.figures_at(last.step).get('eval_loss', math.nan):.4g}): it is handed over"
    return progress.place.relative(found.folder), adapter_sha256(found.folder), why


def _report(progress: TrainingProgress, rows: list[MetricRow]) -> None:
    assign, saved = progress.assign, progress.saved
    assert saved is not None, "a training ends with a checkpoint"
    path, sha256, why = _published(progress, saved)
    if path != saved.path:
        progress.lease.report(saved)
    measured = {
        **(saved.figures if path == saved.path else {}),
        **_first_and_last_loss(rows),
        "seconds": round(progress.spent_seconds, 2),
        "tokens_per_second": progress.tokens_per_second,
        "peak_bytes": progress.peak_bytes(),
    }
    progress.lease.report(
        Trained(
            ref=assign.ref, tok=assign.token, step=saved.step, path=path, sha256=sha256, trainable=progress.trainable, why=why,
            figures={name: value for name, value in measured.items() if value is not None},
        )
    )  # fmt: skip


def _first_and_last_loss(rows: list[MetricRow]) -> dict[str, float]:
    losses = [row.figures["loss"] for row in rows if "loss" in row.figures]
    if not losses:
        return {}
    count = max(1, len(losses) // AVERAGED_SHARE)
    return {"first_loss": round(sum(losses[:count]) / count, 4), "loss": round(sum(losses[-count:]) / count, 4)}


def _write_times(progress: TrainingProgress, load_seconds: float) -> None:
    folder = progress.place.stream_folder(progress.assign.stream)
    times = {
        "load_seconds": load_seconds, "loop_seconds": progress.loop_seconds, "save_seconds": progress.save_seconds,
        "eval_seconds": progress.eval_seconds, "paused_seconds": progress.lease.paused_seconds,
        "all_attempts_seconds": progress.spent_seconds,
    }  # fmt: skip
    rounded = {key: round(value, 3) for key, value in times.items()}
    write_whole(
        folder / "time_metrics.json",
        json.dumps({**rounded, "tokens_per_second": progress.tokens_per_second}, indent=1) + "\n",
    )
