"""An adapter for other machines and programs: PEFT's folder without paths of this machine, or one safetensors file of plain names.

The folder has what PEFT loads, the tokenizer and the template of the training.  The file has `<layer>.lora_A.weight` (r, inputs),
`.lora_B.weight` (outputs, r), of DoRA `.lora_magnitude_vector` (outputs), under the base's own names of layers, and in its metadata
what their product is scaled by (`scale.<layer>`), the base and the rank.

python -m trainer.ship.portable ADAPTER (--peft FOLDER | --safetensors FILE) [--type f32 | f16 | bf16] [--base BASE] [--json | --toon]
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from swarm.errors import UserError
from swarm.files import sync_folder
from swarm.model_card import public_name
from swarm.printable import printable
from swarm.weights import ADAPTER, ADAPTER_CONFIG, PROMPT
from trainer import bases
from trainer.data import tokenizer_files
from trainer.ship.sources import sources_of
from trainer.show import add_forms, print_form
from trainer.whole import new_folder

if TYPE_CHECKING:
    import torch

TYPES = ("f32", "f16", "bf16")


@dataclass(frozen=True)
class Written:
    """What came of it."""

    path: str
    base: str
    type: str
    tensors: int
    bytes: int


# ---- PEFT's folder ---------------------------------------------------------------------------------------------------


def copy_adapter(folder: Path, out: Path, base_folder: Path, base_name: str) -> None:
    """Config, weights, tokenizer and template; nothing else of the adapter's folder."""
    config = json.loads((folder / ADAPTER_CONFIG).read_text(encoding="utf-8"))
    text = json.dumps({**config, "base_model_name_or_path": base_name}, indent=2, sort_keys=True) + "\n"
    (out / ADAPTER_CONFIG).write_text(text, encoding="utf-8")
    shutil.copyfile(folder / ADAPTER, out / ADAPTER)
    template = None
    if (folder / PROMPT).is_file():
        shutil.copyfile(folder / PROMPT, out / PROMPT)
        template = json.loads((folder / PROMPT).read_text(encoding="utf-8"))["chat_template"]
    tokenizer_files.copy(base_folder, out, template)


def write_folder(folder: Path, base: str, out: Path, kind: str | None) -> Written:
    """PEFT's folder at `out`, which must not exist.  Raises UserError, and then nothing is left behind."""
    from safetensors.torch import save_file

    from trainer.adapter_file import tensors_of

    _refuse_existing(out)
    _parent(out)
    tensors = tensors_of(folder)
    with new_folder(out) as staged:
        copy_adapter(folder, staged, bases.folder_of(base), public_name(base))
        if kind is not None:
            tensors = {name: value.to(_dtype(kind)).contiguous() for name, value in tensors.items()}
            save_file(tensors, staged / ADAPTER, {"format": "pt"})
    size = sum(path.stat().st_size for path in out.iterdir())
    return Written(str(out), public_name(base), kind or "as stored", len(tensors), size)


# ---- one file --------------------------------------------------------------------------------------------------------


def write_file(folder: Path, base: str, out: Path, kind: str | None) -> Written:
    """One file at `out`, which must not exist.  Raises UserError, and then nothing is left behind."""
    from safetensors.torch import save_file

    from trainer.ship.deltas import Adapter

    _refuse_existing(out)
    adapter, dtype = Adapter(folder), _dtype(kind or "f32")
    tensors: dict[str, torch.Tensor] = {}
    metadata = {"format": "pt", "base_model": public_name(base)}
    for module in sorted(adapter.modules):
        delta = adapter.delta(module)
        parts = {"lora_A.weight": delta.a, "lora_B.weight": delta.b, "lora_magnitude_vector": delta.magnitude}
        tensors |= {
            f"{module}.{part}": value.to(dtype).contiguous() for part, value in parts.items() if value is not None
        }
        metadata[f"scale.{module}"] = repr(delta.scale)
    staged = _parent(out) / f".{out.name}.{os.getpid()}.staged"
    try:
        save_file(tensors, staged, metadata)
        staged.replace(out)
        sync_folder(out.parent)
    finally:
        staged.unlink(missing_ok=True)
    return Written(str(out), public_name(base), kind or "f32", len(tensors), out.stat().st_size)


def _dtype(kind: str) -> torch.dtype:
    import torch

    return {"f32": torch.float32, "f16": torch.float16, "bf16": torch.bfloat16}[kind]


def _refuse_existing(out: Path) -> None:
    if out.exists():
        raise UserError(str(out), "is there already", "name a new one")


def _parent(out: Path) -> Path:
    out.parent.mkdir(parents=True, exist_ok=True)
    return out.parent


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m trainer.ship.portable", description=__doc__.partition("\n")[0])
    parser.add_argument("adapter", type=Path, metavar="ADAPTER")
    forms = parser.add_mutually_exclusive_group(required=True)
    forms.add_argument("--peft", type=Path, metavar="FOLDER")
    forms.add_argument("--safetensors", type=Path, metavar="FILE")
    parser.add_argument("--type", choices=TYPES, help="of its values; default: f32 in a file, as stored in a folder")
    parser.add_argument("--base", help="default: the base that the adapter names")
    add_forms(parser)
    options = parser.parse_args(argv)
    write = write_folder if options.peft else write_file
    try:
        sources = sources_of([str(options.adapter)], options.base)
        if not sources.adapters:
            raise UserError(str(options.adapter), "is no adapter", "name a folder with adapter_config.json")
        done = write(options.adapter, sources.base, options.peft or options.safetensors, options.type)
    except UserError as error:
        print(printable(str(error)), file=sys.stderr)
        return 2
    if not print_form(asdict(done), options.form):
        print(f"{done.path}: {done.tensors} tensors for {done.base}, {done.bytes / 1e6:.1f} MB, {done.type}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
