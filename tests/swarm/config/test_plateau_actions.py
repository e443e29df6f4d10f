"""Rows D17, D20: what is done at a plateau of the training loss, as settings; one that could do nothing is a mistake."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from swarm.config import load
from swarm.errors import UserErrors
from swarm.policy.batching import engine_of, engines_of
from swarm.settings import StreamSettings


def stream(folder: Path, **changes: Any) -> StreamSettings:
    (folder / "rows.jsonl").write_text("{}\n")
    text = {
        "name": "q",
        "defaults": {"base_model": "tiny-toon", "datasets": [{"path": "rows.jsonl"}]},
        "streams": {"one": changes},
    }
    (folder / "my.yaml").write_text(json.dumps(text))
    return load(Path("my.yaml"), cwd=folder).run.streams["one"]


def test_jade_is_a_cosine_restart_unless_another_action_is_named(tmp_path: Path) -> None:
    """D17."""
    chosen: list[Any] = [
        stream(tmp_path, plateau_patience=9, **more)
        for more in ({}, {"use_jade": True}, {"use_jade": True, "plateau_action": "reweight"})
    ]
    assert [one.at_plateau for one in chosen] == ["end", "cosine", "reweight"]


def test_a_training_that_is_changed_at_a_plateau_is_trained_by_the_shared_engine(tmp_path: Path) -> None:
    assert "trl" in engines_of(stream(tmp_path, plateau_patience=9))
    acting = stream(tmp_path, plateau_patience=9, plateau_action="bump")
    assert engine_of(acting) == "shared" and "trl" not in engines_of(acting)
    with pytest.raises(UserErrors, match="engine: trl cannot train sft"):
        stream(tmp_path, plateau_patience=9, plateau_action="bump", engine="trl")


@pytest.mark.parametrize(("changes", "what"), [
    ({"use_jade": True}, "use_jade: it does nothing without `plateau_patience`; set e.g. `plateau_patience: 200`"),
    ({"plateau_action": "bump"}, "plateau_action: it does nothing without `plateau_patience`"),
    ({"plateau_patience": 9, "plateau_factor": 3}, "plateau_factor: end has no factor"),
    ({"plateau_patience": 9, "use_jade": True, "plateau_factor": 3}, "plateau_factor: cosine has no factor"),
    ({"plateau_patience": 9, "plateau_times": 2}, "plateau_times: a training ends once"),
    ({"plateau_patience": 9, "plateau_action": "reweight", "loss": "dft"}, "plateau_action: `loss: dft` weights tokens so from the first step on"),
    ({"plateau_patience": 9, "use_jade": True, "max_steps": 10}, "plateau_patience: it can change nothing before step 10, and the training has 10; write at most 8"),
    ({"plateau_patience": 9, "use_jade": True, "max_steps": 11, "plateau_min_steps": 11}, "plateau_min_steps: it never acts before step 11"),
])  # fmt: skip
def test_what_could_do_nothing_is_a_mistake(tmp_path: Path, changes: dict[str, Any], what: str) -> None:
    with pytest.raises(UserErrors) as mistakes:
        stream(tmp_path, **changes)
    assert what in str(mistakes.value)


def test_a_model_of_two_is_checked_as_a_stream_is(tmp_path: Path) -> None:
    models = {"encoder": {"objective": "sft"}, "decoder": {"plateau_action": "cosine"}}
    with pytest.raises(UserErrors, match=r"models\.decoder\.plateau_action: it does nothing without"):
        stream(tmp_path, method="duo", models=models)
