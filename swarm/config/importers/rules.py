"""What becomes of a key of another tool: settings of ours, a reason why it is left out, or a refusal."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_args

from swarm import kinds
from swarm.config.foreign import meaning_of
from swarm.config.names import VALUES
from swarm.keys import Settings
from swarm.settings import Dataset, Promotion, RunSettings, StreamSettings, Tracker

Outcome = dict[str, Any] | str
"""Settings by name (those of the run begin with `run.`), or the reason why there are none."""
Rule = Callable[[Any, "Foreign"], Outcome]

ABOVE = (RunSettings, Promotion)
"""Groups of settings that stand outside of a stream."""
SAME = re.compile(r"`(\w+)`")
WRITE = re.compile(r"`(\w+): ([\w-]+)`")
OFF = "off there, or unset"
TRUST = "running the code that a model brings is decided here anew: read it first"


class CannotTake(Exception):
    """A key whose value has no equal here and without which another training would come out."""

    def __init__(self, what: str, fix: str, key: str = "") -> None:
        super().__init__(what)
        self.what, self.fix, self.key = what, fix, key


@dataclass(frozen=True, eq=False)
class Tool:
    """Another tool's config."""

    name: str
    marks: frozenset[str]
    """Keys by which its files are known."""
    rules: Mapping[str, Rule]
    """For keys whose values mean something else here."""
    defaults: Callable[[Foreign], dict[str, Any]]
    """Its own defaults, as settings of ours; those that the file sets itself win."""


@dataclass(frozen=True)
class Foreign:
    """The file that is read."""

    tool: Tool
    values: Mapping[str, Any]
    cwd: Path
    """What paths in it are relative to."""
    target: Path
    """The folder of our config, to which its paths will be relative."""
    seen: list[str] = field(default_factory=list)

    def path(self, name: str) -> str:
        """A file's path as seen from our config; a name of the hub stays."""
        fixed = re.split(r"[*?\[]", name)[0]
        there = self.cwd / (fixed if fixed == name else str(Path(fixed).parent))
        return os.path.relpath(self.cwd / name, self.target) if there.exists() else name


# ---- rules -----------------------------------------------------------------------------------------------------------


def to(name: str, *, off: Sequence[Any] = (None,)) -> Rule:
    """The setting of that name with the same value; `off`: values that mean that it is unset."""
    return lambda value, _: OFF if value in off else {name: value}


def left_out(reason: str) -> Rule:
    return lambda value, _: OFF if value in (None, False) else reason


def refused_if_on(what: str, fix: str) -> Rule:
    def rule(value: Any, _: Foreign) -> Outcome:
        if value:
            raise CannotTake(what, fix)
        return OFF

    return rule


def base_model(value: Any, foreign: Foreign) -> Outcome:
    return {"base_model": foreign.path(str(value))}


def run_name(value: Any, _: Foreign) -> Outcome:
    return {"run.name": as_name(str(value))} if value else OFF


def as_name(text: str) -> str:
    return re.sub(r"[^a-z0-9._-]+", "-", text.lower()).strip("-._")[:64] or "imported"


def limited(limit: str) -> Rule:
    """Stops at so many where the value is above zero."""
    return lambda value, _: {limit: value} if isinstance(value, int | float) and value > 0 else OFF


def as_list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [part.strip() for part in str(value).split(",")]


def attention(implementation: str) -> Rule:
    """A switch for one way to compute attention."""
    return lambda value, _: {"attn_implementation": implementation} if value else OFF


def share_of_run(share: float) -> dict[str, Any]:
    """Held-out loss after each such part of the run; ours is measured before the first step too."""
    return {"evals_per_run": round(1 / share) + 1}


def warm_up(name: str) -> Rule:
    """The constant schedule of transformers does without."""

    def rule(value: Any, foreign: Foreign) -> Outcome:
        if value and "constant" in (foreign.values.get("lr_scheduler"), foreign.values.get("lr_scheduler_type")):
            return "a constant learning rate does not rise"
        return OFF if value is None else {name: value}

    return rule


