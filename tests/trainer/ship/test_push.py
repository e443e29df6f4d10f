"""`swarm push` with the hub's own client, against a server on this machine that records what it is sent and answers as the hub does."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from tests.trainer import tiny
from trainer.bases import EMBEDDED_FOLDER

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning")
TOKEN = "hf_" + "t" * 34
SHA = "d" * 40


class Hub(BaseHTTPRequestHandler):
    """Takes repositories of `me/`; weights go by LFS, everything else with the commit."""

    asked: list[tuple[str, str]]
    objects: dict[str, bytes]
    commit: dict[str, bytes]
    authorised: set[str]

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.asked.append(("POST", self.path))
        self.authorised.add(self.headers.get("Authorization") or "")
        if self.headers.get("Authorization") != f"Bearer {TOKEN}":
            return self._send(401, {"error": f"Invalid credentials: {self.headers.get('Authorization')}"})
        if self.path == "/api/validate-yaml":
            return self._send(200, {"errors": [], "warnings": []})
        if self.path == "/api/repos/create":
            return self._send(200, {"url": f"{self._here()}/me/tuned", "name": "me/tuned"})
        if self.path.endswith("/preupload/main"):
            files = [
                {
                    "path": file["path"],
                    "uploadMode": "lfs" if file["path"].endswith(".safetensors") else "regular",
                    "shouldIgnore": False,
                }
                for file in json.loads(body)["files"]
            ]
            return self._send(200, {"files": files})
        if self.path.endswith("/info/lfs/objects/batch"):
            made = [self._place_for(one) for one in json.loads(body)["objects"]]
            return self._send(200, {"transfer": "basic", "objects": made})
        assert self.path == "/api/models/me/tuned/commit/main", self.path
        for line in body.splitlines():
            told: dict[str, Any] = json.loads(line)
            if told["key"] == "file":
                self.commit[told["value"]["path"]] = base64.b64decode(told["value"]["content"])
            if told["key"] == "lfsFile":
                self.commit[told["value"]["path"]] = self.objects[told["value"]["oid"]]
        return self._send(
            200, {"commitUrl": f"{self._here()}/me/tuned/commit/{SHA}", "commitOid": SHA, "success": True}
        )

    def do_PUT(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.asked.append(("PUT", self.path))
        self.objects[hashlib.sha256(body).hexdigest()] = body
        self._send(200, {})

    def do_GET(self) -> None:
        self.asked.append((self.command, self.path))
        self._send(404, {"error": "nothing here"})

    def do_HEAD(self) -> None:
        self.do_GET()

    def _place_for(self, one: dict[str, Any]) -> dict[str, Any]:
        return {**one, "actions": {"upload": {"href": f"{self._here()}/lfs/{one['oid']}"}}}

    def _here(self) -> str:
        return f"http://127.0.0.1:{self.server.server_address[1]}"

    def _send(self, status: int, value: dict[str, Any]) -> None:
        raw = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(raw)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(raw)

    def log_message(self, *_: object) -> None: ...


@pytest.fixture
def hub() -> Iterator[type[Hub]]:
    recording = type("Recording", (Hub,), {"asked": [], "objects": {}, "commit": {}, "authorised": set()})
    server = ThreadingHTTPServer(("127.0.0.1", 0), recording)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    recording.url = f"http://127.0.0.1:{server.server_address[1]}"  # type: ignore[attr-defined]
    yield recording
    server.shutdown()
    server.server_close()


@pytest.fixture(scope="module")
def adapter(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As a run publishes one, with files beside it that are nobody else's business."""
    folder = tiny.save_adapter(EMBEDDED_FOLDER, tmp_path_factory.mktemp("adapters") / "tuned", std=0.3)
    (folder / "README.md").unlink(missing_ok=True)
    (folder / "prompt.json").write_text('{"chat_template": "{{ messages }}", "separator": "\\n", "stop_tokens": [1]}')
    settings = {
        "adapter": "lora",
        "learning_rate": 0.01,
        "datasets": [{"path": "/home/ada/secret/rows.jsonl", "type": "chatml"}],
    }
    counts = {"rows": 90, "held_out": 10, "tokens": 1000, "supervised": 400, "sha256": "e" * 64}
    verdict = {"eval_loss": 0.25, "base_eval_loss": 1.5}
    lineage = {
        "run": "r1",
        "stream": "wide",
        "base_model": "tiny-toon",
        "settings": settings,
        "prepared": counts,
        "verdict": verdict,
    }
    (folder / "lineage.json").write_text(json.dumps(lineage))
    (folder / "notes.txt").write_text("private")
    return folder


