"""Convert an adapter: control adapters into LoRA or multiplicative LoRA, either to a lower rank, another scale, or into its inverse.

What a control adapter does to a matrix W from the left, L R W, is the LoRA B = L, A = R W: exact at the adapter's own rank (symmetrise,
antisymmetrise: twice that).  A lower rank keeps the largest singular values.  The converted adapter is loaded again, and its logits on
random tokens are compared with those of the model that has the adapter itself; one that is far off is refused.

python -m trainer.ship.convert ADAPTER --out FOLDER [--to lora | multiplicative] [--scale S] [--inverse] [--rank K] [--base BASE] [--4bit]
"""

from __future__ import annotations

import argparse
import shutil
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from swarm.errors import UserError
from swarm.printable import printable
from swarm.weights import ADAPTER, PROMPT
from trainer import bases
from trainer.quiet import quieten
from trainer.ship.deltas import PREFIX, Adapter
from trainer.ship.experts import joined
from trainer.ship.lowrank import compressed
from trainer.ship.maps import ControlAdapter, Map, adapter_in
from trainer.ship.merge_4bit import matrix
from trainer.ship.outcome import Distance, in_words, refuse_lossy
from trainer.ship.probe import hooked, loaded, output
from trainer.ship.sources import base_of
from trainer.show import add_forms, print_form
from trainer.whole import new_folder

FORMS = ("lora", "multiplicative")


@dataclass(frozen=True)
class Converted:
    """What came of it."""

    folder: str
    form: str
    base: str
    weights: str
    """Those of the base that it was computed with."""
    modules: int
    rank: int
    """The largest."""
    kept: float
    """Share of the squared norm of what the adapter adds."""
    logits: float
    """The largest |difference| of a logit."""
    effect: float
    """What the adapter itself changes in a logit at most."""


@dataclass(frozen=True)
class Pairs:
    """A LoRA in the making: of each module B (outputs, n) and A (n, inputs), experts side by side as PEFT has them."""

    by_module: dict[str, tuple[Tensor, Tensor]]
    ranks: dict[str, int]
    experts: frozenset[str]
    """Names of tensors of three dimensions, among the modules."""
    kept: float


def convert(
    adapter: Adapter, base: str, out: Path, form: str = "lora", *, rank: int | None = None, in_4bit: bool = False, allow_lossy: bool = False,
) -> Converted:  # fmt: skip
    """Write the adapter to `out`, which must not exist.  Raises UserError, and then nothing is left behind."""
    _refuse(adapter, out, form, in_4bit=in_4bit)
    folder = bases.folder_of(base)
    model = loaded(folder, in_4bit=in_4bit)
    _refuse_missing(adapter, {name for name, _ in model.named_parameters()})
    bare = output(model)
    with hooked(model, adapter) as steered:
        wanted = output(steered)
    with new_folder(out) as staged:
        pairs = lora_pairs(adapter, model, rank) if form == "lora" else _multiplicative_pairs(adapter, folder, rank)
        _save(adapter, pairs, staged)
        with hooked(model, adapter_in(staged, multiplicative=form == "multiplicative")) as converted:
            found = output(converted)
        distance = Distance.of(bare, wanted, found)
        if not allow_lossy:
            refuse_lossy(distance, out, "take a higher --rank" if rank else "train with `control_site: mlp`")
    weights = "dequantised from NF4" if in_4bit else "full precision"
    largest = max(pairs.ranks.values())
    return Converted(
        str(out), form, base, weights, len(pairs.by_module), largest, pairs.kept, distance.logits, distance.effect
    )


def _refuse(adapter: Adapter, out: Path, form: str, *, in_4bit: bool) -> None:
    if out.exists():
        raise UserError(str(out), "is there already", "name a new folder")
    if adapter.config.get("use_dora"):
        raise UserError(str(adapter.folder), "has DoRA's magnitudes, which are no product", "merge it: `swarm merge`")
    if form == "multiplicative":
        if not isinstance(adapter, ControlAdapter):
            raise UserError("--to", "only a control adapter is a map of what is put out", "write --to lora")
        if adapter.beside:
            raise UserError("--to", "the adapter has a LoRA beside its maps", "write --to lora, or merge it")
        if in_4bit:
            raise UserError("--4bit", "a multiplicative LoRA does not depend on the weights", "leave it out")


def _refuse_missing(adapter: Adapter, names: set[str]) -> None:
    if missing := adapter.missing_in(names):
        raise UserError("--base", f"has no matrix for {missing[0]} of the adapter", "name the base it was trained on")


# ---- additive --------------------------------------------------------------------------------------------------------


def lora_pairs(adapter: Adapter, model: Any, rank: int | None = None) -> Pairs:
    """Raises UserError on a bias that would have to change too."""
    parameters = dict(model.named_parameters())
    made: dict[str, tuple[Tensor, Tensor]] = {}
    ranks, kept, whole, experts = {}, 0.0, 0.0, set()
    for module, name in adapter.names_in(set(parameters)):
        change = adapter.change(module)
        assert change is not None
        _refuse_bias(name, parameters[name])
        if not name.endswith(".bias"):
            left, right = change.factors(matrix(parameters[name]))
            if right.dim() > 2:
                experts.add(module)
            made[module], ranks[module], mine, all_of_it = _pair(left, right, rank)
            kept, whole = kept + mine, whole + all_of_it
    return Pairs(made, ranks, frozenset(experts), kept / whole if whole else 1.0)


