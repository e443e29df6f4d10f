"""What plugs into a stream: its loss, its schedule, its controllers and its stops.

Each is a callable with a state, which is saved with the stream; one that carries nothing from step to step overrides nothing.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor


class Part:
    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        assert not state, f"{type(self).__name__} keeps no state"


@dataclass(frozen=True)
class Predicted:
    """Tokens that a loss counts, of the streams that have this loss; their order means nothing."""

    logits: Tensor
    """(m, V)"""
    targets: Tensor
    """(m,) IGNORED where no token is supervised, which a loss that is `everywhere` meets."""
    base: Tensor | None = None
    """(m, V) The logits of the base without adapters, which carry no gradient; None unless the loss `needs_base`."""
    classes: Tensor | None = None
    """(m,) Of a control adapter's rows (`trainer.data.classes`)."""


class Loss(Part, ABC):
    """A loss of single tokens.  Streams that share one object share its calls."""

    needs_base: bool = False
    """Rows of its streams go through the bare base too, without gradient: a third more work."""
    parts: ClassVar[tuple[str, ...]] = ()
    """Figures that it states beside itself."""
    everywhere: bool = False
    """It is given all tokens that a row predicts, not the supervised ones alone; what it is divided by stays their number."""

    weighted: bool = False
    """Each token counts by the model's own probability of it."""

    @property
    def figures(self) -> tuple[str, ...]:
        return ("loss", *self.parts)

    def reweighted(self) -> Loss:
        """The same, `weighted`: one object for equal losses."""
        raise NotImplementedError

    def stated(self, means: dict[str, float], supervised: int) -> dict[str, float]:
        """The figures of a step, of the sums of `figures` divided by the supervised tokens."""
        return means

    @abstractmethod
    def __call__(self, tokens: Predicted) -> Tensor:
        """(m,), or (m, 1 + parts) where the parts stand beside it, which carry no gradient."""


@dataclass(frozen=True)
class Stepped:
    """One finished optimizer step."""

    step: int
    figures: dict[str, float]
    events: Sequence[str] = ()
    """What the log is to say of it."""
    changed: bool = True
    """False: no weight did, and controllers do not hear of it."""


class Schedule(Part, ABC):
    @abstractmethod
    def __call__(self, step: int) -> float:
        """The factor of the learning rate at a step, counted from 0."""


class Controller(Part, ABC):
    def join(self, stream: Any) -> None:
        """The `trainer.loop.stream.Stream` that it belongs to; before its first step, and before any state is read."""

    def begin(self) -> None:
        """The stream's first step is the next one: its weights are those with which it begins."""

    def settle(self) -> None:
        """The stream's adapter is about to be saved or judged."""

    def judged(self, held_out_loss: float) -> None:
        """The held-out loss was measured after the newest step."""

    @abstractmethod
    def __call__(self, step: Stepped) -> float:
        """A factor of the learning rate from the next step on."""

    @property
    def figures(self) -> Mapping[str, float]:
        """What it found in this step, beside the step's own figures."""
        return {}

    @property
    def events(self) -> Sequence[str]:
        """What the log is to say of this step."""
        return ()


class Stop(Part, ABC):
    @abstractmethod
    def __call__(self, step: Stepped) -> str | None:
        """Why training is to end after this step, or None."""
