"""Merge adapters into their full-precision base, shard by shard: the whole model is never in memory.

A merged shard is a copy of the base's file in which the adapted matrices' bytes are replaced: names, order, dtype and metadata stay.
Then each merged matrix is read back and held against base and adapter on probe inputs.  Where a whole model fits into memory, the logits
of the base with the adapters and of the merged one are compared too, and what is far off is refused.

A control adapter changes what layers add to the residual stream: it is merged into the matrices that write there.  Since that is not
exact for every family and site, it is not written unmeasured unless `--probe layers` says so.

python -m trainer.ship.merge ADAPTER [ADAPTER ...] --out FOLDER [--base BASE] [--weights 0.5,0.5] [--combine ties] [--probe layers] [--json | --toon]
                             [--scale S] [--inverse] [--multiplicative] [--allow-lossy]
"""

from __future__ import annotations

import argparse
import math
import os
import shutil
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open

from swarm.errors import UserError
from swarm.surroundings import open_output
from trainer import bases
from trainer.quiet import quieten
from trainer.ship.deltas import Adapter, Change, combined
from trainer.ship.maps import ControlAdapter, adapter_in, together
from trainer.ship.outcome import PROBES, ROUNDED, ROUNDING, Distance, LayerError, Merged, Output, refuse_lossy
from trainer.ship.probe import hooked, loaded, output, refuse_too_large
from trainer.ship.sources import base_of
from trainer.show import add_forms, print_form
from trainer.whole import new_folder

COPIED = ("*.json", "*.jinja", "*.model", "*.txt", "LICENSE*")
"""Beside the weights: config, generation config, tokenizer, chat template."""
COMBINATIONS = ("linear", "ties", "dare_linear", "dare_ties")
HEADER = 8
"""Bytes of a safetensors file before its JSON: the JSON's length."""


@dataclass(frozen=True)
class Recipe:
    """Which adapters, and how they are combined."""

    adapters: list[Adapter]
    weights: list[float]
    combine: str = "linear"
    density: float = 0.5
    seed: int = 0

    def changed(self, deltas: list[tuple[Change, float]], weight: torch.Tensor) -> torch.Tensor:
        """The matrix with what the adapters that have it add, fp32."""
        if self.is_one_adapter:
            return deltas[0][0].added_to(weight)
        if self.is_hooked_together:
            return together(deltas, weight)
        torch.manual_seed(self.seed)  # DARE drops at random
        return combined([d for d, _ in deltas], [w for _, w in deltas], self.combine, self.density, weight)

    def changes(self, module: str) -> list[tuple[Change, float]]:
        pairs = [(adapter.change(module), weight) for adapter, weight in zip(self.adapters, self.weights, strict=True)]
        return [(change, weight) for change, weight in pairs if change is not None]

    @property
    def is_measured_by_layers(self) -> bool:
        """Whether the model is right where each matrix is: of control adapters that is not so for every family."""
        return not any(isinstance(adapter, ControlAdapter) for adapter in self.adapters)

    @property
    def less_lossy(self) -> str:
        """What loses less in a merge."""
        site = "" if self.is_measured_by_layers else "train with `control_site: mlp`, or "
        return f"{site}keep it as an adapter"

    @property
    def is_hooked_together(self) -> bool:
        """Whether it is what the adapters do when they are on the model at once: LoRAs are summed, but what maps another's change has to."""
        return self.combine == "linear" and not self.is_measured_by_layers

    @property
    def is_one_adapter(self) -> bool:
        return len(self.adapters) == 1 and self.weights == [1.0]


def merge(recipe: Recipe, base: str, out: Path, *, probe: str | None = None, allow_lossy: bool = False) -> Merged:
    """Write the merged model to `out`, which must not exist.  Raises UserError, and then nothing is left behind."""
    if out.exists():
        raise UserError(str(out), "is there already", "name a new folder")
    folder = bases.folder_of(base)
    config = bases.config_of(folder)
    _refuse_quantised(base, config)
    shards = bases.weights_of(folder)
    targets = _targets(recipe, shards, config)
    found: Distance | str | None = _unmeasured(recipe, folder, probe, allow_lossy=allow_lossy)
    with new_folder(out) as staged:
        for shard in shards:
            _merge_shard(recipe, shard, staged / shard.name, targets)
        _copy_small_files(folder, staged)
        errors = [error for shard in shards for error in _compare(recipe, shard, staged / shard.name, targets)]
        found = found or _distance(recipe, folder, staged, probe)
        if isinstance(found, Distance) and not allow_lossy:
            refuse_lossy(found, out, recipe.less_lossy, _rounding(shards, targets))
    dtype = str(config.get("dtype") or config.get("torch_dtype") or "as stored")
    return Merged(str(out), base, len(errors), dtype, max(errors, key=lambda error: error.relative)).measured(found)


