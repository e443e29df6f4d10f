"""The coordinator's workers as they are now: processes, links and what each is doing; it records nothing and decides nothing.

A worker's life: started -> hello (importing) -> ready (idle) -> busy with one task at a time -> dismissed or gone.
A process that ends without being dismissed is started again with a growing pause, until it flaps; then it is parked.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from pydantic import ValidationError

from bus.hub import Link
from bus.keys import Members
from swarm.launch import local
from swarm.messages import Heartbeat, Hello, Ready
from swarm.placement import Layout, WorkerSpec
from swarm.rundir import RunFolder, read_json, write_whole
from swarm.schedule import Worker
from swarm.snapshot import WorkerRow
from toon import ToonError, encode

FLAPS = 5
FLAP_SECONDS = 60.0
"""So many deaths in so short a time park a worker (reference: coordination 1.5)."""
STALL_SECONDS = 30.0
"""A step watermark that stands still this long is shown as a stall."""


@dataclass(slots=True)
class Member:
    """One worker, across its restarts."""

    spec: WorkerSpec
    child: local.Child | None = None
    state: Literal["starting", "idle", "busy", "leaving", "gone", "parked"] = "gone"
    ref: str = ""
    token: int = 0
    deaths: list[float] = field(default_factory=list)
    """Monotonic times."""
    start_at: float = 0.0
    why: str = ""
    link: Link | None = None
    beat: Heartbeat | None = None
    ready: Ready | None = None
    ordered: tuple[str, float] = ("", 0.0)
    watermark: tuple[int, float] = (-1, 0.0)

    @property
    def silent_seconds(self) -> float:
        return time.monotonic() - self.link.last_heard if self.link and self.child else 0.0

    @property
    def stalled_seconds(self) -> float:
        working = (
            self.state == "busy"
            and self.beat is not None
            and self.beat.state == "working"
            and self.beat.step is not None
        )
        return time.monotonic() - self.watermark[1] if working else 0.0


class Crew:
    """All workers of a run."""

    def __init__(self, layout: Layout, folder: RunFolder, members: Members) -> None:
        self.folder, self.members = folder, members
        self._members = {spec.name: Member(spec) for spec in layout.workers}

    # ---- life --------------------------------------------------------------------------------------------------------

    def start_all(self) -> None:
        """End what an earlier coordinator left behind, then start every worker."""
        self.end_strangers()
        for member in self._members.values():
            self._start(member)

    def end_strangers(self) -> None:
        record = self.folder.path / "workers.json"
        if record.exists():
            left = {int(pid): str(started) for pid, started in read_json(record).items()}
            local.end_strangers(left, grace_seconds=30.0)

    def _start(self, member: Member) -> None:
        join = self.members.invite(member.spec.name, "worker")
        member.child = local.start(member.spec, self.folder, join)
        member.state, member.ref, member.link, member.beat, member.ready = "starting", "", None, None, None
        self._write_pids()

    def _write_pids(self) -> None:
        """So that the next coordinator can make sure that these are gone."""
        pids = [m.child.pid for m in self._members.values() if m.child]
        known = {str(pid): started for pid in pids if (started := local.process_started(pid))}
        write_whole(self.folder.path / "workers.json", json.dumps(known))

    def watch(self, links: Mapping[str, Link], *, needed_roles: frozenset[str]) -> None:
        """Notice exits, heartbeats and standstills; start again what is needed."""
        now = time.monotonic()
        for name, member in self._members.items():
            link = links.get(name)
            if link is not None:
                self._heard(member, link, now)
            if member.child and (reason := member.child.exit_reason()) is not None:
                self._ended(member, reason, now)
            elif member.state == "gone" and now >= member.start_at and needed_roles.intersection(member.spec.roles):
                self._start(member)

    def _heard(self, member: Member, link: Link, now: float) -> None:
        member.link = link
        with contextlib.suppress(ToonError, ValidationError):  # a heartbeat without words is still a heartbeat
            member.beat = Heartbeat.read(link.heartbeat)
        step = member.beat.step if member.beat and member.beat.step is not None else -1
        if step != member.watermark[0] or member.state != "busy":
            member.watermark = (step, now)

    def _ended(self, member: Member, reason: str, now: float) -> None:
        dismissed = member.state == "leaving"
        member.child, member.why = None, "" if dismissed else reason
        member.state = "gone"
        if dismissed:
            return
        member.deaths = [at for at in member.deaths if now - at < FLAP_SECONDS] + [now]
        if len(member.deaths) >= FLAPS:
            member.state, member.why = (
                "parked",
                f"died {FLAPS} times in {FLAP_SECONDS:.0f} s, last: {reason}; see workers/{member.spec.name}.log",
            )
        member.start_at = now + min(30.0, 0.5 * 2 ** len(member.deaths))

    async def wait_for_all(self, *, grace_seconds: float) -> None:
        """Until every process has gone; SIGTERM, then SIGKILL, to those that stay."""
        deadline = time.monotonic() + grace_seconds
        while self.living() and time.monotonic() < deadline + 5:
            await asyncio.sleep(0.1)
            for member in self._members.values():
                if member.child and member.child.exit_reason() is not None:
                    member.child = None
                elif member.child and time.monotonic() > deadline:
                    member.child.signal_group(signal.SIGTERM)
        for member in self._members.values():
            if member.child:
                member.child.signal_group(signal.SIGKILL)

    # ---- what the coordinator hears and tells ------------------------------------------------------------------------

    def hello(self, name: str, hello: Hello) -> None:
        member = self._members.get(name)
        if member and member.state == "gone":  # it was slower to go than we to notice
            member.state = "starting"

    def ready(self, name: str, ready: Ready) -> None:
        if member := self._members.get(name):
            member.ready = ready
            if member.state == "starting":
                member.state = "idle"

    def bye(self, name: str) -> None:
        if member := self._members.get(name):
            member.state = "leaving"

    def busy(self, name: str, ref: str, token: int) -> None:
        member = self._members[name]
        member.state, member.ref, member.token, member.ordered = "busy", ref, token, ("", 0.0)
        member.watermark = (-1, time.monotonic())

    def idle(self, name: str, ref: str) -> None:
        """It has said its last word on this task."""
        member = self._members.get(name)
        if member and member.state == "busy" and member.ref == ref:
            member.state, member.ref = "idle", ""

    def kill(self, name: str, ref: str) -> None:
        """A worker that lost its lease to silence is not asked: its process group ends and it is started anew."""
        member = self._members.get(name)
        if member and member.child and member.state == "busy" and member.ref == ref:
            member.child.signal_group(signal.SIGKILL)

    def may_order(self, name: str, what: str) -> bool:
        """True once, then every 2 s: an order that was lost is repeated, a received one is not drummed in."""
        member, now = self._members[name], time.monotonic()
        if member.ordered[0] == what and now - member.ordered[1] < 2.0:
            return False
        member.ordered = (what, now)
        return True

    def dismiss(self, name: str) -> bool:
        member = self._members[name]
        if member.state != "idle":
            return False
        member.state = "leaving"
        return True

    # ---- questions ---------------------------------------------------------------------------------------------------

    def living(self) -> list[str]:
        return [name for name, member in self._members.items() if member.child]

    def view(self) -> list[Worker]:
        """What `schedule.decide` may know."""
        return [self._worker(name, member) for name, member in self._members.items()]

    def _worker(self, name: str, member: Member) -> Worker:
        beat = member.beat
        return Worker(
            name=name,
            roles=tuple(member.spec.roles),
            state=member.state if member.state != "leaving" else "gone",
            silent_seconds=member.silent_seconds if member.state == "busy" else 0.0,
            why_gone=member.why,
            streams=member.spec.streams,
            told="paused" if member.beat and member.beat.state == "paused" else "",
            holds=(beat.ref, beat.token) if beat and beat.ref and beat.token else None,
        )

    def rows(self) -> list[WorkerRow]:
        return [self._row(name, member) for name, member in self._members.items()]

    def _row(self, name: str, member: Member) -> WorkerRow:
        state: str = member.state
        if state == "starting" and member.beat and member.beat.state == "importing":
            state = "importing"
        if state == "busy":
            state = "paused" if member.beat and member.beat.state == "paused" else "working"
        why = member.why
        if member.child and member.silent_seconds > 5.0:
            state, why = "unreachable", f"no heartbeat for {member.silent_seconds:.0f} s"
        elif member.stalled_seconds > STALL_SECONDS:
            state, why = "stalled", f"no step for {member.stalled_seconds:.0f} s"
        return WorkerRow(
            name=name,
            roles=tuple(member.spec.roles),
            state=state,
            task=member.ref,
            device=member.spec.device,
            pid=member.child.pid if member.child else 0,
            memory_bytes=member.beat.memory_bytes if member.beat and member.child else None,
            silent_seconds=round(member.silent_seconds, 1),
            why=why,
        )

    def table(self) -> str:
        """The workers as a TOON document, as it is published and answered."""
        rows = [
            {**{f: getattr(row, f) for f in WorkerRow.__dataclass_fields__}, "roles": " ".join(row.roles)}
            for row in self.rows()
        ]
        return encode({"workers": rows})
