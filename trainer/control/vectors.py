"""Control vectors: a vector for each decoder layer that is added to what the layer puts out, in llama.cpp's GGUF form.

`direction.K` (H,) in fp32 is added to the output of layer K, counted from 0, at every position; layer 0 has none there.  A control adapter maps what
a layer adds to the residual stream, a vector moves it: both together are an affine map.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from swarm.errors import UserError
from trainer.control.scaled import scaled
from trainer.control.sites import refuse_unknown, sites
from trainer.inspection import facts_of_model

ARCHITECTURE = "controlvector"
PREFIX = "direction."


def decoder_layers(model: Any) -> list[nn.Module]:
    """In their order.  Raises UserError for families of which it is not known what their layers put out."""
    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    facts = facts_of_model(base)
    refuse_unknown(facts, "--control-vector")
    return [base.get_submodule(name) for name in sites(facts, "block", None)]


@contextmanager
def applied(model: Any, vectors: Mapping[int, Tensor], scale: float = 1.0) -> Iterator[None]:
    """Within, each of these layers puts out so much more."""
    handles = put_on(model, vectors, scale)
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def put_on(model: Any, vectors: Mapping[int, Tensor], scale: float = 1.0) -> list[torch.utils.hooks.RemovableHandle]:
    """The same until the handles are removed.  Raises UserError on vectors of another model."""
    layers, size = decoder_layers(model), int(model.config.get_text_config().hidden_size)
    for number, vector in vectors.items():
        if number >= len(layers) or vector.shape != (size,):
            what = f"is for layer {number} of a model of width {vector.numel()}; this one has {len(layers)} of {size}"
            raise UserError("--control-vector", what, "take the base that it was made with")
    return [layers[number].register_forward_hook(_adding(vector * scale)) for number, vector in vectors.items()]


def _adding(vector: Tensor) -> Any:
    def hook(_: nn.Module, given: Any, output: Any) -> Any:
        y = output[0] if isinstance(output, tuple) else output  # (B, T, H)
        y = y + vector.to(y)
        return (y, *output[1:]) if isinstance(output, tuple) else y

    return hook


def write(vectors: Mapping[int, Tensor], family: str, out: Path) -> None:
    """A file that `llama-cli --control-vector FILE` reads.  Raises UserError, and then nothing is left behind."""
    if out.exists():
        raise UserError(str(out), "is there already", "name a new file")
    if 0 in vectors:
        raise UserError("--layers", "layer 0 has no place in llama.cpp's form", "begin at 1")
    gguf = _library()
    staged = out.with_name(f".{out.name}.{os.getpid()}.staged")
    try:
        writer = gguf.GGUFWriter(str(staged), ARCHITECTURE)
        writer.add_string(f"{ARCHITECTURE}.model_hint", family)
        writer.add_uint32(f"{ARCHITECTURE}.layer_count", len(vectors))
        for number, vector in sorted(vectors.items()):
            writer.add_tensor(f"{PREFIX}{number}", vector.float().contiguous().numpy())
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        staged.rename(out)
    finally:
        staged.unlink(missing_ok=True)


def read(path: Path) -> dict[int, Tensor]:
    """By layer.  Raises UserError on what is no such file."""
    gguf = _library()
    try:
        tensors = gguf.GGUFReader(str(path)).tensors
        return {int(one.name.removeprefix(PREFIX)): torch.from_numpy(one.data.copy()).float() for one in tensors}
    except (OSError, ValueError, IndexError, KeyError) as error:
        what = f"holds no control vectors ({' '.join(str(error).split())[:120]})"
        raise UserError(str(path), what, "name a .gguf file that `swarm control-vector` or repeng wrote") from error


def read_scaled(words: Sequence[str]) -> list[tuple[dict[int, Tensor], float]]:
    """Of FILE or FILE:SCALE.  Raises UserError."""
    return [(read(path), scale) for path, scale in (scaled(word, "--control-vector") for word in words)]


def _library() -> Any:
    try:
        import gguf
    except ModuleNotFoundError:
        raise UserError("gguf", "is not installed", "pip install 'toonswarm[ship]'") from None
    return gguf
