"""The coordinator: the one process that records what happens, decides what is next and carries it out.

One way through: an envelope comes in (`_receive`), what it reports is admitted, appended to the log, folded, acknowledged
and published (`record`); then `schedule.decide` says what follows (`_step`).  It is alive while it holds the log's lock.
Run as `python -m swarm.coordinator RUN [--resume AUTHOR]`, detached.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import logging
import signal
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path

from pydantic import ValidationError

from bus.envelope import Envelope
from bus.hub import Hub, Link
from swarm import config, promotion, publish, schedule
from swarm import events as ev
from swarm.admission import MAY_APPEND, admit, permit
from swarm.crew import Crew
from swarm.keyring import open_members, write_connect
from swarm.log import Entry, LogError, LogFull, LogHeld, LogWriter, render
from swarm.messages import Ask, Assign, Hello, Message, Metrics, Order, Quit, Ready, Report
from swarm.metrics import MetricsFile
from swarm.placement import Layout
from swarm.rundir import RunFolder, write_whole
from swarm.settings import RunSettings, StreamSettings
from swarm.state import Refusal, State, fold
from toon import ToonError, encode

NAME = "coordinator"
TICK_SECONDS = 0.25
"""How often it looks at the clock; everything else wakes it at once."""
BATCH = 256
"""Messages handled at most with one commit to the metrics."""

SPEAKS = {
    "worker": frozenset({"hello", "ready", "report", "metrics", "bye"}),
    "agent": frozenset({"ask"}),
    "viewer": frozenset({"ask"}),
    "admin": frozenset({"ask"}),
}
"""Message types by role on the bus; what an `ask` may append is `state.MAY_APPEND`'s business."""

FULL_DISK_SECONDS = 2.0

talk = logging.getLogger("swarm.coordinator")


class NoSpace(Refusal):
    """The disk is full: the same entry may be tried again."""


