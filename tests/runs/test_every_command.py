"""Every command, started once on a run with sealed rows, in a folder full of modules with the names of ours and of libraries.

None of them imports one of those, and none shows a sealed row: also not the bus, nor a file of the run.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from importlib.metadata import packages_distributions
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command

from swarm import events as ev
from swarm.access.client import connect
from swarm.cli import app
from swarm.rundir import RunFolder
from tests.runs import swarm_process as sp

pytestmark = pytest.mark.slow
SECRET = "quixotic"
HOSTILE = sorted({*sys.stdlib_module_names, *packages_distributions(), "sitecustomize", "usercustomize"} - {"__main__"})
"""Every module that any process could import: ours, Python's own and those of all that is installed here."""
SWARM = Path(sys.executable).with_name("swarm")
ROOT = Path(__file__).parents[2]
Command = Callable[..., subprocess.CompletedProcess[str]]
ATTEMPTS: dict[str, Sequence[Sequence[str]]] = {
    "init": [("x.yaml",)], "check": [("run.yaml",)], "plan": [("run.yaml",), ("run.yaml", "--explain")], "show": [("run.yaml", "--rows", "1")],
    "data": [("check", "run.yaml")], "status": [(), ("--json",)], "log": [(), ("--json",), ("verify",)], "lineage": [(), ("--json",)],
    "export": [("--what", "events", "--format", "csv"), ("--what", "metrics", "--format", "csv"), ("--what", "session", "--format", "json"), ("--what", "bus", "--format", "json")],
    "ask": [("say 200",)], "mcp": [("--as", "ada")], "watch": [("--plain",)], "resume": [("--detach",)], "open": [("a plan",)], "invite": [("ada",)], "revoke": [("ada",)],
    "amend": [("1", "x")], "approve": [("narrow",)], "object": [("1", "why")], "review": [("run", "well?", "--between", "ada,bob", "--answer-seconds", "0.2")],
    "task": [("a/b",), ("wide/sealed", "--as", "eve")], "claim": [("wide/sealed", "--as", "eve"), ("narrow/sealed", "--as", "eve")],
    "hand": [("wide/sealed", "eve", "--token", "1")], "inbox": [("--as", "eve")], "post": [("wide/sealed", "--as", "eve", "one row, please")],
    "done": [("wide/sealed", "--as", "eve", "--token", "1", "--evidence", "x")], "drop": [("wide/sealed", "--as", "eve", "--token", "1")],
    "renew": [("wide/sealed", "--as", "eve", "--token", "1")],
}  # fmt: skip
"""What is typed behind a command; those that are not here are typed alone."""
MUST_WORK = {"init", "check", "plan", "show", "ask", "status", "export", "log", "env", "digest", "invite", "post"}
"""With exit status 0; a run that has ended has no bus to export."""
UNTRIED = {"run": "it has made the run"}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """With hostile modules, and a config whose sealed rows lie elsewhere."""
    for name in filter(str.isidentifier, HOSTILE):
        code = f"import os\nopen({str(tmp_path / 'imported')!r}, 'a').write({name!r} + '\\n')\nraise ImportError('hostile')\n"
        (tmp_path / f"{name}.py").write_text(code)
    sealed = tmp_path.parent / f"{tmp_path.name}-kept.jsonl"
    rows = [
        {"messages": [{"role": "user", "content": f"say {n} {SECRET}"}, {"role": "assistant", "content": f"n: {n}"}]}
        for n in range(200, 230)
    ]
    sealed.write_text("".join(json.dumps(row) + "\n" for row in rows))
    extra = f"  sealed_datasets: [{{path: {sealed}, type: chatml}}]"
    sp.write_config(tmp_path, streams="  narrow: {lora_r: 2}\n  wide: {lora_r: 4}", steps=10, extra=extra)
    return tmp_path


@pytest.fixture(autouse=True)
def _no_process_is_left(tmp_path: Path) -> Iterator[None]:
    yield from sp.end_everything(tmp_path)


