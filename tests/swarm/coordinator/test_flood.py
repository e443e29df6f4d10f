"""Members that send too much, or what they may not: the others are served, and nothing that was not granted is stored."""

from __future__ import annotations

import asyncio
import itertools
import shutil
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from bus.errors import NotAllowed, Refused
from bus.hub import Hub
from bus.keys import Join, Members
from bus.peer import Peer
from swarm import events as ev
from swarm.artifacts.metrics import MetricsFile
from swarm.coordinator.reception import LIMITS, MAX_NOTES, SPEAKS, Reception
from swarm.coordinator.record import NAME, Record
from swarm.coordinator.supervisor import Supervisor
from swarm.launch.layout import Layout
from swarm.log import LogWriter
from swarm.messages import Ask, Hello, MetricRow, Metrics, Report
from swarm.rundir import RunFolder
from swarm.settings import RunSettings

UNKNOWN = "\n".join(f"key{number}: {number}" for number in range(100_000))


@pytest.fixture
def place() -> Iterator[Path]:
    """Not tmp_path: an ipc path holds 107 bytes."""
    path = Path(tempfile.mkdtemp(prefix="f"))
    yield path
    shutil.rmtree(path)


@pytest.fixture
async def reception(place: Path) -> AsyncIterator[Reception]:
    """That of a coordinator without workers, which answers for the length of the test."""
    folder, settings = RunFolder(place), RunSettings(name="demo", streams={})
    members = Members.create(folder.keys, f"ipc://{place}/in", f"ipc://{place}/out")
    hub, metrics = Hub(members, allowed=SPEAKS, limits=LIMITS), MetricsFile(folder.metrics)
    await hub.start()
    with LogWriter.open(folder.log) as writer:
        record = Record(writer, hub, settings)
        crew = Supervisor(Layout(workers=()), folder, members, settings)
        reception = Reception(record, hub, crew, metrics, {})
        run = ev.Run(ref="run", name="demo", config_sha256="a" * 64, streams=1)
        record.append([(NAME, run), (NAME, ev.Stream(ref="only"))])

        async def serve() -> None:
            while True:
                await reception.take()

        serving = asyncio.create_task(serve())
        yield reception
        serving.cancel()
        await asyncio.wait([serving])
    metrics.close()
    await hub.close()


def peer(reception: Reception, name: str, role: str) -> Peer:
    return Peer(Join.load(reception.hub.members.invite(name, role)), heartbeat_seconds=0.2).start()


@pytest.mark.parametrize("kind", [Ask, Hello, Report])
def test_a_message_of_100_000_unknown_keys_costs_no_more_than_reading_it(kind: type[Ask]) -> None:
    """The library makes an error for each unknown key, which took seconds."""
    from toon import decode

    began = time.process_time()
    decode(UNKNOWN)
    reading = time.process_time() - began
    began = time.process_time()
    with pytest.raises(ValueError, match="too many values"):
        kind.read(UNKNOWN)
    assert time.process_time() - began < 2 * reading + 0.2


def test_unknown_keys_are_counted_at_every_level() -> None:
    nested = "what: append\nreport:\n  kind: post\n  ref: run\n  facts:\n" + "\n".join(
        f"    k{n}: 1" for n in range(50_000)
    )
    with pytest.raises(ValueError, match="too many values"):
        Ask.read(nested)


async def test_an_ask_over_its_size_is_refused_before_it_is_read_and_the_next_one_is_answered(
    reception: Reception,
) -> None:
    ada = peer(reception, "ada", "agent")
    with pytest.raises(NotAllowed, match="ask: longer than 262144 bytes"):
        await asyncio.to_thread(ada.request, "ask", UNKNOWN[:600_000])
    assert (await asyncio.to_thread(ada.request, "ask", Ask(what="links").toon())).body.startswith("links")
    ada.close(flush_seconds=0)


async def test_an_ask_of_unknown_keys_is_refused_with_status_2(reception: Reception) -> None:
    eve = peer(reception, "eve", "agent")
    with pytest.raises(Refused, match="malformed: the message has too many values") as refused:
        await asyncio.to_thread(eve.request, "ask", UNKNOWN[:200_000])
    assert refused.value.status == 2
    eve.close(flush_seconds=0)


@pytest.mark.parametrize(
    ("role", "body"), [("viewer", "what: links"), ("viewer", UNKNOWN[:3_000]), ("agent", UNKNOWN[:50_000])]
)
async def test_the_owner_is_answered_before_the_backlog_of_another(reception: Reception, role: str, body: str) -> None:
    eve, owner = peer(reception, "eve", role), peer(reception, "owner", "admin")
    assert await asyncio.to_thread(owner.wait_connected, 10)
    for _ in range(400):
        eve.send("ask", body)
    await asyncio.sleep(0.5)
    began = time.monotonic()
    ask = Ask(what="append", report=Report.of(ev.Post(ref="run", body="hello")))
    await asyncio.to_thread(owner.request, "ask", ask.toon())
    assert time.monotonic() - began < 1
    for one in (eve, owner):
        one.close(flush_seconds=0)


async def test_a_worker_key_without_a_lease_cannot_store_metrics(reception: Reception) -> None:
    record = reception.record
    (claim,) = record.writer.append([("trainer-1", ev.Claim(ref="only/train", ttl=60, beats=True))])
    (handed,) = record.writer.append([("trainer-1", ev.Hand(ref="only/train", tok=claim.seq, to="ada", ttl=60))])
    for entry in (claim, handed):
        record.state.apply(entry)
    steps = itertools.count()

    def table(stream: str, token: int) -> str:
        return Metrics.of(stream, token, 9, [MetricRow(next(steps), "train", 1.0, {"loss": 0.5})]).toon()

    holder, other = peer(reception, "trainer-1", "worker"), peer(reception, "trainer-2", "worker")
    for token in (claim.seq, handed.seq, 1, 10**17):
        other.send("metrics", table("only", token), control=False)
    for body in (
        "",
        "stream: only",
        f"token: {claim.seq}\nstream: only\nsteps: 9",
        table("only", claim.seq).replace("only", "../only"),
    ):
        other.send("metrics", body, control=False)
    good = [table("only", claim.seq), table("only", handed.seq)]
    for body in (*good, table("other", claim.seq), table("only", 1)):
        holder.send("metrics", body, control=False)
    assert await asyncio.to_thread(other.flush, 10), "what is refused is acknowledged too"
    assert await asyncio.to_thread(holder.flush, 10)
    assert [(row["stream"], row["token"]) for row in reception.metrics.read()] == [
        ("only", claim.seq),
        ("only", handed.seq),
    ]
    for one in (holder, other):
        one.close(flush_seconds=0)


async def test_refused_reports_of_one_worker_do_not_fill_the_log(reception: Reception) -> None:
    worker = peer(reception, "trainer-1", "worker")
    for token in range(1, 3 * MAX_NOTES):
        worker.send("report", Report.of(ev.Post(ref="only", body="x")).toon().replace("kind: post", "kind: stop"))
        worker.send(
            "report", Report(kind="expire", ref="only/train", facts={"tok": token, "why": "x", "failed": False}).toon()
        )
    assert await asyncio.to_thread(worker.flush, 20)
    notes = [entry for entry in reception.record.writer.log.entries() if isinstance(entry.event, ev.Refuse)]
    assert 0 < len(notes) <= MAX_NOTES
    worker.close(flush_seconds=0)
