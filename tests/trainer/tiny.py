"""A tiny random Llama with a byte-level tokenizer, made anew for the tests: they need no base that ships and no hub."""

from __future__ import annotations

from pathlib import Path

CHATML = (
    "{%- for m in messages -%}{{- '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>\n' -}}{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{- '<|im_start|>assistant\n' -}}{%- endif -%}"
)
"""Qwen's shape: no {% generation %} markers, and a line break after each end of turn."""

MARKED = (
    "{%- for m in messages -%}{{- '<|im_start|>' + m['role'] + '\n' -}}{%- if m['role'] == 'assistant' -%}"
    "{%- generation -%}{{- m['content'] -}}{%- endgeneration -%}{%- else -%}{{- m['content'] -}}{%- endif -%}"
    "{{- '<|im_end|>\n' -}}{%- endfor -%}{%- if add_generation_prompt -%}{{- '<|im_start|>assistant\n' -}}{%- endif -%}"
)
"""The same text with markers that leave the end of turn out."""


def tokenizer(template: str | None = CHATML):
    from tokenizers import Tokenizer, decoders, pre_tokenizers
    from tokenizers.models import BPE
    from transformers import PreTrainedTokenizerFast

    marks = ["<|pad|>", "<|im_start|>", "<|im_end|>"]
    vocabulary = {word: index for index, word in enumerate([*marks, *sorted(pre_tokenizers.ByteLevel.alphabet())])}
    inner = Tokenizer(BPE(vocab=vocabulary, merges=[]))
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    inner.add_special_tokens(marks)
    return PreTrainedTokenizerFast(
        tokenizer_object=inner,
        pad_token="<|pad|>",
        eos_token="<|im_end|>",
        chat_template=template,
        model_max_length=512,
    )


def save_base(folder: Path, template: str | None = CHATML) -> Path:
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    words = tokenizer(template)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(words), hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=4, max_position_embeddings=512, tie_word_embeddings=True,
        eos_token_id=words.eos_token_id, pad_token_id=words.pad_token_id, bos_token_id=None,
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(folder)
    words.save_pretrained(folder)
    return folder


def save_adapter(base: Path, folder: Path, seed: int = 1, std: float = 0.05, **settings: object) -> Path:
    """An adapter whose B is not zero."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    model = get_peft_model(
        AutoModelForCausalLM.from_pretrained(base),
        LoraConfig(**{"r": 4, "lora_alpha": 8, "target_modules": "all-linear", "task_type": "CAUSAL_LM", **settings}),
    )
    torch.manual_seed(seed)
    for name, value in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(value, std=std)
        if "magnitude" in name:
            value.data *= 1.1
    model.save_pretrained(folder)
    return folder