def _pair(left: Tensor, right: Tensor, rank: int | None) -> tuple[tuple[Tensor, Tensor], int, float, float]:
    """B and A, their rank, and the squared norm that is kept and that there was."""
    rights, kept, whole = right if right.dim() > 2 else right[None], 0.0, 0.0  # (experts, n, inputs)
    each = list(zip(left.expand(len(rights), -1, -1), rights, strict=True))
    if rank is not None and rank < left.shape[-1]:
        lower = [compressed(*pair, rank) for pair in each]
        each = [(b, a) for b, a, _ in lower]
        kept, whole = (sum(float(values[:end].square().sum()) for *_, values in lower) for end in (rank, None))
    a, b = joined(torch.stack([a for _, a in each]), torch.stack([b for b, _ in each]))
    return (b.contiguous(), a.contiguous()), each[0][0].shape[1], kept, whole


def _refuse_bias(name: str, value: Tensor) -> None:
    if name.endswith(".bias") and bool(value.any()):
        what = f"{name} would have to change too, and a LoRA changes matrices alone"
        raise UserError("--to", what, "merge the adapter: `swarm merge`")


# ---- multiplicative --------------------------------------------------------------------------------------------------


def _compressed(adapter: ControlAdapter, rank: int | None) -> tuple[ControlAdapter, float]:
    """The adapter with maps of this rank at most, and the share of the squared norm that they keep."""
    if rank is None:
        return adapter, 1.0
    lower = {site: made.compressed(rank) for site, made in adapter.maps.items()}
    kept, whole = (sum(float(values[:end].square().sum()) for _, values in lower.values()) for end in (rank, None))
    return adapter.with_maps({site: made for site, (made, _) in lower.items()}), kept / whole if whole else 1.0


def _multiplicative_pairs(adapter: Adapter, base: Path, rank: int | None) -> Pairs:
    """By the names in the base's files."""
    assert isinstance(adapter, ControlAdapter)
    adapter, kept = _compressed(adapter, rank)
    stored = {name for shard in bases.weights_of(base) for name in bases.header_of(shard)}
    _refuse_missing(adapter, stored)
    changes = {
        module: adapter.change(module) for module, name in adapter.names_in(stored) if not name.endswith(".bias")
    }
    pairs = {module: (made.left, made.right) for module, made in changes.items() if isinstance(made, Map)}
    ranks = {module: left.shape[1] for module, (left, _) in pairs.items()}
    return Pairs(pairs, ranks, frozenset(), kept)


# ---- files -----------------------------------------------------------------------------------------------------------


def _save(adapter: Adapter, pairs: Pairs, folder: Path) -> None:
    """PEFT's two files at a scale of 1, and the way of asking."""
    from peft import LoraConfig
    from safetensors.torch import save_file

    largest = max(pairs.ranks.values())
    others = {module: rank for module, rank in pairs.ranks.items() if rank != largest}
    LoraConfig(
        base_model_name_or_path=adapter.config.get("base_model_name_or_path"), task_type="CAUSAL_LM", inference_mode=True,
        r=largest, lora_alpha=largest, rank_pattern=others, alpha_pattern=dict(others),
        target_modules=sorted(set(pairs.by_module) - pairs.experts), target_parameters=sorted(pairs.experts) or None,
    ).save_pretrained(str(folder))  # fmt: skip
    tensors: dict[str, Tensor] = {}
    for module, (b, a) in pairs.by_module.items():
        name = PREFIX + (module.rpartition(".")[0] if module in pairs.experts else module)
        tensors |= {f"{name}.lora_A.weight": a.contiguous(), f"{name}.lora_B.weight": b.contiguous()}
    save_file({name: value.clone() for name, value in tensors.items()}, folder / ADAPTER, {"format": "pt"})
    if (adapter.folder / PROMPT).is_file():
        shutil.copyfile(adapter.folder / PROMPT, folder / PROMPT)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m trainer.ship.convert", description=__doc__.partition("\n")[0])
    parser.add_argument("adapter", type=Path, metavar="ADAPTER")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--to", choices=FORMS, default="lora")
    parser.add_argument("--scale", type=float, default=1.0)
    parser.add_argument("--inverse", action="store_true")
    parser.add_argument("--rank", type=int)
    parser.add_argument("--base", help="default: the base that the adapter names")
    parser.add_argument("--4bit", dest="in_4bit", action="store_true", help="the base in NF4, its weights dequantised")
    parser.add_argument("--allow-lossy", action="store_true")
    add_forms(parser)
    options = parser.parse_args(argv)
    quieten()
    try:
        adapter = adapter_in(options.adapter, options.scale, inverse=options.inverse)
        done = convert(
            adapter, base_of([options.adapter], options.base), options.out, options.to,
            rank=options.rank, in_4bit=options.in_4bit, allow_lossy=options.allow_lossy,
        )  # fmt: skip
    except UserError as error:
        print(printable(str(error)), file=sys.stderr)
        return 2
    if not print_form(asdict(done), options.form):
        print(_line(done))
    return 0


def _line(done: Converted) -> str:
    kept = "" if done.kept == 1 else f", {done.kept:.2%} of the squared norm kept"
    how = f"{done.form} of rank {done.rank} for {done.modules} modules of {done.base} ({done.weights}){kept}"
    return f"{done.folder}: {how}; {in_words(done.logits, done.effect)}"


if __name__ == "__main__":
    sys.exit(main())
