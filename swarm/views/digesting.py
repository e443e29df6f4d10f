"""The digest of a run folder: reads what `digest` is composed of."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from swarm import config
from swarm.artifacts import metrics
from swarm.log import run_is_alive
from swarm.rundir import RunFolder
from swarm.state import State
from swarm.views.digest import Unread, digest, going_of
from swarm.views.streamrows import waits_of
from toon import encode


def digest_of(
    folder: RunFolder,
    state: State,
    now: float,
    budget_tokens: int,
    unread: Sequence[Unread] = (),
    *,
    write: Callable[[Any], str] = encode,
    in_words: Callable[[str], str] = str,
) -> str:
    """As `digest`; `in_words` puts commands that it names into the reader's."""
    settings = config.of_run(folder, state.added)
    return digest(
        state, now, budget_tokens, unread=unread, name=folder.name, waits=in_words(waits_of(state, settings)), write=write,
        going=in_words(going_of(alive=run_is_alive(folder.log))), newest=metrics.newest(folder.metrics, state.streams), settings=settings,
    )  # fmt: skip
