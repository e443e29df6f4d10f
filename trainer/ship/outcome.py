"""What a conversion came to: where it lies, and how far its logits and matrices are from those of base and adapter."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Self

from swarm.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor

PROBES = 16
"""Random inputs on which a merged matrix is compared."""
LIMIT = 0.05
"""Share of what the adapter itself changes in the logits: a conversion that is further off is lossy."""
ROUNDING = 1e-5
"""Share of the largest logit that is left to rounding, where an adapter changes nothing."""
ROUNDED = {"F16": 4 * 2**-10, "BF16": 4 * 2**-7}
"""The same where matrices were rounded to these types: four units in the last place."""


@dataclass(frozen=True)
class Output:
    """What a model makes of the random tokens."""

    logits: Tensor
    """(rows, tokens, vocabulary), fp32."""
    loss: float
    """Nats of the next token."""


@dataclass(frozen=True)
class Distance:
    """Between the model with its adapter and the converted one."""

    logits: float
    """The largest |difference| of a logit."""
    effect: float
    """The same between the model with its adapter and the bare base: what is converted."""
    largest: float
    """The largest |logit|."""
    loss: float
    """|Difference| of the loss, nats."""

    @classmethod
    def of(cls, bare: Output, wanted: Output, found: Output) -> Distance:
        apart, effect = ((one.logits - wanted.logits).abs().max() for one in (found, bare))
        return cls(float(apart), float(effect), float(wanted.logits.abs().max()), abs(found.loss - wanted.loss))

    def is_lossy(self, rounding: float) -> bool:
        return not self.logits <= max(LIMIT * self.effect, rounding * self.largest)

    def __str__(self) -> str:
        return in_words(self.logits, self.effect)


def refuse_lossy(distance: Distance, out: Path, fix: str, rounding: float = ROUNDING) -> None:
    """Raises UserError."""
    if distance.is_lossy(rounding):
        what = f"{distance}: more than {LIMIT:.0%} of that"
        raise UserError(str(out), what, f"{fix}, or accept it with --allow-lossy")


def in_words(logits: float, effect: float) -> str:
    return f"largest logit difference {logits:.1e} (the adapter changes logits by up to {effect:.1e})"


@dataclass(frozen=True, kw_only=True)
class Measured:
    """Of a conversion that is also done where no whole model fits into memory."""

    logits: float | None = None
    """The largest |difference| of a logit."""
    effect: float | None = None
    """What the adapter itself changes in a logit at most."""
    loss: float | None = None
    """|Difference| of the mean loss on the same random tokens, nats."""
    unmeasured: str | None = None
    """Why logits were not compared."""

    def measured(self, found: Distance | str) -> Self:
        """With what was found, or why nothing was."""
        if isinstance(found, str):
            return replace(self, unmeasured=found)
        return replace(self, logits=found.logits, effect=found.effect, loss=found.loss)

    @property
    def distance(self) -> str:
        if self.logits is None or self.effect is None:
            return f"logits were not compared: {self.unmeasured}"
        return f"{in_words(self.logits, self.effect)}, loss {self.loss:.1e} nats apart"


@dataclass(frozen=True)
class LayerError:
    """How far a stored matrix is from base and adapter on the probe inputs."""

    module: str
    largest: float
    """|difference| of outputs."""
    relative: float
    """The same over the largest |output|."""


@dataclass(frozen=True)
class Merged(Measured):
    """A merged model."""

    folder: str
    base: str
    matrices: int
    dtype: str
    worst: LayerError
