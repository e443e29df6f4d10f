"""Turns the messages that reach the coordinator into metrics, entries and answers."""

from __future__ import annotations

import asyncio
import re
import sqlite3
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from bus.budget import Rate
from bus.envelope import Envelope
from bus.hub import Hub, Limits, Link
from swarm import events as ev
from swarm.access.members import check_hand
from swarm.artifacts.metrics import MetricsFile, may_pass
from swarm.coordinator.grants import Grants
from swarm.coordinator.latency import Latencies
from swarm.coordinator.record import FULL_DISK_SECONDS, NAME, Record, talk
from swarm.coordinator.supervisor import Supervisor
from swarm.event import Event
from swarm.messages import Ask, Hello, Metrics, Quit, Ready, Report
from swarm.policy.admission import MAY_APPEND, permit, stamped
from swarm.state import Refusal
from toon import ToonError, encode

SPEAKS = {
    "worker": frozenset({"hello", "ready", "report", "metrics", "bye"}),
    "agent": frozenset({"ask"}),
    "viewer": frozenset({"ask"}),
    "admin": frozenset({"ask"}),
}
"""Message types by role on the bus; what an `ask` may append is `admission.MAY_APPEND`'s business."""

LIMITS = Limits(
    rates={
        "worker": Rate(messages_per_second=5_000, bytes_per_second=16 << 20, burst_seconds=4),
        "admin": Rate(messages_per_second=200, bytes_per_second=2 << 20, burst_seconds=4),
        "agent": Rate(messages_per_second=100, bytes_per_second=1 << 20, burst_seconds=4),
        "viewer": Rate(messages_per_second=50, bytes_per_second=64 << 10, burst_seconds=20),
    },
    body_bytes={
        ("worker", "hello"): 64 << 10,
        ("worker", "ready"): 4 << 10,
        ("worker", "report"): 256 << 10,
        ("worker", "bye"): 256,
        ("admin", "ask"): 256 << 10,
        ("agent", "ask"): 256 << 10,
        ("viewer", "ask"): 4 << 10,  # it may append nothing
    },
    member_inbox_bytes=16 << 20,
)
"""What one member can make the coordinator do. An entry has at most 64 KiB of text, and escapes can make it longer."""

MAX_REMEMBERED = 4096
"""Requests whose answers may be lost: a second one with the same nonce gets the first one's entry."""
MAX_NOTES = 64
"""Refused reports that are noted in the log for one worker."""

BATCH, BATCH_BYTES = 128, 256 << 10
"""Messages handled at most before the next decision, and with one commit to the metrics."""

NONCE = re.compile(r"[0-9a-f]{8}")
"""The correlation of a request by which its sender knows its entry again (`access.client.Sent`)."""
LONG_SECONDS = 0.25
"""For a request that takes longer the others do not wait."""

Wishes = Mapping[type[Event], Callable[[Any, str, str | None], Awaitable[int]]]
"""What more has to be done for an event that somebody asks for than to record it: (event, author, nonce) -> seq; raises Refusal."""


