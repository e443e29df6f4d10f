"""What a day of use asks of the commands: they find the run, take a stream's name, end when the run ends, and say what is wrong."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from typer.testing import CliRunner

import toon
from swarm import Agent
from swarm import events as ev
from swarm.access.checked import checked
from swarm.artifacts.metrics import MetricsFile
from swarm.cli import app
from swarm.errors import UserError
from swarm.log import LogWriter
from swarm.messages import MetricRow, Metrics
from swarm.rundir import RunFolder
from tests.swarm.places import configure, entries, kinds, opened, state
from tests.swarm.story import Story


def swarm(*words: str, status: int = 0) -> Result:
    done = CliRunner().invoke(app, words)
    assert done.exit_code == status, (words, done.output, done.exception)
    return done


def refusal(*words: str) -> str:
    done = CliRunner().invoke(app, words)
    assert isinstance(done.exception, UserError), (done.output, done.exception)
    return str(done.exception)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RunFolder:
    """A run with the streams narrow and wide, as nobody runs it any more; the tests stand above it."""
    made = opened(tmp_path)
    configure(tmp_path, made)
    monkeypatch.chdir(tmp_path)
    story = Story("narrow", "wide")
    story.scored("wide", 0.5)
    with LogWriter.open(made.log) as writer:
        writer.append([(entry.author, entry.event) for entry in story.entries])
    return made


def test_runs_are_found_from_a_folder_below_as_git_finds_its_own(
    folder: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    below = tmp_path / "data" / "raw"
    below.mkdir(parents=True)
    monkeypatch.chdir(below)
    assert json.loads(swarm("status", "--json").stdout)["run"] == folder.name
    assert folder.name in swarm("status", folder.name).stdout
    (below / "runs").mkdir()
    assert folder.name in swarm("status").stdout, "an empty runs folder hides nothing"


def test_a_short_help_and_the_version_are_where_people_look_for_them() -> None:
    assert swarm("-h").stdout == swarm("--help").stdout
    assert "Usage" in swarm("export", "-h").stdout
    assert swarm("--version").stdout.startswith("toonswarm ")


def test_stop_resume_and_lineage_take_the_name_of_a_stream_as_pause_does(folder: RunFolder) -> None:
    swarm("stop", "narrow")
    assert state(folder).streams["narrow"].wish == "stop" and not state(folder).stopped
    assert [row["stream"] for row in json.loads(swarm("lineage", "wide", "--json").stdout)["adapters"]] == ["wide"]
    assert json.loads(swarm("lineage", "narrow", "--json").stdout)["adapters"] == []
    assert refusal("stop", "nrrow") == f"nrrow: is no run and no stream of {folder.name}; did you mean narrow?"
    assert refusal("resume", "x9").endswith("; `swarm runs` lists the runs, `swarm status` the streams")


def test_a_stream_named_like_a_run_is_distinguished_by_its_option(folder: RunFolder, tmp_path: Path) -> None:
    other = RunFolder(folder.path.rename(folder.path.with_name("wide")))
    opened(tmp_path, "newer")
    swarm("pause", "narrow", "--run", "wide")
    swarm("stop", "wide", "--no-wait")
    assert state(other).stopped, "the run of that name"


def test_all_runs_are_listed_with_how_they_stand(folder: RunFolder, tmp_path: Path) -> None:
    plan = opened(tmp_path, "plan")
    rows = json.loads(swarm("runs", "--json").stdout)["runs"]
    assert [(row["run"], row["state"], row["streams"]) for row in rows] == [
        (folder.name, "no coordinator", "1 wait, 1 done"),
        (plan.name, "not started", None),
    ]
    assert swarm("runs").stdout.splitlines()[0].split() == [
        "run",
        "began",
        "state",
        "streams",
        "base",
        "best",
        "promoted",
        "version",
    ]


def test_a_note_on_what_there_is_not_is_refused_with_the_likely_name(folder: RunFolder) -> None:
    before = kinds(folder)
    assert refusal("post", "wied", "look") == "wied: names no stream or task of this run; did you mean wide?"
    assert "there is narrow, wide, run, a stream's task such as narrow/train" in refusal("post", "x9", "look")
    assert kinds(folder) == before
    swarm("post", "wide/train", "look")
    swarm("post", "-", "look")


def test_a_question_that_nobody_answers_in_time_has_a_status_of_its_own(folder: RunFolder) -> None:
    assert "has not answered yet" in swarm("post", "run", "ok?", "--ask", "bob", "--wait", "0.2", status=6).stdout
    swarm("post", "run", "ok?", "--ask", "bob")


def test_following_the_log_ends_with_the_run(folder: RunFolder) -> None:
    with LogWriter.open(folder.log) as writer:
        writer.append([("coordinator", ev.End(ref="run", rc=0))])
    last = swarm("log", "--follow").stdout.splitlines()[-1]
    assert " end run coordinator" in last


def test_the_figures_are_exported_in_as_few_rows_and_columns_as_are_wanted(folder: RunFolder) -> None:
    metrics = MetricsFile(folder.metrics)
    rows = [MetricRow(step, "train", 1.5 + step, {"loss": 1 / step}) for step in range(1, 121)]
    metrics.insert(Metrics.of(name, 3, 120, rows) for name in ("narrow", "wide"))
    metrics.close()
    what = ("export", "--what", "metrics")
    found: Any = toon.decode(swarm(*what, "--points", "4", "--columns", "stream,step,loss").stdout)
    assert [(row["stream"], row["step"]) for row in found["metrics"]] == [
        (name, step) for name in ("narrow", "wide") for step in (30, 60, 90, 120)
    ]
    assert [*found["metrics"][0]] == ["stream", "step", "loss"]
    assert len(swarm(*what, "--points", "1000", "--format", "csv").stdout.splitlines()) == 241
    assert "--columns: 'los' is no column of metrics; take some of stream, token" in refusal(*what, "--columns", "los")
    assert refusal(*what, "--points", "3", "--follow", "--format", "csv").startswith("--points: thins what is there")
    assert refusal("export", "--what", "events", "--points", "3") == "--points: thins metrics, not events; leave it out"


@pytest.mark.parametrize("command", ["prune", "runs"])
def test_a_folder_of_runs_that_is_none_is_refused(command: str) -> None:
    assert refusal(command, "--runs", "nope") == "--runs: there is no folder nope; name the folder that holds the runs"


def test_pruning_finds_the_runs_from_a_folder_below_and_asks_where_somebody_can_answer(
    folder: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with LogWriter.open(folder.log) as writer:
        writer.append([("coordinator", ev.End(ref="run", rc=0))])
    (folder.path / "prepared" / "x").mkdir(parents=True)
    (tmp_path / "below").mkdir()
    monkeypatch.chdir(tmp_path / "below")
    said = refusal("prune", "--keep", "0")
    assert said.startswith("prune: asks before it removes anything, and there is no terminal; ")
    assert (folder.path / "prepared" / "x").exists()
    [told] = json.loads(swarm("prune", "--keep", "0", "--yes", "--json").stdout)
    assert Path(told["path"]).name == "x" and not (folder.path / "prepared" / "x").exists()


def test_a_lease_that_an_agent_states_no_time_for_outlasts_a_review(folder: RunFolder) -> None:
    swarm("task", "data/check")
    swarm("claim", "data/check", "--as", "ada")
    assert [e.event.ttl for e in entries(folder) if isinstance(e.event, ev.Claim)][-1] == 600


def test_who_asks_for_a_review_is_not_among_those_who_answer_it(folder: RunFolder) -> None:
    with Agent("ada", folder.path) as ada, pytest.raises(UserError, match="ada asks and cannot answer while it waits"):
        ada.review("wide", ["bob", "ada"], "fit?")


def test_usage_errors_are_worded_by_this_project(folder: RunFolder) -> None:
    with pytest.raises(UserError) as said:
        checked(ev.Verdict, ref="wide/validate", tok=3, result="GOOD", path="x", sha256="a" * 64)
    assert str(said.value) == "verdict: result: 'GOOD' is not known; take 'SUCCESS', 'WARNING' or 'FAIL'"
    with pytest.raises(UserError) as said:
        checked(ev.Promote, ref="wide", path="/x", sha256="a" * 64, why="")
    assert str(said.value) == "promote: path: '/x' must be a path inside the run folder; correct it"
    assert refusal("claim", "Data/check").startswith("claim: ref: 'Data/check' is not valid; a name is ")


def test_words_for_people_are_ascii_where_the_locale_knows_no_more_and_data_are_whole(
    folder: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    swarm("post", "wide", "α is the rate · 漢字")
    monkeypatch.setenv("LC_ALL", "C")
    for words in (("status",), ("log",), ("runs",), ("replay",), ("inbox",)):
        assert swarm(*words).stdout.isascii(), words
    assert "α is the rate · 漢字" in swarm("log", "--json").stdout
    monkeypatch.setenv("LC_ALL", "C.UTF-8")
    assert "α is the rate · 漢字" in swarm("log").stdout
