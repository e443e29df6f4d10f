"""Every command, in a folder without a run or a file: it says what is missing and which command comes next (issue 21)."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command

from swarm.cli import app, main
from tests.runs import swarm_process as sp

WORK_ALONE = {"init", "schema", "env", "runs", "prune", "open", "skill", "mcp"}
"""They need no run and no file."""
BECOME_ANOTHER = {"chat", "serve"}
"""The trainer's process takes their place."""


def leaves(command: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Every command with its words, those of groups too."""
    if not hasattr(command, "commands"):
        yield path, command
        return
    for name, one in command.commands.items():
        yield from leaves(one, (*path, name))


EVERY = {" ".join(path): command for path, command in leaves(get_command(app))}


def words_of(command: Any) -> list[str]:
    """What must be typed behind it, each time a name that there is not."""
    words = []
    for parameter in command.params:
        number = "1" if re.search("int|float", str(parameter.bare_type)) else "nothing"
        if parameter.required:
            words += [number] if parameter.param_type_name == "argument" else [parameter.opts[0], number]
        elif "--as" in parameter.opts:
            words += ["--as", "ada"]
    return words


@pytest.mark.parametrize("name", sorted(EVERY.keys() - WORK_ALONE))
def test_a_command_without_what_it_needs_says_so_in_one_line_with_the_way_out(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    words = [*name.split(), *words_of(EVERY[name])]
    if name in BECOME_ANOTHER:
        done = sp.swarm(*words, cwd=tmp_path, check=None)
        status, out, err = done.returncode, done.stdout, done.stderr
    else:
        monkeypatch.setattr(sys, "argv", ["swarm", *words])
        with pytest.raises(SystemExit) as left:
            main()
        status, (out, err) = left.value.code, capfd.readouterr()
    assert status == 2 and not out, (out, err)
    assert re.match(r".+: .+; .+", err), err
    assert not list(tmp_path.iterdir()), "nothing is half-written"