class Reception:
    """One per coordinator.  A message is acknowledged once what came of it is durable."""

    def __init__(self, record: Record, hub: Hub, crew: Supervisor, metrics: MetricsFile, wishes: Wishes) -> None:
        self.record, self.hub, self.crew, self.metrics, self._wishes = record, hub, crew, metrics, wishes
        self._appended: dict[tuple[str, str | None], int] = {}
        """The newest requests to append, by author and nonce, and their entries' seqs."""
        self.is_closing = False
        """The run is over and its workers are leaving."""
        noted = [entry.event for entry in record.writer.log.entries() if isinstance(entry.event, ev.Refuse)]
        self._refused = {(event.by, event.ref, event.tok) for event in noted}
        self._grants = Grants(record)
        self._latencies = Latencies()
        self._answering: set[asyncio.Task[None]] = set()

    async def take(self) -> None:
        """Handle the messages that wait now as one batch, with one commit to the metrics."""
        batch = await self.hub.receive_batch(BATCH, BATCH_BYTES)
        await self.record.note_standstill()
        now_ms = time.time() * 1000
        for envelope in batch:
            self._latencies.note(envelope.type, envelope.time_ms, now_ms)
        await self._store([e for e in batch if e.type == Metrics.type and self._grants.covers(e.source, e.body)])
        for envelope in batch:
            if envelope.type == Ask.type:
                await self._answer_beside(envelope)
            elif envelope.type != Metrics.type:
                await self._handle(envelope)
                await asyncio.sleep(0)  # heartbeats are read between two messages, however many wait
            elif not self._grants.covers(envelope.source, envelope.body):
                talk.warning("metrics of %s are not of a lease of its own", envelope.source)
                await self.hub.acknowledge(envelope)

    async def _answer_beside(self, envelope: Envelope) -> None:
        """A request that takes long (a stream's settings are checked, an adapter is copied) does not hold up the others."""
        self._answering.add(asyncio.create_task(self._handle(envelope)))
        done, self._answering = await asyncio.wait(self._answering, timeout=LONG_SECONDS, return_when="FIRST_COMPLETED")
        for finished in done:
            finished.result()

    async def _store(self, envelopes: Sequence[Envelope]) -> None:
        sound = self._stored(envelopes)
        while sound is None:  # the senders keep their messages meanwhile
            await asyncio.sleep(FULL_DISK_SECONDS)
            sound = self._stored(envelopes)
        for envelope in envelopes:
            await self.hub.acknowledge(envelope)
        for envelope in sound:
            await self.hub.publish(Metrics.type, envelope.body)

    def _stored(self, envelopes: Sequence[Envelope]) -> list[Envelope] | None:
        """Those that could be read, now durable; None, and nothing was stored, while the disk is full or the file in use."""
        sound: list[Envelope] = []
        try:
            self.metrics.insert(self._tables(envelopes, sound))
        except sqlite3.OperationalError as error:
            if not may_pass(error):
                raise
            talk.warning("metrics.db: %s; trying again", error)
            return None
        return sound

    def _tables(self, envelopes: Sequence[Envelope], sound: list[Envelope]) -> Iterator[Metrics]:
        """Those that can be read, noted in `sound`; one at a time, so that its rows are stored while they are at hand."""
        for envelope in envelopes:
            try:
                table = Metrics.read(envelope.body)
                self.metrics.check_room(table)
            except (ToonError, ValueError) as error:
                talk.warning("metrics of %s are malformed: %s", envelope.source, error)
                continue
            yield table
            sound.append(envelope)

    async def _handle(self, envelope: Envelope) -> None:
        try:
            match envelope.type:
                case Hello.type:
                    await self._greet(envelope, Hello.read(envelope.body))
                case Ready.type:
                    self.crew.ready(envelope.source, Ready.read(envelope.body))
                case Report.type:
                    await self._report(envelope.source, Report.read(envelope.body).event())
                case Ask.type:
                    await self._answer(envelope, Ask.read(envelope.body))
                case "bye":
                    self.crew.bye(envelope.source)
                case _:
                    talk.warning("%s sent %r, which means nothing here", envelope.source, envelope.type)
        except (ToonError, ValueError) as error:  # pydantic's ValidationError is a ValueError
            talk.warning("%s of %s is malformed: %s", envelope.type, envelope.source, _first_line(error))
            if envelope.type == Ask.type:
                await self.hub.refuse(envelope, f"malformed: {_first_line(error)}", status=2)
        await self.hub.acknowledge(envelope)

    # ---- workers -----------------------------------------------------------------------------------------------------

    async def _greet(self, envelope: Envelope, hello: Hello) -> None:
        """A process's hello comes after all its reports, so that a lease which it does not list is over."""
        source = envelope.source
        if not self.crew.hello(source, hello, self.record.state):
            if self.hub.links()[source].incarnation == envelope.incarnation:  # else its successor brings what it left
                await self.hub.send(source, Quit.type, Quit(why="the run does not know this process").toon())
            return
        listed = {held.ref for held in hello.holds if self.record.state.holds(source, held.ref, held.token)}
        for task in self.record.state.held_by(source):
            if task.lease and task.ref not in listed:
                over = ev.Expire(ref=task.ref, tok=task.lease.token, why="the worker has lost it", failed=False)
                await self.record.keep(NAME, over)

    async def _report(self, source: str, event: Event) -> None:
        """Record a worker's report if its token is current; a stale one is noted once a lease and never applied."""
        try:
            if event.kind not in MAY_APPEND["worker"]:
                raise Refusal(f"a worker may not append {event.kind!r}")
            if self.record.repeat_of(source, event) is None:  # else an earlier coordinator has recorded it
                await self.record.keep(source, event)
        except Refusal as refusal:
            token = event.facts().get("tok")
            noted = sum(by == source for by, _, _ in self._refused)
            if (source, event.ref, token) not in self._refused and noted < MAX_NOTES:
                self._refused.add((source, event.ref, token))
                note = ev.Refuse(ref=event.ref, tok=token, by=source, why=str(refusal))
                await self.record.keep(NAME, note)
            if event.kind in ev.SETTLING and token:
                await self._end_what_it_left(source, event.ref, token)

    async def _end_what_it_left(self, source: str, ref: str, token: int) -> None:
        """The worker believes that the task is finished, and its result was refused: nobody does the task any more."""
        lease = self.record.state.tasks[ref].lease if self.record.state.holds(source, ref, token) else None
        if lease:  # after a hand-over nobody is to blame
            over = ev.Expire(
                ref=ref, tok=lease.token, why="the worker has left the task", failed=lease.token == lease.first
            )
            await self.record.keep(NAME, over)

    # ---- requests ----------------------------------------------------------------------------------------------------

    async def _answer(self, envelope: Envelope, ask: Ask) -> None:
        try:
            await self.hub.answer(envelope, await self._answer_text(envelope, ask))
        except Refusal as refusal:
            await self.hub.refuse(envelope, str(refusal))

    async def _answer_text(self, envelope: Envelope, ask: Ask) -> str:
        match ask.what:
            case "append":
                if ask.report is None:
                    raise ValueError("append needs a report")
                via = envelope.correlation if NONCE.fullmatch(envelope.correlation) else None
                return await self._append_for(envelope.source, envelope.role, ask.report.event(), via)
            case "links":
                return encode({"links": [_link_row(link) for link in self.hub.links().values()]})
            case "workers":
                return self.crew.table(self.record.state)
            case "bus":
                return encode({"messages": self._latencies.rows(), "stalls": self.crew.stalls})

    async def _append_for(self, author: str, role: str, event: Event, via: str | None) -> str:
        permit(role, event)
        event = stamped(role, event)
        if isinstance(event, ev.Hand):
            check_hand(self.hub.members, event.to)
        if self.is_closing and isinstance(event, ev.Resume):
            raise Refusal("the run has just ended and its workers are leaving; `swarm resume` in a few seconds")
        seq = self._appended.get((author, via)) if via else None
        if seq is None:
            seq = self.record.repeat_of(author, event)
        if seq is None and (carry_out := self._wishes.get(type(event))):
            seq = await carry_out(event, author, via)
        if seq is None:
            seq = (await self.record.add([(author, event)], via))[-1].seq
        if via:
            self._remember(author, via, seq)
        return encode({"seq": seq, "kind": event.kind, "ref": event.ref, "time": self.record.clock()})

    def _remember(self, author: str, via: str, seq: int) -> None:
        self._appended[author, via] = seq
        if len(self._appended) > MAX_REMEMBERED:
            del self._appended[next(iter(self._appended))]


def _link_row(link: Link) -> dict[str, str | int | float]:
    """One member's link, as `swarm export --what bus` tells it."""
    row = {**asdict(link), "silent_seconds": round(time.monotonic() - link.last_heard, 1)}
    return {name: value for name, value in row.items() if name not in {"last_heard", "heartbeat", "incarnation"}}


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__
