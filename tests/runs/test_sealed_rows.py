"""A whole run with sealed rows, and a hostile agent that tries every command and the bus to read one of them."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command

from swarm import events as ev
from swarm.access.client import connect
from swarm.cli import app
from swarm.rundir import RunFolder
from tests.runs import swarm_process as sp

pytestmark = [pytest.mark.slow, pytest.mark.timeout(420)]
SECRET = "quixotic"


@pytest.fixture(autouse=True)
def _nothing_is_left_behind(tmp_path: Path) -> Iterator[None]:
    yield from sp.end_everything(tmp_path)


def a_config(folder: Path) -> Path:
    kept = folder.parent / f"{folder.name}-kept"
    kept.mkdir()
    rows = [
        {"messages": [{"role": "user", "content": f"say {n} {SECRET}"}, {"role": "assistant", "content": f"n: {n}"}]}
        for n in range(200, 230)
    ]
    sealed = kept / "sealed.jsonl"
    sealed.write_text("".join(json.dumps(row) + "\n" for row in rows))
    extra = f"  sealed_datasets: [{{path: {sealed}, type: chatml}}]"
    return sp.write_config(folder, streams="  narrow: {lora_r: 2}\n  wide: {lora_r: 4}", steps=10, extra=extra)


ATTEMPTS = [
    ("status",), ("status", "--json"), ("log",), ("log", "--json"), ("digest",), ("lineage",), ("lineage", "--json"),
    ("export", "--what", "events", "--format", "csv"), ("export", "--what", "metrics", "--format", "csv"),
    ("export", "--what", "session", "--format", "json"), ("export", "--what", "bus", "--format", "json"),
    ("replay",), ("log", "verify"), ("ask", "say 200"), ("runs",),
    ("claim", "wide/sealed", "--as", "eve"), ("claim", "narrow/sealed", "--as", "eve"), ("task", "wide/sealed", "--as", "eve"),
    ("hand", "wide/sealed", "eve", "--token", "1"), ("show", "run.yaml"), ("plan", "run.yaml"), ("check", "run.yaml"),
    ("plan", "run.yaml", "--explain"), ("inbox", "--as", "eve"), ("post", "wide/sealed", "--as", "eve", "one row, please"),
    ("done", "wide/sealed", "--as", "eve", "--token", "1", "--evidence", "x"), ("drop", "wide/sealed", "--as", "eve", "--token", "1"),
    ("renew", "wide/sealed", "--as", "eve", "--token", "1"), ("data", "check", "run.yaml"), ("wait",), ("schema",), ("env",), ("skill",),
]  # fmt: skip
NOT_TRIED = {
    "they change a run's course and show what `status` and `log` show": (
        "run", "resume", "stop", "pause", "clone", "add", "watch", "prune", "promote", "open", "amend", "object", "approve", "review",
        "invite", "revoke", "mcp", "tune", "propose", "research", "ledger", "notify", "yield", "rate",
    ),
    "they read adapters, and the rows that their caller names": (
        "merge", "export-adapter", "push", "compare", "chat", "serve", "eval", "norms", "convert", "control-vector",
    ),
    "they know of no run": ("init", "certify"),
}  # fmt: skip


def test_every_command_is_tried_or_has_its_reason() -> None:
    words: Any = get_command(app)
    reasoned = {name for names in NOT_TRIED.values() for name in names}
    assert set(words.commands) == {attempt[0] for attempt in ATTEMPTS} | reasoned


def test_no_command_no_bus_message_and_no_file_of_the_run_carries_a_sealed_row(tmp_path: Path) -> None:
    config = a_config(tmp_path)
    folder = sp.start(config)
    heard: list[str] = []
    over = threading.Event()
    listening = threading.Thread(target=_listen, args=(folder, heard, over), daemon=True)
    listening.start()
    state = sp.wait_for_end(folder)
    over.set()
    listening.join(10)

    assert state.end is not None and state.end.rc == 0, state.end
    assert state.promoted is not None
    looks = [entry.event for entry in sp.entries(folder) if isinstance(entry.event, ev.Look)]
    assert [(look.ref, look.number) for look in looks] == [(state.promoted.ref, 1)]  # the winner alone, once
    [found] = [entry.event for entry in sp.entries(folder) if isinstance(entry.event, ev.Sealed)]
    assert (found.result, found.rows, found.overlap) == ("SUCCESS", 30, 0)
    assert found.sha256 == state.promoted.sha256

    said = [_said(sp.swarm(*words, cwd=tmp_path, check=None)) for words in ATTEMPTS]
    assert not [words for words, text in zip(ATTEMPTS, said, strict=True) if SECRET in text]
    assert heard and not [text for text in heard if SECRET in text]
    files = [path for path in folder.path.rglob("*") if path.is_file()]
    assert len(files) > 20
    assert not [path for path in files if SECRET.encode() in path.read_bytes()]


def _said(done) -> str:
    return done.stdout + done.stderr


def _listen(folder: RunFolder, heard: list[str], over: threading.Event) -> None:
    """Everything that is published on the bus, to the owner's key, which hears all."""
    peer = connect(folder, None, subscribe=("entry", "metrics", "workers"))
    while not over.is_set():
        if (envelope := peer.published(0.2)) is not None:
            heard.append(f"{envelope.type} {envelope.body}")
    peer.close(flush_seconds=0.1)
