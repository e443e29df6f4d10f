"""Names that other fine-tuners use for our settings, only to word an error: nothing here is understood as a setting.

The three houses are axolotl, TRL with the Hugging Face Trainer, and torchtune.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable

from swarm import kinds
from swarm.keys import Settings
from swarm.settings import Dataset, Placement, Promotion, RunSettings, StreamSettings

LISTED_IN = "docs/settings.md"
"""Written by `swarm.config.listed`."""

ELSEWHERE: dict[type[Settings], dict[str, str]] = {
    StreamSettings: {
        # what is tuned
        "model_name_or_path": "`base_model`",
        "model": "`base_model`",
        "model_name": "`base_model`",
        "model_id": "`base_model`",
        "pretrained_model_name_or_path": "`base_model`",
        "use_peft": "`adapter: lora`",
        "peft_type": "`adapter: lora`",
        "load_in_4bit": "`adapter: qlora`",
        "quantize_base": "`adapter: qlora`",
        "bnb_4bit_quant_type": "`adapter: qlora` (NF4)",
        "bnb_4bit_use_double_quant": "`adapter: qlora` (always with double quantisation)",
        "load_in_8bit": "`adapter: qlora`, which is 4-bit",
        "quantization": "`adapter: qlora`",
        # data
        "dataset": "`datasets: [{path: ..., type: ...}]`",
        "dataset_name": "`datasets: [{path: ..., type: ...}]`",
        "dataset_path": "`datasets: [{path: ..., type: ...}]`",
        "data_path": "`datasets: [{path: ..., type: ...}]`",
        "data_files": "`datasets: [{path: ..., type: ...}]`",
        "train_file": "`datasets: [{path: ..., type: ...}]`",
        "train_data": "`datasets: [{path: ..., type: ...}]`",
        "dataset_text_field": "`datasets: [{path: ..., type: text, text: COLUMN}]`",
        "dataset_val": "`test_datasets`",
        "eval_dataset": "`test_datasets`",
        "eval_datasets": "`test_datasets`",
        "val_datasets": "`test_datasets`",
        "validation_file": "`test_datasets`",
        "eval_split": "`val_set_size`",
        "val_split": "`val_set_size`",
        "val_size": "`val_set_size`",
        "test_size": "`val_set_size`",
        "max_length": "`sequence_len`",
        "max_seq_length": "`sequence_len`",
        "max_seq_len": "`sequence_len`",
        "sequence_length": "`sequence_len`",
        "seq_len": "`sequence_len`",
        "cutoff_len": "`sequence_len`",
        "model_max_length": "`sequence_len`",
        "completion_only_loss": "`train_on_inputs: false`",
        "assistant_only_loss": "`train_on_inputs: false`",
        "train_on_input": "`train_on_inputs`",
        # adapter
        "r": "`lora_r`",
        "rank": "`lora_r`",
        "lora_rank": "`lora_r`",
        "alpha": "`lora_alpha`",
        "target_modules": "`lora_target_modules`",
        "lora_target": "`lora_target_modules`",
        "lora_attn_modules": "`lora_target_modules`",
        "apply_lora_to_mlp": "`lora_target_modules`",
        "apply_lora_to_output": "`lora_target_modules`",
        "lora_target_linear": "`lora_target_modules: all-linear`",
        "peft_use_dora": "`use_dora`",
        "peft_use_rslora": "`use_rslora`",
        "dora": "`use_dora`",
        "rslora": "`use_rslora`",
        "rl": "`method`",
        "trainer": "`method`",
        # optimisation
        "per_device_train_batch_size": "`micro_batch_size`",
        "per_device_batch_size": "`micro_batch_size`",
        "batch_size": "`micro_batch_size`",
        "train_batch_size": "`micro_batch_size`",
        "grad_accum_steps": "`gradient_accumulation_steps`",
        "accumulation_steps": "`gradient_accumulation_steps`",
        "num_train_epochs": "`num_epochs`",
        "epochs": "`num_epochs`",
        "max_steps_per_epoch": "`max_steps`",
        "max_train_steps": "`max_steps`",
        "max_time": "`max_minutes`",
        "max_train_minutes": "`max_minutes`",
        "lr": "`learning_rate`",
        "lr_scheduler_type": "`lr_scheduler`",
        "scheduler": "`lr_scheduler`",
        "warmup_steps": "`warmup_ratio`, a share of the steps",
        "num_warmup_steps": "`warmup_ratio`, a share of the steps",
        "optim": "`optimizer`",
        "clip_grad_norm": "`max_grad_norm`",
        "gradient_clipping": "`max_grad_norm`",
        "fp16": "`bf16`",
        "dtype": "`bf16`",
        "torch_dtype": "`bf16`",
        "enable_activation_checkpointing": "`gradient_checkpointing`",
        "activation_checkpointing": "`gradient_checkpointing`",
        # cadence
        "eval_strategy": "`eval_steps`",
        "evaluation_strategy": "`eval_steps`",
        "evals_per_epoch": "`eval_steps`",
        "run_val_every_n_steps": "`eval_steps`",
        "save_strategy": "`save_steps`",
        "saves_per_epoch": "`save_steps`",
        "save_every_n_steps": "`save_steps`",
        "log_every_n_steps": "`logging_steps`",
        "max_new_tokens": "`eval_max_new_tokens`",
    },
    Dataset: {
        "data_files": "`path`",
        "file": "`path`",
        "files": "`path`",
        "name": "`path`",
        "ds_type": "`path`: the file's ending tells its format",
        "format": "`type`",
        "field_messages": "`messages`",
        "conversations": "`messages`",
        "field_instruction": "`prompt`",
        "question": "`prompt: question`",
        "instruction": "`prompt`",
        "prompt_column": "`prompt`",
        "input": "`prompt`",
        "field_output": "`completion`",
        "answer": "`completion: answer`",
        "output": "`completion`",
        "response": "`completion`",
        "completion_column": "`completion`",
        "field": "`text`",
        "text_column": "`text`",
        "max_samples": "`limit`",
        "num_samples": "`limit`",
    },
    Placement: {
        "devices": "`gpus`",
        "gpu_ids": "`gpus`",
        "cuda_visible_devices": "`gpus`",
        "max_concurrent": "`streams_per_gpu` or `cpu_streams`",
        "max_streams": "`streams_per_gpu` or `cpu_streams`",
    },
    Promotion: {
        "metric_for_best_model": "`metric`",
        "greater_is_better": "`goal: max` or `goal: min`",
        "direction": "`goal`",
        "mode": "`goal`",
        "threshold": "`must_beat`",
    },
    RunSettings: {
        "output_dir": "`runs_dir`",
        "output": "`runs_dir`",
        "run_name": "`name`",
        "default": "`defaults`",
        "runs": "`streams`",
        "experiments": "`streams`",
        "max_retries": "`retries`",
        "lease": "`lease_seconds`",
    },
}
"""What a setting of another house is called here, by the group it would stand in."""

VALUES: dict[tuple[str, str], str] = {
    ("adapter", "dora"): "write `adapter: lora` with `use_dora: true`",
    ("adapter", "qdora"): "write `adapter: qlora` with `use_dora: true`",
    ("adapter", "rslora"): "write `adapter: lora` with `use_rslora: true`",
    ("type", "chat_template"): "write `type: chatml`, with `messages:` for the column",
    ("type", "sharegpt"): "write `type: chatml`, with `messages:` for the column; its messages have role and content",
    ("type", "chat"): "write `type: chatml`",
    ("type", "completion"): "write `type: text`, with `text:` for the column",
    ("type", "input_output"): "write `type: prompt_completion`, with `prompt:` and `completion:` for the columns",
    ("optimizer", "adamw"): "write `optimizer: adamw_torch`",
    ("optimizer", "adamw_bnb_8bit"): "write `optimizer: adamw_8bit`",
    ("optimizer", "lion"): "write `optimizer: lion_32bit`",
}
"""What a choice of another house is called here."""

GROUPS: dict[type[Settings], str] = {
    RunSettings: "at the top of the file, beside `streams:`",
    StreamSettings: "below `defaults:` or a stream",
    Dataset: "in an entry of `datasets:`",
    Placement: "below `placement:`",
    Promotion: "below `promotion:`",
}
"""Where each group of settings is written."""


def fix_of_key(key: str, group: type[Settings]) -> str:
    """What an unknown key was likely meant to be."""
    home = next(one for one in GROUPS if issubclass(group, one))
    known = ["defaults", *group.model_fields] if group is RunSettings else list(group.model_fields)
    folded = key.lower().replace("-", "_")
    if folded in known:
        return f"did you mean `{folded}`?"
    if home is StreamSettings and (owners := _owners_of(folded)):
        return f"it is a setting of {' or '.join(owners)}"
    if folded in ELSEWHERE[home]:
        return f"here it is {ELSEWHERE[home][folded]}"
    for other, place in GROUPS.items():
        if folded in other.model_fields or (other is StreamSettings and _owners_of(folded)):
            return f"write it {place}"
    if close := close_to(folded, known):
        return f"did you mean `{close}`?"
    for other, place in GROUPS.items():
        if folded in ELSEWHERE[other]:
            return f"here it is {ELSEWHERE[other][folded]}, {place}"
    return f"remove it; {LISTED_IN} lists all settings"


def _owners_of(key: str) -> list[str]:
    """The choices that bring a setting: `adapter: lora`."""
    return [
        f"`{setting}: {kind.name}`"
        for setting in kinds.GROUPS
        for kind in kinds.installed(setting).values()
        if key in kind.settings.model_fields
    ]


def fix_of_value(key: str, value: str, choices: Iterable[str]) -> str:
    """Which of the choices was likely meant."""
    folded = value.lower().replace("-", "_")
    if (key, folded) in VALUES:
        return VALUES[key, folded]
    known = list(choices)
    if close := close_to(folded, known):
        return f"did you mean `{close}`?"
    return "take one of them" if len(known) > 1 else f"write `{known[0]}`"


def close_to(word: str, known: list[str], *, likeness: float = 0.7) -> str | None:
    found = difflib.get_close_matches(word[:80], known, n=1, cutoff=likeness)
    return found[0] if found else None
