"""Every part of Duo and Unified as a stream that is trained for a few steps, on files that are written beside the config."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.trainer.encoders import WORDS, save_encoder

STEPS, SAVED = 16, 4
Settings = Mapping[str, Any]


@dataclass(frozen=True)
class Case:
    settings: Settings
    seen: str
    """What a note of the log says where the part did something."""


AT_ONCE = {"alpha": 1.0, "beta": 0.0, "band": 0.0, "dwell": 1}
"""Phi is the step's own stress, and a mode may change at each step."""
LOSSES = {"theta0": 0.8385, "theta1": 0.8415}
"""Of absolute stress: losses of 5.19 and 5.31, which a base that was never trained goes up and down about."""


def unified(**more: Any) -> Settings:
    return {"controller": {"kind": "unified", "preset": "absolute", **AT_ONCE, **LOSSES, **more}}


def duo(mode: str, **more: Any) -> Settings:
    return {"optimizer": "duo", "duo_mode": mode, **more}


def plateau(action: str, *, times: int = 1, reverted: bool = False) -> Settings:
    """At every second step, since no loss is better by so much; judged on rows whose loss rises, or not before the end."""
    factor = {"plateau_factor": 2.0} if action == "bump" else {}
    return {
        "use_jade": True, "plateau_action": action, "plateau_patience": 2, "plateau_min_delta": 100, "plateau_times": times,
        "eval_steps": 2 if reverted else STEPS, "save": "last", **factor,
    }  # fmt: skip


ORBITAL = {"kind": "orbital", "warmup": 10, "every": 1, "dwell": 1, "stress": 0.0, "recovery": 0.0}
MODE = r"(single|multi|mirror) -> (single|multi|mirror)"
ACTIONS = {"cosine": "along a cosine", "bump": "is multiplied by 2", "reweight": "counts by its probability"}
OF_ONE: dict[str, Case] = {
    "split: encoder": Case(duo("split", duo_role="encoder"), ""),
    "split: decoder": Case(duo("split", duo_role="decoder"), ""),
    "blend": Case(duo("blend", duo_share=0.3), ""),
    "symbolic": Case(duo("symbolic"), ""),
    "hybrid": Case(duo("hybrid"), ""),
    "amp": Case(duo("amp", duo_role="encoder"), ""),
    **{f"{action}: once": Case(plateau(action), seen) for action, seen in ACTIONS.items()},
    **{f"{action}: twice": Case(plateau(action, times=3), seen) for action, seen in ACTIONS.items()},
    **{f"{action}: reverted": Case(plateau(action, reverted=True), "is taken back") for action in ACTIONS},
    "absolute": Case(unified(), MODE),
    "relative": Case({**unified(preset="relative", warmup=3, theta0=1e-6, theta1=0.3), "learning_rate": 5e-4}, MODE),
    "glue": Case(unified(preset="glue"), MODE),
    "tinker": Case(unified(preset="tinker"), MODE),
    "clones: mean": Case(unified(merge="mean"), "an adapter for each of 2 tasks"),
    "clones: ties": Case(unified(merge="ties"), "an adapter for each of 2 tasks"),
    "clones: best": Case(unified(merge="best", anchor_rows=4, anchor_steps=2), "an adapter for each of 2 tasks"),
    "mirror": Case(unified(anchor_rows=4, anchor_steps=2, snapshots=2, rho=0.0), "restored step"),
    "mirror: pulled": Case(unified(anchor_rows=4, anchor_steps=2, pull=0.2), MODE),
    "all modes": Case(unified(merge="mean", anchor_rows=4, anchor_steps=2, weight_conflict=0.2, weight_stability=0.2), MODE),
    "ranks by phi": Case(unified(adapt="rank"), MODE),
    "ranks by phi: rescaled": Case(unified(adapt="rank", rescale=True), MODE),
    "orbital": Case({"controller": ORBITAL}, r"base -> (high|low)"),
    "orbital: rate": Case({"controller": {**ORBITAL, "adapt": "rate"}}, r"base -> (high|low)"),
    "orbital: ranks": Case({"controller": {**ORBITAL, "adapt": "rank"}}, r"base -> (high|low)"),
    "blend, bump, unified": Case({**duo("blend"), **plateau("bump"), **unified(merge="mean")}, MODE),
}  # fmt: skip
IN_4_BITS = {
    f"{name}, in 4 bits": Case({**OF_ONE[name].settings, "adapter": "qlora"}, OF_ONE[name].seen)
    for name in ("split: decoder", "blend", "hybrid", "amp", "reweight: reverted", "relative", "clones: ties", "mirror", "ranks by phi", "orbital")
}  # fmt: skip
BOTH = {"optimizer": "duo", "duo_mode": "split"}
PAIRS: dict[str, Case] = {
    **{f"pair: {mode}": Case(duo(mode), "") for mode in ("split", "blend", "hybrid", "amp")},
    **{
        f"pair: {arbiter}": Case({**BOTH, "arbiter": arbiter}, "")
        for arbiter in ("round_robin", "proportional", "loss_slope", "grad_norm", "alternate:3")
    },
    "pair: mmt and jade": Case({**duo("hybrid"), "use_mmt": True, **plateau("cosine")}, ACTIONS["cosine"]),
    **{
        f"pair: {action}: {how}": Case({**BOTH, **plateau(action, **given)}, seen)
        for action in ACTIONS
        for how, given, seen in (
            ("twice", {"times": 3}, ACTIONS[action]),
            ("reverted", {"reverted": True}, "is taken back"),
        )
    },
    **{
        f"pair: {preset}": Case({**BOTH, "arbiter": "grad_norm", **unified(preset=preset)}, MODE)
        for preset in ("absolute", "glue", "tinker")
    },
    "pair: relative": Case({**BOTH, **OF_ONE["relative"].settings}, MODE),
    "pair: a controller for each": Case(
        {
            **BOTH,
            "models.encoder.controller": {**ORBITAL, "adapt": "rate"},
            "models.decoder.controller": unified()["controller"],
        },
        r"encoder: .*base -> (high|low)",
    ),
    "pair: tied": Case({**BOTH, "tie_tokens": 2}, ""),
    "pair: tied, both trained": Case({**BOTH, "tie_tokens": 2, "tie_trains_encoder": True, "arbiter": "loss_slope"}, ""),
    "pair: mlm": Case({**BOTH, "models.encoder.objective": "mlm"}, ""),
    "pair: contrastive": Case({**BOTH, "models.encoder.objective": "contrastive"}, ""),
}  # fmt: skip
PAIRS |= {
    f"{name}, in 4 bits": Case({**PAIRS[name].settings, "adapter": "qlora"}, PAIRS[name].seen)
    for name in (
        "pair: blend",
        "pair: loss_slope",
        "pair: reweight: reverted",
        "pair: absolute",
        "pair: tied, both trained",
    )
}
CASES = {**OF_ONE, **IN_4_BITS, **PAIRS}
NEIGHBOUR = {
    "optimizer": "adamw", "lora_r": 2, "lora_alpha": 4, "learning_rate": 1e-3, "micro_batch_size": 2,
    "lr_scheduler": "cosine", "seed": 7, "lora_dropout": 0.2,
}  # fmt: skip
"""Unlike all of them."""


