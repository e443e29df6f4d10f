"""GGUF adapters are read back by the format's own library and give the same change of every matrix."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from gguf import GGUFReader
from gguf.quants import dequantize
from transformers import (
    AutoModelForCausalLM,
    AutoModelForImageTextToText,
    FalconConfig,
    Gemma2Config,
    Gemma3Config,
    Gemma3TextConfig,
    GemmaConfig,
    GPT2Config,
    GPTNeoXConfig,
    LlamaConfig,
    MistralConfig,
    Phi3Config,
    Qwen2Config,
    Qwen3Config,
)

from swarm.errors import UserError
from tests.trainer.ship.test_merge import WORDS, adapter
from trainer.ship.deltas import Adapter
from trainer.ship.gguf_lora import write

pytestmark = [pytest.mark.filterwarnings("ignore::FutureWarning"), pytest.mark.filterwarnings("ignore::UserWarning")]

SHAPE = {
    "vocab_size": len(WORDS), "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4,
    "max_position_embeddings": 64, "pad_token_id": 0,
}  # fmt: skip
GROUPED = {**SHAPE, "num_key_value_heads": 2}
HEADS = {**GROUPED, "head_dim": 16}
FAMILIES = {
    "llama": LlamaConfig(**GROUPED),
    "mistral": MistralConfig(**GROUPED),
    "qwen2": Qwen2Config(**GROUPED),
    "qwen3": Qwen3Config(**HEADS),
    "gemma": GemmaConfig(**HEADS),
    "gemma2": Gemma2Config(**HEADS),
    "gemma3": Gemma3TextConfig(**HEADS),
    "phi3": Phi3Config(**GROUPED),
    "gpt2": GPT2Config(vocab_size=len(WORDS), n_embd=64, n_layer=2, n_head=4, n_positions=64),
    "gptneox": GPTNeoXConfig(**SHAPE),
    "falcon": FalconConfig(**SHAPE),
    "falcon-40b": FalconConfig(**{**SHAPE, "num_kv_heads": 2, "new_decoder_architecture": True}),
    "falcon-rw": FalconConfig(**{**SHAPE, "multi_query": False, "alibi": True}),
}
FUSED = {"gptneox": (4, 1), "falcon": (1, 4), "falcon-40b": (2, 2), "falcon-rw": (4, 1)}
"""Groups of heads, and queries of each, in the matrix that holds q, k and v: transformers' `_split_heads` of each family."""


def base_of(folder: Path, family: str) -> Path:
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(FAMILIES[family]).save_pretrained(folder)
    WORDS.save_pretrained(folder)
    return folder


def made(tmp_path: Path, family: str, **settings: object) -> tuple[Path, Adapter]:
    base = base_of(tmp_path / "base", family)
    more = {"target_modules": ["c_attn", "c_proj", "c_fc"], "fan_in_fan_out": True} if family == "gpt2" else {}
    return base, Adapter(adapter(base, tmp_path / "adapter", **{**more, **settings}))


