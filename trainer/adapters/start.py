"""The adapter on which a stream begins (`start_adapter`), read from its two files; torch is needed for its values alone.

It stays as it is below what is trained, W + s0 B0 A0 + s B A.  In the stream's file both stand one below the other: an ordinary LoRA of
the base with the ranks of both, whose users need no other file.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from swarm.errors import UserError
from swarm.facts import Module
from swarm.weights import ADAPTER, ADAPTER_CONFIG, ADAPTER_FILES, sha256_of
from trainer.targets import matched

if TYPE_CHECKING:
    from torch import Tensor

KEY = "start_adapter"
HALF_OF_PAIR = re.compile(r"base_model\.model\.(?P<layer>.+)\.lora_(?P<half>[AB])\.weight")
LINEAGE = "lineage.json"
"""Beside an adapter that a run has published."""
HEADER_BYTES = 64 << 20
"""More than the names of all tensors of an adapter take."""
MERGE = "merge it (`swarm merge`) and name the merged model as base_model"
S = TypeVar("S")


@dataclass(frozen=True)
class Start:
    folder: Path
    ranks: Mapping[str, int]
    """By layer."""
    sizes: Mapping[str, tuple[int, int]]
    """Inputs and outputs of each layer."""
    scales: Mapping[str, float]
    base_sha256: str | None = None
    """Of the weights that it was trained on, where a run states it."""

    def refuse_unfit(self, targets: Sequence[Module]) -> None:
        """Raises UserError where it stands on a layer that the stream does not adapt, or on one of another size."""
        there = {target.name: (target.inputs, target.outputs) for target in targets}
        for layer, size in self.sizes.items():
            if layer not in there:
                what = f"{self.folder} adapts {layer}, which this stream does not"
                raise UserError(KEY, what, f"add it to lora_target_modules, or {MERGE}")
            if size != there[layer]:
                what = f"{self.folder} has {layer} with {size[0]} x {size[1]}, the base {there[layer][0]} x {there[layer][1]}"
                raise UserError(KEY, what, "name an adapter of this base")

    def values(self) -> dict[str, tuple[Tensor, Tensor]]:
        """By layer A (rank, inputs) and s B^T (rank, outputs), fp32."""
        from safetensors.torch import load_file

        held = load_file(self.folder / ADAPTER)
        found = {}
        for layer in self.ranks:
            a, b = (held[f"base_model.model.{layer}.lora_{half}.weight"].float() for half in "AB")
            found[layer] = (a, b.T * self.scales[layer])
        return found

    def sha256(self) -> str:
        """As `adapter_sha256`, of a folder that is not a run's: a hub's cache has links."""
        lines = "".join(f"{sha256_of(self.folder / name)}  {name}\n" for name in ADAPTER_FILES)
        return hashlib.sha256(lines.encode()).hexdigest()


def start_of(named: str) -> Start:
    """Raises UserError where it is no LoRA that can stand below another one."""
    folder = Path(named)
    try:
        times = tuple((folder / name).stat().st_mtime_ns for name in ADAPTER_FILES)
    except OSError as error:
        what = f"{folder} has no {ADAPTER_CONFIG} and {ADAPTER} ({error.strerror})"
        raise UserError(KEY, what, "name the folder of an adapter") from error
    return _read(folder, times)


@cache
def _read(folder: Path, times: tuple[int, ...]) -> Start:
    """`times`: of its files, which may change."""
    config, shapes = _config(folder), _shapes(folder)
    halves: dict[str, dict[str, list[int]]] = {}
    for name, shape in shapes.items():
        match = HALF_OF_PAIR.fullmatch(name)
        if match is None:
            raise UserError(KEY, f"{folder} holds {name}, which is no half of a pair of LoRA", MERGE)
        halves.setdefault(match["layer"], {})[match["half"]] = shape
    if not halves or any(half.keys() != {"A", "B"} for half in halves.values()):
        raise UserError(KEY, f"{folder} lacks A or B of a layer", "save the adapter again")
    ranks = {layer: half["A"][0] for layer, half in halves.items()}
    return Start(
        folder,
        ranks,
        {layer: (half["A"][1], half["B"][0]) for layer, half in halves.items()},
        {layer: _scale(config, layer, rank) for layer, rank in ranks.items()},
        _base_sha256(folder),
    )


def _config(folder: Path) -> dict[str, Any]:
    try:
        config: Any = json.loads((folder / ADAPTER_CONFIG).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(KEY, f"{folder / ADAPTER_CONFIG} cannot be read", "put it back as it was") from error
    if not isinstance(config, dict) or config.get("peft_type") != "LORA":
        raise UserError(KEY, f"{folder} is no LoRA", MERGE)
    return config


def _base_sha256(folder: Path) -> str | None:
    try:
        stated = json.loads((folder / LINEAGE).read_text(encoding="utf-8"))["trained"]["base_sha256"]
    except (
        OSError,
        ValueError,
        LookupError,
        TypeError,
        RecursionError,
    ):  # an adapter of another program, or of an older version
        return None
    return str(stated) if stated else None


def _shapes(folder: Path) -> dict[str, list[int]]:
    """From the header (https://github.com/huggingface/safetensors#format)."""
    try:
        with (folder / ADAPTER).open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            header = json.loads(file.read(min(length, HEADER_BYTES)))
        return {name: list(entry["shape"]) for name, entry in header.items() if name != "__metadata__"}
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise UserError(KEY, f"{folder / ADAPTER} is no safetensors file", "take a whole copy") from error


def _scale(config: Mapping[str, Any], layer: str, rank: int) -> float:
    alpha = float(matched(config.get("alpha_pattern") or {}, layer) or config["lora_alpha"])
    return alpha / (math.sqrt(rank) if config.get("use_rslora") else rank)


def filed(settings: Any, added: Mapping[str, int]) -> Any:
    """Settings of a plain LoRA with the same file, in which so many rows of each layer stand below those that are trained."""
    own = {layer: settings.rank_of(layer) for layer in added}
    ranks = {layer: own[layer] + count for layer, count in added.items()}
    alphas = {layer: settings.alpha_of(layer) * _grown(settings, ranks[layer] / own[layer]) for layer in added}
    (rank, alpha), _ = Counter((ranks[layer], alphas[layer]) for layer in added).most_common(1)[0]
    others = [layer for layer in added if (ranks[layer], alphas[layer]) != (rank, alpha)]
    plain = {
        "lora_r": rank, "rank_pattern": {layer: ranks[layer] for layer in others},
        "lora_alpha": alpha, "alpha_pattern": {layer: alphas[layer] for layer in others},
        "init_lora_weights": "default", KEY: None,
    }  # fmt: skip
    return settings.model_copy(update=plain)


def _grown(settings: Any, ratio: float) -> float:
    """By how much alpha grows with the rank where the scale is to stay."""
    return math.sqrt(ratio) if settings.use_rslora else ratio
