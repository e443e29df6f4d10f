"""Do the documents of a packed sequence change each other?  Two are computed together and apart before the first step."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from swarm.errors import UserError
from trainer.loop.batches import Tokenised
from trainer.loop.head import Head
from trainer.loop.plan import Pass, Row

PROBE_TOKENS = 64
"""Of each of the two documents that are compared."""
TOLERANCES = {torch.float64: 1e-9, torch.float32: 1e-5}
"""Relative to the largest hidden state; shorter types round."""
COARSE = 2e-2


def refuse_contamination(head: Head, slot: int, rows: Sequence[Tokenised]) -> None:
    """Raises UserError unless two documents have the same hidden states together as apart."""
    two = [
        Row(slot, row.ids[:length], row.labels[:length])
        for row, length in zip(rows, (PROBE_TOKENS, PROBE_TOKENS // 2), strict=False)
    ]
    if (found := contamination(head, two)) > TOLERANCES.get(head.model.dtype, COARSE):
        what = (
            f"two documents of a packed sequence change each other on this base, by {found:.1e} of their hidden states"
        )
        raise UserError("packing", what, "write `packing: none`")


@torch.no_grad()
def contamination(head: Head, rows: Sequence[Row]) -> float:
    """The largest difference of a hidden state, of rows together and each alone, by the largest one."""
    device = head.model.device

    def hidden(listed: Sequence[Row]) -> torch.Tensor:
        current = Pass.of(listed, device)
        with head.plan.running(current):
            return head.hidden(current.ids)  # (R, T, d)

    together = hidden(rows)
    differences = [(together[at, : len(row.ids)] - hidden([row])[0]).abs().max() for at, row in enumerate(rows)]
    return float(torch.stack(differences).max() / together.abs().max())
