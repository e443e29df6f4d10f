"""Figures of the bus, as ratios inside one run: `python tests/benchmarks/bench_bus.py [rounds] [raw] [rows] [metric] [orders]`.

raw     messages of 270 bytes, Peer to Hub (CURVE, the door, strict unpacking, numbers, acknowledgements), beside pyzmq DEALER to
        DEALER over ipc without any of that, credit window 1024; and the processor time that a message takes at each end
rows    rows stored a second through the whole path beside json.loads and the same insert, 64 rows a message: see bus_rows
metric  what a metric costs the thread that trains, as a share of its step: see bus_orders
orders  a command to an idle peer; an order to a trainer, in steps begun after it has arrived: see bus_orders

Rounds alternate between a case and its floor, and the median ratio counts.  Absolute rates are the machine's; processor time says more
than a rate on a machine that others use.
"""

import asyncio
import gc
import multiprocessing
import shutil
import statistics
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import bus_orders
import bus_rows
import zmq

from bus.hub import Hub
from bus.keys import Join, Members
from bus.links import Limits, Rate
from bus.peer import Peer

SPAWN = multiprocessing.get_context("spawn")
BODY = "x" * 270
WINDOW = 1024
ALL = {"worker": frozenset({"*"})}


def members_in(folder):
    """A fresh list on fresh sockets."""
    place = Path(tempfile.mkdtemp(prefix="m", dir=folder))
    return Members.create(place / "keys", f"ipc://{place}/in", f"ipc://{place}/out")


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
    began, cpu = time.perf_counter(), time.process_time()
    for number in range(2, count + 1):
        dealer.recv()
        if number % 64 == 0:
            dealer.send(b"k")
    spent = (count - 1) / (time.perf_counter() - began), (time.process_time() - cpu) / count * 1e6
    dealer.send(b"end")
    process.join()
    dealer.close(0)
    context.term()
    return spent


def bus_sender(join, count, spool, spent):
    peer = Peer(Join.load(join), spool=spool).start()
    peer.wait_connected(20)
    gc.collect()
    gc.freeze()  # the modules of this script: one pass of the collector over them would count as a microsecond a message
    cpu = time.process_time()
    for number in range(count):
        peer.send("fact", BODY)
        if number % WINDOW == 0:
            while len(peer._mail.outbox) > 4 * WINDOW:
                time.sleep(0.002)
    peer.flush(60)
    spent.put((time.process_time() - cpu) / count * 1e6)
    peer.close()


