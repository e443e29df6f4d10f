"""The YAML that `trl sft --config` takes: keys of transformers' TrainingArguments, of TRL's SFTConfig, ModelConfig and ScriptArguments."""

from __future__ import annotations

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
    limited,
    packing,
    preference,
    refused_if_on,
    run_name,
    share_of_run,
)  # fmt: skip


def adapter(values: Any) -> str:
    if not values.get("use_peft"):
        return "full"
    return "qlora" if values.get("load_in_4bit") else "lora"


ANSWERS = {"dpo": {"rejected": "rejected"}, "kto": {"rejected": "rejected"}}
"""Columns of preferences, by TRL's own names; the others are found by theirs."""
OF_KTO = ("desirable_weight", "undesirable_weight")
OF_DPO = ("beta", "reference_free", "precompute_ref_log_probs", "sync_ref_model", "max_prompt_length", "rpo_alpha")
LOSSES = ("sigmoid", "hinge", "ipo")
"""Of DPO, where `loss_type` is none of supervised tuning."""


def method(foreign: Foreign) -> str:
    """Which of `trl sft`, `trl dpo` and `trl kto` the file was written for: none says so in it."""
    values = foreign.values
    if any(key in values for key in OF_KTO):
        return "kto"
    return "dpo" if values.get("loss_type") in LOSSES or any(key in values for key in OF_DPO) else "sft"


def _loss_type(value: Any, foreign: Foreign) -> Outcome:
    if method(foreign) == "sft":
        return OFF if value is None else {"loss": value}
    if value in LOSSES:
        return {"dpo_loss": value, "method": "dpo"}
    raise CannotTake(f"the preference loss {value!r} is not computed", f"take {', '.join(LOSSES)}")


def _beta(value: Any, foreign: Foreign) -> Outcome:
    named = preference({"dpo": "dpo_beta", "kto": "kto_beta"}, method)(value, foreign)
    return {**named, "method": method(foreign)} if isinstance(named, dict) else named


def _dataset_name(value: Any, foreign: Foreign) -> Outcome:
    """TRL goes by the columns, as a dataset without `type` does here."""
    values = foreign.values
    text = values.get("dataset_text_field")
    made = {
        "path": foreign.path(str(value)),
        **({"type": "text", "text": text} if text else {}),
        **ANSWERS.get(method(foreign), {}),
    }
    split = values.get("dataset_train_split")
    return {"datasets": [{**made, **({"split": split} if split else {})}]}


def _test_split(value: Any, foreign: Foreign) -> Outcome:
    """A split of the same dataset; it is measured only where an evaluation strategy is set."""
    name = foreign.values.get("dataset_name")
    if not name or foreign.values.get("eval_strategy", "no") == "no":
        return "nothing is evaluated on it there"
    return {"test_datasets": [{"path": foreign.path(str(name)), "split": value}]}


def _mixture(value: Any, foreign: Foreign) -> Outcome:
    made, notes = [], []
    for number, entry in enumerate(value or []):
        one, left = dataset(entry, foreign, DATASET, f"datasets.{number}")
        made.append({**one, **ANSWERS.get(method(foreign), {})})
        notes += [(f"{number}.{key}", why) for key, why in left]
    return {"datasets": made, "notes": notes} if made else OFF


def strategy(every: str) -> Rule:
    """Of `eval_strategy` and `save_strategy`: steps or nothing; epochs are counted in steps that no config knows."""

    def rule(value: Any, _: Foreign) -> Outcome:
        return (
            f"{every} says how often" if value == "steps" else OFF if value == "no" else f"by epochs there: set {every}"
        )

    return rule


def every(name: str, strategy_key: str, default: str) -> Rule:
    """A cadence that counts only where its strategy is `steps`."""

    def rule(value: Any, foreign: Foreign) -> Outcome:
        if foreign.values.get(strategy_key, default) != "steps":
            return f"{strategy_key} is not steps there"
        if name == "eval_steps" and isinstance(value, float) and 0 < value < 1:
            return share_of_run(value)
        return {name: value} if isinstance(value, int) and value >= 1 else "a share of the run there"

    return rule


def _sampling(value: Any, _: Foreign) -> Outcome:
    if value == "group_by_length":
        return {"group_by_length": True}
    return OFF if value in (None, "random") else "each epoch's order is random"


DATASET: dict[str, Rule] = {
    "path": lambda value, foreign: {"path": foreign.path(str(value))},
    "name": refused_if_on("a configuration of a hub dataset cannot be named", "download it and name its file as path"),
    "columns": left_out("columns go by their names"),
}

