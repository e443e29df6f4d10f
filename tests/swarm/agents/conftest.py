from __future__ import annotations

from pathlib import Path

import pytest

from swarm.rundir import RunFolder

from .places import opened


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    return opened(tmp_path)
