"""Merge adapters into their full-precision base, shard by shard: the whole model is never in memory.

A merged shard is a copy of the base's file in which the adapted matrices' bytes are replaced: names, order, dtype and metadata stay.
Then each merged matrix is read back and held against base and adapter on probe inputs.

python -m trainer.ship.merge ADAPTER [ADAPTER ...] --out FOLDER [--base BASE] [--weights 0.5,0.5] [--combine ties] [--probe full] [--json | --toon]
"""

from __future__ import annotations

import argparse
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
from trainer import base_models
from trainer.quiet import quieten
from trainer.ship.deltas import Adapter, Delta, combined, names_in_base
from trainer.ship.outcome import PROBES, LayerError, Merged
from trainer.ship.sources import base_of
from trainer.show import add_forms, print_form
from trainer.whole import new_folder

COPIED = ("*.json", "*.jinja", "*.model", "*.txt", "LICENSE*")
"""Beside the weights: config, generation config, tokenizer, chat template."""
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

    def changed(self, deltas: list[tuple[Delta, float]], weight: torch.Tensor) -> torch.Tensor:
        """The matrix with what the adapters that have it add, fp32."""
        if len(self.adapters) == 1 and self.weights == [1.0]:
            return deltas[0][0].added_to(weight)
        torch.manual_seed(self.seed)  # DARE drops at random
        return combined([d for d, _ in deltas], [w for _, w in deltas], self.combine, self.density, weight)

    def deltas(self, module: str) -> list[tuple[Delta, float]]:
        pairs = zip(self.adapters, self.weights, strict=True)
        return [(adapter.delta(module), weight) for adapter, weight in pairs if module in adapter.modules]


def merge(recipe: Recipe, base: str, out: Path, *, probe: str = "layers") -> Merged:
    """Write the merged model to `out`, which must not exist.  Raises UserError, and then nothing is left behind."""
    if out.exists():
        raise UserError(str(out), "is there already", "name a new folder")
    folder = base_models.folder_of(base)
    config = base_models.config_of(folder)
    _refuse_quantised(base, config)
    shards = base_models.weights_of(folder)
    targets = _targets(recipe, shards, config)
    with new_folder(out) as staged:
        for shard in shards:
            _merge_shard(recipe, shard, staged / shard.name, targets)
        _copy_small_files(folder, staged)
        errors = [error for shard in shards for error in _compare(recipe, shard, staged / shard.name, targets)]
        worst = max(errors, key=lambda error: error.relative)
        logits, loss = _full_probe(recipe, folder, staged) if probe == "full" else (None, None)
    dtype = str(config.get("dtype") or config.get("torch_dtype") or "as stored")
    return Merged(str(out), base, len(errors), dtype, worst, logits, loss)


def _refuse_quantised(base: str, config: dict[str, Any]) -> None:
    if "quantization_config" in config:
        what = f"{base} is quantised, and a merged matrix would be rounded to 4 bits again"
        raise UserError(
            "--base", what, "name the full-precision base that it was made from, or accept that with --4bit"
        )


def _targets(recipe: Recipe, shards: list[Path], config: dict[str, Any]) -> dict[str, str]:
    """Module by the name of its matrix in the files.  Raises UserError unless every pair has its matrix."""
    stored = {name for shard in shards for name in base_models.header_of(shard)}
    modules = {module for adapter in recipe.adapters for module in adapter.modules}
    found = dict(names_in_base(modules, stored))
    if missing := sorted(modules - set(found)):
        tied = config.get("tie_word_embeddings") and any(name.endswith("lm_head") for name in missing)
        what = f"{len(missing)} of the adapter's layers have no matrix in the base, first {missing[0]}"
        fix = "its head is the embedding: a merged one would change both" if tied else "name the base it was trained on"
        raise UserError("--base", what, fix)
    return {name: module for module, name in found.items()}


def _merge_shard(recipe: Recipe, shard: Path, out: Path, targets: dict[str, str]) -> None:
    shutil.copyfile(shard, out)
    mine = {name: about for name, about in base_models.header_of(shard).items() if name in targets}
    with out.open("r+b") as written:
        start = HEADER + int.from_bytes(written.read(HEADER), "little")
        for name, about in mine.items():
            weight = _tensor(shard, name)
            changed = recipe.changed(recipe.deltas(targets[name]), weight)
            if not bool(torch.isfinite(changed).all()):
                raise UserError(str(recipe.adapters[0].folder), f"{targets[name]} is not finite", "train it again")
            written.seek(start + about["data_offsets"][0])
            written.write(changed.to(weight.dtype).contiguous().view(torch.uint8).numpy().tobytes())
        written.flush()
        os.fsync(written.fileno())


