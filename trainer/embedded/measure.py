"""How good the embedded base is on held-out text of its own kind: loss, the chance figures beside it, and exact match."""

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch.nn import functional
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

from trainer.embedded.rows import Row, row, tensors
from trainer.embedded.text import Sample

BATCH_ROWS = 32


@dataclass(frozen=True, slots=True)
class Loss:
    nats: float
    tokens: int
    content_bytes: int

    @property
    def per_token(self) -> float:
        return self.nats / self.tokens

    @property
    def per_byte(self) -> float:
        return self.nats / self.content_bytes


def scored(sample: Sample, tokenizer: PreTrainedTokenizerFast, answers_only: bool) -> Row:
    """The sample with weight 1 on every token that is to be predicted, or on the answers' tokens alone."""
    one = row(sample, tokenizer)
    least = 1.0 if answers_only else 0.01
    return Row(one.ids, [float(weight >= least) for weight in one.weights])


def content_bytes(sample: Sample, answers_only: bool) -> int:
    roles = ("assistant",) if answers_only else ("assistant", "user", "system", "document")
    return sum(len(message.content.encode()) for message in sample.messages if message.role in roles)


@torch.inference_mode()
def held_out_loss(
    model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, samples: Sequence[Sample], answers_only: bool
) -> Loss:
    rows = sorted((scored(sample, tokenizer, answers_only) for sample in samples), key=lambda one: len(one.ids))
    nats, tokens = 0.0, 0
    for start in range(0, len(rows), BATCH_ROWS):
        ids, weights = tensors(rows[start : start + BATCH_ROWS], 0)
        logits = model(input_ids=ids[:, :-1], use_cache=False).logits  # (rows, tokens - 1, vocabulary)
        losses = functional.cross_entropy(
            logits.float().transpose(1, 2), ids[:, 1:], reduction="none"
        )  # (rows, tokens - 1)
        nats += float((losses * weights[:, 1:]).sum())
        tokens += int(weights[:, 1:].sum())
    return Loss(nats, tokens, sum(content_bytes(sample, answers_only) for sample in samples))


def unigram_loss(
    tokenizer: PreTrainedTokenizerFast, known: Iterable[Sample], samples: Sequence[Sample], answers_only: bool
) -> Loss:
    """The loss of guessing every token by how often it occurs in `known`, one added to each count."""
    counts = Counter(target for sample in known for target in _targets(scored(sample, tokenizer, answers_only)))
    seen = sum(counts.values()) + len(tokenizer)
    targets = [target for sample in samples for target in _targets(scored(sample, tokenizer, answers_only))]
    nats = sum(-math.log((counts[target] + 1) / seen) for target in targets)
    return Loss(nats, len(targets), sum(content_bytes(sample, answers_only) for sample in samples))


def _targets(one: Row) -> list[int]:
    return [token for token, weight in zip(one.ids, one.weights, strict=True) if weight > 0]


def first_turn(sample: Sample) -> tuple[list[dict[str, str]], str] | None:
    """The messages up to the first answer, and that answer; None for a document."""
    for place, message in enumerate(sample.messages):
        if message.role == "assistant":
            before = [{"role": given.role, "content": given.content} for given in sample.messages[:place]]
            return before, message.content
    return None


@torch.inference_mode()
def exact_match(
    model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, turns: Sequence[tuple[list[dict[str, str]], str]]
) -> float:
    """The share of questions whose greedy answer equals the expected one, character by character."""
    right = 0
    by_length = sorted(turns, key=lambda turn: len(turn[1]))
    for start in range(0, len(by_length), BATCH_ROWS):
        part = by_length[start : start + BATCH_ROWS]
        right += sum(given == answer for given, (_, answer) in zip(answers(model, tokenizer, part), part, strict=True))
    return right / len(turns)


def answers(
    model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, turns: Sequence[tuple[list[dict[str, str]], str]]
) -> list[str]:
    prompts = [tokenizer.apply_chat_template(before, tokenize=False, add_generation_prompt=True) for before, _ in turns]
    room = 4 + max(len(tokenizer.encode(answer, add_special_tokens=False)) for _, answer in turns)
    batch = tokenizer(prompts, return_tensors="pt", padding=True, padding_side="left", add_special_tokens=False)
    given = cast(Any, model).generate(
        **batch, max_new_tokens=room, do_sample=False
    )  # (turns, prompt tokens + new tokens)
    return tokenizer.batch_decode(given[:, batch["input_ids"].shape[1] :], skip_special_tokens=True)
