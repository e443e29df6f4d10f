"""The coordinator's side of the log: events that are admitted are appended, folded into the state and published."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from functools import reduce

from bus.hub import Hub
from swarm import diary
from swarm import events as ev
from swarm.config import added
from swarm.coordinator.pulse import Pulse
from swarm.event import Event
from swarm.log import Entry, LogBlocked, LogError, LogFull, LogWriter
from swarm.policy.admission import admit
from swarm.policy.repeats import repeat_of
from swarm.policy.rules import admit_by
from swarm.settings import RunSettings
from swarm.state import Refusal, fold

NAME = "coordinator"
FULL_DISK_SECONDS = 2.0

talk = logging.getLogger("swarm.coordinator")


class NoSpace(Refusal):
    """The disk is full, or a file cannot be opened now: the same entry may be tried again."""


class Record:
    """One per coordinator; no other part of it writes the log or changes the state."""

    def __init__(self, writer: LogWriter, hub: Hub, settings: RunSettings, pulse: Pulse | None = None) -> None:
        self.writer, self.hub, self.clock = writer, hub, writer.now
        self.pulse = pulse or Pulse()
        self.state = fold(writer.log.entries())
        self.settings = reduce(added.settings_of, self.state.added, settings)
        """Of the config and of the streams that joined since."""

    async def add(self, items: Sequence[tuple[str, Event]], via: str | None = None) -> list[Entry]:
        """Append, fold, publish.  Raises Refusal, and then nothing was written."""
        entries = self.append(items, via)
        await self.publish(entries)
        return entries

    async def publish(self, entries: Sequence[Entry]) -> None:
        """Publish entries that were appended."""
        for entry in entries:
            await self.hub.publish("entry", entry.text)

    async def say(self, event: Event) -> Entry:
        """One entry of the coordinator's own."""
        return (await self.add([(NAME, event)]))[-1]

    async def keep(self, author: str, event: Event) -> None:
        """`add` what must not be lost: on a full disk everything waits here until there is space."""
        while True:
            try:
                await self.add([(author, event)])
                return
            except NoSpace as full:
                talk.warning("%s; trying again", full)
                await asyncio.sleep(FULL_DISK_SECONDS)

    async def note_standstill(self) -> None:
        """Where this process stood still, leases last so much longer; called before anything is judged by the clock."""
        if seconds := self.pulse.missed_seconds():
            why = "the coordinator stood still (frozen, or asleep with the machine)"
            await self.keep(NAME, ev.Extend(ref="run", seconds=round(seconds, 1), why=why))

    def admit(self, author: str, event: Event) -> None:
        """Raises Refusal unless the event may be the next entry."""
        admit(self.state, author, event, self.clock())
        if author != NAME:
            admit_by(self.settings, self.state, author, event)

    def repeat_of(self, author: str, event: Event) -> int | None:
        """The seq of the entry that this event only repeats (see `policy.repeats`).  Raises Refusal."""
        return repeat_of(self.state, author, event, self.clock())

    def append(self, items: Sequence[tuple[str, Event]], via: str | None = None) -> list[Entry]:
        """Append and fold; nothing is published yet.  Entries of the coordinator and of workers get their sentence here."""
        for author, event in items:
            self.admit(author, event)
        items_in_full = [(author, diary.with_sentence(self.state, author, event)) for author, event in items]
        try:
            entries = self.writer.append(items_in_full, via)
        except (LogFull, LogBlocked) as error:
            raise NoSpace(str(error)) from error
        except LogError as error:
            raise Refusal(f"the log: {error}") from error
        for entry in self.writer.log.entries(self.state.seq):  # also what the writer itself sealed
            self.state.apply(entry)
            if isinstance(entry.event, ev.Add):
                self.settings = added.settings_of(self.settings, entry.event)
        return entries
