"""The coordinator: the one process that records what happens, decides what is next and carries it out.

What reaches it is admitted, appended to the log, folded, acknowledged and published (`reception`, `record`); then
`schedule.decide` says what follows, and `effects` carries it out.  It is alive while it holds the log's lock (`main`).
"""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import signal

from bus.errors import BusError
from bus.hub import Hub
from swarm import events as ev
from swarm import weights
from swarm.access.client import clock_was_set
from swarm.access.members import members_for_hub, user_error, write_connect
from swarm.artifacts.metrics import MetricsFile
from swarm.coordinator.alerting import Alerting
from swarm.coordinator.effects import Effects
from swarm.coordinator.pulse import Pulse
from swarm.coordinator.reception import LIMITS, SPEAKS, Reception, Wishes
from swarm.coordinator.record import NAME, NoSpace, Record, talk
from swarm.coordinator.supervisor import Supervisor
from swarm.files import write_whole
from swarm.launch.forkserver import ForkServer
from swarm.launch.layout import Layout
from swarm.log import LogWriter
from swarm.log.clock import set_forward_seconds
from swarm.messages import Quit
from swarm.plainfiles import may_pass, remove_file
from swarm.policy import schedule
from swarm.policy.commands import AskPruner, Dismiss, JoinProposal, JoinRetrained, SendOrder, Suggest
from swarm.policy.yielding import kept
from swarm.rundir import RunFolder
from swarm.settings import RunSettings
from swarm.state import Refusal
from swarm.surroundings import cores
from swarm.views.summary import FILE, summary

BESIDE = SendOrder | Dismiss | Suggest | AskPruner | JoinProposal | JoinRetrained
"""Commands that are only begun, or of which nothing else waits: nothing new is to be decided after them."""
TICK_SECONDS = 0.25
"""How often it acts on the clock alone; messages and exits of workers wake it at once."""
LEAVING_SECONDS = 20.0
"""Time that workers get to leave after the end; nothing is left to be saved then."""


