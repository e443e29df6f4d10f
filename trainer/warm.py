"""A training that begins with the weights and optimizer moments of another stream's checkpoint, also in another rank.

LoRA's update is s B A, with s the scale that alpha and rank give.  A higher rank keeps it: the further columns of B are zero, and the
further rows of A stay as they were drawn, since with zeros there too nothing would ever train them.  A lower rank keeps the
components b_i a_i of the largest norm, and the share of the update that is lost is said.  Another scale is made up for in B.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from peft import PeftConfig
from safetensors.torch import load_file
from torch import Tensor

from swarm.errors import UserError
from swarm.events import Post
from swarm.messages import WarmStart
from swarm.weights import ADAPTER, adapter_sha256
from trainer.loop.adapter import as_in_peft
from trainer.loop.folder import PARTS
from trainer.progress import TrainingProgress

Form = Callable[[str, Tensor], Tensor]
"""From a tensor in an engine's memory to PEFT's form, and back."""

A, B = ".lora_A.weight", ".lora_B.weight"
OPTIMIZER = "optimizer.pt"
SECOND_MOMENT = "_sq"
"""How torch's names of moments of squared gradients end; the others are of gradients."""
IN_MEMORY = re.compile(r"\.default(?:(?<=_vector\.default)\.weight)?")
"""What PEFT has in the name of a tensor in memory and not in its file."""


@dataclass
class Carried:
    """What becomes of an adapter's tensors in another rank."""

    kept: dict[str, Tensor] = field(default_factory=dict)
    """Indices of the rank components that stay, by layer."""
    ratio: float = 1.0
    """By which B is multiplied."""
    lost: float = 0.0
    """Squared Frobenius norm of the update that is lost, over all layers."""
    whole: float = 0.0
    """That of the whole update."""

    @property
    def lost_share(self) -> float:
        return math.sqrt(max(0.0, self.lost) / self.whole) if self.whole else 0.0


def as_it_is(_: str, value: Tensor) -> Tensor:
    return value


def begin(
    progress: TrainingProgress,
    parameters: Iterable[tuple[str, Tensor]],
    optimizer: Any,
    config: PeftConfig,
    form: Form = as_it_is,
) -> None:
    """Before the first step of a training: where it is a clone that has no checkpoint of its own yet, from its source."""
    warm = progress.assign.warm
    if warm is None or progress.resumed:
        return
    note = carry(parameters, optimizer, config, progress.place.run_folder / warm.path, warm, form)
    progress.lease.report(Post(ref=progress.assign.ref, body=note))


def carry(
    parameters: Iterable[tuple[str, Tensor]],
    optimizer: Any,
    config: PeftConfig,
    folder: Path,
    warm: WarmStart,
    form: Form = as_it_is,
) -> str:
    """Fill a new adapter and its optimizer, before the first step; returns what the log says of it.

    `parameters`: by the names that PEFT has in memory or in its file, in PEFT's shapes once `form` was applied; `optimizer`: over
    them.  Raises UserError where the checkpoint is not the one that the log names, or has other tensors.
    """
    if adapter_sha256(folder) != warm.sha256:
        raise UserError(warm.path, "is not the checkpoint that the log names", "clone the stream again")
    trained = {IN_MEMORY.sub("", name): value for name, value in parameters}
    new = {name: form(name, value) for name, value in trained.items()}  # views of the same memory
    old = load_file(folder / ADAPTER)
    _check_names(new, old, warm)
    carried = components(old, new, scale(PeftConfig.from_pretrained(str(folder))) / scale(config))
    with torch.no_grad():
        for name, value in new.items():
            value.copy_(resized(name, old[name], value, carried))
    moments = (
        _moments(trained, old, optimizer, folder, carried, form)
        if warm.moments
        else "without its moments: the optimizer is another"
    )
    return _sentence(warm, carried, moments, old, new)


def scale(config: Any) -> float:
    """By which PEFT multiplies B A; 1 for other kinds of adapters."""
    if not hasattr(config, "lora_alpha"):
        return 1.0
    if config.alpha_pattern or config.rank_pattern:
        fix = "clone it without its weights"
        raise UserError("warm start", "an adapter with rank_pattern or alpha_pattern has no one scale", fix)
    return float(config.lora_alpha) / (math.sqrt(config.r) if config.use_rslora else config.r)


def components(old: Mapping[str, Tensor], new: Mapping[str, Tensor], ratio: float) -> Carried:
    """Which rank components of each layer stay: as many as there is room for, of the largest norm."""
    carried = Carried(ratio=ratio)
    for layer in (name.removesuffix(A) for name in old if name.endswith(A)):
        a, b = old[layer + A].double(), old[layer + B].double()  # (r, in), (out, r)
        room = new[layer + A].shape[0]
        norms = a.norm(dim=1) * b.norm(dim=0)  # (r,)
        order = norms.argsort(descending=True, stable=True)
        carried.kept[layer] = order[:room].sort().values
        carried.lost += _squared_norm(a[order[room:]], b[:, order[room:]])
        carried.whole += _squared_norm(a, b)
    return carried


