"""A Unified controller in a Trainer of one's own (U08, U13): it multiplies each schedule's rate, is logged, and goes on from a checkpoint."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.optim.lr_scheduler import ExponentialLR
from transformers import Trainer, TrainerCallback, TrainingArguments

from trainer import UnifiedCallback
from trainer.unified import Weights

pytestmark = pytest.mark.filterwarnings("ignore")
PRESET: dict[str, Any] = {
    "preset": "glue", "alpha": 1.0, "beta": 0.0, "theta0": 0.35, "theta1": 0.45, "weights": Weights(error=1.0),
}  # fmt: skip
"""Phi is the step's own loss as stress; all of it goes through the checkpoint."""


class Line(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(0.0))

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"loss": (self.weight * x - y).square().mean()}


class Rates(TrainerCallback):
    """The rates with which steps are really made: seen after the multiplication."""

    def __init__(self) -> None:
        self.seen: list[float] = []

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, optimizer: Any = None, **kwargs: Any) -> None:
        self.seen.append(optimizer.param_groups[0]["lr"])


def trained(folder: Path, *, resume: bool = False, **changes: Any) -> tuple[Trainer, list[float]]:
    rows = [{"x": torch.tensor(1.0), "y": torch.tensor(1.0)} for _ in range(8)]
    model, rates = Line(), Rates()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.2)
    arguments = TrainingArguments(
        output_dir=str(folder), max_steps=8, per_device_train_batch_size=2, logging_steps=1, save_steps=4, report_to=[],
        disable_tqdm=True, use_cpu=True, max_grad_norm=0.0, **changes,
    )  # fmt: skip
    steers = UnifiedCallback(**PRESET)
    trainer = Trainer(
        model, arguments, train_dataset=rows, callbacks=[steers, rates], optimizers=(optimizer, ExponentialLR(optimizer, 0.9))
    )  # type: ignore[arg-type]  # fmt: skip
    trainer.train(resume_from_checkpoint=str(folder / "checkpoint-4") if resume else None)
    return trainer, rates.seen


def test_the_rate_of_a_step_is_the_schedules_times_the_factor_and_is_logged_with_phi(tmp_path: Path) -> None:
    """U08: with a schedule that goes on from the rate it finds, which an assignment would disturb."""
    trainer, rates = trained(tmp_path)
    logged = [row for row in trainer.state.log_history if "loss" in row]
    factors = [1.0, *((1.0, 0.6, 0.2)[int(row["mode"])] for row in logged)]
    assert rates == pytest.approx([0.2 * 0.9**step * factors[step] for step in range(8)])
    assert len(set(factors)) > 1, "the loss falls through a threshold"
    assert [row["phi"] for row in logged] == pytest.approx(
        [row["loss"] / (1 + row["loss"]) for row in logged], abs=1e-3
    )
    assert [row["learning_rate"] for row in logged] == pytest.approx(rates)


@pytest.mark.parametrize("by_trainer", [False, True])
def test_it_goes_on_from_a_checkpoint_whether_or_not_trainer_restores_callbacks(
    tmp_path: Path, by_trainer: bool
) -> None:
    through, rates = trained(tmp_path, restore_callback_states_from_checkpoint=by_trainer)
    again, later = trained(tmp_path, resume=True, restore_callback_states_from_checkpoint=by_trainer)
    assert torch.equal(through.model.weight, again.model.weight)
    if not by_trainer:  # Trainer puts its own copy behind those that look on
        assert later == rates[4:]


def test_stress_from_outside_is_read_at_each_logged_step(tmp_path: Path) -> None:
    """U13."""
    callback = UnifiedCallback(
        "glue", alpha=1.0, beta=0.0, stress=lambda: 1.0, stress_share=1.0, weights={"error": 0.5}
    )
    callback.on_log(None, type("State", (), {"log_history": [], "global_step": 1})(), None, logs={"loss": 0.0})
    assert callback.unified.trace.phi == pytest.approx(0.5)
