"""A base made from its folder without its weights: the model on the meta device and the tokenizer, for what is known of them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import torch
from transformers import (
    AutoConfig,
    AutoModelForMaskedLM,
    PreTrainedModel,
    __version__,
)

from swarm.errors import UserError
from swarm.facts import BaseFacts
from trainer.data.tokens import Tokeniser, stop_tokens
from trainer.families import BOTH_WAYS, auto_class, classifier_of, is_encoder, labels_of
from trainer.inspection import facts_of_model
from trainer.loading import load_tokenizer


def facts_of_folder(folder: Path, *, trust_remote_code: bool = False) -> BaseFacts:
    """Of the model and the tokenizer that transformers makes from a folder; raises UserError where it makes none."""
    model = _without_weights(folder, trust_remote_code=trust_remote_code)
    facts = facts_of_model(model)
    tokenizer = load_tokenizer(folder, trust_remote_code=trust_remote_code)
    if not facts.reads_both_ways:
        Tokeniser(tokenizer, stop_tokens(tokenizer, folder), sequence_len=8)  # refuses what no row could be made with
    tokens = max(tokenizer.get_vocab().values(), default=-1) + 1
    if tokens > facts.embedding_rows:
        what = f"its tokenizer has {tokens:,} tokens, the base {facts.embedding_rows:,}"
        raise UserError("base_model", what, "save both again after resize_token_embeddings")
    return replace(
        facts,
        chat_template=bool(tokenizer.chat_template),
        classifier=classifier_of(model.config),
        labels=tuple(labels_of(model.config)),
    )


def _without_weights(folder: Path, *, trust_remote_code: bool) -> PreTrainedModel:
    """Raises UserError."""
    try:
        config = AutoConfig.from_pretrained(str(folder), trust_remote_code=trust_remote_code)
        _refuse_what_nobody_asks(folder, config)
        with torch.device("meta"):
            kind = AutoModelForMaskedLM if is_encoder(config) else auto_class(config)
            model = kind.from_config(config, trust_remote_code=trust_remote_code)
        if model.base_model is model:
            what = f"transformers {__version__} has no decoder without a head for {type(model).__name__}"
            raise UserError("base_model", what, "take another base")
    except UserError:
        raise
    except Exception as error:  # whatever a config's values make of a model's code
        reason = " ".join(str(error).split())
        if "trust_remote_code" in reason and not trust_remote_code:
            fix = "read that code, then set `trust_remote_code: true`; or take another base"
            raise UserError("base_model", f"{folder} brings code of its own", fix) from error
        what = f"transformers {__version__} makes no causal language model of {folder} ({type(error).__name__}: {reason[:200]})"
        raise UserError("base_model", what, "take another base, or update transformers") from error
    return cast("PreTrainedModel", model)


def _refuse_what_nobody_asks(folder: Path, config: Any) -> None:
    """Of these a model is made too, which would be trained to say what it sees.  Raises UserError."""
    if config.is_encoder_decoder:
        what = f"{folder} is an encoder with a decoder ({config.model_type}), and rows are one sequence here"
    elif config.model_type in BOTH_WAYS:
        what = f"{folder} reads in both directions ({config.model_type}), and a row is learned from left to right"
    else:
        return
    raise UserError("base_model", what, "take a causal language model (decoder only)")
