"""Folders that are whole or not there, and checkpoints that can be resumed from or say why not."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from swarm.errors import UserError
from swarm.weights import ADAPTER, ADAPTER_CONFIG, ADAPTER_FILES, MANIFEST, adapter_sha256
from trainer import checkpoint, whole
from trainer.checkpoint import OLDER_FILES
from trainer.whole import Torn


def sealed(folder: Path, step: int = 3, without: str = "") -> Path:
    folder.mkdir(parents=True)
    for name in (*ADAPTER_FILES, *OLDER_FILES):
        if name != without:
            (folder / name).write_text(f"{name} at {step}")
    whole.seal(folder, {"step": step, "token": 1, "spent_seconds": 1.5})
    return folder


def test_a_sealed_folder_verifies_and_any_change_is_found(tmp_path: Path) -> None:
    folder = sealed(tmp_path / "checkpoint-3")
    assert whole.verify(folder) == {"step": 3, "token": 1, "spent_seconds": 1.5}
    original = (folder / "optimizer.pt").read_bytes()
    for damage in (b"", original[:-1], b"X" + original[1:]):
        (folder / "optimizer.pt").write_bytes(damage)
        with pytest.raises(Torn, match=r"optimizer\.pt of checkpoint-3 is not what was sealed"):
            whole.verify(folder)
    (folder / "optimizer.pt").unlink()
    with pytest.raises(Torn, match=r"lacks optimizer\.pt"):
        whole.verify(folder)


@pytest.mark.parametrize("text", [None, "", "[]", "{", '{"files": 3}'])
def test_a_folder_without_a_readable_manifest_is_torn(tmp_path: Path, text: str | None) -> None:
    if text is not None:
        (tmp_path / MANIFEST).write_text(text)
    with pytest.raises(Torn, match="has no readable manifest"):
        whole.verify(tmp_path)


def test_the_second_of_two_writers_gives_way(tmp_path: Path) -> None:
    first, second = sealed(tmp_path / ".one", step=1), sealed(tmp_path / ".two", step=2)
    whole.publish(first, tmp_path / "place")
    whole.publish(second, tmp_path / "place")
    assert whole.verify(tmp_path / "place")["step"] == 1
    assert [path.name for path in tmp_path.iterdir()] == ["place"]


def test_resuming_takes_the_newest_that_is_whole_and_says_what_it_passed_over(tmp_path: Path) -> None:
    good = sealed(tmp_path / "checkpoint-2", step=2)
    torn = sealed(tmp_path / "checkpoint-6", step=6)
    (torn / "adapter_model.safetensors").write_text("torn")
    bare = sealed(tmp_path / "checkpoint-4", step=4, without="optimizer.pt")
    found, passed_over = checkpoint.newest_whole([torn, bare, good])
    assert found is not None
    assert (found.folder, found.step, found.spent_seconds) == (good, 2, 1.5)
    assert "is not what was sealed" in passed_over[0]
    assert passed_over[1].startswith("checkpoint-4 has no optimizer.pt, so training could not go on")
    assert checkpoint.newest_whole([torn])[0] is None


def test_only_the_newest_checkpoints_are_kept(tmp_path: Path) -> None:
    for step in (2, 10, 4):
        sealed(tmp_path / f"checkpoint-{step}", step)
    (tmp_path / "checkpoint-x").mkdir()
    checkpoint.remove_old(tmp_path, 2)
    assert [path.name for path in checkpoint.saved_in(tmp_path)] == ["checkpoint-10", "checkpoint-4"]
    assert not list(tmp_path.glob(".*"))


def test_a_full_disk_is_refused_before_anything_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoint.refuse_full_disk(tmp_path / "t1", trainable=1000)
    monkeypatch.setattr("shutil.disk_usage", lambda path: type("Usage", (), {"free": 90 << 20})())
    with pytest.raises(UserError, match=r"94 MB are free and a checkpoint takes 35[0-9][0-9] MB; free some space"):
        checkpoint.refuse_full_disk(tmp_path / "t1", trainable=300_000_000 - 10_000_000)


def test_equal_adapters_have_equal_hashes_in_whatever_order_the_config_lists_its_layers(tmp_path: Path) -> None:
    kept = []
    for name, layers in (("one", ["q_proj", "v_proj", "k_proj"]), ("two", ["v_proj", "k_proj", "q_proj"])):
        staged = tmp_path / f".{name}"
        staged.mkdir()
        (staged / ADAPTER).write_bytes(b"weights")
        (staged / ADAPTER_CONFIG).write_text(json.dumps({"r": 2, "target_modules": layers, "bias": "none"}))
        kept.append(checkpoint.keep(staged, tmp_path / name, {"step": 1}, ADAPTER_FILES))
    assert kept[0] == kept[1] == adapter_sha256(tmp_path / "two")
    assert json.loads((tmp_path / "one" / ADAPTER_CONFIG).read_text())["target_modules"] == [
        "k_proj",
        "q_proj",
        "v_proj",
    ]