def push(hub: type[Hub], *words: str, token: str = TOKEN, stdin: str = "") -> subprocess.CompletedProcess[str]:
    environment = {
        **os.environ, "HF_ENDPOINT": hub.url, "HF_TOKEN": token, "HF_HUB_OFFLINE": "0", "HF_HUB_DISABLE_XET": "1",  # type: ignore[attr-defined]
        "NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1",
    }  # fmt: skip
    command = [sys.executable, "-P", "-m", "swarm.cli", "push", *words]
    return subprocess.run(command, env=environment, input=stdin, capture_output=True, text=True, timeout=120)


def test_adapter_tokenizer_template_and_card_go_and_nothing_else(hub: type[Hub], adapter: Path, tmp_path: Path) -> None:
    done = push(hub, str(adapter), "me/tuned", "--yes", "--json")
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["address"].endswith(f"/me/tuned/commit/{SHA}")
    assert set(hub.commit) == {row["file"] for row in told["files"]} == {
        "README.md", "adapter_config.json", "adapter_model.safetensors", "chat_template.jinja", "prompt.json",
        "tokenizer.json", "tokenizer_config.json",
    }  # fmt: skip
    assert hub.commit["chat_template.jinja"] == b"{{ messages }}", "that of the training, not the base's own"
    assert json.loads(hub.commit["adapter_config.json"])["base_model_name_or_path"] == "tiny-toon"
    (tmp_path / "a.safetensors").write_bytes(hub.commit["adapter_model.safetensors"])
    sent, kept = load_file(tmp_path / "a.safetensors"), load_file(adapter / "adapter_model.safetensors")
    assert sent.keys() == kept.keys() and all(sent[name].equal(kept[name]) for name in kept)
    card = hub.commit["README.md"].decode()
    assert "90 training rows and 10 held-out rows" in card and "`rows.jsonl` (chatml)" in card
    assert "| held-out | 0.250 | 1.500 |" in card and "| learning_rate | 0.01 |" in card
    everything = b"".join(hub.commit.values()) + done.stdout.encode() + done.stderr.encode()
    assert not any(word in everything for word in (b"/home/ada", TOKEN.encode(), str(EMBEDDED_FOLDER).encode()))


def test_nothing_is_sent_by_a_dry_run_or_unasked(hub: type[Hub], adapter: Path) -> None:
    shown = push(hub, str(adapter), "me/tuned", "--dry-run")
    assert shown.returncode == 0
    assert "adapter_model.safetensors" in shown.stdout and "## Figures" in shown.stdout
    unasked = push(hub, str(adapter), "me/tuned")
    assert (unasked.returncode, "add --yes" in unasked.stderr) == (2, True)
    assert hub.asked == []


def test_a_card_that_its_author_wrote_goes_as_it_is(hub: type[Hub], adapter: Path, tmp_path: Path) -> None:
    own = tmp_path / "own"
    own.mkdir()
    for path in adapter.iterdir():
        (own / path.name).write_bytes(path.read_bytes())
    (own / "README.md").write_text("mine")
    assert push(hub, str(own), "me/tuned", "--yes").returncode == 0
    assert hub.commit["README.md"] == b"mine"


def test_what_the_hub_refuses_is_said_without_the_token(hub: type[Hub], adapter: Path) -> None:
    wrong = "hf_" + "w" * 34
    done = push(hub, str(adapter), "me/tuned", "--yes", token=wrong)
    assert done.returncode == 2
    assert "the hub refuses it (401" in done.stderr and "hf auth login" in done.stderr
    assert wrong not in done.stderr + done.stdout and "Traceback" not in done.stderr
    assert hub.commit == {}
    refused = push(hub, str(adapter), "a/b/c", "--yes")
    assert (refused.returncode, "write OWNER/NAME" in refused.stderr) == (2, True)
    assert push(hub, "tiny-toon", "me/tuned", "--dry-run").returncode == 2
