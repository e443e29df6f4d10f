"""An agent written in Python: it claims, works, loses, hands over, asks and waits, with nobody at work in the run."""

from __future__ import annotations

import math
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from swarm import Agent
from swarm import events as ev
from swarm.agents.agent import LeaseLost, Refused
from swarm.errors import UserError
from swarm.rundir import RunFolder
from swarm.weights import sha256_of
from tests.swarm.places import entries, kinds, state


def test_a_task_is_claimed_worked_and_done_under_its_token(folder: RunFolder) -> None:
    with Agent("ada", folder.path) as ada:
        ada.task("data/check", "look for bad rows")
        with ada.claim("data/check") as lease:
            assert ada.state.tasks["data/check"].lease is not None
            lease.check()
            lease.done(body="none bad")
    assert kinds(folder) == ["post", "task", "claim", "done"]
    done = entries(folder)[-1]
    assert isinstance(done.event, ev.Done)
    assert (done.event.tok, done.event.body, done.author, done.via) == (lease.token, "none bad", "ada", "local")


def test_a_lease_that_ends_without_a_word_is_done_and_one_that_fails_is_dropped_with_the_reason(
    folder: RunFolder,
) -> None:
    with Agent("ada", folder.path) as ada:
        ada.task("a")
        ada.task("b")
        with ada.claim("a"):
            pass
        with pytest.raises(ZeroDivisionError), ada.claim("b"):
            _ = 1 / 0
    assert state(folder).tasks["a"].done is not None
    assert state(folder).tasks["b"].failures == ["ZeroDivisionError: division by zero"]


def test_a_held_task_is_refused_with_holder_token_and_time_left(folder: RunFolder) -> None:
    with Agent("ada", folder.path) as ada, Agent("bob", folder.path) as bob:
        ada.task("a")
        with (
            ada.claim("a", ttl_seconds=60) as lease,
            pytest.raises(Refused, match=rf"held by ada \(token {lease.token}\) for \d+ s; wait"),
        ):
            bob.claim("a")


def test_who_waits_gets_the_task_when_the_holder_lets_go(folder: RunFolder) -> None:
    with Agent("ada", folder.path) as ada, Agent("bob", folder.path) as bob:
        ada.task("a")
        lease = ada.claim("a")
        threading.Timer(0.4, lease.drop).start()
        began = time.monotonic()
        bob.claim("a", wait_seconds=20).let_go()
        assert 0.3 < time.monotonic() - began < 15


def test_a_lease_is_renewed_in_the_background_for_as_long_as_it_is_held(folder: RunFolder) -> None:
    with Agent("ada", folder.path) as ada, Agent("bob", folder.path) as bob:
        ada.task("a")
        with ada.claim("a", ttl_seconds=6) as lease:
            time.sleep(6.5)
            assert not lease.lost
            with pytest.raises(Refused, match="held by ada"):
                bob.claim("a")
    assert kinds(folder).count("renew") >= 2


def test_a_holder_that_cannot_renew_knows_that_it_is_lost_before_others_may_claim(folder: RunFolder) -> None:
    with Agent("ada", folder.path) as ada, Agent("bob", folder.path) as bob:
        ada.task("a")
        lease = ada.claim("a", ttl_seconds=6)
        lease._settled.set()  # the thread that renews is gone, as in a process that was stopped
        lease._thread.join()
        lease._settled.clear()
        with bob.claim("a", wait_seconds=20):
            assert lease.lost
            with pytest.raises(LeaseLost, match="could not be renewed"):
                lease.check()
            with pytest.raises(Refused, match="stale"):
                lease.done()
    assert [entry.author for entry in entries(folder) if entry.event.kind == "expire"] == ["log"]


