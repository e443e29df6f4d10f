"""train: one stream is trained on its prepared rows, from the start or from the newest whole checkpoint, and ends with a final checkpoint."""

from __future__ import annotations

import csv
import io
import json
import math
import shutil
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from datasets import Dataset
from peft import PeftModel
from transformers import set_seed

from swarm import kinds
from swarm.errors import UserError
from swarm.events import Checkpoint, Post, Trained
from swarm.messages import ROW, MetricRow, Piece
from swarm.weights import adapter_sha256
from trainer import bases, checkpoint, resident
from trainer.checkpoint import FIGURES, Whole
from trainer.data.prepared import HELD_OUT, TRAIN, read_rows, verified
from trainer.engines.trl import Ingredients, NotFinite, StreamTrainer
from trainer.errors import LeaseRevoked
from trainer.judge.heldout import held_out_loss
from trainer.lease import Lease
from trainer.loading import compute_dtype, load_base, load_tokenizer, new_adapter
from trainer.place import Place
from trainer.watching import Boundary, Course, Figures, Saves
from trainer.whole import write_text

if TYPE_CHECKING:
    from swarm.settings import StreamSettings

AVERAGED_SHARE = 20
"""First and last loss are means over one in so many of the logged rows, since the loss of a single batch is mostly noise."""


def run(assign: Piece, lease: Lease, place: Place) -> None:
    began = time.monotonic()
    assert assign.prepared is not None, "a train task comes with prepared rows"
    verified(place.run_folder / assign.prepared, assign.prepared_sha256)
    course = Course(assign, lease, place)
    staging = course.folder_of(assign.token) / ".staging"
    shutil.rmtree(staging, ignore_errors=True)
    staging.mkdir(parents=True)
    resumed = _resumed(course)
    _fresh_peak(place)
    trainer = _trainer(course, staging)
    load_seconds = time.monotonic() - began
    if resumed is None or not _finished(course, resumed):
        _train(trainer, course, resumed)
    shutil.rmtree(staging, ignore_errors=True)
    if lease.revoked:
        raise LeaseRevoked(assign.ref)
    _write_logs(course, load_seconds)
    if course.why == "stop":
        lease.check()  # raises: the checkpoint is reported, the task goes back
    _report(course)


def _resumed(course: Course) -> Whole | None:
    """The newest checkpoint that verifies; the log notes those that were passed over."""
    folders = [course.place.run_folder / path for path in course.assign.resume_from]
    found, passed_over = checkpoint.newest_whole(folders)
    if passed_over:
        goes_on = f"goes on from step {found.step}" if found else "starts again from step 0"
        body = f"{goes_on}; passed over: " + "; ".join(passed_over)
        course.lease.report(Post(ref=course.assign.ref, body=body))
    course.before_seconds = max(course.assign.spent_seconds, found.spent_seconds if found else 0.0)
    if found is not None:
        figures = json.loads((found.folder / FIGURES).read_text(encoding="utf-8"))
        course.before_tokens = figures["tokens"]
        course.rows = [_row(row) for row in figures["rows"]]
    return found


def _finished(course: Course, resumed: Whole) -> bool:
    """Whether the checkpoint is the end of a training: its worker died after saving it and before reporting it."""
    assign, state = course.assign, json.loads((resumed.folder / "trainer_state.json").read_text(encoding="utf-8"))
    cap = assign.settings.max_minutes
    if resumed.step >= state["max_steps"]:
        course.why = "max_steps" if assign.settings.max_steps else "num_epochs"
    elif cap is not None and course.before_seconds >= cap * 60:
        course.why = "max_minutes"
    else:
        return False
    course.saved = Checkpoint(
        ref=assign.ref, tok=assign.token, step=resumed.step, path=course.place.relative(resumed.folder),
        sha256=adapter_sha256(resumed.folder),
    )  # fmt: skip
    return True


def _fresh_peak(place: Place) -> None:
    if place.on_gpu:
        torch.cuda.reset_peak_memory_stats()
    else:
        resident.forget_peak()


def _trainer(course: Course, staging: Path) -> StreamTrainer:
    settings, place = course.assign.settings, course.place
    base_folder = bases.folder_of(settings.base_model)
    model = _with_adapter(settings, base_folder, place)
    course.trainable = sum(value.numel() for value in model.parameters() if value.requires_grad)
    prepared = place.run_folder / (course.assign.prepared or "")
    rows = Dataset.from_file(str(prepared / TRAIN)).select_columns(["input_ids", "labels"])
    judged = list(read_rows(prepared / HELD_OUT)) if settings.eval_steps else []
    boundary = Boundary(course, lambda: held_out_loss(model, judged, lambda: None))
    made: StreamTrainer = kinds.method(settings.method).trainer(
        Ingredients(
            settings=settings,
            model=model,
            tokenizer=load_tokenizer(base_folder, trust_remote_code=settings.trust_remote_code),
            rows=rows,
            folder=staging,
            dtype=compute_dtype(settings, place),
            on_gpu=place.on_gpu,
            callbacks=[Figures(course), boundary, Saves(course, staging)],
        )
    )
    return made


