"""Searches whose trials depend on the ones before: which trial is to be suggested now, and what the sampler may know; pure.

The stream with the search is its first trial; the others join the running run like it (`add`), so that the log alone says what was
suggested.  A sampler has no memory of its own: it is told the trials anew for each suggestion.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from swarm.policy.commands import Suggest
from swarm.policy.halving import FIGURE
from swarm.policy.spending import no_room, trains
from swarm.settings import TRIALS, RunSettings, Search
from swarm.state import State, Stream


def suggestions(state: State, settings: RunSettings, now: float) -> list[Suggest]:
    """The trials that are to join now."""
    return [
        Suggest(root, len(trials) + 1, search.at_once)
        for root, search, trials in _open(state, settings)
        if sum(map(trains, trials)) < search.at_once and not no_room(state, settings, now, settings.streams[root])
    ]


def more_to_come(state: State, settings: RunSettings, now: float) -> bool:
    """Whether a search is to have another trial, now or when those that train have ended."""
    return any(
        any(map(trains, trials)) or not no_room(state, settings, now, settings.streams[root])
        for root, _, trials in _open(state, settings)
    )


def request(state: State, settings: RunSettings, root: str) -> dict[str, Any]:
    """What the sampler is asked: the search, and each trial with its values of the space and its held-out losses by step."""
    search = settings.streams[root].search
    assert search
    trials = trials_of(state, root)
    return {"search": search.model_dump(mode="json"), "trials": [_trial(one, settings, search) for one in trials]}


def trials_of(state: State, root: str) -> list[Stream]:
    """The stream itself and the trials that joined, in their order."""
    name = re.compile(rf"{re.escape(root)}\.t\d+")
    joined = [s for s in state.streams.values() if s.added and s.added.like == root and name.fullmatch(s.name)]
    return [state.streams[root], *joined]


def _open(state: State, settings: RunSettings) -> Iterator[tuple[str, Search, list[Stream]]]:
    """The searches that may have another trial; one whose stream cannot be trained has none."""
    for root, stream in settings.streams.items():
        search = stream.search
        if search and search.learns and root in state.streams and not state.streams[root].failed:
            trials = trials_of(state, root)
            if len(trials) < (search.trials or TRIALS) and not state.stopped:
                yield root, search, trials


def _trial(stream: Stream, settings: RunSettings, search: Search) -> dict[str, Any]:
    own = settings.streams[stream.name].model_dump(mode="json")
    reached = [*stream.checkpoints, *([stream.trained.as_checkpoint()] if stream.trained else [])]
    losses = {saved.step: saved.figures[FIGURE] for saved in reached if FIGURE in saved.figures}
    word = "failed" if stream.failed else "done" if stream.trained else "stopped" if stream.over else "running"
    return {
        "values": {key: own[key] for key in search.space},
        "losses": sorted(losses.items()),
        "state": word,
    }
