"""Figures of the bus, as ratios inside one run: `python tests/benchmarks/bench_bus.py [rounds]`. Absolute rates are the machine's.

The floor is pyzmq DEALER to DEALER over ipc without encryption, batches of one 300-byte message, credit window 1024; the bus is Peer to
Hub with CURVE, the door, strict unpacking, numbers, acknowledgements. Rounds alternate, the median ratio counts.
"""

import asyncio
import json
import multiprocessing
import shutil
import sqlite3
import statistics
import sys
import tempfile
import time
from pathlib import Path

import zmq

from bus.hub import Hub
from bus.keys import Join, Members
from bus.links import Limits, Rate
from bus.peer import Peer

SPAWN = multiprocessing.get_context("spawn")
BODY = "x" * 270
ROW = "1200,0.6123,2e-4,0.81,2143.2,21.4,93,61,0.702"
ROWS = 64
WINDOW = 1024
HUB_CPU_US: list[float] = []
"""Processor time of the hub's process a message, one entry a run: says more than a rate on a machine that others use."""


def floor_sender(endpoint, count):
    context = zmq.Context()
    dealer = context.socket(zmq.DEALER)
    dealer.connect(endpoint)
    credit = WINDOW
    for _ in range(count):
        if not credit:
            dealer.recv()
            credit += 64
        dealer.send(BODY.encode())
        credit -= 1
    while dealer.recv() != b"end":
        pass
    dealer.close(0)
    context.term()


def floor_rate(folder, count):
    context = zmq.Context()
    dealer = context.socket(zmq.DEALER)
    dealer.bind(f"ipc://{folder}/floor")
    process = SPAWN.Process(target=floor_sender, args=(f"ipc://{folder}/floor", count))
    process.start()
    dealer.recv()
    began = time.perf_counter()
    for number in range(2, count + 1):
        dealer.recv()
        if number % 64 == 0:
            dealer.send(b"k")
    rate = (count - 1) / (time.perf_counter() - began)
    dealer.send(b"end")
    process.join()
    dealer.close(0)
    context.term()
    return rate


def bus_sender(join, count, body, spool):
    peer = Peer(Join.load(join), spool=spool).start()
    peer.wait_connected(20)
    for number in range(count):
        peer.send("fact", body)
        if number % WINDOW == 0:
            while len(peer._mail.outbox) > 4 * WINDOW:
                time.sleep(0.002)
    peer.close(flush_seconds=60)


