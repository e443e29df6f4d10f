"""Which classes of transformers make a model of a base, by what it is asked for."""

from __future__ import annotations

import copy
from typing import Any

BOTH_WAYS = ("xlnet", "xlm", "flaubert")
"""Families whose language models see the words behind a place too, and have no setting that says so."""


def auto_class(config: Any) -> Any:
    """The class of transformers that makes a base: a causal language model, or one that sees too and is given text alone."""
    from transformers import AutoModelForCausalLM, AutoModelForImageTextToText
    from transformers.models.auto.modeling_auto import (
        MODEL_FOR_CAUSAL_LM_MAPPING,
        MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING,
    )

    sees = type(config) in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING and type(config) not in MODEL_FOR_CAUSAL_LM_MAPPING
    return AutoModelForImageTextToText if sees else AutoModelForCausalLM


def is_encoder(config: Any) -> bool:
    """A model of masked tokens, which sees what stands behind a place."""
    from transformers.models.auto.modeling_auto import MODEL_FOR_MASKED_LM_MAPPING

    masked = type(config) in MODEL_FOR_MASKED_LM_MAPPING and not getattr(config, "is_decoder", False)
    return masked and not config.is_encoder_decoder and config.model_type not in BOTH_WAYS


def reads_both_ways(config: Any) -> bool:
    return is_encoder(config) or config.model_type in BOTH_WAYS


def labels_of(config: Any) -> list[str]:
    """What the base's own head tells; none where it has no such head."""
    if not any(name.endswith("ForSequenceClassification") for name in config.architectures or ()):
        return []
    return [str(config.id2label[number]) for number in sorted(config.id2label)]


def classifier_of(config: Any) -> tuple[tuple[str, tuple[int, ...]], ...]:
    """Tensors of the head that tells labels, made for one label; an encoder's pooler is part of it."""
    import torch
    from transformers import AutoModelForSequenceClassification
    from transformers.models.auto.modeling_auto import MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING

    if config.get_text_config() is not config or type(config) not in MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING:
        return ()
    config = copy.deepcopy(config)
    config.num_labels = 1
    with torch.device("meta"):
        model = AutoModelForSequenceClassification.from_config(config)  # type: ignore[no-untyped-call]
    inside = f"{model.base_model_prefix}."
    return tuple(
        (name, tuple(value.shape))
        for name, value in model.named_parameters()
        if not name.startswith(inside) or ".pooler." in name
    )
