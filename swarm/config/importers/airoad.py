"""The flat YAML of airoad's LoRA lane: one base, one data file of chats, one training; its preference configs too."""

from __future__ import annotations

from typing import Any

from swarm.config.importers.rules import OFF, Foreign, Outcome, Rule, Tool, base_model, known, left_out, limited, to
from swarm.settings import StreamSettings


def _pairs(value: Any, foreign: Foreign, name: str) -> Outcome:
    """Chosen and rejected answers: what is computed of them is said by which number stands in the file."""
    method = next((method for key, method in METHODS.items() if key in foreign.values), "dpo")
    columns = {"type": "prompt_completion", "completion": "chosen"}
    if name == "datasets":
        return {name: [{"path": foreign.path(str(value)), **columns, "rejected": "rejected"}], "method": method}
    return {name: [{"path": foreign.path(str(value)), **columns}]}


METHODS = {"orpo_alpha": "orpo", "kto_beta": "kto", "desirable_weight": "kto", "dpo_beta": "dpo"}


def _chats(name: str) -> Rule:
    return lambda value, foreign: {name: [{"path": foreign.path(str(value)), "type": "chatml"}]} if value else OFF


def _target_mode(value: Any, _: Foreign) -> Outcome:
    mode = str(value).replace("+", "_")
    return (
        {"lora_target_mode": mode}
        if "lora_target_mode" in known(StreamSettings)
        else {"lora_target_modules": "all-linear"}
    )


def _of_plateau(name: str) -> Rule:
    return lambda value, foreign: (
        {name: value} if foreign.values.get("early_stop_patience") else "it does nothing without plateau_patience"
    )


def _grad_norm(value: Any, _: Foreign) -> Outcome:
    return {"max_grad_norm": value}


RULES: dict[str, Rule] = {
    "base_model": base_model,
    "dataset_path": _chats("datasets"),
    "dev_path": _chats("test_datasets"),
    "pairs_path": lambda value, foreign: _pairs(value, foreign, "datasets"),
    "dev_pairs_path": lambda value, foreign: _pairs(value, foreign, "test_datasets"),
    "output_dir": left_out("run folders stand in runs_dir"),
    "batch_size": to("micro_batch_size"),
    "grad_accum": to("gradient_accumulation_steps"),
    "max_seq_len": to("sequence_len"),
    "print_every_steps": to("logging_steps"),
    "max_minutes": limited("max_minutes"),
    "max_grad_norm": _grad_norm,
    "ablate_examples": limited("ablate_examples"),
    "lora_target_mode": _target_mode,
    "eval_early_stop": left_out("set eval_steps; save: best keeps the best"),
    "eval_after_train": left_out("streams are always judged: eval_rows says on how many answers"),
    "eval_limit": to("eval_rows"),
    "max_new_tokens": to("eval_max_new_tokens"),
    "log_wandb": lambda value, _: {"report_to": ["wandb"]} if value else OFF,
    "early_stop_patience": limited("plateau_patience"),
    "early_stop_min_delta": _of_plateau("plateau_min_delta"),
    "early_stop_window": _of_plateau("plateau_window"),
    "early_stop_min_steps": _of_plateau("plateau_min_steps"),
    "eval_patience": lambda value, foreign: {"early_stopping_patience": value} if foreign.values.get("eval_early_stop") else OFF,
    "kto_neg_mode": left_out("write the pairs first: swarm data pairs"),
    "kto_neg_ratio": left_out("write the pairs first: swarm data pairs"),
}  # fmt: skip


def _defaults(_: Foreign) -> dict[str, Any]:
    """Its own where ours differ.  Its loss is of every token; ours of the answers, as was meant."""
    return {"adapter": "lora", "lora_r": 16, "lora_alpha": 32, "lora_dropout": 0.05, "warmup_ratio": 0, "seed": 42}


TOOL = Tool(
    "airoad",
    frozenset({
        "dataset_path", "dev_path", "grad_accum", "max_seq_len", "print_every_steps", "ablate_examples", "lora_target_mode",
        "kl_lambda", "early_stop_patience", "pairs_path", "eval_early_stop",
    }),
    RULES,
    _defaults,
)  # fmt: skip
