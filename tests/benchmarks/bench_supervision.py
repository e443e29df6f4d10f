"""What an agent reads that supervises 8 streams for an hour with `swarm wait`, in tokens; the hour is written in seconds.

    python tests/benchmarks/bench_supervision.py

Wanted: at most 2,000 tokens.  The log holds what eight trainings of an hour write; one fails, one is objected to.  With `npm install
gpt-tokenizer` in this folder they are o200k tokens, else an upper bound.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from swarm import Agent
from swarm import events as ev
from swarm.log import LogWriter
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


def main() -> None:
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        with LogWriter.open(folder / "COLLABORATION.md") as writer:
            writer.append([("ada", ev.Post(ref="run", body="opened"))])
        thread = threading.Thread(target=write, args=(folder, hour()))
        thread.start()
        texts = read(folder)
        thread.join()
    done = subprocess.run(["node", "--input-type=module", "-e", NODE], input=json.dumps(texts), capture_output=True, text=True, check=False)  # fmt: skip
    counts = json.loads(done.stdout) if done.returncode == 0 else [estimated_tokens(text) for text in texts]
    kind = "o200k tokens" if done.returncode == 0 else "tokens at most (estimated)"
    print(f"{len(texts)} answers, {sum(counts)} {kind}; wanted at most 2,000")


if __name__ == "__main__":
    main()
