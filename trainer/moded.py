"""What controllers with modes share: decisions, changes of mode as events, and what is known of the steps so far."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any, ClassVar, Protocol, Self

MOST_ROWS = 100_000
"""Steps that are remembered."""
SHOCK = 0.1
"""A rise of phi in one step that counts as one."""


class Trace(Protocol):
    """Of what goes on from one step to the next, what every such controller has."""

    phi: float
    mode: int
    step: int
    since: int
    """The step of the last change of mode."""
    transitions: list[dict[str, Any]]


class Decision(float):
    """What an update decided: the learning rate, or its factor, as a number that also knows why."""

    mode: int
    phi: float
    events: tuple[str, ...]

    def __new__(cls, value: float, mode: int, phi: float, events: Sequence[str] = ()) -> Self:
        made = super().__new__(cls, value)
        made.mode, made.phi, made.events = mode, phi, tuple(events)
        return made


class Moded:
    """A controller whose phi chooses a mode, and its mode the value of an update."""

    names: ClassVar[Sequence[str]]
    """Of the modes, by number."""
    values: tuple[float, ...]
    """What `update` gives in each."""
    trace: Trace

    def _forget(self) -> None:
        self._rows: deque[dict[str, Any]] = deque(maxlen=MOST_ROWS)

    def _change(self, mode: int, why: str) -> list[str]:
        """The event of going to a mode, if it is another one."""
        trace = self.trace
        if mode == trace.mode:
            return []
        event = f"{self.names[trace.mode]} -> {self.names[mode]}: {why}"
        trace.transitions.append({"step": trace.step, "from": trace.mode, "to": mode, "phi": trace.phi, "why": why})
        trace.mode, trace.since = mode, trace.step
        return [event]

    def _decision(self, measured: Mapping[str, float], events: list[str]) -> Decision:
        """`measured`: what the step's row says beside phi, mode, value and events."""
        trace = self.trace
        value = self.values[trace.mode]
        known = {"phi": trace.phi, "mode": trace.mode, "value": value, "event": "; ".join(events)}
        self._rows.append({"step": trace.step, **measured, **known})
        return Decision(value, trace.mode, trace.phi, events)

    @classmethod
    def mode_name(cls, mode: int) -> str:
        return cls.names[mode]

    def phi_log(self) -> list[dict[str, Any]]:
        """All of each step, since it was made or reset: `trainer.philog.write` makes files and a picture of it."""
        return list(self._rows)

    def transition_log(self) -> list[dict[str, Any]]:
        return list(self.trace.transitions)

    def get_summary(self) -> dict[str, Any]:
        """`summary_of` all its steps, since it was made or reset."""
        return {**summary_of(self._rows, self.names), "transitions": len(self.trace.transitions)}

    def __repr__(self) -> str:
        trace = self.trace
        return f"{type(self).__name__}(step={trace.step}, mode={self.names[trace.mode]}, phi={trace.phi:.3f})"


def summary_of(rows: Sequence[Mapping[str, Any]], names: Sequence[str]) -> dict[str, Any]:
    """Of rows with phi and mode: how often the mode changed, how often phi rose by more than 0.1, and the share of the rows in each mode."""
    modes = [int(row["mode"]) for row in rows]
    pairs = list(pairwise(rows))
    return {
        "steps": len(rows),
        "transitions": sum(before["mode"] != after["mode"] for before, after in pairs),
        "shock_events": sum(after["phi"] - before["phi"] > SHOCK for before, after in pairs),
        "share": {name: modes.count(mode) / len(modes) if modes else 0.0 for mode, name in enumerate(names)},
        "highest_phi": max((row["phi"] for row in rows), default=0.0),
    }