class Coordinator:
    """Owns the log's lock, the hub, the metrics and the workers of one run."""

    def __init__(
        self, folder: RunFolder, settings: RunSettings, layout: Layout, writer: LogWriter, forks: ForkServer
    ) -> None:
        self.folder, self.settings = folder, settings
        self.members = members_for_hub(folder, settings.listen)
        self.hub = Hub(self.members, allowed=SPEAKS, limits=LIMITS)
        self.metrics = MetricsFile(folder.metrics)
        self.pulse = Pulse()
        self.crew = Supervisor(layout, folder, self.members, settings, self.pulse, forks)
        self.record = Record(writer, self.hub, settings, self.pulse)
        self.effects = Effects(self.record, self.hub, self.crew, folder)
        wishes: Wishes = {
            ev.Promote: self.effects.promote_for,
            ev.Add: self.effects.add_for,
            ev.Propose: self.effects.researching.propose_for,
            ev.Yield: self.effects.yield_for,
        }
        self.reception = Reception(self.record, self.hub, self.crew, self.metrics, wishes)
        self.alerting = Alerting(self.record, folder)
        self._cores = cores()
        self._deciding = asyncio.Lock()
        self._over = asyncio.Event()

    async def run(self) -> int:
        """From the first entry to the last; returns the run's exit status.  Raises UserError where it cannot listen."""
        try:
            await self.hub.start()
        except BusError as error:
            raise user_error(error) from error
        self._begin()
        write_connect(self.folder, self.members)
        self.effects.retraining.prepare()
        self._keep()
        self.crew.start_all()
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, self._stop_by_signal)
        receiving, ticking = asyncio.create_task(self._receive()), asyncio.create_task(self._tick())
        over, beating = asyncio.create_task(self._over.wait()), asyncio.create_task(self.pulse.beat())
        alerting = asyncio.create_task(self.alerting.run())
        done, _ = await asyncio.wait([over, receiving, ticking, beating], return_when=asyncio.FIRST_COMPLETED)
        ticking.cancel()
        beating.cancel()
        for task in done - {over}:
            task.result()  # these tasks end only by failing: raise it
        await self._dismiss_all()  # agents are answered meanwhile: the log's lock is still held
        receiving.cancel()
        await self.alerting.leave(alerting)
        return await self._leave()

    def _begin(self) -> None:
        """The first entries of a run; one that is picked up again has them, and its leases stand until their holders are heard."""
        if self.record.state.run is None:
            digest, streams = weights.sha256_in_run(self.folder.config), self.settings.streams
            sealed = any(one.sealed_datasets for one in streams.values()) or None
            first = ev.Run(ref="run", name=self.folder.name, config_sha256=digest, streams=len(streams), sealed=sealed)
            joins = [ev.Stream(ref=name) for name in streams]
            self.record.append([(NAME, first), *((NAME, join) for join in joins)])
        if seconds := set_forward_seconds(self.folder.log, self.record.clock()):
            self.record.append([(NAME, clock_was_set(seconds))])

    async def _receive(self) -> None:
        while True:
            await self.reception.take()
            await self._step()

    async def _tick(self) -> None:
        while True:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self.crew.exited.wait(), self._until_next_look())
            self.crew.exited.clear()
            await self.record.note_standstill()
            self._watch()
            with contextlib.suppress(NoSpace):  # the notes are kept until they are recorded
                self.record.append([])  # lets the writer look at the file: what a person typed is sealed soon
                await self._record_news()
            await self._widen()
            await self.hub.publish("workers", self.crew.table(self.record.state))
            await self._step()

    def _until_next_look(self) -> float:
        """Seconds: a tick, or less where an agent's lease ends before, so that the dead hold nothing longer than their lease."""
        now = self.record.clock()
        ends = (task.lease.until - now for task in self.record.state.held() if task.lease and not task.lease.worker)
        return min([TICK_SECONDS, *(left for left in ends if left > 0)])

    def _keep(self) -> None:
        self.crew.keep(kept(self.record.state, self.crew.specs(), self.record.clock(), self._cores))

    def _watch(self) -> None:
        try:
            self._keep()
            self.crew.watch(self.hub.links(), self.record.state)
            self.alerting.note_stalls(self.crew.stalled())
        except OSError as error:  # a worker could not be started: at the next look it is tried again
            if not may_pass(error):
                raise
            talk.warning("%s", error)

    async def _widen(self) -> None:
        try:
            with contextlib.suppress(NoSpace):
                await self.effects.widen()
        except OSError as error:  # the layout could not be written: what waits goes on waiting
            if not may_pass(error):
                raise
            talk.warning("%s", error)

    async def _record_news(self) -> None:
        while self.crew.news:
            await self.record.say(ev.Post(ref="run", body=self.crew.news[0]))
            self.crew.news.pop(0)

    async def _step(self) -> None:
        """Decide and carry out until nothing is left to do now; orders and dismissals change no state."""
        async with self._deciding:  # the commands of one decision are carried out before the next is made
            await self.record.note_standstill()
            for _ in range(0 if self._over.is_set() else 100):
                state, now = self.record.state, self.record.clock()
                commands = schedule.decide(state, self.crew.view(), now, self.record.settings)
                try:
                    for command in commands:
                        await self.effects.do(command)
                except Refusal as refusal:  # a report came in between: the next step decides anew
                    talk.info("not done: %s", refusal)
                    return
                if state.end:
                    self.reception.is_closing = True
                    self._over.set()
                if all(isinstance(command, BESIDE) for command in commands):
                    return

    def _stop_by_signal(self) -> None:
        if not self.record.state.stopped and not self.record.state.end:
            self.record.append([(NAME, ev.Stop(ref="run", why="the coordinator got SIGTERM"))])

    async def _dismiss_all(self) -> None:
        """Tell all workers to leave; those that do not are ended."""
        for name in self.crew.living():
            await self.hub.send(name, Quit.type, Quit(why="the run is over").toon())
        await self.crew.wait_for_all(grace_seconds=LEAVING_SECONDS)
        await asyncio.sleep(0.2)  # subscribers read the last entries before the sockets close

    async def _leave(self) -> int:
        await self.hub.close()
        self.metrics.close()
        with contextlib.suppress(FileNotFoundError):
            remove_file(self.folder.connect)
        if self.settings.listen is None:
            shutil.rmtree(self.folder.sockets(), ignore_errors=True)
        with contextlib.suppress(OSError):  # a view for people; the record is complete without it
            text = summary(list(self.record.writer.log.entries()))
            write_whole(self.folder.path / FILE, text)
        return self.record.state.end.rc if self.record.state.end else 1
