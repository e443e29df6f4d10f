"""Part of bench_bus: what a metric costs the thread that trains, and how soon that thread obeys an order.

A step is 100 ms (or 20 ms) of hashing 8 MiB at a time: like a step of training it lets go of the interpreter's lock and leaves nothing
of ours in the processor's caches.  Lease, messages, Peer and its spool on disk are the product's; the hub is another process.
"""

import asyncio
import hashlib
import json
import random
import threading
import time

import trainer.lease
from bus.hub import Hub
from bus.keys import Join, Members
from bus.peer import Peer
from swarm.messages import MetricRow, Order
from trainer.lease import Lease

BLOCK = bytes(8 << 20)


def work(seconds):
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        hashlib.sha256(BLOCK)


def lease_of(peer, token=7):
    return Lease("wide/train", token, lambda message, fact: peer.send(message.type, message.toon(), control=fact))


def row(step):
    figures = {
        "epoch": round(step / 900, 4), "loss": round(2.5 / step, 6), "learning_rate": 2e-4, "grad_norm": 0.513277, "tokens": step * 913,
        "tokens_per_second": 9012.4, "memory_bytes": 1_400_000_000 + step,
    }  # fmt: skip
    return MetricRow(step, "train", time.time(), figures)


def absorb(folder, ready, over):
    """A hub that takes everything."""

    async def serve():
        hub = Hub(Members.open(folder), allowed={"worker": frozenset({"*"})})
        await hub.start()
        ready.set()
        while not over.is_set():
            try:
                batch = await asyncio.wait_for(hub.receive_batch(256), 0.2)
            except TimeoutError:
                continue
            for envelope in batch:
                await hub.acknowledge(envelope)
        await hub.close()

    asyncio.run(serve())


def metric_us(members, spool, steps, step_seconds, metrics_seconds):
    """Microseconds of processor a metric: of the training thread, and of the bus's threads beside it."""
    trainer.lease.METRICS_SECONDS = metrics_seconds
    peer = Peer(Join.load(members.invite("w1", "worker")), spool=spool).start()
    peer.wait_connected(20)
    lease, cost, around, whole = lease_of(peer), 0.0, time.thread_time(), time.process_time()
    for step in range(1, steps + 1):
        work(step_seconds)
        began = time.thread_time()
        lease.figures(row(step), steps)
        cost += time.thread_time() - began
    lease.flush_metrics()
    others = time.process_time() - whole - (time.thread_time() - around)
    peer.close()
    return cost / steps * 1e6, others / steps * 1e6


def trainee(join, step_seconds):
    """Works until an order ends or pauses it, and says when that was; then begins anew."""
    peer = Peer(Join.load(join)).start()
    token = begun = 0
    lease, heard = lease_of(peer), threading.Event()
    received = (0.0, 0)

    def listen():
        nonlocal received
        while (envelope := peer.receive()).type == Order.type:
            order = Order.read(envelope.body)
            received = (time.monotonic(), begun)
            lease.take(order)
            if order.what == "pause":
                while lease.state != "paused":
                    time.sleep(0.0002)
                tell("pause")
                lease.take(Order(ref=lease.ref, token=token, what="resume"))
        heard.set()

    def tell(what):
        peer.send("fact", json.dumps([what, received[0], time.monotonic(), begun - received[1]]))

    threading.Thread(target=listen, daemon=True).start()
    peer.send("fact", json.dumps(["ready"]))
    while not heard.is_set():
        token, lease = token + 1, lease_of(peer, token + 1)
        while not heard.is_set():
            begun += 1
            work(step_seconds)
            if lease.boundary(begun) == "stop":
                tell("stop")
                break
    peer.close()


async def obeyed(members, spawn, count, step_seconds):
    """For each order: what, milliseconds from `Hub.send` to arrival and to obedience, and steps begun after its arrival."""
    hub, found, chance = Hub(members, allowed={"worker": frozenset({"*"})}), [], random.Random(3)
    await hub.start()
    process = spawn.Process(target=trainee, args=(members.invite("w1", "worker"), step_seconds))
    process.start()
    await hub.acknowledge(await hub.receive())
    for number in range(count):
        await asyncio.sleep(chance.uniform(1, 3) * step_seconds)
        what, sent = ("stop", "pause")[number % 2], time.monotonic()
        await hub.send("w1", Order.type, Order(ref="wide/train", token=1, what=what).toon())
        answer = await hub.receive()
        await hub.acknowledge(answer)
        said, heard, done, steps = json.loads(answer.body)
        assert said == what
        found.append((what, (heard - sent) * 1000, (done - sent) * 1000, steps))
    await hub.send("w1", "quit", "")
    while process.is_alive():
        await asyncio.sleep(0.01)
    await hub.close()
    return found
