"""What a merge came to: where it lies, and how far its stored matrices are from base and adapter."""

from __future__ import annotations

from dataclasses import dataclass

PROBES = 16
"""Random inputs on which a merged matrix is compared."""


@dataclass(frozen=True)
class LayerError:
    """How far a stored matrix is from base and adapter on the probe inputs."""

    module: str
    largest: float
    """|difference| of outputs."""
    relative: float
    """The same over the largest |output|."""


@dataclass(frozen=True)
class Merged:
    """What came of it."""

    folder: str
    base: str
    matrices: int
    dtype: str
    worst: LayerError
    logits: float | None = None
    """`probe: full`: the largest |difference| of logits on random tokens, relative to the largest |logit|."""
    loss: float | None = None
    """`probe: full`: |difference| of the mean loss on those tokens, nats."""
    effect: float | None = None
    """`probe: full`: what the adapter itself changes in the logits at most, relative to the largest one."""
