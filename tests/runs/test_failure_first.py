"""A real run that fails on a row of its data: the cause is on every screen, at every size, before anything else."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from swarm.rundir import RunFolder
from swarm.views.snapshot import Snapshot
from swarm.views.watch import Watcher
from tests.runs import swarm_process as sp
from tests.tui.runs import Played
from tests.tui.screen import lines, shown

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]
CAUSE = "train.jsonl:11: message 1 has no text"


@pytest.fixture(autouse=True)
def _nothing_is_left_behind(tmp_path: Path) -> Iterator[None]:
    yield from sp.end_everything(tmp_path)


@pytest.mark.asyncio
async def test_the_row_that_is_wrong_is_named_in_the_table_of_streams_at_every_size(tmp_path: Path) -> None:
    config = sp.write_config(tmp_path, streams="  a-stream-of-a-long-name: {lora_r: 2}\n  wide: {lora_r: 4}")
    rows = (tmp_path / "train.jsonl").read_text().splitlines()
    rows[10] = '{"messages": [{"role": "user"}]}'
    (tmp_path / "train.jsonl").write_text("\n".join(rows) + "\n")
    done = sp.swarm("run", config.name, cwd=tmp_path, check=1)
    assert done.stdout.count(CAUSE) == 2
    [path] = (tmp_path / "runs").iterdir()
    with Watcher.attach(path) as watcher:
        snapshot = watcher.snapshot()
    for size in ((80, 24), (100, 30), (200, 60)):
        await the_cause_is_seen(snapshot, size)
    await the_cause_is_seen(snapshot, (62, 16), cause="train.jsonl:11: ")
    assert CAUSE in sp.swarm("status", RunFolder(path).name, cwd=tmp_path).stdout


async def the_cause_is_seen(snapshot: Snapshot, size: tuple[int, int], cause: str = CAUSE) -> None:
    async with shown(Played(snapshot), size) as (app, _):
        seen = lines(app)
        table = [line for line in seen if " wide " in line and "failed" in line]
        assert table and cause in table[0], "\n".join(seen)
        assert "ended with exit status 1" in seen[1]
        assert "q detach" in seen[-1], "the keys are not pushed off the screen"
