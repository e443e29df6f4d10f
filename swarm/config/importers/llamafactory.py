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
    packing,
    preference,
    refused_if_on,
    to,
)
from swarm.config.importers.trl import TRAINING

INFO = "dataset_info.json"
METHODS = {"sft": "sft", "dpo": "dpo", "kto": "kto"}
COLUMNS = {"prompt": "instruction", "query": "input", "response": "output", "messages": "conversations"}
"""Of a dataset that names none."""
TAGS = {
    "role_tag": ("from", "role"), "content_tag": ("value", "content"), "user_tag": ("human", "user"), "assistant_tag": ("gpt", "assistant"),
    "observation_tag": ("observation", "tool"), "function_tag": ("function_call",), "system_tag": ("system",),
}  # fmt: skip
"""How messages are written that are read here."""


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
    given = foreign.values.get("interleave_probs") if name == "datasets" else None
    weights = [float(part) for part in as_list(given)] if given else []
    for number, wanted in enumerate(as_list(value)):
        one, left = _dataset(wanted, foreign)
        made.append({**one, "weight": weights[number]} if weights else one)
        notes += [(f"{wanted}.{key}", why) for key, why in left]
    return {name: made, "notes": notes}


def _dataset(name: str, foreign: Foreign) -> tuple[dict[str, Any], list[tuple[str, str]]]:
    folder = foreign.cwd / str(foreign.values.get("dataset_dir", "data"))
    found = _info(folder).get(name)
    if not isinstance(found, Mapping):
        raise CannotTake(f"the dataset {name!r} does not stand in {folder / INFO}", "correct dataset_dir, or the name")
    path = _path(found, folder, foreign)
    made = {"path": path, **_columns(found, found.get("columns") or COLUMNS, foreign)}
    if split := found.get("split"):
        made["split"] = split
    used = {
        "file_name",
        "hf_hub_url",
        "columns",
        "formatting",
        "ranking",
        "num_samples",
        "split",
        "tags",
        "subset",
        "folder",
    }
    limits = [limit for limit in (found.get("num_samples"), foreign.values.get("max_samples")) if limit]
    limit = {"limit": min(limits)} if limits else {}
    return {**made, **limit}, [(key, "another place of the same rows") for key in sorted(found.keys() - used)]


def _columns(found: Mapping[str, Any], columns: Mapping[str, str], foreign: Foreign) -> dict[str, Any]:
    """What a row is, and the names of its columns."""
    if seen := [key for key in ("images", "videos", "audios") if columns.get(key)]:
        raise CannotTake(f"{seen[0]} are not read: text alone is trained on", "leave such datasets out")
    is_pair = found.get("formatting", "alpaca") == "alpaca"
    if not is_pair:
        _refuse_other_messages(columns, found.get("tags") or {})
    system = {"system": columns.get("system") or None}  # without a name none is read there
    if found.get("ranking"):
        return _ranked(columns, columns.get("prompt") if is_pair else columns.get("messages")) | system
    if not is_pair:
        tools = {"tools": columns["tools"]} if columns.get("tools") else {}
        return {"type": "chatml", "messages": columns.get("messages", "conversations"), **tools, **system}
    if foreign.values.get("stage") == "pt":
        return {"type": "text", "text": columns.get("prompt", "instruction")}
    return _pairs(columns) | system


def _refuse_other_messages(columns: Mapping[str, str], tags: Mapping[str, str]) -> None:
    for tag, known in TAGS.items():
        if (given := tags.get(tag, known[0])) not in known:
            raise CannotTake(
                f"messages whose {tag} is {given!r} are not read", f"write {' or '.join(known)} in the rows"
            )


def _ranked(columns: Mapping[str, str], prompt: str | None) -> dict[str, Any]:
    """Pairs of a better and a worse answer; a prompt of two columns is read where the second is Alpaca's."""
    made = {
        "type": "prompt_completion",
        "prompt": prompt,
        "completion": columns["chosen"],
        "rejected": columns["rejected"],
    }
    if not (query := columns.get("query")):
        return made
    if query != "input":
        raise CannotTake("a prompt of two columns is read under Alpaca's names alone", "name the second one input")
    return {**made, "prompt_template": f"{{{prompt}}}\n{{{query}}}", "no_input_template": f"{{{prompt}}}"}


