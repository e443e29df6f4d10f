"""axolotl's YAML (docs.axolotl.ai, `axolotl config-schema`)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from swarm.config.importers.rules import (
    CADENCE,
    OFF,
    CannotTake,
    Foreign,
    Outcome,
    Rule,
    Tool,
    base_model,
    dataset,
    left_out,
    limited,
    packing,
    preference,
    refused_if_on,
    run_name,
    share_of_run,
    to,
)  # fmt: skip

JUDGED = "here an adapter is judged on held-out rows, so that some are kept apart"


def _adapter(value: Any, foreign: Foreign) -> Outcome:
    """Without one all weights are trained; `load_in_4bit` makes a LoRA's base NF4."""
    if value is None:
        return {"adapter": "full"}
    return {"adapter": "qlora" if value == "lora" and foreign.values.get("load_in_4bit") else value}


def _load_in_4bit(value: Any, foreign: Foreign) -> Outcome:
    if not value:
        return OFF
    if foreign.values.get("adapter") not in ("lora", "qlora"):
        raise CannotTake("a base in 4 bits without an adapter on it cannot be trained", "write adapter: qlora")
    return {"adapter": "qlora"}


def _datasets(value: Any, foreign: Foreign, name: str = "datasets") -> Outcome:
    made, notes = [], []
    for number, entry in enumerate(value or []):
        one, left = dataset(entry, foreign, DATASET, f"{name}.{number}")
        made.append(_typed(one, entry, f"{name}.{number}"))
        notes += [(f"{number}.{key}", why) for key, why in left]
    return {name: made, "notes": notes} if made else OFF


PAIRS = {
    "chat_template.default": ("messages", "chosen", "rejected"), "intel": ("question", "chosen", "rejected"),
    "prompt_pairs": ("prompt", "chosen", "rejected"), "icr": ("input", "chosen", "rejected"),
    "argilla": ("instruction", "chosen_response", "rejected_response"),
}  # fmt: skip
"""Prompt, better and worse answer of its types of preferences, behind the name of a template: `chatml.intel`."""


def _type(value: Any, foreign: Foreign) -> Outcome:
    """A type of axolotl is a prompt strategy; one of its own making (a group of columns) is seen to afterwards."""
    if foreign.values.get("rl") in METHODS and isinstance(value, str):
        if foreign.values["rl"] == "kto":
            fix = "write rows with both answers, or train by rl: dpo or orpo"
            raise CannotTake("rows of one answer, liked or not, are not read: KTO takes a better and a worse one", fix)
        form = value if value == "chat_template.default" else value.partition(".")[2]
        if form in ("ultra", "argilla_chat") or value == "chat_template.argilla":
            return {"type": "chatml", "messages": "chosen", "rejected": "rejected"}
        if form in PAIRS:
            return {
                "type": "prompt_completion",
                **dict(zip(("prompt", "completion", "rejected"), PAIRS[form], strict=True)),
            }
    if isinstance(value, Mapping):
        return {"type": "prompt_completion"}
    if value in ("chat_template", "sharegpt", "alpaca", "completion", "pretrain"):
        columns = {"sharegpt": {"messages": "conversations"}}.get(value, {})
        return {"type": {"alpaca": "alpaca", "completion": "text", "pretrain": "text"}.get(value, "chatml"), **columns}
    fix = "write the rows as chats, or as columns prompt and completion"
    raise CannotTake(f"the prompt strategy {value!r} has no equal here", fix, "type")


def _typed(made: dict[str, Any], entry: Mapping[str, Any], where: str) -> dict[str, Any]:
    """The columns of a type of its own making, and its prompt as ours, with `{COLUMN}`."""
    own = entry.get("type")
    if not isinstance(own, Mapping):
        return _of_preferences(made, entry) if made.get("type") == "prompt_completion" else made
    if own.get("field_system") or own.get("system_prompt"):
        raise CannotTake("a system message of its own type is not read", "write the rows as chats", f"{where}.type")
    if "field_chosen" in own or "field_rejected" in own:
        return {**made, **{key: own.get(f"field_{name}", name) for key, name in OF_PAIR.items()}}
    prompt, answer, context = (own.get(f"field_{key}", key) for key in ("instruction", "output", "input"))
    columns = {**made, "prompt": prompt, "completion": answer}
    templates = {"prompt_template": own.get("format"), "no_input_template": own.get("no_input_format")}
    named = {"instruction": prompt, "input": context}
    for key, text in templates.items():
        if text and text.strip() != "{instruction}":
            columns[key] = re.sub(r"\{(instruction|input)\}", lambda found: f"{{{named[found[1]]}}}", text)
    return columns


def _of_preferences(made: dict[str, Any], entry: Mapping[str, Any]) -> dict[str, Any]:
    """The columns that stand beside the name of such a type; its messages are the prompt."""
    named = {"prompt": "field_messages", "completion": "field_chosen", "rejected": "field_rejected"}
    columns = {key: entry[field] for key, field in named.items() if entry.get(field)}
    return {**{key: value for key, value in made.items() if key != "messages"}, **columns}


OF_PAIR = {"prompt": "prompt", "completion": "chosen", "rejected": "rejected"}


