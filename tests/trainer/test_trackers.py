"""`report_to`: what a training measures is drawn by other programs too, and training does not depend on them."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from swarm.config import load
from swarm.errors import UserErrors
from swarm.messages import MetricRow
from swarm.planning.machine_checks import Inspection
from swarm.settings import StreamSettings
from tests.trainer.conftest import Bench
from trainer.trackers import Trackers

Make = Callable[..., StreamSettings]
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")
ROWS = [MetricRow(1, "train", 10.0, {"loss": 0.5}), MetricRow(2, "eval", 11.0, {"eval_loss": 0.25})]


def test_tensorboard_has_every_figure_of_a_training_at_its_step(bench: Bench, settings: Make) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    bench.trained(settings(max_steps=3, eval_steps=3, report_to=["tensorboard"]))
    events = EventAccumulator(str(bench.place.run_folder / "tensorboard" / "one"))
    events.Reload()
    sent = {
        (f"{row.kind}/{name}", row.step): value for row in bench.metric_rows() for name, value in row.figures.items()
    }
    drawn = {(tag, event.step): event.value for tag in events.Tags()["scalars"] for event in events.Scalars(tag)}
    assert drawn == {key: pytest.approx(value, rel=1e-6) for key, value in sent.items()}
    assert ("train/grad_norm", 2) in drawn and ("eval/eval_loss", 3) in drawn


class Recorder(ModuleType):
    """Stands for wandb or trackio: the calls that both have."""

    def __init__(self, name: str, *, fails: bool = False) -> None:
        super().__init__(name)
        self.calls: list[tuple[str, Any]] = []
        self.fails = fails

    def init(self, **arguments: Any) -> SimpleNamespace:
        self.calls.append(("init", arguments))
        return SimpleNamespace(log=self._log, finish=lambda: self.calls.append(("finish", None)))

    def _log(self, figures: dict[str, float], step: int) -> None:
        if self.fails:
            raise ConnectionError("nobody answers")
        self.calls.append(("log", (step, figures)))


@pytest.mark.parametrize("name", ["wandb", "trackio"])
def test_the_others_are_given_each_row_under_the_names_of_run_and_stream(
    name: str, tmp_path: Path, settings: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    recorder = Recorder(name)
    monkeypatch.setitem(sys.modules, name, recorder)
    trackers = Trackers(tmp_path / "demo-1", "wide", settings(report_to=[name], lora_r=4), pytest.fail)
    for row in ROWS:
        trackers.add(row)
    trackers.close()
    (_, arguments), *rest = recorder.calls
    assert "demo-1" in (arguments.get("group"), arguments["project"]) and "wide" in arguments["name"]
    assert arguments["config"]["lora_r"] == 4 and arguments["resume"] == "allow"
    assert rest == [("log", (1, {"train/loss": 0.5})), ("log", (2, {"eval/eval_loss": 0.25})), ("finish", None)]


@pytest.mark.parametrize(("variable", "project"), [("mine", "mine"), (None, "toonswarm")])
def test_an_attempt_that_goes_on_is_the_same_run_of_wandb_in_the_project_of_its_own_variable(
    variable: str | None, project: str, tmp_path: Path, settings: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A15."""
    recorder = Recorder("wandb")
    monkeypatch.setitem(sys.modules, "wandb", recorder)
    monkeypatch.delenv("WANDB_PROJECT", raising=False)
    if variable:
        monkeypatch.setenv("WANDB_PROJECT", variable)
    for _ in range(2):
        Trackers(tmp_path / "demo-1", "wide", settings(report_to=["wandb"]), pytest.fail)
    assert [(made["project"], made["id"]) for _, made in recorder.calls] == [(project, "demo-1-wide")] * 2


def test_a_service_that_fails_is_left_alone_after_one_line(
    tmp_path: Path, settings: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "trackio", Recorder("trackio", fails=True))
    said: list[str] = []
    trackers = Trackers(tmp_path, "wide", settings(report_to=["trackio"]), said.append)
    for row in ROWS:
        trackers.add(row)
    trackers.close()
    assert said == [
        "trackio gets no more figures of this stream (ConnectionError: nobody answers); training goes on without it"
    ]


def test_a_library_that_is_not_installed_is_named_with_its_extra_before_anything_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)
    (tmp_path / "rows.jsonl").write_text('{"prompt": "a", "completion": "b"}\n' * 40)
    (tmp_path / "my.yaml").write_text(
        "name: run\ndefaults: {base_model: tiny-toon, datasets: [{path: rows.jsonl, type: prompt_completion}]}\n"
        "streams: {wide: {report_to: [wandb]}}\n"
    )
    with pytest.raises(
        UserErrors, match=r"my.yaml:3: .*report_to: wandb is not installed; pip install 'toonswarm\[wandb\]'"
    ):
        load(tmp_path / "my.yaml", cwd=tmp_path, further=Inspection().look)
