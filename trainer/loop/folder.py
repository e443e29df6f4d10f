"""A stream as a folder: an ordinary PEFT adapter, and beside it what training needs to go on bit for bit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from swarm.errors import UserError
from swarm.weights import ADAPTER
from trainer.loop.stream import Stream

OPTIMIZER = "optimizer.pt"
PARTS = "stream.pt"
"""Counters, and the states of loss, schedule, controllers and stops.  Dropout and the order of rows need no state: seed and step give them."""


def write(stream: Stream, folder: Path) -> None:
    """Into a folder that is there; whoever calls makes it whole (`trainer.whole`)."""
    write_state(stream.state_dict(), stream, folder)


def write_state(state: dict[str, Any], stream: Stream, folder: Path) -> None:
    """A state taken earlier: copies, so that the loop may have gone on."""
    kept = dict(state)
    save_file(kept.pop("adapter"), folder / ADAPTER, metadata={"format": "pt"})
    stream.adapter.config.save_pretrained(str(folder))
    torch.save(kept.pop("optimizer"), folder / OPTIMIZER)
    torch.save(kept, folder / PARTS)


def read(stream: Stream, folder: Path) -> None:
    """Into a stream made with the same settings.  Raises UserError where a file is missing: nothing starts again in silence."""
    for name in (ADAPTER, OPTIMIZER, PARTS):
        if not (folder / name).is_file():
            raise UserError(str(folder), f"has no {name}: training cannot go on from it", "take another checkpoint")
    state = torch.load(folder / PARTS, weights_only=True)
    optimizer = torch.load(folder / OPTIMIZER, weights_only=True)
    stream.load_state_dict({**state, "adapter": load_file(folder / ADAPTER), "optimizer": optimizer})