class Coordinator:
    """Holds the log's lock, the hub, the metrics and the crew of workers for one run."""

    def __init__(
        self, folder: RunFolder, settings: RunSettings, layout: Layout, writer: LogWriter, clock: Callable[[], float]
    ) -> None:
        self.folder, self.settings, self.writer, self.clock = folder, settings, writer, clock
        self.state: State = fold(writer.log.entries())
        self.metrics = MetricsFile(folder.metrics)
        self.members = open_members(folder)
        self.hub = Hub(self.members, allowed=SPEAKS)
        self.crew = Crew(layout, folder, self.members)
        self._refused: set[tuple[str, int | None, str]] = set()
        self._deciding = asyncio.Lock()
        self._over = asyncio.Event()

    # ---- life --------------------------------------------------------------------------------------------------------

    async def run(self, *, resumed_by: str | None) -> int:
        """From the first entry to the last; returns the run's exit status."""
        await self.hub.start()
        self._begin(resumed_by)
        write_connect(self.folder, self.members)
        self.crew.start_all()
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, self._stop_by_signal)
        receiving, ticking = asyncio.create_task(self._receive()), asyncio.create_task(self._tick())
        over = asyncio.create_task(self._over.wait())
        done, _ = await asyncio.wait([over, receiving, ticking], return_when=asyncio.FIRST_COMPLETED)
        ticking.cancel()
        for task in done - {over}:
            task.result()  # a pump ends only by failing: let it be seen
        await self._see_off()  # agents are answered meanwhile: the log is still in our hands
        receiving.cancel()
        return await self._leave()

    def _begin(self, resumed_by: str | None) -> None:
        """The first entries of a run, or those that pick it up again."""
        if self.state.run is None:
            digest = publish.sha256_of(self.folder.config)
            first: list[ev.Event] = [
                ev.Run(ref="run", name=self.folder.name, config_sha256=digest, streams=len(self.settings.streams))
            ]
            self._append(
                [(NAME, event) for event in [*first, *(ev.Stream(ref=name) for name in self.settings.streams)]]
            )
            return
        restarted = "the coordinator was started again"
        self._append(
            [
                (NAME, ev.Expire(ref=t.ref, tok=t.lease.token, why=restarted, failed=False))
                for t in self.state.held()
                if t.lease and t.lease.worker  # agents live on without a coordinator, and their leases run on
            ]
        )
        if resumed_by and (self.state.end or self.state.stopped):
            again = [ev.Resume(ref=s.name) for s in self.state.streams.values() if s.failed or s.wish == "stop"]
            self._append([(resumed_by, event) for event in [ev.Resume(ref="run"), *again]])

    async def _see_off(self) -> None:
        """Send everybody home; what does not go is ended."""
        for name in self.crew.living():
            await self.hub.send(name, Quit.type, Quit(why="the run is over").toon())
        await self.crew.wait_for_all(grace_seconds=20.0)
        await asyncio.sleep(0.2)  # subscribers read the last entries before the sockets close

    async def _leave(self) -> int:
        await self.hub.close()
        self.metrics.close()
        self.folder.connect.unlink(missing_ok=True)
        return self.state.end.rc if self.state.end else 1

    def _stop_by_signal(self) -> None:
        if not self.state.stopped and not self.state.end:
            self._append([(NAME, ev.Stop(ref="run", why="the coordinator got SIGTERM"))])

    # ---- in: from envelope to entry ----------------------------------------------------------------------------------

    async def _receive(self) -> None:
        """Everything that waits is handled as one batch: one commit to the metrics."""
        while True:
            batch = await self.hub.receive_batch(BATCH)
            await self._store([envelope for envelope in batch if envelope.type == Metrics.type])
            for envelope in batch:
                if envelope.type != Metrics.type:
                    await self._handle(envelope)
            await self._step()

    async def _store(self, envelopes: Sequence[Envelope]) -> None:
        tables = []
        for envelope in envelopes:
            try:
                tables.append((envelope, Metrics.read(envelope.body)))
            except (ToonError, ValidationError) as error:
                talk.warning("metrics of %s are malformed: %s", envelope.source, error)
        self.metrics.insert(table for _, table in tables)
        for envelope in envelopes:
            await self.hub.acknowledge(envelope)
        for envelope, _ in tables:
            await self.hub.publish(Metrics.type, envelope.body)

    async def _handle(self, envelope: Envelope) -> None:
        try:
            match envelope.type:
                case Hello.type:
                    self.crew.hello(envelope.source, Hello.read(envelope.body))
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
            talk.warning("%s of %s is malformed: %s", envelope.type, envelope.source, error)
            if envelope.type == Ask.type:
                await self.hub.refuse(envelope, f"malformed: {_first_line(error)}", status=2)
        await self.hub.acknowledge(envelope)

    async def _report(self, source: str, event: ev.Event) -> None:
        """What a worker reports is fenced by its token; a stale report is noted once and never applied."""
        try:
            if event.kind not in MAY_APPEND["worker"]:
                raise Refusal(f"a worker may not append {event.kind!r}")
            await self._keep((source, event))
        except Refusal as refusal:
            token = event.facts().get("tok")
            if (event.ref, token, event.kind) not in self._refused:
                self._refused.add((event.ref, token, event.kind))
                await self._keep((NAME, ev.Refuse(ref=event.ref, tok=token, by=source, why=str(refusal))))
        if event.kind in {"done", "drop"}:
            self.crew.idle(source, event.ref)

    async def _keep(self, item: tuple[str, ev.Event]) -> None:
        """Record what must not be lost: on a full disk everything waits here until there is space."""
        while True:
            try:
                await self.record([item])
                return
            except NoSpace as full:
                talk.warning("%s; trying again", full)
                await asyncio.sleep(FULL_DISK_SECONDS)

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
                return await self._append_for(envelope.source, envelope.role, ask.report.event())
            case "workers":
                return self.crew.table()
            case "links":
                return encode({"links": [_link_row(link) for link in self.hub.links().values()]})
            case "state":
                end = self.state.end
                return encode({"seq": self.state.seq, "ended": end is not None, "rc": end.rc if end else None})

    async def _append_for(self, author: str, role: str, event: ev.Event) -> str:
        permit(role, event)
        if self._over.is_set() and isinstance(event, ev.Resume):
            raise Refusal("the run has just ended and its workers are leaving; `swarm resume` in a few seconds")
        seq = self.state.repeat_of(author, event)
        if seq is None and isinstance(event, ev.Promote):
            admit(self.state, author, event, self.clock())
            promotion.admit_promotion(self.state, self.settings.promotion, event)
            seq = (await self._promote(event.ref, event.why, author, force=bool(event.force))).seq
        if seq is None:
            seq = (await self.record([(author, event)]))[-1].seq
        return encode({"seq": seq, "kind": event.kind, "ref": event.ref})

    # ---- the record --------------------------------------------------------------------------------------------------

    async def record(self, items: Sequence[tuple[str, ev.Event]]) -> list[Entry]:
        """Append, fold, publish.  Raises Refusal, and then nothing was written."""
        entries = self._append(items)
        for entry in entries:
            await self.hub.publish("entry", render(entry))
        return entries

    def _append(self, items: Sequence[tuple[str, ev.Event]]) -> list[Entry]:
        for author, event in items:
            admit(self.state, author, event, self.clock())
        try:
            entries = self.writer.append(items)
        except LogFull as error:
            raise NoSpace(str(error)) from error
        except LogError as error:
            raise Refusal(f"{self.folder.log}: {error}") from error
        for entry in self.writer.log.entries(self.state.seq):  # also what the writer itself sealed
            self.state.apply(entry)
        return entries

    # ---- out: from state to what is done -----------------------------------------------------------------------------

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(TICK_SECONDS)
            with contextlib.suppress(NoSpace):  # there is nothing to lose here
                self._append([])  # looks after the log: what a person typed is sealed soon
            self.crew.watch(self.hub.links(), needed_roles=self._needed_roles())
            await self.hub.publish("workers", self.crew.table())
            await self._step()

    def _needed_roles(self) -> frozenset[str]:
        return frozenset(
            role
            for stream in self.state.streams.values()
            if not stream.over and not self.state.stopped
            for role in ev.ROLES
            if self.state.tasks[f"{stream.name}/{role}"].done is None
        )

    async def _step(self) -> None:
        """Decide and do until nothing is left to do now; orders are for the workers and change nothing here."""
        async with self._deciding:  # what one decision has begun is done before the next one looks
            for _ in range(0 if self._over.is_set() else 100):
                commands = schedule.decide(self.state, self.crew.view(), self.clock(), self.settings)
                try:
                    for command in commands:
                        await self._do(command)
                except Refusal as refusal:  # a report came in between: the next look decides anew
                    talk.info("not done: %s", refusal)
                    return
                if all(isinstance(command, schedule.Order | schedule.Dismiss) for command in commands):
                    return

    async def _do(self, command: schedule.Command) -> None:
        match command:
            case schedule.Claim(ref, worker):
                await self._claim(ref, worker)
            case schedule.Expire(ref, token, why, failed):
                lease = self.state.tasks[ref].lease
                await self.record([(NAME, ev.Expire(ref=ref, tok=token, why=why, failed=failed))])
                if lease and lease.worker:
                    self.crew.kill(lease.worker, ref)
            case schedule.Order(ref, token, worker, what):
                if self.crew.may_order(worker, what):
                    await self.hub.send(worker, Order.type, Order(ref=ref, token=token, what=what).toon())
            case schedule.GoBack(stream, why):
                await self._go_back(stream, why)
            case schedule.GiveUp(stream, why):
                await self.record([(NAME, ev.Fail(ref=stream, why=why))])
            case schedule.Publish(stream):
                await self._publish(stream)
            case schedule.Promote(choice):
                assert choice.winner
                try:
                    await self._promote(choice.winner, choice.why)
                except Refusal as refusal:
                    await self.record([(NAME, ev.Fail(ref=choice.winner, why=str(refusal)))])
            case schedule.Dismiss(worker):
                if self.crew.dismiss(worker):
                    await self.hub.send(worker, Quit.type, Quit(why="no work is left for your roles").toon())
            case schedule.Finish(rc, why):
                await self.record([(NAME, ev.End(ref="run", rc=rc, body=why))])
                self._over.set()

    async def _claim(self, ref: str, worker: str) -> None:
        claim = ev.Claim(ref=ref, ttl=self.settings.lease_seconds, beats=True)
        [entry] = self._append([(worker, claim)])
        self.crew.busy(worker, ref, entry.seq)
        await self.hub.publish("entry", render(entry))
        if not await self.hub.send(worker, Assign.type, self._assignment(ref, entry.seq).toon()):
            self.crew.idle(worker, ref)
            await self.record(
                [(NAME, ev.Expire(ref=ref, tok=entry.seq, why="the worker could not be reached", failed=False))]
            )

    def _assignment(self, ref: str, token: int) -> Message:
        task = self.state.tasks[ref]
        stream = self.state.streams[ref.partition("/")[0]]
        assert task.role
        judged = stream.candidate if task.role in {"validate", "evaluate"} else None
        return Assign(
            ref=ref,
            token=token,
            role=task.role,
            stream=stream.name,
            settings=self._settings_of(stream.name),
            prepared=stream.prepared.path if stream.prepared else None,
            resume_from=self.folder.checkpoints(stream.name) if task.role == "train" else [],
            checkpoint=judged.path if judged else None,
            sha256=judged.sha256 if judged else None,
            heldout=stream.heldout_of(judged.path) if judged else None,
        )

    def _settings_of(self, stream: str) -> StreamSettings:
        return self.settings.streams[stream]

    async def _publish(self, name: str) -> None:
        try:
            event = publish.adapter(self.folder, self.state, name, self._settings_of(name))
        except publish.PublishError as error:
            await self._go_back(name, f"publishing the adapter: {error}")
        except OSError as error:
            await self.record([(NAME, ev.Fail(ref=name, why=f"publishing the adapter: {error}"))])
        else:
            await self.record([(NAME, event)])

    async def _go_back(self, name: str, why: str) -> None:
        """To the newest earlier checkpoint whose weights still stand; old ones are removed as training goes on."""
        for saved in self.state.streams[name].earlier():
            if publish.intact(self.folder, saved.path, saved.sha256) == "ok":
                facts = {"tok": saved.tok, "step": saved.step, "path": saved.path, "sha256": saved.sha256}
                await self.record([(NAME, ev.Back.model_validate({"ref": name, "why": why, **facts}))])
                return
        await self.record([(NAME, ev.Fail(ref=name, why=f"validation: {why}; no earlier checkpoint is left"))])

    async def _promote(self, name: str, why: str, author: str = NAME, *, force: bool = False) -> Entry:
        """Files first, then the entry: an entry says what is so.  Raises Refusal, and then `promoted/` is as it was."""
        try:
            event = publish.promotion(self.folder, self.state, name, self._settings_of(name), why, force=force)
        except (publish.PublishError, OSError) as error:
            raise Refusal(f"promotion of {name}: {error}") from error
        return (await self.record([(author, event)]))[-1]


