"""README stays true: its commands exist, its config loads, its two commands are make targets."""

from __future__ import annotations

import re
from pathlib import Path

import typer

from swarm import config
from swarm.cli import app

README = Path("README.md").read_text(encoding="utf-8")


def test_every_swarm_command_in_the_readme_exists() -> None:
    named = set(re.findall(r"(?:^|[`(])swarm ([a-z]+)", README, re.MULTILINE))
    known = set(typer.main.get_command(app).commands)  # type: ignore[attr-defined]
    assert named
    assert named <= known, f"README names {sorted(named - known)}"


def test_the_two_commands_are_at_the_top_and_are_make_targets() -> None:
    makefile = Path("Makefile").read_text(encoding="utf-8")
    top = README[: README.index("##")]
    for target in ("demo", "test"):
        assert f"make {target}" in top
        assert re.search(rf"^{target}:", makefile, re.MULTILINE)


def test_the_config_in_the_readme_loads(tmp_path: Path) -> None:
    text = re.search(r"```yaml\n(.*?)```", README, re.DOTALL)
    assert text is not None
    (tmp_path / "data").mkdir()
    (tmp_path / "data/train.jsonl").write_text('{"messages": []}\n')
    path = tmp_path / "mine.yaml"
    path.write_text(text[1])
    assert set(config.load(path, cwd=tmp_path).run.streams) == {"narrow", "wide", "dora", "small"}


def test_the_picture_of_the_dashboard_is_there() -> None:
    for picture in re.findall(r"!\[[^\]]*\]\(([^)]+)\)", README):
        assert Path(picture).stat().st_size > 1000
