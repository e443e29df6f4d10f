"""A project folder with data, and configs written into it as a user would write them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from swarm.config import Config, load

Loading = Callable[..., Config]


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """/…/proj with a few data files in data/."""
    folder = tmp_path / "proj"
    (folder / "data").mkdir(parents=True)
    for name in ("train.jsonl", "dev.jsonl", "a.json", "b.json"):
        (folder / "data" / name).write_text('{"messages": []}\n' * 10, encoding="utf-8")
    return folder


@pytest.fixture
def loading(project: Path) -> Loading:
    """Write `text` as my.yaml (or another name) and load it from the project folder."""

    def made(text: str, *overrides: str, name: str = "my.yaml", cwd: Path | None = None) -> Config:
        (project / name).write_text(text, encoding="utf-8")
        return load(Path(name), overrides, cwd=cwd or project)

    return made
