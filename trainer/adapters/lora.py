"""Low-rank adapters on a base that stays as it is; `use_dora` and `use_rslora` are switches of it.

A is (rank, inputs), B is (outputs, rank) (LoRA, arXiv 2106.09685); DoRA adds a magnitude per output (arXiv 2402.09353);
rsLoRA scales by alpha / sqrt(rank) (arXiv 2312.03732).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, ClassVar

from pydantic import Field

from swarm.errors import UserError
from swarm.facts import BaseFacts, Module
from swarm.keys import Positive, Settings, Share
from swarm.kinds import AdapterKind, Shape

if TYPE_CHECKING:
    from peft import LoraConfig

FP32, HALF = 4, 2
ALL_LINEAR = "all-linear"
NAMES = re.compile(r"[\w.-]+(?:\s*,\s*[\w.-]+)*,?")
"""`q_proj` or `q_proj, v_proj`: names of layers; any other text is a pattern."""


class LoraSettings(Settings):
    lora_r: Positive = 8
    """Rank of the adapter's matrices."""
    lora_alpha: Annotated[float, Field(gt=0)] = 16
    """The adapter's output is scaled by alpha / rank."""
    lora_dropout: Share = 0.0
    """Share of the adapter's inputs that is dropped in training."""
    lora_target_modules: str | list[str] = ALL_LINEAR
    """Layers that get an adapter: a list of names (`[q_proj, v_proj]`), a pattern of whole names, or all-linear: all but the head."""
    use_dora: bool = False
    """Weight-decomposed LoRA (DoRA)."""
    use_rslora: bool = False
    """Scale the adapter by alpha / sqrt(rank) instead of alpha / rank."""

    @property
    def targets(self) -> str | list[str]:
        """all-linear, a list of names, or a pattern."""
        wanted = self.lora_target_modules
        if isinstance(wanted, str) and wanted != ALL_LINEAR and NAMES.fullmatch(wanted):
            return [name.strip() for name in wanted.split(",") if name.strip()]
        return wanted


class Lora(AdapterKind[LoraSettings]):
    name = "lora"
    summary = "low-rank matrices beside the linear layers of a base that stays as it is"
    settings = LoraSettings
    engines: ClassVar[frozenset[str]] = frozenset({"shared", "trl"})

    def label(self, settings: LoraSettings) -> str:
        switches = [name for name, on in (("dora", settings.use_dora), ("rslora", settings.use_rslora)) if on]
        return " ".join([self.name, f"r{settings.lora_r}", *switches])

    def details(self, settings: LoraSettings) -> str:
        targets = settings.targets
        return f"α{settings.lora_alpha:g} {targets if isinstance(targets, str) else '+'.join(targets)}"

    def tensors(self, base: BaseFacts, settings: LoraSettings) -> dict[str, Shape]:
        shapes: dict[str, Shape] = {}
        for target in targeted(base, settings.targets):
            name = f"base_model.model.{target.name}"
            shapes[f"{name}.lora_A.weight"] = (settings.lora_r, target.inputs)
            shapes[f"{name}.lora_B.weight"] = (target.outputs, settings.lora_r)
            if settings.use_dora:
                shapes[f"{name}.lora_magnitude_vector"] = (target.outputs,)
        return shapes

    def activation_bytes(self, base: BaseFacts, settings: LoraSettings, width: int) -> float:
        """Inputs of A where they are copies (cast or dropped out), dropout's mask, A's outputs; DoRA's outputs twice."""
        targets = targeted(base, settings.targets)
        inputs, outputs = sum(target.inputs for target in targets), sum(target.outputs for target in targets)
        kept: float = len(targets) * settings.lora_r * FP32
        kept += inputs * width if width == HALF or settings.lora_dropout else 0
        kept += inputs * FP32 if settings.lora_dropout else 0
        return kept + (2 * outputs * width if settings.use_dora else 0)

    def shared_activation_bytes(self, base: BaseFacts, settings: LoraSettings, width: int) -> float:
        """A's outputs; dropout's mask and what it leaves; DoRA's outputs of base and adapter.  Casts are not kept."""
        targets = targeted(base, settings.targets)
        inputs, outputs = sum(target.inputs for target in targets), sum(target.outputs for target in targets)
        kept: float = len(targets) * settings.lora_r * FP32
        kept += 2 * inputs * width if settings.lora_dropout else 0
        return kept + (outputs * (width + FP32) if settings.use_dora else 0)

    def overhead_bytes(self, base: BaseFacts, settings: LoraSettings, width: int) -> int:
        """DoRA computes the norm of a whole weight with its adapter, in fp32."""
        largest = max(target.elements for target in targeted(base, settings.targets))
        return 3 * FP32 * largest if settings.use_dora else 0

    def config(self, base: BaseFacts, settings: LoraSettings) -> LoraConfig:
        from peft import LoraConfig

        return LoraConfig(
            task_type="CAUSAL_LM",
            r=settings.lora_r,
            lora_alpha=settings.lora_alpha,  # type: ignore[arg-type]  # peft says int; it only divides by it
            lora_dropout=settings.lora_dropout,
            target_modules=[target.name for target in targeted(base, settings.targets)],
            use_dora=settings.use_dora,
            use_rslora=settings.use_rslora,
            bias="none",
        )


def targeted(base: BaseFacts, wanted: str | list[str]) -> list[Module]:
    """The layers that get an adapter, by PEFT's rules: a list names the ends of names, a text is a pattern of whole names.

    Raises UserError where a name or the pattern matches no layer, and where it matches what cannot have an adapter.
    """
    if wanted == ALL_LINEAR:
        return list(base.linears)
    if isinstance(wanted, str):
        return _checked(base, _by_pattern(base, wanted))
    for name in wanted:
        if not any(_ends(module.name, name) for module in base.modules):
            raise _error(f"{name} matches no layer of the base", _layers(base))
    return _checked(base, [m for m in base.modules if any(_ends(m.name, name) for name in wanted)])


def _by_pattern(base: BaseFacts, pattern: str) -> list[Module]:
    try:
        found = [module for module in base.modules if re.fullmatch(pattern, module.name)]
    except re.error as error:
        raise _error(f"{pattern!r} is no pattern ({error})", "write all-linear, or a list of names") from error
    if not found:
        example = base.linears[0].name if base.linears else base.head
        what = f"the pattern {pattern!r} matches no whole name of a layer, such as {example}"
        raise _error(what, f"write .* before it, or a list of names: {_layers(base)}")
    return found


def _ends(name: str, end: str) -> bool:
    return name == end or name.endswith(f".{end}")


def _checked(base: BaseFacts, found: Sequence[Module]) -> list[Module]:
    able = {module.name for module in base.linears}
    for module in found:
        if module.name not in able:
            what = (
                "is the head"
                if module.name == base.head
                else "is an embedding"
                if module.kind == "embedding"
                else "cannot be wrapped by PEFT"
            )
            raise _error(f"{module.name} {what}, which gets no adapter here", _layers(base))
    return list(found)


def _layers(base: BaseFacts) -> str:
    names = dict.fromkeys(module.name.rpartition(".")[2] for module in base.linears)
    return f"its layers are {', '.join(names)}; or write all-linear"


def _error(what: str, fix: str) -> UserError:
    return UserError("lora_target_modules", what, fix)


KINDS = (Lora(),)
