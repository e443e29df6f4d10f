"""Which worker may send metrics of which training: the one to which the coordinator granted that lease, also after its end."""

from __future__ import annotations

import re

from swarm import events as ev
from swarm.coordinator.record import Record

HEAD = re.compile(r'stream: "?([a-z0-9][a-z0-9._-]{0,63})"?\ntoken: ([0-9]{1,18})\n')
"""How `Metrics.toon` begins."""


class Grants:
    """See the module."""

    def __init__(self, record: Record) -> None:
        self._record = record
        self._known: set[tuple[str, str, int]] = set()

    def covers(self, worker: str, table: str) -> bool:
        """Whether the table is of a training that this worker was given. Reads its first two lines only."""
        head = HEAD.match(table)
        if head is None:
            return False
        key = (worker, f"{head[1]}/train", int(head[2]))
        if key not in self._known and self._was_granted(*key):
            self._known.add(key)
        return key in self._known

    def _was_granted(self, worker: str, ref: str, token: int) -> bool:
        """By the log: the token is a claim of the worker, or a hand-over of a lease whose work it does."""
        if not 0 < token <= self._record.state.seq:
            return False
        entry = next(self._record.writer.log.entries(token - 1))
        match entry.event:
            case ev.Claim(ref=claimed):
                return claimed == ref and entry.author == worker
            case ev.Hand(ref=handed):
                return handed == ref and self._last_claimant(ref, token) == worker
            case _:
                return False

    def _last_claimant(self, ref: str, before: int) -> str:
        """Whose claim on the task was the last one before this entry."""
        entries = self._record.writer.log.entries()
        claims = [entry for entry in entries if entry.seq < before and isinstance(entry.event, ev.Claim)]
        return next((entry.author for entry in reversed(claims) if entry.event.ref == ref), "")
