"""The TOML of qlora-pipe-lite: documents cut into sequences, LoRA or control adapters, one pipeline over GPUs."""

from __future__ import annotations

import math
from typing import Any, get_args

from swarm import kinds
from swarm.config.importers.rules import (
    OFF,
    CannotTake,
    Foreign,
    Outcome,
    Rule,
    Tool,
    base_model,
    dataset,
    known,
    left_out,
    to,
)  # fmt: skip
from swarm.settings import Dataset, StreamSettings


def _adapter(values: Any) -> str:
    if values.get("full_fine_tune"):
        return "full"
    if values.get("use_control_adapters"):
        return "control"
    return "qlora" if values.get("load_in_4bit") else "lora"


def _kind(value: Any, foreign: Foreign) -> Outcome:
    return {"adapter": _adapter(foreign.values)} if value else OFF


def _datasets(value: Any, foreign: Foreign) -> Outcome:
    made, notes = [], []
    for number, entry in enumerate(value or []):
        one, left = dataset(entry, foreign, DATASET, f"datasets.{number}")
        made.append({**_around(foreign), **one, "type": "document"})
        notes += [(f"{number}.{key}", why) for key, why in left]
    return {"datasets": made, "notes": notes}


def _around(foreign: Foreign) -> dict[str, Any]:
    """What stands round the documents of every dataset."""
    given = {key: foreign.values.get(key) for key in AROUND}
    return {key: value for key, value in given.items() if value is not None}


def _ours_or(name: str, reason: str) -> Rule:
    """The setting of that name, where this version has it."""
    return lambda value, _: {name: value} if name in known(StreamSettings) else reason


def _stages(value: Any, _: Foreign) -> Outcome:
    if value not in (None, 1):
        raise CannotTake(
            "a model over several GPUs is not trained", "write pipeline_stages = 1; adapter: qlora needs a quarter"
        )
    return OFF


AROUND = ("document_prefix", "document_suffix")
"""Keys of all datasets there, of each here."""
DATASET: dict[str, Rule] = {
    "dataset_path": lambda value, foreign: {"path": foreign.path(str(value))},
    "control_class": lambda value, _: (
        {"control_class": value} if "control_class" in Dataset.model_fields else "of control adapters"
    ),
    "drop_tails": left_out("of a dataset it changes nothing there: set it for the stream"),
}

RULES: dict[str, Rule] = {
    "model_dir": base_model,
    "output_dir": left_out("run folders stand in runs_dir"),
    "datasets": _datasets,
    "full_fine_tune": _kind,
    "use_control_adapters": _kind,
    "load_in_4bit": _kind,
    "lora_rank": to("lora_r"),
    "lora_weight_decay": to("lora_weight_decay"),
    "lora_weight_decay_type": to("lora_weight_decay_type"),
    "lora_max_norm": to("lora_max_norm"),
    "lora_weight_dtype": _ours_or("lora_weight_dtype", "adapters are float32"),
    "layers_to_transform": _ours_or("layers_to_transform", "write a pattern into lora_target_modules"),
    "target_modules": to("lora_target_modules"),
    "lr": to("learning_rate"),
    "epochs": to("num_epochs"),
    "beta1": _ours_or("beta1", "the optimizer's own"),
    "beta2": _ours_or("beta2", "the optimizer's own"),
    "eps": _ours_or("eps", "the optimizer's own"),
    "eval_gradient_accumulation_steps": left_out("held-out rows are judged in batches that fit"),
    "eval_fraction": to("val_set_size"),
    "evals_per_run": _ours_or("evals_per_run", "set eval_steps"),
    "evals_per_epoch": left_out("set eval_steps"),
    "checkpoint_interval_hours": _ours_or("save_hours", "set save_steps"),
    "max_checkpoints": lambda value, _: {"save_total_limit": value} if value else "all are kept there: set save_total_limit",
    "pipeline_stages": _stages,
    "use_column_major_topology": left_out("one device a stream"),
    "partition_method": left_out("one device a stream"),
    **dict.fromkeys(AROUND, lambda *_: OFF),
}  # fmt: skip


def _defaults(foreign: Foreign) -> dict[str, Any]:
    """Its own where ours differ: alpha is the root of the rank, rounded; Adam rises with beta2 and never falls."""
    values, ours = foreign.values, known(StreamSettings)
    lora = {} if values.get("full_fine_tune") else {"lora_alpha": max(1, round(math.sqrt(values.get("lora_rank", 1))))}
    numbers = {"beta1": 0.9, "beta2": 0.99, "eps": 1e-6} if "beta1" in ours else {}
    rises = "rms_ratio" in get_args(ours["lr_scheduler"].annotation)
    schedule = {
        "lr_scheduler": "rms_ratio" if rises else "constant",
        "optimizer": "adam" if "adam" in kinds.installed("optimizer") else "adamw_torch",
    }
    return {
        "adapter": _adapter(values),
        **lora,
        **numbers,
        **schedule,
        "micro_batch_size": 1,
        "val_set_size": 0.01,
        "seed": 42,
    }


TOOL = Tool(
    "qlora-pipe-lite",
    frozenset({
        "model_dir", "lora_rank", "eval_fraction", "pipeline_stages", "checkpoint_interval_hours", "evals_per_run",
        "use_control_adapters", "full_fine_tune", "lora_weight_dtype",
    }),
    RULES,
    _defaults,
)  # fmt: skip