def _with_adapter(settings: StreamSettings, base_folder: Path, place: Place) -> PeftModel:
    base = load_base(base_folder, settings, place)
    set_seed(settings.seed)  # A's random start is the stream's own
    model = new_adapter(base, settings)
    model.peft_config["default"].base_model_name_or_path = bases.name_in_adapters(settings.base_model)
    return model


def _train(trainer: StreamTrainer, course: Course, resumed: Whole | None) -> None:
    lease = course.lease
    lease.check()
    try:
        trainer.train(resume_from_checkpoint=str(resumed.folder) if resumed else None)
    except NotFinite as error:
        row = MetricRow(error.step, "train", time.time(), {"memory_bytes": course.memory_bytes()})
        lease.figures(row, trainer.state.max_steps)
        raise UserError(course.assign.stream, str(error), "lower learning_rate") from error
    if resumed is None and not course.moved and course.why != "stop" and not lease.revoked:
        raise UserError("learning_rate", "it was zero at every step", "lower warmup_ratio, or raise max_steps")


def _published(course: Course, last: Checkpoint) -> tuple[str, str, str]:
    """Path and hash of the checkpoint that is reported, and why: the last, or the one with the lowest held-out loss."""
    best = course.best
    if best is None or course.kept_step in (None, last.step):
        return last.path, last.sha256, course.why
    step, loss = best
    found = checkpoint.of_step(course.place.stream_folder(course.assign.stream), step)
    lowest = f"step {step} has the lowest held-out loss, {loss:.4g}"
    if found is None:
        return (
            last.path,
            last.sha256,
            f"{course.why}; {lowest}, but its checkpoint is gone: the last one is handed over",
        )
    why = f"{course.why}; {lowest} (the last {course.figures_at(last.step).get('eval_loss', math.nan):.4g}): it is handed over"
    return course.place.relative(found.folder), adapter_sha256(found.folder), why


def _report(course: Course) -> None:
    assign, saved = course.assign, course.saved
    assert saved is not None, "a training ends with a checkpoint"
    path, sha256, why = _published(course, saved)
    if path != saved.path:
        course.lease.report(saved)
    measured = {
        **(saved.figures if path == saved.path else {}),
        **_first_and_last_loss(course.rows),
        "seconds": round(course.spent_seconds, 2),
        "tokens_per_second": course.tokens_per_second,
        "peak_bytes": course.peak_bytes(),
    }
    course.lease.report(
        Trained(
            ref=assign.ref, tok=assign.token, step=saved.step, path=path, sha256=sha256, trainable=course.trainable, why=why,
            figures={name: value for name, value in measured.items() if value is not None},
        )
    )  # fmt: skip


def _first_and_last_loss(rows: list[MetricRow]) -> dict[str, float]:
    losses = [row.figures["loss"] for row in rows if "loss" in row.figures]
    if not losses:
        return {}
    count = max(1, len(losses) // AVERAGED_SHARE)
    return {"first_loss": round(sum(losses[:count]) / count, 4), "loss": round(sum(losses[-count:]) / count, 4)}


def _row(kept: dict[str, Any]) -> MetricRow:
    """A row of a checkpoint's own file; one of the version before may lack figures, and calls a held-out loss `loss`."""
    figures = {name: value for name, value in kept.items() if name not in ROW and value is not None}
    if kept["kind"] == "eval" and "loss" in figures:
        figures["eval_loss"] = figures.pop("loss")
    return MetricRow(kept["step"], kept["kind"], kept["time"], figures)


def _flat(row: MetricRow) -> dict[str, Any]:
    return {"step": row.step, "kind": row.kind, "time": row.time, **row.figures}


def _write_logs(course: Course, load_seconds: float) -> None:
    folder = course.place.stream_folder(course.assign.stream)
    rows = [_flat(row) for row in course.rows]
    table = io.StringIO()
    writer = csv.DictWriter(table, list(dict.fromkeys(name for row in rows for name in row)), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_text(folder / "train_log.csv", table.getvalue())
    write_text(folder / "train_log.json", json.dumps(rows, indent=1) + "\n")
    times = {
        "load_seconds": load_seconds, "loop_seconds": course.loop_seconds, "save_seconds": course.save_seconds,
        "eval_seconds": course.eval_seconds, "paused_seconds": course.lease.paused_seconds,
        "all_attempts_seconds": course.spent_seconds,
    }  # fmt: skip
    rounded = {key: round(value, 3) for key, value in times.items()}
    write_text(
        folder / "time_metrics.json",
        json.dumps({**rounded, "tokens_per_second": course.tokens_per_second}, indent=1) + "\n",
    )
