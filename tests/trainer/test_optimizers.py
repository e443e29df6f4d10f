"""Each optimizer makes the update of its published formula, with the settings of the stream."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from swarm import kinds
from swarm.settings import StreamSettings

RATE, DECAY, STEPS = 1e-2, 0.1, 3
SHAPE = (64, 128)
"""Large enough for 8-bit states: bitsandbytes keeps smaller ones in fp32."""

Formula = Callable[[torch.Tensor, list[torch.Tensor]], torch.Tensor]


def adamw(weight: torch.Tensor, gradients: list[torch.Tensor]) -> torch.Tensor:
    """arXiv 1711.05101, algorithm 2."""
    first = second = torch.zeros_like(weight)
    for step, gradient in enumerate(gradients, start=1):
        first, second = 0.9 * first + 0.1 * gradient, 0.999 * second + 0.001 * gradient**2
        update = first / (1 - 0.9**step) / ((second / (1 - 0.999**step)).sqrt() + 1e-8)
        weight = weight * (1 - RATE * DECAY) - RATE * update
    return weight


def lion(weight: torch.Tensor, gradients: list[torch.Tensor]) -> torch.Tensor:
    """arXiv 2302.06675, algorithm 2, with the second beta of transformers' Trainer."""
    mean = torch.zeros_like(weight)
    for gradient in gradients:
        weight = weight * (1 - RATE * DECAY) - RATE * (0.9 * mean + 0.1 * gradient).sign()
        mean = 0.999 * mean + 0.001 * gradient
    return weight


def sgd(weight: torch.Tensor, gradients: list[torch.Tensor]) -> torch.Tensor:
    for gradient in gradients:
        weight = weight - RATE * (gradient + DECAY * weight)
    return weight


def adafactor(weight: torch.Tensor, gradients: list[torch.Tensor]) -> torch.Tensor:
    """arXiv 1804.04235, algorithm 4, at a given learning rate and without momentum."""
    rows = columns = torch.zeros(())
    for step, gradient in enumerate(gradients, start=1):
        share, square = 1 - step**-0.8, gradient**2 + 1e-30
        rows = share * rows + (1 - share) * square.mean(dim=1)
        columns = share * columns + (1 - share) * square.mean(dim=0)
        update = gradient / torch.outer(rows / rows.mean(), columns).sqrt()
        update = update / max(1.0, float(update.norm() / update.numel() ** 0.5))
        weight = weight * (1 - RATE * DECAY) - RATE * update
    return weight


FORMULAS: dict[str, tuple[Formula, float]] = {
    "adamw_torch": (adamw, 1e-5),
    "adamw_8bit": (adamw, 2e-3),
    "paged_adamw_8bit": (adamw, 2e-3),
    "lion_32bit": (lion, 1e-5),
    "lion_8bit": (lion, 1e-5),
    "sgd": (sgd, 1e-5),
    "adafactor": (adafactor, 1e-5),
}
"""With the largest difference of 99 in 100 weights: states of 8 bits are rounded, and the sign of a sum near zero may change."""


@pytest.mark.filterwarnings("ignore:Paged optimizers are not supported on CPU")
@pytest.mark.parametrize("name", kinds.installed("optimizer"))
def test_an_optimizer_makes_the_update_of_its_formula(name: str, settings: Callable[..., StreamSettings]) -> None:
    chosen = settings(optimizer=name, learning_rate=RATE, weight_decay=DECAY)
    torch.manual_seed(0)
    start = torch.randn(SHAPE)
    gradients = [torch.randn(SHAPE) * 10**-step for step in range(STEPS)]
    weight = torch.nn.Parameter(start.clone())
    kind, arguments = kinds.optimizer(name).made_of(chosen)
    optimizer = kind([{"params": [weight], "weight_decay": chosen.weight_decay}], lr=chosen.learning_rate, **arguments)
    for gradient in gradients:
        weight.grad = gradient.clone()
        optimizer.step()
    formula, tolerance = FORMULAS[name]
    expected = formula(start, gradients)
    differences = (weight.detach() - expected).abs().flatten()
    assert float(differences.quantile(0.99)) <= tolerance
    assert (expected - start).abs().mean() > 5 * tolerance, "the update is larger than what rounding may hide"
