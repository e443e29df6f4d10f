"""validate: is this checkpoint what its maker said, whole, finite, and better on held-out rows than the bare base?"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors.torch import load_file

from swarm.events import Done, Verdict
from swarm.messages import Assign
from trainer import bases
from trainer.checkpoint import ADAPTER, ADAPTER_CONFIG
from trainer.data.prepared import HELD_OUT, read_rows
from trainer.errors import UserError
from trainer.heldout import held_out_loss
from trainer.lease import Lease
from trainer.loading import load_adapter, load_base
from trainer.place import Place
from trainer.whole import sha256_of
from trainer.yardstick import yardstick

CLAIM_TOLERANCE = 0.02
"""Between the held-out loss that a maker states and ours: other batches, and kernels of another device."""


@dataclass(frozen=True)
class Judged:
    result: Literal["SUCCESS", "WARNING", "FAIL"]
    why: str
    sha256: str
    heldout: float | None = None
    base_heldout: float | None = None


class Unfit(Exception):
    """The checkpoint cannot be an adapter; the text says why."""


def run(assign: Assign, lease: Lease, place: Place) -> None:
    assert assign.checkpoint is not None and assign.sha256 is not None and assign.prepared is not None
    folder = place.run_folder / assign.checkpoint
    judged = _judged(assign, folder, lease, place)
    lease.report(
        Verdict(
            ref=assign.ref, tok=assign.token, result=judged.result, path=assign.checkpoint, sha256=judged.sha256,
            heldout=judged.heldout, base_heldout=judged.base_heldout, why=judged.why,
        )
    )  # fmt: skip
    lease.report(Done(ref=assign.ref, tok=assign.token, path=assign.checkpoint, sha256=judged.sha256))


def _judged(assign: Assign, folder: Path, lease: Lease, place: Place) -> Judged:
    promised = assign.sha256 or ""
    try:
        sha256 = fit(folder, promised, assign.settings.lora_r)
    except Unfit as error:
        found = sha256_of(folder / ADAPTER) if (folder / ADAPTER).is_file() else promised
        return Judged("FAIL", str(error), found)
    heldout, base_heldout = _losses(assign, folder, lease, place)
    if not math.isfinite(heldout):
        return Judged("FAIL", "held-out loss is not finite", sha256, None, base_heldout)
    if assign.heldout is not None and abs(heldout - assign.heldout) > CLAIM_TOLERANCE * max(1.0, abs(heldout)):
        why = f"held-out loss {heldout:.4g}, but its maker said {assign.heldout:.4g}"
        return Judged("WARNING", why, sha256, heldout, base_heldout)
    ratio, limit = heldout / max(base_heldout, 1e-12), assign.settings.max_heldout_ratio
    if ratio > limit:
        why = f"held-out loss {heldout:.4g} is {ratio:.3g} x the base's {base_heldout:.4g}, above max_heldout_ratio {limit:g}"
        return Judged("WARNING", why, sha256, heldout, base_heldout)
    return Judged("SUCCESS", f"held-out loss {heldout:.4g}, base {base_heldout:.4g}", sha256, heldout, base_heldout)


def fit(folder: Path, promised: str, rank: int) -> str:
    """The adapter's hash; raises Unfit unless its files are there, unchanged, of PEFT's shape and rank, and finite."""
    _fit_config(folder, rank)
    path = folder / ADAPTER
    if not path.is_file():
        raise Unfit(f"{ADAPTER} is missing")
    sha256 = sha256_of(path)
    if sha256 != promised:
        raise Unfit(f"{ADAPTER} has sha256 {sha256[:12]}, its maker said {promised[:12]}")
    try:
        bases.header_of(path)
    except UserError as error:
        raise Unfit(error.what) from error
    tensors = load_file(path)
    if not tensors:
        raise Unfit(f"{ADAPTER} holds no tensors")
    _fit_pairs({name: tuple(value.shape) for name, value in tensors.items()})
    for name, value in tensors.items():
        if not bool(torch.isfinite(value).all()):
            raise Unfit(f"{name} is not finite")
    return sha256


def _fit_pairs(shapes: dict[str, tuple[int, ...]]) -> None:
    """Low-rank factors come in pairs, A (r, in) and B (out, r), under PEFT's names."""
    for name, shape in shapes.items():
        if ".lora_A." in name:
            other = shapes.get(name.replace(".lora_A.", ".lora_B."))
            if other is None or len(shape) < 2 or len(other) < 2 or other[1] != shape[0]:
                raise Unfit(f"{name} {list(shape)} has no B that fits it")
        elif ".lora_B." in name and name.replace(".lora_B.", ".lora_A.") not in shapes:
            raise Unfit(f"{name} has no A")
    if not any(".lora_" in name for name in shapes):
        raise Unfit(f"{ADAPTER} holds no low-rank factors")


def _fit_config(folder: Path, rank: int) -> None:
    try:
        config: Any = json.loads((folder / ADAPTER_CONFIG).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise Unfit(f"{ADAPTER_CONFIG} cannot be read") from error
    if not isinstance(config, dict) or config.get("peft_type") != "LORA" or not isinstance(config.get("r"), int):
        raise Unfit(f"{ADAPTER_CONFIG} describes no LoRA adapter")
    if config["r"] != rank:
        raise Unfit(f"{ADAPTER_CONFIG} says rank {config['r']}, the stream's lora_r is {rank}")


def _losses(assign: Assign, folder: Path, lease: Lease, place: Place) -> tuple[float, float]:
    """Held-out loss of the adapter and of the bare base, which is loaded anew and measured before the adapter is put on."""
    prepared = place.run_folder / (assign.prepared or "")
    rows = list(read_rows(prepared / HELD_OUT))
    base = load_base(bases.folder_of(assign.settings.base_model), assign.settings, place)
    base_heldout = yardstick(
        "heldout", prepared, assign.settings, place, lambda: held_out_loss(base, rows, lease.progress)
    )
    return round(held_out_loss(load_adapter(base, folder), rows, lease.progress), 6), round(base_heldout, 6)