def _squared_norm(a: Tensor, b: Tensor) -> float:
    """Of B A, without the matrix itself."""
    return float(((b.T @ b) * (a @ a.T)).sum())


def resized(name: str, old: Tensor, new: Tensor, carried: Carried) -> Tensor:
    """A tensor of the checkpoint in the shape of the new one: what it has no place for is left out, what is new in A stays."""
    if name.endswith(A):
        kept = carried.kept[name.removesuffix(A)]
        made = new.detach().clone()
        made[: len(kept)] = old[kept].to(new)
        return made
    if name.endswith(B):
        return _columns(old * carried.ratio, new, carried.kept[name.removesuffix(B)])
    return old.to(new)


def _columns(old: Tensor, new: Tensor, kept: Tensor) -> Tensor:
    made = torch.zeros_like(new)
    made[:, : len(kept)] = old[:, kept].to(new)
    return made


def _moments(
    trained: Mapping[str, Tensor], old: Mapping[str, Tensor], optimizer: Any, folder: Path, carried: Carried, form: Form
) -> str:
    """Give the optimizer the moments of the checkpoint, in the new shapes; says which are left behind."""
    states = torch.load(folder / OPTIMIZER, weights_only=True, map_location="cpu")["state"]
    kept_in = as_in_peft if (folder / PARTS).is_file() else as_it_is  # the engine that wrote them
    names = {id(value): name for name, value in trained.items()}
    order = [names[id(value)] for group in optimizer.param_groups for value in group["params"]]
    made = {}
    for place, name in enumerate(order):
        there = _each(states.get(place, {}), name, kept_in)
        moved = _moved(name, there, old[name], form(name, trained[name]), carried)
        if place not in states or moved is None:
            return "without its moments, which are kept in another form"
        made[place] = _each(moved, name, form)
    optimizer.load_state_dict({"state": made, "param_groups": optimizer.state_dict()["param_groups"]})
    return "with its moments"


def _each(state: Mapping[str, Any], name: str, form: Form) -> dict[str, Any]:
    """The same moments in another form."""
    return {key: form(name, value).contiguous() if isinstance(value, Tensor) else value for key, value in state.items()}


def _moved(name: str, state: Mapping[str, Any], old: Tensor, new: Tensor, carried: Carried) -> dict[str, Any] | None:
    """One tensor's moments; None where they cannot be brought into the new shape."""
    made: dict[str, Any] = {}
    for key, value in state.items():
        if not isinstance(value, Tensor) or not value.dim():
            made[key] = value
        elif value.shape == old.shape:
            made[key] = _moment(name, key, value, new, carried)
        elif old.shape == new.shape and carried.ratio == 1:
            made[key] = value
        else:
            return None
    return made


def _moment(name: str, key: str, value: Tensor, new: Tensor, carried: Carried) -> Tensor:
    """Of a gradient: that of B grows as B shrinks.  New rows and columns have seen no gradient."""
    blank = torch.zeros(new.shape, dtype=value.dtype)
    if name.endswith(A):
        kept = carried.kept[name.removesuffix(A)]
        blank[: len(kept)] = value[kept]
        return blank
    if name.endswith(B):
        per_gradient = carried.ratio ** (2 if key.endswith(SECOND_MOMENT) else 1)
        return _columns(value / per_gradient, blank, carried.kept[name.removesuffix(B)])
    return value


def _check_names(new: Mapping[str, Tensor], old: Mapping[str, Tensor], warm: WarmStart) -> None:
    if new.keys() != old.keys():
        odd = sorted(new.keys() ^ old.keys())
        what = f"has other tensors than this stream ({odd[0]} is on one side only)"
        raise UserError(warm.path, what, "clone it with the same adapter settings")


def _sentence(
    warm: WarmStart, carried: Carried, moments: str, old: Mapping[str, Tensor], new: Mapping[str, Tensor]
) -> str:
    before, after = ({value.shape[0] for name, value in of.items() if name.endswith(A)} for of in (old, new))
    rank = "" if before == after else f"; rank {_some(before)} -> {_some(after)}"
    if len(carried.kept) and max(after) < max(before):
        rank += f", {carried.lost_share:.2%} of its update is lost"
    return f"begins with the weights of {warm.stream} at step {warm.step}, {moments}{rank}"


def _some(ranks: set[int]) -> str:
    return ", ".join(map(str, sorted(ranks)))
