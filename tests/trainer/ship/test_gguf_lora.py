"""GGUF adapters are read back by the format's own library and give the same change of every matrix."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from gguf import GGUFReader
from gguf.quants import dequantize
from peft import LoraConfig, get_peft_model
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForImageTextToText, Gemma3Config

from swarm.errors import UserError
from tests.trainer.ship.test_merge import WORDS, adapter
from trainer.ship.deltas import Adapter
from trainer.ship.gguf_lora import LAYOUTS, write

pytestmark = [
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings(
        "ignore:The following (rank|alpha)_pattern keys:RuntimeWarning:peft"
    ),  # its own, of mixtures
]

SHAPE = {
    "vocab_size": len(WORDS), "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "head_dim": 16, "max_position_embeddings": 64, "pad_token_id": 0,
}  # fmt: skip
ONES_OWN = {"n_embd": 64, "n_layer": 2, "n_head": 4, "vocab_size": len(WORDS)}
EXPERTS = {"num_experts": 3, "num_local_experts": 3, "num_experts_per_tok": 2, "moe_intermediate_size": 32}
FALCON = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "vocab_size": len(WORDS)}
BASES: dict[str, dict[str, object]] = {
    **dict.fromkeys(LAYOUTS, SHAPE), "bloom": {**ONES_OWN, "hidden_size": 64}, "gpt2": {**ONES_OWN, "n_positions": 64},
    "falcon": FALCON, "falcon 40b": {**FALCON, "new_decoder_architecture": True, "num_kv_heads": 2}, "falcon rw": {**FALCON, "multi_query": False},
    "mixtral": {**SHAPE, **EXPERTS}, "qwen2_moe": {**SHAPE, **EXPERTS}, "qwen3_moe": {**SHAPE, **EXPERTS},
}  # fmt: skip
NAMES = {
    "q_proj": "attn_q", "k_proj": "attn_k", "v_proj": "attn_v", "o_proj": "attn_output", "qkv_proj": "attn_qkv", "c_attn": "attn_qkv",
    "query_key_value": "attn_qkv", "attn.c_proj": "attn_output", "attention.dense": "attn_output",
    "self_attention.dense": "attn_output", "shared_expert_gate": "ffn_gate_inp_shexp", "gate_proj": "ffn_gate", "up_proj": "ffn_up",
    "gate_up_proj": "ffn_up", "c_fc": "ffn_up", "dense_h_to_4h": "ffn_up", "down_proj": "ffn_down", "mlp.c_proj": "ffn_down", "dense_4h_to_h": "ffn_down",
    "shared_expert.gate_proj": "ffn_gate_shexp", "shared_expert.up_proj": "ffn_up_shexp", "shared_expert.down_proj": "ffn_down_shexp",
}  # fmt: skip
"""llama.cpp's names by the ends of ours."""
PAIRWISE = {"llama", "mistral", "mixtral", "granite", "olmo", "smollm3"}
GROUPS = {"bloom": 4, "gpt_neox": 4, "falcon": 1, "falcon 40b": 2, "falcon rw": 4}
"""Of a query_key_value: each is some queries, a key and a value."""


def base_of(folder: Path, family: str) -> Path:
    torch.manual_seed(0)
    config = AutoConfig.for_model(family.partition(" ")[0], **BASES[family])
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    WORDS.save_pretrained(folder)
    return folder


def made(tmp_path: Path, family: str, **settings: object) -> tuple[Path, Adapter]:
    base = base_of(tmp_path / "base", family)
    more: dict[str, object] = {}
    if family == "gpt2":
        more = {"target_modules": ["c_attn", "c_proj", "c_fc"], "fan_in_fan_out": True}
    if family in {"mixtral", "qwen3_moe"}:  # PEFT adds the experts to "all-linear"
        more = {"target_modules": ["q_proj", "k_proj", "v_proj", "o_proj"]}
    return base, Adapter(adapter(base, tmp_path / "adapter", **{**more, **settings}))


def named(module: str) -> str:
    layer = next(part for part in module.split(".") if part.isdecimal())
    name = next(NAMES[end] for end in sorted(NAMES, key=len, reverse=True) if module.endswith(f".{end}"))
    return f"blk.{layer}.{name}"


def as_ours(change: torch.Tensor, family: str, name: str) -> torch.Tensor:
    """The rows of llama.cpp's matrix in transformers' order, from its definition."""
    if family in PAIRWISE and name.endswith(("attn_q", "attn_k")):
        return halves(change, 4 if name.endswith("attn_q") else 2)
    if family in GROUPS and name.endswith("attn_qkv"):
        return grouped(change, 4, GROUPS[family])
    return change


