"""Tells the receivers of `alerts:` what happens, beside the coordinator's own work."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Mapping
from contextlib import suppress

from swarm.artifacts.notices import Queue, end_commands
from swarm.coordinator.record import Record
from swarm.errors import UserError
from swarm.policy import alerts
from swarm.rundir import RunFolder
from swarm.state import fold

LOOK_SECONDS, LONGEST_SECONDS, LEAVING_SECONDS = 1.0, 60.0, 5.0
"""Between two looks; between two tries of what was not taken; at the end of the run."""
talk = logging.getLogger("swarm.coordinator")


class Alerting:
    """One per coordinator."""

    def __init__(self, record: Record, folder: RunFolder) -> None:
        self._record, self._queue = record, Queue(folder)
        self._alerts = record.settings.alerts
        log = record.writer.log
        self._state = fold(entry for entry in log.entries() if entry.seq <= self._queue.cursor)
        self._found: list[alerts.Message] = []
        """Messages that are not in the queue yet."""
        self._noted = self._state.seq
        self._stalled: set[str] = set()
        self._leaving = asyncio.Event()

    async def run(self) -> None:
        """Until the run is over and its last messages were taken; returns at once where the config names nobody."""
        pause = LOOK_SECONDS
        while self._alerts:
            is_over = self._leaving.is_set()
            why = [*self.note(), *await self._sent()]
            for line in why:
                talk.warning("alerts: %s", line)
            if is_over and not why:
                return
            pause = min(2 * pause, LONGEST_SECONDS) if why else LOOK_SECONDS
            await self._wait(pause)

    async def _wait(self, seconds: float) -> None:
        """Less when the run is over meanwhile."""
        if self._leaving.is_set():
            await asyncio.sleep(LOOK_SECONDS)
        with suppress(TimeoutError):
            await asyncio.wait_for(self._leaving.wait(), seconds)

    async def _sent(self) -> list[str]:
        """Why messages were not taken.  The thread is a daemon: a receiver that lets it wait does not hold up this process's end."""
        loop = asyncio.get_running_loop()
        done: asyncio.Future[list[str]] = loop.create_future()

        def send() -> None:
            try:
                why = [row["why"] for row in self._queue.sent(self._alerts) if row["why"]]
            except (UserError, OSError) as error:
                why = [str(error)]
            with suppress(RuntimeError):  # the loop has ended
                loop.call_soon_threadsafe(_settle, done, why)

        threading.Thread(target=send, daemon=True).start()
        return await done

    async def leave(self, sending: asyncio.Task[None]) -> None:
        """The last messages; what is not taken in time stays in the queue, and `swarm notify` sends it."""
        self._leaving.set()
        done, _ = await asyncio.wait([sending], timeout=LEAVING_SECONDS)
        if not done:
            self.note()
            end_commands()
            talk.warning("alerts wait in the queue; `swarm notify` sends them")

    def note(self) -> list[str]:
        """Put what has happened since into the queue, and why that cannot be done now: then it is kept, and the run goes on."""
        self._found += alerts.messages(self._state, self._record.writer.log.entries(self._state.seq))
        if not self._found and self._state.seq == self._noted:
            return []
        try:
            self._queue.put(self._alerts, self._found, self._state.seq)
        except OSError as error:
            return [str(error)]
        self._found, self._noted = [], self._state.seq
        return []

    def note_stalls(self, workers: Mapping[str, bool]) -> None:
        """By worker, whether it makes no progress now; each stall is one message."""
        new = [name for name, is_stalled in workers.items() if is_stalled and name not in self._stalled]
        self._stalled = {name for name, is_stalled in workers.items() if is_stalled}
        if not self._alerts:
            return
        state = self._record.state
        self._found += [alerts.stalled(state, name, [task.ref for task in state.held_by(name)]) for name in new]


def _settle(done: asyncio.Future[list[str]], why: list[str]) -> None:
    if not done.done():
        done.set_result(why)
