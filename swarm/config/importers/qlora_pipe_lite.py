"""The TOML of qlora-pipe-lite: documents cut into sequences, LoRA or control adapters, one pipeline over GPUs."""

from __future__ import annotations

import math
from typing import Any

from swarm.config.importers.rules import (
    OFF,
    CannotTake,
    Foreign,
    Outcome,
    Rule,
    Tool,
    base_model,
    dataset,
    left_out,
    to,
)  # fmt: skip


def _adapter(values: Any) -> str:
    if values.get("full_fine_tune"):
        return "full"
    kind = "control" if values.get("use_control_adapters") else "lora"
    return f"q{kind}" if values.get("load_in_4bit") else kind


def _kind(value: Any, foreign: Foreign) -> Outcome:
    return {"adapter": _adapter(foreign.values)} if value else OFF


def _dtype(value: Any, foreign: Foreign) -> Outcome:
    if value == "bfloat16" and "control" in _adapter(foreign.values):
        return "control adapters are held in float32"
    return OFF if value is None else {"lora_weight_dtype": value}


def _datasets(value: Any, foreign: Foreign) -> Outcome:
    made, notes = [], []
    if not isinstance(value, list) or not all(isinstance(entry, dict) for entry in value):
        raise CannotTake("is no list of tables", "write a [[datasets]] for each")
    for number, entry in enumerate(value):
        if "dataset_path" not in entry:
            raise CannotTake("has no dataset_path", "name its files", f"datasets.{number}")
        one, left = dataset(entry, foreign, DATASET, f"datasets.{number}")
        made.append({**_around(foreign), **one, "type": "document"})
        notes += [(f"{number}.{key}", why) for key, why in left]
    return {"datasets": made, "notes": notes}


def _path(value: Any, foreign: Foreign) -> Outcome:
    if not isinstance(value, str):
        raise CannotTake("is no path or pattern", "write a [[datasets]] for each")
    return {"path": foreign.path(value)}


def _around(foreign: Foreign) -> dict[str, Any]:
    """What stands round the documents of every dataset."""
    given = {key: foreign.values.get(key) for key in AROUND}
    return {key: value for key, value in given.items() if value is not None}


def _stages(value: Any, _: Foreign) -> Outcome:
    if value not in (None, 1):
        raise CannotTake(
            "a model over several GPUs is not trained", "write pipeline_stages = 1; adapter: qlora needs a quarter"
        )
    return OFF


AROUND = ("document_prefix", "document_suffix")
"""Keys of all datasets there, of each here."""
DATASET: dict[str, Rule] = {
    "dataset_path": _path,
    "drop_tails": left_out("of a dataset it changes nothing there: set it for the stream"),
    "max_sequences": left_out("of a dataset it changes nothing there: set max_tokens, or max_sequences of the stream"),
}

RULES: dict[str, Rule] = {
    "model_dir": base_model,
    "output_dir": left_out("run folders stand in runs_dir"),
    "datasets": _datasets,
    "full_fine_tune": _kind,
    "use_control_adapters": _kind,
    "load_in_4bit": _kind,
    "lora_rank": to("lora_r"),
    "lora_weight_dtype": _dtype,
    "control_class0_lambda": to("control_neutral_lambda", off=(None, 0)),
    "target_modules": to("lora_target_modules"),
    "lr": to("learning_rate"),
    "epochs": to("num_epochs"),
    "eval_gradient_accumulation_steps": left_out("held-out rows are judged in batches that fit"),
    "eval_fraction": to("val_set_size"),
    "evals_per_epoch": left_out("set evals_per_run"),
    "checkpoint_interval_hours": to("save_hours"),
    "max_checkpoints": to("save_total_limit"),
    "pipeline_stages": _stages,
    "use_column_major_topology": left_out("one device a stream"),
    "partition_method": left_out("one device a stream"),
    **dict.fromkeys(AROUND, lambda *_: OFF),
}  # fmt: skip


def _defaults(foreign: Foreign) -> dict[str, Any]:
    """Its own where ours differ: alpha is the root of the rank, rounded; Adam rises with beta2 and never falls; whole blocks are steered."""
    values = foreign.values
    rank = 0 if values.get("full_fine_tune") else values.get("lora_rank")
    alpha = {"lora_alpha": max(1, round(math.sqrt(rank)))} if isinstance(rank, int) and rank > 0 else {}
    site = {"control_site": "block"} if values.get("use_control_adapters") else {}
    return {
        "adapter": _adapter(values), **alpha, **site, "optimizer": "adam", "beta1": 0.9, "beta2": 0.99, "eps": 1e-6, "lr_scheduler": "rms_ratio",
        "micro_batch_size": 1, "val_set_size": 0.01, "seed": 42, "evals_per_run": 11, "save_hours": 1, "save_total_limit": 3,
    }  # fmt: skip


TOOL = Tool(
    "qlora-pipe-lite",
    frozenset({
        "model_dir", "full_fine_tune", "use_control_adapters", "lora_rank", "lora_weight_dtype", "lora_weight_decay", "lora_max_norm", "lr", "epochs",
        "datasets", "sequence_len", "sequence_prefix", "document_suffix", "mask_tokens", "drop_tails", "mix_datasets", "max_sequences",
        "eval_fraction", "evals_per_run", "checkpoint_interval_hours", "max_checkpoints", "pipeline_stages", "use_column_major_topology",
    }),
    RULES,
    _defaults,
)  # fmt: skip