def _compare(recipe: Recipe, shard: Path, merged: Path, targets: dict[str, str]) -> list[LayerError]:
    """Read back: the stored matrix against base and adapter, in fp32, on random inputs."""
    found = []
    for name in sorted(set(base_models.header_of(shard)) & set(targets)):
        deltas = recipe.deltas(targets[name])
        wanted, stored = recipe.changed(deltas, _tensor(shard, name)), _tensor(merged, name).float()
        if deltas[0][0].is_transposed:
            wanted, stored = wanted.T, stored.T  # (outputs, inputs)
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


def _full_probe(recipe: Recipe, base: Path, merged: Path) -> tuple[float, float]:
    """Base with adapter by PEFT against the merged model, both whole in memory, on random tokens."""
    from peft import PeftModel
    from transformers import AutoModelForCausalLM
    from transformers.utils import logging as transformers_logging

    transformers_logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    if len(recipe.adapters) > 1 or recipe.weights != [1.0]:
        raise UserError("--probe", "full compares one whole adapter with PEFT", "leave --probe out for several")
    bare = AutoModelForCausalLM.from_pretrained(str(base), dtype=torch.float32)
    draws = torch.Generator().manual_seed(recipe.seed)
    ids = torch.randint(int(bare.config.get_text_config().vocab_size), (2, 32), generator=draws)  # (rows, tokens)
    with torch.no_grad():
        hooked = PeftModel.from_pretrained(bare, str(recipe.adapters[0].folder))(input_ids=ids, labels=ids)
        whole = AutoModelForCausalLM.from_pretrained(str(merged), dtype=torch.float32)(input_ids=ids, labels=ids)
    largest = float((hooked.logits - whole.logits).abs().max() / hooked.logits.abs().max())
    return largest, abs(float(hooked.loss - whole.loss))


def recipe_of(folders: list[Path], weights: list[float] | None, combine: str, density: float) -> Recipe:
    """Raises UserError."""
    adapters = [Adapter(folder) for folder in folders]
    given = weights or [1.0] * len(adapters)
    if len(given) != len(adapters):
        raise UserError("--weights", f"{len(given)} weights for {len(adapters)} adapters", "give one for each")
    return Recipe(adapters, given, combine, density)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m trainer.ship.merge", description=__doc__.partition("\n")[0])
    parser.add_argument("adapters", nargs="+", type=Path, metavar="ADAPTER")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--base", help="default: the base that the adapters name")
    parser.add_argument("--weights", type=lambda text: [float(part) for part in text.split(",")])
    parser.add_argument("--combine", default="linear", help="linear, ties, dare_linear or dare_ties")
    parser.add_argument("--density", type=float, default=0.5, help="share that ties and dare keep")
    parser.add_argument("--probe", choices=("layers", "full"), default="layers")
    parser.add_argument("--4bit", dest="in_4bit", action="store_true", help="into a base in 4 bits, rounded again")
    add_forms(parser)
    options = parser.parse_args(argv)
    open_output()
    quieten()
    try:
        recipe = recipe_of(options.adapters, options.weights, options.combine, options.density)
        done = _merged(recipe, base_of(options.adapters, options.base), options)
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    if not print_form(asdict(done), options.form):
        print(_line(done))
    return 0


def _merged(recipe: Recipe, base: str, options: argparse.Namespace) -> Merged:
    if not options.in_4bit:
        return merge(recipe, base, options.out, probe=options.probe)
    if len(recipe.adapters) > 1 or recipe.weights != [1.0] or options.probe == "full":
        raise UserError("--4bit", "merges one whole adapter, and compares layers", "leave out weights and --probe full")
    from trainer.ship.merge_4bit import merge_4bit

    return merge_4bit(recipe.adapters[0], base, options.out)


def _line(done: Merged) -> str:
    full = (
        ""
        if done.logits is None
        else f"; logits differ by {done.logits:.1e} of the largest, loss by {done.loss:.1e} nats"
    )
    worst = f"largest difference {done.worst.relative:.1e} of an output ({done.worst.module}), from rounding to {done.dtype}"
    return f"{done.folder}: {done.matrices} matrices merged into {done.base}; {worst}{full}"


if __name__ == "__main__":
    sys.exit(main())
