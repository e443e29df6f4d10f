"""Tiny random decoders of many families, and rows for them: made here, nothing is loaded from elsewhere."""

from __future__ import annotations

import random
from typing import Any

import torch

from trainer.data.tokens import IGNORED, Tokens

VOCABULARY = 96


def decoder(family: str = "llama", dtype: torch.dtype = torch.float32, seed: int = 0, **changes: Any):
    import transformers

    name = {
        "llama": "Llama", "mistral": "Mistral", "qwen2": "Qwen2", "qwen3": "Qwen3", "gemma2": "Gemma2", "gemma3": "Gemma3Text",
        "gpt2": "GPT2", "neox": "GPTNeoX", "falcon": "Falcon", "phi3": "Phi3", "mixtral": "Mixtral", "cohere": "Cohere", "cohere2": "Cohere2",
        "gemma3_text": "Gemma3Text", "smollm3": "SmolLM3", "qwen3_moe": "Qwen3Moe", "mpt": "Mpt", "stablelm": "StableLm", "olmo": "Olmo", "olmo2": "Olmo2", "granite": "Granite", "bloom": "Bloom", "opt": "OPT",
    }[family]  # fmt: skip
    common = {
        "vocab_size": VOCABULARY, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
        "num_key_value_heads": 2, "head_dim": 8, "max_position_embeddings": 128, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
    }  # fmt: skip
    own: dict[str, Any] = {
        "gpt2": {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 128, "n_inner": 48},
        "falcon": {"ffn_hidden_size": 48, "alibi": False},
        "gemma2": {"sliding_window": 16},
        "gemma3": {"sliding_window": 16},
        "gemma3_text": {"sliding_window": 16},
        "qwen3_moe": {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 24},
        "mpt": {"d_model": 32, "n_heads": 4, "n_layers": 2, "max_seq_len": 128, "expansion_ratio": 2},
        "bloom": {"n_layer": 2, "n_head": 4},
        "opt": {"ffn_dim": 48, "word_embed_proj_dim": 32},
    }
    if family == "falcon":
        del common["head_dim"]  # it is derived there
    config = getattr(transformers, f"{name}Config")(**{**common, **own.get(family, {}), **changes})
    torch.manual_seed(seed)
    kind = {"gpt2": "GPT2LMHeadModel", "gemma3": "Gemma3ForCausalLM", "gemma3_text": "Gemma3ForCausalLM"}.get(
        family, f"{name}ForCausalLM"
    )
    model = getattr(transformers, kind)(config)
    for parameter in model.parameters():
        if parameter.dim() > 1:
            parameter.data.mul_(3)  # livelier than a fresh one: differences have something to show on
    return model.to(dtype)


def quantised(model, device: str = "cpu", compute: torch.dtype = torch.float32):
    """Its linear layers but the head in NF4 with double quantisation."""
    import bitsandbytes as bnb

    for name, module in list(model.named_modules()):
        if type(module) is torch.nn.Linear and module is not model.get_output_embeddings():
            layer = bnb.nn.Linear4bit(
                module.in_features,
                module.out_features,
                bias=module.bias is not None,
                compute_dtype=compute,
                quant_type="nf4",
            )
            layer.weight = bnb.nn.Params4bit(
                module.weight.data, requires_grad=False, quant_type="nf4", compress_statistics=True
            )
            if module.bias is not None:
                layer.bias = module.bias
            layer.support_avx512bf16_for_cpu = False
            model.set_submodule(name, layer.to(device))
    return model.to(device)


def rows(count: int, lengths: tuple[int, int], seed: int = 0) -> list[Tokens]:
    draw = random.Random(seed)
    made = []
    for _ in range(count):
        length = draw.randint(*lengths)
        ids = [draw.randrange(3, VOCABULARY) for _ in range(length)]
        start = draw.randrange(0, length // 2)
        made.append(Tokens(ids, [IGNORED] * start + ids[start:], start))
    return made
