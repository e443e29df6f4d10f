"""README and docs/ stay true: every command in them parses, the scripts run, the config loads, the two commands are make targets."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer
import yaml

import toon.cli
from swarm import config
from swarm.cli import app
from swarm.rundir import RunFolder
from tests.runs import swarm_process as sp
from tests.swarm.places import opened, state

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
README = PAGES[0].read_text(encoding="utf-8")
LONGEST_README_LINES = 130


def commands(text: str) -> Iterator[str]:
    """The `swarm ...` and `toon ...` lines of fenced blocks, and whole commands between backticks."""
    for block in re.findall(r"^```\n(.*?)^```", text, re.DOTALL | re.MULTILINE):
        for line in block.splitlines():
            if re.match(r"(?:swarm|toon) ", line):
                yield re.split(r"\s{2,}#|\s+>\s", line)[0].strip()
    yield from (said for said in re.findall(r"`((?:swarm|toon) [^`]+)`", text) if not re.search(r"[|…]", said))


def refusal(command: str) -> str:
    """What the command line says against it; empty: it parses.  Nothing is run."""
    name, *words = shlex.split(command)
    if name == "toon":
        try:
            toon.cli.parser().parse_args(words)
        except SystemExit as error:
            return "" if error.code == 0 else f"toon refuses {command!r}"
        return ""
    group = typer.main.get_command(app)
    known = group.commands  # type: ignore[attr-defined]
    called, *rest = words
    if called not in known:
        return f"{called} is no command"
    command_of = known[called]
    while hasattr(command_of, "commands") and rest and rest[0] in command_of.commands:
        command_of, rest = command_of.commands[rest[0]], rest[1:]
    options = {flag for parameter in command_of.params for flag in (*parameter.opts, *parameter.secondary_opts)}
    unknown = [
        word for word in rest if re.match("-+[a-z]", word) and word.partition("=")[0] not in {*options, "--help"}
    ]
    return f"{called} knows no {', '.join(unknown)}" if unknown else ""


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_command_in_a_page_parses(page: Path) -> None:
    refused = [why for command in commands(page.read_text(encoding="utf-8")) if (why := refusal(command))]
    assert not refused


def test_a_command_that_does_not_exist_is_found_out() -> None:
    assert refusal("swarm fly RUN") == "fly is no command"
    assert refusal("swarm status --colour") == "status knows no --colour"
    assert refusal("toon dance")
    assert list(commands("```\nswarm a b  # why\n```\nand `swarm c --d` too")) == ["swarm a b", "swarm c --d"]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_and_picture_leads_somewhere(page: Path) -> None:
    targets = re.findall(r"\]\(([^)#]+)\)", page.read_text(encoding="utf-8"))
    missing = [target for target in targets if "://" not in target and not (page.parent / target).exists()]
    assert not missing


def test_the_readme_is_short_and_begins_with_two_make_targets() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    top = README[: README.index("##")]
    for target in ("demo", "test"):
        assert f"make {target}" in top
        assert re.search(rf"^{target}:", makefile, re.MULTILINE)
    assert len(README.splitlines()) <= LONGEST_README_LINES


def test_the_tree_in_contributing_has_every_room_and_no_other() -> None:
    tree = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8").split("```")[3]
    found = re.findall(r"^( *)([a-z_]+)/ ", tree, re.MULTILINE)
    layers = [name for indent, name in found if not indent]
    above = ""
    for indent, name in found:
        above = above if indent else name
        assert (ROOT / above / (name if indent else "") / "__init__.py").exists(), name
    rooms = {path.parent.name for layer in layers for path in (ROOT / layer).glob("*/__init__.py")}
    assert rooms - {name for _, name in found} == {"panes"}, "tui's panes stand in its own line"


def test_the_config_in_the_readme_loads(tmp_path: Path) -> None:
    text = re.search(r"```yaml\n(.*?)```", README, re.DOTALL)
    assert text is not None
    (tmp_path / "data").mkdir()
    (tmp_path / "data/train.jsonl").write_text('{"messages": []}\n')
    path = tmp_path / "mine.yaml"
    path.write_text(text[1])
    assert set(config.load(path, cwd=tmp_path).run.streams) == {"narrow", "wide", "dora", "small"}


def test_the_source_of_the_controller_is_cited_and_its_script_runs() -> None:
    """U12."""
    page = (ROOT / "docs/unified.md").read_text(encoding="utf-8")
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    [reference] = cited["references"]
    assert f"howpublished = {{\\url{{{reference['url']}}}}}" in page and "@misc{unified_lora_2025," in page
    [script] = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[0].startswith("3e-05 1 ")


def test_the_python_script_of_the_agents_page_claims_works_and_finishes(tmp_path: Path) -> None:
    [script] = re.findall(r"```python\n(.*?)```", (ROOT / "docs/agents.md").read_text(encoding="utf-8"), re.DOTALL)
    folder: RunFolder = opened(tmp_path)
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, env=sp.environment(), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert state(folder).tasks["data/check"].done is not None
    assert "done data/check ada" in done.stdout
