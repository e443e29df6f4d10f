"""Control adapters on disk as changes of the base's matrices: who maps what a matrix puts out, maps the matrix itself from the left.

A control adapter of `control_site: mlp` maps what an MLP adds to the residual stream, so it is a change of the matrices that write there: the
down projection, of Mixtral that of every expert.  One of `block` maps all that a layer adds, so the output projection of its attention
too: exact where both read the same input (Cohere); elsewhere the MLP would read what the attention has changed.

A multiplicative LoRA is such maps by the names of the matrices, in a folder with the names of PEFT's LoRA: B A is added to the identity,
and not to the matrix.  It needs no base, and other programs know it (qlora-pipe-lite: `merge_lora --multiplicative`).
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Collection, Iterator, Sequence
from copy import copy
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from swarm.errors import UserError
from swarm.weights import ADAPTER_CONFIG
from trainer.adapter_file import opened
from trainer.control.forms import MIRROR, factors
from trainer.control.sites import CHILD
from trainer.ship.deltas import Adapter, Change, Delta, names_in_base
from trainer.ship.lowrank import compressed

MLP = r"mlp\.(experts\.(\d+\.)?)?down_proj|block_sparse_moe\.experts\.\d+\.w2"
WRITERS = {
    "mlp": re.compile(rf"({MLP})(\.weight|\.bias)?"),
    "block": re.compile(rf"(self_attn\.o_proj|{MLP})(\.weight|\.bias)?"),
}
"""What writes to the residual stream, below a layer: in files and in memory, where a mixture's experts are one tensor."""
LAYER = re.compile(r"(?P<layer>(.+\.)?layers\.\d+)\.(?P<below>.+)")
SINGULAR = 1e-6
"""A map that shortens a direction to less than this share counts as one that nothing undoes: fp32 has about as many digits."""


@dataclass(frozen=True)
class Map:
    """y -> y + L R y of what is put out."""

    left: Tensor
    """(H, n), fp32."""
    right: Tensor
    """(n, H), fp32."""
    of_block: bool = False
    """Of all that a layer adds, and so behind the maps of what its MLP puts out."""
    is_transposed: ClassVar[bool] = False

    def fits(self, shape: Sequence[int]) -> bool:
        return shape[-2 if len(shape) > 1 else 0] == len(self.left)

    def added_to(self, weight: Tensor) -> Tensor:
        """(H, inputs), (experts, H, inputs) or a bias (H,), in fp32."""
        w = weight.float()
        return w + self.left @ (self.right @ w)

    def factors(self, weight: Tensor) -> tuple[Tensor, Tensor]:
        """(H, n) and (n, inputs), or of experts (experts, n, inputs): their product is the same change of this very matrix."""
        return self.left, self.right @ weight.float()

    def inverse(self, where: str) -> Map:
        """I + L R undone: I - L (1 + R L)^-1 R (Woodbury).  Raises UserError where nothing undoes it."""
        core = torch.eye(self.right.shape[0], dtype=torch.float64) + self.right.double() @ self.left.double()  # (n, n)
        values = torch.linalg.svdvals(core)
        if not float(values.min()) > SINGULAR * max(1.0, float(values.max())):
            raise UserError(
                where, "has no inverse: it takes a direction away altogether", "convert it with `--scale -1` instead"
            )
        return replace(self, left=(-self.left.double() @ torch.linalg.inv(core)).float())

    def compressed(self, rank: int) -> tuple[Map, Tensor]:
        """The nearest of this rank, and all singular values."""
        left, right, values = compressed(self.left, self.right, rank)
        return replace(self, left=left, right=right), values


