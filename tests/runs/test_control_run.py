"""Rows C29, C30: control streams in a real run are killed in mid-epoch, beside a LoRA and alone, and go on with the same batches and the same losses."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from swarm import events as ev
from swarm.rundir import RunFolder
from tests.runs import swarm_process as sp

pytestmark = [pytest.mark.slow, pytest.mark.timeout(420)]

SAVE_STEPS, STEPS = 7, 105
CONTROL, ALL = ("layers", "blocks"), ("layers", "blocks", "beside")
CONFIG = f"""name: control
placement: {{cpu_streams: 3}}
defaults:
  base_model: tiny-toon
  adapter: control
  exact: true
  datasets:
    - {{path: warm.jsonl, type: document, control_class: 1}}
    - {{path: dry.jsonl, type: document, control_class: -1}}
  test_datasets: [{{path: held.jsonl, type: document}}]
  sequence_len: 32
  micro_batch_size: 2
  gradient_accumulation_steps: 3
  max_steps: {STEPS}
  learning_rate: 5e-3
  logging_steps: 1
  save_steps: {SAVE_STEPS}
  eval_rows: 0
  lora_dropout: 0.1
streams:
  layers: {{control_adapter_type: spectral}}
  blocks: {{control_site: block, control_adapter_type: symmetrise, lora_r: 8, lora_weight_decay: 0.1}}
  beside: {{adapter: lora, datasets: [{{path: warm.jsonl, type: document}}, {{path: dry.jsonl, type: document}}]}}
"""
KEYS = ("loss", "loss_toward", "loss_away", "tokens", "tokens_toward", "tokens_away", "epoch", "adapter_norm")
"""What a step's batches are and what comes of them."""
Trace = dict[int, tuple[float | None, ...]]


@pytest.fixture(autouse=True)
def _nothing_is_left_behind(tmp_path: Path) -> Iterator[None]:
    yield from sp.end_everything(tmp_path)


def write(folder: Path) -> Path:
    """Documents of every length, so that hardly two steps have as many tokens of each class."""
    for name, word in (("warm", "gladly"), ("dry", "null"), ("held", "gladly")):
        texts = [f"{name} {number}: " + f"{word} {number} " * (1 + number % 7) for number in range(40)]
        rows = [{"text": text + ("held" if name == "held" else "")} for text in texts[: 8 if name == "held" else None]]
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    path = folder / "run.yaml"
    path.write_text(CONFIG)
    return path


def held(folder: RunFolder) -> list[str]:
    return [task.ref.partition("/")[0] for task in sp.state(folder).held_by("trainer-1")]


def saved(folder: RunFolder, stream: str) -> int:
    """The step of its newest checkpoint; 0 without one."""
    return max((checkpoint.step for checkpoint in sp.state(folder).streams[stream].checkpoints), default=0)


def kill_trainer(folder: RunFolder) -> None:
    """At once: its steps are short."""
    sp.kill(sp.living_trainers(folder))


def traces(folder: RunFolder, stream: str) -> list[Trace]:
    """By attempt, the first one first: its figures by step."""
    query = (
        f"SELECT token, step, {', '.join(KEYS)} FROM metrics WHERE stream = ? AND kind = 'train' ORDER BY token, step"
    )
    found: dict[int, Trace] = {}
    with closing(sqlite3.connect(folder.metrics)) as database:
        for token, step, *figures in database.execute(query, (stream,)):
            found.setdefault(token, {})[step] = tuple(figures)
    return list(found.values())


def adapter(folder: RunFolder, stream: str) -> bytes:
    return (folder.path / "streams" / stream / "adapter" / "adapter_model.safetensors").read_bytes()


def test_control_streams_that_are_killed_beside_a_lora_and_alone_go_on_with_the_same_batches_and_losses(
    tmp_path: Path,
) -> None:
    config = write(tmp_path)
    folder = sp.start(config)
    sp.wait_for(
        lambda: len(held(folder)) == len(ALL) and all(saved(folder, name) for name in ALL), "all", folder=folder
    )
    kill_trainer(folder)
    sp.wait_for(lambda: [e for e in sp.entries(folder) if isinstance(e.event, ev.Expire)], "their ends", folder=folder)
    before = {name: saved(folder, name) for name in ALL}
    alone = sp.wait_for(
        lambda: [name for name in held(folder) if name in CONTROL and saved(folder, name) > before[name]],
        "a control stream alone",
        folder=folder,
    )
    kill_trainer(folder)
    killed = sp.wait_for_end(folder)
    undisturbed = sp.start(config)
    assert [end.rc for end in (killed.end, sp.wait_for_end(undisturbed).end) if end] == [0, 0]

    ends = [entry.event for entry in sp.entries(folder) if isinstance(entry.event, ev.Expire)]
    assert [end.held for end in ends] == [3, 3, 3, None]
    assert ends[-1].ref == f"{alone[0]}/train"
    for name in ALL:
        (whole,) = traces(undisturbed, name)
        assert list(whole) == list(range(1, STEPS + 1))
        attempts = traces(folder, name)
        assert len(attempts) == (3 if name == alone[0] else 2)
        for attempt in attempts:
            assert attempt == {step: whole[step] for step in attempt}
        first = min(attempts[-1])
        assert (first - 1) % SAVE_STEPS == 0 and list(attempts[-1]) == list(range(first, STEPS + 1))
        assert attempts[-1][first][KEYS.index("epoch")] % 1 > 0  # in the middle of an epoch
        assert adapter(folder, name) == adapter(undisturbed, name)
