"""Makes the event by which a stream joins a running run, of what a person or agent typed; all that is wrong with it at once."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from swarm import config, rundir
from swarm import events as ev
from swarm.access.checked import checked
from swarm.config import added
from swarm.config.dump import flow
from swarm.errors import UserError
from swarm.event import Event
from swarm.rundir import RunFolder
from swarm.state import State

SECONDS = 120.0
"""Time for the coordinator's answer: it looks at the base and at the data."""
Changes = Mapping[str, Any] | Sequence[str]
"""`{"learning_rate": 1e-3}` or `["learning_rate=1e-3"]`."""


def addition(
    folder: RunFolder, state: State, name: str, like: str, changes: Changes,
    *, warm: bool = False, why: str = "", idem: str | None = None, cwd: Path | None = None,
) -> Event:  # fmt: skip
    """A stream `name` like another but for `changes`; with `warm` a clone, which goes on from its weights and moments.

    Raises UserErrors with all that is wrong with the changes, UserError for a name.  Paths are relative to `cwd`.
    """
    rundir.checked_name(name, "NEW")
    if state.run is None:
        raise UserError(name, *state.at_rest.split("; "))
    run = config.of_run(folder, state.added)
    if like not in run.streams:
        raise UserError(like, "there is no such stream", _likely(like, list(run.streams)))
    words = [f"{key}={flow(value)}" for key, value in changes.items()] if isinstance(changes, Mapping) else changes
    made = added.checked(run, name, like, words, cwd or Path.cwd())
    return checked(
        ev.Add, ref=name, like=like, changes=added.changes(run.streams[like], made), warm=warm or None,
        why=why or None, idem=idem,
    )  # fmt: skip


def proposal(
    folder: RunFolder, state: State, name: str, like: str, changes: Changes,
    *, why: str, refute: str = "", idem: str | None = None, cwd: Path | None = None,
) -> Event:  # fmt: skip
    """A trial that is proposed; raises as `addition`.  Whether the phase allows it is the coordinator's to say."""
    made = addition(folder, state, name, like, changes, cwd=cwd)
    assert isinstance(made, ev.Add)
    return checked(
        ev.Propose, ref=name, like=like, changes=made.changes or "", why=why, refute=refute or None, idem=idem
    )


def _likely(name: str, known: list[str]) -> str:
    close = difflib.get_close_matches(name, known, n=1)
    return f"did you mean `{close[0]}`?" if close else f"there is {', '.join(known) or 'none yet'}"