# ---- as a user's config has them ----


def write_files(files: Path, base: Path) -> None:
    """Rows, others whose answers contradict them, and both bases."""
    for name, answer in (("rows", "{}"), ("contrary", "xyzxyzxyzxyz")):
        lines = [
            {"prompt": f"double {n}", "completion": answer.format(2 * n), "skill": ["even", "odd"][n % 2]}
            for n in range(48 if name == "rows" else 6)
        ]
        (files / f"{name}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    for name, labels in (("texts", ("hot", "cold")), ("opposite", ("cold", "hot"))):
        lines = [f"{a} {b},{labels[WORDS.index(a) > 2]},{b} {a}" for a in WORDS[:6] for b in WORDS[6:]]
        (files / f"{name}.csv").write_text("\n".join(["text,label,partners", *lines]) + "\n")
    (files / "base").symlink_to(base)
    save_encoder(files / "encoder")


def stream_of(case: Settings, *, is_pair: bool) -> dict[str, Any]:
    common = {
        "learning_rate": 5e-3, "warmup_ratio": 0, "max_steps": STEPS, "save_steps": SAVED, "sequence_len": 64, "micro_batch_size": 4,
        "lora_r": 4, "lora_dropout": 0.1, "eval_rows": 0, "metrics": [], "eval_steps": STEPS, "save": "last", "save_total_limit": 0, "logging_steps": 1,
        "datasets": [{"path": "rows.jsonl", "type": "prompt_completion", "task": "skill"}], "base_model": "./base",
        "test_datasets": [{"path": "contrary.jsonl", "type": "prompt_completion"}],
    }  # fmt: skip
    own = {key: value for key, value in case.items() if not key.startswith("models.")}
    if is_pair:
        own |= {"method": "duo", "models": {"encoder": _encoder(case), "decoder": _decoder(case)}}
    else:
        own["exact"] = True
    return {**common, **own}


def _encoder(case: Settings) -> dict[str, Any]:
    objective = case.get("models.encoder.objective", "classify")
    rows: dict[str, Any] = {
        "classify": {"type": "labelled", "text": "text", "label": "label"}, "mlm": {"type": "text", "text": "text"},
        "contrastive": {"type": "prompt_completion", "prompt": "text", "completion": "partners"},
    }[objective]  # fmt: skip
    labels = {"labels": ["cold", "hot"]} if objective == "classify" else {}
    controller = case.get("models.encoder.controller")
    return {
        "base_model": "./encoder", "objective": objective, "sequence_len": 32, "datasets": [{"path": "texts.csv", **rows}],
        "test_datasets": [{"path": "opposite.csv", **rows}], "allow_overlap": True, **labels, **({"controller": controller} if controller else {}),
    }  # fmt: skip


def _decoder(case: Settings) -> dict[str, Any]:
    controller = case.get("models.decoder.controller")
    return {"base_model": "./base", "lora_r": 2, **({"controller": controller} if controller else {})}


def dies_at(name: str) -> int:
    """A step after the first checkpoint; of orbital after its first steps of warming up."""
    return random.Random(name).randrange(13 if "orbital" in name or "controller for each" in name else 6, STEPS)


def slug(name: str) -> str:
    return "-".join(re.findall(r"[a-z0-9]+", name))
