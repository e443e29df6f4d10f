"""A LoRA adapter as a GGUF file for llama.cpp (`llama-cli --lora FILE`): names, layout and scale as its loader reads them.

Each pair stands as `<layer>.weight.lora_a` (r, inputs) and `.lora_b` (outputs, r), of experts with a dimension for them in front; the loader
adds (alpha / r) B A.  One alpha stands in the file, so that a pair of another scale has the difference in its B.  Where llama.cpp has
the rows of a matrix in another order (its convert_hf_to_gguf.py, `permute` of q and k, query_key_value of GPT-NeoX, Falcon and Bloom), so
have those of B.  The table of an embedding has A transposed.  DoRA is no sum of pairs and is refused.

The file is read back: where the base in fp32 fits into memory, its logits with the pairs of the file are compared with those of the
adapter itself, and what is far off is refused.

python -m trainer.ship.gguf_lora ADAPTER --out FILE.gguf [--type f16] [--base BASE] [--probe none] [--allow-lossy] [--json | --toon]
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, PreTrainedConfig

from swarm.errors import UserError
from trainer import bases
from trainer.quiet import quieten
from trainer.ship.deltas import Adapter, Delta
from trainer.ship.outcome import Distance, Measured, refuse_lossy
from trainer.ship.probe import changed, hooked, loaded, output, refuse_too_large
from trainer.ship.sources import base_of
from trainer.show import add_forms, print_form

TYPES = ("f32", "f16", "q8_0")
Order = Callable[[torch.Tensor, Any], torch.Tensor]
"""B (outputs, r) with its rows as llama.cpp has those of the matrix, by the base's config."""


@dataclass(frozen=True)
class Layout:
    """How llama.cpp has the matrices of a base."""

    architecture: str
    rows: Mapping[str, Order] = field(default_factory=dict)
    """By the end of a matrix's name there; of the others they stand as ours."""

    def order(self, name: str) -> Order | None:
        return self.rows.get(name.rpartition(".")[2])


EMBEDDING, HEAD = "token_embd", "output"
"""Their names there; a head that is the embedding has no matrix of its own."""
Q8_0_BLOCK = 32
"""Values that share a scale; rows of other lengths stay F16."""


# ---- the order of rows -----------------------------------------------------------------------------------------------


