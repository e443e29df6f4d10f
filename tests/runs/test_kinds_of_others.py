"""Issue 12, 4: a method, an adapter kind and an optimizer that another package brings are used like our own."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from swarm import kinds
from tests.runs import swarm_process as sp

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]
SOURCE = Path(__file__).parents[1] / "fixtures" / "kinds_of_others"
STREAMS = "  scaled: {method: scaled, loss_scale: 0.5, adapter: ia3, ia3_layers: [k_proj, down_proj], optimizer: signs, sign_momentum: 0.9}"


@pytest.fixture(autouse=True)
def _nothing_is_left_behind(tmp_path: Path) -> Iterator[None]:
    yield from sp.end_everything(tmp_path)


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder into which pip has installed the distribution."""
    made = tmp_path_factory.mktemp("packages")
    source = shutil.copytree(SOURCE, tmp_path_factory.mktemp("source") / "kinds_of_others")
    words = ["--quiet", "--no-deps", "--no-build-isolation", "--no-index", "--target", str(made), str(source)]
    subprocess.run([sys.executable, "-m", "pip", "install", *words], check=True)
    return made


@pytest.fixture
def installed(packages: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Processes of this test have the distribution on their path, as if it lay in their environment."""
    monkeypatch.setattr(
        sp, "environment", lambda: {**os.environ, "HF_HUB_OFFLINE": "1", "PYTHONPATH": f"{Path.cwd()}:{packages}"}
    )
    return packages


def test_a_stream_is_planned_trained_judged_and_promoted_with_them(tmp_path: Path, installed: Path) -> None:
    config = sp.write_config(tmp_path, streams=STREAMS, extra="  gradient_checkpointing: false", steps=4)
    config.write_text(config.read_text() + "promotion: {must_beat: nothing}\n")
    [row] = json.loads(sp.swarm("plan", config.name, "--json", cwd=tmp_path).stdout)["streams"]
    sp.swarm("run", config.name, cwd=tmp_path)
    [path] = (tmp_path / "runs").iterdir()
    state = sp.state(sp.RunFolder(path))
    stream = state.streams["scaled"]
    assert state.end is not None and state.end.rc == 0
    assert stream.verdict is not None and stream.verdict.result != "FAIL", stream.verdict
    assert stream.trained is not None and stream.trained.trainable == row["trainable"]
    assert state.promoted is not None
    assert json.loads((path / "promoted" / "adapter_config.json").read_text())["peft_type"] == "IA3"
    loss = json.loads((path / "streams" / "scaled" / "train_log.json").read_text())
    assert loss


def test_its_settings_are_known_and_those_of_what_was_not_chosen_are_not(tmp_path: Path, installed: Path) -> None:
    config = sp.write_config(
        tmp_path, streams="  one: {method: scaled, loss_scale: -1, sign_momentum: 0.1, ia3_layer: [x]}"
    )
    told = sp.swarm("check", config.name, cwd=tmp_path, check=2).stderr
    assert "streams.one.loss_scale: expected a number above 0, got -1; the default is 1" in told
    assert "streams.one.sign_momentum: unknown setting; it is a setting of `optimizer: signs`" in told


def test_without_the_package_its_names_are_refused(tmp_path: Path) -> None:
    config = sp.write_config(tmp_path, streams=STREAMS)
    told = sp.swarm("check", config.name, cwd=tmp_path, check=2).stderr
    assert f"streams.scaled.adapter: 'ia3' is not one of {', '.join(sorted(kinds.installed('adapter')))}" in told
    assert "streams.scaled.ia3_layers: unknown setting" in told


def test_a_package_that_lies_in_the_current_folder_is_not_asked(tmp_path: Path, packages: Path) -> None:
    config = sp.write_config(tmp_path, streams=STREAMS)
    shutil.copytree(packages, tmp_path, dirs_exist_ok=True)
    told = sp.swarm("check", config.name, cwd=tmp_path, check=2).stderr
    assert f"streams.scaled.adapter: 'ia3' is not one of {', '.join(sorted(kinds.installed('adapter')))}" in told


def test_a_package_that_cannot_be_imported_is_named(
    tmp_path: Path, packages: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = shutil.copytree(packages, tmp_path / "broken")
    (broken / "kinds_of_others" / "ia3.py").write_text("import no_such_thing\n")
    monkeypatch.setattr(sp, "environment", lambda: {**os.environ, "PYTHONPATH": f"{Path.cwd()}:{broken}"})
    config = sp.write_config(tmp_path, streams="  one: {lora_r: 2}")
    told = sp.swarm("check", config.name, cwd=tmp_path, check=2).stderr
    assert "kinds-of-others brings kinds_of_others.ia3, which cannot be imported (ModuleNotFoundError" in told
    assert "update or uninstall kinds-of-others" in told
