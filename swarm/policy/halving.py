"""Early exit: at each rung, a step of the training, the streams that are not among the best give their place to others; pure.

It is successive halving whose rungs are judged as streams arrive (ASHA, arXiv 1810.05934), by the held-out loss that `eval_steps` has
measured for a checkpoint.  A rung waits for the streams that train now and are still on the way to it, so that those of one pass
are compared with each other and not by the order of their entries.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import count, pairwise

from swarm.settings import Halving, RunSettings
from swarm.state import State, Stream

FIGURE = "eval_loss"


def losers(state: State, settings: RunSettings) -> list[tuple[str, str]]:
    """The streams that are to stop now, each with the reason."""
    halving = settings.halving
    if halving is None:
        return []
    found: list[tuple[str, str]] = []
    before: dict[str, float] | None = None
    for step, after in pairwise(rungs(halving)):
        reached = _losses_at(state, step)
        if not reached:
            break
        if not _is_awaited(state, reached, before):
            gone = _losses_at(state, after).keys()
            found += _not_among_the_best(state, halving, step, reached, [name for name in reached if name not in gone])
        before = reached
    return found


def rungs(halving: Halving) -> Iterator[int]:
    """Steps, without end."""
    return (halving.first_step * halving.reduction**number for number in count())


def _losses_at(state: State, step: int) -> dict[str, float]:
    """By stream, of those that have a checkpoint of this step with a held-out loss."""
    return {
        name: saved.figures[FIGURE]
        for name, stream in state.streams.items()
        for saved in stream.checkpoints
        if saved.step == step and FIGURE in saved.figures
    }


def _is_awaited(state: State, reached: dict[str, float], before: dict[str, float] | None) -> bool:
    """Whether a stream that trains now has passed the rung before and not this one."""
    return any(
        _trains(state, stream) and name not in reached and (before is None or name in before)
        for name, stream in state.streams.items()
    )


def may_stop(state: State, name: str) -> bool:
    """Whether it trains now; who was revived, or is trained anew for ratings, goes on to its end."""
    stream = state.streams.get(name)
    return stream is not None and _trains(state, stream) and not stream.spared


def _trains(state: State, stream: Stream) -> bool:
    return state.tasks[f"{stream.name}/train"].lease is not None and stream.wish == "go"


def _not_among_the_best(
    state: State, halving: Halving, step: int, reached: dict[str, float], here: list[str]
) -> Iterator[tuple[str, str]]:
    """Of those whose newest rung it is; with fewer streams than the reduction nobody stops."""
    if len(reached) < halving.reduction:
        return
    kept = len(reached) // halving.reduction
    bound = sorted(math.inf if math.isnan(value) else value for value in reached.values())[kept - 1]
    for name in here:
        if may_stop(state, name) and not reached[name] <= bound:
            best = f"the best {kept} of {len(reached)} have {bound:.4g} at most"
            yield name, f"halving at step {step}: held-out loss {reached[name]:.4g}; {best}"
