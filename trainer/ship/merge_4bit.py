"""Merge an adapter into a base that is stored in 4 bits: each merged matrix is rounded to 4 bits again, so it is done only where asked for.

PEFT merges (its bitsandbytes layers dequantise, add and quantise), with the whole 4-bit model in memory, twice while it is measured.
Rounding to 4 bits can lose more than the adapter adds: what that does to the logits is measured, and refused unless it is accepted.
"""

from __future__ import annotations

import shutil
import warnings
from pathlib import Path
from typing import Any, cast

import torch

from swarm.errors import UserError
from trainer import bases
from trainer.data import tokenizer_files
from trainer.ship.deltas import Adapter
from trainer.ship.outcome import PROBES, Distance, LayerError, Merged, refuse_lossy
from trainer.ship.probe import hooked, output
from trainer.whole import new_folder


def merge_4bit(adapter: Adapter, base: str, out: Path, *, allow_lossy: bool = False) -> Merged:
    """Write the merged model to `out`, which must not exist.  Raises UserError, and then nothing is left behind."""
    if out.exists():
        raise UserError(str(out), "is there already", "name a new folder")
    folder = bases.folder_of(base)
    quantisation = bases.config_of(folder).get("quantization_config") or {}
    if not quantisation.get("load_in_4bit"):
        raise UserError("--4bit", f"{base} is not stored in 4 bits", "leave it out: the merge loses nothing then")
    merged = _by_peft(folder, adapter)
    bare = _loaded(folder)
    errors, without = _compared(bare, merged, adapter), output(bare)
    with hooked(bare, adapter) as model:
        distance = Distance.of(without, output(model), output(merged))
    if not allow_lossy:
        refuse_lossy(distance, out, "merge it into the full-precision base, keep it as an adapter")
    with new_folder(out) as staged:
        merged.save_pretrained(staged, save_original_format=False)  # transformers cannot turn back how it read 4 bits
        tokenizer_files.copy(folder, staged)
        for path in folder.glob("generation_config.json"):
            shutil.copyfile(path, staged / path.name)
    worst = max(errors, key=lambda error: error.relative)
    dtype = f"4 bits ({quantisation.get('bnb_4bit_quant_type', 'fp4')})"
    return Merged(str(out), base, len(errors), dtype, worst).measured(distance)


def _loaded(folder: Path) -> Any:
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(str(folder), use_safetensors=True)  # in evaluation mode


def _by_peft(folder: Path, adapter: Adapter) -> Any:
    from trainer.loading import load_adapter

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Merge lora module to 4-bit")  # what that costs is measured here
        return cast("Any", load_adapter(_loaded(folder), adapter.folder)).merge_and_unload()


def _compared(base: Any, merged: Any, adapter: Adapter) -> list[LayerError]:
    """The stored matrices against the base's with the adapter, on random inputs."""
    found = []
    for module in sorted(adapter.modules):
        wanted = adapter.delta(module).added_to(matrix(base.get_submodule(module).weight))
        x = torch.randn(PROBES, wanted.shape[1], generator=torch.Generator().manual_seed(0))  # (n, inputs)
        y = x @ wanted.T  # (n, outputs)
        largest = float((x @ matrix(merged.get_submodule(module).weight).T - y).abs().max())
        found.append(LayerError(module, largest, largest / max(float(y.abs().max()), 1e-30)))
    return found


def matrix(weight: Any) -> torch.Tensor:
    """In fp32, (outputs, inputs); what stayed out of the quantisation is as it is."""
    state = getattr(weight, "quant_state", None)
    if state is None:
        return cast("torch.Tensor", weight.data).float()
    from bitsandbytes.functional import dequantize_4bit

    return dequantize_4bit(weight.data, state).float()