@pytest.fixture
def swarm(folder: Path) -> Command:
    """The installed command, as users start it."""

    def command(*words: str) -> subprocess.CompletedProcess[str]:
        environment = {name: value for name, value in sp.environment().items() if name != "PYTHONPATH"}
        done = subprocess.run(
            [str(SWARM), *words], cwd=folder, env=environment, capture_output=True, text=True, timeout=180,
            stdin=subprocess.DEVNULL, check=False,
        )  # fmt: skip
        found = folder / "imported"
        assert not found.exists(), f"swarm {' '.join(words)} imported {found.read_text()}\n{done.stderr}"
        assert "Traceback" not in done.stderr, done.stderr
        assert SECRET not in done.stdout + done.stderr, f"swarm {' '.join(words)} shows a sealed row"
        return done

    return command


@pytest.mark.timeout(900)
def test_no_command_imports_modules_of_the_current_folder_or_shows_a_sealed_row(folder: Path, swarm: Command) -> None:
    """Also not the processes that they start: the coordinator, the workers, the inspection of a base, `show` and `ask`."""
    run = RunFolder(Path(swarm("run", "run.yaml", "--detach").stdout.strip()))
    heard: list[str] = []
    over = threading.Event()
    listening = threading.Thread(target=_listen, args=(run, heard, over), daemon=True)
    listening.start()
    state = sp.wait_for_end(run)
    over.set()
    listening.join(10)
    assert state.end is not None and state.end.rc == 0, state.end
    the_winner_alone_was_looked_at_once(run)

    done = [swarm(name, *words) for name in commands() for words in ATTEMPTS.get(name, [()])]
    assert {
        tuple(one.args[1:]): one.stderr
        for one in done
        if one.args[1] in MUST_WORK and "bus" not in one.args and one.returncode != 0
    } == {}
    assert heard and not [text for text in heard if SECRET in text]
    files = [path for path in run.path.rglob("*") if path.is_file()]
    assert len(files) > 20
    assert not [path for path in files if SECRET.encode() in path.read_bytes()]


def commands() -> list[str]:
    command: Any = get_command(app)
    return [name for name in command.commands if name not in UNTRIED]


def the_winner_alone_was_looked_at_once(run: RunFolder) -> None:
    state = sp.state(run)
    assert state.promoted is not None
    looks = [entry.event for entry in sp.entries(run) if isinstance(entry.event, ev.Look)]
    assert [(look.ref, look.number) for look in looks] == [(state.promoted.ref, 1)]
    [found] = [entry.event for entry in sp.entries(run) if isinstance(entry.event, ev.Sealed)]
    assert (found.result, found.rows, found.overlap) == ("SUCCESS", 30, 0)
    assert found.sha256 == state.promoted.sha256


def _listen(folder: RunFolder, heard: list[str], over: threading.Event) -> None:
    """Everything that is published on the bus, to the owner's key, which hears all."""
    peer = connect(folder, None, subscribe=("entry", "metrics", "workers"))
    while not over.is_set():
        if (envelope := peer.published(0.2)) is not None:
            heard.append(f"{envelope.type} {envelope.body}")
    peer.close(flush_seconds=0.1)


def test_every_process_of_a_module_is_started_without_the_current_folder_on_its_path() -> None:
    """One place knows the command line; a second `python -m` would have to repeat `-P`."""
    found = {
        str(path.relative_to(ROOT))
        for package in ("swarm", "trainer", "tui", "bus", "toon")
        for path in (ROOT / package).rglob("*.py")
        if "sys.executable" in path.read_text()
    }
    assert found == {"swarm/spawning.py"}


def test_a_module_of_the_current_folder_would_be_imported_without_it(folder: Path) -> None:
    """The fixture is hostile: plain `python -m` does import from there."""
    subprocess.run(
        [sys.executable, "-m", "trainer.bases", "--help"],
        cwd=folder,
        capture_output=True,
        check=False,
        env=dict(os.environ),
    )
    assert (folder / "imported").exists()
