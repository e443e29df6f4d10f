"""A base made from its folder without its weights: the model on the meta device and the tokenizer, for what is known of them."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping
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
from transformers.utils import logging

from swarm.errors import UserError
from swarm.facts import BaseFacts
from swarm.kinds import Shape
from trainer.data.tokens import Tokeniser, stop_tokens
from trainer.families import BOTH_WAYS, auto_class, classifier_of, is_encoder, labels_of
from trainer.inspection import facts_of_model
from trainer.loading import load_tokenizer, refuse_other_files


def facts_of_folder(
    folder: Path, stored: Mapping[str, Shape] | None = None, *, trust_remote_code: bool = False
) -> BaseFacts:
    """Of the model and the tokenizer that transformers makes from a folder; raises UserError where it makes none.

    `stored`: the shapes of the tensors in its files, by name; None where they are not known yet.
    """
    model = _without_weights(folder, trust_remote_code=trust_remote_code)
    facts = facts_of_model(model)
    headless = stored is not None and lacks_head(folder, model, stored)
    tokenizer = load_tokenizer(folder, trust_remote_code=trust_remote_code)
    if not facts.reads_both_ways:
        Tokeniser(tokenizer, stop_tokens(tokenizer, folder), sequence_len=8)  # refuses what no row could be made with
    tokens = max(tokenizer.get_vocab().values(), default=-1) + 1
    if tokens > facts.embedding_rows:
        what = f"its tokenizer has {tokens:,} tokens, the base {facts.embedding_rows:,}"
        raise UserError("base_model", what, "save both again after resize_token_embeddings")
    return replace(
        facts,
        headless=headless,
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


def lacks_head(folder: Path, model: PreTrainedModel, stored: Mapping[str, Shape]) -> bool:
    """Whether only a head is missing in the files.  Raises UserError where they are of another model than the config's.

    transformers compares them itself, by names and shapes: each family has older names of its own, and joins tensors in its own way.
    """
    config = copy.deepcopy(model.config)
    quantised = getattr(config, "quantization_config", None) is not None
    if quantised:
        del config.quantization_config  # a matrix in 4 bits has another shape, and its scales are more tensors
    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    try:
        _, loaded = cast("Any", type(model)).from_pretrained(
            None,
            config=config,
            state_dict={name: torch.empty(shape, device="meta") for name, shape in stored.items()},
            device_map={"": "meta"},
            ignore_mismatched_sizes=True,
            output_loading_info=True,
        )
    except (RuntimeError, ValueError) as error:  # tensors of which it makes one, and some are missing
        what = f"transformers cannot make a {type(model).__name__} of the files of {folder}: tensors of a layer are missing"
        raise UserError("base_model", what, "download or copy the model again") from error
    if not quantised:
        _refuse_other_shapes(folder, loaded["mismatched_keys"])
    head = {one for one in loaded["missing_keys"] if _is_of_head(model, one)}
    refuse_other_files(str(folder), model, loaded, head.__contains__)
    return bool(head)


def _is_of_head(model: PreTrainedModel, tensor: str) -> bool:
    return not tensor.startswith(f"{model.base_model_prefix}.") or ".pooler." in tensor


def _refuse_other_shapes(folder: Path, mismatched: Iterable[tuple[str, Shape, Shape]]) -> None:
    for tensor, stored, made in sorted(mismatched):
        what = f"{tensor} is {tuple(stored)} in the files of {folder}, and {tuple(made)} by its config"
        raise UserError("base_model", what, "take the config.json that was saved with the weights")


def _refuse_what_nobody_asks(folder: Path, config: Any) -> None:
    """Of these a model is made too, which would be trained to say what it sees.  Raises UserError."""
    if config.is_encoder_decoder:
        what = f"{folder} is an encoder with a decoder ({config.model_type}), and rows are one sequence here"
    elif config.model_type in BOTH_WAYS:
        what = f"{folder} reads in both directions ({config.model_type}), and a row is learned from left to right"
    else:
        return
    raise UserError("base_model", what, "take a causal language model (decoder only)")
