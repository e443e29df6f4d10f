"""Of the research loop: what agents may propose, phase by phase, and what a proposal has to beat."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field

from swarm.event import Name
from swarm.keys import Positive, Settings
from swarm.settings.search import MOST_TRIALS, Range, Space


class Phase(Settings):
    """One phase of the research."""

    space: Space
    """What a proposal may change: by setting, a list of values, or `{low: 1e-4, high: 1e-2}`."""


class Research(Settings):
    """Trials that agents propose: each is kept or discarded against the best one so far."""

    start: Name
    """The stream that is to be beaten."""
    phases: Annotated[dict[Name, Phase], Field(min_length=1)]
    """By name, in their order: data before hyper-parameters before seeds, for example."""
    proposals: Annotated[int, Field(ge=1, le=MOST_TRIALS)] = 16
    """At most so many; each is tested at the promotion's `test_level` divided by this number (Bonferroni)."""
    at_once: Positive = 2
    """Proposals that are trained at the same time."""
    approvals: Annotated[int, Field(ge=0)] = 0
    """`approve` entries wanted before a proposal is trained."""
    idle_minutes: Annotated[float, Field(gt=0)] = 60.0
    """Without a proposal, a trial or a leader of the phase for so long, the research is over."""
    stall_minutes: Annotated[float, Field(gt=0)] = 15.0
    """A trial of which no step ends for so long, although its worker is heard, is ended; longer than its longest step."""


def allows(space: list[Any] | Range, value: Any, like: Any = None, stated: Any = None) -> bool:
    """Whether the value, as it is after reading, is one of the space.

    What the space leaves open of a data set is its default, or as in `like`, the value before the change.  `stated`: the value
    without its defaults.
    """
    if isinstance(space, list):
        return any(_agrees(allowed, value, value if stated is None else stated, like) for allowed in space)
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return is_number and space.low <= value <= space.high and (not space.is_whole or value == int(value))


def _agrees(allowed: Any, value: Any, stated: Any, like: Any) -> bool:
    match allowed, value:
        case dict(), dict():
            before = [one for one in (like if isinstance(like, list) else [like]) if isinstance(one, dict)]
            named = all(key in value and below == value[key] for key, below in allowed.items())
            left = stated.keys() - allowed.keys()
            return named and all(any(one.get(key) == value[key] for one in before) for key in left)
        case list(), list():
            alike = len(allowed) == len(value)
            return alike and all(_agrees(*each, like) for each in zip(allowed, value, stated, strict=True))
        case _:
            return bool(allowed == value)