def _val_set_size(value: Any, foreign: Foreign) -> Outcome:
    """It may be zero there: nothing is judged."""
    return {"val_set_size": value} if value or foreign.values.get("test_datasets") else JUDGED


METHODS: dict[str, dict[str, Any]] = {
    "dpo": {"method": "dpo"}, "ipo": {"method": "dpo", "dpo_loss": "ipo"}, "kto": {"method": "kto"}, "orpo": {"method": "orpo"},
}  # fmt: skip


def _eval_steps(value: Any, _: Foreign) -> Outcome:
    """A whole number counts steps; less than one is a share of the run."""
    if isinstance(value, float) and 0 < value < 1:
        return share_of_run(value)
    return {"eval_steps": value} if isinstance(value, int) else OFF if value is None else "a share of the run there"


def _evals_per_epoch(value: Any, foreign: Foreign) -> Outcome:
    epochs = foreign.values.get("num_epochs", 1)
    if not value:
        return OFF
    counted = not isinstance(foreign.values.get("max_steps"), int) and not foreign.values.get("eval_steps")
    return share_of_run(1 / (value * epochs)) if counted and value * epochs >= 1 else CADENCE(value, foreign)


def _rl(value: Any, _: Foreign) -> Outcome:
    return dict(METHODS.get(value, {"method": value})) if value else OFF


def _method(foreign: Foreign) -> str:
    return str(METHODS.get(str(foreign.values.get("rl")), {}).get("method", "sft"))


DATASET: dict[str, Rule] = {
    "path": lambda value, foreign: {"path": foreign.path(str(value))},
    "data_files": lambda value, foreign: {"path": foreign.path(str(value[0] if isinstance(value, list) else value))},
    "ds_type": left_out("a file's ending says it"),
    "type": _type,
    "field": to("text"),
    "field_messages": to("messages"),
    "field_rejected": lambda value, foreign: {"rejected": value} if foreign.values.get("rl") in METHODS else "it is read where rl is set",
    "name": refused_if_on("a configuration of a hub dataset cannot be named", "download it and name its file as path"),
    "shards": left_out("all rows are read; limit takes fewer"),
    "message_property_mappings": lambda value, _: OFF if value in (None, {"role": "role", "content": "content"}) else _mapped(value),
}  # fmt: skip


def _mapped(value: Any) -> Outcome:
    if value == {"role": "from", "content": "value"}:
        return OFF  # read as they are
    raise CannotTake("messages with other names than role/content or from/value are not read", "rename the two columns")


RULES: dict[str, Rule] = {
    "base_model": base_model,
    "adapter": _adapter,
    "load_in_4bit": _load_in_4bit,
    "load_in_8bit": left_out("bases are held as they are, or in 4 bits with adapter: qlora"),
    "datasets": _datasets,
    "test_datasets": lambda value, foreign: _datasets(value, foreign, "test_datasets"),
    "pretraining_dataset": lambda value, foreign: _datasets(
        [{"type": "pretrain", **entry} if isinstance(entry, dict) else {"path": entry, "type": "pretrain"} for entry in (value if isinstance(value, list) else [value])],
        foreign,
    ),
    "val_set_size": _val_set_size,
    "lora_target_linear": lambda value, _: {"lora_target_modules": "all-linear"} if value else OFF,
    "lora_model_dir": refused_if_on("going on with another adapter has no equal here", "train a new one on top of it: `start_adapter`"),
    "relora": refused_if_on("ReLoRA is not done", "write adapter: lora alone"),
    "rl": _rl,
    "rl_beta": preference({"dpo": "dpo_beta", "kto": "kto_beta", "orpo": "orpo_alpha"}, _method),
    "dpo_beta": preference({"dpo": "dpo_beta"}, _method),
    "kto_desirable_weight": to("desirable_weight"),
    "kto_undesirable_weight": to("undesirable_weight"),
    "max_steps": limited("max_steps"),
    "gradient_checkpointing": lambda value, _: {"gradient_checkpointing": bool(value)},
    "eval_steps": _eval_steps,
    "evals_per_epoch": _evals_per_epoch,
    "save_steps": lambda value, _: {"save_steps": value} if isinstance(value, int) else OFF if value is None else "a share of the run there",
    "lora_modules_to_save": refused_if_on("whole layers beside an adapter are not trained", "remove it"),
    "unfrozen_parameters": refused_if_on("some of the base's own weights are not trained", "write adapter: full, or remove it"),
    "sample_packing": packing,
    "wandb_name": run_name,
    "output_dir": left_out("run folders stand in runs_dir"),
}  # fmt: skip


def _defaults(foreign: Foreign) -> dict[str, Any]:
    """Axolotl's own where ours differ."""
    bare = {} if "adapter" in foreign.values else {"adapter": "full"}
    lora = {} if foreign.values.get("adapter") is None else {"lora_dropout": 0.0}
    return {**bare, **lora, "sequence_len": 512, "micro_batch_size": 1, "lr_scheduler": "cosine", "seed": 42}


TOOL = Tool(
    "axolotl",
    frozenset({
        "base_model", "datasets", "micro_batch_size", "sequence_len", "lora_target_linear", "sample_packing", "val_set_size",
        "dataset_prepared_path", "special_tokens", "flash_attention", "wandb_project", "rl",
    }),
    RULES,
    _defaults,
)  # fmt: skip
