"""Snapshots of real runs at the moments that a person meets, for tests of the screens.

    python -m tests.tui.recorded         makes a run and records it again (a minute on two cores)
    python -m tests.tui.recorded 64      one of 64 streams, at its end (three minutes)

Five streams of the embedded base: one fails, one is paused, the coordinator is killed and resumed, the promotion waits for bob.
"""

from __future__ import annotations

import json
import lzma
import os
import signal
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path

from pydantic import TypeAdapter

from swarm.views.snapshot import Snapshot
from swarm.views.watch import Watcher
from tests.runs import swarm_process as sp

FIXTURES = Path(__file__).parents[1] / "fixtures"
FILE, CROWD = FIXTURES / "dashboard.json.xz", FIXTURES / "dashboard-64.json.xz"
STEPS = 800
STREAMS = """\
  lora-8: {}
  lora-32: {lora_r: 32, lora_alpha: 64}
  dora-8: {use_dora: true}
  qlora-8: {adapter: qlora}
  too-fast: {learning_rate: 1e+9, max_grad_norm: 0}"""


def load(file: Path = FILE) -> dict[str, Snapshot]:
    """The snapshots by the name of their moment, in their order."""
    return TypeAdapter(dict[str, Snapshot]).validate_json(lzma.decompress(file.read_bytes()))


def save(taken: Mapping[str, Snapshot], file: Path) -> None:
    text = json.dumps({name: asdict(snapshot) for name, snapshot in taken.items()})
    file.write_bytes(lzma.compress(text.encode(), preset=9))


class Recorder:
    def __init__(self, place: Path) -> None:
        config = sp.write_config(place, streams=STREAMS, steps=STEPS, extra="  save_total_limit: 2", rows=120)
        config.write_text(config.read_text() + "promotion: {approvers: [bob]}\n")
        self.place = place
        self.folder = sp.start(config, "defaults.eval_rows=24", "defaults.eval_max_new_tokens=64")
        self.taken: dict[str, Snapshot] = {}

    def states(self, snapshot: Snapshot) -> dict[str, str]:
        return {row.name: row.state for row in snapshot.streams}

    def record(self) -> None:
        with Watcher.attach(self.folder.path) as watcher:
            self.take(watcher, "prepare", lambda s: "prepare" in self.states(s).values() and s.workers)
            self.take(watcher, "train", lambda s: sum(r.state == "train" and r.step > 12 for r in s.streams) > 1)
            sp.swarm("pause", "lora-8", cwd=self.place)
            self.take(watcher, "paused", lambda s: self.states(s)["lora-8"] == "paused")
            os.kill(sp.coordinator_pid(self.folder), signal.SIGKILL)
            self.take(watcher, "no coordinator", lambda s: s.state == "no coordinator")
        sp.swarm("resume", "--detach", cwd=self.place)
        sp.swarm("resume", "lora-8", cwd=self.place)
        with Watcher.attach(self.folder.path) as watcher:
            self.take(watcher, "evaluate", lambda s: any(r.state == "evaluate" and r.done for r in s.streams))
            self.take(watcher, "waits", lambda s: s.waits)
            sp.swarm("invite", "bob", cwd=self.place)
            sp.swarm("approve", "--as", "bob", str(self.taken["waits"].waits.partition(":")[0]), cwd=self.place)
            self.take(watcher, "ended", lambda s: s.state == "ended")

    def take(self, watcher: Watcher, name: str, holds: object) -> None:
        def found() -> Snapshot | None:
            snapshot = watcher.snapshot()
            return snapshot if holds(snapshot) else None  # type: ignore[operator]

        snapshot: Snapshot = sp.wait_for(found, name, folder=self.folder)
        self.taken[name] = replace(snapshot, folder=f"runs/{self.folder.name}")


def crowd(place: Path) -> dict[str, Snapshot]:
    streams = [f"  s{n:02}-r{2 ** (n % 4)}: {{lora_r: {2 ** (n % 4)}, learning_rate: {n + 1}e-4}}" for n in range(64)]
    config = sp.write_config(place, streams="\n".join(streams), steps=12, rows=60)
    sp.swarm("run", config.name, cwd=place, timeout=600)
    [folder] = (place / "runs").iterdir()
    with Watcher.attach(folder) as watcher:
        return {"ended": replace(watcher.snapshot(), folder=f"runs/{folder.name}")}


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        try:
            if sys.argv[1:] == ["64"]:
                save(crowd(place), CROWD)
            else:
                recorder = Recorder(place)
                recorder.record()
                save(recorder.taken, FILE)
        finally:
            for _ in sp.end_everything(place):
                pass


if __name__ == "__main__":
    main()