async def bus_rate(folder, senders, count, *, body=BODY, spool=False, database=None):
    members = Members.create(folder / "keys", f"ipc://{folder}/in", f"ipc://{folder}/out")
    hub = Hub(members, allowed={"worker": frozenset({"*"})}, limits=Limits(rate=Rate(1e9, 1e12)))
    joins = [members.invite(f"w{number}", "worker") for number in range(senders)]
    await hub.start()
    processes = [
        SPAWN.Process(target=bus_sender, args=(join, count // senders, body, folder / join.stem if spool else None))
        for join in joins
    ]
    for process in processes:
        process.start()
    batch = [await hub.receive()]
    began, cpu, got = time.perf_counter(), time.process_time(), 0
    total = count // senders * senders
    while True:
        got += len(batch)
        if database is not None:
            rows = [tuple(map(float, row.split(","))) for envelope in batch for row in envelope.body.split("\n")]
            database.executemany("insert into metrics values (?,?,?,?,?,?,?,?,?)", rows)
            database.commit()
        for envelope in batch:
            await hub.acknowledge(envelope)
        if got == total:
            break
        batch = await hub.receive_batch(256)
    rate = got / (time.perf_counter() - began)
    HUB_CPU_US.append((time.process_time() - cpu) / got * 1e6)
    await asyncio.sleep(0.05)
    for process in processes:
        await asyncio.to_thread(process.join)
    await hub.close()
    shutil.rmtree(members.folder)
    return rate


def open_database(folder, name):
    database = sqlite3.connect(folder / name)
    database.execute("pragma journal_mode=wal")
    database.execute("pragma synchronous=normal")
    database.execute("create table metrics (a real, b real, c real, d real, e real, f real, g real, h real, i real)")
    return database


def insert_floor(folder, messages):
    """json.loads and the same insert in one process, rows a second."""
    database = open_database(folder, "floor.db")
    texts = [json.dumps([[float(cell) for cell in ROW.split(",")]] * ROWS) for _ in range(messages)]
    began = time.perf_counter()
    for first in range(0, messages, 256):
        rows = [row for text in texts[first : first + 256] for row in json.loads(text)]
        database.executemany("insert into metrics values (?,?,?,?,?,?,?,?,?)", rows)
        database.commit()
    rate = messages * ROWS / (time.perf_counter() - began)
    database.close()
    return rate


async def command_ms(folder, count=300):
    """Hub.send to Peer.receive in another thread, idle, milliseconds sorted."""
    members = Members.create(folder / "keys", f"ipc://{folder}/in", f"ipc://{folder}/out")
    hub = Hub(members, allowed={"worker": frozenset({"*"})})
    await hub.start()
    peer = Peer(Join.load(members.invite("w1", "worker"))).start()
    await asyncio.to_thread(peer.wait_connected, 20)
    times = []
    for _ in range(count):
        waiting = asyncio.create_task(asyncio.to_thread(lambda: (peer.receive(5), time.perf_counter())))
        await asyncio.sleep(0.005)
        began = time.perf_counter()
        await hub.send("w1", "command", "stop")
        times.append(((await waiting)[1] - began) * 1000)
    await asyncio.to_thread(peer.close)
    await hub.close()
    shutil.rmtree(members.folder)
    return sorted(times)


def send_us(folder, spool, count=5000):
    """What one `send` costs its caller, with the bus thread at work; median of rounds of 10, microseconds."""
    members = Members.create(folder / "keys", f"ipc://{folder}/in", f"ipc://{folder}/out")
    peer = Peer(Join.load(members.invite("w1", "worker")), spool=folder / "send-spool" if spool else None).start()
    times = []
    for _ in range(count):
        began = time.perf_counter()
        peer.send("metrics", ROW, control=False)
        times.append((time.perf_counter() - began) * 1e6)
        time.sleep(0)
    peer.close(flush_seconds=0)
    shutil.rmtree(members.folder)
    return sorted(times)


def main(rounds):
    folder = Path(tempfile.mkdtemp(prefix="bb"))
    ratios, rates, plain = {}, {}, [0.0]

    def note(name, rate, floor):
        ratios.setdefault(name, []).append(rate / floor)
        rates.setdefault(name, []).append(rate)

    for _ in range(rounds):
        floor = floor_rate(folder, 60_000)
        note("floor: DEALER-DEALER, no CURVE", floor, floor)
        note("bus, 1 peer", asyncio.run(bus_rate(folder, 1, 20_000)), floor)
        note("bus, 1 peer with disk spool", asyncio.run(bus_rate(folder, 1, 20_000, spool=True)), floor)
        note("bus, 4 peers", asyncio.run(bus_rate(folder, 4, 20_000)), floor)
        plain = HUB_CPU_US[-3:]
        rows = insert_floor(folder, 2000)
        note("rows floor: json.loads + SQLite, one process", rows, rows)
        database = open_database(folder, "bus.db")
        body = "\n".join([ROW] * ROWS)
        note(
            "rows: bus, split, SQLite; 64 a message",
            asyncio.run(bus_rate(folder, 1, 2000, body=body, database=database)) * ROWS,
            rows,
        )
        database.close()
        for path in folder.glob("*.db*"):
            path.unlink()
    for name, values in ratios.items():
        print(f"{name:48} {statistics.median(rates[name]):12,.0f}/s   ratio {statistics.median(values):.2f}")
    print(f"{'hub, processor time a message':48} {statistics.median(plain):.1f} us")
    for spool in (False, True):
        times = send_us(folder, spool)
        where = "with disk spool" if spool else "in memory"
        print(f"one send, {where:38} p50 {times[len(times) // 2]:.0f} us   p99 {times[len(times) * 99 // 100]:.0f} us")
    times = asyncio.run(command_ms(folder))
    print(f"{'command, idle':48} p50 {times[len(times) // 2]:.2f} ms   p99 {times[len(times) * 99 // 100]:.2f} ms")
    shutil.rmtree(folder)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 3)