def pairwise(b: torch.Tensor, heads: int) -> torch.Tensor:
    """Rows of q or k from halves (HF: all first components of a head, then all second ones) to pairs; (outputs, r)."""
    return b.reshape(heads, 2, b.shape[0] // heads // 2, *b.shape[1:]).swapaxes(1, 2).reshape(b.shape)


def apart(b: torch.Tensor, heads: int, groups: int) -> torch.Tensor:
    """Rows of a query_key_value from groups (queries, a key, a value) to all queries, all keys, all values; (outputs, r)."""
    each = b.reshape(groups, heads // groups + 2, -1, b.shape[1])  # (groups, queries and 2, head size, r)
    return torch.cat([part.flatten(0, -2) for part in (each[:, :-2], each[:, -2], each[:, -1])])


def _queries(b: torch.Tensor, shape: Any) -> torch.Tensor:
    return pairwise(b, shape.num_attention_heads)


def _keys(b: torch.Tensor, shape: Any) -> torch.Tensor:
    return pairwise(b, shape.num_key_value_heads)


def _by_head(b: torch.Tensor, shape: Any) -> torch.Tensor:
    return apart(b, shape.num_attention_heads, shape.num_attention_heads)


def _of_falcon(b: torch.Tensor, shape: Any) -> torch.Tensor:
    """FalconAttention._split_heads."""
    if shape.new_decoder_architecture:
        return apart(b, shape.num_attention_heads, shape.num_kv_heads)
    return apart(b, shape.num_attention_heads, 1 if shape.multi_query else shape.num_attention_heads)


ROTATED, JOINED = {"attn_q": _queries, "attn_k": _keys}, {"attn_qkv": _by_head}
LAYOUTS = {
    "llama": Layout("llama", ROTATED), "mistral": Layout("llama", ROTATED), "mixtral": Layout("llama", ROTATED),
    "granite": Layout("granite", ROTATED), "olmo": Layout("olmo", ROTATED), "smollm3": Layout("smollm3", ROTATED),
    "bloom": Layout("bloom", JOINED), "gpt_neox": Layout("gptneox", JOINED), "falcon": Layout("falcon", {"attn_qkv": _of_falcon}),
    "cohere": Layout("command-r"), "cohere2": Layout("cohere2"), "gemma": Layout("gemma"), "gemma2": Layout("gemma2"), "gemma3_text": Layout("gemma3"),
    "gpt2": Layout("gpt2"), "olmo2": Layout("olmo2"), "phi3": Layout("phi3"), "qwen2": Layout("qwen2"), "qwen3": Layout("qwen3"),
    "qwen2_moe": Layout("qwen2moe"), "qwen3_moe": Layout("qwen3moe"), "stablelm": Layout("stablelm"),
}  # fmt: skip
"""By our `model_type`, where a pair of each was written and read back in a test."""


# ---- the file --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Written(Measured):
    """What came of it."""

    file: str
    architecture: str
    pairs: int
    bytes: int
    type: str


def write(
    adapter: Adapter, base: str, out: Path, kind: str = "f16", *, probe: str | None = None, allow_lossy: bool = False
) -> Written:
    """Write the file, which must not exist.  Raises UserError, and then nothing is left behind."""
    if out.exists():
        raise UserError(str(out), "is there already", "name a new file")
    gguf, folder = _library(), bases.folder_of(base)
    config = bases.config_of(folder)
    model_type = str((config.get("text_config") or config).get("model_type"))
    if (layout := LAYOUTS.get(model_type)) is None:
        what = f"{model_type} is no base whose adapters were tried in llama.cpp's form"
        raise UserError("--base", what, f"there is {', '.join(LAYOUTS)}; or merge it and convert the whole model")
    shape = AutoConfig.from_pretrained(str(folder)).get_text_config()
    staged = out.with_name(f".{out.name}.{os.getpid()}.staged")
    try:
        count = _write(gguf, adapter, shape, layout, staged, kind)
        found = _distance(adapter, folder, ReadBack(adapter, staged, shape, layout), probe)
        if isinstance(found, Distance) and not allow_lossy:
            refuse_lossy(found, out, "write --type f32, or keep it as it is")
        staged.rename(out)
    finally:
        staged.unlink(missing_ok=True)
    return Written(str(out), layout.architecture, count, out.stat().st_size, kind).measured(found)


def _library() -> Any:
    try:
        import gguf
    except ModuleNotFoundError:
        raise UserError("gguf", "is not installed", "pip install 'toonswarm[ship]'") from None
    return gguf


def _write(gguf: Any, adapter: Adapter, shape: PreTrainedConfig, layout: Layout, staged: Path, kind: str) -> int:
    alpha = float(adapter.config["lora_alpha"]) or 1.0  # the loader multiplies by it
    writer = gguf.GGUFWriter(str(staged), layout.architecture)
    writer.add_type(gguf.GGUFType.ADAPTER)
    writer.add_string(gguf.Keys.Adapter.TYPE, "lora")
    writer.add_float32(gguf.Keys.Adapter.LORA_ALPHA, alpha)
    count = 0
    for name, module in _named(gguf, adapter, shape, layout.architecture):
        delta = adapter.delta(module)
        a, b = delta.a, delta.b * (delta.scale * delta.a.shape[-2] / alpha)
        if order := layout.order(name):
            b = order(b, shape)
        if name == EMBEDDING:
            a = a.T
        for part, value in (("lora_a", a), ("lora_b", b)):
            _add(gguf, writer, f"{name}.weight.{part}", value, kind)
        count += 1
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return count


def _named(gguf: Any, adapter: Adapter, shape: PreTrainedConfig, architecture: str) -> Iterator[tuple[str, str]]:
    """llama.cpp's name of each layer, and ours.  Raises UserError on one that has none there."""
    arch = next(key for key, name in gguf.MODEL_ARCH_NAMES.items() if name == architecture)
    names = gguf.get_tensor_name_map(arch, shape.num_hidden_layers)
    for module in sorted(adapter.modules):
        name = names.get_name(module.replace("language_model.", ""))
        if name is None:
            raise UserError(str(adapter.folder), f"llama.cpp has no name for {module}", "train without that layer")
        if name == HEAD and shape.tie_word_embeddings:
            what = f"{module} has an adapter, and llama.cpp has no head of this base: it is the embedding"
            raise UserError(str(adapter.folder), what, "merge it (`swarm merge`), or train without that layer")
        if adapter.delta(module).magnitude is not None:
            what = f"{module} has a DoRA magnitude, which is no sum of pairs"
            raise UserError(str(adapter.folder), what, "merge it (`swarm merge`) and convert the whole model")
        yield name, module


def _add(gguf: Any, writer: Any, name: str, value: torch.Tensor, kind: str) -> None:
    """Raises UserError for values that its type does not hold."""
    rounded = (value if kind == "f32" else value.half()).contiguous()
    if not bool(torch.isfinite(rounded).all()):
        raise UserError("--type", f"{kind} does not hold all values of {name}", "write f32, or train it again")
    if kind == "q8_0" and value.shape[-1] % Q8_0_BLOCK == 0:
        type_ = gguf.GGMLQuantizationType.Q8_0
        writer.add_tensor(name, gguf.quants.quantize(value.contiguous().numpy(), type_), raw_dtype=type_)
    else:
        writer.add_tensor(name, rounded.numpy())


# ---- read back -------------------------------------------------------------------------------------------------------


class ReadBack(Adapter):
    """An adapter with the pairs that its file holds."""

    def __init__(self, adapter: Adapter, file: Path, shape: PreTrainedConfig, layout: Layout) -> None:
        super().__init__(adapter.folder)
        gguf = _library()
        reader = gguf.GGUFReader(str(file))
        self._alpha = float(reader.fields[gguf.Keys.Adapter.LORA_ALPHA].contents())
        self._tensors = {one.name: one for one in reader.tensors}
        self._names = {module: name for name, module in _named(gguf, adapter, shape, layout.architecture)}
        self._shape, self._layout = shape, layout

    def delta(self, module: str) -> Delta:
        name = self._names[module]
        a, b = (self._tensor(f"{name}.weight.{part}") for part in ("lora_a", "lora_b"))
        if name == EMBEDDING:
            a = a.T
        if order := self._layout.order(name):
            rows = order(torch.arange(len(b)).unsqueeze(1), self._shape).flatten()  # ours, in llama.cpp's order
            b = torch.empty_like(b).index_copy(0, rows, b)
        return replace(super().delta(module), a=a, b=b, scale=self._alpha / a.shape[-2])

    def _tensor(self, name: str) -> torch.Tensor:
        from gguf.quants import dequantize

        one = self._tensors[name]
        return torch.tensor(dequantize(one.data, one.tensor_type))


def _refuse_quantised(base: Path) -> None:
    if "quantization_config" in bases.config_of(base):
        raise UserError("--base", "its own matrices are quantised", "name the full-precision base to compare logits on")


def _distance(adapter: Adapter, base: Path, written: ReadBack, probe: str | None) -> Distance | str:
    """Of the adapter from its file, on the base; or why that is not found."""
    if probe == "none":
        return "--probe none leaves them out"
    try:
        _refuse_quantised(base)
        if probe is None:
            refuse_too_large(base, "none")
        model = loaded(base)
        bare = output(model)
        with hooked(model, adapter) as tuned:
            wanted = output(tuned)
        with changed(model, written):
            return Distance.of(bare, wanted, output(model))
    except UserError as error:
        if probe == "full":
            raise
        return error.what


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m trainer.ship.gguf_lora", description=__doc__.partition("\n")[0])
    parser.add_argument("adapter", type=Path, metavar="ADAPTER")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--type", choices=TYPES, default="f16")
    parser.add_argument("--base", help="default: the base that the adapter names")
    parser.add_argument(
        "--probe", choices=("none", "full"), help="default: full where the base in fp32 fits into memory"
    )
    parser.add_argument("--allow-lossy", action="store_true", help="write it however far its logits are off")
    add_forms(parser)
    options = parser.parse_args(argv)
    quieten()
    try:
        adapter, base = Adapter(options.adapter), base_of([options.adapter], options.base)
        done = write(adapter, base, options.out, options.type, probe=options.probe, allow_lossy=options.allow_lossy)
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    if not print_form(asdict(done), options.form):
        print(_line(done))
    return 0


def _line(done: Written) -> str:
    size = f"{done.bytes / 1e6:.1f} MB {done.type}"
    return f"{done.file}: {done.pairs} pairs for {done.architecture}, {size}; {done.distance}"


if __name__ == "__main__":
    sys.exit(main())
