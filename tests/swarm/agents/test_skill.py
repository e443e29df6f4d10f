"""The printed guide: an agent that knows nothing else can work by it."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import typer

import toon
from swarm.agents.skill import TEXT
from swarm.cli import app
from swarm.rundir import RunFolder
from tests.runs import swarm_process as sp
from tests.swarm.places import entries, state

COMMANDS = [line.strip() for line in TEXT.splitlines() if line.startswith("    swarm ")]


def test_the_printed_commands_work_exactly_as_they_are_printed(tmp_path: Path) -> None:
    assert sp.swarm("skill", cwd=tmp_path).stdout == TEXT
    said = {}
    for command in COMMANDS:
        said[command] = sp.swarm(*shlex.split(command)[1:], cwd=tmp_path).stdout
    [path] = (tmp_path / "runs").iterdir()
    folder = RunFolder(path)
    task = state(folder).tasks["data/check"]
    assert task.done is not None
    assert [e.author for e in entries(folder) if e.event.kind == "done"] == ["bob"]
    assert state(folder).questions == {}
    assert state(folder).objections("run") == []
    promised = re.search(r"prints `(claimed data/check token=3 until )", TEXT)
    assert promised is not None
    assert said[next(c for c in COMMANDS if c.startswith("swarm claim"))].startswith(promised[1])


def test_every_word_that_the_guide_names_is_a_command(tmp_path: Path) -> None:
    known = set(re.findall(r"^  ([a-z]+) ", sp.swarm("--help", cwd=tmp_path).stdout, re.MULTILINE))
    assert set(re.findall(r"swarm ([a-z]+)", TEXT)) <= known | {"commands"}


def test_what_the_guide_says_of_all_commands_is_so() -> None:
    commands = typer.main.get_command(app).commands  # type: ignore[attr-defined]
    taken = {
        name: {word for parameter in command.params for word in [*parameter.opts, *parameter.secondary_opts]}
        for name, command in commands.items()
    }
    without_a_run = {
        "init",
        "check",
        "certify",
        "control-vector",
        "show",
        "plan",
        "env",
        "run",
        "open",
        "prune",
        "skill",
        "schema",
        "tune",
        "research",
        "runs",
    }
    of_data = typer.main.get_command(app).commands["data"].commands  # type: ignore[attr-defined]
    del taken["data"]
    taken |= {
        f"data {name}": {word for parameter in command.params for word in [*parameter.opts, *parameter.secondary_opts]}
        for name, command in of_data.items()
    }
    without_a_run |= {f"data {name}" for name in of_data}
    assert {name for name in taken if "--run" not in taken[name]} == without_a_run
    talk = {"chat", "mcp", "watch"}
    """A terminal, or a protocol of its own."""
    assert {name for name in taken if not {"--json", "--toon"} <= taken[name]} == talk
    writes = {name for name in taken if "--idem" in taken[name]} | {"open", "inbox"}
    assert all("--as" in taken[name] for name in writes)


def test_the_guide_is_short() -> None:
    assert toon.estimated_tokens(TEXT) < 1500
