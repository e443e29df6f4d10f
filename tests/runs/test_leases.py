"""Leases between real processes: one winner, holders that are stopped past their lease, a live stream that changes hands."""

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
from swarm.access.client import Client
from swarm.artifacts import publish
from swarm.errors import Refused
from swarm.launch.layout import Layout
from swarm.log import LogWriter, run_is_alive
from swarm.policy.admission import admit
from swarm.policy.results import token_in
from swarm.rundir import RunFolder
from swarm.state import Refusal
from tests.runs import swarm_process as sp

STEPS = 300
"""Enough that a test can step in while the training goes on, also on a fast machine."""
CLAIMANTS = 8
ROUNDS = 200


@pytest.fixture(autouse=True)
def _nothing_is_left_behind(tmp_path: Path) -> Iterator[None]:
    yield from sp.end_everything(tmp_path)


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    """A run that nobody works on yet."""
    from swarm import config

    path = sp.write_config(tmp_path, streams="  only: {lora_r: 2}")
    made = RunFolder(tmp_path / "runs" / "leases")
    made.path.mkdir(parents=True)
    made.config.write_text(config.load(path, cwd=tmp_path).dump())
    Layout((), ()).write(made.layout)
    return made


@pytest.fixture(params=["under the lock", "through a coordinator"])
def live(request: pytest.FixtureRequest, folder: RunFolder) -> Iterator[RunFolder]:
    """The same, once with nobody at the log, once with a coordinator that has no workers."""
    if request.param == "under the lock":
        with LogWriter.open(folder.log) as writer:
            run = ev.Run(ref="run", name=folder.name, config_sha256="a" * 64, streams=1)
            writer.append([("coordinator", run), ("coordinator", ev.Stream(ref="only"))])
        yield folder
        return
    command = [sys.executable, "-m", "swarm.coordinator", str(folder.path)]
    with subprocess.Popen(command, env=sp.environment(), stderr=subprocess.DEVNULL) as coordinator:
        sp.wait_for(lambda: folder.connect.exists() and run_is_alive(folder.log), "the coordinator", 30)
        yield folder
        coordinator.kill()


CLAIMANT = """
import sys, time
from pathlib import Path
from swarm.access.client import Client
from swarm.errors import Refused
from swarm.events import Claim, Task
from swarm.rundir import RunFolder

folder, name, rounds = RunFolder(Path(sys.argv[1])), sys.argv[2], int(sys.argv[3])
with Client(folder, name) as client:
    print("ready", flush=True)
    sys.stdin.readline()
    for n in range(rounds):
        try:
            print(n, client.append(Claim(ref=f"race/{n}", ttl=600, idem=f"race-{n}"), timeout_seconds=60), flush=True)
        except Refused:
            print(n, "refused", flush=True)
"""