def halves(b: torch.Tensor, heads: int) -> torch.Tensor:
    """The inverse of llama.cpp's order, from its definition: row 2 i + j of a head was row j * half + i."""
    size = b.shape[0] // heads
    rows = [head * size + (i % 2) * (size // 2) + i // 2 for head in range(heads) for i in range(size)]
    found = torch.empty_like(b)
    found[rows] = b
    return found


def head_by_head(b: torch.Tensor, groups: int, queries: int) -> torch.Tensor:
    """The inverse of llama.cpp's order, from its definition: all queries, then all keys, then all values."""
    size = b.shape[0] // (groups * (queries + 2))
    rows = []
    for group in range(groups):
        heads = [group * queries + query for query in range(queries)]
        heads += [groups * queries + group, groups * (queries + 1) + group]  # its key, its value
        rows += [head * size + at for head in heads for at in range(size)]
    return b[rows]


def read(file: Path) -> tuple[float, dict[str, torch.Tensor]]:
    reader = GGUFReader(file)
    assert reader.fields["general.type"].contents() == "adapter"
    assert reader.fields["adapter.type"].contents() == "lora"
    tensors = {t.name: torch.tensor(dequantize(t.data, t.tensor_type)) for t in reader.tensors}
    return float(reader.fields["adapter.lora.alpha"].contents()), tensors


@pytest.mark.parametrize("family", FAMILIES)
def test_a_file_read_back_gives_the_same_change_of_every_matrix(tmp_path: Path, family: str) -> None:
    base, given = made(tmp_path, family)
    done = write(given, str(base), tmp_path / "a.gguf", "f32")
    alpha, tensors = read(tmp_path / "a.gguf")
    assert done.pairs == len(given.modules) == len(tensors) // 2
    changes = []
    for name in tensors:
        if name.endswith("lora_a"):
            a, b = tensors[name], tensors[name.replace("lora_a", "lora_b")]
            if family in {"llama", "mistral"} and ("attn_q" in name or "attn_k" in name):
                b = halves(b, 4 if "attn_q" in name else 2)
            if family in FUSED and "attn_qkv" in name:
                b = head_by_head(b, *FUSED[family])
            changes.append(alpha / a.shape[0] * b @ a)
    wanted = [delta.scale * delta.b @ delta.a for delta in map(given.delta, given.modules)]
    for change in wanted:
        assert any(c.shape == change.shape and torch.allclose(c, change, atol=1e-6) for c in changes)


def test_the_language_model_of_one_that_sees_too_has_its_names(tmp_path: Path) -> None:
    torch.manual_seed(0)
    base, text = tmp_path / "base", {**HEADS, "sliding_window": 16}
    sees = {
        "hidden_size": 32,
        "intermediate_size": 32,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "image_size": 28,
        "patch_size": 14,
    }
    config = Gemma3Config(text_config=text, vision_config=sees, mm_tokens_per_image=4)
    AutoModelForImageTextToText.from_config(config).save_pretrained(base)
    WORDS.save_pretrained(base)
    given = Adapter(adapter(base, tmp_path / "adapter", target_modules=r".*language_model.*\.(q|v)_proj"))
    assert write(given, str(base), tmp_path / "a.gguf", "f32").pairs == 4
    assert set(read(tmp_path / "a.gguf")[1]) == {
        f"blk.{layer}.attn_{name}.weight.lora_{part}" for layer in (0, 1) for name in "qv" for part in "ab"
    }


@pytest.mark.parametrize(("kind", "error"), [("f16", 1e-3), ("q8_0", 1e-2)])
def test_smaller_types_are_rounded_and_nothing_else(tmp_path: Path, kind: str, error: float) -> None:
    base, given = made(tmp_path, "qwen2", r=32, use_rslora=True, rank_pattern={"q_proj": 64})
    write(given, str(base), tmp_path / "a.gguf", kind)
    alpha, tensors = read(tmp_path / "a.gguf")
    module = "model.layers.1.self_attn.q_proj"
    a, b = tensors["blk.1.attn_q.weight.lora_a"], tensors["blk.1.attn_q.weight.lora_b"]
    delta = given.delta(module)
    change, wanted = alpha / a.shape[0] * b @ a, delta.scale * delta.b @ delta.a
    assert 0 < float((change - wanted).abs().max() / wanted.abs().max()) < error


def test_what_llama_cpp_cannot_add_is_refused_and_leaves_no_file(tmp_path: Path) -> None:
    base, given = made(tmp_path, "llama", use_dora=True)
    with pytest.raises(UserError, match=r"has a DoRA magnitude, which is no sum of pairs; merge it"):
        write(given, str(base), tmp_path / "a.gguf")
    assert not list(tmp_path.glob("*.gguf*"))
    assert not list(tmp_path.glob(".*"))
    (tmp_path / "a.gguf").write_text("mine")
    with pytest.raises(UserError, match="is there already; name a new file"):
        write(given, str(base), tmp_path / "a.gguf")
