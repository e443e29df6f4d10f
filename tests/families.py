"""Model families in miniature: configs of transformers with a handful of numbers each, and what is known of them."""

from __future__ import annotations

import warnings
from typing import Any

from swarm.facts import BaseFacts

SIZES: dict[str, Any] = {
    "vocab_size": 128, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 64, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0,
}  # fmt: skip
PARALLEL = {key: value for key, value in SIZES.items() if key != "num_key_value_heads"}
TOKENS = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
SEEING = {
    "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2, "image_size": 16,
    "patch_size": 8,
}  # fmt: skip
FAMILIES: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("LlamaConfig", SIZES),
    "llama, tied": ("LlamaConfig", {**SIZES, "tie_word_embeddings": True}),
    "mistral": ("MistralConfig", SIZES),
    "qwen2": ("Qwen2Config", SIZES),
    "qwen3": ("Qwen3Config", {**SIZES, "head_dim": 16}),
    "gemma2": ("Gemma2Config", {**SIZES, "head_dim": 16}),
    "gemma3": ("Gemma3TextConfig", {**SIZES, "head_dim": 16}),
    "gemma3 that sees": (
        "Gemma3Config",
        {"text_config": {**SIZES, "head_dim": 16}, "vision_config": SEEING, "mm_tokens_per_image": 4},
    ),
    "gpt2": ("GPT2Config", {"vocab_size": 128, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64, **TOKENS}),
    "gpt-neox": ("GPTNeoXConfig", PARALLEL),
    "falcon": ("FalconConfig", {**PARALLEL, "alibi": False}),
    "phi3": ("Phi3Config", SIZES),
    "cohere": ("CohereConfig", SIZES),
    "mpt": ("MptConfig", {"vocab_size": 128, "d_model": 32, "n_heads": 4, "n_layers": 2, "max_seq_len": 64, **TOKENS}),
    "mamba": ("MambaConfig", {"vocab_size": 128, "hidden_size": 32, "num_hidden_layers": 2, "state_size": 4, **TOKENS}),
    "mixtral": ("MixtralConfig", {**SIZES, "num_local_experts": 4}),
    "qwen3, a mixture": ("Qwen3MoeConfig", {**SIZES, "num_experts": 4, "moe_intermediate_size": 16, "head_dim": 16}),
}


def config_of(family: str, **changes: Any) -> Any:
    import transformers

    name, values = FAMILIES[family]
    return getattr(transformers, name)(**{**values, **changes})


def model_of(family: str, **changes: Any) -> Any:
    """A random model with real weights."""
    import torch
    from transformers import AutoModelForCausalLM

    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(config_of(family, **changes))


def facts_of(family: str, **changes: Any) -> BaseFacts:
    """From the meta device, as for a real base."""
    import torch
    from transformers import AutoModelForCausalLM

    from trainer.inspection import facts_of_model

    with torch.device("meta"), warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        return facts_of_model(AutoModelForCausalLM.from_config(config_of(family, **changes)))
