"""Held-out loss: mean nats per supervised token over all held-out rows, each token counted once and no padding counted."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import torch
from torch.nn.functional import cross_entropy

from swarm.policy.fitting import JUDGED_LOGITS_BYTES, JUDGED_TOKENS
from trainer.data.tokens import IGNORED, Tokens


def held_out_loss(model: torch.nn.Module, rows: Sequence[Tokens], check: Callable[[], None]) -> float:
    """Token-weighted mean; may be NaN or infinite, which the caller judges.  `check` is called between batches and may raise."""
    device = next(model.parameters()).device
    vocabulary = int(model.config.get_text_config().vocab_size)  # type: ignore[union-attr, operator]  # every causal model has it
    was_training = model.training
    model.eval()
    total, tokens = 0.0, 0
    try:
        for batch in _batches(rows, vocabulary):
            check()
            nats, counted = _nats(model, batch, device)
            total, tokens = total + nats, tokens + counted
    finally:
        model.train(was_training)
    return total / tokens


@torch.no_grad()
def _nats(model: torch.nn.Module, rows: Sequence[Tokens], device: torch.device) -> tuple[float, int]:
    length = max(len(row.ids) for row in rows)
    ids = torch.zeros(len(rows), length, dtype=torch.long)  # (B, T)
    labels = torch.full((len(rows), length), IGNORED)  # (B, T)
    mask = torch.zeros(len(rows), length, dtype=torch.long)  # (B, T)
    for index, row in enumerate(rows):
        ids[index, : len(row.ids)] = torch.tensor(row.ids)
        labels[index, : len(row.ids)] = torch.tensor(row.labels)
        mask[index, : len(row.ids)] = 1
    logits = model(input_ids=ids.to(device), attention_mask=mask.to(device), use_cache=False).logits  # (B, T, V)
    labels = labels[:, 1:].to(device)  # the token at t is predicted from those before it
    counted = labels != IGNORED
    nats = cross_entropy(logits[:, :-1][counted].float(), labels[counted], reduction="sum")
    return float(nats), int(counted.sum())


def _batches(rows: Sequence[Tokens], vocabulary: int) -> Iterator[list[Tokens]]:
    """Rows of like length together, as many as the token budget holds, at least one."""
    budget = max(1, min(JUDGED_TOKENS, JUDGED_LOGITS_BYTES // (4 * vocabulary)))
    batch: list[Tokens] = []
    for row in sorted(rows, key=lambda row: len(row.ids)):
        if batch and len(row.ids) * (len(batch) + 1) > budget:
            yield batch
            batch = []
        batch.append(row)
    if batch:
        yield batch
