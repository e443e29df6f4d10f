"""Part of bench_bus: rows of figures through the whole path, and the processor time of each part of it.

The path is the product's: `Metrics` bodies of 64 rows, a Peer in another process, CURVE, the Hub, `Reception._store` (strict TOON,
validation, SQLite, acknowledgement, publication).  The floor is json.loads of the finished records and the same insert into the same
table in one process: no bus, no keys, no checks.  Both commit at most 256 messages at once; every row is another step.
"""

import asyncio
import json
import random
import time

from bus.hub import Hub
from bus.keys import Join
from bus.links import Limits, Rate
from bus.peer import Peer
from swarm.artifacts.metrics import MetricsFile, _insertion, _records
from swarm.coordinator.reception import BATCH, Reception
from swarm.messages import MetricRow, Metrics, _checked
from toon import decode_tables

ROWS = 64


def tables(stream, count):
    """What a trainer at ten steps a second would say."""
    chance = random.Random(stream)

    def row(step):
        time = round(1.79e9 + step / 10 + chance.random() / 50, 6)
        figures = {
            "epoch": round(step / 900, 4), "loss": round(2.5 / (step + 1) ** 0.2 + chance.random() / 5, 6),
            "learning_rate": round(2e-4 * (1 - step / 1e6), 12), "grad_norm": round(0.4 + chance.random(), 6), "tokens": step * 913,
            "tokens_per_second": round(8900 + 400 * chance.random(), 1), "memory_bytes": 1_400_000_000 + 4096 * chance.randrange(9999),
        }  # fmt: skip
        return MetricRow(step, "train", time, figures)

    for number in range(count):
        steps = range(number * ROWS, number * ROWS + ROWS)
        yield Metrics.of(stream, 7, 1_000_000, [row(step) for step in steps])


def floor(path, count):
    """Seconds, by the clock and of the processor, for json.loads and the insert."""
    made = list(tables("w0", count))
    texts, insertion = [json.dumps(list(_records(table))) for table in made], _insertion(made[0].names)
    file = MetricsFile(path)
    file.insert(made[:1])  # the columns
    del made
    began, cpu = time.perf_counter(), time.process_time()
    for first in range(0, count, BATCH):
        with file._db:
            file._db.executemany(insertion, [row for text in texts[first : first + BATCH] for row in json.loads(text)])
    spent = time.perf_counter() - began, time.process_time() - cpu
    file.close()
    return spent


def sender(join, stream, count, barrier, spent):
    """A process that sends once all of them have their bodies and are connected."""
    bodies = [table.toon() for table in tables(stream, count)]
    peer = Peer(Join.load(join)).start()
    peer.wait_connected(60)
    barrier.wait()
    cpu = time.process_time()
    for body in bodies:
        while len(peer._mail.outbox) > 1000:
            time.sleep(0.002)
        peer.send(Metrics.type, body, control=False)
    peer.flush(60)
    spent.put((time.process_time() - cpu, peer.counters.dropped))
    peer.close()


async def ingest(members, path, count, senders, spawn):
    """Seconds by the clock and of this process, and of the senders, from the first batch to the last row in the database."""
    hub = Hub(members, allowed={"worker": frozenset({"*"})}, limits=Limits(rate=Rate(1e9, 1e12)))
    await hub.start()
    reception = Reception.__new__(Reception)  # without a log and a crew, which figures do not meet
    reception.hub, reception.metrics = hub, MetricsFile(path)
    barrier, spent, processes = spawn.Barrier(senders), spawn.SimpleQueue(), []
    for number in range(senders):
        arguments = (members.invite(f"w{number}", "worker"), f"w{number}", count // senders, barrier, spent)
        processes.append(spawn.Process(target=sender, args=arguments))
        processes[-1].start()
    batch, left = await hub.receive_batch(BATCH), count // senders * senders
    began, cpu = time.perf_counter(), time.process_time()
    while True:
        left -= len(batch)
        await reception._store(batch)
        if not left:
            break
        batch = await hub.receive_batch(BATCH)
    seconds = time.perf_counter() - began, time.process_time() - cpu
    (rows,) = reception.metrics._db.execute("SELECT COUNT(*) FROM metrics").fetchone()
    assert rows == count // senders * senders * ROWS, "every row is there once"
    hub._acknowledge_now()
    while any(process.is_alive() for process in processes):
        await asyncio.sleep(0.01)
    told = [spent.get() for _ in processes]
    assert not any(dropped for _, dropped in told)
    reception.metrics.close()
    await hub.close()
    return *seconds, sum(cpu for cpu, _ in told)


def parts(path, count):
    """Processor seconds of the parts that are not the bus."""
    bodies = [table.toon() for table in tables("w0", count)]
    file, spent, clock = MetricsFile(path), {}, time.process_time
    began = clock()
    decoded = [decode_tables(body) for body in bodies]
    spent["decode"] = clock() - began
    began = clock()
    for value in decoded:
        _checked(value["rows"])
    spent["validate"] = clock() - began
    checked = [Metrics.read(body) for body in bodies]
    began = clock()
    for first in range(0, count, BATCH):
        file.insert(checked[first : first + BATCH])
    spent["insert"] = clock() - began
    file.close()
    return spent
