"""Row G21: `start_adapter` names a folder or a promoted version, and what it cannot be combined with is refused where it is written."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from swarm.artifacts.inputs import inputs_of
from swarm.config import load
from swarm.errors import UserErrors
from swarm.settings import StreamSettings


def adapter(folder: Path, text: str = "{}") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "adapter_config.json").write_text(text)
    (folder / "adapter_model.safetensors").write_bytes(b"")
    return folder


def loaded(folder: Path, named: str, *lines: str) -> StreamSettings:
    (folder / "rows.jsonl").write_text("{}\n")
    own = [f"start_adapter: {named}", *lines]
    head = "name: q\ndefaults:\n  base_model: tiny-toon\n  datasets: [{path: rows.jsonl}]\nstreams:\n  one:\n"
    (folder / "my.yaml").write_text(head + "".join(f"    {line}\n" for line in own))
    return load(Path("my.yaml"), cwd=folder).run.streams["one"]


def test_a_folder_is_relative_to_the_config_and_a_version_is_found_among_the_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    folder = adapter(tmp_path / "adapters" / "a")
    assert vars(loaded(tmp_path, "adapters/a"))["start_adapter"] == str(folder)
    for run, version in (("q-1", "q-v1"), ("q-2", "q-v2")):
        promoted = adapter(tmp_path / "runs" / run / "promoted")
        (promoted.parent / "COLLABORATION.md").write_text("")
        (promoted / "lineage.json").write_text(json.dumps({"promoted": {"version": version}}))
    assert vars(loaded(tmp_path, "q-v2"))["start_adapter"] == str(tmp_path / "runs" / "q-2" / "promoted")
    with pytest.raises(
        UserErrors, match=r"q-v3 is no adapter's folder in .*, and no version that a run here has promoted"
    ):
        loaded(tmp_path, "q-v3")


def test_another_adapter_in_the_same_folder_is_another_training(tmp_path: Path) -> None:
    folder = adapter(tmp_path / "a")
    first = inputs_of(loaded(tmp_path, "a"))
    assert first == inputs_of(loaded(tmp_path, "a"))
    (folder / "adapter_model.safetensors").write_bytes(b"other")
    assert inputs_of(loaded(tmp_path, "a")) != first


@pytest.mark.parametrize(
    ("line", "what"),
    [
        ("lora_dropout: 0.1", "lora_dropout: it would drop inputs of the start_adapter too"),
        ("init_lora_weights: pissa", "init_lora_weights: beside a start_adapter A begins at random"),
        ("lora_weight_dtype: bfloat16", "lora_weight_dtype: a start_adapter is held in float32"),
        ("engine: trl\n    use_dora: true", "engine: trl cannot train sft .* write shared, or leave it out"),
        (
            "method: orpo\n    use_dora: true",
            "use_dora: orpo is trained by TRL, where DoRA's norms leave the start_adapter out",
        ),
        ("adapter: full", "start_adapter: unknown setting"),
        ("adapter: control", "start_adapter: control adapters have none"),
    ],
)
def test_what_does_not_go_with_it_is_refused(tmp_path: Path, line: str, what: str) -> None:
    adapter(tmp_path / "a")
    with pytest.raises(UserErrors, match=what):
        loaded(tmp_path, "a", line)
