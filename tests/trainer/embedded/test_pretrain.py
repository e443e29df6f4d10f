"""Checks on a remade base: its loss is compared, since its weights never come out equal."""

from pathlib import Path

import pytest
import torch
from transformers import LlamaForCausalLM

from trainer.embedded import pretrain
from trainer.embedded.pretrain import PEAK_LEARNING_RATE, SHIPPED, STEPS, WARMUP_STEPS


@pytest.fixture(autouse=True)
def few_samples(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pretrain, "HELDOUT_SAMPLES", 20)


def test_a_remake_with_the_same_loss_passes() -> None:
    assert pretrain.compare(SHIPPED, SHIPPED) is None


def test_a_model_that_was_not_trained_to_the_end_is_found_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model, tokenizer = pretrain.load(SHIPPED)
    torch.manual_seed(1)
    pretrain.save(LlamaForCausalLM(model.config), tokenizer, tmp_path)
    assert pretrain.main(["--compare", str(SHIPPED), str(tmp_path)]) == 1
    assert "held-out loss differs" in capsys.readouterr().err


def test_changed_data_are_found_out_before_any_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(pretrain, "SAMPLES", {"record": 3, "short": 3, "long": 3})
    assert pretrain.main(["--out", str(tmp_path / "made")]) == 1
    assert "the data's hash is" in capsys.readouterr().err
    assert not (tmp_path / "made").exists()


def test_the_learning_rate_rises_and_then_falls_to_almost_nothing() -> None:
    rates = [pretrain.learning_rate(step) for step in range(STEPS)]
    assert rates[WARMUP_STEPS] == pytest.approx(PEAK_LEARNING_RATE)
    assert rates[: WARMUP_STEPS + 1] == sorted(rates[: WARMUP_STEPS + 1])
    assert rates[WARMUP_STEPS:] == sorted(rates[WARMUP_STEPS:], reverse=True)
    assert rates[-1] < PEAK_LEARNING_RATE / 20
