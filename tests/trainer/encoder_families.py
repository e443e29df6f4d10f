"""Tiny random encoders of the families in use, saved as their authors publish them, each with its own kind of tokenizer."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch
import transformers
from tokenizers import ByteLevelBPETokenizer
from transformers import AlbertTokenizer, DebertaV2Tokenizer, PreTrainedTokenizerFast, RobertaTokenizer

from trainer.embedded.encoder import _tokenizer as word_pieces

WIDE = {"hidden_size": 32, "num_attention_heads": 2, "num_hidden_layers": 2, "intermediate_size": 64}
PLACES = 128
SIZES: dict[str, dict[str, Any]] = {
    "BertForMaskedLM": WIDE,
    "BertModel": {**WIDE, "type_vocab_size": 1},
    "DistilBertForMaskedLM": {"dim": 32, "n_heads": 2, "n_layers": 2, "hidden_dim": 64},
    "ElectraForPreTraining": {**WIDE, "embedding_size": 16},
    "MPNetForMaskedLM": {**WIDE, "max_position_embeddings": PLACES + 2},
    "ModernBertForMaskedLM": {**WIDE, "reference_compile": False, "attn_implementation": "eager"},
    "RobertaForMaskedLM": {**WIDE, "type_vocab_size": 1, "max_position_embeddings": PLACES + 2},
    "AlbertForMaskedLM": {**WIDE, "embedding_size": 16},
    "DebertaV2ForMaskedLM": {
        **WIDE, "type_vocab_size": 0, "relative_attention": True, "position_biased_input": False, "position_buckets": 16,
        "pos_att_type": ["p2c", "c2p"], "share_att_key": True, "norm_rel_ebd": "layer_norm", "max_relative_positions": -1,
    },
    "DebertaForMaskedLM": {**WIDE, "type_vocab_size": 0, "relative_attention": True, "position_biased_input": False, "pos_att_type": ["p2c", "c2p"]},
}  # fmt: skip
"""By the class that a family's checkpoint was saved from, the sizes of one in miniature."""


def save(kind: str, folder: Path, texts: Iterable[str]) -> Path:
    tokenizer = TOKENIZERS.get(kind.partition("For")[0], lambda words: word_pieces(words, PLACES))(list(texts))
    tokenizer.save_pretrained(folder)
    made = getattr(transformers, kind)
    known = {"bos": tokenizer.bos_token_id, "eos": tokenizer.eos_token_id, "pad": tokenizer.pad_token_id}
    ids = {f"{name}_token_id": number for name, number in known.items() if number is not None}
    sizes = {"max_position_embeddings": PLACES, **ids, **SIZES[kind]}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        made(made.config_class(vocab_size=len(tokenizer), **sizes)).save_pretrained(folder)
    return folder


def _byte_pairs(texts: list[str]) -> RobertaTokenizer:
    inner = ByteLevelBPETokenizer()
    special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    inner.train_from_iterator(texts, vocab_size=400, special_tokens=special, show_progress=False)
    model = _model_of(inner)
    return RobertaTokenizer(vocab=model["vocab"], merges=[tuple(pair) for pair in model["merges"]], model_max_length=PLACES)  # fmt: skip


def _model_of(inner: Any) -> dict[str, Any]:
    import json

    model: dict[str, Any] = json.loads(inner.to_str())["model"]
    return model


def _pieces(kind: Callable[..., Any], special: tuple[str, ...]) -> Callable[[list[str]], PreTrainedTokenizerFast]:
    """Unigram pieces: whole words and all characters."""

    def made(texts: list[str]) -> PreTrainedTokenizerFast:
        words = sorted({word for text in texts for word in text.split()})
        characters = sorted({character for word in words for character in word})
        scores = [(word, 0.0) for word in special]
        scores += [(f"▁{word}", -1.0) for word in words] + [(piece, -5.0) for piece in ("▁", *characters)]
        tokenizer: PreTrainedTokenizerFast = kind(vocab=list(dict.fromkeys(scores)), model_max_length=PLACES)
        return tokenizer

    return made


TOKENIZERS: dict[str, Callable[[list[str]], Any]] = {
    "Roberta": _byte_pairs,
    "Deberta": _byte_pairs,
    "Albert": _pieces(AlbertTokenizer, ("<pad>", "<unk>", "[CLS]", "[SEP]", "[MASK]")),
    "DebertaV2": _pieces(DebertaV2Tokenizer, ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")),
}