TRAINING: dict[str, Rule] = {
    "max_steps": limited("max_steps"),
    "eval_strategy": strategy("eval_steps"),
    "save_strategy": strategy("save_steps"),
    "eval_steps": every("eval_steps", "eval_strategy", "no"),
    "train_sampling_strategy": _sampling,
    "save_steps": every("save_steps", "save_strategy", "steps"),
    "output_dir": left_out("run folders stand in runs_dir"),
    "run_name": run_name,
    "resume_from_checkpoint": refused_if_on("going on from another tool's checkpoint is not done", "start from the base"),
}  # fmt: skip
"""Of transformers' own arguments; LLaMA-Factory has them too."""


def _attention(value: Any, _: Foreign) -> Outcome:
    if value in ("sdpa", "eager"):
        return {"attn_implementation": value}
    return OFF if value is None else "torch's fused kernels are used wherever the base's family can"


def _text_field(_: Any, foreign: Foreign) -> Outcome:
    if foreign.values.get("dataset_name") is None:
        raise CannotTake("names a column, but no dataset_name is there", "write dataset_name")
    return "the column in datasets"


RULES: dict[str, Rule] = {
    **TRAINING,
    "model_name_or_path": base_model,
    "dataset_name": _dataset_name,
    "dataset_train_split": left_out("the split in datasets"),
    "dataset_test_split": _test_split,
    "dataset_text_field": _text_field,
    "dataset_config": refused_if_on(
        "a configuration of a hub dataset cannot be named", "download it and name its file"
    ),
    "datasets": _mixture,
    "use_peft": lambda value, foreign: {"adapter": adapter(foreign.values)} if value else {"adapter": "full"},
    "load_in_4bit": lambda value, foreign: {"adapter": adapter(foreign.values)} if value else OFF,
    "load_in_8bit": left_out("bases are held as they are, or in 4 bits with adapter: qlora"),
    "attn_implementation": _attention,
    "lora_modules_to_save": refused_if_on("whole layers beside an adapter are not trained", "remove it"),
    "packing": packing,
    "use_bnb_nested_quant": lambda value, foreign: (
        {"bnb_4bit_use_double_quant": bool(value)} if foreign.values.get("load_in_4bit") else OFF
    ),
    "bnb_4bit_quant_type": lambda value, foreign: (
        {"bnb_4bit_quant_type": value} if foreign.values.get("load_in_4bit") else OFF
    ),
    "loss_type": _loss_type,
    "beta": _beta,
    **dict.fromkeys(
        ("reference_free", "sync_ref_model"),
        refused_if_on("the reference is the base with its adapter off", "remove it"),
    ),
    **dict.fromkeys(
        ("label_smoothing", "loss_weights", "use_weighting"),
        refused_if_on("the loss of preferences is computed without", "remove it"),
    ),
    "f_divergence_type": lambda value, _: OFF if value in (None, "reverse_kl") else _refuse_divergence(value),
    "env": left_out("set environment variables where the run is started"),
    "precompute_ref_log_probs": left_out("the reference is the base with its adapter off"),
    "completion_only_loss": lambda value, _: OFF if value is None else {"train_on_inputs": not value},
    "assistant_only_loss": lambda value, _: {"train_on_inputs": False} if value else OFF,
}


def _refuse_divergence(value: Any) -> Outcome:
    raise CannotTake(f"the divergence {value!r} is not computed", "write f_divergence_type: reverse_kl")


def _defaults(foreign: Foreign) -> dict[str, Any]:
    """TRL's own where ours differ."""
    values = foreign.values
    lora = {"lora_r": 16, "lora_alpha": 32, "lora_dropout": 0.05} if values.get("use_peft") else {"adapter": "full"}
    nf4 = {"bnb_4bit_use_double_quant": False} if adapter(values) == "qlora" else {}
    learned = {} if method(foreign) == "sft" else {"method": method(foreign)}
    return {
        **lora, **nf4, **learned, "micro_batch_size": 8, "num_epochs": 3, "sequence_len": 1024, "learning_rate": 2e-5, "warmup_ratio": 0,
        "gradient_checkpointing": True, "logging_steps": 10, "seed": 42,
    }  # fmt: skip


TOOL = Tool(
    "TRL",
    frozenset({
        "model_name_or_path", "dataset_name", "use_peft", "max_length", "dataset_train_split", "dataset_text_field",
        "per_device_train_batch_size", "lora_r", "assistant_only_loss", "packing", "num_train_epochs",
    }),
    RULES,
    _defaults,
)  # fmt: skip
