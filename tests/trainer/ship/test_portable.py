"""Adapters for other programs: PEFT's folder and one safetensors file give the same changes as the adapter itself."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from safetensors import safe_open
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from tests.trainer import tiny
from trainer.ship.deltas import Adapter
from trainer.ship.portable import main

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning")
Said = pytest.CaptureFixture[str]


@pytest.fixture
def adapter(base: Path, tmp_path: Path) -> Path:
    folder = tiny.save_adapter(base, tmp_path / "tuned", use_dora=True, use_rslora=True, std=0.5)
    (folder / "prompt.json").write_text('{"chat_template": "{{ messages }}", "separator": "\\n", "stop_tokens": [2]}')
    (folder / "lineage.json").write_text(json.dumps({"base_model": str(base), "settings": {"datasets": ["/home/x"]}}))
    return folder


def test_a_file_has_each_pair_under_the_bases_own_names_with_its_scale(
    adapter: Path, base: Path, tmp_path: Path, capsys: Said
) -> None:
    out = tmp_path / "out.safetensors"
    assert main([str(adapter), "--safetensors", str(out), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    with safe_open(str(out), "pt") as file:
        read, metadata = {name: file.get_tensor(name) for name in list(file.keys())}, file.metadata()
    assert told["tensors"] == len(read) and metadata["base_model"] == base.name
    model = dict(AutoModelForCausalLM.from_pretrained(base).named_parameters())
    kept = Adapter(adapter)
    for module in kept.modules:
        delta = kept.delta(module)
        assert f"{module}.weight" in model
        weight = model[f"{module}.weight"].detach()
        product = float(metadata[f"scale.{module}"]) * read[f"{module}.lora_B.weight"] @ read[f"{module}.lora_A.weight"]
        changed = weight + product
        changed *= (read[f"{module}.lora_magnitude_vector"] / changed.norm(dim=1)).unsqueeze(1)
        assert torch.allclose(changed, delta.added_to(weight), atol=1e-6)
    assert main([str(adapter), "--safetensors", str(out)]) == 2, "nothing is overwritten"


@pytest.mark.parametrize("form", ["--safetensors", "--peft"])
def test_the_command_writes_the_form_that_is_named(adapter: Path, tmp_path: Path, form: str) -> None:
    """X11."""
    out = tmp_path / "out"
    done = subprocess.run(
        [sys.executable, "-m", "swarm.cli", "export-adapter", str(adapter), form, str(out)], check=False
    )
    weights = out if form == "--safetensors" else out / "adapter_model.safetensors"
    assert done.returncode == 0 and load_file(weights)


@pytest.mark.parametrize(("kind", "dtype"), [([], torch.float32), (["--type", "bf16"], torch.bfloat16)])
def test_a_folder_loads_in_peft_with_tokenizer_and_template_and_names_no_path(
    kind: list[str], dtype: torch.dtype, adapter: Path, base: Path, tmp_path: Path
) -> None:
    out = tmp_path / "new" / "folder"
    assert main([str(adapter), "--peft", str(out), *kind]) == 0
    assert {value.dtype for value in load_file(out / "adapter_model.safetensors").values()} == {dtype}
    assert AutoTokenizer.from_pretrained(out).chat_template == "{{ messages }}"
    assert json.loads((out / "adapter_config.json").read_text())["base_model_name_or_path"] == base.name
    assert not (out / "lineage.json").exists()
    ids = torch.tensor([[5, 6, 7]])
    logits = [
        PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), str(folder))(input_ids=ids).logits
        for folder in (adapter, out)
    ]
    assert torch.allclose(logits[0], logits[1], atol=0.0 if not kind else 0.5)
    assert not list(out.parent.glob(".folder*"))


def test_what_is_no_adapter_is_refused_and_nothing_is_left(base: Path, tmp_path: Path, capsys: Said) -> None:
    assert main([str(base), "--peft", str(tmp_path / "out")]) == 2
    assert "is no adapter" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