def _pairs(columns: Mapping[str, str]) -> dict[str, Any]:
    """Its own names are Alpaca's; a file of columns prompt, query and response is Alpaca's under other names."""
    if columns.get("history"):
        raise CannotTake("a column history beside the prompt is not read", "write the rows as chats")
    prompt, answer = columns.get("prompt", "instruction"), columns.get("response", "output")
    if (prompt, answer, columns.get("query", "input")) == ("instruction", "output", "input"):
        return {"type": "alpaca"}
    if columns.get("query"):
        raise CannotTake(
            "a prompt of two columns is read under Alpaca's names alone", "name them instruction, input, output"
        )
    return {"type": "prompt_completion", "prompt": prompt, "completion": answer}


def _path(found: Mapping[str, Any], folder: Path, foreign: Foreign) -> str:
    if part := found.get("subset") or found.get("folder"):
        raise CannotTake(f"a part of a hub dataset ({part}) cannot be named", "download it and name its file")
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


def _method(foreign: Foreign) -> str:
    return str(_stage(foreign.values.get("stage", "sft"), foreign)["method"])  # type: ignore[index]


def _mixed(value: Any, foreign: Foreign) -> Outcome:
    """Under: it ends where one dataset does; over: where all do, the others again."""
    if value in (None, "concat"):
        return OFF
    if value in MIXTURES:
        return {"mix_strategy": MIXTURES[value]}
    raise CannotTake(f"the mixture {value!r} has no equal here", f"take {', '.join(MIXTURES)} or concat")


MIXTURES = {"interleave_under": "sample", "interleave_over": "repeat"}


def _loss(value: Any, foreign: Foreign) -> Outcome:
    if value in (None, "orpo") or _method(foreign) != "dpo":
        return "with stage: dpo"
    if value in ("sigmoid", "hinge", "ipo"):
        return {"dpo_loss": value}
    raise CannotTake(f"the preference loss {value!r} is not computed", "take sigmoid, hinge, ipo or orpo")


def _in_4_bits(name: str) -> Rule:
    return lambda value, foreign: {name: value} if foreign.values.get("quantization_bit") and value is not None else OFF


def _adapter_below(value: Any, foreign: Foreign) -> Outcome:
    if not value:
        return OFF
    below = as_list(value)
    if not foreign.values.get("create_new_adapter"):
        raise CannotTake(
            "going on with another adapter has no equal here", "write create_new_adapter: true, or remove it"
        )
    if len(below) > 1:
        raise CannotTake("a stream begins on one adapter", "merge them first (`swarm merge A B`)")
    return {"start_adapter": foreign.path(str(below[0]))}


RULES: dict[str, Rule] = {
    **TRAINING,
    "model_name_or_path": base_model,
    "stage": _stage,
    **dict.fromkeys(("packing", "neat_packing"), packing),
    "finetuning_type": _adapter,
    "quantization_bit": _quantization,
    "dataset": _datasets,
    "eval_dataset": lambda value, foreign: _datasets(value, foreign, "test_datasets") if value else OFF,
    "dataset_dir": left_out("where its datasets were looked up"),
    "max_samples": left_out("the limit of each entry of datasets"),
    "lora_target": _targets,
    "val_size": _val_size,
    "pref_loss": _loss,
    "mix_strategy": _mixed,
    "interleave_probs": left_out("the weight of each entry of datasets"),
    "pissa_init": lambda value, _: {"init_lora_weights": "pissa"} if value else OFF,
    "double_quantization": _in_4_bits("bnb_4bit_use_double_quant"),
    "quantization_type": _in_4_bits("bnb_4bit_quant_type"),
    "quantization_method": lambda value, _: OFF if value in (None, "bnb", "bitsandbytes") else _refuse_quantisation(value),
    "kto_chosen_weight": to("desirable_weight"),
    "kto_rejected_weight": to("undesirable_weight"),
    "disable_gradient_checkpointing": lambda value, _: {"gradient_checkpointing": not value},
    "adapter_name_or_path": _adapter_below,
    "create_new_adapter": left_out("a new adapter is what a stream trains"),
    "additional_target": refused_if_on("whole layers beside an adapter are not trained", "remove it"),
    "use_dft_loss": lambda value, _: {"loss": "dft"} if value else OFF,
    "pref_beta": preference({"dpo": "dpo_beta", "kto": "kto_beta", "orpo": "orpo_alpha"}, _method),
}  # fmt: skip


def _refuse_quantisation(value: Any) -> Outcome:
    raise CannotTake(f"a base is not quantised by {value}", "write quantization_method: bnb")


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