def test_a_block_that_ends_after_its_lease_was_lost_renews_no_more_and_others_take_the_task(folder: RunFolder) -> None:
    with Agent("ada", folder.path) as ada, Agent("bob", folder.path) as bob:
        ada.task("a")
        with pytest.raises(LeaseLost, match="could not be renewed"), ada.claim("a", ttl_seconds=6) as lease:
            lease._good_until = 0.0  # it was silent for too long, and the way to the log is open again
        lease._thread.join(timeout=5)
        assert not lease._thread.is_alive()
        with bob.claim("a", wait_seconds=20):
            assert state(folder).tasks["a"].lease is not None


def test_a_holder_that_knows_that_its_lease_is_lost_does_not_get_it_back(folder: RunFolder) -> None:
    with Agent("ada", folder.path) as ada:
        ada.task("a")
        lease = ada.claim("a", ttl_seconds=6)
        lease._good_until = 0.0
        assert lease.lost
        lease._thread.join(timeout=5)
        assert not lease._thread.is_alive()
    assert "renew" not in kinds(folder)


def test_an_invalid_text_leaves_the_lease_as_it_is(folder: RunFolder) -> None:
    with Agent("ada", folder.path) as ada:
        ada.task("a")
        with ada.claim("a") as lease:
            with pytest.raises(UserError, match="hand: to: 'Bad Name' is not valid"):
                lease.hand("Bad Name")
            with pytest.raises(UserError, match="hand: ttl: 0 s is out of range"):
                lease.hand("bob", ttl_seconds=0)
            with pytest.raises(UserError, match="drop: idem: 'bad key' is not valid; an idempotency key is 1 to 64"):
                lease.drop(idem="bad key")
    assert kinds(folder)[-1] == "done"


@pytest.mark.parametrize("seconds", [math.nan, math.inf, -1.0])
def test_a_time_that_is_none_is_not_waited_for(folder: RunFolder, seconds: float) -> None:
    with Agent("ada", folder.path) as ada:
        for wait in (
            lambda: ada.take("a", ttl_seconds=60, wait_seconds=seconds),
            lambda: ada.ask("bob", "which?", wait_seconds=seconds),
            lambda: ada.wait_for("promote", timeout_seconds=seconds),
        ):
            with pytest.raises(UserError, match="not a time to wait"):
                wait()
    assert kinds(folder) == ["post"]


def test_a_lease_that_was_handed_over_is_refused_to_the_giver_and_goes_on_with_the_taker(folder: RunFolder) -> None:
    with Agent("ada", folder.path) as ada, Agent("bob", folder.path) as bob:
        ada.task("a")
        lease = ada.claim("a")
        token = lease.hand("bob", body="half done")
        with pytest.raises(Refused, match="stale"):
            ada.finish("a", lease.token)
        with bob.claim("a") as taken:
            assert taken.token == token
        assert [(m.why, m.entry.event.body) for m in bob.inbox().messages] == [("handed", "half done")]
    assert state(folder).tasks["a"].done is not None


def test_a_question_waits_for_its_answer(folder: RunFolder) -> None:
    with Agent("ada", folder.path) as ada, Agent("bob", folder.path) as bob:

        def answer() -> None:
            asked = bob.wait_for("post", "a", timeout_seconds=20)
            bob.post("2e-3", "a", of=asked.seq)

        thread = threading.Thread(target=answer)
        thread.start()
        _, got = ada.ask("bob", "which rate?", "a", wait_seconds=20)
        thread.join()
        assert got is not None
        assert (got.author, got.event.body) == ("bob", "2e-3")
        assert ada.ask("bob", "and now?", "a")[1] is None
        assert len(bob.inbox().questions) == 1


def test_an_event_with_the_same_key_is_recorded_once_however_often_it_is_sent(folder: RunFolder) -> None:
    with Agent("ada", folder.path) as ada:
        first = ada.post("a note", idem="note-1")
        assert ada.post("a note", idem="note-1") == first
        assert ada.post("a note") != first


def test_tail_gives_what_came_after_a_cursor(folder: RunFolder) -> None:
    with Agent("ada", folder.path) as ada:
        seq = ada.post("one")
        ada.post("two")
        assert [entry.event.body for entry in ada.tail(seq)] == ["two"]
        assert ada.tail(seq + 5) == []


