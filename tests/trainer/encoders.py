"""A tiny encoder of the embedded kind with a vocabulary of few words, made anew for the tests."""

from __future__ import annotations

from pathlib import Path

WORDS = ("red", "green", "blue", "warm", "cold", "fire", "ice", "sun", "snow", "stone", "tree", "river")
SMALL = {"hidden_size": 32, "intermediate_size": 64, "max_position_embeddings": 32}
WITHOUT_DROPOUT = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}


def save_encoder(folder: Path, **changes: object) -> Path:
    from trainer.embedded import encoder

    return encoder.save(folder, WORDS, **{**SMALL, **WITHOUT_DROPOUT, **changes})
