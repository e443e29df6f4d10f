"""D28, D32: the runs of a folder as a registry: filtered, compared stream by stream, their promotions numbered once and for all."""

from __future__ import annotations

import json
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from swarm import config, figures
from swarm import events as ev
from swarm.artifacts.versions import next_version
from swarm.cli import app
from swarm.log import LogWriter
from swarm.rundir import RunFolder
from tests.swarm.story import SHA, Story

CONFIG = """
name: {name}
defaults: {{base_model: {base}, datasets: [{{path: train.jsonl}}]}}
streams: {{narrow: {{lora_r: {rank}}}, wide: {{lora_r: 64}}}}
"""


def run(
    here: Path,
    folder: str,
    base: str,
    rank: int,
    losses: tuple[float, float],
    *,
    promoted: str | None = None,
    more: str = "",
    **measured: tuple[float, float],
) -> None:
    place = RunFolder(here / "runs" / folder)
    place.path.mkdir(parents=True)
    (here / "train.jsonl").write_text('{"messages": []}\n' * 40)
    (here / "my.yaml").write_text(CONFIG.format(name=folder.partition("-")[0], base=base, rank=rank) + more)
    place.config.write_text(config.load(here / "my.yaml", cwd=here).dump())
    story = Story("narrow", "wide")
    for at, (name, loss) in enumerate(zip(("narrow", "wide"), losses, strict=True)):
        story.scored(name, loss, **{figure: values[at] for figure, values in measured.items()})
    if promoted:
        story.say("coordinator", ev.Promote(ref="wide", path="promoted", sha256=SHA, why="best", version=promoted))
    with LogWriter.open(place.log) as writer:
        writer.append([(entry.author, entry.event) for entry in story.entries])


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    run(tmp_path, "demo-1", "tiny-toon", 8, (0.5, 0.25), promoted="demo-v1")
    run(tmp_path, "demo-2", "tiny-toon", 4, (0.75, 0.5))
    run(tmp_path, "other-1", "org/large", 8, (1.5, 1.25))
    return tmp_path


def asked(*words: str) -> Any:
    done = CliRunner().invoke(app, ["runs", *words, "--json"])
    assert done.exit_code == 0, (done.output, done.exception)
    return json.loads(done.stdout)


def test_each_run_has_its_base_its_best_figure_and_the_version_that_it_promoted(here: Path) -> None:
    first, second, third = asked()["runs"]
    assert (first["run"], first["base"], first["best"]) == ("demo-1", "tiny-toon", "eval_loss 0.250")
    assert (first["promoted"], first["version"]) == ("wide", "demo-v1")
    assert (second["promoted"], second["version"]) == (None, None)
    assert (third["base"], third["best"]) == ("large", "eval_loss 1.250")


def test_the_best_of_a_run_is_the_largest_where_that_is_its_goal(here: Path) -> None:
    """D32."""
    goal = "promotion: {metric: exact_match, goal: max}\n"
    run(here, "exact-1", "tiny-toon", 8, (0.5, 0.25), more=goal, exact_match=(0.25, 0.75))
    (row,) = asked("--name", "exact-1")["runs"]
    assert row["best"] == f"exact_match {figures.of('exact_match').text(0.75)}"


def test_a_stream_that_was_validated_and_not_scored_is_compared_by_what_its_validator_measured(here: Path) -> None:
    """D28."""
    story = Story("narrow", "wide")
    story.validated("narrow", loss=0.125)
    place = RunFolder(here / "runs" / "demo-3")
    place.path.mkdir()
    with LogWriter.open(place.log) as writer:
        writer.append([(entry.author, entry.event) for entry in story.entries])
    narrow, wide = asked("--compare", "--name", "demo-3")["streams"]
    assert (narrow["eval_loss"], wide["eval_loss"]) == (0.125, None)


@pytest.mark.parametrize(
    ("words", "runs"),
    [
        (["--name", "demo*"], ["demo-1", "demo-2"]),
        (["--base", "large"], ["other-1"]),
        (["--promoted"], ["demo-1"]),
        (["--state", "no coordinator", "--name", "*-1"], ["demo-1", "other-1"]),
        (["--name", "none"], []),
    ],
)
def test_runs_are_filtered(here: Path, words: list[str], runs: list[str]) -> None:
    assert [row["run"] for row in asked(*words)["runs"]] == runs


def test_compared_are_the_streams_in_what_they_differ(here: Path) -> None:
    rows = asked("--compare", "--name", "demo*")["streams"]
    assert [(row["run"], row["stream"], row["eval_loss"], row["lora_r"]) for row in rows] == [
        ("demo-1", "narrow", 0.5, 8), ("demo-1", "wide", 0.25, 64), ("demo-2", "narrow", 0.75, 4), ("demo-2", "wide", 0.5, 64),
    ]  # fmt: skip
    assert all("base_model" not in row and "learning_rate" not in row for row in rows)


def test_a_table_of_streams_names_data_sets_by_their_files_and_cuts_long_values(here: Path) -> None:
    (here / "more.jsonl").write_text('{"messages": []}\n' * 40)
    data = "datasets: [{path: train.jsonl}, {path: more.jsonl}]"
    (here / "my.yaml").write_text(
        f"name: demo\ndefaults: {{base_model: b, {data}, system_prompt: '{'long ' * 99}'}}\nstreams: {{narrow: {{}}, wide: {{}}}}\n"
    )
    (here / "runs/demo-2/config.yaml").write_text(config.load(here / "my.yaml", cwd=here).dump())
    lines = CliRunner().invoke(app, ["runs", "--compare", "--name", "demo*"]).stdout.splitlines()
    assert len(lines) == 5
    assert "train.jsonl, more.jsonl" in lines[-1]
    assert max(map(len, lines)) < 400


def test_a_run_whose_config_is_broken_is_listed_without_a_base(here: Path) -> None:
    (here / "runs/demo-2/config.yaml").write_text("streams: [")
    (row,) = asked("--name", "demo-2")["runs"]
    assert (row["base"], row["best"]) == (None, None)


def test_versions_are_counted_over_all_runs_of_a_name(tmp_path: Path) -> None:
    given = []
    for name, folder in (
        ("demo", "demo-1"),
        ("demo", "demo-2"),
        ("other", "other-1"),
        ("demo", "demo-2"),
        ("demo", "demo-3"),
    ):
        with next_version(tmp_path, name) as version:
            place = tmp_path / folder / "promoted"
            place.mkdir(parents=True, exist_ok=True)
            (place / "lineage.json").write_text(json.dumps({"promoted": {"version": version}}))
        given.append(version)
    assert given == ["demo-v1", "demo-v2", "other-v1", "demo-v3", "demo-v4"]
    (tmp_path / "demo-1/promoted/lineage.json").write_text("torn")
    with next_version(tmp_path, "demo") as version:
        assert version == "demo-v5"


def test_two_promotions_at_once_are_given_different_versions(tmp_path: Path) -> None:
    def promoted(number: int) -> str:
        with next_version(tmp_path, "demo") as version:
            place = tmp_path / f"demo-{number}" / "promoted"
            place.mkdir(parents=True)
            time.sleep(0.02)
            (place / "lineage.json").write_text(json.dumps({"promoted": {"version": version}}))
        return version

    with ThreadPoolExecutor(4) as pool:
        assert sorted(pool.map(promoted, range(4))) == [f"demo-v{number}" for number in (1, 2, 3, 4)]
