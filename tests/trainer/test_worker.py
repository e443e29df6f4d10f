"""Real workers: processes that join a real hub, do real tasks, and leave when they should."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from swarm.messages import Assign, Hello, Order, Piece, Quit, Ready, Report
from swarm.settings import StreamSettings
from tests.trainer.desk import Desk
from toon import encode
from trainer.worker import Post


def test_one_worker_prepares_trains_pauses_stops_resumes_judges_and_leaves(
    desk: Desk, settings: Callable[..., StreamSettings]
) -> None:
    long = settings(max_steps=4000, save_steps=3000, logging_steps=1)
    process = desk.start_worker("prepare,train,validate,evaluate", "--threads", "1")
    assert Hello.read(desk.wait(lambda one: one.type == "hello").body).pid == process.pid
    ready = Ready.read(desk.wait(lambda one: one.type == "ready").body)
    assert [one.type for one in desk.heard if one.type != "heartbeat"][:2] == ["hello", "ready"]
    assert ready.resident_bytes > 100e6

    desk.assign(ref="one/prepare", token=1, role="prepare", stream="one", settings=long)
    prepared = desk.report("prepared", 1)
    rows = {"prepared": prepared.path, "prepared_sha256": prepared.sha256}
    command = (
        "python -m trainer --join w1.json --run . --roles prepare,train,validate,evaluate --device cpu --threads 1"
    )
    assert (desk.run_folder / "workers/w1.command").read_text() == f"{command}\n" and prepared.cmd is None

    desk.assign(ref="one/train", token=2, role="train", stream="one", settings=long, **rows)
    desk.wait(lambda one: one.type == "metrics")
    desk.tell(Order(ref="one/train", token=2, what="pause"))
    time.sleep(0.7)
    paused_at = desk.steps(2)[-1]
    time.sleep(0.7)
    assert desk.steps(2)[-1] == paused_at
    desk.tell(Order(ref="one/train", token=2, what="resume"))
    desk.wait(lambda one: desk.steps(2)[-1] > paused_at)
    desk.tell(Order(ref="one/train", token=2, what="stop"))
    saved, dropped = desk.report("checkpoint", 2), desk.report("drop", 2)
    assert (dropped.failed, dropped.why) == (False, "stopped")

    # The same stream goes on from there, in the same process, to its end.
    short = settings(max_steps=saved.step + 2, save_steps=3000)
    desk.assign(
        ref="one/train",
        token=3,
        role="train",
        stream="one",
        settings=short,
        resume_from=[saved.path],
        **rows,
    )
    trained = desk.report("trained", 3)
    assert trained.step == saved.step + 2
    assert min(desk.steps(3)) == saved.step + 1

    judged = {
        "stream": "one",
        "settings": short,
        **rows,
        "checkpoint": trained.path,
        "sha256": trained.sha256,
    }
    desk.assign(ref="one/validate", token=4, role="validate", **judged)
    desk.assign(ref="one/evaluate", token=5, role="evaluate", **judged)
    assert desk.report("verdict", 4).result == "SUCCESS"
    assert desk.report("score", 5).figures["base_eval_loss"] == desk.report("verdict", 4).figures["base_eval_loss"]

    desk.tell(Quit(why="the run is over"))
    assert process.wait(60) == 0, desk.log()
    assert "the run is over" in desk.log()


def test_a_failed_task_is_reported_in_a_line_and_the_worker_takes_the_next(
    desk: Desk, settings: Callable[..., StreamSettings]
) -> None:
    process = desk.start_worker("prepare")
    desk.wait(lambda one: one.type == "ready")
    missing = settings(datasets=[{"path": "/nowhere/rows.jsonl"}])
    desk.assign(ref="one/prepare", token=1, role="prepare", stream="one", settings=missing)
    refused = desk.report("drop", 1)
    assert refused.why.startswith("datasets.path: no file matches /nowhere/rows.jsonl")
    assert (refused.failed, refused.retry) == (True, False), "the same rows would be refused again"
    desk.assign(ref="one/train", token=2, role="train", stream="one", settings=settings())
    assert desk.report("drop", 2).failed
    desk.assign(ref="one/prepare", token=3, role="prepare", stream="one", settings=settings())
    desk.report("prepared", 3)
    process.send_signal(signal.SIGINT)  # a terminal's Ctrl-C: the coordinator's business
    time.sleep(0.3)
    assert process.poll() is None
    process.terminate()
    assert process.wait(60) == 0, desk.log()


def training(desk: Desk, settings: StreamSettings) -> subprocess.Popen[bytes]:
    """A worker that trains under token 2 and leaves 6 s after its coordinator, once it has nothing to do."""
    process = desk.start_worker("prepare,train", "--orphan-seconds", "6")
    desk.wait(lambda one: one.type == "ready")
    desk.assign(ref="one/prepare", token=1, role="prepare", stream="one", settings=settings)
    prepared = desk.report("prepared", 1)
    rows = {"prepared": prepared.path, "prepared_sha256": prepared.sha256}
    desk.assign(ref="one/train", token=2, role="train", stream="one", settings=settings, **rows)
    desk.wait(lambda one: one.type == "metrics")
    return process


def test_orphaned_trainer_ends_its_training_and_its_report_waits_for_the_next_process(
    desk: Desk, settings: Callable[..., StreamSettings]
) -> None:
    process = training(desk, settings(max_steps=300, save_steps=300))
    desk.close_hub()
    assert process.wait(90) == 0, desk.log()
    (saved,) = (desk.run_folder / "streams" / "one" / "t2").glob("checkpoint-300")
    assert (saved / "manifest.json").is_file()

    desk.open_hub()
    successor = desk.start_worker("prepare,train")
    hello = desk.wait(lambda one: one.type == "hello" and Hello.read(one.body).pid == successor.pid)
    assert desk.report("trained", 2).step == 300
    control = [one for one in desk.heard if not one.incarnation.endswith(".t")]
    assert control[-1] is hello, "what its forerunner had to say comes first"
    assert desk.steps(2)[-1] == 300


def test_orphaned_trainer_greets_the_next_coordinator_with_what_it_holds(
    desk: Desk, settings: Callable[..., StreamSettings]
) -> None:
    process = training(desk, settings(max_steps=100_000, save_steps=50_000))
    assert Hello.read(desk.wait(lambda one: one.type == "hello").body).holds == []
    desk.close_hub()
    desk.open_hub()
    hello = Hello.read(desk.wait(lambda one: one.type == "hello").body)
    [held] = hello.holds
    assert (hello.pid, hello.state, held.ref, held.token, held.state) == (
        process.pid,
        "working",
        "one/train",
        2,
        "working",
    )
    desk.tell(Order(ref="one/train", token=2, what="stop"))
    assert desk.report("drop", 2).why == "stopped"


def test_a_worker_holds_three_tasks_does_one_after_another_and_an_order_is_for_one_of_them(
    desk: Desk, settings: Callable[..., StreamSettings]
) -> None:
    desk.start_worker("prepare,train")
    desk.wait(lambda one: one.type == "ready")
    long = settings(engine="trl", max_steps=100_000, save_steps=50_000)
    desk.assign(ref="one/prepare", token=1, role="prepare", stream="one", settings=long)
    prepared = desk.report("prepared", 1)
    rows = {"prepared": prepared.path, "prepared_sha256": prepared.sha256}
    short = settings(engine="trl", max_steps=2)
    chosen = {"one": long, "two": short, "three": short, "four": short}
    desk.tell(
        Assign(
            pieces=[
                Piece(ref=f"{name}/train", token=token, role="train", stream=name, settings=each, **rows)
                for token, (name, each) in enumerate(chosen.items(), start=11)
            ]
        )
    )
    desk.wait_for(lambda: desk.states() == ["working", "waiting", "waiting", "waiting"])
    desk.wait(lambda one: one.type == "metrics")

    desk.tell(Order(ref="three/train", token=13, what="stop"))
    dropped = desk.report("drop", 13)
    assert (dropped.why, dropped.failed, dropped.worked) == ("stopped", False, 0.0), (
        "at once, since nobody had begun it"
    )
    desk.tell(Order(ref="four/train", token=14, what="revoke"))
    desk.tell(Order(ref="two/train", token=12, what="pause"))
    desk.wait_for(lambda: desk.states() == ["working", "paused"])
    desk.tell(Order(ref="one/train", token=21, what="hand"))
    desk.wait_for(lambda: desk.heartbeat().holds[0].token == 21)

    desk.tell(Order(ref="one/train", token=21, what="stop"))
    given_back = desk.report("drop", 21)
    assert not given_back.failed and given_back.worked > 0
    desk.wait_for(lambda: desk.states() == ["paused"])
    assert desk.heartbeat().state == "idle"
    desk.tell(Order(ref="two/train", token=12, what="resume"))
    assert desk.report("trained", 12).step == 2
    desk.wait_for(lambda: desk.states() == [])
    assert not any(Report.read(one.body).facts.get("tok") == 14 for one in desk.heard if one.type == "report")


def test_a_worker_that_is_asked_to_leave_gives_back_what_it_has_not_begun(
    desk: Desk, settings: Callable[..., StreamSettings]
) -> None:
    process = training(desk, settings(max_steps=100_000, save_steps=50_000, engine="trl"))
    desk.assign(
        ref="two/train", token=3, role="train", stream="two", settings=settings(engine="trl"), prepared="prepared/x"
    )
    desk.wait_for(lambda: desk.states() == ["working", "waiting"])
    process.terminate()
    assert process.wait(60) == 0, desk.log()
    assert [desk.report("drop", token).why for token in (2, 3)] == ["the worker was asked to leave"] * 2


def test_a_worker_that_was_adopted_by_another_version_gives_its_tasks_back_and_leaves(
    desk: Desk, settings: Callable[..., StreamSettings]
) -> None:
    process = desk.start_worker("prepare")
    desk.wait(lambda one: one.type == "ready")
    piece = Piece(ref="one/prepare", token=3, role="prepare", stream="one", settings=settings())
    value = json.loads(Assign(pieces=[piece]).model_dump_json(exclude_none=True))
    value["pieces"][0]["settings"]["of_next_year"] = 1
    desk.send(Assign.type, encode(value))
    assert process.wait(60) == 0, desk.log()
    dropped = desk.report("drop", 3)
    assert (dropped.ref, dropped.why, dropped.failed) == (
        "one/prepare", "the coordinator is of another version than this worker", False,
    )  # fmt: skip


def test_orphaned_and_paused_trainer_saves_a_checkpoint_and_leaves(
    desk: Desk, settings: Callable[..., StreamSettings]
) -> None:
    process = training(desk, settings(max_steps=100_000, save_steps=50_000, save_total_limit=1))
    desk.tell(Order(ref="one/train", token=2, what="pause"))
    time.sleep(1.0)
    desk.close_hub()
    assert process.wait(60) == 0, desk.log()
    (saved,) = (desk.run_folder / "streams" / "one" / "t2").glob("checkpoint-*")
    assert (saved / "manifest.json").is_file()


def test_orphaned_idle_worker_leaves(desk: Desk) -> None:
    process = desk.start_worker("prepare", "--orphan-seconds", "1")
    desk.wait(lambda one: one.type == "hello")  # it is importing now
    desk.close_hub()
    assert process.wait(60) == 0, desk.log()
    assert "leaving: the coordinator was silent for 1 s" in desk.log()


def test_the_command_in_the_log_names_no_place_of_this_machine(tmp_path: Path) -> None:
    post = Post(tmp_path / "keys/join/trainer-1.json", tmp_path, ("train",), "gpu0", 4)
    assert post.command == (
        "python -m trainer --join keys/join/trainer-1.json --run . --roles train --device gpu0 --threads 4"
    )


def test_a_join_file_that_cannot_be_read_is_reported_in_a_line(desk: Desk) -> None:
    command = [sys.executable, "-m", "trainer", "--join", "/nowhere", "--run", desk.run_folder, "--roles"]
    done = subprocess.run([*command, "prepare"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert done.stderr.startswith("trainer: /nowhere")
    done = subprocess.run([*command, "cook"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (
        2,
        "--roles: 'cook' is no role; choose from prepare, train, validate, evaluate\n",
    )