def _link_row(link: Link) -> dict[str, str | int | float]:
    """One member's link, as `swarm export --what bus` tells it."""
    row = {**asdict(link), "silent_seconds": round(time.monotonic() - link.last_heard, 1)}
    return {name: value for name, value in row.items() if name not in {"last_heard", "heartbeat", "incarnation"}}


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__


def steady_clock() -> Callable[[], float]:
    """Log time while this process holds the log: the wall clock of now, going on as steadily as the machine.

    A wall clock that is set meanwhile ends no lease and makes none longer; sleep of the machine counts.
    """
    start = time.time() - time.clock_gettime(time.CLOCK_BOOTTIME)
    return lambda: start + time.clock_gettime(time.CLOCK_BOOTTIME)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m swarm.coordinator", description=__doc__)
    parser.add_argument("run", type=Path)
    parser.add_argument(
        "--resume", metavar="AUTHOR", default=None, help="go on with a stopped or ended run on behalf of AUTHOR"
    )
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    folder = RunFolder(options.run.resolve())
    settings = config.load(folder.config, cwd=folder.path).run
    try:
        clock = steady_clock()
        with LogWriter.open(folder.log, wait_seconds=2.0, secret=_secret(folder), clock=clock) as writer:
            coordinator = Coordinator(folder, settings, Layout.read(folder.layout), writer, clock)
            return asyncio.run(coordinator.run(resumed_by=options.resume))
    except LogHeld as error:
        print(f"{folder.log}: {error}; `swarm watch` attaches to it", file=sys.stderr)
        return 2


def _secret(folder: RunFolder) -> bytes:
    """The key of the log's signed heads; whoever can read it can sign."""
    path = folder.path / "keys" / "log.key"
    if not path.exists():
        import secrets

        path.parent.mkdir(mode=0o700, exist_ok=True)
        write_whole(path, secrets.token_hex(32), mode=0o600)
    return bytes.fromhex(path.read_text(encoding="utf-8"))


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        sys.exit(main())
