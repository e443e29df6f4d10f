"""A LoRA adapter as a GGUF file for llama.cpp (`llama-cli --lora FILE`): names, layout and scale as its loader reads them.

Each pair stands as `<layer>.weight.lora_a` (r, inputs) and `.lora_b` (outputs, r); the loader adds (alpha / r) B A.  One alpha stands in
the file, so that a pair of another scale has the difference in its B.  Rows of B are in the order in which llama.cpp keeps those of the matrix
(convert_hf_to_gguf.py, `permute` and `modify_tensors`): llama-like bases rotate q and k pair by pair there, ours half by half; where
q, k and v are one matrix, ours has them head by head, it one after another.  Of an embedding A is transposed (convert_lora_to_gguf.py).
DoRA is no sum of pairs and is refused.

python -m trainer.ship.gguf_lora ADAPTER --out FILE.gguf [--type f16] [--base BASE] [--json | --toon]
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from swarm.errors import UserError
from trainer import bases
from trainer.ship.deltas import Adapter, Delta
from trainer.ship.sources import base_of
from trainer.show import add_forms, print_form

TYPES = ("f32", "f16", "q8_0")
ARCHITECTURES = {
    "llama": "llama", "mistral": "llama", "qwen2": "qwen2", "qwen3": "qwen3", "gemma": "gemma", "gemma2": "gemma2", "gemma3_text": "gemma3",
    "phi3": "phi3", "gpt2": "gpt2", "gpt_neox": "gptneox", "falcon": "falcon",
}  # fmt: skip
"""Our `model_type` by llama.cpp's name of the architecture, where a pair of each was written and read back in a test."""
EMBEDDING, HEAD = "token_embd", "output"
Q8_0_BLOCK = 32
"""Values that share a scale; rows of other lengths stay F16."""


@dataclass(frozen=True)
class Written:
    """What came of it."""

    file: str
    architecture: str
    pairs: int
    bytes: int
    type: str


def write(adapter: Adapter, base: str, out: Path, kind: str = "f16") -> Written:
    """Write the file, which must not exist.  Raises UserError, and then nothing is left behind."""
    if out.exists():
        raise UserError(str(out), "is there already", "name a new file")
    gguf = _library()
    shape = _shape_of(bases.folder_of(base))
    if (model_type := str(shape.model_type)) not in ARCHITECTURES:
        what = f"{model_type} is no base whose adapters were tried in llama.cpp's form"
        raise UserError("--base", what, f"there is {', '.join(ARCHITECTURES)}; or merge it and convert the whole model")
    staged = out.with_name(f".{out.name}.{os.getpid()}.staged")
    try:
        count = _write(gguf, adapter, shape, model_type, staged, kind)
        staged.rename(out)
    finally:
        staged.unlink(missing_ok=True)
    return Written(str(out), ARCHITECTURES[model_type], count, out.stat().st_size, kind)


def _shape_of(folder: Path) -> Any:
    """The language model's config, with the values that its family has where the file says nothing."""
    from transformers import AutoConfig

    bases.config_of(folder)
    return AutoConfig.from_pretrained(str(folder)).get_text_config()


def _library() -> Any:
    try:
        import gguf
    except ModuleNotFoundError:
        raise UserError("gguf", "is not installed", "pip install 'toonswarm[ship]'") from None
    return gguf


def _write(gguf: Any, adapter: Adapter, shape: Any, model_type: str, staged: Path, kind: str) -> int:
    architecture = ARCHITECTURES[model_type]
    alpha = float(adapter.config["lora_alpha"]) or 1.0  # the loader multiplies by it
    writer = gguf.GGUFWriter(str(staged), architecture)
    writer.add_type(gguf.GGUFType.ADAPTER)
    writer.add_string(gguf.Keys.Adapter.TYPE, "lora")
    writer.add_float32(gguf.Keys.Adapter.LORA_ALPHA, alpha)
    count = 0
    for name, delta in _named(gguf, adapter, shape, architecture):
        a, b = delta.a, delta.b * (delta.scale * delta.a.shape[0] / alpha)
        a, b = a.T if name == EMBEDDING else a, _ordered(b, name.rpartition(".")[2], model_type, shape)
        for part, value in (("lora_a", a), ("lora_b", b)):
            _add(gguf, writer, f"{name}.weight.{part}", value, kind)
        count += 1
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return count


