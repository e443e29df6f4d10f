"""Norms of adapters (row C47): against the whole matrix, of LoRA and control adapters, as a table, as data and as a picture."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest
import torch

from tests.trainer.control.saved import save
from tests.trainer.loop import decoders
from tests.trainer.tiny import save_adapter, save_base
from trainer.ship.deltas import Adapter
from trainer.ship.maps import adapter_in
from trainer.ship.norms import main, norms_of, summary

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning")


@pytest.fixture(scope="module")
def lora(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("lora")
    return save_adapter(save_base(folder / "base"), folder / "adapter", target_modules=["q_proj", "down_proj"])


def test_norms_are_those_of_the_whole_matrix(lora: Path) -> None:
    adapter = Adapter(lora)
    rows = norms_of(adapter)
    assert [row.layer for row in rows] == [
        f"model.layers.{layer}.{name}" for layer in (0, 1) for name in ("mlp.down_proj", "self_attn.q_proj")
    ]
    for row in rows:
        delta = adapter.delta(row.layer)
        whole = delta.scale * delta.b.double() @ delta.a.double()
        for name, order in (("spectral", 2), ("nuclear", "nuc"), ("frobenius", "fro")):
            assert getattr(row, name) == pytest.approx(float(torch.linalg.matrix_norm(whole, order)), rel=1e-6)
        values = torch.linalg.svdvals(whole)[:4]
        assert row.condition == pytest.approx(float(values[0] / values[-1]), rel=1e-5)
        assert row.effective_rank == pytest.approx(row.nuclear**2 / row.frobenius**2)
        assert 1 < row.effective_rank < row.rank == 4
        assert row.by_root_rank == pytest.approx(row.frobenius / 2)
    mean, largest = summary(rows)
    assert mean.frobenius == pytest.approx(sum(row.frobenius for row in rows) / 4)
    assert largest.spectral == max(row.spectral for row in rows)


def test_of_a_control_adapter_it_is_the_map(tmp_path: Path) -> None:
    adapter = adapter_in(save(decoders.decoder(), tmp_path / "sym", form="symmetrise"))
    for row in norms_of(adapter):
        made = adapter.maps[row.layer]  # type: ignore[attr-defined]
        whole = made.left @ made.right
        assert row.nuclear == pytest.approx(float(torch.linalg.matrix_norm(whole, "nuc")), rel=1e-4)
        assert row.rank == 8


def test_orthogonal_directions_are_0_apart_from_orthonormal_ones(tmp_path: Path) -> None:
    """What a spectral adapter begins with, and one whose columns are one direction r times: sqrt(r^2 - r)."""
    spectral = adapter_in(save(decoders.decoder(), tmp_path / "spectral", form="spectral"))
    assert max(row.orthogonality for row in norms_of(spectral)) < 1e-5
    folder = save(decoders.decoder(), tmp_path / "same")
    from safetensors.torch import load_file, save_file

    tensors = load_file(folder / "adapter_model.safetensors")
    save_file(
        {k: v[:, :1].repeat(1, 4) if "lora_B" in k else v for k, v in tensors.items()},
        folder / "adapter_model.safetensors",
    )
    for row in norms_of(adapter_in(folder)):
        assert row.orthogonality == pytest.approx(12**0.5, rel=1e-5)
        assert row.effective_rank == pytest.approx(1, rel=1e-4)


def test_an_adapter_that_was_not_trained_adds_nothing_and_is_told_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = save_adapter(save_base(tmp_path / "base"), tmp_path / "adapter", std=0.0)
    assert main([str(folder), "--svg", str(tmp_path / "norms.svg")]) == 0
    line = capsys.readouterr().out.splitlines()[1].split()
    assert line[2:7] == ["0"] * 5 and line[7] == "-"


def test_the_command_prints_a_table_or_data_and_draws_a_picture(
    lora: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(lora), "--json", "--svg", str(tmp_path / "norms.svg")]) == 0
    told = json.loads(capsys.readouterr().out)
    assert [len(told["layers"]), [row["layer"] for row in told["summary"]]] == [4, ["mean", "largest"]]
    picture = ET.parse(tmp_path / "norms.svg").getroot()
    bars = [float(part.attrib["width"]) for part in picture.iter("{http://www.w3.org/2000/svg}rect")]
    assert len(bars) == 8 and max(bars) == pytest.approx(420)
    assert main([str(lora)]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 1 + 4 + 2
    assert main([str(tmp_path)]) == 2
    assert "adapter_config.json" in capsys.readouterr().err