async def bus_rate(folder, senders, count, *, spool=False):
    """Messages a second, and microseconds of processor a message at the hub and at a peer."""
    members, spent = members_in(folder), SPAWN.SimpleQueue()
    hub = Hub(members, allowed=ALL, limits=Limits(rate=Rate(1e9, 1e12)))
    await hub.start()
    processes = []
    for number in range(senders):
        place = members.folder / f"spool{number}" if spool else None
        arguments = (members.invite(f"w{number}", "worker"), count // senders, place, spent)
        processes.append(SPAWN.Process(target=bus_sender, args=arguments))
        processes[-1].start()
    batch, got, total = [await hub.receive()], 0, count // senders * senders
    began, cpu = time.perf_counter(), time.process_time()
    while True:
        got += len(batch)
        for envelope in batch:
            await hub.acknowledge(envelope)
        if got == total:
            break
        batch = await hub.receive_batch(256)
    rate, hub_us = got / (time.perf_counter() - began), (time.process_time() - cpu) / got * 1e6
    while any(process.is_alive() for process in processes):
        await asyncio.sleep(0.01)
    peer_us = statistics.mean(spent.get() for _ in processes)
    await hub.close()
    return rate, hub_us, peer_us


async def command_ms(members, count=300):
    """Hub.send to Peer.receive in another thread, idle, milliseconds sorted."""
    hub = Hub(members, allowed=ALL)
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
    return sorted(times)


def percentiles(times, unit):
    return f"p50 {times[len(times) // 2]:.2f} {unit}   p99 {times[len(times) * 99 // 100]:.2f} {unit}"


def middle(values, digits=2):
    """The median with all that it is the median of."""
    return f"{statistics.median(values):.{digits}f} ({' '.join(f'{value:.{digits}f}' for value in values)})"


def raw(folder, rounds):
    cases = {"1 peer": (1, False), "1 peer, spool on disk": (1, True), "4 peers": (4, False)}
    found = {name: [] for name in cases}
    for _ in range(rounds):
        floor, floor_us = floor_rate(folder, 60_000)
        for name, (senders, spool) in cases.items():
            rate, *us = asyncio.run(bus_rate(folder, senders, 20_000, spool=spool))
            found[name].append((rate / floor, floor_us / us[0], *us))
    for name, rows in found.items():
        ratio, by_cpu, hub_us, peer_us = zip(*rows, strict=True)
        print(f"messages, {name:22} ratio {middle(ratio)}   at the receiver by processor time {middle(by_cpu)}")
        print(f"{'':32} hub {middle(hub_us, 1)} us, peer {middle(peer_us, 1)} us of processor a message")


def rows(folder, rounds, count=1500):
    """Each measurement of the path stands between two of the floor: the machine's speed changes within a second."""
    found, shares = {1: [], 4: []}, []
    for senders in [*found] * rounds:
        place = Path(tempfile.mkdtemp(prefix="d", dir=folder))
        before = bus_rows.floor(place / "before.db", count)
        wall, cpu, sent = asyncio.run(bus_rows.ingest(members_in(folder), place / "bus.db", count, senders, SPAWN))
        after = bus_rows.floor(place / "after.db", count)
        floor_wall, floor_cpu = ((one + other) / 2 for one, other in zip(before, after, strict=True))
        rate = count * bus_rows.ROWS / wall
        found[senders].append((floor_wall / wall, floor_cpu / cpu, floor_cpu / (cpu + sent), rate))
        if senders == 1:
            parts = bus_rows.parts(place / "parts.db", count)
            shares.append({"floor": floor_cpu, "path": cpu, **parts, "peer": sent})
        shutil.rmtree(place)
    for senders, ratios in found.items():
        wall, cpu, both, rate = zip(*ratios, strict=True)
        print(f"rows, whole path, {senders} peers  {middle(rate, 0)} a second")
        print(f"{'':26} ratio {middle(wall)}   by processor time {middle(cpu)}, with the senders' {middle(both)}")
    for name in shares[0]:
        print(f"  {name:10} {middle([share[name] / count * 1e6 for share in shares], 0)} us of processor a message")


def metric(folder, rounds):
    members, ready, over = members_in(folder), SPAWN.Event(), SPAWN.Event()
    process = SPAWN.Process(target=bus_orders.absorb, args=(members.folder, ready, over))
    process.start()
    ready.wait()
    for what, step_seconds, metrics_seconds in (("100 ms", 0.1, 0.25), ("300 ms", 0.3, 0.25)):
        steps = int(6 / step_seconds)
        us = [
            bus_orders.metric_us(members, folder / "spool", steps, step_seconds, metrics_seconds) for _ in range(rounds)
        ]
        thread, others = zip(*us, strict=True)
        share = statistics.median(thread) / step_seconds / 1e4
        print(
            f"a metric, steps of {what}: training thread {middle(thread, 0)} us = {share:.3f} % of the step; encoding and bus threads {middle(others, 0)} us"
        )
    over.set()
    process.join()


def orders(folder, rounds):
    print(f"command, idle: {percentiles(asyncio.run(command_ms(members_in(folder))), 'ms')}")
    found = [one for _ in range(rounds) for one in asyncio.run(bus_orders.obeyed(members_in(folder), SPAWN, 60, 0.02))]
    for what in ("stop", "pause"):
        heard, done, steps = zip(*[one[1:] for one in found if one[0] == what], strict=True)
        print(
            f"{what}, steps of 20 ms: begun after it arrived {dict(sorted(Counter(steps).items()))} (steps: how often)"
        )
        print(f"  arrived {percentiles(sorted(heard), 'ms')}; obeyed {percentiles(sorted(done), 'ms')}")


def main(words):
    rounds = int(words.pop(0)) if words and words[0].isdigit() else 3
    folder = Path(tempfile.mkdtemp(prefix="bb"))
    for part in (raw, rows, metric, orders):
        if not words or part.__name__ in words:
            part(folder, rounds)
    shutil.rmtree(folder)


if __name__ == "__main__":
    main(sys.argv[1:])