def preference(names: Mapping[str, str], method: Callable[[Foreign], str]) -> Rule:
    """One key of several methods, which has a name for each of them here."""

    def rule(value: Any, foreign: Foreign) -> Outcome:
        name = names.get(method(foreign))
        return OFF if value is None else {name: value} if name else f"{method(foreign)} has no such number"

    return rule


FUSED = left_out("attn_implementation: auto takes torch's fused kernels wherever the base's family can")
PRECISION = left_out("bf16 says how a base computes")
RATES = refused_if_on("one learning rate is for all that a stream trains", "remove it")
CADENCE = left_out("set eval_steps and save_steps: they count optimizer steps")
SCHEDULE = left_out("a schedule ends at zero, and has no numbers of its own")


OF_ALL_WEIGHTS = ("full", "freeze")


def _is_of_trl(foreign: Foreign) -> bool:
    """Whether TRL's engine alone trains it here: all weights, or preferences."""
    made = foreign.tool.defaults(foreign)
    trained = (made.get("adapter"), foreign.values.get("finetuning_type"))
    learned = (made.get("method"), foreign.values.get("stage"), foreign.values.get("rl"))
    return any(one in OF_ALL_WEIGHTS for one in trained) or any(one not in (None, "sft", "pt") for one in learned)


def packing(value: Any, foreign: Foreign) -> Outcome:
    if value and _is_of_trl(foreign):
        return "rows are packed for method: sft with a low-rank adapter: here a micro-batch is micro_batch_size rows"
    return {"packing": "bfd"} if value else OFF


def _fp16(value: Any, foreign: Foreign) -> Outcome:
    """On the shared engine, which has neither preferences nor all weights."""
    if not value or value == "auto" or foreign.values.get("bf16"):
        return OFF
    if _is_of_trl(foreign):
        return "float16 is for method: sft with a low-rank adapter; bf16 says how a base computes"
    return {"fp16": True}


OF_SHARED = ("packing", "sample_packing", "neat_packing", "group_by_length", "fp16", "use_asft_loss")
"""Keys of what the shared engine alone has here."""


def kernels(name: str) -> Rule:
    """Of other kernels, which TRL's engine alone has here."""

    def rule(value: Any, foreign: Foreign) -> Outcome:
        other = next((key for key in OF_SHARED if foreign.values.get(key)), None)
        if value and other and not _is_of_trl(foreign):
            return f"it goes with engine: trl, and {other} with the shared engine"
        return {name: True} if value else OFF

    return rule


COMMON: dict[str, Rule] = {
    **dict.fromkeys(("use_liger_kernel", "enable_liger_kernel", "liger_rope", "liger_rms_norm", "liger_layer_norm", "liger_glu_activation"), kernels("use_liger_kernel")),
    **dict.fromkeys(("liger_fused_linear_cross_entropy", "liger_cross_entropy"), left_out("the loss is that of the method")),
    "use_kernels": kernels("use_kernels"),
    **dict.fromkeys(("flash_attention", "flash_attn", "xformers_attention", "flex_attention", "s2_attention", "sage_attention"), FUSED),
    "sdp_attention": attention("sdpa"),
    "eager_attention": attention("eager"),
    **dict.fromkeys(("tf32", "bfloat16", "float16", "float32", "dtype", "torch_dtype", "infer_dtype", "bf16_full_eval", "fp16_full_eval"), PRECISION),
    "fp16": _fp16,
    "bf16": lambda value, _: {"bf16": value} if isinstance(value, bool) else {"bf16": "auto"},
    "pure_bf16": refused_if_on("weights that are trained stay float32", "write bf16: true"),
    **dict.fromkeys(("embedding_lr", "embedding_lr_scale", "lr_groups", "loraplus_lr_ratio", "loraplus_lr_embedding"), RATES),
    **dict.fromkeys(("lr_scheduler_kwargs", "lr_quadratic_warmup", "cosine_min_lr_ratio", "cosine_constant_lr_ratio", "lr_div_factor"), SCHEDULE),
    **dict.fromkeys(("evals_per_epoch", "saves_per_epoch", "eval_strategy", "save_strategy", "eval_delay", "eval_on_start", "do_eval"), CADENCE),
    **dict.fromkeys(("logging_strategy", "logging_first_step"), left_out("logging_steps says how often")),
    **dict.fromkeys(("max_prompt_len", "max_prompt_length", "max_completion_length"), left_out("sequence_len bounds prompt and answer together")),
    "auto_find_batch_size": left_out("micro_batch_size is taken as it is; `swarm plan` says what fits"),
    **{name: warm_up(name) for name in ("warmup_steps", "warmup_ratio")},
    "mask_history": lambda value, _: {"train_on": "last"} if value else OFF,
    "train_on_eos": left_out("the token that ends an answer is always trained on"),
    "roles_to_train": lambda value, _: OFF if value in (None, ["assistant"], ["gpt"], ["assistant", "gpt"]) else _roles(value),
    "report_to": lambda value, _: _trackers(value),
    "use_tensorboard": lambda value, _: {"report_to": ["tensorboard"]} if value else OFF,
    "use_wandb": lambda value, _: {"report_to": ["wandb"]} if value else OFF,
    "lr_scheduler_type": lambda value, _: {"lr_scheduler": value},
}  # fmt: skip
"""Of keys that several tools have, and whose values mean something else here."""


