"""Whole runs through real processes: from one command to a promoted adapter, also when things are killed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from swarm import events as ev
from swarm.log import run_is_alive, verify
from swarm.rundir import RunFolder
from swarm.views.watch import Watcher
from swarm.weights import adapter_sha256
from tests.runs import swarm_process as sp
from tui.panes.header import advice
from tui.view import View

pytestmark = [pytest.mark.slow, pytest.mark.timeout(420)]
TWO = "  narrow: {lora_r: 2}\n  wide: {lora_r: 4}"


@pytest.fixture(autouse=True)
def _nothing_is_left_behind(tmp_path: Path) -> Iterator[None]:
    yield from sp.end_everything(tmp_path)


BYTES_PER_TOKEN = 2.5
"""Of a finished run's log with the o200k tokenizer: 2.50 to 2.84 in five demo runs (`bench_log.py RUN/COLLABORATION.md`).

The smallest ratio, so that this counts too many tokens rather than too few without needing a tokenizer.
"""
MOST_LOG_TOKENS = 4_900
"""For four streams with three checkpoints each; of it about 430 are the comparison of the streams and 110 each further checkpoint."""


def only_run(folder: Path) -> RunFolder:
    [path] = (folder / "runs").iterdir()
    return RunFolder(path.resolve())


def test_one_command_trains_four_kinds_of_streams_judges_them_and_promotes_the_best(tmp_path: Path) -> None:
    streams = "  lora: {lora_r: 4}\n  wide: {lora_r: 8}\n  dora: {use_dora: true, lora_r: 4}\n  qlora: {adapter: qlora, lora_r: 4}"
    config = sp.write_config(tmp_path, streams=streams)
    done = sp.swarm("run", config.name, cwd=tmp_path)
    folder = only_run(tmp_path)
    state = sp.state(folder)

    assert state.end is not None
    assert state.end.rc == 0
    assert all(stream.score for stream in state.streams.values())
    assert state.promoted is not None and state.compared is not None
    assert state.promoted.version == "test-v1", "by the name in the config, over all runs of it"
    lowest = min(state.streams.values(), key=lambda stream: stream.figures.get("eval_loss", 9e9))
    tied = (state.compared.tied or "").split(",")
    best = state.streams[state.promoted.ref]
    assert state.compared.best == lowest.name and best.name in {lowest.name, *tied}  # the cheapest that chance allows
    assert "promoted:" in done.stdout and best.name in done.stdout and "exact match" in done.stdout
    assert adapter_sha256(folder.promoted) == state.promoted.sha256
    assert json.loads((folder.promoted / "lineage.json").read_text())["stream"] == best.name
    assert not run_is_alive(folder.log) and (folder.path / "SUMMARY.md").exists(), (
        "the command returns when all is over"
    )
    assert verify(folder.log) == []
    assert folder.log.stat().st_size / BYTES_PER_TOKEN <= MOST_LOG_TOKENS

    rows = sp.swarm("export", "--what", "metrics", "--format", "csv", cwd=tmp_path).stdout.splitlines()
    assert len([row for row in rows if row.startswith("lora,")]) == 6
    session = json.loads(sp.swarm("status", "--json", cwd=tmp_path).stdout)
    assert session["promoted"] == best.name
    for name in ("train_log.csv", "train_log.json", "time_metrics.json"):
        assert (folder.stream("lora") / name).stat().st_size > 0
    sp.wait_for(lambda: not sp.living_workers(folder), "the workers' leaving", 60, folder=folder)
    _adapter_loads_with_plain_peft(folder)


def _adapter_loads_with_plain_peft(folder: RunFolder) -> None:
    script = (
        "import sys; from peft import PeftModel; from transformers import AutoModelForCausalLM;"
        "base = AutoModelForCausalLM.from_pretrained('trainer/embedded/tiny-toon');"
        "PeftModel.from_pretrained(base, sys.argv[1]); print('loaded')"
    )
    command = [sys.executable, "-c", script, str(folder.promoted)]
    assert "loaded" in subprocess.run(command, env=sp.environment(), capture_output=True, text=True, check=True).stdout


def test_every_hand_over_can_be_followed_in_the_log_from_first_claim_to_promotion(tmp_path: Path) -> None:
    config = sp.write_config(tmp_path, streams="  only: {lora_r: 2}", steps=2)
    sp.swarm("run", config.name, cwd=tmp_path)
    kinds = [
        (e.event.kind, e.event.ref) for e in sp.entries(only_run(tmp_path)) if e.event.kind not in {"head", "post"}
    ]
    expected = [
        ("run", "run"), ("stream", "only"),
        ("claim", "only/prepare"), ("prepared", "only/prepare"),
        ("claim", "only/train"), ("trained", "only/train"),  # its last checkpoint is stated with the end
        ("claim", "only/validate"), ("verdict", "only/validate"), ("adapter", "only"),
        ("claim", "only/evaluate"), ("score", "only/evaluate"),
        ("compared", "run"), ("promote", "only"), ("end", "run"),
    ]  # fmt: skip
    assert kinds == expected


def test_a_trainer_killed_in_mid_run_loses_its_lease_and_the_run_finishes_over_tcp_too(tmp_path: Path) -> None:
    config = sp.write_config(tmp_path, streams=TWO, steps=200)
    folder = sp.start(config, f"listen=tcp://127.0.0.1:{sp.free_ports()}")
    assert json.loads(folder.connect.read_text())["endpoint"].startswith("tcp://127.0.0.1:")
    pids = sp.worker_pids(folder)
    sp.wait_for(lambda: len(sp.state(folder).streams["wide"].checkpoints) >= 1, "a checkpoint", folder=folder)
    lease = sp.state(folder).tasks["wide/train"].lease
    assert lease is not None
    os.kill(pids[lease.by], signal.SIGKILL)
    state = sp.wait_for_end(folder)

    assert state.end is not None
    assert state.end.rc == 0
    expiries = [e.event for e in sp.entries(folder) if isinstance(e.event, ev.Expire)]
    assert [e.ref for e in expiries] == ["narrow/train", "wide/train"], "one process trained both"
    assert expiries[1].tok == lease.token and not any(e.failed for e in expiries)
    assert "SIGKILL" in expiries[0].why
    resumed = [c for c in state.streams["wide"].checkpoints if c.tok != lease.token]
    assert min(c.step for c in resumed) > min(c.step for c in state.streams["wide"].checkpoints)
    assert state.streams["wide"].trained is not None
    assert state.streams["wide"].trained.step == 200


def shown_without_a_coordinator(folder: RunFolder, pids: list[int]) -> str:
    """Kills these, the coordinator among them, and gives what the dashboard says of it."""
    with Watcher.attach(folder.path) as watcher:
        sp.wait_for(lambda: watcher.snapshot().state == "running", "a running run", folder=folder)
        sp.kill(pids)
        began = time.monotonic()
        sp.wait_for(lambda: watcher.snapshot().state == "no coordinator", "its absence", seconds=20)
        print(f"\n{len(pids)} killed: no coordinator is shown after {time.monotonic() - began:.1f} s", end="")
        said = advice(View(watcher.snapshot()))
        return said.plain if said else ""


def test_a_coordinator_killed_stops_no_training_and_the_next_one_adopts_the_workers(tmp_path: Path) -> None:
    config = sp.write_config(tmp_path, streams=TWO, steps=400)
    folder = sp.start(config)
    sp.wait_for(lambda: all(s.checkpoints for s in sp.state(folder).streams.values()), "checkpoints", folder=folder)
    sp.wait_for(lambda: len(sp.living_workers(folder)) == 1, "the clerk to leave while both train", folder=folder)
    before, pids = sp.entries(folder), set(sp.living_workers(folder))
    said = shown_without_a_coordinator(folder, [sp.coordinator_pid(folder)])
    assert said.startswith("no coordinator · nothing recorded for ")
    assert said.endswith("s: 1 worker trains on; swarm resume adopts it")
    saved = len(folder.checkpoints("wide")), folder.checkpoints("wide")[0]
    sp.wait_for(lambda: folder.checkpoints("wide")[0] != saved[1], "a checkpoint without a coordinator", folder=folder)
    assert set(sp.living_workers(folder)) == pids

    sp.swarm("resume", "--detach", cwd=tmp_path)
    told = "outlived its coordinator and is adopted"
    sp.wait_for(lambda: [e for e in sp.entries(folder) if told in e.event.body], "adoption", folder=folder)
    state = sp.wait_for_end(folder)
    entries = sp.entries(folder)
    assert state.end is not None
    assert state.end.rc == 0
    assert [e.seq for e in entries][: len(before)] == [e.seq for e in before]
    kinds = [e.event.kind for e in entries]
    results = [kind for kind in kinds if kind in ev.RESULT_OF.values()]
    assert kinds.count("claim") == len(results) == 8, "no task was begun twice"
    assert not {"expire", "refuse", "drop"} & set(kinds)
    for stream in state.streams.values():
        steps = [c.step for c in stream.checkpoints]
        assert steps == list(range(20, 401, 20)), "each checkpoint is reported once, also those of the time alone"
    rows = sp.swarm("export", "--what", "metrics", "--format", "csv", cwd=tmp_path).stdout.splitlines()
    for name in ("narrow", "wide"):
        numbers = [int(row.split(",")[3]) for row in rows if row.startswith(f"{name},") and ",train," in row]
        assert numbers == list(range(1, 401)), "no figure is lost and none comes twice"


def test_everything_killed_at_once_goes_on_from_the_newest_checkpoints(tmp_path: Path) -> None:
    config = sp.write_config(tmp_path, streams=TWO, steps=200)
    folder = sp.start(config)
    sp.wait_for(lambda: all(s.checkpoints for s in sp.state(folder).streams.values()), "checkpoints", folder=folder)
    said = shown_without_a_coordinator(folder, [sp.coordinator_pid(folder), *sp.living_workers(folder)])
    assert said.endswith("s: nothing runs; swarm resume goes on from the newest checkpoints")

    sp.swarm("resume", cwd=tmp_path)
    state = sp.state(folder)
    assert state.end is not None
    assert state.end.rc == 0
    done = [e.event.ref for e in sp.entries(folder) if e.event.kind in ev.RESULT_OF.values()]
    assert len(done) == len(set(done)) == 8
    assert [t.failures for t in state.tasks.values()] == [[]] * 8, "nobody is to blame"
    steps = [c.step for c in state.streams["wide"].checkpoints]
    assert steps == sorted(set(steps)), "steps that were saved are not trained again"


def test_stop_without_a_coordinator_makes_its_workers_save_and_leave(tmp_path: Path) -> None:
    config = sp.write_config(tmp_path, streams=TWO, steps=5000)
    folder = sp.start(config, "defaults.save_steps=4000", "defaults.save_total_limit=1")
    sp.wait_for(
        lambda: all(t.lease for t in map(sp.state(folder).tasks.get, ("narrow/train", "wide/train"))), "training"
    )
    sp.wait_for(lambda: "train" in sp.swarm("status", cwd=tmp_path).stdout and folder.metrics.exists(), "figures")
    os.kill(sp.coordinator_pid(folder), signal.SIGKILL)
    out = sp.swarm("stop", cwd=tmp_path)
    assert not sp.living_workers(folder)
    assert "no coordinator" in out.stderr
    assert folder.checkpoints("wide") and folder.checkpoints("narrow")

    sp.swarm("resume", "--detach", cwd=tmp_path)
    sp.wait_for(
        lambda: [e for e in sp.entries(folder) if e.event.kind == "drop"], "what they left to report", folder=folder
    )
    sp.wait_for(lambda: sp.state(folder).tasks["wide/train"].lease, "training again", folder=folder)
    sp.swarm("stop", cwd=tmp_path)
    assert not {"expire", "refuse"} & {e.event.kind for e in sp.entries(folder)}


def test_a_row_that_is_refused_fails_only_its_own_stream_and_is_not_read_twice(tmp_path: Path) -> None:
    (tmp_path / "bad.jsonl").write_text(
        '{"messages": [{"role": "user", "content": "x"}, {"role": "assistant", "content": "y"}]}\nnot json\n'
    )
    streams = "  good: {lora_r: 2}\n  bad: {datasets: [{path: bad.jsonl, type: chatml}]}"
    config = sp.write_config(tmp_path, streams=streams, steps=2)
    done = sp.swarm("run", config.name, cwd=tmp_path, check=1)
    state = sp.state(only_run(tmp_path))
    assert "bad.jsonl:2" in state.streams["bad"].failed
    assert len(state.tasks["bad/prepare"].failures) == 1
    assert state.promoted is not None
    assert state.promoted.ref == "good"
    assert "bad.jsonl:2" in done.stdout


def test_a_second_ctrl_c_leaves_a_run_that_does_not_stop_at_once(tmp_path: Path) -> None:
    config = sp.write_config(tmp_path, streams="  only: {lora_r: 2}", steps=300)
    said = tmp_path / "said.txt"
    with said.open("w") as file:
        command = [sys.executable, "-m", "swarm.cli", "run", config.name]
        process = subprocess.Popen(
            command, cwd=tmp_path, env=sp.environment(), stdin=subprocess.DEVNULL, stdout=file, stderr=file
        )
    sp.wait_for(lambda: "stream only" in said.read_text(), "the first lines")
    folder = only_run(tmp_path)
    coordinator = sp.coordinator_pid(folder)
    os.kill(coordinator, signal.SIGSTOP)
    try:
        for words in ("Ctrl-C again detaches", f"detached; {folder.name} goes on"):
            process.send_signal(signal.SIGINT)
            sp.wait_for(lambda words=words: words in said.read_text(), words, folder=folder)
        assert process.wait(30) == 0
    finally:
        os.kill(coordinator, signal.SIGCONT)
    sp.swarm("stop", cwd=tmp_path, check=None)
    assert sp.wait_for_end(folder).end is not None


def test_ctrl_c_saves_and_stops_and_resume_goes_on(tmp_path: Path) -> None:
    config = sp.write_config(tmp_path, streams="  only: {lora_r: 2}", steps=300, extra="  save_total_limit: 1")
    command = [sys.executable, "-m", "swarm.cli", "run", config.name]
    process = subprocess.Popen(
        command,
        cwd=tmp_path,
        env=sp.environment(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    sp.wait_for(lambda: list((tmp_path / "runs").glob("*/COLLABORATION.md")), "the log")
    folder = only_run(tmp_path)
    sp.wait_for(
        lambda: sp.state(folder).streams and sp.state(folder).streams["only"].checkpoints, "a checkpoint", folder=folder
    )
    process.send_signal(signal.SIGINT)
    out, _ = process.communicate(timeout=120)
    assert process.returncode == 130, out
    stopped = sp.state(folder)
    assert stopped.end is not None
    assert stopped.end.rc == 130
    saved = max(c.step for c in stopped.streams["only"].checkpoints)

    sp.swarm("resume", cwd=tmp_path)
    state = sp.state(folder)
    assert state.end is not None
    assert state.end.rc == 0
    later = [c.step for c in state.streams["only"].checkpoints if c.step > saved]
    assert later and min(later) > saved
    assert state.streams["only"].trained is not None
    assert state.streams["only"].trained.step == 300
