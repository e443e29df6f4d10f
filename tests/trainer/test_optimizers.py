"""Each optimizer makes the update of its published formula, with the settings of the stream (rows D09, G13, C16)."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from swarm import kinds
from swarm.settings import StreamSettings
from trainer.engines.callbacks import each_in_one_group

RATE, DECAY, STEPS = 1e-2, 0.1, 3
SHAPE = (64, 128)
"""Large enough for 8-bit states: bitsandbytes keeps smaller ones in fp32."""

Formula = Callable[[torch.Tensor, list[torch.Tensor], float, float, float], torch.Tensor]


def adamw(weight: torch.Tensor, gradients: list[torch.Tensor], beta1: float, beta2: float, eps: float) -> torch.Tensor:
    """arXiv 1711.05101, algorithm 2."""
    first = second = torch.zeros_like(weight)
    for step, gradient in enumerate(gradients, start=1):
        first, second = beta1 * first + (1 - beta1) * gradient, beta2 * second + (1 - beta2) * gradient**2
        update = first / (1 - beta1**step) / ((second / (1 - beta2**step)).sqrt() + eps)
        weight = weight * (1 - RATE * DECAY) - RATE * update
    return weight


def adam(weight: torch.Tensor, gradients: list[torch.Tensor], beta1: float, beta2: float, eps: float) -> torch.Tensor:
    """arXiv 1412.6980, algorithm 1, with the weight's decay as a part of the gradient."""
    first = second = torch.zeros_like(weight)
    for step, plain in enumerate(gradients, start=1):
        gradient = plain + DECAY * weight
        first, second = beta1 * first + (1 - beta1) * gradient, beta2 * second + (1 - beta2) * gradient**2
        weight = weight - RATE * first / (1 - beta1**step) / ((second / (1 - beta2**step)).sqrt() + eps)
    return weight


def lion(weight: torch.Tensor, gradients: list[torch.Tensor], beta1: float, beta2: float, eps: float) -> torch.Tensor:
    """arXiv 2302.06675, algorithm 2."""
    mean = torch.zeros_like(weight)
    for gradient in gradients:
        weight = weight * (1 - RATE * DECAY) - RATE * (beta1 * mean + (1 - beta1) * gradient).sign()
        mean = beta2 * mean + (1 - beta2) * gradient
    return weight


def duo(weight: torch.Tensor, gradients: list[torch.Tensor], beta1: float, beta2: float, eps: float) -> torch.Tensor:
    """Half of AdamW's update and half of Lion's, each from the decayed weight and with its own means."""
    first = second = momentum = torch.zeros_like(weight)
    for step, gradient in enumerate(gradients, start=1):
        first, second = beta1 * first + (1 - beta1) * gradient, beta2 * second + (1 - beta2) * gradient**2
        by_adamw = first / (1 - beta1**step) / ((second / (1 - beta2**step)).sqrt() + eps)
        by_lion = 0.3 * (0.9 * momentum + 0.1 * gradient).sign()
        weight = weight * (1 - RATE * DECAY) - RATE * (by_adamw + by_lion) / 2
        momentum = 0.99 * momentum + 0.01 * gradient
    return weight


def sgd(weight: torch.Tensor, gradients: list[torch.Tensor], *numbers: float) -> torch.Tensor:
    for gradient in gradients:
        weight = weight - RATE * (gradient + DECAY * weight)
    return weight


def adafactor(weight: torch.Tensor, gradients: list[torch.Tensor], *numbers: float) -> torch.Tensor:
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


def muon(weight: torch.Tensor, gradients: list[torch.Tensor], *numbers: float) -> torch.Tensor:
    """Its singular values go five times through a polynomial that brings them near one; then 0.2 sqrt(outputs) as arXiv 2502.16982."""
    mean = torch.zeros_like(weight)
    for gradient in gradients:
        mean = 0.95 * mean + 0.05 * gradient
        left, values, right = torch.linalg.svd((0.05 * gradient + 0.95 * mean).double(), full_matrices=False)
        values = values / values.norm()
        for _ in range(5):
            values = 3.4445 * values - 4.775 * values**3 + 2.0315 * values**5
        update = (left * values) @ right
        weight = weight * (1 - RATE * DECAY) - RATE * 0.2 * max(weight.shape) ** 0.5 * update.float()
    return weight


FORMULAS: dict[str, tuple[Formula, float]] = {
    "adamw": (adamw, 1e-5),
    "adamw_torch": (adamw, 1e-5),
    "adamw_8bit": (adamw, 2e-3),
    "paged_adamw": (adamw, 1e-5),
    "paged_adamw_8bit": (adamw, 2e-3),
    "adamw_kahan": (adamw, 1e-5),
    "adam": (adam, 1e-5),
    "adam_kahan": (adam, 1e-5),
    "lion": (lion, 1e-5),
    "lion_32bit": (lion, 1e-5),
    "lion_8bit": (lion, 1e-5),
    "paged_lion": (lion, 1e-5),
    "paged_lion_8bit": (lion, 1e-5),
    "lion_kahan": (lion, 1e-5),
    "duo": (duo, 1e-5),
    "muon": (muon, 3e-4),
    "sgd": (sgd, 1e-5),
    "adafactor": (adafactor, 1e-5),
}
"""With the largest difference of 99 in 100 weights: states of 8 bits are rounded, Muon multiplies in bfloat16, and the sign of a sum near zero may change."""
NUMBERS = {"beta1": 0.8, "beta2": 0.95, "eps": 1e-3}