def test_evidence_from_elsewhere_is_kept_in_the_run_folder_with_its_hash(folder: RunFolder, tmp_path: Path) -> None:
    proof = tmp_path / "scores.toon"
    proof.write_text("a: 1\n")
    with Agent("ada", folder.path) as ada:
        path, sha256 = ada.keep(proof, 7)
        assert (folder.path / path).read_text() == "a: 1\n"
        assert path == f"agents/ada/7-{sha256[:12]}-scores.toon"
        assert ada.keep(path, 7) == ada.keep(proof, 7) == (path, sha256)
        for nothing in (tmp_path / "nothing", tmp_path):
            with pytest.raises(UserError, match="cannot be kept"):
                ada.keep(nothing, 7)
    assert [file.name for file in (folder.path / path).parent.iterdir()] == [Path(path).name]


def test_evidence_that_an_entry_vouches_for_stays_whatever_is_kept_and_refused_later(
    folder: RunFolder, tmp_path: Path
) -> None:
    proof = tmp_path / "scores.toon"
    proof.write_text("a: 1\n")
    with Agent("ada", folder.path) as ada:
        ada.task("a")
        lease = ada.claim("a")
        path, sha256 = ada.keep(proof, lease.token)
        lease.done(path=path, sha256=sha256)
        proof.write_text("a: 2\n")
        with pytest.raises(Refused, match="is done already"):
            ada.finish("a", lease.token, path=ada.keep(proof, lease.token)[0])
    done = entries(folder)[-1].event
    assert isinstance(done, ev.Done) and done.path and sha256_of(folder.path / done.path) == done.sha256


def test_a_verdict_finishes_the_task_of_the_lease_that_is_renewed_meanwhile(folder: RunFolder, candidate: Path) -> None:
    with Agent("ada", folder.path) as ada:
        with ada.claim("wide/validate", ttl_seconds=6) as lease:
            seq = ada.judge("wide/validate", lease.token, "FAIL", why="it repeats itself")
            time.sleep(2.5)  # a renewal after that would be refused
        assert not lease.lost
        assert lease.done() == seq
        with pytest.raises(Refused, match="is done already"):
            lease.done(body="and it is slow")
    assert state(folder).tasks["wide/validate"].done is not None
    assert kinds(folder)[-1] == "verdict"


def test_a_result_that_is_refused_leaves_the_lease_as_it_is(folder: RunFolder, candidate: Path) -> None:
    with Agent("ada", folder.path) as ada, ada.claim("wide/validate") as lease:
        with pytest.raises(Refused, match="a trained belongs to `wide/train`"):
            path = f"streams/wide/t{lease.token}/checkpoint-9"
            lease.report("trained", step=9, trainable=1, path=path, sha256="a" * 64)
        lease.check()
        lease.drop("not today")


@pytest.mark.parametrize("wrong", ["Ada", "", "a/b", "../ada", "a" * 65])
def test_a_name_that_is_none_is_reported_at_once(folder: RunFolder, wrong: str) -> None:
    with pytest.raises(UserError, match="is not a valid name"):
        Agent(wrong, folder.path)


def test_an_invalid_field_is_named(folder: RunFolder) -> None:
    with Agent("ada", folder.path) as ada, pytest.raises(UserError, match="post: ref: 'No Ref' is not valid"):
        ada.post("x", "No Ref")


def test_an_agent_cannot_speak_for_the_coordinator(folder: RunFolder) -> None:
    with Agent("eve", folder.path) as eve, pytest.raises(Refused, match="may not append 'end'"):
        eve.append(ev.End(ref="run", rc=0))


def test_importing_the_agent_loads_no_socket_and_nothing_heavy() -> None:
    code = "from swarm import Agent; import sys; print([n for n in ('zmq', 'torch', 'mcp', 'textual', 'numpy', 'sqlite3') if n in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
