from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from swarm import units
from swarm.cli import plans
from swarm.config import load
from swarm.errors import UserError
from swarm.launch.layout import Layout, WorkerSpec
from swarm.planning import disk, estimate, rows
from swarm.planning.plan import plan_table, steps_of
from swarm.planning.starting import Plan
from swarm.settings import Dataset, StreamSettings
from tests.families import facts_of

BASE = facts_of(
    "llama",
    hidden_size=64,
    num_attention_heads=4,
    num_key_value_heads=4,
    intermediate_size=96,
    tie_word_embeddings=True,
)
CONFIG = """\
name: q
defaults: {base_model: tiny-toon, datasets: [{path: rows.jsonl}], micro_batch_size: 3, gradient_accumulation_steps: 2}
streams:
  narrow: {lora_r: 8}
  wide: {lora_r: 32, adapter: qlora, use_dora: true, max_steps: 7}
"""


@pytest.fixture
def config(tmp_path):
    (tmp_path / "rows.jsonl").write_text('{"messages": []}\n' * 100 + "\n\n")
    (tmp_path / "q.yaml").write_text(CONFIG)
    return load(Path("q.yaml"), cwd=tmp_path)


def needs_of(config):
    return {name: estimate.estimate(BASE, settings) for name, settings in config.run.streams.items()}


def test_a_run_that_the_disk_holds_passes_and_leaves_no_folder(config, tmp_path):
    disk.check(config.run, needs_of(config), tmp_path / "not" / "yet" / "there")
    assert not (tmp_path / "not").exists()


def test_a_disk_that_is_too_full_is_reported_before_the_run(config, monkeypatch):
    monkeypatch.setattr("shutil.disk_usage", lambda path: SimpleNamespace(free=100_000_000))
    with pytest.raises(UserError) as caught:
        disk.check(config.run, needs_of(config), Path("runs"))
    assert str(caught.value) == (
        "runs_dir: runs: the run will take about 124 MB for checkpoints and 14 kB for prepared rows, 100 MB is free; "
        "free some space, lower `save_total_limit`, or set `runs_dir` to another disk"
    )


def test_streams_that_ask_for_the_same_rows_share_them(config, tmp_path):
    one = disk.prepared_bytes(config.run)
    other = load(Path("q.yaml"), ["streams.wide.sequence_len=64"], cwd=tmp_path)
    assert disk.prepared_bytes(other.run) == 2 * one == 2 * 8 * (tmp_path / "rows.jsonl").stat().st_size


@pytest.mark.parametrize(
    ("settings", "count"),
    [({}, 95), ({"val_set_size": 0.045}, 96), ({"val_set_size": 10}, 90), ({"test_datasets": [{"path": "x/y"}]}, 100)],
)
def test_rows_to_train_on_are_counted_in_the_files(config, tmp_path, settings, count):
    stream = StreamSettings.model_validate(
        {"base_model": "x", "datasets": [{"path": str(tmp_path / "rows.jsonl")}], **settings}
    )
    assert rows.trained_on(stream) == count
    assert rows.trained_on(stream.model_copy(update={"datasets": [Dataset(path="owner/name")]})) is None


@pytest.mark.parametrize(
    ("settings", "rows", "steps"),
    [
        ({"micro_batch_size": 3, "gradient_accumulation_steps": 2}, 95, 16), ({"num_epochs": 2.5}, 10, 13), ({"max_steps": 7}, None, 7),
        ({}, None, None), ({"max_minutes": 1}, 10, None),
    ],
)  # fmt: skip
def test_steps_are_counted_as_the_trainer_counts_them(settings, rows, steps):
    assert (
        steps_of(StreamSettings.model_validate({"base_model": "x", "datasets": [{"path": "x"}], **settings}), rows)
        == steps
    )


def test_a_plan_has_a_row_per_stream_with_its_device_and_steps(config):
    gpu = [
        WorkerSpec(f"trainer-{n}", ("train",), "gpu0", 1, 0, streams) for n, streams in ((1, None), (2, ("narrow",)))
    ]
    table = plan_table(config, {"tiny-toon": BASE}, Layout(tuple(gpu)))
    assert [(row.stream, row.adapter, row.device, row.rows, row.steps) for row in table] == [
        ("narrow", "lora r8", "gpu0 shared", 95, 16),
        ("wide", "qlora r32 dora", "gpu0", 95, 7),
    ]
    assert [row.engine for row in table] == ["shared 1", "shared 2"], "one base is whole, the other in 4 bits"
    assert table[0].weights_bytes <= table[0].shared_bytes < table[0].total_bytes
    assert table[0].trainable == 2 * 8 * (8 * 64 + 3 * (64 + 96))
    assert table[0].total_bytes > table[0].weights_bytes > table[1].weights_bytes


def test_a_plan_shows_people_what_each_stream_would_train(config):
    """G18."""
    shown = plans.text(Plan(config, {"tiny-toon": BASE}, needs_of(config), Layout(()))).splitlines()
    at = shown[0].index("trainable")
    trainable = [need.trainable for need in needs_of(config).values()]
    assert [line[at:].split("  ")[0] for line in shown[1:3]] == [units.count(number) for number in trainable]


def test_a_plan_says_how_many_rows_and_tokens_a_step_has(config):
    table = plan_table(config, {"tiny-toon": BASE})
    assert [(row.batch_rows, row.step_tokens) for row in table] == [(3 * 2, 3 * 2 * 512)] * 2
