"""Settings of optimizers that average gradients: each kind takes those that its formula has."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from swarm.keys import Settings, Share


class LionSettings(Settings):
    beta1: Share = 0.9
    """How much of the mean of the gradients is kept at each step."""
    beta2: Share = 0.999
    """The same of the mean of their squares; of Lion: of its one mean, whose paper has 0.99."""


class AdamSettings(LionSettings):
    eps: Annotated[float, Field(gt=0)] = 1e-8
    """Added to what an update is divided by."""