def test_of_eight_claimants_exactly_one_wins_each_round(live: RunFolder) -> None:
    with Client(live, "ada") as ada:
        for n in range(ROUNDS):
            ada.append(ev.Task(ref=f"race/{n}"))
    racers = [
        subprocess.Popen(
            [sys.executable, "-c", CLAIMANT, str(live.path), f"racer-{n}", str(ROUNDS)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=sp.environment(),
        )
        for n in range(CLAIMANTS)
    ]  # fmt: skip
    for racer in racers:
        assert racer.stdout and racer.stdout.readline() == "ready\n"
    for racer in racers:
        assert racer.stdin
        racer.stdin.write("go\n")
        racer.stdin.flush()
    said = [racer.communicate(timeout=600)[0] for racer in racers]
    told: dict[str, list[str]] = {}
    for line in "".join(said).splitlines():
        told.setdefault(line.split()[0], []).append(line.split()[1])
    assert len(told) == ROUNDS
    for answers in told.values():
        assert len(answers) == CLAIMANTS
        assert answers.count("refused") == CLAIMANTS - 1
    leases = {task.ref: task.lease for task in sp.state(live).held()}
    for n, answers in told.items():
        lease = leases[f"race/{n}"]
        assert lease is not None
        assert str(lease.token) in answers


HOLDER = """
import sys
from pathlib import Path
from swarm.access.client import Client
from swarm.errors import Refused
from swarm.events import Claim, Done
from swarm.rundir import RunFolder

with Client(RunFolder(Path(sys.argv[1])), "ada") as client:
    token = client.append(Claim(ref="review/x", ttl=1.0))
    print(token, flush=True)
    sys.stdin.readline()
    try:
        print(client.append(Done(ref="review/x", tok=token)), flush=True)
    except Refused as refused:
        print("refused:", refused, flush=True)
"""


def test_a_holder_stopped_past_its_lease_is_refused_when_it_comes_back(live: RunFolder) -> None:
    with Client(live, "bob") as bob:
        bob.append(ev.Task(ref="review/x"))
        holder = subprocess.Popen(
            [sys.executable, "-c", HOLDER, str(live.path)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=sp.environment(),
        )  # fmt: skip
        assert holder.stdout
        old = int(holder.stdout.readline())
        holder.send_signal(signal.SIGSTOP)
        time.sleep(1.2)
        new = bob.append(ev.Claim(ref="review/x", ttl=60))
        holder.send_signal(signal.SIGCONT)
        out, _ = holder.communicate("go\n", timeout=60)
        assert out.startswith("refused:")
        assert f"token {old} is stale, token {new} holds it" in out
        bob.append(ev.Done(ref="review/x", tok=new))
    expired = [e.event for e in sp.entries(live) if isinstance(e.event, ev.Expire)]
    assert [(e.ref, e.tok) for e in expired] == [("review/x", old)]


# ---- whole runs ------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.timeout(420)
def test_a_live_stream_changes_hands_and_its_training_goes_on_until_two_people_agree(tmp_path: Path) -> None:
    config = sp.write_config(tmp_path, streams="  only: {lora_r: 2}", steps=STEPS)
    text = config.read_text() + "promotion: {approvers: [ada, bob], must_beat: nothing}\n"
    config.write_text(text)
    folder = sp.start(config)
    sp.wait_for(lambda: sp.state(folder).streams["only"].checkpoints, "a checkpoint", folder=folder)
    lease = sp.state(folder).tasks["only/train"].lease
    assert lease is not None
    with Client(folder) as client:
        new = client.append(ev.Hand(ref="only/train", tok=lease.token, to="ada", ttl=600))
        with pytest.raises(Refused, match=f"token {lease.token} is stale, token {new} holds it"):
            client.append(ev.Renew(ref="only/train", tok=lease.token, ttl=60))
    sp.wait_for(
        lambda: any(c.tok == new for c in sp.state(folder).streams["only"].checkpoints), "the new token", folder=folder
    )
    held = sp.state(folder).tasks["only/train"].lease
    if held is not None:  # it may be through by now
        assert (held.by, held.worker) == ("ada", lease.worker)

    def waits() -> str:
        return str(json.loads(sp.swarm("status", str(folder.path), "--json", cwd=tmp_path).stdout)["waits"] or "")

    sp.wait_for(lambda: "waits for ada, bob" in waits(), "the gate", folder=folder)
    sp.wait_for(lambda: not sp.living_workers(folder), "the workers' leaving", 60, folder=folder)
    for name in ("ada", "bob"):
        with Client(folder, name) as client:
            client.append(ev.Approve(ref="only"))
    state = sp.wait_for_end(folder)

    stream = state.streams["only"]
    tokens = [c.tok for c in stream.checkpoints]
    assert tokens == sorted(tokens) and set(tokens) == {lease.token, new}
    folders = [token_in("only", c.path) for c in stream.checkpoints]
    assert folders == sorted(folders) and set(folders) <= {lease.token, new}
    assert all(at <= c.tok for at, c in zip(folders, stream.checkpoints, strict=True)), (
        "one may be saved across the hand-over"
    )
    steps = [c.step for c in stream.checkpoints]
    assert steps == sorted(set(steps)), "no step was trained twice"
    assert stream.trained is not None and stream.trained.step == STEPS and stream.trained.tok == new
    assert not [e for e in sp.entries(folder) if isinstance(e.event, ev.Expire)]
    assert stream.adapter is not None and stream.adapter.tok == new
    _the_record_can_be_read(folder, tmp_path)


def _the_record_can_be_read(folder: RunFolder, cwd: Path) -> None:
    """Lineage, replay, digest and verify of a finished run."""
    run = str(folder.path)
    [lineage] = json.loads(sp.swarm("lineage", run, "--json", cwd=cwd).stdout)["adapters"]
    assert (lineage["approved"], lineage["files"], lineage["promoted"]["forced"]) == (["ada", "bob"], "ok", False)
    now = json.loads(sp.swarm("status", run, "--json", cwd=cwd).stdout)
    assert json.loads(sp.swarm("replay", run, "--json", cwd=cwd).stdout)["streams"] == now["streams"]
    [saved] = [e.seq for e in sp.entries(folder) if isinstance(e.event, ev.Checkpoint)][:1]
    then = json.loads(sp.swarm("replay", run, "--to", str(saved), "--json", cwd=cwd).stdout)
    assert (then["at"], then["streams"][0]["state"], then["rc"]) == (saved, "train", None)
    assert 0 < then["streams"][0]["step"] < STEPS
    assert "at: " in sp.swarm("digest", run, "--budget", "200", cwd=cwd).stdout
    assert "every byte as written" in sp.swarm("log", "verify", run, cwd=cwd).stderr


@pytest.mark.slow
@pytest.mark.timeout(420)
def test_a_worker_stopped_past_its_lease_is_refused_at_the_log_and_at_publication(tmp_path: Path) -> None:
    config = sp.write_config(tmp_path, streams="  only: {lora_r: 2}", steps=STEPS)
    config.write_text(config.read_text() + "lease_seconds: 10\n")
    folder = sp.start(config)
    pids = sp.worker_pids(folder)
    sp.wait_for(lambda: sp.state(folder).streams["only"].checkpoints, "a checkpoint", folder=folder)
    state = sp.state(folder)
    lease, zombies = state.tasks["only/train"].lease, state.streams["only"].checkpoints[-1]
    assert lease is not None and lease.worker is not None
    os.kill(pids[lease.worker], signal.SIGSTOP)
    state = sp.wait_for_end(folder)

    [expiry] = [e.event for e in sp.entries(folder) if isinstance(e.event, ev.Expire)]
    assert "no heartbeat" in expiry.why and expiry.tok == lease.token
    adapter = state.streams["only"].adapter
    assert adapter is not None and adapter.tok > lease.token
    sp.wait_for(lambda: not run_is_alive(folder.log), "the coordinator's leaving", 60, folder=folder)
    late = ev.Checkpoint(ref="only/train", tok=lease.token, step=9, path=zombies.path, sha256=zombies.sha256)
    with pytest.raises(Refusal, match=f"token {lease.token} is stale"):
        admit(state, lease.worker, late, state.time)
    stream = state.streams["only"]
    facts = {"tok": zombies.tok, "step": zombies.step, "path": zombies.path, "sha256": zombies.sha256}
    stream.back, stream.adapter = ev.Back.model_validate({"ref": "only", "why": "as the holder sees it", **facts}), None
    settings = sp.settings(folder)
    newer = f"holds weights of token {adapter.tok}, newer than {lease.token}"
    placed = publish.adapter(folder, state, "only", settings.streams["only"])
    with pytest.raises(publish.PublishError, match=f"adapter {newer}"), placed:
        pytest.fail("an old holder's weights were published")
    assert state.promoted is not None
    stream.adapter = adapter.model_copy(update={"tok": lease.token})
    placed = publish.promotion(folder, state, state.promoted, settings, "ada")
    with pytest.raises(publish.PublishError, match=f"promoted {newer}"), placed:
        pytest.fail("an old holder's weights were promoted")
    assert publish.intact(folder, adapter.path, adapter.sha256) == "ok"
    assert publish.intact(folder, state.promoted.path, state.promoted.sha256) == "ok"


@pytest.mark.slow
@pytest.mark.timeout(420)
def test_a_checkpoint_that_fails_validation_gives_way_to_the_last_good_one(tmp_path: Path) -> None:
    config = sp.write_config(tmp_path, streams="  only: {lora_r: 2}", steps=6)
    folder = sp.start(config)
    sp.wait_for(lambda: sp.state(folder).tasks["only/train"].lease, "a trainer", folder=folder)
    judging = set(sp.trainer_processes(folder)) - set(sp.living_trainers(folder))
    """The worker that judges, or the process that would make it."""
    sp.kill(judging, signal.SIGSTOP)
    try:
        sp.wait_for(lambda: sp.state(folder).tasks["only/train"].done, "the end of the training", folder=folder)
        trained = sp.state(folder).streams["only"].trained
        assert trained is not None
        with (folder.path / trained.path / "adapter_model.safetensors").open("r+b") as file:
            file.seek(-1, os.SEEK_END)
            file.write(b"\x7f")
    finally:
        sp.kill(judging, signal.SIGCONT)
    state = sp.wait_for_end(folder)
    [back] = [e.event for e in sp.entries(folder) if isinstance(e.event, ev.Back)]
    assert "its maker said" in back.why
    assert back.step == 4
    assert next(e.event.result for e in sp.entries(folder) if isinstance(e.event, ev.Verdict)) == "FAIL"
    adapter = state.streams["only"].adapter
    assert adapter is not None and adapter.sha256 == back.sha256
    assert state.end is not None and state.end.rc == 0
