"""The coordinator's workers as they are now: processes, links and what each is doing; it records nothing and decides nothing.

A worker's life: started -> hello (importing) -> ready (idle) -> busy with one task at a time -> dismissed or gone.
A process that ends without being dismissed is started again with a growing pause, until it flaps; then it is parked.
One that outlived its coordinator is adopted by the next: its hello, which comes after all that it had to report, says
what it has in hand.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from pydantic import ValidationError

from bus.hub import Link
from bus.keys import Members
from bus.liveness import Parked, Restart, Signals, StopStep, Timeouts, after_exit, judge, stop_step
from swarm.launch import local
from swarm.launch.layout import Layout, WorkerSpec
from swarm.messages import Heartbeat, Hello, Ready
from swarm.policy.schedule import Worker
from swarm.rundir import RunFolder
from swarm.settings import RunSettings
from swarm.state import State
from swarm.views.snapshot import WorkerRow
from toon import ToonError, encode

SILENT_SECONDS = 5.0
"""A worker is shown as unreachable after this; it loses its task after `lease_seconds` of silence."""
TERM_SECONDS = 15.0
"""From SIGTERM to SIGKILL on the stop ladder."""


@dataclass(slots=True)
class Member:
    """One worker, across its restarts."""

    spec: WorkerSpec
    child: local.Child | None = None
    state: Literal["starting", "importing", "idle", "busy", "leaving", "gone", "parked"] = "gone"
    ref: str = ""
    token: int = 0
    deaths: list[float] = field(default_factory=list)
    """Monotonic times."""
    start_at: float = 0.0
    since: float = 0.0
    """When its process was started or adopted; silence counts from there."""
    why: str = ""
    link: Link | None = None
    beat: Heartbeat | None = None
    ready: Ready | None = None
    ordered: tuple[str, float] = ("", 0.0)
    watermark: tuple[int, float] = (-1, 0.0)
    heard: bool = True
    """Whether the process has said hello since it was started or adopted: until then it may have reports to bring."""
    stop_since: float | None = None
    """When it was told to stop or to leave."""
    stop_step: StopStep = "ask"
    """How far it has been taken down the stop ladder."""

    @property
    def silent_seconds(self) -> float:
        heard = max(self.since, self.link.last_heard if self.link else 0.0)
        return time.monotonic() - heard if self.child else 0.0

    @property
    def seen_as(self) -> Literal["starting", "importing", "idle", "busy", "gone", "parked"]:
        """What decisions rest on: one that died before its hello will be back with what it had to report."""
        if self.state == "gone" and not self.heard:
            return "starting"
        return "gone" if self.state == "leaving" else self.state

    @property
    def signals(self) -> Signals:
        """What tells exit, link and progress apart."""
        now, beat = time.monotonic(), self.beat
        steps = self.state == "busy" and beat is not None and beat.state == "working" and beat.step is not None
        return Signals(
            exit_code=None,
            age_seconds=now - self.since,
            silent_seconds=self.silent_seconds if self.link and self.link.last_heard > self.since else None,
            no_progress_seconds=now - self.watermark[1] if steps else None,
        )


class Supervisor:
    """All workers of a run."""

    def __init__(self, layout: Layout, folder: RunFolder, members: Members, settings: RunSettings) -> None:
        self.folder, self.members, self.stop_seconds = folder, members, settings.stop_seconds
        self._timeouts = Timeouts(silent_seconds=SILENT_SECONDS, no_progress_seconds=settings.stall_seconds)
        self.exited = asyncio.Event()
        """Set the moment a process ends."""
        self.news: list[str] = []
        """What the log should know of them: whoever writes it takes these."""
        self._members = {spec.name: Member(spec) for spec in layout.workers}
        self._is_noted = True
        """Whether who lives stands on disk."""

    # ---- life --------------------------------------------------------------------------------------------------------

    def start_all(self) -> None:
        """Adopt whoever outlived an earlier coordinator and start everybody else."""
        living = local.living(self.folder)
        for name, member in self._members.items():
            if found := living.get(name):
                self._take(member, local.Child(member.spec, *found))
                self.news.append(f"{name} (pid {found[0]}) outlived its coordinator and is adopted")
            else:
                self._start(member)

    def _start(self, member: Member) -> None:
        join = self.members.invite(member.spec.name, "worker")
        self._take(member, local.start(member.spec, self.folder, join))
        self._note()

    def _note(self) -> None:
        """Who lives, for the next coordinator; a full disk is tried again at the next look and ends nothing."""
        self._is_noted = local.write_down([m.child for m in self._members.values() if m.child], self.folder)

    def _take(self, member: Member, child: local.Child) -> None:
        member.child, member.since, member.state = child, time.monotonic(), "starting"
        member.ref, member.why, member.link, member.beat, member.ready = "", "", None, None, None
        member.heard, member.stop_since, member.stop_step = False, None, "ask"
        if (descriptor := child.exit_descriptor()) >= 0:
            asyncio.get_running_loop().add_reader(descriptor, self._exit_noticed, descriptor)

    def _exit_noticed(self, descriptor: int) -> None:
        asyncio.get_running_loop().remove_reader(descriptor)
        os.close(descriptor)
        self.exited.set()

    def watch(self, links: Mapping[str, Link], *, needed_roles: frozenset[str]) -> None:
        """Notice exits, heartbeats and standstills; start again what is needed."""
        now = time.monotonic()
        if not self._is_noted:
            self._note()
        for name, member in self._members.items():
            link = links.get(name)
            if link is not None:
                self._heard(member, link, now)
            if member.child and (reason := member.child.exit_reason()) is not None:
                self._ended(member, reason, now)
            elif member.child:
                self._hurry(member, self.stop_seconds, now)
            elif member.state == "gone" and now >= member.start_at and needed_roles.intersection(member.spec.roles):
                self._start(member)

    def _heard(self, member: Member, link: Link, now: float) -> None:
        member.link = link
        with contextlib.suppress(ToonError, ValidationError):  # a heartbeat without words is still a heartbeat
            member.beat = Heartbeat.read(link.heartbeat)
        step = member.beat.step if member.beat and member.beat.step is not None else -1
        if step != member.watermark[0] or member.state != "busy":
            member.watermark = (step, now)

    def _hurry(self, member: Member, patience_seconds: float, now: float) -> None:
        """The stop ladder: it was told to save and stop; then SIGTERM, which asks the same; then SIGKILL of the group."""
        if member.child is None or member.stop_since is None:
            return
        step = stop_step(now - member.stop_since, ask_seconds=patience_seconds, terminate_seconds=TERM_SECONDS)
        if step != member.stop_step:
            member.stop_step = step
            member.child.signal_group(signal.SIGTERM if step == "terminate" else signal.SIGKILL)

    def _ended(self, member: Member, reason: str, now: float) -> None:
        dismissed = member.state == "leaving"
        if member.stop_step != "ask":
            reason = f"told to stop, it did not within {self.stop_seconds:.0f} s and was ended"
        member.child, member.why = None, "" if dismissed else reason
        member.state = "gone"
        if dismissed:
            return
        member.deaths.append(now)
        match after_exit(member.deaths, now):
            case Restart(wait_seconds):
                member.start_at = now + wait_seconds
            case Parked(why):
                member.state, member.why = "parked", f"{why}; last: {reason}; see workers/{member.spec.name}.log"
                self.news.append(f"{member.spec.name} is parked: {member.why}")

    async def wait_for_all(self, *, grace_seconds: float) -> None:
        """Until every process has gone, down the stop ladder."""
        began = time.monotonic()
        for member in self._members.values():
            member.stop_since = began
        # A process that hangs in the kernel (a GPU driver, a dead mount) does not die even of SIGKILL.
        while self.living() and time.monotonic() < began + grace_seconds + 2 * TERM_SECONDS:
            for member in self._members.values():
                if member.child and member.child.exit_reason() is not None:
                    member.child = None
                self._hurry(member, grace_seconds, time.monotonic())
            await asyncio.sleep(0.1)

    # ---- what the coordinator hears and tells ------------------------------------------------------------------------

    def hello(self, name: str, hello: Hello, state: State) -> bool:
        """A process says who it is and what it has in hand.  False: it is none of ours."""
        member = self._members.get(name)
        if member is None or member.child is None or member.child.pid != hello.pid:
            return False
        member.heard = True
        if hello.ref is None or hello.token is None:
            member.state = "idle" if hello.state == "idle" else "importing"
        elif state.held_by(name, hello.ref, hello.token):
            self.busy(name, hello.ref, hello.token)
        else:  # its lease ended while no coordinator could say so
            member.child.signal_group(signal.SIGKILL)
        return True

    def has(self, name: str, ref: str) -> bool:
        """Whether the worker is known to work on the task."""
        member = self._members.get(name)
        return member is not None and member.state == "busy" and member.ref == ref

    def ready(self, name: str, ready: Ready) -> None:
        if member := self._members.get(name):
            member.ready = ready
            if member.state == "importing":  # before its hello this is a word of the process before it
                member.state = "idle"

    def bye(self, name: str) -> None:
        if member := self._members.get(name):
            member.state, member.stop_since = "leaving", time.monotonic()

    def busy(self, name: str, ref: str, token: int) -> None:
        member = self._members[name]
        member.state, member.ref, member.token, member.ordered = "busy", ref, token, ("", 0.0)
        member.watermark, member.stop_since = (-1, time.monotonic()), None

    def idle(self, name: str, ref: str) -> None:
        """It has said its last word on this task."""
        member = self._members.get(name)
        if member and member.state == "busy" and member.ref == ref:
            member.state, member.ref, member.stop_since = "idle", "", None

    def kill(self, name: str, ref: str) -> None:
        """A worker that lost its lease to silence is not asked: its process group ends and it is started anew."""
        member = self._members.get(name)
        if member and member.child and (member.state == "starting" or self.has(name, ref)):
            member.child.signal_group(signal.SIGKILL)

    def may_order(self, name: str, what: str) -> bool:
        """True once, then every 2 s: an order that was lost is repeated, a received one is not drummed in."""
        member, now = self._members[name], time.monotonic()
        if member.ordered[0] == what and now - member.ordered[1] < 2.0:
            return False
        member.ordered = (what, now)
        if what == "stop" and member.stop_since is None:
            member.stop_since = now
        return True

    def dismiss(self, name: str) -> bool:
        member = self._members[name]
        if member.state != "idle":
            return False
        member.state, member.stop_since = "leaving", time.monotonic()
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
            state=member.seen_as,
            silent_seconds=member.silent_seconds if member.state in {"starting", "busy"} else 0.0,
            why_gone=member.why,
            streams=member.spec.streams,
            told="paused" if member.beat and member.beat.state == "paused" else "",
            holds=(beat.ref, beat.token) if beat and beat.ref and beat.token else None,
        )

    def rows(self) -> list[WorkerRow]:
        return [self._row(name, member) for name, member in self._members.items()]

    def _row(self, name: str, member: Member) -> WorkerRow:
        state, why, link = str(member.state), member.why, member.link
        if state == "gone" and not why:
            state = "left"  # it was sent home: nothing was left to do for it
        if state == "busy":
            state = "paused" if member.beat and member.beat.state == "paused" else "working"
        if member.child and (verdict := judge(member.signals, self._timeouts)).state in {"unreachable", "stalled"}:
            state, why = verdict.state, verdict.why
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
            dropped=link.dropped if link else 0,
            gaps=link.gaps if link else 0,
            replayed=link.replayed if link else 0,
            duplicates=link.duplicates if link else 0,
            reconnects=link.reconnects if link else 0,
        )

    def table(self) -> str:
        """The workers as a TOON document, as it is published and answered."""
        rows = [
            {**{f: getattr(row, f) for f in WorkerRow.__dataclass_fields__}, "roles": " ".join(row.roles)}
            for row in self.rows()
        ]
        return encode({"workers": rows})