@dataclass(frozen=True)
class Chain:
    """A LoRA of a matrix, and a map of what the changed matrix puts out."""

    delta: Delta
    map: Map
    is_transposed: ClassVar[bool] = False

    def fits(self, shape: Sequence[int]) -> bool:
        return self.delta.fits(shape) and self.map.fits(shape)

    def added_to(self, weight: Tensor) -> Tensor:
        return self.map.added_to(self.delta.added_to(weight))

    def factors(self, weight: Tensor) -> tuple[Tensor, Tensor]:
        b, a = self.delta.factors(weight)
        left, right = self.map.factors(self.delta.added_to(weight))
        return torch.cat([b, left], dim=1), torch.cat([a, right])


def together(changes: Sequence[tuple[Change, float]], weight: Tensor) -> Tensor:
    """The matrix as several adapters on one model at once change it, each by its weight; fp32.

    What LoRAs add is summed, then what maps add to what the changed matrix puts out: those of MLPs first, then those of blocks.
    """
    bare, maps = weight.float(), []
    changed = bare
    for change, share in changes:
        if isinstance(change, Map | Chain):
            maps.append((change if isinstance(change, Map) else change.map, share))
        if isinstance(change, Delta | Chain):
            delta = change if isinstance(change, Delta) else change.delta
            changed = changed + share * (delta.added_to(weight) - bare)
    for of_block in (False, True):
        mine = [(one, share) for one, share in maps if one.of_block == of_block]
        changed = changed + sum(share * (one.left @ (one.right @ changed)) for one, share in mine)
    return changed


class ControlAdapter(Adapter):
    """A control adapter as changes of matrices, at a scale; `inverse` undoes what it does at that scale."""

    peft_type = "CONTROL"

    def __init__(self, folder: Path, scale: float = 1.0, *, inverse: bool = False) -> None:
        """Raises UserError."""
        super().__init__(folder)
        self.scale, self.inverse = scale, inverse
        self.site, self.form = self._chosen("control_site", WRITERS), self._chosen("control_adapter_type", MIRROR)
        self.sites = sorted(name.removesuffix(f".{CHILD}") for name in self._parts if name.endswith(f".{CHILD}"))
        self.beside = self.modules - {f"{site}.{CHILD}" for site in self.sites}
        """Linear layers that have a LoRA."""
        if self.beside and inverse:
            what = "has a LoRA beside its maps, and both are not undone by one change"
            raise UserError(str(folder), what, "merge it, and keep the base")

        self.maps = {site: self._map(site) for site in self.sites}

    def with_maps(self, maps: dict[str, Map]) -> ControlAdapter:
        """The same with others in their place."""
        made = copy(self)
        made.maps = maps
        return made

    def _chosen(self, key: str, known: Collection[str]) -> Any:
        """A word of its config, by default the first one that there is."""
        if (word := self.config.setdefault(key, next(iter(known)))) not in list(known):
            what = f"{ADAPTER_CONFIG} has {key}: {word!r}"
            raise UserError(str(self.folder), what, f"write {' or '.join(known)}")
        return word

    def _map(self, site: str) -> Map:
        parts = self._parts[f"{site}.{CHILD}"]
        with opened(self.folder) as file:
            read = {part: file.get_tensor(name).float() for part, name in parts.items()}
        names = ("lora_Q", "lora_S") if self.form == "spectral" else ("lora_A", "lora_B")
        first, second = (read.get(name, torch.empty(0)) for name in names)
        rank = first.shape[-1 if self.form == "spectral" else 0]
        if first.dim() != 2 or second.shape != ((rank,) if self.form == "spectral" else first.shape[::-1]):
            what = f"{site} has no {names[0]} and {names[1]} that are one map of type {self.form}"
            raise UserError(str(self.folder), what, "save the adapter again")
        pair = factors(self.form, first, second, self._scale(site, rank), self.scale)
        made = Map(*pair, of_block=self.site == "block")
        return made.inverse(f"{self.folder}: {site}") if self.inverse else made

    def names_in(self, stored: set[str]) -> Iterator[tuple[str, str]]:
        """Every matrix and bias that writes where a site is; then those with a LoRA."""
        found = {name: self._site_of(name) for name in sorted(stored)}
        yield from ((_whole(name, site), name) for name, site in found.items() if site)
        mapped = {name for name, site in found.items() if site}
        yield from ((module, name) for module, name in names_in_base(self.beside, stored) if name not in mapped)

    def missing_in(self, stored: set[str]) -> list[str]:
        written = {site for name in stored if (site := self._site_of(name))}
        return [
            *(set(self.sites) - written), *(self.beside - {module for module, _ in names_in_base(self.beside, stored)})
        ]  # fmt: skip

    def change(self, module: str) -> Change | None:
        site = self._site_of(module)
        delta = self.delta(module) if module in self.beside else None
        if site is None:
            return delta
        return Chain(delta, self.maps[site]) if delta else self.maps[site]

    def _site_of(self, name: str) -> str | None:
        """The site where what this matrix puts out arrives; None if there is none.  Files may leave out the model's outer prefix."""
        match = LAYER.fullmatch(name)
        if match is None or not WRITERS[self.site].fullmatch(match["below"]):
            return None
        site = match["layer"] + (".mlp" if self.site == "mlp" else "")
        return next((whole for whole in (site, f"model.{site}") if whole in self.sites), None)


