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
    "qwen3, a mixture": (
        "Qwen3MoeConfig",
        {**SIZES, "num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16, "head_dim": 16},
    ),
    "qwen2, a mixture": (
        "Qwen2MoeConfig",
        {
            **SIZES,
            "num_experts": 4,
            "num_experts_per_tok": 2,
            "moe_intermediate_size": 16,
            "shared_expert_intermediate_size": 16,
        },
    ),
    "deepseek-v3": (
        "DeepseekV3Config",
        {
            **SIZES,
            "num_key_value_heads": 4,
            "n_routed_experts": 4,
            "num_experts_per_tok": 2,
            "n_group": 1,
            "topk_group": 1,
            "moe_intermediate_size": 16,
            "n_shared_experts": 1,
            "kv_lora_rank": 8,
            "q_lora_rank": 8,
            "qk_rope_head_dim": 4,
            "qk_nope_head_dim": 8,
            "v_head_dim": 8,
            "first_k_dense_replace": 1,
        },
    ),
    "gpt-oss": (
        "GptOssConfig",
        {
            **SIZES,
            "num_local_experts": 4,
            "num_experts_per_tok": 2,
            "head_dim": 16,
            "layer_types": ["sliding_attention", "full_attention"],
        },
    ),
    "gemma": ("GemmaConfig", {**SIZES, "head_dim": 16}),
    "stablelm": ("StableLmConfig", SIZES),
    "olmo2": ("Olmo2Config", SIZES),
    "granite": ("GraniteConfig", SIZES),
    "starcoder2": ("Starcoder2Config", SIZES),
    "phi": ("PhiConfig", PARALLEL),
    "bloom": ("BloomConfig", {"vocab_size": 128, "hidden_size": 32, "n_layer": 2, "n_head": 4, **TOKENS}),
    "opt": (
        "OPTConfig",
        {
            "vocab_size": 128,
            "hidden_size": 32,
            "ffn_dim": 64,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "max_position_embeddings": 64,
            "word_embed_proj_dim": 16,
            **TOKENS,
        },
    ),
    "llava": (
        "LlavaConfig",
        {
            "text_config": {**SIZES, "model_type": "llama"},
            "vision_config": {**SEEING, "model_type": "clip_vision_model"},
        },
    ),
    "mistral3": (
        "Mistral3Config",
        {
            "text_config": {**SIZES, "model_type": "mistral"},
            "vision_config": {**SEEING, "model_type": "pixtral", "head_dim": 16},
        },
    ),
    "qwen2.5 that sees": (
        "Qwen2_5_VLConfig",
        {
            "text_config": {
                **SIZES,
                "rope_parameters": {"rope_type": "default", "mrope_section": [1, 1, 2], "rope_theta": 1e4},
            },
            "vision_config": {
                "depth": 1,
                "hidden_size": 32,
                "num_heads": 2,
                "out_hidden_size": 32,
                "intermediate_size": 64,
            },
        },
    ),
}


def config_of(family: str, **changes: Any) -> Any:
    import transformers

    name, values = FAMILIES[family]
    return getattr(transformers, name)(**{**values, **changes})


def model_of(family: str, **changes: Any) -> Any:
    """A random model with real weights."""
    import torch

    from trainer.families import auto_class

    torch.manual_seed(0)
    config = config_of(family, **changes)
    return auto_class(config).from_config(config)


def facts_of(family: str, **changes: Any) -> BaseFacts:
    """From the meta device, as for a real base."""
    import torch

    from trainer.families import auto_class
    from trainer.inspection import facts_of_model

    config = config_of(family, **changes)
    with torch.device("meta"), warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        return facts_of_model(auto_class(config).from_config(config))
