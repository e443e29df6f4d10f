"""An adapter's file that is missing, torn, empty or not finite is refused in words by whatever reads it (A31, A33, G20)."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from peft import PromptTuningConfig, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from swarm.errors import UserError
from swarm.weights import ADAPTER
from tests.trainer import tiny
from trainer.data.tokens import Tokens
from trainer.judge.heldout import row_losses
from trainer.judge.together import Together
from trainer.loading import load_adapter
from trainer.ship.deltas import Adapter
from trainer.ship.portable import write_folder

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning")


def missing(path: Path) -> None:
    path.unlink()


def torn(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-40])


def a_pointer(path: Path) -> None:
    path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")


def empty(path: Path) -> None:
    save_file({}, path, {"format": "pt"})


def not_finite(path: Path) -> None:
    save_file({name: torch.full_like(value, torch.nan) for name, value in load_file(path).items()}, path)


FAULTS: dict[Callable[[Path], None], str] = {
    missing: "has no adapter_model", torn: "cannot be read", a_pointer: "cannot be read", empty: "holds no tensors",
    not_finite: "values that are not finite",
}  # fmt: skip


@pytest.fixture(scope="module")
def model(base: Path) -> torch.nn.Module:
    return AutoModelForCausalLM.from_pretrained(base)  # type: ignore[no-any-return]


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.__name__)
def test_whoever_reads_it_refuses_it_in_words(
    fault: Callable[[Path], None], base: Path, model: torch.nn.Module, tmp_path: Path
) -> None:
    folder = tiny.save_adapter(base, tmp_path / "adapter", std=0.5, seed=1)
    fault(folder / ADAPTER)
    readers: list[Callable[[], object]] = [
        lambda: load_adapter(model, folder), lambda: Together(model, [folder]),  # type: ignore[arg-type]
        lambda: write_folder(folder, str(base), tmp_path / "out", "f32"),
    ]  # fmt: skip
    if fault is not not_finite:  # it reads a layer at a time
        readers.append(lambda: Adapter(folder))
    for read in readers:
        with pytest.raises(UserError, match=FAULTS[fault]):
            read()
    assert not (tmp_path / "out").exists()


def test_a_learned_prompt_has_a_loss_for_each_token_of_the_row(base: Path) -> None:
    bare = AutoModelForCausalLM.from_pretrained(base)
    config = PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=3)
    prompted = get_peft_model(bare, config)
    rows = [Tokens([5, 6, 7, 8], [-100, 6, 7, 8], 1), Tokens([9, 8], [-100, 8], 1)]
    found = row_losses(prompted, rows, lambda: None)
    assert [row.tokens for row in found] == [3, 1]
    out = prompted(input_ids=torch.tensor([rows[1].ids]))
    assert found[1].nats == pytest.approx(-float(out.logits[0, -2].log_softmax(-1)[8].detach()), rel=1e-5)
