"""G16: rows of a data set from a hub: the real client against a server on this machine that answers as the hub does and records what it is asked."""

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

ROOT = Path(__file__).parents[3]
SHA = "d" * 40
NAME = "some/instructions"
TRAIN = [{"instruction": f"double {n}", "input": "", "output": str(2 * n)} for n in range(30)]
FILES = {
    "README.md": b"---\nlicense: mit\n---\n",
    "train.jsonl": "".join(json.dumps(row) + "\n" for row in TRAIN).encode(),
    "test.jsonl": json.dumps({"instruction": "double 99", "input": "", "output": "198"}).encode() + b"\n",
}
READ = """
import json, sys
from swarm.errors import UserError
from trainer.rowfiles.reading import dataset_of, rows_of
try:
    rows = [(where, row.words()) for where, row in rows_of(dataset_of(sys.argv[1], "auto", split=sys.argv[2]))]
except UserError as error:
    sys.exit(str(error))
print(json.dumps(rows))
"""


class Hub(BaseHTTPRequestHandler):
    """Knows one data set of two splits."""

    asked: list[str]

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def do_GET(self) -> None:
        self._answer(body=True)

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self._answer(body=True)

    def _answer(self, *, body: bool) -> None:
        path = self.path.partition("?")[0]
        self.asked.append(f"{self.command} {path}")
        parts = path.strip("/").removeprefix("api/").split("/")
        if "/".join(parts[1:3]) != NAME:
            return self._refuse(404, "RepoNotFound")
        if not path.startswith("/api/"):
            name = parts[-1]
            return self._send(FILES[name], body) if name in FILES else self._refuse(404, "EntryNotFound")
        listed = "tree" in parts or "paths-info" in parts
        return self._send(json.dumps(_files() if listed else _info()).encode(), body)

    def _refuse(self, status: int, code: str) -> None:
        self.send_response(status)
        self.send_header("X-Error-Code", code)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def _send(self, data: bytes, body: bool) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("X-Repo-Commit", SHA)
        self.send_header("ETag", f'"{hashlib.sha1(data).hexdigest()}"')
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if body:
            self.wfile.write(data)

    def log_message(self, *_: object) -> None:
        pass


def _files() -> list[dict[str, object]]:
    return [
        {"type": "file", "path": name, "size": len(data), "oid": hashlib.sha1(data).hexdigest()}
        for name, data in FILES.items()
    ]


def _info() -> dict[str, object]:
    siblings = [{"rfilename": name} for name in FILES]
    return {
        "id": NAME,
        "sha": SHA,
        "siblings": siblings,
        "tags": [],
        "private": False,
        "lastModified": "2026-01-01T00:00:00.000Z",
    }


@pytest.fixture
def hub() -> Iterator[type[Hub]]:
    serving = type("Serving", (Hub,), {"asked": []})
    server = ThreadingHTTPServer(("127.0.0.1", 0), serving)
    serving.address = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield serving
    server.shutdown()
    thread.join()
    server.server_close()


def read(
    hub: type[Hub], home: Path, name: str, split: str, *, offline: bool = False
) -> subprocess.CompletedProcess[str]:
    environment = {key: value for key, value in os.environ.items() if not key.lower().endswith("_proxy")}
    environment |= {
        "HF_ENDPOINT": hub.address, "HF_HUB_OFFLINE": str(int(offline)), "HF_HOME": str(home), "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
    }  # fmt: skip
    command = [sys.executable, "-c", READ, name, split]
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False, timeout=300)


def test_rows_come_from_the_split_that_is_named_and_no_other_name_is_asked(hub: type[Hub], tmp_path: Path) -> None:
    found = read(hub, tmp_path, NAME, "train")
    assert found.returncode == 0, found.stderr
    rows = json.loads(found.stdout)
    assert len(rows) == 30
    assert rows[2] == [f"{NAME}[train]: row 3", ["user double 2", "assistant 4"]]
    assert any(line.endswith("/resolve/" + SHA + "/train.jsonl") for line in hub.asked)
    assert all(NAME in line for line in hub.asked), "nothing but the data set's own files"
    again = len(hub.asked)
    offline = read(hub, tmp_path, NAME, "train", offline=True)
    assert (offline.returncode, json.loads(offline.stdout)) == (0, rows), "what is here is read without the hub"
    assert len(hub.asked) == again


def test_a_split_or_a_name_that_is_not_there_is_an_error_in_words(hub: type[Hub], tmp_path: Path) -> None:
    for name, split in ((NAME, "validation"), ("some/typo", "train")):
        refused = read(hub, tmp_path, name, split)
        assert refused.returncode == 1
        assert f"datasets.path: {name}: cannot be had from the hub" in refused.stderr
        assert "check the name, the split, the network and your login" in refused.stderr
        assert "Traceback" not in refused.stderr