def made(chosen: StreamSettings, weight: torch.nn.Parameter) -> torch.optim.Optimizer:
    kind, arguments = kinds.optimizer(chosen.optimizer).made_of(chosen)
    return kind([{"params": [weight], "weight_decay": chosen.weight_decay}], lr=chosen.learning_rate, **arguments)


@pytest.mark.filterwarnings("ignore:Paged optimizers are not supported on CPU")
@pytest.mark.parametrize("own", [False, True], ids=["defaults", "own numbers"])
@pytest.mark.parametrize("name", kinds.installed("optimizer"))
def test_an_optimizer_makes_the_update_of_its_formula(
    name: str, own: bool, settings: Callable[..., StreamSettings]
) -> None:
    has = kinds.optimizer(name).settings.model_fields
    given = {key: value for key, value in NUMBERS.items() if own and key in has}
    chosen = settings(optimizer=name, learning_rate=RATE, weight_decay=DECAY, **given)
    torch.manual_seed(0)
    start = torch.randn(SHAPE)
    gradients = [torch.randn(SHAPE) * 10**-step for step in range(STEPS)]
    weight = torch.nn.Parameter(start.clone())
    optimizer = made(chosen, weight)
    for gradient in gradients:
        weight.grad = gradient.clone()
        optimizer.step()
    formula, tolerance = FORMULAS[name]
    expected = formula(start, gradients, *(getattr(chosen, key, 0.0) for key in NUMBERS))
    differences = (weight.detach() - expected).abs().flatten()
    assert float(differences.quantile(0.99)) <= tolerance
    assert (expected - start).abs().mean() > 5 * tolerance, "the update is larger than what rounding may hide"


@pytest.mark.filterwarnings("ignore:Paged optimizers are not supported on CPU")
@pytest.mark.parametrize("name", ["adamw", "lion"])
def test_moments_are_in_8_bits_and_may_be_paged_where_the_name_says_so(
    name: str, settings: Callable[..., StreamSettings]
) -> None:
    """G13."""
    found = {}
    for optimizer in (f"{name}_8bit", f"paged_{name}", f"paged_{name}_8bit"):
        weight = torch.nn.Parameter(torch.ones(SHAPE))
        stepper = made(settings(optimizer=optimizer), weight)
        weight.grad = torch.ones_like(weight)
        stepper.step()
        dtypes = {value.dtype for value in stepper.state[weight].values() if getattr(value, "shape", None) == SHAPE}
        found[optimizer] = dtypes, stepper.is_paged  # type: ignore[attr-defined]
    assert found == {
        f"{name}_8bit": ({torch.uint8}, False),
        f"paged_{name}": ({torch.float32}, True),
        f"paged_{name}_8bit": ({torch.uint8}, True),
    }


def test_muon_moves_what_is_no_matrix_as_adamw_does_and_goes_on_from_its_state_bit_for_bit(
    settings: Callable[..., StreamSettings],
) -> None:
    """D23: the bias of a head has no orthogonal factor."""
    torch.manual_seed(0)
    starts = [torch.randn(8, 4), torch.randn(8)]
    whole, half, plain = ([torch.nn.Parameter(start.clone()) for start in starts] for _ in range(3))
    kind, arguments = kinds.optimizer("muon").made_of(settings(optimizer="muon"))

    def of(weights: list[torch.nn.Parameter]) -> torch.optim.Optimizer:
        return kind([{"params": weights, "weight_decay": DECAY}], lr=RATE, **arguments)

    one, other = of(whole), of(half)
    adamw_alone = torch.optim.AdamW([plain[1]], lr=RATE, weight_decay=DECAY)
    for step in range(4):
        for at, values in enumerate(zip(whole, half, plain, strict=True)):
            gradient = torch.randn(starts[at].shape, generator=torch.Generator().manual_seed(10 * step + at))
            for value in values:
                value.grad = gradient.clone()
        for optimizer in (one, other, adamw_alone):
            optimizer.step()
        kept = other.state_dict()
        other = of(half)
        other.load_state_dict(kept)
    assert all(torch.equal(*values) for values in zip(whole, half, strict=True))
    assert torch.equal(whole[1], plain[1])


@pytest.mark.parametrize("name", ["adamw", "adam", "lion"])
def test_kahan_summation_keeps_what_bfloat16_rounds_away(name: str, settings: Callable[..., StreamSettings]) -> None:
    """C16: a weight of 1 in bfloat16 moves by no step below 2^-9."""
    moved = []
    for optimizer in (name, f"{name}_kahan"):
        weight = torch.nn.Parameter(torch.ones(8, dtype=torch.bfloat16))
        stepper = made(settings(optimizer=optimizer, learning_rate=1e-3), weight)
        for _ in range(100):
            weight.grad = torch.ones_like(weight)
            stepper.step()
        moved.append(1 - float(weight.detach().float().mean()))
    assert moved == [0.0, pytest.approx(0.1, abs=0.01)]


def test_an_optimizer_has_each_trainable_tensor_once_and_no_frozen_one() -> None:
    """D26."""
    model = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.Linear(2, 2)).requires_grad_(False)
    with pytest.raises(AssertionError, match="no parameter is trainable"):
        each_in_one_group(model, torch.optim.SGD(model.parameters(), lr=0.1))
    model[1].requires_grad_(True)
    each_in_one_group(model, torch.optim.SGD(model[1].parameters(), lr=0.1))
    for chosen, why in (
        ([model[1].weight], "1.bias is in 0 optimizer groups"),
        (model.parameters(), "2 frozen tensors are in the optimizer"),
    ):
        with pytest.raises(AssertionError, match=why):
            each_in_one_group(model, torch.optim.SGD(chosen, lr=0.1))
