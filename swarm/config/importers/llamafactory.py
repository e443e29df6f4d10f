"""LLaMA-Factory's YAML (`llamafactory-cli train FILE`); its datasets are names in `dataset_info.json`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from swarm.config.importers.rules import (
    OFF,
    CannotTake,
    Foreign,
    Outcome,
    Rule,
    Tool,
    as_list,
    base_model,
    left_out,
    refused_if_on,
)
from swarm.config.importers.trl import TRAINING

INFO = "dataset_info.json"
METHODS = {"sft": "sft", "dpo": "dpo", "kto": "kto"}


def _stage(value: Any, foreign: Foreign) -> Outcome:
    if value == "dpo" and foreign.values.get("pref_loss") == "orpo":
        return {"method": "orpo"}
    if value in METHODS:
        return {"method": METHODS[value]}
    if value == "pt":
        return {"method": "sft", "train_on_inputs": True}
    raise CannotTake(f"the stage {value!r} has no equal here", "take sft, pt, dpo or kto")


def _adapter(_: Any, foreign: Foreign) -> Outcome:
    kind = foreign.values.get("finetuning_type", "lora")
    if kind == "lora":
        return {"adapter": "qlora" if foreign.values.get("quantization_bit") else "lora"}
    return {"adapter": kind}


def _quantization(value: Any, foreign: Foreign) -> Outcome:
    if value is None:
        return OFF
    if value != 4:
        raise CannotTake(f"a base in {value} bits is not trained on", "write quantization_bit: 4, or remove it")
    return _adapter(value, foreign)


def _datasets(value: Any, foreign: Foreign, name: str = "datasets") -> Outcome:
    made, notes = [], []
    for wanted in as_list(value):
        one, left = _dataset(wanted, foreign)
        made.append(one)
        notes += [(f"{wanted}.{key}", why) for key, why in left]
    return {name: made, "notes": notes}


def _dataset(name: str, foreign: Foreign) -> tuple[dict[str, Any], list[tuple[str, str]]]:
    folder = foreign.cwd / str(foreign.values.get("dataset_dir", "data"))
    found = _info(folder).get(name)
    if not isinstance(found, Mapping):
        raise CannotTake(f"the dataset {name!r} does not stand in {folder / INFO}", "correct dataset_dir, or the name")
    columns = found.get("columns") or {}
    if found.get("ranking"):
        made: dict[str, Any] = {"path": _path(found, folder, foreign)}
    elif found.get("formatting", "alpaca") == "alpaca":
        made = {"path": _path(found, folder, foreign), **_pairs(columns)}
    else:
        made = {
            "path": _path(found, folder, foreign),
            "type": "chatml",
            "messages": columns.get("messages", "conversations"),
        }
    used = {"file_name", "hf_hub_url", "columns", "formatting", "ranking", "num_samples"}
    limits = [limit for limit in (found.get("num_samples"), foreign.values.get("max_samples")) if limit]
    limit = {"limit": min(limits)} if limits else {}
    return {**made, **limit}, [(key, "roles and columns are read as they are") for key in sorted(found.keys() - used)]


def _pairs(columns: Mapping[str, str]) -> dict[str, Any]:
    """Its own names are Alpaca's; a file of columns prompt, query and response is Alpaca's under other names."""
    odd = [key for key in ("system", "history") if columns.get(key)]
    if odd:
        raise CannotTake(f"columns {' and '.join(odd)} beside the prompt are not read", "write the rows as chats")
    prompt, answer = columns.get("prompt", "instruction"), columns.get("response", "output")
    if (prompt, answer, columns.get("query", "input")) == ("instruction", "output", "input"):
        return {"type": "alpaca"}
    if columns.get("query"):
        raise CannotTake(
            "a prompt of two columns is read under Alpaca's names alone", "name them instruction, input, output"
        )
    return {"type": "prompt_completion", "prompt": prompt, "completion": answer}


def _path(found: Mapping[str, Any], folder: Path, foreign: Foreign) -> str:
    if name := found.get("file_name"):
        return foreign.path(str(folder / name)) if not Path(name).is_absolute() else str(name)
    if name := found.get("hf_hub_url"):
        return str(name)
    raise CannotTake("the dataset has neither file_name nor hf_hub_url", "name a file")


def _info(folder: Path) -> Mapping[str, Any]:
    try:
        found = json.loads((folder / INFO).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CannotTake(f"{folder / INFO} cannot be read ({error})", "run it where LLaMA-Factory is run") from error
    return found if isinstance(found, Mapping) else {}


def _targets(value: Any, _: Foreign) -> Outcome:
    if value in (None, "all"):
        return {"lora_target_modules": "all-linear"}
    return {"lora_target_modules": as_list(value)}


def _val_size(value: Any, foreign: Foreign) -> Outcome:
    judged = "here an adapter is judged on held-out rows, so that some are kept apart"
    return {"val_set_size": value} if value or foreign.values.get("eval_dataset") else judged


RULES: dict[str, Rule] = {
    **TRAINING,
    "model_name_or_path": base_model,
    "stage": _stage,
    **dict.fromkeys(("packing", "neat_packing"), lambda value, _: {"packing": "bfd"} if value else OFF),
    "finetuning_type": _adapter,
    "quantization_bit": _quantization,
    "dataset": _datasets,
    "eval_dataset": lambda value, foreign: _datasets(value, foreign, "test_datasets") if value else OFF,
    "dataset_dir": left_out("where its datasets were looked up"),
    "max_samples": left_out("the limit of each entry of datasets"),
    "lora_target": _targets,
    "val_size": _val_size,
    "pref_loss": lambda value, _: "with stage: dpo" if value in ("sigmoid", "orpo", None) else _refuse_loss(value),
    "disable_gradient_checkpointing": lambda value, _: {"gradient_checkpointing": not value},
    "adapter_name_or_path": refused_if_on("going on from another adapter has no equal in this file", "start a new adapter"),
    "additional_target": refused_if_on("whole layers beside an adapter are not trained", "remove it"),
    "use_dft_loss": lambda value, _: {"loss": "dft"} if value else OFF,
    "pref_beta": lambda value, _: {"beta": value},
}  # fmt: skip


def _refuse_loss(value: Any) -> Outcome:
    raise CannotTake(f"the preference loss {value!r} is not computed", "take sigmoid or orpo")


def _defaults(foreign: Foreign) -> dict[str, Any]:
    """Its own, and transformers', where ours differ."""
    rank = foreign.values.get("lora_rank", 8)
    lora = (
        {"adapter": "lora", "lora_r": 8, "lora_alpha": 2 * rank}
        if foreign.values.get("finetuning_type", "lora") == "lora"
        else {}
    )
    return {
        **lora, "micro_batch_size": 8, "num_epochs": 3, "sequence_len": 2048, "learning_rate": 5e-5, "warmup_ratio": 0,
        "gradient_checkpointing": True, "save_steps": 500, "seed": 42,
    }  # fmt: skip


TOOL = Tool(
    "LLaMA-Factory",
    frozenset({
        "stage", "finetuning_type", "template", "cutoff_len", "dataset", "dataset_dir", "lora_rank", "lora_target",
        "quantization_bit", "overwrite_cache", "plot_loss",
    }),
    RULES,
    _defaults,
)  # fmt: skip
