"""`swarm plan --roadmap` (G06): phases, data, hyper-parameters, hours and cost, expected and measured."""

from __future__ import annotations

from pathlib import Path

import pytest

from swarm import events as ev
from swarm.config import Config, load
from swarm.launch.layout import Layout, WorkerSpec
from swarm.log import LogWriter
from swarm.planning import gpus, roadmap
from swarm.planning.plan import plan_table
from swarm.state import State, fold
from tests.swarm.planning.test_disk_and_plan import BASE
from tests.swarm.story import Story

CONFIG = """\
name: q
runs_dir: {runs}
prices: {{cpu: 0.5}}
streams:
  narrow: {{base_model: tiny-toon, datasets: [{{path: rows.jsonl}}], micro_batch_size: 4, sequence_len: 100, max_steps: 90, lora_r: 8}}
"""
LAYOUT = Layout(workers=(WorkerSpec(name="trainer-1", roles=("train",), device="cpu"),))


def config_in(folder: Path) -> Config:
    (folder / "rows.jsonl").write_text('{"messages": []}\n' * 40)
    (folder / "q.yaml").write_text(CONFIG.format(runs=folder / "runs"))
    return load(Path("q.yaml"), cwd=folder)


def ran(config: Config, folder: Path, seconds: float, tokens_per_second: float) -> State:
    """A run of that config that was trained so fast."""
    run = folder / "runs" / "q-1126-1000-aaaa"
    run.mkdir(parents=True)
    (run / "config.yaml").write_text(config.dump())
    story = Story("narrow")
    story.trained("narrow")
    figures = {"seconds": seconds, "tokens_per_second": tokens_per_second}
    last = story.entries[-1]
    story.entries[-1] = type(last)(last.seq, last.author, last.time, last.event.model_copy(update={"figures": figures}))
    with LogWriter.open(run / "COLLABORATION.md") as writer:
        writer.append([(entry.author, entry.event) for entry in story.entries])
    return fold(story.entries)


def costs(config: Config, state: State | None = None) -> list[roadmap.Cost]:
    return roadmap.costs(config.run, plan_table(config, {"tiny-toon": BASE}, LAYOUT), LAYOUT, state)


def test_without_an_earlier_run_the_hours_are_not_known_and_it_says_how_to_know_them(tmp_path: Path) -> None:
    config = config_in(tmp_path)
    [one] = costs(config)
    assert one.tokens == 90 * 4 * 100 and one.hours is None and one.usd is None
    text = roadmap.markdown(config.run, [one])
    assert "rows.jsonl (" in text and "lora_r=8" in text and "`swarm run` a few steps first" in text
    assert "no price is known" not in text, "its prices are there; what lacks is the speed"
    assert "no price is known" in roadmap.markdown(config.run.model_copy(update={"prices": {}}), [one])


def test_hours_are_those_of_the_speed_that_was_measured_and_cost_is_that_of_the_dearest_device(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = config_in(tmp_path)
    state = ran(config, tmp_path, seconds=1800.0, tokens_per_second=10.0)
    [one] = costs(config, state)
    assert one.hours == pytest.approx(1.0) and one.usd == pytest.approx(0.5)
    assert one.measured_hours == pytest.approx(0.5) and one.measured_usd == pytest.approx(0.25)
    text = roadmap.markdown(config.run, [one], state)
    took = (state.time - state.started) / 3600
    assert f"* the run: {took:.3g} hours by the clock, USD {0.5 * took:.3g} at the highest" in text
    assert "| 1 | 0.5 | 0.5 | 0.25 |" in text and "* USD measured: 0.25" in text
    run = config.run.model_copy(update={"prices": {"cpu": 0.5, "gpu": 3.0}})
    both = Layout(workers=(*LAYOUT.workers, WorkerSpec(name="trainer-2", roles=("train",), device="gpu0", gpu_index=0)))
    [dear] = roadmap.costs(run, plan_table(config, {"tiny-toon": BASE}, LAYOUT), both, state)
    assert dear.usd == pytest.approx(3.0), "either of them may train it"
    monkeypatch.setattr(gpus, "found", lambda: [gpus.Gpu(0, "", "NVIDIA H100 80GB HBM3", 80 << 30, 80 << 30)])
    run = config.run.model_copy(update={"prices": {"h100": 2.5, "gpu": 9.0}})
    [named] = roadmap.costs(run, plan_table(config, {"tiny-toon": BASE}, LAYOUT), both, state)
    assert named.usd == pytest.approx(2.5), "its own price comes before that of any GPU"
    data = roadmap.data(config.run, [one])
    assert data["streams"][0]["measured_usd"] == pytest.approx(0.25) and data["phases"][1]["what"] == "train"


def test_what_a_stream_took_that_was_stopped_early_is_counted_too(tmp_path: Path) -> None:
    config, story = config_in(tmp_path), Story("narrow")
    story.prepared("narrow")
    tok = story.claim("narrow/train", "trainer-1")
    story.say("coordinator", ev.Stop(ref="narrow", why="halving at step 20"))
    story.say("trainer-1", ev.Drop(ref="narrow/train", tok=tok, why="stop", worked=900.0))
    [one] = costs(config, story.state)
    assert one.measured_hours == pytest.approx(0.25) and one.measured_usd == pytest.approx(0.125)


def test_the_phases_of_a_research_are_those_of_its_goal(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text('{"messages": []}\n' * 40)
    research = "research: {start: narrow, phases: {rates: {space: {learning_rate: {low: 1e-4, high: 1e-2}}}}}\n"
    (tmp_path / "q.yaml").write_text(CONFIG.format(runs=tmp_path / "runs") + research)
    config = load(Path("q.yaml"), cwd=tmp_path)
    assert "* research/rates: learning_rate: 0.0001 to 0.01" in roadmap.markdown(config.run, costs(config))