def _named(gguf: Any, adapter: Adapter, shape: Any, architecture: str) -> Iterator[tuple[str, Delta]]:
    """Each pair with llama.cpp's name of its layer.  Raises UserError on one that has none there."""
    arch = next(key for key, name in gguf.MODEL_ARCH_NAMES.items() if name == architecture)
    names = gguf.get_tensor_name_map(arch, int(shape.num_hidden_layers))
    for module in sorted(adapter.modules):
        delta, name = adapter.delta(module), names.get_name(module.replace("language_model.", ""))
        if name is None:
            raise UserError(str(adapter.folder), f"llama.cpp has no name for {module}", "train without that layer")
        if delta.magnitude is not None:
            what = f"{module} has a DoRA magnitude, which is no sum of pairs"
            raise UserError(str(adapter.folder), what, "merge it (`swarm merge`) and convert the whole model")
        if name == HEAD and shape.tie_word_embeddings:
            what = f"{module} has an adapter, and llama.cpp has no head of this base: it is the embedding"
            raise UserError(str(adapter.folder), what, "merge it (`swarm merge`), or train without that layer")
        yield name, delta


def _ordered(b: torch.Tensor, layer: str, model_type: str, shape: Any) -> torch.Tensor:
    """B with its rows as llama.cpp keeps them; (outputs, r)."""
    heads = int(shape.num_attention_heads)
    match model_type, layer:
        case "llama" | "mistral", "attn_q":
            return pairwise(b, heads)
        case "llama" | "mistral", "attn_k":
            return pairwise(b, int(shape.num_key_value_heads or heads))
        case "gpt_neox", "attn_qkv":
            return one_after_another(b, heads, queries=1)
        case "falcon", "attn_qkv":
            groups = shape.num_kv_heads if shape.new_decoder_architecture else 1 if shape.multi_query else heads
            return one_after_another(b, int(groups), queries=heads // int(groups))
        case _:
            return b


def one_after_another(b: torch.Tensor, groups: int, queries: int) -> torch.Tensor:
    """Rows of q, k and v in one matrix: from group by group, of so many queries, a key and a value, to all of each; (outputs, r)."""
    whole = b.reshape(groups, queries + 2, -1, b.shape[1])  # (groups, queries + 2, head, r)
    parts = whole[:, :queries], whole[:, queries], whole[:, queries + 1]
    return torch.cat([part.reshape(-1, b.shape[1]) for part in parts])


def pairwise(b: torch.Tensor, heads: int) -> torch.Tensor:
    """Rows of q or k from halves (HF: all first components of a head, then all second ones) to pairs; (outputs, r)."""
    return b.reshape(heads, 2, b.shape[0] // heads // 2, *b.shape[1:]).swapaxes(1, 2).reshape(b.shape)


def _add(gguf: Any, writer: Any, name: str, value: torch.Tensor, kind: str) -> None:
    array = value.contiguous().numpy()
    if kind == "q8_0" and array.shape[-1] % Q8_0_BLOCK == 0:
        type_ = gguf.GGMLQuantizationType.Q8_0
        writer.add_tensor(name, gguf.quants.quantize(array, type_), raw_dtype=type_)
    else:
        writer.add_tensor(name, array if kind == "f32" else array.astype("float16"))


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m trainer.ship.gguf_lora", description=__doc__.partition("\n")[0])
    parser.add_argument("adapter", type=Path, metavar="ADAPTER")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--type", choices=TYPES, default="f16")
    parser.add_argument("--base", help="default: the base that the adapter names")
    add_forms(parser)
    options = parser.parse_args(argv)
    try:
        adapter = Adapter(options.adapter)
        done = write(adapter, base_of([options.adapter], options.base), options.out, options.type)
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    line = f"{done.file}: {done.pairs} pairs for {done.architecture}, {done.bytes / 1e6:.1f} MB {done.type}"
    if not print_form(asdict(done), options.form):
        print(line)
    return 0


if __name__ == "__main__":
    sys.exit(main())
