"""Has one of Optuna's pruners say which streams are to stop, and stops them."""

from __future__ import annotations

import asyncio

from swarm import events as ev
from swarm.coordinator.asking import answer
from swarm.coordinator.record import NAME, Record
from swarm.policy import pruning
from swarm.policy.commands import AskPruner


class Pruning:
    """One per coordinator.  A pruner that gives no answer stops the run with the reason: the search would be another one without it."""

    def __init__(self, record: Record) -> None:
        self._record = record
        self._asking: asyncio.Task[None] | None = None
        self._known = 0
        """So much of the course the answer knows."""
        self._pruned: dict[str, int] = {}
        """The answer: a cache, which follows from the log.  It stands when more is known."""

    async def carry_out(self, wanted: AskPruner) -> None:
        """Streams train on while the pruner is asked, and stop at the boundary after its answer."""
        state, settings = self._record.state, self._record.settings
        for name, why in list(pruning.stops(state, settings, self._pruned)):
            await self._record.say(ev.Stop(ref=name, why=why))
        if self._asking is None and wanted.known > self._known:
            self._asking = asyncio.create_task(self._ask(wanted.known))

    async def _ask(self, known: int) -> None:
        try:
            self._pruned = await answer(pruning.request(self._record.state, self._record.settings))
            self._known = known
        except (OSError, ValueError) as error:
            if not self._record.state.end:
                await self._record.keep(NAME, ev.Stop(ref="run", why=f"the pruner gives no answer: {error}"))
        finally:
            self._asking = None
