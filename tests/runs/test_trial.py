"""An independent trial of whole runs, for `make torture`: processes are killed and frozen, clocks are set, disks fill, the log is torn.

Over tcp, in a folder that a group may write to, with a role that two agents share, one of them over MCP, another who writes escape
sequences, and somebody who watches the dashboard.  Nothing that was acknowledged may be lost or be there twice, no step may be
missing, and each run ends as if nothing had happened.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

pytest.importorskip("mcp")

from swarm.log import verify
from swarm.rundir import RunFolder, create
from swarm.weights import adapter_sha256
from tests.runs import swarm_process as sp
from tests.runs.small_disk import small_disk
from tests.runs.trial_crew import ESCAPES, OverMcp, Poster, Watcher
from tests.runs.trial_faults import Clock, Faults, entries_of, is_over, resume, start_coordinator
from tests.swarm.places import configure

pytestmark = [
    pytest.mark.skipif(os.environ.get("TORTURE") != "1", reason="`make torture` runs it"),
    pytest.mark.timeout(1800),
]
RUNS = int(os.environ.get("TRIAL_RUNS", "10"))
FAULTS = int(os.environ.get("TRIAL_FAULTS", "12"))
"""Of each run, begun with `TORTURE_SEED` and the seeds after it."""
SEED = int(os.environ.get("TORTURE_SEED", "0"))
KEPT = os.environ.get("TRIAL_KEEP", "")
"""A folder for copies of the run folders."""
SECONDS_PER_FAULT = 10.0
GROUP = 54321


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Path]:
    """A folder of a group's, on a disk of its own that may be filled, where this user can make one."""
    if os.geteuid():
        place = tmp_path
    else:
        place = Path(tempfile.mkdtemp(prefix="trial-", dir="/var/tmp"))  # other users must reach it
        place.chmod(0o755)
    before = os.umask(0o002)
    try:
        with contextlib.nullcontext(place) if os.geteuid() else small_disk(place / "disk", 256) as made:
            os.chown(made, -1, os.getgid() if os.geteuid() else GROUP)
            made.chmod(0o2775)
            yield made
    finally:
        os.umask(before)
        list(sp.end_everything(place))
        if place != tmp_path:
            shutil.rmtree(place, ignore_errors=True)


@pytest.fixture(scope="module")
def sums(request: pytest.FixtureRequest) -> Iterator[Counter[str]]:
    """Over all runs; printed in one line at the end."""
    found: Counter[str] = Counter()
    yield found
    with request.config.pluginmanager.getplugin("capturemanager").global_and_fixture_disabled():
        print(f"\ntrial: {', '.join(f'{count} {what}' for what, count in sorted(found.items()))}")


@dataclass
class Trial:
    """One run with all who take part."""

    folder: RunFolder
    faults: Faults
    crew: list[Poster]
    watcher: Watcher
    over: threading.Event

    @classmethod
    def of(cls, folder: RunFolder, faults: Faults) -> Trial:
        over = threading.Event()
        crew = [
            Poster("ada", folder, over, judges=True), OverMcp("bob", folder, over), Poster("eve", folder, over, ESCAPES),
        ]  # fmt: skip
        return cls(folder, faults, crew, Watcher(folder, over), over)

    def goes_through(self, faults: int, ends: Callable[[RunFolder], None]) -> None:
        """All take part until the run has ended after so many faults."""
        for member in (*self.crew, self.watcher):
            member.start()
        for _ in range(faults):
            self.faults.happen()
        ends(self.folder)
        sp.wait_for(lambda: self.watcher.pictures, "a picture of the dashboard", folder=self.folder)
        self.over.set()
        for member in (*self.crew, self.watcher):
            member.join(60)

    def add_to(self, sums: Counter[str]) -> None:
        acknowledged, judged = (
            sum(len(one.acknowledged) for one in self.crew),
            sum(one.judged for one in self.crew),
        )
        sums.update({**self.faults.counts, "runs": 1, "acknowledged": acknowledged, "judged": judged})