def _whole(name: str, site: str) -> str:
    """The module's name in the model, of a bias with that behind it."""
    match = LAYER.fullmatch(name.removesuffix(".weight"))
    assert match is not None
    return f"{site.removesuffix('.mlp')}.{match['below']}"


class Multiplicative(Adapter):
    """A multiplicative LoRA: for each matrix that it names, I + s B A from the left."""

    def __init__(self, folder: Path, scale: float = 1.0, *, inverse: bool = False) -> None:
        super().__init__(folder)
        self.scale, self.inverse = scale, inverse
        widths = {delta.a.shape[1] == delta.b.shape[0] for delta in map(self.delta, self.modules)}
        if widths != {True}:
            what = "is no multiplicative LoRA: A takes something else than B puts out"
            raise UserError(str(folder), what, "leave --multiplicative out")

    def names_in(self, stored: set[str]) -> Iterator[tuple[str, str]]:
        yield from super().names_in(stored)
        yield from ((f"{module}.bias", f"{module}.bias") for module in self.modules if f"{module}.bias" in stored)

    def change(self, module: str) -> Change | None:
        if (module := module.removesuffix(".bias")) not in self.modules:
            return None
        delta = self.delta(module)
        made = Map(self.scale * delta.scale * delta.b, delta.a)
        return made.inverse(f"{self.folder}: {module}") if self.inverse else made


class Scaled(Adapter):
    """A LoRA at another scale."""

    def __init__(self, folder: Path, scale: float) -> None:
        super().__init__(folder)
        self.scale = scale

    def change(self, module: str) -> Change | None:
        delta = super().change(module)
        if delta is None or self.scale == 1:
            return delta
        assert isinstance(delta, Delta)
        if delta.magnitude is not None:
            raise UserError(str(self.folder), "has DoRA's magnitudes, which have no scale", "merge it as it is")
        return replace(delta, scale=delta.scale * self.scale)


def adapter_in(folder: Path, scale: float = 1.0, *, inverse: bool = False, multiplicative: bool = False) -> Adapter:
    """What the folder holds; of a LoRA the inverse takes out what a merge has added.  Raises UserError."""
    if not math.isfinite(scale):
        raise UserError("--scale", f"{scale} is no scale", "give a finite number")
    if multiplicative:
        return Multiplicative(folder, scale, inverse=inverse)
    try:
        held = json.loads((folder / ADAPTER_CONFIG).read_text(encoding="utf-8"))["peft_type"]
    except (OSError, ValueError, LookupError, TypeError):
        held = None
    if held == ControlAdapter.peft_type:
        return ControlAdapter(folder, scale, inverse=inverse)
    return Scaled(folder, -scale if inverse else scale)
