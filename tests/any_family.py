"""Every causal family that transformers knows, in miniature: each number of its default config that has a usual name is set small."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.trainer import tiny

SMALL: dict[int, tuple[str, ...]] = {
    32: ("hidden_size", "d_model", "n_embd", "dim", "embedding_size", "embed_dim", "d_embed", "lru_width", "word_embed_proj_dim", "mamba_d_model", "dim_model"),
    64: (
        "intermediate_size", "ffn_dim", "n_inner", "d_ff", "dim_ff", "d_inner", "ffn_hidden_size", "ffn_hidden_dim", "encoder_ffn_dim", "decoder_ffn_dim",
        "inner_dim", "dff", "max_position_embeddings", "n_positions", "max_seq_len", "n_ctx", "context_length", "feed_forward_size",
        "attention_hidden_size", "shared_expert_intermediate_size", "dense_intermediate_size", "mlp_hidden_size", "feedforward_dim", "attention_window_size",
    ),
    2: (
        "num_hidden_layers", "n_layer", "n_layers", "num_layers", "encoder_layers", "decoder_layers", "num_experts_per_tok", "num_key_value_heads",
        "n_kv_heads", "num_kv_heads", "top_k", "moe_top_k", "moe_k", "num_attention_groups", "mamba_n_groups", "num_mem_blocks", "num_encoder_layers",
        "num_decoder_layers", "num_selected_experts", "experts_per_token",
    ),
    4: (
        "num_attention_heads", "n_head", "n_heads", "num_heads", "encoder_attention_heads", "decoder_attention_heads", "num_experts", "num_local_experts",
        "n_routed_experts", "moe_num_experts", "state_size", "num_encoder_attention_heads", "num_decoder_attention_heads", "mamba_d_state", "d_state",
        "ssm_state_size", "linear_num_value_heads", "linear_num_key_heads", "index_n_heads",
    ),
    8: (
        "head_dim", "qk_rope_head_dim", "qk_nope_head_dim", "v_head_dim", "kv_lora_rank", "q_lora_rank", "dim_head", "attention_head_dim", "mamba_d_head",
        "mamba_head_dim", "linear_key_head_dim", "linear_value_head_dim", "time_step_rank", "global_head_dim", "head_size", "swa_head_dim", "rotary_dim",
        "hidden_size_per_layer_input", "index_head_dim", "index_topk", "sliding_window", "kv_channels",
    ),
    16: ("moe_intermediate_size", "expert_intermediate_size", "moe_ffn_hidden_size", "expert_ffn_hidden_size", "mamba_chunk_size", "chunk_size", "qk_head_dim"),
    1: ("n_group", "topk_group", "n_shared_experts", "num_shared_experts", "moe_num_shared_experts", "first_k_dense_replace"),
}  # fmt: skip


def families() -> list[str]:
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    return sorted(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES)


def small_config(family: str, rows: int) -> Any:
    """Of this family with a vocabulary of so many rows; raises whatever transformers does where its parts do not fit each other."""
    from transformers import AutoConfig

    config = AutoConfig.for_model(family)
    own = _small(config, rows)
    for name in getattr(config, "sub_configs", None) or {}:
        part = getattr(config, name, None)
        if part is not None and name != "vision_config":
            own[name] = {"model_type": part.model_type, **_small(part, rows)}
    return AutoConfig.for_model(family, **own)


def _small(config: Any, rows: int) -> dict[str, Any]:
    stored = config.to_dict()
    own: dict[str, Any] = {
        name: size
        for size, names in SMALL.items()
        for name in names
        if isinstance(stored.get(name), int) or (name == "head_dim" and name in stored)
    }
    if stored.get("layer_types"):
        own["layer_types"] = [*dict.fromkeys(stored["layer_types"])][:4]
        own["num_hidden_layers"] = len(own["layer_types"])
    if "kv_lora_rank" in stored:  # its heads are not shared
        own["num_key_value_heads"] = own["num_attention_heads"]
    return {**own, "vocab_size": rows, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}


def save_base(family: str, folder: Path) -> Path:
    import torch

    from trainer.families import auto_class

    words = tiny.tokenizer()
    config = small_config(family, len(words) + 5)
    torch.manual_seed(0)
    model = auto_class(config).from_config(config)
    assert sum(one.numel() for one in model.parameters()) < 5_000_000, "not small"
    ids = torch.arange(3, 15)[None]
    assert model(input_ids=ids, labels=ids).loss.isfinite(), "its sizes do not fit each other"
    model.save_pretrained(folder)
    words.save_pretrained(folder)
    return folder