@pytest.mark.parametrize("seed", range(SEED, SEED + RUNS))
def test_faults_lose_nothing_that_was_acknowledged(
    seed: int, place: Path, tmp_path: Path, sums: Counter[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    clock, port = Clock(tmp_path), sp.free_ports()
    for name, value in clock.environment.items():
        monkeypatch.setenv(name, value)
    folder = started(place, port)
    trial = Trial.of(folder, Faults(seed, folder, clock, place if place.name == "disk" else None, port))
    trial.goes_through(FAULTS, until_the_end)
    trial.add_to(sums)
    if KEPT:
        shutil.copytree(folder.path, Path(KEPT) / folder.name)
    assert_nothing_is_lost(seed, trial)
    assert_it_ended_as_if_nothing_had_happened(seed, folder)


@pytest.mark.parametrize("seed", range(SEED, SEED + RUNS))
def test_faults_of_a_coordinator_that_only_agents_need_lose_nothing_either(
    seed: int, place: Path, tmp_path: Path, sums: Counter[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without workers, which load torch: many more faults in the same time."""
    clock, port = Clock(tmp_path), sp.free_ports()
    for name, value in clock.environment.items():
        monkeypatch.setenv(name, value)
    folder = create(place / "runs", "agents")
    configure(place, folder, f"listen: tcp://127.0.0.1:{port}\n")
    start_coordinator(folder)
    invite(place)
    faults = Faults(seed, folder, clock, place if place.name == "disk" else None, port, has_workers=False)
    trial = Trial.of(folder, faults)
    trial.goes_through(FAULTS, stop)
    trial.add_to(sums)
    if KEPT:
        shutil.copytree(folder.path, Path(KEPT) / folder.name)
    assert_nothing_is_lost(seed, trial)


def stop(folder: RunFolder) -> None:
    start_coordinator(folder)
    sp.swarm("stop", str(folder.path), cwd=folder.path.parents[1])
    sp.wait_for_end(folder)


def started(place: Path, port: int) -> RunFolder:
    minutes = FAULTS * SECONDS_PER_FAULT / 60
    config = sp.write_config(
        place,
        streams="  a: {lora_r: 2}\n  b: {lora_r: 4}",
        steps=1_000_000,
        extra=f"  max_minutes: {minutes:.2f}\n  save_total_limit: 3",
    )
    text = config.read_text().replace("name: test\n", "name: test\nlease_seconds: 12\nretries: 99\n")
    config.write_text(
        f'{text}listen: tcp://127.0.0.1:{port}\nroles: {{validate: ["agent:ada", "agent:bob"]}}\nroles_wait_seconds: 600\n'
    )
    folder = sp.start(config, "defaults.save_steps=100")
    invite(place)
    sp.wait_for(lambda: len(sp.state(folder).held()) == 2, "two trainings", folder=folder)
    return folder


def invite(place: Path) -> None:
    for name in ("ada", "bob", "eve", "dan"):
        sp.swarm("invite", name, cwd=place)


def until_the_end(folder: RunFolder) -> None:
    deadline = time.monotonic() + 600
    while not is_over(folder) and time.monotonic() < deadline:
        resume(folder)
        time.sleep(1)


def assert_nothing_is_lost(seed: int, trial: Trial) -> None:
    assert trial.faults.harm == [], seed
    assert (trial.watcher.harm, trial.watcher.pictures > 0) == (set(), True), seed
    folder = trial.folder
    for member in trial.crew:
        assert member.acknowledged, (seed, member.name)
        there = Counter(entries_of(folder, member.name))
        lost = [text for text in member.acknowledged if there[text] != 1]
        assert not lost, (seed, member.name, lost)
    assert not [entry for entry in sp.entries(folder) if "stranger" in entry.text], seed
    assert [fault for fault in verify(folder.log) if "torn" not in str(fault)] == []
    private = [path for path in folder.keys.rglob("*") if path.is_file() and path.stat().st_mode & 0o077]
    assert private == [], "keys stay their owner's in a group's folder"


def assert_it_ended_as_if_nothing_had_happened(seed: int, folder: RunFolder) -> None:
    state, place = sp.state(folder), folder.path.parents[1]
    failed = {stream.name: stream.failed for stream in state.streams.values()}
    assert state.end is not None and state.end.rc == 0, (seed, failed, sp._talk(place)[-3000:])
    assert state.promoted is not None and adapter_sha256(folder.promoted) == state.promoted.sha256
    for stream in state.streams:
        rows = sp.swarm(
            "export", str(folder.path), "--what", "metrics", "--format", "csv", "--stream", stream, cwd=place
        )
        steps = [int(row.split(",")[3]) for row in rows.stdout.splitlines() if ",train," in row]
        assert steps == list(range(1, len(steps) + 1)), (seed, stream)
