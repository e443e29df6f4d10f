"""A base from a hub: the real client against a server on this machine that answers as the hub does (its HTTP API, no model of theirs)."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SHA = "c" * 40


class Hub(BaseHTTPRequestHandler):
    """`some/tiny` is the tests' base, `some/huge` says that it is vast, `some/gated` wants a login; nothing else is known."""

    base: Path
    asked: list[str]

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def do_GET(self) -> None:
        self._answer(body=True)

    def _answer(self, *, body: bool) -> None:
        path = self.path.partition("?")[0]
        if body and path.endswith(".safetensors"):
            self.asked.append(path)
        parts = path.strip("/").removeprefix("api/models/").split("/")
        name = "/".join(parts[:2])
        if name == "some/gated":
            return self._refuse(403, "GatedRepo")
        if name not in {"some/tiny", "some/huge"}:
            return self._refuse(401, "RepoNotFound")
        if path.startswith("/api/"):
            told = self._files(name) if "tree" in parts else self._info(name)
            return self._send(json.dumps(told).encode(), body)
        return self._send((self.base / parts[-1]).read_bytes(), body)

    def _files(self, name: str) -> list[dict[str, object]]:
        sizes = {path.name: path.stat().st_size for path in sorted(self.base.iterdir()) if path.is_file()}
        if name == "some/huge":
            sizes["model.safetensors"] = 10**15
        return [{"type": "file", "path": path, "size": size, "oid": "0" * 40} for path, size in sizes.items()]

    def _info(self, name: str) -> dict[str, object]:
        siblings = [{"rfilename": file["path"], "size": file["size"]} for file in self._files(name)]
        return {"id": name, "modelId": name, "sha": SHA, "siblings": siblings, "tags": [], "private": False}

    def _refuse(self, status: int, code: str) -> None:
        self.send_response(status)
        self.send_header("X-Error-Code", code)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def _send(self, data: bytes, body: bool) -> None:
        self.send_response(200)
        self.send_header("X-Repo-Commit", SHA)
        self.send_header("ETag", f'"{hashlib.sha1(data).hexdigest()}"')
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if body:
            self.wfile.write(data)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def hub(base: Path) -> Iterator[type[Hub]]:
    serving = type("Serving", (Hub,), {"base": base, "asked": []})
    server = ThreadingHTTPServer(("127.0.0.1", 0), serving)
    serving.address = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield serving
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def fetch(hub, tmp_path: Path):
    def run(what: str, name: str) -> subprocess.CompletedProcess[str]:
        environment = {k: v for k, v in os.environ.items() if not k.lower().endswith("_proxy")}
        environment |= {
            "HF_ENDPOINT": hub.address,
            "HF_HUB_OFFLINE": "0",
            "HF_HOME": str(tmp_path / "hf"),
            "HF_HUB_DISABLE_XET": "1",
        }
        command = [sys.executable, "-m", "trainer.bases", what, name]
        return subprocess.run(
            command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False, timeout=120
        )

    return run


def test_a_base_on_the_hub_is_told_without_its_weights_and_then_fetched_with_progress_once(hub, fetch) -> None:
    told = fetch("--check", "some/tiny")
    assert told.returncode == 0, told.stderr
    assert "on the hub, not downloaded yet" in told.stdout
    assert hub.asked == []
    fetched = fetch("--fetch", "some/tiny")
    assert fetched.returncode == 0, fetched.stderr
    assert "100%" in fetched.stderr, "progress is shown"
    assert hub.asked == ["/some/tiny/resolve/" + SHA + "/model.safetensors"]
    assert fetch("--fetch", "some/tiny").returncode == 0
    assert len(hub.asked) == 1, "what is here is not fetched again"


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("some/gated", "base_model: some/gated is gated; accept its terms on the hub and log in with `hf auth login`"),
        (
            "some/typo",
            "base_model: the hub has no some/typo; check the spelling; a private model needs `hf auth login`",
        ),
        ("some/huge", "GB are free"),
    ],
)
def test_a_base_that_cannot_be_had_is_an_error_before_anything_is_fetched(hub, fetch, name: str, told: str) -> None:
    refused = fetch("--fetch", name)
    assert refused.returncode == 2
    assert told in refused.stderr
    assert "Traceback" not in refused.stderr
    assert hub.asked == []
