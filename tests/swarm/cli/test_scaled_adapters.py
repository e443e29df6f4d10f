"""Row C54: `--control-adapter ADAPTER:SCALE` names a folder, a run or a stream, as every command does, and a scale behind it."""

from __future__ import annotations

from pathlib import Path

import pytest

from swarm.cli.adapters import adapter_folder, scaled_adapter
from swarm.errors import UserError


@pytest.mark.parametrize("scale", ["", ":-0.5", ":2", ":much"])
def test_a_run_is_what_it_promoted_and_a_folder_is_itself_at_any_scale(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, scale: str
) -> None:
    """What is no scale is passed on, and refused where the adapter is loaded."""
    promoted = tmp_path / "runs" / "warm" / "promoted"
    promoted.mkdir(parents=True)
    (promoted / "adapter_config.json").write_text("{}")
    (promoted / "adapter_model.safetensors").write_bytes(b"")
    (promoted.parent / "COLLABORATION.md").write_text("")
    monkeypatch.chdir(tmp_path)
    assert Path(scaled_adapter(f"warm{scale}", None)).resolve() == Path(f"{promoted}{scale}").resolve()
    assert scaled_adapter(f"{promoted}{scale}", None) == f"{promoted}{scale}"
    assert scaled_adapter(f"runs/warm{scale}", None).endswith(f"runs/warm/promoted{scale}")


def test_a_file_that_is_gone_from_what_a_run_promoted_is_called_by_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    promoted = tmp_path / "runs" / "warm" / "promoted"
    promoted.mkdir(parents=True)
    (promoted / "adapter_config.json").write_text("{}")
    (promoted.parent / "COLLABORATION.md").write_text("")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=r"promoted: has no adapter_model\.safetensors, which the run had written"):
        adapter_folder("warm", None)
