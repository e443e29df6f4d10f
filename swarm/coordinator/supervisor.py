"""The coordinator's workers as they are now: processes, links and what each says of itself; it records nothing and decides nothing.

A worker's life: started -> hello (importing) -> ready, with or without tasks -> leaving or gone.  Which tasks it holds is the
state's to say, not this module's.  A process that ends without being dismissed is started again with a growing pause, until it
ends too often; then it is parked.  One that outlived its coordinator is adopted by the next: its hello, which comes after all
that it had to report, says which leases it holds.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import os
import signal
import time
from collections.abc import Mapping
from dataclasses import replace

from bus.hub import Link
from bus.keys import Members
from bus.liveness import Parked, Restart, Timeouts, after_exit, judge, stop_step
from swarm.coordinator.member import Member, Ordered
from swarm.coordinator.pulse import Pulse
from swarm.launch import local
from swarm.launch.child import Child
from swarm.launch.forkserver import ForkServer, can_fork
from swarm.launch.layout import Layout, WorkerSpec
from swarm.messages import Heartbeat, Held, Hello, Ready
from swarm.policy.schedule import Worker, roles_needed
from swarm.rundir import RunFolder
from swarm.settings import RunSettings
from swarm.state import State
from swarm.views.snapshot import WorkerRow
from toon import ToonError, encode

SILENT_SECONDS = 5.0
"""A worker is shown as unreachable after this; it loses its tasks after `lease_seconds` of silence."""
TERM_SECONDS = 15.0
"""From SIGTERM to SIGKILL when a worker does not stop."""
RESEND_SECONDS = 2.0
"""An order that no heartbeat confirms is sent again after this."""


class Supervisor:
    """All workers of a run."""

    def __init__(
        self,
        layout: Layout,
        folder: RunFolder,
        members: Members,
        settings: RunSettings,
        pulse: Pulse | None = None,
        forks: ForkServer | None = None,
    ) -> None:
        self._pulse = pulse or Pulse()
        self.folder, self.members, self.stop_seconds = folder, members, settings.stop_seconds
        self._timeouts = Timeouts(silent_seconds=SILENT_SECONDS, no_progress_seconds=settings.stall_seconds)
        self.exited = asyncio.Event()
        """Set the moment a process ends."""
        self.stalls = 0
        """How often a worker was seen to make no progress any more."""
        self.news: list[str] = []
        """Notes for the log; the coordinator takes them from here."""
        self.layout = layout
        self._members = {spec.name: Member(spec) for spec in layout.workers}
        self._forks = forks or local.fork_server(layout, folder)
        self._forks.on_news = self._made
        self._kept = {spec.name: spec.threads for spec in layout.workers}
        """Threads that each worker may use now; with 0 it has no process."""
        self._is_noted = True
        """Whether the list of living processes on disk is up to date."""

    # ---- life --------------------------------------------------------------------------------------------------------

    def start_all(self) -> None:
        """Adopt the workers that outlived an earlier coordinator and start all others."""
        living = local.living(self.folder)
        for name, member in self._members.items():
            if found := living.get(name):
                self._take(member, Child(member.spec, *found))
                self.news.append(f"{name} (pid {found[0]}) outlived its coordinator and is adopted")
            elif self._kept[name]:
                self._start(member)

    def keep(self, threads: Mapping[str, int]) -> None:
        """What is left to each worker.  One whose process has another number of threads leaves when it holds nothing any more."""
        self._kept.update(threads)

    def specs(self) -> list[WorkerSpec]:
        return [member.spec for member in self._members.values()]

    def use(self, layout: Layout) -> None:
        """Take the streams of each worker from another layout of the same workers."""
        self.layout = layout
        for spec in layout.workers:
            self._members[spec.name].spec = spec

    def _start(self, member: Member) -> None:
        join = self.members.invite(member.spec.name, "worker")
        spec = replace(member.spec, threads=self._kept[member.spec.name])
        self._take(member, local.start(spec, self.folder, join, self._forks))
        self._note()

    def _made(self, child: Child) -> None:
        """The fork server has made a process, or ended before."""
        self._watch_exit(child)
        if any(member.child is child and member.stop_step != "kill" for member in self._members.values()):
            self._note()
        else:  # it was given up before there was one
            child.signal_group(signal.SIGKILL)

    def _note(self) -> None:
        """Write the list of living processes for the next coordinator; if the disk is full, again at the next look."""
        children = [member.child for member in self._members.values() if member.child and member.child.pid]
        self._is_noted = local.write_down(children, self.folder)

    def _take(self, member: Member, child: Child) -> None:
        member.child, member.since, member.state = child, time.monotonic(), "starting"
        member.threads = child.spec.threads
        member.why, member.link, member.beat, member.ready, member.unreached_at = "", None, None, None, 0.0
        member.beat_text = None
        member.heard, member.leaving_since, member.stop_step = False, None, "ask"
        member.orders, member.strays = {}, []
        self._watch_exit(child)

    def _watch_exit(self, child: Child) -> None:
        if (descriptor := child.exit_descriptor()) >= 0:
            asyncio.get_running_loop().add_reader(descriptor, self._exit_noticed, descriptor)
        elif child.exit_reason():
            self.exited.set()

    def _exit_noticed(self, descriptor: int) -> None:
        asyncio.get_running_loop().remove_reader(descriptor)
        os.close(descriptor)
        self.exited.set()

    def watch(self, links: Mapping[str, Link], state: State) -> None:
        """Notice exits, heartbeats and standstills; start again what is needed."""
        now = time.monotonic()
        self._count_stalls()
        if not self._is_noted:
            self._note()
        for name, member in self._members.items():
            link = links.get(name)
            if link is not None:
                self._heard(member, link, now)
            member.orders = {token: order for token, order in member.orders.items() if self._stands(name, token, state)}
            if member.child and (reason := member.child.exit_reason()) is not None:
                self._ended(member, reason, now)
            elif member.child:
                self._escalate_stop(member, self.stop_seconds, now)
            elif member.state == "gone" and now >= member.start_at and self._is_wanted(member, state):
                self._start(member)

    def _is_wanted(self, member: Member, state: State) -> bool:
        """Whether work may come for it, and its device is not left to others."""
        needed = roles_needed(state, at_once=can_fork(member.spec))
        return bool(needed.intersection(member.spec.roles) and self._kept[member.spec.name])

    def stalled(self) -> dict[str, bool]:
        """By worker, whether it makes no progress."""
        return {name: member.stalled for name, member in self._members.items()}

    def _count_stalls(self) -> None:
        for member in self._members.values():
            seen = (
                bool(member.child) and judge(member.signals(self._pulse.awake_since), self._timeouts).state == "stalled"
            )
            self.stalls += seen and not member.stalled
            member.stalled = seen

    def _heard(self, member: Member, link: Link, now: float) -> None:
        member.link = link
        if link.last_heard > member.unreached_at:
            member.unreached_at = 0.0
        if link.heartbeat != member.beat_text:
            member.beat_text = link.heartbeat
            with contextlib.suppress(ToonError, ValueError):  # one whose text cannot be read is still a heartbeat
                member.beat = Heartbeat.read(link.heartbeat)
        still = {(held.ref, held.token) for held in member.holds}
        member.strays = [stray for stray in member.strays if (stray.ref, stray.token) in still]
        steps = tuple((held.ref, held.step) for held in member.holds if held.state == "working")
        if steps != member.watermark[0]:
            member.watermark = (steps, now)

    def _stands(self, name: str, token: int, state: State) -> bool:
        """Whether an order about this lease still waits to be followed."""
        strays = self._members[name].strays
        return any(task.lease and task.lease.token == token for task in state.held_by(name)) or any(
            stray.token == token for stray in strays
        )

    def _escalate_stop(self, member: Member, patience_seconds: float, now: float) -> None:
        """It was ordered to save and stop; then SIGTERM, which asks the same of all its tasks; then SIGKILL of the group."""
        if (since := member.stop_since) is None or member.child is None:
            member.stop_step = "ask"
            return
        step = stop_step(
            now - max(since, self._pulse.awake_since), ask_seconds=patience_seconds, terminate_seconds=TERM_SECONDS
        )
        if step != member.stop_step:
            member.stop_step = step
            member.child.signal_group(signal.SIGTERM if step == "terminate" else signal.SIGKILL)

    def _ended(self, member: Member, reason: str, now: float) -> None:
        dismissed, log = member.state == "leaving", member.child.log_name if member.child else member.spec.name
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
                member.state, member.why = "parked", f"{why}; last: {reason}; see workers/{log}.log"
                self.news.append(f"{member.spec.name} is parked: {member.why}")

    async def wait_for_all(self, *, grace_seconds: float) -> None:
        """Until every process has gone, down the stop ladder."""
        began = time.monotonic()
        self._forks.end()
        for member in self._members.values():
            member.leaving_since = began
        # A process that hangs in the kernel (a GPU driver, a dead mount) does not die even of SIGKILL.
        while self.living() and time.monotonic() < began + grace_seconds + 2 * TERM_SECONDS:
            for member in self._members.values():
                if member.child and member.child.exit_reason() is not None:
                    member.child = None
                self._escalate_stop(member, grace_seconds, time.monotonic())
            await asyncio.sleep(0.1)

    # ---- what the coordinator hears and sends ------------------------------------------------------------------------

    def hello(self, name: str, hello: Hello, state: State) -> bool:
        """A process says who it is and what it holds.  False: it is none of ours."""
        member = self._members.get(name)
        if member is None or member.child is None or member.child.pid != hello.pid:
            return False
        member.heard, member.threads = True, hello.threads
        member.state = "importing" if hello.state == "importing" else "ready"
        member.beat, member.beat_text = Heartbeat(state=hello.state, holds=hello.holds), None
        member.strays = [held for held in hello.holds if not state.holds(name, held.ref, held.token)]
        return True

    def ready(self, name: str, ready: Ready) -> None:
        if member := self._members.get(name):
            member.ready = ready
            if member.state == "importing":  # before its hello, a message of the process before it
                member.state = "ready"

    def bye(self, name: str) -> None:
        if member := self._members.get(name):
            member.state, member.leaving_since = "leaving", time.monotonic()

    def unreached(self, name: str) -> None:
        """It has no connection: it gets no assignment until it has been heard again."""
        self._members[name].unreached_at = time.monotonic()

    def kill(self, name: str) -> None:
        """A worker that lost its leases to silence is not asked: its process group ends and it is started anew."""
        member = self._members.get(name)
        if member and member.child:
            member.child.signal_group(signal.SIGKILL)
            member.unreached_at = math.inf  # until its next process

    def should_resend(self, name: str, token: int, what: str) -> bool:
        """True once, then every 2 s as long as no heartbeat confirms the order."""
        orders, now = self._members[name].orders, time.monotonic()
        known = orders.get(token)
        if known and known.what == what and now - known.last < RESEND_SECONDS:
            return False
        orders[token] = Ordered(what, known.first if known and known.what == what else now, now)
        return True

    def dismiss(self, name: str) -> bool:
        member = self._members[name]
        if member.state != "ready":
            return False
        member.state, member.leaving_since = "leaving", time.monotonic()
        return True

    # ---- questions ---------------------------------------------------------------------------------------------------

    def living(self) -> list[str]:
        return [name for name, member in self._members.items() if member.child]

    def view(self) -> list[Worker]:
        """What `schedule.decide` may know."""
        return [self._worker(name, member) for name, member in self._members.items()]

    def _worker(self, name: str, member: Member) -> Worker:
        return Worker(
            name=name,
            roles=tuple(member.spec.roles),
            state=member.seen_as,
            silent_seconds=member.silent_seconds(self._pulse.awake_since),
            why_gone=member.why,
            starts_at_once=can_fork(member.spec),
            streams=member.spec.streams,
            slots=member.spec.slots,
            holds=member.holds,
            strays=tuple(member.strays),
            yields=member.child is not None and member.threads != self._kept[name],
            no_progress_seconds=member.signals(self._pulse.awake_since).no_progress_seconds or 0.0,
        )

    def measured(self, state: State) -> dict[str, tuple[Held, ...]]:
        """What each worker holds, where it is trainings alone and all of them have been measured."""
        found = {}
        for name, member in self._members.items():
            refs = {task.ref for task in state.held_by(name)}
            if refs == {held.ref for held in member.holds if held.own_bytes is not None} != set():
                found[name] = member.holds
        return found

    def rows(self, state: State) -> list[WorkerRow]:
        return [self._row(name, member, state) for name, member in self._members.items()]

    def _row(self, name: str, member: Member, state: State) -> WorkerRow:
        word, why, link = str(member.state), member.why, member.link
        tasks = [task.ref for task in state.held_by(name)]
        paused = [held.ref for held in member.holds if held.state == "paused" and held.ref in tasks]
        if member.state == "gone" and not why:
            word = "left" if self._kept[name] else "yielded"  # it was dismissed
        if member.state == "ready":
            word = "idle" if not tasks else "paused" if len(paused) == len(tasks) else "working"
        done = [f"{held.ref}={held.step}" for held in member.holds if held.step is not None and held.ref in tasks]
        measured = self.measured(state).get(name, ())
        silent, signals = member.silent_seconds(self._pulse.awake_since), member.signals(self._pulse.awake_since)
        if member.child and (verdict := judge(signals, self._timeouts)).state in {"unreachable", "stalled"}:
            word, why = verdict.state, verdict.why
        return WorkerRow(
            name=name,
            roles=tuple(member.spec.roles),
            state=word,
            task=" ".join(tasks),
            paused=" ".join(paused),
            progress=" ".join(done),
            device=member.spec.device,
            pid=member.child.pid if member.child else 0,
            memory_bytes=member.beat.memory_bytes if member.beat and member.child else None,
            predicted_bytes=member.spec.predicted_bytes,
            own_bytes=sum(held.own_bytes or 0 for held in measured) if measured else None,
            predicted_own_bytes=self.layout.own_of(measured) if measured else None,
            silent_seconds=round(silent, 1),
            why=why,
            dropped=link.dropped if link else 0,
            gaps=link.gaps if link else 0,
            replayed=link.replayed if link else 0,
            duplicates=link.duplicates if link else 0,
            reconnects=link.reconnects if link else 0,
        )

    def table(self, state: State) -> str:
        """The workers as a TOON document, as it is published."""
        rows = [
            {**{f: getattr(row, f) for f in WorkerRow.__dataclass_fields__}, "roles": " ".join(row.roles)}
            for row in self.rows(state)
        ]
        return encode({"workers": rows})
