"""Issue 12, 2: a figure that nothing else knows is one line in `FIGURES`; it is then seen wherever figures are.

TRL's DPO measures `rewards_accuracies`; no line of ours names it.  The processes of this run get its line at their start.
"""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from swarm.access.client import connect
from swarm.figures import FIGURES, Figure
from swarm.messages import Metrics
from swarm.rundir import RunFolder
from swarm.views.watch import Watcher
from tests.runs import swarm_process as sp
from tests.tui.runs import Played
from tests.tui.screen import shown, text
from toon import decode

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]
PAIRS = "{{path: {}.jsonl, type: prompt_completion, completion: chosen, rejected: rejected}}"
STREAM = f"  wide: {{lora_r: 2, method: dpo, datasets: [{PAIRS.format('pairs')}], test_datasets: [{PAIRS.format('others')}]}}"
NAME = "rewards_accuracies"
LINE = 'FIGURES["rewards_accuracies"] = Figure("better ones", goal="max", text=units.percent)'


@pytest.fixture(autouse=True)
def _nothing_is_left_behind(tmp_path: Path) -> Iterator[None]:
    yield from sp.end_everything(tmp_path)


@pytest.fixture
def known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    at_start = tmp_path / "at_start"
    at_start.mkdir()
    (at_start / "sitecustomize.py").write_text(
        f"from swarm import units\nfrom swarm.figures import FIGURES, Figure\n{LINE}\n"
    )
    monkeypatch.setattr(
        sp, "environment", lambda: {**os.environ, "HF_HUB_OFFLINE": "1", "PYTHONPATH": f"{Path.cwd()}:{at_start}"}
    )
    monkeypatch.setitem(FIGURES, NAME, Figure("better ones", goal="max"))


def published(folder: RunFolder) -> list[Metrics]:
    """What the bus told a watcher until the run ended."""
    heard = []
    peer = connect(folder, None, subscribe=("metrics",))
    while not sp.state(folder).end or peer.published(0.5) is not None:
        if envelope := peer.published(1.0):
            heard.append(Metrics.read(envelope.body))
    peer.close(flush_seconds=0.5)
    return heard


async def test_it_is_seen_on_the_bus_in_the_database_in_exports_in_the_final_table_and_in_the_dashboard(
    tmp_path: Path, known: None
) -> None:
    rows = [{"prompt": f"say {n}", "chosen": f"n: {n}", "rejected": f"{n}?"} for n in range(60)]
    for file, some in (("pairs", rows[:50]), ("others", rows[50:])):
        (tmp_path / f"{file}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in some))
    config = sp.write_config(tmp_path, streams=STREAM, steps=30)
    folder = sp.start(config)
    assert any(NAME in table.names for table in published(folder))

    with sqlite3.connect(folder.metrics) as database:
        [(stored,)] = database.execute(f"SELECT COUNT({NAME}) FROM metrics")
    assert stored == 30
    rows = decode(sp.swarm("export", "--what", "metrics", "--format", "toon", cwd=tmp_path).stdout)["metrics"]
    shares = [row[NAME] for row in rows]
    assert all(0 <= share <= 1 for share in shares)
    [session] = json.loads(sp.swarm("export", "--what", "session", "--format", "json", cwd=tmp_path).stdout)["streams"]
    assert session[NAME] == round(shares[-1], 4)
    assert [float(row[NAME]) for row in log_of(folder)] == shares

    table = sp.swarm("watch", "--plain", cwd=tmp_path).stdout.splitlines()
    assert "better ones" in table[0] and f"{shares[-1]:.0%}" in table[1], table
    with Watcher.attach(folder.path) as watcher:
        snapshot = watcher.snapshot()
    assert [y for _, y in snapshot.streams[0].curves[NAME]] == shares
    async with shown(Played(snapshot), (200, 50)) as (app, _):
        assert text(app).count("better ones") == 2, "a column, and a line in the detail"


def log_of(folder: RunFolder) -> list[dict[str, str]]:
    found: list[dict[str, str]] = json.loads((folder.stream("wide") / "train_log.json").read_text())
    return found
