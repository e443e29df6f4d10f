"""What the coordinator does with figures when there is no room for them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from bus.envelope import Envelope
from bus.hub import Hub
from bus.keys import Join, Members
from bus.peer import Peer
from swarm import events as ev
from swarm.artifacts.metrics import MetricsFile
from swarm.coordinator.effects import Effects
from swarm.coordinator.reception import SPEAKS, Reception
from swarm.coordinator.record import Record
from swarm.coordinator.supervisor import Supervisor
from swarm.launch.layout import Layout, WorkerSpec
from swarm.log import LogWriter
from swarm.messages import MetricRow, Metrics
from swarm.policy.schedule import decide
from swarm.rundir import RunFolder
from swarm.settings import RunSettings
from tests.swarm.story import Story, settings


async def test_while_the_disk_is_full_figures_wait_and_none_is_lost_or_half_stored(tmp_path: Path) -> None:
    folder, settings = RunFolder(tmp_path), RunSettings(name="demo", streams={})
    members = Members.create(folder.keys, f"ipc://{tmp_path}/in", f"ipc://{tmp_path}/out")
    hub, metrics = Hub(members, allowed=SPEAKS), MetricsFile(folder.metrics)
    await hub.start()
    with LogWriter.open(folder.log) as writer:
        record = Record(writer, hub, settings)
        crew = Supervisor(Layout(workers=()), folder, members, settings)
        deeds = Effects(record, hub, crew, folder)
        reception = Reception(record, hub, crew, metrics, {ev.Promote: deeds.promote_for})
        metrics._db.execute("PRAGMA max_page_count = 3")  # SQLite's own "database or disk is full"
        tables = [
            Metrics.of("wide", 5, 4000, [MetricRow(first + n, "train", 1.0) for n in range(100)])
            for first in range(0, 4000, 100)
        ]
        storing = asyncio.create_task(reception._store([Envelope(Metrics.type, table.toon()) for table in tables]))
        await asyncio.sleep(0.3)
        assert not storing.done()
        assert list(metrics.read()) == []
        metrics._db.execute("PRAGMA max_page_count = 100000")
        await storing
        assert [row["step"] for row in metrics.read()] == list(range(4000))
    metrics.close()
    await hub.close()


async def test_a_worker_whose_result_is_refused_has_left_the_task_and_after_a_hand_over_nobody_is_to_blame(
    tmp_path: Path,
) -> None:
    for handed, failed in ((False, True), (True, False)):
        folder = RunFolder(tmp_path / f"h{handed:d}")
        folder.path.mkdir(mode=0o700)
        story = Story("wide")
        story.trained("wide")
        tok = story.claim("wide/validate", "judge")
        if handed:
            story.say("ada", ev.Hand(ref="wide/validate", tok=tok, to="ada", ttl=600))
        async with desk(folder, story) as reception:
            verdict = ev.Verdict(ref="wide/validate", tok=tok, result="SUCCESS", path="streams/wide/x", sha256="a" * 64)
            await reception._report("judge", verdict)
            await reception._report("judge", verdict)
            refused, ended = (entry.event for entry in reception.record.writer.log.entries(story.state.seq))
        assert isinstance(refused, ev.Refuse) and (refused.by, refused.tok) == ("judge", tok)
        assert isinstance(ended, ev.Expire) and (ended.why, ended.failed) == ("the worker has left the task", failed)


@asynccontextmanager
async def desk(folder: RunFolder, story: Story, *workers: WorkerSpec) -> AsyncIterator[Reception]:
    """The reception of a coordinator that goes on with this story and has started no workers."""
    chosen = settings("wide")
    members = Members.create(folder.keys, f"ipc://{folder.path}/in", f"ipc://{folder.path}/out")
    hub, metrics = Hub(members, allowed=SPEAKS), MetricsFile(folder.metrics)
    await hub.start()
    with LogWriter.open(folder.log) as writer:
        writer.append([(entry.author, entry.event) for entry in story.entries])
        record = Record(writer, hub, chosen)
        crew = Supervisor(Layout(workers), folder, members, chosen)
        deeds = Effects(record, hub, crew, folder)
        yield Reception(record, hub, crew, metrics, {ev.Promote: deeds.promote_for})
    metrics.close()
    await hub.close()


async def test_a_worker_that_could_not_be_reached_gets_nothing_until_it_has_been_heard_again(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run")
    folder.path.mkdir(mode=0o700)
    async with desk(folder, Story("wide"), WorkerSpec("prep-1", ("prepare",), "cpu")) as reception:
        record, hub, crew = reception.record, reception.hub, reception.crew
        crew._members["prep-1"].state = "ready"  # it died this moment, and nobody has looked yet
        decided = 0
        for _ in range(100):
            commands = decide(record.state, crew.view(), record.clock(), settings("wide"))
            decided += len(commands)
            for command in commands:
                await Effects(record, hub, crew, folder).do(command)
        assert list(record.writer.log.entries(2)) == [] and decided == 1, "no lease begins that nobody could keep"
        peer = Peer(Join.load(hub.members.invite("prep-1", "worker")), heartbeat_seconds=0.05).start()
        while crew.view()[0].state != "ready":
            await asyncio.sleep(0.05)
            crew.watch(hub.links(), record.state)
        await asyncio.to_thread(peer.close)
        assert record.state.tasks["wide/prepare"].failures == []


async def test_the_next_attempt_is_given_the_seconds_that_a_killed_one_worked(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run")
    folder.path.mkdir(mode=0o700)
    story = Story("wide")
    story.prepared("wide")
    tok = story.claim("wide/train", "trainer-1")
    story.say("coordinator", ev.Expire(ref="wide/train", tok=tok, why="killed by SIGKILL", worked=8.0))
    again = story.claim("wide/train", "trainer-1")
    async with desk(folder, story) as reception:
        effects = Effects(reception.record, reception.hub, reception.crew, folder)
        piece = effects._piece("wide/train", again)
    assert (piece.token, piece.spent_seconds) == (again, 8.0)


HOSTILE_BEATS = (
    "\n".join(f"key{number}: {number}" for number in range(3000)), "".join(f"{' ' * depth}a:\n" for depth in range(200)),
    *(f"state: working\nmemory_bytes: {value}" for value in ("-1", "9" * 4000, "1e999", "true")),
    *(
        f"state: working\nholds[1]{{ref,token,state,step,worked,kept_bytes}}:\n  wide/train,{row}"
        for row in (f"{'9' * 4000},working,1,1,1", f"1,working,{'9' * 4000},1,1", "1,working,1,1e999,1", "1,working,1,-1,1", f"1,working,1,1,{'9' * 400}")
    ),
    "\x1b[2J", "x" * (64 << 10),
)  # fmt: skip


async def test_a_heartbeat_of_any_text_ends_no_coordinator_and_one_that_is_too_long_is_refused(tmp_path: Path) -> None:
    folder, now = RunFolder(tmp_path / "run"), ["state: idle"]
    folder.path.mkdir(mode=0o700)
    async with desk(folder, Story("wide"), WorkerSpec("trainer-1", ("train",), "cpu")) as reception:
        hub, crew, state = reception.hub, reception.crew, reception.record.state
        crew._members["trainer-1"].state = "ready"  # no process is started for it
        join = Join.load(hub.members.invite("trainer-1", "worker"))
        worker = Peer(join, heartbeat=lambda: now[0], heartbeat_seconds=0.02).start()

        async def heard(text: str) -> None:
            now[0] = text
            while (link := hub.links().get("trainer-1")) is None or link.heartbeat != text:
                await asyncio.sleep(0.01)
            crew.watch(hub.links(), state)

        for text in HOSTILE_BEATS:
            await heard(text)
            reception.crew.table(state)
            assert crew.view()[0].holds == ()
        assert hub.links()["trainer-1"].refused == 0
        now[0] = "x" * (1 + (64 << 10))
        while not hub.links()["trainer-1"].refused:
            await asyncio.sleep(0.01)
        assert len(hub.links()["trainer-1"].heartbeat) == 64 << 10
        await asyncio.to_thread(worker.close)