def halves(change: torch.Tensor, heads: int) -> torch.Tensor:
    """Row 2 i + j of a head was row j * half + i."""
    size = change.shape[0] // heads
    rows = [head * size + (i % 2) * (size // 2) + i // 2 for head in range(heads) for i in range(size)]
    found = torch.empty_like(change)
    found[rows] = change
    return found


def grouped(change: torch.Tensor, heads: int, groups: int) -> torch.Tensor:
    """From all queries, all keys, all values to groups of some queries, a key and a value."""
    size, each = change.shape[0] // (heads + 2 * groups), heads // groups
    q, k, v = change.split([heads * size, groups * size, groups * size])
    parts = [
        (q[g * each * size : (g + 1) * each * size], k[g * size : (g + 1) * size], v[g * size : (g + 1) * size])
        for g in range(groups)
    ]
    return torch.cat([part for group in parts for part in group])


def read(file: Path) -> tuple[float, dict[str, torch.Tensor]]:
    reader = GGUFReader(file)
    assert reader.fields["general.type"].contents() == "adapter"
    assert reader.fields["adapter.type"].contents() == "lora"
    tensors = {t.name: torch.tensor(dequantize(t.data, t.tensor_type)) for t in reader.tensors}
    return float(reader.fields["adapter.lora.alpha"].contents()), tensors


@pytest.mark.parametrize("family", BASES)
def test_a_file_read_back_gives_the_same_change_of_every_matrix(tmp_path: Path, family: str) -> None:
    base, given = made(tmp_path, family)
    done = write(given, str(base), tmp_path / "a.gguf", "f32")
    alpha, tensors = read(tmp_path / "a.gguf")
    assert done.pairs == len(given.modules) == len(tensors) // 2 > 0
    for module in given.modules:
        delta, name = given.delta(module), named(module)
        a, b = (tensors[f"{name}.weight.lora_{part}"] for part in "ab")
        change = as_ours(alpha / a.shape[0] * b @ a, family, name)
        torch.testing.assert_close(change, delta.scale * delta.b @ delta.a, rtol=0, atol=1e-6)


def of_tables(base: Path, folder: Path, *targets: str) -> Adapter:
    """Without the tables themselves, which PEFT would save beside."""
    config = LoraConfig(r=4, lora_alpha=8, target_modules=list(targets), task_type="CAUSAL_LM", init_lora_weights=False)
    torch.manual_seed(1)
    model = get_peft_model(AutoModelForCausalLM.from_pretrained(base), config)
    model.save_pretrained(folder, save_embedding_layers=False)
    return Adapter(folder)


def test_an_embeddings_a_is_transposed_and_the_head_of_a_tied_base_is_refused(tmp_path: Path) -> None:
    """As llama.cpp's loader wants them: it looks rows of A up by token, and has no head where that is the embedding."""
    base = base_of(tmp_path / "base", "qwen2")
    given = of_tables(base, tmp_path / "embedding", "embed_tokens")
    write(given, str(base), tmp_path / "a.gguf", "f32")
    alpha, tensors = read(tmp_path / "a.gguf")
    delta = given.delta("model.embed_tokens")
    a, b = tensors["token_embd.weight.lora_a"], tensors["token_embd.weight.lora_b"]
    assert a.shape == (len(WORDS), delta.a.shape[0])
    torch.testing.assert_close(alpha / a.shape[1] * a @ b.T, delta.scale * (delta.b @ delta.a).T)
    head, config = of_tables(base, tmp_path / "head", "lm_head"), json.loads((base / "config.json").read_text())
    assert write(head, str(base), tmp_path / "b.gguf", "f32").pairs == 1
    (base / "config.json").write_text(json.dumps({**config, "tie_word_embeddings": True}))
    with pytest.raises(UserError, match=r"lm_head has an adapter, and llama\.cpp has no head of this base"):
        write(head, str(base), tmp_path / "c.gguf", "f32")


def test_experts_of_which_two_parameters_are_adapted_are_refused(tmp_path: Path) -> None:
    mixture = base_of(tmp_path / "mixture", "mixtral")
    both = {"target_modules": [], "target_parameters": ["experts.down_proj", "experts.gate_up_proj"]}
    with pytest.raises(UserError, match=r"adapts several parameters of model.layers.0.mlp.experts"):
        Adapter(adapter(mixture, tmp_path / "both", **both))


def test_the_language_model_of_one_that_sees_too_has_its_names(tmp_path: Path) -> None:
    torch.manual_seed(0)
    base, text = tmp_path / "base", {**SHAPE, "sliding_window": 16}
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


def test_values_that_a_type_does_not_hold_are_refused(tmp_path: Path) -> None:
    base, given = made(tmp_path, "qwen2", std=1e6)
    with pytest.raises(UserError, match=r"--type: f16 does not hold all values of blk.0.\w+.weight.lora_b; write f32"):
        write(given, str(base), tmp_path / "a.gguf", "f16")
    assert not list(tmp_path.glob("*.gguf*")) and write(given, str(base), tmp_path / "a.gguf", "f32").pairs == 14


def test_what_llama_cpp_cannot_add_is_refused_and_leaves_no_file(tmp_path: Path) -> None:
    base, given = made(tmp_path, "llama", use_dora=True)
    with pytest.raises(UserError, match=r"has a DoRA magnitude, which is no sum of pairs; merge it"):
        write(given, str(base), tmp_path / "a.gguf")
    assert not list(tmp_path.glob("*.gguf*"))
    assert not list(tmp_path.glob(".*"))
    (tmp_path / "a.gguf").write_text("mine")
    with pytest.raises(UserError, match="is there already; name a new file"):
        write(given, str(base), tmp_path / "a.gguf")