def _trackers(value: Any) -> Outcome:
    known = get_args(Tracker)
    named = [name for name in as_list(value or "none") if name != "none"]
    if any(name not in known for name in named):
        return f"figures are drawn by {', '.join(known)} alone, and by `swarm watch`"
    return {"report_to": named} if named else OFF


def _roles(value: Any) -> Outcome:
    raise CannotTake(f"messages of {value} are not trained on", "train on the assistant's alone")


# ---- by name ---------------------------------------------------------------------------------------------------------


def known(group: type[Settings]) -> Mapping[str, Any]:
    if group is StreamSettings:
        return StreamSettings.chosen_by(dict.fromkeys(kinds.GROUPS)).model_fields
    return group.model_fields


def by_name(key: str, value: Any, tool: str, group: type[Settings] = StreamSettings) -> Outcome:
    """By the key's name: the setting of that name or of the same meaning, else the reason why it is none.

    Raises CannotTake for a key that no tool is known to have.
    """
    if key == "trust_remote_code":
        return TRUST if value else OFF
    if (name := _setting(key, group)) is not None:
        return OFF if value is None else _translated(name, value)
    meaning = next((found for one in (group, *ABOVE) if (found := meaning_of(key, one))), None)
    if meaning is None:
        raise CannotTake(f"no key of {tool} is known by this name", "correct or remove it")
    return OFF if value in (None, False, "", [], {}) else meaning.replace("`", "")


def _setting(key: str, group: type[Settings]) -> str | None:
    if key in known(group):
        return key
    same = SAME.fullmatch(meaning_of(key, group) or "")
    return same[1] if same and same[1] in known(group) else None


def _translated(name: str, value: Any) -> dict[str, Any]:
    """A value that other tools call otherwise is the one that errors advise."""
    advice = VALUES.get((name, value.lower().replace("-", "_"))) if isinstance(value, str) else None
    meant = {key: _scalar(text) for key, text in WRITE.findall(advice or "")}
    return meant or {name: value}


def _scalar(text: str) -> Any:
    return text == "true" if text in ("true", "false") else text


# ---- datasets --------------------------------------------------------------------------------------------------------


def dataset(
    entry: Mapping[str, Any], foreign: Foreign, rules: Mapping[str, Rule], where: str
) -> tuple[dict[str, Any], list[tuple[str, str]]]:
    """One of our datasets, and what was left out of it with the reason.  Raises CannotTake, whose key begins with `where`."""
    made: dict[str, Any] = {}
    notes: list[tuple[str, str]] = []
    for key, value in entry.items():
        try:
            rule = rules.get(key) or (COMMON.get(key) if key in ("train_on_eos", "roles_to_train") else None)
            outcome = by_name(key, value, foreign.tool.name, Dataset) if rule is None else rule(value, foreign)
        except CannotTake as error:
            raise CannotTake(error.what, error.fix, f"{where}.{error.key or key}") from None
        if isinstance(outcome, str):
            notes += [(key, outcome)] if outcome != OFF else []
        else:
            made.update(outcome)
    if not made.get("path"):
        raise CannotTake("has no path", "name its file, or its name on the hub", where)
    return {"path": made.pop("path"), **made}, notes