def _unmeasured(recipe: Recipe, base: Path, probe: str | None, *, allow_lossy: bool) -> str | None:
    """Why logits are not to be compared, known before anything is written.  Raises UserError where they have to be."""
    if not recipe.is_one_adapter and recipe.combine != "linear":
        what = f"{recipe.combine} of adapters is nothing that a model with them on it could be compared with"
        if not recipe.is_measured_by_layers and not allow_lossy:
            fix = "leave it out: they act together then; or accept what is lost with --allow-lossy"
            raise UserError("--combine", what, fix)
        if probe == "full":
            raise UserError("--probe", what, "leave --probe out")
        return what
    if probe is not None:
        return "--probe layers leaves them out" if probe == "layers" else None
    try:
        refuse_too_large(base)
    except UserError as error:
        if not recipe.is_measured_by_layers:
            raise
        return f"{error.what}: {error.fix}"
    return None


def _refuse_quantised(base: str, config: dict[str, Any]) -> None:
    if "quantization_config" in config:
        what = f"{base} is quantised, and a merged matrix would be rounded to 4 bits again"
        raise UserError(
            "--base", what, "name the full-precision base that it was made from, or accept that with --4bit"
        )


def _targets(recipe: Recipe, shards: list[Path], config: dict[str, Any]) -> dict[str, str]:
    """Module by the name of its matrix in the files.  Raises UserError unless every pair has its matrix, of its size."""
    shapes = {name: about["shape"] for shard in shards for name, about in bases.header_of(shard).items()}
    stored = set(shapes)
    if missing := sorted({name for adapter in recipe.adapters for name in adapter.missing_in(stored)}):
        tied = config.get("tie_word_embeddings") and any(name.endswith("lm_head") for name in missing)
        what = f"{len(missing)} of the adapter's layers have no matrix in the base, first {missing[0]}"
        fix = "its head is the embedding: a merged one would change both" if tied else "name the base it was trained on"
        raise UserError("--base", what, fix)
    if config.get("tie_word_embeddings") and (both := sorted(set().union(*(a.embeddings for a in recipe.adapters)))):
        what = f"{both[0]} is its head too: a merged one would change both"
        raise UserError("--base", what, "keep it as an adapter, or train without that layer")
    targets = {name: module for adapter in recipe.adapters for module, name in adapter.names_in(stored)}
    for name, module in targets.items():
        if not all(change.fits(shapes[name]) for change, _ in recipe.changes(module)):
            what = f"{name} has the shape {shapes[name]}, and the adapter was trained on another"
            raise UserError("--base", what, "name the base it was trained on")
    return targets


def _merge_shard(recipe: Recipe, shard: Path, out: Path, targets: dict[str, str]) -> None:
    shutil.copyfile(shard, out)
    mine = {name: about for name, about in bases.header_of(shard).items() if name in targets}
    with out.open("r+b") as written:
        start = HEADER + int.from_bytes(written.read(HEADER), "little")
        for name, about in mine.items():
            weight = _tensor(shard, name)
            changed = recipe.changed(recipe.changes(targets[name]), weight).to(weight.dtype)
            if not bool(torch.isfinite(changed).all()):
                what = f"{targets[name]} is not finite in {weight.dtype}"
                raise UserError(str(recipe.adapters[0].folder), what, "train it again, or merge at a lower --scale")
            written.seek(start + about["data_offsets"][0])
            written.write(changed.contiguous().view(torch.uint8).numpy().tobytes())
        written.flush()
        os.fsync(written.fileno())


def _compare(recipe: Recipe, shard: Path, merged: Path, targets: dict[str, str]) -> list[LayerError]:
    """Read back: the stored matrix against base and adapter, in fp32, on random inputs."""
    found = []
    for name in sorted(set(bases.header_of(shard)) & set(targets)):
        changes = recipe.changes(targets[name])
        wanted, stored = recipe.changed(changes, _tensor(shard, name)), _tensor(merged, name).float()
        if changes[0][0].is_transposed:
            wanted, stored = wanted.T, stored.T  # (outputs, inputs)
        wanted, stored = wanted.reshape(-1, wanted.shape[-1]), stored.reshape(-1, stored.shape[-1])  # experts, biases
        draws = torch.Generator().manual_seed(recipe.seed)
        x = torch.randn(PROBES, wanted.shape[1], generator=draws)  # (n, inputs)
        y = x @ wanted.T  # (n, outputs)
        largest = float((x @ stored.T - y).abs().max())
        found.append(LayerError(targets[name], largest, largest / max(float(y.abs().max()), 1e-30)))
    return found


def _tensor(shard: Path, name: str) -> torch.Tensor:
    """One tensor; the file is closed after each, since pages of it that stay mapped count as this process's memory."""
    with safe_open(str(shard), "pt") as file:
        tensor: torch.Tensor = file.get_tensor(name).clone()
        return tensor


def _copy_small_files(folder: Path, out: Path) -> None:
    for pattern in COPIED:
        for path in folder.glob(pattern):
            shutil.copyfile(path, out / path.name)


