"""Every command in a folder full of modules with the names of ours and of libraries: none of them is imported."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import typer
from typer.core import TyperGroup

from swarm.rundir import RunFolder
from tests.runs import swarm_process as sp

HOSTILE = [
    "trainer",
    "toon",
    "zmq",
    "tui",
    "swarm",
    "bus",
    "random",
    "json",
    "yaml",
    "torch",
    "numpy",
    "transformers",
    "peft",
    "datasets",
    "textual",
    "rich",
    "typer",
    "pydantic",
    "msgpack",
    "mcp",
    "asyncio",
    "sqlite3",
    "secrets",
    "hashlib",
    "typing_extensions",
    "accelerate",
    "safetensors",
    "sitecustomize",
    "usercustomize",
    "toonswarm",
]
SWARM = Path(sys.executable).with_name("swarm")
ROOT = Path(__file__).parents[2]
Command = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in HOSTILE:
        code = f"import os\nopen({str(tmp_path / 'imported')!r}, 'a').write({name!r} + '\\n')\nraise ImportError('hostile')\n"
        (tmp_path / f"{name}.py").write_text(code)
    sp.write_config(tmp_path, streams="  only: {lora_r: 2}", steps=4)
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
        return done

    return command


@pytest.mark.timeout(900)  # every command is started once
def test_no_command_imports_modules_of_the_current_folder(folder: Path, swarm: Command) -> None:
    """Also not in the processes that it starts: the coordinator, the workers, the inspection of a base, `show` and `ask`."""
    run = RunFolder(Path(swarm("run", "run.yaml", "--detach").stdout.strip()))
    ended = sp.wait_for_end(run)
    assert ended.end is not None
    assert ended.end.rc == 0
    arguments = {
        "init": ("x.yaml",), "check": ("run.yaml",), "plan": ("run.yaml",), "show": ("run.yaml", "--rows", "1"),
        "resume": (run.name, "--detach"), "ask": ("say 1", "--run", run.name, "--stream", "only"),
        "open": ("a plan",), "post": ("run", "text"), "claim": ("a/b",), "task": ("a/b",), "invite": ("ada",), "revoke": ("ada",),
        "amend": ("1", "x"), "export": (run.name, "--what", "metrics"), "approve": ("only",), "object": ("1", "why"),
        "watch": (run.name, "--plain"), "log": (run.name,), "status": (run.name,), "review": ("run", "well?", "--between", "ada,bob", "--answer-seconds", "0.2"),
    }  # fmt: skip
    from swarm.cli import app

    must_work = {"init", "check", "plan", "show", "ask", "status", "export", "log", "env", "digest", "invite", "post"}
    done = {name: swarm(name, *arguments.get(name, ())) for name in commands_of(app) if name != "run"}
    assert {name: done[name].stderr for name in must_work if done[name].returncode != 0} == {}


def commands_of(app: typer.Typer) -> list[str]:
    """Without `mcp`, which waits for its client."""
    command = typer.main.get_command(app)
    assert isinstance(command, TyperGroup)
    return [name for name in command.commands if name != "mcp"]


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
