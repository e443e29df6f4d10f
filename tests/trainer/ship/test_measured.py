"""Whatever is converted is measured on the whole model by default, and what is far off is refused (rows C43 to C46, C49)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from swarm import surroundings
from tests.trainer.control.saved import save
from tests.trainer.loop import decoders
from tests.trainer.tiny import save_adapter, tokenizer
from trainer.ship.convert import convert
from trainer.ship.gguf_lora import main as export
from trainer.ship.maps import adapter_in
from trainer.ship.merge import main as merge

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning")
WEIGHTS = "adapter_model.safetensors"


def base_in(folder: Path, family: str = "llama", **changes: Any) -> Path:
    decoders.decoder(family, **changes).eval().save_pretrained(folder)
    tokenizer().save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return base_in(tmp_path_factory.mktemp("whole") / "base")


@pytest.fixture(scope="module")
def lora(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_adapter(base, tmp_path_factory.mktemp("lora") / "adapter")


@pytest.fixture
def little_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (meminfo := tmp_path / "meminfo").write_text("MemAvailable:       12 kB\n")
    monkeypatch.setattr(surroundings, "MEMINFO", meminfo)


def vanishing(tmp_path: Path) -> tuple[Path, Path]:
    """A base in fp16 with a norm behind its MLP, and maps that make its last matrices so small that fp16 has few digits left for them.

    With the maps on it the model is as before, since the norm takes their scale out again.
    """
    folder = base_in(tmp_path / "base", "gemma2", dtype=torch.float16, rms_norm_eps=1e-16)
    control = save(decoders.decoder("gemma2"), tmp_path / "control", r=32, lora_alpha=32, std=0.001)
    convert(adapter_in(control), str(folder), maps := tmp_path / "maps", "multiplicative")
    shrunk = {"lora_A": torch.eye(32), "lora_B": -(1 - 1e-5) * torch.eye(32)}
    save_file({name: shrunk[name.split(".")[-2]].clone() for name in load_file(maps / WEIGHTS)}, maps / WEIGHTS)
    return folder, maps


def test_a_multiplicative_merge_that_rounds_the_change_away_is_refused_unless_that_is_accepted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, maps = vanishing(tmp_path)
    words = [str(maps), "--multiplicative", "--base", str(folder), "--out", str(tmp_path / "merged")]
    assert merge(words) == 2
    told = capsys.readouterr().err
    assert "largest logit difference" in told and "more than 5% of that; keep it as an adapter, or accept it" in told
    assert not (tmp_path / "merged").exists()
    assert merge([*words, "--allow-lossy"]) == 0
    assert "largest logit difference" in capsys.readouterr().out


def test_a_matrix_that_its_type_does_not_hold_is_refused_before_anything_is_measured(
    base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    half = base_in(tmp_path / "half", dtype=torch.float16)
    large = save_adapter(half, tmp_path / "large", std=1e6)
    assert merge([str(large), "--probe", "layers", "--out", str(tmp_path / "merged")]) == 2
    assert "is not finite in torch.float16; train it again, or merge at a lower --scale" in capsys.readouterr().err
    assert not (tmp_path / "merged").exists()


def test_a_model_that_does_not_fit_into_memory_is_merged_by_matrices_and_the_line_says_so(
    lora: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], little_memory: None
) -> None:
    assert merge([str(lora), "--out", str(tmp_path / "merged")]) == 0
    told = capsys.readouterr().out
    assert "logits were not compared: comparing logits takes" in told
    assert "are free: `--probe full` tries it all the same, `--probe layers` leaves it out" in told
    assert merge([str(lora), "--probe", "full", "--out", str(tmp_path / "full"), "--json"]) == 0
    whole = json.loads(capsys.readouterr().out)
    assert whole["unmeasured"] is None and whole["logits"] < 1e-3 * whole["effect"]


def test_a_control_adapter_is_not_written_unmeasured_unless_that_is_said(
    base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], little_memory: None
) -> None:
    control = save(decoders.decoder(), tmp_path / "control", std=0.05)
    words = [str(control), "--base", str(base), "--out", str(tmp_path / "merged")]
    assert merge(words) == 2
    assert "--probe: comparing logits takes" in capsys.readouterr().err and not (tmp_path / "merged").exists()
    assert merge([*words, "--probe", "layers"]) == 0
    assert "logits were not compared: --probe layers leaves them out" in capsys.readouterr().out


@pytest.mark.parametrize("family", ["llama", "mixtral", "bloom", "falcon"])
def test_a_file_for_llama_cpp_is_read_back_and_measured_on_the_base(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], family: str
) -> None:
    folder = base_in(tmp_path / "base", family)
    targets = {"mixtral": ["q_proj", "k_proj"]}.get(family, "all-linear")
    adapter, out = save_adapter(folder, tmp_path / "adapter", r=8, target_modules=targets), str(tmp_path / "a.gguf")
    assert export([str(adapter), "--out", out, "--type", "f32", "--json"]) == 0
    exact = json.loads(capsys.readouterr().out)
    assert exact["logits"] < 1e-3 * exact["effect"]
    assert export([str(adapter), "--out", f"{out}.half"]) == 0
    assert "largest logit difference" in capsys.readouterr().out


def test_a_file_whose_type_has_too_few_digits_is_refused_and_not_written(
    lora: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], little_memory: None
) -> None:
    """A so small that half floats have hardly a digit for it, and B the larger."""
    small, out = tmp_path / "small", tmp_path / "a.gguf"
    small.mkdir()
    (small / "adapter_config.json").write_text((lora / "adapter_config.json").read_text())
    tensors = load_file(lora / WEIGHTS)
    save_file({n: t * (1e-6 if "lora_A" in n else 1e5) for n, t in tensors.items()}, small / WEIGHTS)
    words = [str(small), "--out", str(out)]
    assert export([*words, "--probe", "full"]) == 2
    told = capsys.readouterr().err
    assert "more than 5% of that; write --type f32, or keep it as it is, or accept it with --allow-lossy" in told
    assert not out.exists() and not list(tmp_path.glob(".*"))
    assert export([*words, "--probe", "full", "--allow-lossy"]) == 0
    assert export([str(small), "--out", f"{out}.unmeasured"]) == 0
    assert "logits were not compared: comparing logits takes" in capsys.readouterr().out
