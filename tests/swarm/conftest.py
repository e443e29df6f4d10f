from __future__ import annotations

from pathlib import Path

import pytest

from swarm import events as ev
from swarm.log import LogWriter
from swarm.rundir import RunFolder, create
from swarm.weights import ADAPTER_FILES, adapter_sha256
from tests.swarm.places import configure, opened
from tests.swarm.story import Story


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    return opened(tmp_path)


@pytest.fixture
def unopened(tmp_path: Path) -> RunFolder:
    """A run folder whose log the coordinator begins, by its own clock."""
    made = create(tmp_path / "runs", "work")
    configure(tmp_path, made)
    return made


@pytest.fixture
def candidate(folder: RunFolder) -> Path:
    """A folder whose files are what `wide/validate` is about."""
    story = Story("wide")
    story.prepared("wide")
    token = story.claim("wide/train", "trainer-1")
    made = folder.path / f"streams/wide/t{token}/checkpoint-9"
    made.mkdir(parents=True)
    for name in ADAPTER_FILES:
        (made / name).write_text("{}")
    facts = {"tok": token, "path": str(made.relative_to(folder.path)), "sha256": adapter_sha256(made)}
    story.say("trainer-1", ev.Trained(ref="wide/train", step=9, trainable=1, **facts))  # type: ignore[arg-type]
    with LogWriter.open(folder.log) as writer:
        writer.append([(entry.author, entry.event) for entry in story.entries])
    return made