def _distance(recipe: Recipe, base: Path, merged: Path, probe: str | None) -> Distance | str:
    """Of the base with the adapters on it from the merged model, each whole in memory; or why that cannot be found."""
    try:
        return Distance.of(*_outputs(recipe, base), output(loaded(merged)))
    except UserError as error:
        if probe == "full" or not recipe.is_measured_by_layers:
            raise
        return error.what


def _outputs(recipe: Recipe, base: Path) -> tuple[Output, Output]:
    """Of the bare base and with the adapters; it is out of memory afterwards."""
    bare = loaded(base)
    without = output(bare)
    with hooked(bare, *recipe.adapters, weights=recipe.weights) as model:
        return without, output(model)


def _rounding(shards: list[Path], targets: dict[str, str]) -> float:
    """Share of the largest logit that is left to the rounding of merged matrices to the types that they are stored in."""
    types = {about["dtype"] for shard in shards for name, about in bases.header_of(shard).items() if name in targets}
    return max(ROUNDED.get(one, ROUNDING) for one in types)


def recipe_of(
    folders: list[Path], weights: list[float] | None, combine: str, density: float, *,
    scale: float = 1.0, inverse: bool = False, multiplicative: bool = False,
) -> Recipe:  # fmt: skip
    """A control adapter's weight is its scale where they act together.  Raises UserError."""
    given = weights or [1.0] * len(folders)
    if len(given) != len(folders):
        raise UserError("--weights", f"{len(given)} weights for {len(folders)} adapters", "give one for each")
    if not all(map(math.isfinite, [*given, scale])):
        raise UserError("--weights", "one of the numbers is not finite", "give finite ones")
    if not 0 < density <= 1:
        raise UserError("--density", f"{density:g} is no share", "give one above 0 and at most 1")
    if combine not in COMBINATIONS:
        raise UserError("--combine", f"{combine!r} is no way", f"take {', '.join(COMBINATIONS)}")
    recipe = Recipe([], list(given), combine, density)
    for at, folder in enumerate(folders):
        adapter = adapter_in(folder, scale, inverse=inverse, multiplicative=multiplicative)
        if combine == "linear" and isinstance(adapter, ControlAdapter):
            adapter, recipe.weights[at] = ControlAdapter(folder, scale * given[at], inverse=inverse), 1.0
        recipe.adapters.append(adapter)
    if inverse and len(folders) > 1 and not recipe.is_measured_by_layers:
        what = "what control adapters do together is not undone by the inverse of each"
        raise UserError("--inverse", what, "undo one after another where they were merged so; else keep the base")
    return recipe


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m trainer.ship.merge", description=__doc__.partition("\n")[0])
    parser.add_argument("adapters", nargs="+", type=Path, metavar="ADAPTER")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--base", help="default: the base that the adapters name")
    parser.add_argument("--weights", type=lambda text: [float(part) for part in text.split(",")])
    parser.add_argument("--combine", default="linear", help="linear, ties, dare_linear or dare_ties")
    parser.add_argument("--density", type=float, default=0.5, help="share that ties and dare keep")
    parser.add_argument("--scale", type=float, default=1.0, help="of what each adapter does")
    parser.add_argument("--inverse", action="store_true", help="undo what each adapter does")
    parser.add_argument("--multiplicative", action="store_true", help="B A maps what a matrix puts out")
    parser.add_argument("--allow-lossy", action="store_true", help="write it however far its logits are off")
    parser.add_argument(
        "--probe", choices=("layers", "full"), help="default: full where a model in fp32 fits into memory"
    )
    parser.add_argument("--4bit", dest="in_4bit", action="store_true", help="into a base in 4 bits, rounded again")
    add_forms(parser)
    options = parser.parse_args(argv)
    open_output()
    quieten()
    try:
        recipe = recipe_of(
            options.adapters, options.weights, options.combine, options.density,
            scale=options.scale, inverse=options.inverse, multiplicative=options.multiplicative,
        )  # fmt: skip
        done = _merged(recipe, base_of(options.adapters, options.base), options)
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    if not print_form(asdict(done), options.form):
        print(_line(done))
    return 0


def _merged(recipe: Recipe, base: str, options: argparse.Namespace) -> Merged:
    if not options.in_4bit:
        return merge(recipe, base, options.out, probe=options.probe, allow_lossy=options.allow_lossy)
    plain = recipe.is_one_adapter and recipe.is_measured_by_layers and options.scale == 1 and not options.inverse
    if not plain or options.probe == "layers" or options.multiplicative:
        what = "merges one whole LoRA as it is, with the whole model in memory"
        raise UserError("--4bit", what, "leave out weights, scale and --probe; convert a control adapter first")
    from trainer.ship.merge_4bit import merge_4bit

    return merge_4bit(recipe.adapters[0], base, options.out, allow_lossy=options.allow_lossy)


def _line(done: Merged) -> str:
    worst = f"largest difference {done.worst.relative:.1e} of an output ({done.worst.module}), from rounding to {done.dtype}"
    return f"{done.folder}: {done.matrices} matrices merged into {done.base}; {worst}; {done.distance}"


if __name__ == "__main__":
    sys.exit(main())
