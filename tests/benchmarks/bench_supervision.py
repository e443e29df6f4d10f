"""What an agent reads that supervises 8 streams for an hour with `swarm wait`, in tokens; the hour is written in seconds.

    python tests/benchmarks/bench_supervision.py

Wanted: at most 2,000 tokens.  The log holds what eight trainings of an hour write; one fails, one is objected to.  With `npm install
gpt-tokenizer` in this folder they are o200k tokens, else an upper bound.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from swarm import Agent
from swarm import events as ev
from swarm.log import Log, LogWriter
from tests.swarm.story import SHA, Story
from toon import estimated_tokens

STREAMS = tuple(f"stream-{number}" for number in range(1, 9))
CHECKPOINTS = 12
HOUR_SECONDS = 30.0
"""How long the hour takes here."""
UNTIL = "done | failed | verdict | waits | question"
NODE = (
    "import {encode} from 'gpt-tokenizer/encoding/o200k_base'; import fs from 'fs';"
    "console.log(JSON.stringify(JSON.parse(fs.readFileSync(0, 'utf8')).map(text => encode(text).length)))"
)


def hour() -> Story:
    story = Story(*STREAMS)
    for name in STREAMS:
        story.prepared(name)
    tokens = {name: story.claim(f"{name}/train", f"trainer-{name}") for name in STREAMS}
    for step in range(1, CHECKPOINTS + 1):
        for name, tok in tokens.items():
            story.checkpoint(name, tok, step * 50, by=f"trainer-{name}")
    story.say("coordinator", ev.Fail(ref=STREAMS[0], why="train: loss was not finite at step 601"))
    for number, (name, tok) in enumerate(list(tokens.items())[1:]):
        path = f"streams/{name}/t{tok}/checkpoint-650"
        story.say(f"trainer-{name}", ev.Trained(ref=f"{name}/train", tok=tok, step=650, path=path, sha256=SHA, trainable=100, figures={"loss": 0.4}))  # fmt: skip
        story.judged(name, loss=0.5 + number / 100)
    story.say("bob", ev.Object(ref=STREAMS[1], why="its rows were in the pretraining set @ada"))
    story.say("coordinator", ev.End(ref="run", rc=1))
    return story


def write(folder: Path, story: Story) -> None:
    pause = HOUR_SECONDS / len(story.entries)
    for entry in story.entries:
        with LogWriter.open(folder / "COLLABORATION.md", wait_seconds=5.0) as writer:
            writer.append([(entry.author, entry.event)])
        time.sleep(pause)


def read(folder: Path) -> list[str]:
    """What `swarm wait` gives the agent, again and again, until the run is over."""
    texts = []
    with Agent("ada", folder) as ada:
        while True:
            woken = ada.wait(UNTIL, timeout_seconds=HOUR_SECONDS)
            texts.append(woken.text())
            if woken.cause in {"done", "ended"}:
                return texts


POLLS = 12
"""So often `swarm status` is printed in the hour; polling every 30 s prints it 120 times."""


def polled(folder: Path, ended: threading.Event, texts: list[str]) -> None:
    while not ended.wait(HOUR_SECONDS / POLLS):
        command = [sys.executable, "-m", "swarm.cli", "status", str(folder)]
        texts.append(subprocess.run(command, capture_output=True, text=True, check=False).stdout)


def missed(folder: Path, texts: list[str]) -> list[int]:
    """Entries that a supervisor has to know of and that no answer has."""
    whole = "\n".join(texts)
    wanted = [
        e for e in Log(folder / "COLLABORATION.md").entries() if e.event.kind in {"fail", "verdict", "object", "end"}
    ]
    return [entry.seq for entry in wanted if not re.search(rf"\b{entry.seq} [\d:]+ {entry.event.kind} ", whole)]


def tokens_of(texts: list[str]) -> tuple[int, str]:
    done = subprocess.run(["node", "--input-type=module", "-e", NODE], input=json.dumps(texts), capture_output=True, text=True, check=False)  # fmt: skip
    if done.returncode == 0:
        return sum(json.loads(done.stdout)), "o200k tokens"
    return sum(map(estimated_tokens, texts)), "tokens at most (estimated)"


def main() -> None:
    with tempfile.TemporaryDirectory() as place:
        folder, ended, statuses = Path(place), threading.Event(), list[str]()
        with LogWriter.open(folder / "COLLABORATION.md") as writer:
            writer.append([("ada", ev.Post(ref="run", body="opened"))])
        threads = [
            threading.Thread(target=write, args=(folder, hour())),
            threading.Thread(target=polled, args=(folder, ended, statuses)),
        ]
        for thread in threads:
            thread.start()
        texts = read(folder)
        ended.set()
        for thread in threads:
            thread.join()
        not_seen = missed(folder, texts)
    count, kind = tokens_of(texts)
    print(
        f"swarm wait: {len(texts)} answers, {count} {kind}; wanted at most 2,000; entries missed: {not_seen or 'none'}"
    )
    count, kind = tokens_of(statuses)
    print(f"swarm status every 30 s: 120 answers, {count * 120 // len(statuses)} {kind} (of {len(statuses)} answers)")


if __name__ == "__main__":
    main()
