"""A tiny encoder of the embedded kind with a vocabulary of few words, made anew for the tests."""

from __future__ import annotations

from pathlib import Path

WORDS = ("red", "green", "blue", "warm", "cold", "fire", "ice", "sun", "snow", "stone", "tree", "river")
SMALL = {"hidden_size": 32, "intermediate_size": 64, "max_position_embeddings": 32}
WITHOUT_DROPOUT = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}


FAMILIES: dict[str, dict[str, object]] = {
    "distilbert": {"dim": 32, "hidden_dim": 64, "n_layers": 2, "n_heads": 2, "dropout": 0.0, "attention_dropout": 0.0},
    "roberta": {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2, "bos_token_id": 2, "eos_token_id": 3},
    "modernbert": {
        "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2, "bos_token_id": 2, "eos_token_id": 3,
        "cls_token_id": 2, "sep_token_id": 3,
    },
}  # fmt: skip
"""Other encoders of the same size, by transformers' names."""


def save_family(folder: Path, family: str) -> Path:
    """With the words of `save_encoder`."""
    import torch
    from transformers import AutoConfig, AutoModelForMaskedLM, AutoTokenizer

    save_encoder(folder)
    words = AutoTokenizer.from_pretrained(folder)
    (folder / "config.json").unlink()
    config = AutoConfig.for_model(
        family, vocab_size=len(words), pad_token_id=words.pad_token_id, max_position_embeddings=64, **FAMILIES[family]
    )
    torch.manual_seed(0)
    AutoModelForMaskedLM.from_config(config).save_pretrained(folder)
    return folder


def save_encoder(folder: Path, **changes: object) -> Path:
    from trainer.embedded import encoder

    return encoder.save(folder, WORDS, **{**SMALL, **WITHOUT_DROPOUT, **changes})
