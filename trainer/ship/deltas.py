"""An adapter on disk as changes to weights: for each layer that it adapts, what it adds to the base's matrix.

LoRA adds s B A (arXiv 2106.09685), s = alpha / r, or alpha / sqrt(r) for rsLoRA (arXiv 2312.03732); DoRA scales each row of W + s B A to
its magnitude (arXiv 2402.09353).  Everything is computed in fp32.  Nothing of the base is loaded here.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Protocol

import torch

from swarm.errors import UserError
from swarm.weights import ADAPTER, ADAPTER_CONFIG
from trainer.adapter_file import names_of, opened
from trainer.ship import experts

PREFIX = "base_model.model."
"""PEFT's, before every name of a module."""
PARTS = re.compile(
    r"(?P<module>.+)\.(?P<part>lora_A|lora_B|lora_magnitude_vector|lora_embedding_A|lora_embedding_B|lora_Q|lora_S)(?:\.weight)?"
)
NOT_MERGED = {
    "bias": "none", "lora_bias": False, "modules_to_save": None, "alora_invocation_tokens": None, "layer_replication": None,
    "use_qalora": False, "use_bdlora": None, "arrow_config": None,
}  # fmt: skip
"""Settings of PEFT's LoRA that would need more than a change of matrices, and their values without that."""


