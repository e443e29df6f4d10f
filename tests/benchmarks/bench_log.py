"""Figures of the shared log as ratios within one run: appending against SQLite, opening against hashing, size when read.

    python tests/benchmarks/bench_log.py            all, about half a minute
    python tests/benchmarks/bench_log.py open       only what is named: append, group, open, view
    python tests/benchmarks/bench_log.py runs/demo-*/COLLABORATION.md       what a run's log costs to read as a file (wanted <= 3,500)

SQLite stands for "durable": journal_mode=WAL, synchronous=FULL, one insert of the same bytes per commit.  Rounds of both
alternate, so that a busy disk hits both; the ratio is the median over the rounds.
"""

from __future__ import annotations

import random
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from hashlib import blake2b
from pathlib import Path
from threading import Thread

from swarm.event import Event
from swarm.events import Checkpoint, Claim, Post, Renew
from swarm.log import Log, LogWriter
from swarm.views import logview

ROUNDS = 7
APPENDERS = 16
ENTRIES = 20_000
WORDS = ("loss", "held", "out", "falls", "slowly", "raise", "rank", "lower", "rate")


def some_event(rng: random.Random) -> Event:
    """What a run writes most: checkpoints, leases, notes."""
    stream = f"lora-{rng.choice((8, 16, 32))}"
    match rng.randrange(4):
        case 0:
            return Claim(ref=f"{stream}/train", ttl=60)
        case 1:
            return Renew(ref=f"{stream}/train", tok=rng.randrange(1, 900), ttl=60)
        case 2:
            return Post(ref=stream, body=" ".join(rng.choices(WORDS, k=25)))
        case _:
            sha = f"{rng.getrandbits(256):064x}"
            step, loss = rng.randrange(1000), round(rng.random(), 4)
            path = f"streams/{stream}/t17/checkpoint-{step}"
            return Checkpoint(
                ref=f"{stream}/train",
                tok=17,
                step=step,
                path=path,
                sha256=sha,
                figures={"loss": loss, "eval_loss": loss},
            )


def seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def in_threads(work: Callable[[], object]) -> None:
    threads = [Thread(target=work) for _ in range(APPENDERS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def connected(file: Path) -> sqlite3.Connection:
    db = sqlite3.connect(file, isolation_level=None, timeout=60)
    db.execute("pragma journal_mode=wal")
    db.execute("pragma synchronous=full")
    db.execute("create table if not exists entries (seq integer primary key, text text)")
    return db


def ratio_line(name: str, theirs: list[float], ours: list[float], count: int, wanted: str) -> None:
    ratio = statistics.median(t / o for t, o in zip(theirs, ours, strict=True))
    rates = f"{count / statistics.median(ours):,.0f}/s against {count / statistics.median(theirs):,.0f}/s"
    print(f"{name:<34} {ratio:5.2f} x   ({rates}; wanted {wanted})")


def append(folder: Path) -> None:
    """One caller, one entry per commit."""
    rng, count = random.Random(1), 200
    events = [some_event(rng) for _ in range(count)]
    db = connected(folder / "alone.db")
    theirs, ours = [], []
    with LogWriter.open(folder / "alone" / "COLLABORATION.md") as writer:
        texts = [entry.text for entry in writer.append([("ada", event) for event in events])]
        for _ in range(ROUNDS):
            theirs.append(
                seconds(lambda: [db.execute("insert into entries (text) values (?)", (text,)) for text in texts])
            )
            ours.append(seconds(lambda: [writer.append([("ada", event)]) for event in events]))
    ratio_line("append, alone, SQLite FULL = 1", theirs, ours, count, ">= 0.9")


def group(folder: Path) -> None:
    """16 callers at once: threads of one process here and there, each SQLite thread with its own connection."""
    rng, each = random.Random(2), 40
    events = [some_event(rng) for _ in range(each)]
    theirs, ours = [], []
    connected(folder / "group.db")

    def inserts() -> None:
        db = connected(folder / "group.db")
        for _ in range(each):
            db.execute("insert into entries (text) values (?)", ("x" * 280,))

    with LogWriter.open(folder / "group" / "COLLABORATION.md") as writer:
        for _ in range(ROUNDS):
            theirs.append(seconds(lambda: in_threads(inserts)))
            ours.append(seconds(lambda: in_threads(lambda: [writer.append([("ada", event)]) for event in events])))
    ratio_line(f"append, {APPENDERS} callers, SQLite FULL = 1", theirs, ours, each * APPENDERS, ">= 3")


def opening(folder: Path) -> None:
    """A run of 20,000 entries, with its rotated files, against reading and hashing the same bytes."""
    rng, path = random.Random(3), folder / "open" / "COLLABORATION.md"
    with LogWriter.open(path) as writer:
        for _ in range(ENTRIES):  # one by one, so that the write-ahead file has as many frames as it can have
            writer.append([("trainer-2", some_event(rng))])
    files = [*sorted((path.parent / "collaboration").glob("0*.md")), path]
    records = [record.encode() for file in files for record in file.read_text(encoding="utf-8").split(" -->\n")]

    def hashed_whole() -> None:
        for file in files:
            blake2b(file.read_bytes(), digest_size=8).hexdigest()

    def hashed_by_entry() -> None:
        for file in files:
            file.read_bytes()
        for record in records:
            blake2b(record, digest_size=8).hexdigest()

    opened: list[LogWriter] = []
    ways = {
        "read, one hash over the bytes": hashed_whole,
        "read, one hash per entry": hashed_by_entry,
        "Log.read: every entry verified": lambda: Log(path).read(),
        "LogWriter.open: ready to append": lambda: opened.append(LogWriter.open(path)),
        "Log.refresh: every event as value": lambda: Log(path).refresh(),
    }
    took = {name: [] for name in ways}
    for _ in range(ROUNDS):
        for name, way in ways.items():
            took[name].append(seconds(way))
            while opened:
                opened.pop().close()
    mebibytes = sum(file.stat().st_size for file in files) / 2**20
    newest = path.read_text(encoding="utf-8").count(" -->\n")
    print(
        f"opening {len(records):,} entries, {mebibytes:.1f} MiB in {len(files)} files (wanted <= 3 x reading and hashing)"
    )
    print(
        f"  {newest:,} of them in the newest file, whose entries are verified one by one; older files have one hash each"
    )
    floor = took["read, one hash over the bytes"]
    for name, values in took.items():
        ratio = statistics.median(value / bytes_ for value, bytes_ in zip(values, floor, strict=True))
        print(f"  {name:<34} {statistics.median(values) * 1e3:7.1f} ms  {ratio:5.2f} x")


def view(folder: Path) -> None:
    """What a line of `swarm log` costs beside the author's own words."""
    text = "loss is flat since step 400 on both wide streams; I suggest to halve the learning rate of wide and to leave narrow alone until its next checkpoint"
    with LogWriter.open(folder / "view" / "COLLABORATION.md") as writer:
        writer.append([("ada", Claim(ref="s3/train", ttl=60))] * 1841)
        [entry] = writer.append([("trainer-2", Post(ref="wide", body=text))])
    shown = logview.line(entry)
    print(f"a note when read: {len(shown) - len(text)} bytes over its text; on disk {len(entry.text) - len(text)}")
    print(f"  {shown[:60]}...")
    node = "import {encode} from 'gpt-tokenizer/encoding/o200k_base'; for (const text of process.argv.slice(1)) console.log(encode(text).length)"
    try:
        counted = subprocess.run(
            ["node", "--input-type=module", "-e", node, "--", shown, text], capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        print("  tokens: `npm install gpt-tokenizer` in this folder to count them (o200k)")
        return
    with_head, bare = map(int, counted.stdout.split())
    print(f"  {with_head - bare} o200k tokens over its text (wanted <= 12)")


def tokens_of(file: Path) -> None:
    """What a language model pays to read a log as it stands."""
    text = file.read_text(encoding="utf-8")
    node = "import {encode} from 'gpt-tokenizer/encoding/o200k_base'; import fs from 'fs'; console.log(encode(fs.readFileSync(0, 'utf8')).length)"
    command = ["node", "--input-type=module", "-e", node]
    counted = subprocess.run(command, input=text, capture_output=True, text=True, check=True).stdout.strip()
    print(f"{file}: {counted} o200k tokens, {len(Log(file).refresh())} entries")


PARTS = {"append": append, "group": group, "open": opening, "view": view}

if __name__ == "__main__":
    for part in sys.argv[1:] or PARTS:
        if part.endswith(".md"):
            tokens_of(Path(part))
            continue
        with tempfile.TemporaryDirectory(dir=Path.cwd(), prefix=".bench-") as folder:
            PARTS[part](Path(folder))
