"""`time_metrics.json`: what one training took, what it saw, how its loss went, and how it was trained."""

from __future__ import annotations

import json
from typing import Any

from swarm import kinds
from swarm.files import write_whole
from swarm.settings import Part, StreamSettings
from trainer.progress import TrainingProgress

FILE = "time_metrics.json"
KEYS = (
    "base_model", "optimizer", "learning_rate", "lr_scheduler", "sequence_len", "micro_batch_size", "gradient_accumulation_steps", "seed",
    "engine",
)  # fmt: skip
"""What two trainings usually differ in, beside the settings of their method and adapter."""


def write(progress: TrainingProgress, losses: dict[str, float]) -> None:
    """`losses`: the first and the last, as they are reported."""
    found = {
        **_times(progress),
        **_seen(progress),
        **_losses(losses),
        **_speeds(progress),
        "why": progress.why,
        **_flags(progress.assign.settings),
    }
    write_whole(progress.folder / FILE, json.dumps(found, indent=1) + "\n")


def _times(progress: TrainingProgress) -> dict[str, float]:
    """Of the last attempt, and of all."""
    times = {
        "load_seconds": progress.load_seconds, "loop_seconds": progress.loop_seconds, "save_seconds": progress.save_seconds,
        "eval_seconds": progress.eval_seconds, "paused_seconds": progress.lease.paused_seconds,
        "all_attempts_seconds": progress.spent_seconds,
    }  # fmt: skip
    return {name: round(value, 3) for name, value in times.items()}


def _seen(progress: TrainingProgress) -> dict[str, float | None]:
    """Rows and tokens of the data, and the tokens that were really seen in all attempts, pads left out."""
    data, last = progress.prepared, progress.newest.get("train")
    steps, seconds = last.step if last else 0, progress.spent_seconds
    return {
        "rows": data.get("rows"), "data_tokens": data.get("tokens"), "data_supervised_tokens": data.get("supervised"),
        "tokens": progress.tokens, "supervised_tokens": last.figures.get("supervised_tokens") if last else None,
        "steps": steps, "steps_per_second": round(steps / seconds, 3) if seconds else None,
        "tokens_per_second": progress.tokens_per_second,
    }  # fmt: skip


def _speeds(progress: TrainingProgress) -> dict[str, float]:
    """Sequences of all models in a second of training, and evaluations of all held-out rows in a second of those; the newest held-out loss."""
    settings, judged = progress.assign.settings, progress.newest.get("eval")
    found = {"eval_loss": judged.figures["eval_loss"], "evaluations": progress.evaluations} if judged else {}
    if progress.evaluations and progress.eval_seconds:
        found["evaluations_per_second"] = round(progress.evaluations / progress.eval_seconds, 3)
    if progress.newest.get("train") and progress.spent_seconds and settings.batch_size_tokens is None:
        rows = sum(part.micro_batch_size * _accumulated(part, settings) for part in settings.parts.values())
        found["sequences_per_second"] = round(rows * progress.newest["train"].step / progress.spent_seconds, 3)
    return found


def _accumulated(part: Part, settings: StreamSettings) -> int:
    """Micro-batches of a step; of two models each says its own."""
    return (
        part.gradient_accumulation_steps if isinstance(part, StreamSettings) else settings.gradient_accumulation_steps
    )


def _losses(losses: dict[str, float]) -> dict[str, float]:
    if not losses:
        return {}
    first, last = losses["first_loss"], losses["loss"]
    share = {"loss_delta_percent": round(100 * (last - first) / first, 2)} if first else {}
    return {"first_loss": first, "last_loss": last, "loss_delta": round(last - first, 4), **share}


def _flags(settings: StreamSettings) -> dict[str, Any]:
    """What the stream chose, with all settings of its method and its adapter kind: `use_dora`, `kl_lambda`, ..."""
    chosen = {name: getattr(settings, name) for name in ("method", "adapter")}
    own = [kinds.method(settings.method).settings, kinds.adapter(settings.adapter).settings]
    values = settings.model_dump(mode="json")
    return {
        **chosen,
        **{name: values[name] for one in own for name in one.model_fields},
        **{name: values[name] for name in KEYS},
    }
