"""A hub process that keeps a ledger: what it acknowledges is a line in a file first. Options are a JSON object in argv."""

import asyncio
import json
import os
import sys
import time
from pathlib import Path

from bus.hub import Hub
from bus.keys import Members
from bus.links import Limits, Rate
from bus.liveness import Signals, Timeouts, judge


def seen_in(ledger: Path) -> dict[tuple[str, str], int]:
    """Cut a torn last line off, and tell what is durable."""
    data = ledger.read_bytes() if ledger.exists() else b""
    whole = data[: data.rfind(b"\n") + 1]
    with ledger.open("ab") as file:
        file.truncate(len(whole))
    seen: dict[tuple[str, str], int] = {}
    for line in whole.splitlines():
        source, incarnation, seq, _, _ = json.loads(line)
        seen[source, incarnation] = max(seq, seen.get((source, incarnation), 0))
    return seen


async def main(options: dict[str, str]) -> None:
    ledger = Path(options["ledger"])
    seen = seen_in(ledger)
    limits = Limits(rate=Rate(1e6, 1e9))
    hub = Hub(Members.open(Path(options["folder"])), allowed={"worker": frozenset({"*"})}, seen=seen, limits=limits)
    await hub.start()
    print("listening", flush=True)
    telling = asyncio.create_task(tell_states(hub, Path(options["states"]))) if options.get("states") else None
    descriptor = os.open(ledger, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    while telling is None or not telling.done():
        if options.get("deaf"):
            await hub.receive()
            time.sleep(float(options["deaf"]))  # the loop stands still while libzmq's thread goes on
            print("hears again", flush=True)
            options = {}
        batch = await hub.receive_batch(500)
        lines = [json.dumps([e.source, e.incarnation, e.seq, e.after, e.body]) + "\n" for e in batch]
        os.write(descriptor, "".join(lines).encode())
        for envelope in batch:
            await hub.acknowledge(envelope)
            if envelope.type == "ask":
                await hub.answer(envelope, envelope.body)


async def tell_states(hub: Hub, file: Path) -> None:
    """A line for every change of what a supervisor would show of w1: when (monotonic seconds) and what."""
    began, shown = time.monotonic(), ""
    with file.open("w") as out:
        while True:
            now, link = time.monotonic(), hub.links().get("w1")
            silent = None if link is None else now - link.last_heard
            state = judge(Signals(None, now - began, silent, None), Timeouts(silent_seconds=1.5)).state
            if state != shown:
                shown = state
                print(now, state, file=out, flush=True)
            await asyncio.sleep(0.02)


asyncio.run(main(json.loads(sys.argv[1])))
