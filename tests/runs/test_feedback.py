"""G28: answers of a served run are rated; a stream is trained anew, tried as a canary and promoted, with real processes on the embedded base."""

from __future__ import annotations

import json
import os
import signal
import stat
import subprocess
import sys
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from swarm import answers
from swarm import events as ev
from swarm.log import run_is_alive
from swarm.rundir import RunFolder
from tests.runs import swarm_process as sp

pytestmark = [pytest.mark.slow, pytest.mark.timeout(420)]
EXTRA = """
promotion: {must_beat: nothing}
feedback: {below: 3.5, window: 8, least: 6, canary_share: 0.5, canary_ratings: 8, idle_hours: 1}"""
SECRET = "the-password-is-swordfish"


@pytest.fixture(autouse=True)
def _nothing_is_left_behind(tmp_path: Path) -> Iterator[None]:
    yield from sp.end_everything(tmp_path)


class Served:
    """`swarm serve RUN`, asked over plain HTTP."""

    def __init__(self, folder: RunFolder) -> None:
        words = ["serve", str(folder.path), "--port", "0", "--json", "--device", "cpu"]
        self.process = subprocess.Popen(
            [sys.executable, "-m", "swarm.cli", *words], cwd=folder.path.parent.parent, env=sp.environment(),
            stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        assert self.process.stdout
        self.url = json.loads(self.process.stdout.readline())["url"]

    def post(self, path: str, **body: Any) -> tuple[int, dict[str, Any]]:
        request = urllib.request.Request(
            self.url + path, json.dumps(body).encode(), {"Content-Type": "application/json"}
        )
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                return answer.status, json.load(answer)
        except urllib.error.HTTPError as error:
            return error.code, json.loads(error.read())

    def ask(self, text: str, model: str = "auto") -> dict[str, Any]:
        messages = [{"role": "user", "content": text}]
        status, found = self.post("/chat/completions", model=model, messages=messages, max_tokens=3, temperature=0)
        assert status == 200, found
        return found

    def end(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        assert self.process.stdout
        self.process.stdout.close()
        return self.process.wait(30)

    def models(self) -> list[str]:
        with urllib.request.urlopen(f"{self.url}/models", timeout=60) as answer:
            return [model["id"] for model in json.load(answer)["data"]]


def rate(folder: RunFolder, rows: list[dict[str, Any]]) -> None:
    command = [sys.executable, "-m", "swarm.cli", "rate", "-", "--run", str(folder.path), "--as", "ada"]
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    subprocess.run(command, input=lines, text=True, check=True, env=sp.environment(), stdout=subprocess.DEVNULL)


def test_low_ratings_have_a_stream_trained_anew_which_is_tried_on_some_requests_and_promoted(tmp_path: Path) -> None:
    folder = sp.start(sp.write_config(tmp_path, streams="  wide: {lora_r: 4}", steps=4, extra=EXTRA[1:]))
    sp.wait_for(lambda: sp.state(folder).promoted, "the promotion", folder=folder)
    server = Served(folder)

    asked = [server.ask(f"say {n}: {SECRET}") for n in range(6)]
    assert {one["model"] for one in asked} == {"wide"}
    first = asked[0]["id"]
    status, told = server.post("/ratings", id=first, rating=1, because="no number", better="n: 0")
    assert (status, told["id"]) == (200, first) and isinstance(told["seq"], int)
    assert server.post("/ratings", id=first, rating=9)[0] == 400
    status, refused = server.post("/ratings", id="chatcmpl-unknown", rating=1)
    assert status == 400 and "keeps no such answer" in refused["error"]["message"]
    rate(folder, [{"answer": one["id"], "rating": 1, "better": f"n: {n}"} for n, one in enumerate(asked)][1:])
    wrong = sp.swarm("rate", first, "7", "--run", str(folder.path), cwd=tmp_path, check=2).stderr
    assert "rate: rating: 7.0 is not valid" in wrong and len(wrong.splitlines()) == 1

    sp.wait_for(lambda: answers.canary(folder), "the canary", folder=folder)
    state = sp.state(folder)
    assert state.retrained["retrain-1"].event.mean == 1.0 and state.streams["retrain-1"].adapter
    rows = [json.loads(line) for line in (folder.path / "feedback" / "retrain-1.jsonl").read_text().splitlines()]
    assert [row["messages"][-1] for row in rows] == [{"role": "assistant", "content": f"n: {n}"} for n in range(6)]
    assert sp.settings_now(folder).streams["retrain-1"].datasets[-1].path.endswith("feedback/retrain-1.jsonl")
    assert SECRET in rows[0]["messages"][0]["content"] and SECRET not in folder.log.read_text()
    kept = [path for path in (folder.path / "feedback").rglob("*.json*") if path.name != answers.CANARY]
    assert kept and not any(stat.S_IMODE(path.stat().st_mode) & 0o077 for path in kept), "for the owner alone"

    os.kill(sp.coordinator_pid(folder), signal.SIGKILL)
    sp.wait_for(lambda: not run_is_alive(folder.log), "the coordinator's end", 30)
    sp.wait_for(lambda: "retrain-1" in server.models(), "the canary's adapter in the server", 60)
    found = [server.ask(f"say {n}") for n in range(60)]
    shares = Counter(one["model"] for one in found)
    assert shares.keys() == {"wide", "retrain-1"}, "the requests are shared, and each response says who answered"
    assert min(shares.values()) >= 8
    rate(folder, [{"answer": one["id"], "rating": 5 if one["model"] == "retrain-1" else 1} for one in found])

    sp.swarm("resume", str(folder.path), "--detach", cwd=tmp_path)
    promoted = sp.wait_for(lambda: sp.state(folder).promoted_seq > state.promoted_seq and sp.state(folder).promoted, "the promotion", folder=folder)  # fmt: skip
    assert promoted.ref == "retrain-1"
    concluded = sp.state(folder).retrained["retrain-1"].conclusion
    assert concluded and concluded.p is not None and concluded.p < 0.01 and concluded.against == "wide"
    sp.wait_for(lambda: {server.ask("say 9")["model"] for _ in range(8)} == {"retrain-1"}, "the new adapter alone", 60)
    assert not answers.canary(folder)

    talk = "say 1\n/better n: 1\n/rate 2 because it is no number\n/better n: 1\n/rate two\n"
    chat = subprocess.run(
        [sys.executable, "-m", "swarm.cli", "chat", str(folder.path), "--max-new-tokens", "2", "--device", "cpu"],
        input=talk, capture_output=True, text=True, env=sp.environment(), cwd=tmp_path, check=False,
    )  # fmt: skip
    assert "/better: the last answer is not rated; write /rate N first" in chat.stderr
    assert "/rate: 'two' is no number; write /rate NUMBER" in chat.stderr
    last = list(sp.state(folder).ratings.values())[-1]
    assert (last.stream, last.rating, last.has_better) == ("retrain-1", 2, True), chat.stderr
    [why] = [e.event.why for e in sp.entries(folder) if isinstance(e.event, ev.Rate) and e.event.why == "it is no number"]  # fmt: skip
    assert why
    assert server.end() == 0
    sp.swarm("stop", str(folder.path), cwd=tmp_path)
    end = sp.wait_for_end(folder).end
    assert end and end.rc == 130
