"""A base made from its folder without its weights: the model on the meta device and the tokenizer, for what is known of them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import torch
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel, __version__

from swarm.errors import UserError
from swarm.facts import BaseFacts
from trainer.data.tokens import Tokeniser, stop_tokens
from trainer.inspection import facts_of_model
from trainer.loading import load_tokenizer


def facts_of_folder(folder: Path, *, trust_remote_code: bool = False) -> BaseFacts:
    """Of the model and the tokenizer that transformers makes from a folder; raises UserError where it makes none."""
    facts = facts_of_model(_without_weights(folder, trust_remote_code=trust_remote_code))
    tokenizer = load_tokenizer(folder, trust_remote_code=trust_remote_code)
    Tokeniser(tokenizer, stop_tokens(tokenizer, folder), sequence_len=8)  # refuses what no row could be made with
    tokens = max(tokenizer.get_vocab().values(), default=-1) + 1
    if tokens > facts.embedding_rows:
        what = f"its tokenizer has {tokens:,} tokens, the base {facts.embedding_rows:,}"
        raise UserError("base_model", what, "save both again after resize_token_embeddings")
    return replace(facts, chat_template=bool(tokenizer.chat_template))


def _without_weights(folder: Path, *, trust_remote_code: bool) -> PreTrainedModel:
    """Raises UserError."""
    try:
        config = AutoConfig.from_pretrained(str(folder), trust_remote_code=trust_remote_code)
        with torch.device("meta"):
            model = cast("Any", AutoModelForCausalLM).from_config(config, trust_remote_code=trust_remote_code)
    except Exception as error:  # whatever a config's values make of a model's code
        said = " ".join(str(error).split())
        if "trust_remote_code" in said and not trust_remote_code:
            fix = "read that code, then set `trust_remote_code: true`; or take another base"
            raise UserError("base_model", f"{folder} brings code of its own", fix) from error
        what = f"transformers {__version__} makes no causal language model of {folder} ({type(error).__name__}: {said[:200]})"
        raise UserError("base_model", what, "take another base, or update transformers") from error
    return cast("PreTrainedModel", model)
