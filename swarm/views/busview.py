"""The bus in numbers: latency by type of message as the coordinator measures it, and what the log counts; for `swarm status --bus`."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from swarm import events as ev
from swarm.access.client import Client
from swarm.log import Entry, Log, run_is_alive
from swarm.rundir import RunFolder


def bus_data(folder: RunFolder, name: str | None = None) -> dict[str, Any]:
    """`messages`: a row for each type; `links`: one for each member; `counts`.  The first two only while a coordinator is at work."""
    counted = counts(Log(folder.log).entries())
    if not run_is_alive(folder.log):
        return {"messages": [], "links": [], "counts": counted}
    with Client(folder, name) as client:
        answer = client.ask("bus")
        links = client.ask("links")["links"]
    return {"messages": answer["messages"], "links": links, "counts": {**counted, "stalls": answer["stalls"]}}


def counts(entries: Iterable[Entry]) -> dict[str, int]:
    """What the log counts: hand-overs, errors (failed attempts and streams), refused reports, expired leases, confirmations."""
    found = dict.fromkeys(("hand_overs", "errors", "refusals", "expired", "confirmations"), 0)
    for entry in entries:
        match entry.event:
            case ev.Hand():
                found["hand_overs"] += 1
            case ev.Fail() | ev.Drop(failed=True) | ev.Expire(failed=True):
                found["errors"] += 1
            case ev.Refuse():
                found["refusals"] += 1
            case ev.Expire():
                found["expired"] += 1
            case ev.Approve() | ev.Verdict(result="SUCCESS"):
                found["confirmations"] += 1
            case _:
                pass
    return found
