"""Alerts (issue 21): what is sent on which entries, signed, retried, kept on disk, and to no other address than the config's."""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import signal
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from typer.testing import CliRunner

from swarm import config, redaction
from swarm import events as ev
from swarm.artifacts import notices
from swarm.artifacts.notices import SIGNATURE, NotSent, Queue, send
from swarm.cli import app
from swarm.errors import UserError
from swarm.launch.local import process_started
from swarm.plainfiles import NotPlain
from swarm.policy.alerts import messages, stalled
from swarm.posting import post
from swarm.rundir import RunFolder
from swarm.settings.alerts import Alert
from swarm.state import State
from tests.runs.swarm_process import wait_for
from tests.swarm import places
from tests.swarm.story import SHA, Story


class Receiver(HTTPServer):
    """A webhook that keeps what it gets."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Hook)
        self.got: list[tuple[str, bytes, str | None]] = []
        self.status, self.raw = 200, b""
        self.url = f"http://127.0.0.1:{self.server_port}"


class Hook(BaseHTTPRequestHandler):
    server: Receiver

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.server.raw:
            self.wfile.write(self.server.raw)
            return
        if self.server.status == 200:
            self.server.got.append((self.path, body, self.headers.get(SIGNATURE)))
        self.send_response(self.server.status)
        if self.server.status == 302:
            self.send_header("Location", "/elsewhere")
        self.end_headers()

    do_GET = do_POST  # noqa: N815  the name that http.server calls

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    server = Receiver()
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def told(story: Story) -> list[tuple[str, str]]:
    return [(one["occasion"], one["text"]) for one in messages(State(), story.entries)]


def test_a_failure_a_nan_a_new_best_and_the_end_are_messages_and_nothing_else_is() -> None:
    story = Story("wide", "narrow")
    story.prepared("wide")
    tok = story.claim("wide/train", "trainer-1")
    for step, loss in ((1, 1.0), (2, 1.5), (3, 0.5)):
        path = f"streams/wide/t{tok}/checkpoint-{step}"
        story.say("trainer-1", ev.Checkpoint(ref="wide/train", tok=tok, step=step, path=path, sha256=SHA, figures={"eval_loss": loss}))  # fmt: skip
    story.say("trainer-1", ev.Drop(ref="wide/train", tok=tok, why="loss was not finite at step 4", failed=True))
    story.say("coordinator", ev.Fail(ref="narrow", why="no rows"))
    story.say("coordinator", ev.End(ref="run", rc=1))
    assert told(story) == [
        ("new_best", "wide has held-out loss 1"),
        ("new_best", "wide has held-out loss 0.5, 1 before"),
        ("nan", "wide/train: loss was not finite at step 4"),
        ("failed", "narrow is given up: no rows"),
        ("end", "the run is over with exit status 1"),
    ]
    assert stalled(story.state, "trainer-1", ["wide/train"])["text"] == "trainer-1 makes no progress on wide/train"


def test_workers_that_stall_between_two_entries_are_a_message_each(tmp_path: Path) -> None:
    story, queue = Story("wide"), Queue(RunFolder(tmp_path))
    found = [stalled(story.state, name, ["wide/train"]) for name in ("trainer-1", "trainer-2", "trainer-1")]
    queue.put([Alert(command=["cat"])], found, story.state.seq)
    assert [one["text"].split()[0] for _, _, one in queue.waiting()] == ["trainer-1", "trainer-2"]


def test_a_stream_that_measures_nothing_on_the_way_is_a_new_best_when_it_is_judged() -> None:
    story = Story("wide", "narrow")
    for name, loss in (("wide", 0.5), ("narrow", 0.6)):
        story.trained(name)
        story.judged(name, loss=loss)
    assert told(story) == [("new_best", "wide has held-out loss 0.5")]


def test_a_message_is_signed_and_goes_to_those_who_want_that_occasion(
    tmp_path: Path, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOOK_KEY", "secret")
    monkeypatch.setenv("HOOK_URL", receiver.url + "/from-env")
    alerts = [
        Alert(url=receiver.url + "/all", secret_env="HOOK_KEY"),
        Alert(url=receiver.url + "/ends", on=["end"]),
        Alert(url="$HOOK_URL", on=["failed"]),
    ]
    queue, one = Queue(RunFolder(tmp_path)), {"id": "demo-3-failed", "occasion": "failed", "seq": 3}
    queue.put(alerts, [one, one], 3)
    assert [row["why"] for row in queue.sent(alerts)] == ["", ""]
    [(path, body, signature), (other, _, unsigned)] = receiver.got
    assert (path, other, unsigned) == ("/all", "/from-env", None) and json.loads(body) == one
    assert signature == f"sha256={hmac.new(b'secret', body, hashlib.sha256).hexdigest()}"
    assert queue.sent(alerts) == [] and queue.cursor == 3


def test_what_a_receiver_does_not_take_stays_on_disk_and_is_sent_later_in_its_order(
    tmp_path: Path, receiver: Receiver
) -> None:
    alerts, queue = [Alert(url=receiver.url)], Queue(RunFolder(tmp_path))
    assert queue.cursor == 0 and list(queue.waiting()) == [], "nothing was sent in this run"
    receiver.status = 500
    for seq in (9, 10):
        queue.put(alerts, [{"id": str(seq), "occasion": "end", "seq": seq}], seq)
    [row] = queue.sent(alerts)
    assert "500" in row["why"] and row["receiver"] == receiver.url
    receiver.status = 200
    again = Queue(RunFolder(tmp_path))
    assert [row["why"] for row in again.sent(alerts)] == [""]
    assert [json.loads(body)["id"] for _, body, _ in receiver.got] == ["9", "10"]


def test_a_redirection_is_not_followed(tmp_path: Path, receiver: Receiver) -> None:
    receiver.status = 302
    alerts, queue = [Alert(url=receiver.url)], Queue(RunFolder(tmp_path))
    queue.put(alerts, [{"id": "1", "occasion": "end", "seq": 1}], 1)
    [row] = queue.sent(alerts)
    assert "302" in row["why"] and receiver.got == []


def test_a_command_gets_the_message_on_its_standard_input_and_its_failure_is_told(tmp_path: Path) -> None:
    out = tmp_path / "out.json"
    code = f"import sys, pathlib; pathlib.Path({str(out)!r}).write_text(sys.stdin.read())"
    alerts = [
        Alert(command=[sys.executable, "-c", code]),
        Alert(command=[sys.executable, "-c", "raise SystemExit('no')"]),
    ]
    queue = Queue(RunFolder(tmp_path))
    queue.put(alerts, [{"id": "1", "occasion": "nan", "seq": 1}], 1)
    taken, failed = queue.sent(alerts)
    assert not taken["why"] and json.loads(out.read_text())["occasion"] == "nan"
    assert failed["why"].endswith("exit status 1: no")
    assert len(list(queue.waiting())) == 1


@pytest.mark.parametrize("raw", [b"SSH-2.0-x\r\n", b"HTTP/1.1 200 OK\r\n" + b"a: b\r\n" * 200 + b"\r\n"])
def test_a_receiver_that_speaks_no_http_has_not_taken_it_and_the_next_ones_are_told(
    tmp_path: Path, receiver: Receiver, raw: bytes
) -> None:
    receiver.raw = raw
    alerts, queue = [Alert(url=receiver.url), Alert(command=["cat"])], Queue(RunFolder(tmp_path))
    queue.put(alerts, [{"id": "1", "occasion": "end", "seq": 1}], 1)
    deaf, taken = queue.sent(alerts)
    assert "it speaks no HTTP" in deaf["why"] and not taken["why"]


def test_an_answer_that_comes_byte_by_byte_ends_with_the_time_for_a_message(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    over = threading.Event()

    def drip(hook: Hook) -> None:
        hook.wfile.write(b"HTTP/1.1 200 OK\r\na: ")
        while not over.wait(0.05):
            hook.wfile.write(b"a")

    monkeypatch.setattr(Hook, "do_POST", drip)
    with pytest.raises(TimeoutError, match="no whole answer"):
        post(receiver.url, b"{}", {}, 0.5)
    over.set()


def test_a_command_that_leaves_a_process_behind_has_taken_it_and_one_that_never_ends_is_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    left = Alert(command=["sh", "-c", "sleep 60 & echo $! > " + str(tmp_path / "left")])
    send(left, {"id": "1"})
    os.kill(int((tmp_path / "left").read_text()), signal.SIGKILL)

    endless = Alert(command=["sh", "-c", f"sleep 60 & echo $! > {tmp_path / 'below'}; wait"])
    with monkeypatch.context() as short, pytest.raises(NotSent, match="timed out"):
        short.setattr(notices, "SECONDS", 0.5)
        send(endless, {"id": "1"})
    below = int((tmp_path / "below").read_text())
    wait_for(lambda: process_started(below) is None, "the end of what it started")

    with ThreadPoolExecutor(1) as beside:
        sending = beside.submit(send, endless, {"id": "1"})
        wait_for(lambda: notices._running, "its start")
        notices.end_commands()
        assert isinstance(sending.exception(), NotSent)


def test_a_secret_of_the_environment_that_a_command_says_is_not_repeated(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOOK_TOKEN", "a-long-secret-word")
    redaction._pattern.cache_clear()
    with pytest.raises(NotSent) as refused:
        send(Alert(command=["sh", "-c", "echo $HOOK_TOKEN >&2; exit 1"]), {"id": "1"})
    redaction._pattern.cache_clear()
    assert str(refused.value) == "sh: exit status 1: ***"


def test_a_test_message_names_the_run_and_whoever_does_not_take_it_is_told_in_words(
    tmp_path: Path, receiver: Receiver
) -> None:
    folder = places.opened(tmp_path)
    gone = "{url: http://127.0.0.1:9}"
    places.configure(tmp_path, folder, f"alerts: [{{url: {receiver.url}/hook, on: [end]}}, {gone}]\n")
    done = CliRunner().invoke(app, ["notify", "--test", "--run", str(folder.path)])
    assert done.exit_code == 1 and "http://127.0.0.1:9: Connection refused" in done.stdout.splitlines()
    [(path, body, _)] = receiver.got
    sent = json.loads(body)
    assert (path, sent["run"], sent["id"], sent["stream"]) == ("/hook", folder.name, f"{folder.name}-test", "")


@pytest.mark.parametrize("words", [[], ["--test"]])
def test_commands_of_another_users_run_are_not_run(tmp_path: Path, words: list[str]) -> None:
    if os.geteuid():
        pytest.skip("only the superuser can give a folder away")
    folder = places.opened(tmp_path)
    places.configure(tmp_path, folder, f"alerts: [{{command: [touch, {tmp_path / 'run'}]}}]\n")
    queue = Queue(folder)
    queue.put(config.of_run(folder, ()).alerts, [{"id": "1", "occasion": "end", "seq": 1}], 1)
    os.chown(folder.path, 12345, 12345)
    refused = CliRunner().invoke(app, ["notify", "--run", str(folder.path), *words]).exception
    assert isinstance(refused, NotPlain) and "belongs to another user" in str(refused)
    assert not (tmp_path / "run").exists()
    os.chown(folder.path, os.geteuid(), -1)
    CliRunner().invoke(app, ["notify", "--run", str(folder.path), *words])
    assert (tmp_path / "run").exists()


@pytest.mark.parametrize("text", ["{}", '{"seq": "x"}', "[]", "\xff"])
def test_a_cursor_that_is_none_is_refused_in_words(tmp_path: Path, text: str) -> None:
    queue = Queue(RunFolder(tmp_path))
    queue.path.mkdir()
    (queue.path / "cursor.json").write_text(text)
    with pytest.raises(UserError, match=r"cursor.json: "):
        assert queue.cursor


def test_a_file_beside_the_queue_whose_name_is_none_of_its_own_is_left_alone(tmp_path: Path) -> None:
    queue = Queue(RunFolder(tmp_path))
    queue.path.mkdir()
    for name in ("a-b-c.json", "1-1-\u0663.json", f"1-1-{'9' * 99}.json"):
        (queue.path / name).write_text("{}")
    assert queue.sent([Alert(command=["false"])]) == []
