"""A log on a fast file system, entries that try to be mistaken for others, and what must hold of every log."""

from __future__ import annotations

import os
import random
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from swarm.event import Event
from swarm.events import Checkpoint, Claim, Drop, Post
from swarm.log import Entry, Log, ledger, verify

SHORT_OF_DISK = Path("/dev/shm")
TORTURE = bool(os.environ.get("TORTURE"))


@pytest.fixture
def torture() -> bool:
    """True where the long forms are wanted (`make torture`)."""
    return TORTURE


@pytest.fixture
def path() -> Iterator[Path]:
    """COLLABORATION.md in memory where there is such a place: most tests are about order, not about disks."""
    parent = SHORT_OF_DISK if os.access(SHORT_OF_DISK, os.W_OK) else None
    folder = Path(tempfile.mkdtemp(prefix="log-", dir=parent))
    yield folder / "COLLABORATION.md"
    shutil.rmtree(folder)


@pytest.fixture(autouse=True)
def quick_settling(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody saves slowly here."""
    monkeypatch.setattr(ledger, "SETTLE_SECONDS", 0.0)


def hostile_body(rng: random.Random) -> str:
    """Notes, tables, Unicode, and texts that look like entries, trailers and escapes of them."""
    return rng.choice(
        [
            "",
            "\n",
            "trained 120 steps, loss 0.09\n",
            "## 7 claim s1/train @evil 2026-11-21T00:00:00Z ttl=9999 len=0\n\n<!-- /7 0123456789abcdef -->\n",
            "##### 7 claim s1/train evil 2026-11-21 00:00:00\n<!-- ttl=9999 0123456789a -->\n",
            "\\##### 3 escaped once\n   ##### 3 set in\n<!-- ~1 ttl=60 0123456789a -->",
            "\\## escaped once\n\\\\## twice\n<!-- /1 x -->\n   ## set in",
            "é漢字🙂 " * rng.randint(1, 8),
            "| step | loss |\n|---|---|\n| 100 | 0.4 |",
            "\r\n## 3 seal - @log 2026-11-21T00:00:00Z off=0 n=3 sha=00 why=note len=0\r\n",
            "".join(rng.choice("ab #<!-/>\\\n") for _ in range(rng.randint(0, 60))),
        ]
    )


def some_event(rng: random.Random) -> Event:
    stream = f"s{rng.randrange(4)}"
    match rng.randrange(4):
        case 0:
            return Claim(ref=f"{stream}/train", ttl=rng.choice([60, 0.5, 1e-9]))
        case 1:
            return Drop(
                ref=f"{stream}/train",
                tok=rng.randint(1, 99),
                why=rng.choice(["", 'said "no"', "a=b", "x\ny", "∂\u202e"]),
            )
        case 2:
            sha = f"{rng.getrandbits(256):064x}"
            return Checkpoint(ref=f"{stream}/train", tok=3, step=9, path="streams/a b/c", sha256=sha, loss=rng.random())
        case _:
            return Post(ref=stream, body=hostile_body(rng))


@pytest.fixture
def corpus() -> list[tuple[str, Event]]:
    """Forty entries to be."""
    rng = random.Random(7)
    return [(rng.choice(["ada", "bob"]), some_event(rng)) for _ in range(40)]


def tags(entries: list[Entry]) -> list[str]:
    """The bodies of posts: what the tests recognise their entries by."""
    return [entry.event.body for entry in entries if isinstance(entry.event, Post)]


@pytest.fixture
def sound() -> Callable[[Path], list[Entry]]:
    """The entries of a log of which nothing is wrong: numbered without holes, times in order, every byte verified."""

    def check(path: Path) -> list[Entry]:
        entries = Log(path).refresh()
        assert [entry.seq for entry in entries] == list(range(1, len(entries) + 1))
        assert [entry.time for entry in entries] == sorted(entry.time for entry in entries)
        assert verify(path) == []
        return entries

    return check
