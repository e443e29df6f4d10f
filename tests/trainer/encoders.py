"""A tiny BERT with a vocabulary of words, made anew for the tests."""

from __future__ import annotations

from pathlib import Path

WORDS = ("red", "green", "blue", "warm", "cold", "fire", "ice", "sun", "snow", "stone", "tree", "river")


def save_encoder(folder: Path, **changes: object) -> Path:
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import BertConfig, BertForMaskedLM, PreTrainedTokenizerFast

    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    vocabulary = {word: number for number, word in enumerate([*special, *WORDS])}
    inner = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    inner.pre_tokenizer = pre_tokenizers.Whitespace()
    ends = [("[CLS]", vocabulary["[CLS]"]), ("[SEP]", vocabulary["[SEP]"])]
    inner.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=ends
    )
    names = {
        "pad_token": "[PAD]",
        "unk_token": "[UNK]",
        "cls_token": "[CLS]",
        "sep_token": "[SEP]",
        "mask_token": "[MASK]",
    }
    PreTrainedTokenizerFast(tokenizer_object=inner, model_max_length=32, **names).save_pretrained(folder)
    small = {"hidden_size": 32, "num_attention_heads": 4, "num_hidden_layers": 2, "intermediate_size": 64}
    small |= {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    config = BertConfig(vocab_size=len(vocabulary), max_position_embeddings=32, pad_token_id=0, **{**small, **changes})
    folder.mkdir(exist_ok=True)
    torch.manual_seed(0)
    BertForMaskedLM(config).save_pretrained(folder)
    return folder