class Change(Protocol):
    """What an adapter does to one matrix."""

    @property
    def is_transposed(self) -> bool: ...

    def fits(self, shape: Sequence[int]) -> bool:
        """Whether it can change a matrix of this shape."""

    def added_to(self, weight: torch.Tensor) -> torch.Tensor:
        """The changed matrix in fp32, in the base's own layout."""

    def factors(self, weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """(outputs, n) and (n, inputs), fp32: their product is what is added to this matrix."""


@dataclass(frozen=True)
class Delta:
    """What one adapter does to one matrix, or to each of a layer's experts."""

    a: torch.Tensor
    """(r, inputs) or (experts, r, inputs), fp32."""
    b: torch.Tensor
    """(outputs, r) or (experts, outputs, r), fp32."""
    scale: float
    magnitude: torch.Tensor | None = None
    """(outputs,), fp32: DoRA's."""
    is_transposed: bool = False
    """The base keeps the matrix as (inputs, outputs), as GPT-2's Conv1D and embeddings do."""

    def fits(self, shape: Sequence[int]) -> bool:
        own = [self.b.shape[-2], self.a.shape[-1]]
        return list(shape) == [*self.a.shape[:-2], *(own[::-1] if self.is_transposed else own)]

    def added_to(self, weight: torch.Tensor) -> torch.Tensor:
        """The changed matrix in fp32, in the base's own layout."""
        w = weight.float()
        w = w.T if self.is_transposed else w  # (outputs, inputs) or (experts, outputs, inputs)
        product = torch.addmm if w.dim() == 2 else torch.baddbmm
        changed = product(w, self.b, self.a, alpha=self.scale)
        if self.magnitude is not None:
            changed *= (self.magnitude / changed.norm(dim=1)).unsqueeze(1)
        return changed.T if self.is_transposed else changed

    def factors(self, weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        assert self.magnitude is None, "with a magnitude it is no product"
        return self.scale * self.b, self.a


class Adapter:
    """An adapter's config and its deltas by module name, read one at a time."""

    peft_type: ClassVar[str] = "LORA"

    def __init__(self, folder: Path) -> None:
        """Raises UserError on what is no LoRA adapter, or one whose changes are not all changes of matrices."""
        self.folder = folder
        self.config = _config(folder, self.peft_type)
        for key, without in NOT_MERGED.items():
            if self.config.get(key) not in (without, [], None, False):
                what = f"{ADAPTER_CONFIG} has {key}: {self.config[key]}, which is no change of a matrix"
                raise UserError(str(folder), what, "merge it with PEFT's merge_and_unload, which loads the whole model")
        found = _by_module(folder, names_of(folder))
        targets = self.config.get("target_parameters") or []
        parameters = {module: experts.parameter_in(module, targets, str(folder)) for module in found}
        self._parts = {parameters[module] or module: parts for module, parts in found.items()}
        self._experts = {name for name in parameters.values() if name}

    @property
    def modules(self) -> set[str]:
        return set(self._parts)

    @property
    def embeddings(self) -> set[str]:
        return {module for module, parts in self._parts.items() if "lora_embedding_A" in parts}

    def names_in(self, stored: set[str]) -> Iterator[tuple[str, str]]:
        """What it changes of a base with these tensors: (module, name of the tensor); an expert of files that have them apart is `module.number`."""
        yield from (found := list(names_in_base(self.modules, stored)))
        for parameter in sorted(self._experts - {module for module, _ in found}):
            yield from experts.in_files(parameter, stored)

    def missing_in(self, stored: set[str]) -> list[str]:
        """What it would change and such a base lacks."""
        return sorted(self.modules - {self._expert(module)[0] for module, _ in self.names_in(stored)})

    def change(self, module: str) -> Change | None:
        """None for what it leaves as it is."""
        whole, number = self._expert(module)
        if whole not in self._parts:
            return None
        delta = self.delta(whole)
        return delta if number is None else replace(delta, a=delta.a[number], b=delta.b[number])

    def _expert(self, module: str) -> tuple[str, int | None]:
        """The parameter of all experts and the number of one; None for anything else."""
        whole, _, number = module.rpartition(".")
        return (whole, int(number)) if whole in self._experts else (module, None)

    def delta(self, module: str) -> Delta:
        parts = self._parts[module]
        with opened(self.folder) as file:
            read = {part: file.get_tensor(name).float() for part, name in parts.items()}
        is_embedding = "lora_embedding_A" in read
        a, b = (read[f"lora_{'embedding_' if is_embedding else ''}{part}"] for part in "AB")
        if module in self._experts:
            a, b = experts.stacked(
                a, b, int(_pattern(self.config.get("rank_pattern") or {}, module) or self.config["r"])
            )
        return Delta(
            a=a, b=b, scale=self._scale(module, a.shape[-2]), magnitude=_flat(read.get("lora_magnitude_vector")),
            is_transposed=is_embedding or bool(self.config.get("fan_in_fan_out")),
        )  # fmt: skip

    def _scale(self, module: str, rank: int) -> float:
        alpha = _pattern(self.config.get("alpha_pattern") or {}, module)
        alpha = self.config["lora_alpha"] if alpha is None else alpha
        return alpha / math.sqrt(rank) if self.config.get("use_rslora") else alpha / rank


PEFTS_ALPHA = 8
"""Where a config names none."""
NAMES = {"LORA": "LoRA", "CONTROL": "control"}


def _config(folder: Path, peft_type: str) -> dict[str, Any]:
    try:
        config: Any = json.loads((folder / ADAPTER_CONFIG).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        what = f"has no readable {ADAPTER_CONFIG} ({error})"
        raise UserError(
            str(folder), what, "name the folder of an adapter, e.g. runs/RUN/promoted, of a pair one of its two"
        ) from error
    held = config.get("peft_type") if isinstance(config, dict) else None
    if not isinstance(config, dict) or held != peft_type:
        fix = "convert it first: `swarm convert`" if held == "CONTROL" else "name the folder of one"
        raise UserError(str(folder), f"{ADAPTER_CONFIG} describes no {NAMES[peft_type]} adapter", fix)
    if not isinstance(config.setdefault("lora_alpha", PEFTS_ALPHA), int | float):
        raise UserError(str(folder), f"{ADAPTER_CONFIG} has lora_alpha: {config['lora_alpha']!r}", "write a number")
    return config


def _by_module(folder: Path, names: list[str]) -> dict[str, dict[str, str]]:
    """The names of each module's tensors by part.  Raises UserError on a tensor that is no part of a pair."""
    found: dict[str, dict[str, str]] = {}
    for name in names:
        match = PARTS.fullmatch(name.removeprefix(PREFIX))
        if match is None:
            raise UserError(str(folder), f"{ADAPTER} holds {name}, which no LoRA layer has", "merge it with PEFT")
        found.setdefault(match["module"], {})[match["part"]] = name
    for module, parts in found.items():
        if len([part for part in parts if part != "lora_magnitude_vector"]) != 2:
            raise UserError(str(folder), f"{module} lacks one of A and B", "save the adapter again")
    return found


def _pattern(patterns: Mapping[str, float], module: str) -> float | None:
    """PEFT's rule: a key is the end of a module's name, or a pattern of it."""
    return next((v for key, v in patterns.items() if re.match(rf"(.*\.)?({key})$", module)), None)


def _flat(magnitude: torch.Tensor | None) -> torch.Tensor | None:
    return None if magnitude is None else magnitude.flatten()


def combined(
    deltas: list[Change], weights: list[float], how: str, density: float, weight: torch.Tensor
) -> torch.Tensor:
    """The matrix with several adapters' changes, each computed on the bare matrix, combined by PEFT's rules; fp32.

    linear: the weighted sum.  ties (arXiv 2306.01708), dare_linear and dare_ties (arXiv 2311.03099) keep a share `density` of each.
    """
    from peft.utils import merge_utils

    bare = weight.float()
    changes = [delta.added_to(weight) - bare for delta in deltas]
    of = torch.tensor(weights, dtype=torch.float32)
    match how:
        case "linear":
            change = merge_utils.task_arithmetic(changes, of)
        case "ties":
            change = merge_utils.ties(changes, of, density)
        case "dare_linear":
            change = merge_utils.dare_linear(changes, of, density)
        case "dare_ties":
            change = merge_utils.dare_ties(changes, of, density)
        case _:
            raise UserError("--combine", f"{how!r} is no way", "take linear, ties, dare_linear or dare_ties")
    return bare + change


def names_in_base(modules: set[str], stored: set[str]) -> Iterator[tuple[str, str]]:
    """(module, name of its weight in the base's files); files may leave out the model's outer prefix.  Missing ones are left out."""
    for module in sorted(modules):
        name = f"{module}.weight"
        shorter = name.partition(".")[2]
        if found := next((one for one in (name, shorter, module) if one in stored), None):
            yield module, found
