"""Six writers take turns at the log and are killed with SIGKILL at random moments, while the log rotates.

`TORTURE=1` makes it 500 kills for each writer and a log on a real disk; the short form kills 40 times.
"""

from __future__ import annotations

import os
import random
import signal
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from swarm.events import Post
from swarm.log import Entry, LogHeld, LogWriter

WRITERS = 6
Sound = Callable[[Path], list[Entry]]


def write_for_ever(path: Path, acknowledged: int, name: str, seed: int) -> None:
    """Opens, appends some groups, says what was acknowledged, closes; until it is killed."""
    rng, count = random.Random(seed), 0
    while True:
        with (
            suppress(LogHeld),
            LogWriter.open(path, wait_seconds=30, rotate_bytes=6000, secret=b"s", head_every=16) as writer,
        ):
            for _ in range(rng.randint(1, 4)):
                tags = [f"{name}-{seed}-{(count := count + 1)}" for _ in range(rng.randint(1, 3))]
                entries = writer.append([(name, Post(ref="s1", body=f"{tag}\n##### 1 post x")) for tag in tags])
                os.write(
                    acknowledged, "".join(f"{e.seq} {tag}\n" for e, tag in zip(entries, tags, strict=True)).encode()
                )


def started(path: Path, acknowledged: int, name: str, seed: int) -> int:
    """A writer process; forked, because none of this process' threads or locks concern it."""
    if pid := os.fork():
        return pid
    try:
        write_for_ever(path, acknowledged, name, seed)
    finally:
        os._exit(1)


def kill(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)


def test_six_writers_killed_again_and_again_lose_and_double_nothing(
    path: Path, tmp_path: Path, sound: Sound, torture: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    kills, path = (500 * WRITERS, tmp_path / "run" / path.name) if torture else (40, path)
    path.parent.mkdir(exist_ok=True)
    rng, told = random.Random(11), tmp_path / "acknowledged"
    acknowledged = os.open(told, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    writers = [started(path, acknowledged, f"w{n}", n) for n in range(WRITERS)]
    for number in range(kills):
        time.sleep(rng.uniform(0.005, 0.06))
        kill(writers.pop(rng.randrange(WRITERS)))
        writers.append(started(path, acknowledged, f"w{number % WRITERS}", 1000 + number))
    for pid in writers:
        kill(pid)
    os.close(acknowledged)
    with LogWriter.open(path, secret=b"s"):
        pass
    posts = [(e.seq, e.event.body.split("\n")[0]) for e in sound(path) if isinstance(e.event, Post)]
    promised = [(int(seq), tag) for seq, tag in (line.split() for line in told.read_text().splitlines())]
    lost = set(promised) - set(posts)
    doubled = [tag for tag, times in Counter(tag for _, tag in posts).items() if times > 1]
    files = len(list((path.parent / "collaboration").glob("0*.md"))) + 1
    with capsys.disabled():
        print(
            f"\n{kills} kills of {WRITERS} writers: {len(posts)} entries in {files} files, {len(promised)} acknowledged, "
            f"{len(lost)} lost, {len(doubled)} doubled"
        )
    assert not lost and not doubled
    assert len(promised) > kills and files > 2
    assert list((path.parent / "collaboration").glob("saved-*")) == []
