"""Streams that adapt, in a real run: killed in the midst of a mode, and in the end as if nothing had happened (D05, D10, D27, U01, U18, U19, U20, U23)."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from swarm import events as ev
from swarm.rundir import RunFolder
from tests.runs import swarm_process as sp

pytestmark = [pytest.mark.slow, pytest.mark.timeout(420)]
AT_ONCE = "preset: absolute, alpha: 1.0, beta: 0.0"
"""Phi is the step's own stress."""
STREAMS = f"""\
  tasks: {{controller: {{kind: unified, {AT_ONCE}, theta0: 0.0001, theta1: 0.999, merge: mean}}}}
  mirror: {{controller: {{kind: unified, {AT_ONCE}, theta0: 0.0001, theta1: 0.0002, anchor_rows: 4, anchor_steps: 4, pull: 0.1}}}}
  ranks: {{controller: {{kind: unified, {AT_ONCE}, theta0: 0.6, theta1: 0.7, adapt: rank}}}}
  orbital: {{controller: {{kind: orbital, warmup: 10, every: 1, dwell: 1, stress: 0.0, recovery: 0.0}}}}
  blend: {{optimizer: duo, duo_mode: blend, duo_share: 0.3}}
  hybrid: {{optimizer: duo, duo_mode: hybrid, duo_role: encoder}}
  amp: {{optimizer: duo, duo_mode: amp}}
  alone: {{adapter: qlora, optimizer: duo, duo_mode: blend, controller: {{kind: unified, {AT_ONCE}, theta0: 0.0001, theta1: 0.0002, anchor_rows: 4}}}}"""
"""The last is not in the group: its base is in 4 bits."""
STEPS, SAVED = 30, 10
SKILLS = ("even", "odd")


@pytest.fixture(autouse=True)
def _nothing_is_left_behind(tmp_path: Path) -> Iterator[None]:
    yield from sp.end_everything(tmp_path)


def adapters(folder: RunFolder) -> dict[str, bytes]:
    found = folder.path.glob("streams/*/adapter/adapter_model.safetensors")
    return {path.parts[-3]: path.read_bytes() for path in found}


def test_a_group_that_adapts_and_one_alone_are_killed_and_end_bit_for_bit_as_those_that_were_not(
    tmp_path: Path,
) -> None:
    extra = "  exact: true\n  lora_dropout: 0.1"
    config = sp.write_config(tmp_path, streams=STREAMS, steps=STEPS, extra=extra)
    data = tmp_path / "train.jsonl"
    rows = [json.loads(line) for line in data.read_text().splitlines()]
    data.write_text("".join(json.dumps({**row, "skill": SKILLS[n % 2]}) + "\n" for n, row in enumerate(rows)))
    asked = ("placement.cpu_streams=8", f"save_steps={SAVED}", "datasets.0.task=skill")
    killed, whole = sp.start(config, *asked), sp.start(config, *asked)
    sp.wait_for(
        lambda: all(stream.checkpoints for stream in sp.state(killed).streams.values()), "checkpoints", folder=killed
    )
    sp.kill(sp.living_workers(killed))
    assert [(end := sp.wait_for_end(folder).end) and end.rc for folder in (killed, whole)] == [0, 0]
    assert any(isinstance(entry.event, ev.Expire) for entry in sp.entries(killed))
    assert adapters(killed).keys() == {"tasks", "mirror", "ranks", "orbital", "blend", "hybrid", "amp", "alone"}
    assert adapters(killed) == adapters(whole)
    notes = {entry.event.body for entry in sp.entries(whole) if isinstance(entry.event, ev.Post)}
    assert any("an adapter for each of 2 tasks: even, odd" in note for note in notes)
    assert any("multi -> mirror" in note for note in notes)
