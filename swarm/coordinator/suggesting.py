"""Has the next trial of a search suggested by the sampler, a process of the trainer, and lets it join the run."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import Any, Protocol

from swarm import events as ev
from swarm.access.adding import addition
from swarm.coordinator.asking import answer
from swarm.coordinator.record import NAME, Record
from swarm.errors import UserError, UserErrors
from swarm.policy import searching
from swarm.policy.commands import Suggest
from swarm.rundir import RunFolder
from swarm.state import Refusal


class Joins(Protocol):
    def __call__(
        self, event: ev.Add, author: str, via: str | None, most_slots: int | None = None
    ) -> Awaitable[int]: ...


class Suggesting:
    """One per coordinator.  A trial that cannot be had stops the run with the reason: the search would be another one without it."""

    def __init__(self, record: Record, folder: RunFolder, add: Joins) -> None:
        self._record, self._folder, self._add = record, folder, add
        self._asked: dict[str, asyncio.Task[None]] = {}

    def begin(self, wanted: Suggest) -> None:
        """Nothing while the search waits for another trial; decisions and heartbeats go on meanwhile."""
        if wanted.root not in self._asked:
            self._asked[wanted.root] = asyncio.create_task(self._suggest(wanted))

    async def _suggest(self, wanted: Suggest) -> None:
        try:
            question = searching.request(self._record.state, self._record.settings, wanted.root)
            await self._join(wanted, await answer(question))
        except (Refusal, UserError, UserErrors, OSError, ValueError) as error:
            if not self._record.state.end:
                why = f"no trial {wanted.number} of {wanted.root}: {error}"
                await self._record.keep(NAME, ev.Stop(ref="run", why=why))
        finally:
            del self._asked[wanted.root]

    async def _join(self, wanted: Suggest, values: dict[str, Any]) -> None:
        search = self._record.settings.streams[wanted.root].search
        assert search
        name, why = f"{wanted.root}.t{wanted.number}", f"suggested by {search.sampler}"
        made = await asyncio.to_thread(
            addition, self._folder, self._record.state, name, wanted.root, values, why=why, cwd=self._folder.path
        )
        assert isinstance(made, ev.Add)
        await self._add(made, NAME, None, wanted.at_once)
