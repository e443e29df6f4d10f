"""Tells the receivers of `alerts:` what happens, beside the coordinator's own work."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping

from swarm.artifacts.notices import Queue
from swarm.coordinator.record import Record
from swarm.plainfiles import may_pass
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
        self._stalled: set[str] = set()

    async def run(self) -> None:
        """Until it is cancelled; returns at once where the config names nobody."""
        pause = LOOK_SECONDS
        while self._alerts:
            self.note()
            rows = await asyncio.to_thread(self._queue.sent, self._alerts)
            why = [row["why"] for row in rows if row["why"]]
            for line in why:
                talk.warning("alert not taken: %s", line)
            pause = min(2 * pause, LONGEST_SECONDS) if why else LOOK_SECONDS
            await asyncio.sleep(pause)

    async def leave(self) -> None:
        """The last messages; what is not taken in time stays in the queue, and `swarm notify` sends it."""
        if self._alerts:
            self.note()
            try:
                await asyncio.wait_for(asyncio.to_thread(self._queue.sent, self._alerts), LEAVING_SECONDS)
            except TimeoutError:
                talk.warning("alerts wait in the queue; `swarm notify` sends them")

    def note(self) -> None:
        """Put what has happened since into the queue."""
        before = self._state.seq
        found = list(alerts.messages(self._state, self._record.writer.log.entries(before)))
        if self._state.seq == before:
            return
        try:
            self._queue.put(self._alerts, found, self._state.seq)
        except OSError as error:  # on a full disk the run goes on
            if not may_pass(error):
                raise
            talk.warning("alerts: %s", error)

    def note_stalls(self, workers: Mapping[str, bool]) -> None:
        """By worker, whether it makes no progress now; each stall is one message."""
        new = [name for name, is_stalled in workers.items() if is_stalled and name not in self._stalled]
        self._stalled = {name for name, is_stalled in workers.items() if is_stalled}
        if new and self._alerts:
            state = self._record.state
            found = [alerts.stalled(state, name, [task.ref for task in state.held_by(name)]) for name in new]
            self._queue.put(self._alerts, found, self._state.seq)
