"""What each setting of the optimisation does: a training with it differs from one without it by what its formula says."""

from __future__ import annotations

import json
import math
from collections.abc import Callable

import pytest
import torch
from safetensors.torch import load_file
from transformers.models.llama.modeling_llama import LlamaMLP

from swarm.errors import UserError
from swarm.settings import StreamSettings
from tests.trainer.conftest import Bench

Make = Callable[..., StreamSettings]
Tensors = dict[str, torch.Tensor]
pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning:transformers")

RATE = 1e-2
LAYERS = 2
"""Of the tiny base."""
ONE_STEP = {
    "max_steps": 1, "save_steps": 1, "learning_rate": RATE, "lr_scheduler": "constant", "optimizer": "sgd",
    "micro_batch_size": 4, "gradient_accumulation_steps": 1,
}  # fmt: skip
"""With plain gradient descent the weights after one step are the start minus rate times gradient; matrix B starts at zero."""


@pytest.fixture(params=["shared", "trl"])
def settings(settings: Make, request: pytest.FixtureRequest) -> Make:
    return lambda **changes: settings(**{"engine": request.param, **changes})


def weights(bench: Bench, settings: StreamSettings) -> Tensors:
    trained = bench.trained(settings)["trained"]
    return load_file(bench.place.run_folder / trained.path / "adapter_model.safetensors")


def of(matrix: str, tensors: Tensors) -> torch.Tensor:
    return torch.cat([value.flatten() for name, value in sorted(tensors.items()) if f"lora_{matrix}" in name])


def first_figures(bench: Bench) -> dict[str, float]:
    return next(row.figures for row in bench.metric_rows() if row.kind == "train")


SCHEDULES: dict[str, Callable[[int, int], float]] = {
    "linear": lambda done, steps: 1 - done / steps,
    "cosine": lambda done, steps: (1 + math.cos(math.pi * done / steps)) / 2,
    "constant_with_warmup": lambda done, steps: 1.0,
    "polynomial": lambda done, steps: 1 - done / steps + 1e-7 / RATE * done / steps,
}
"""The factor of the learning rate after the warm-up: `done` steps of `steps` (transformers.optimization)."""


@pytest.mark.parametrize("name", SCHEDULES)
def test_the_learning_rate_of_every_step_is_that_of_the_schedule_and_its_warm_up(
    bench: Bench, settings: Make, name: str
) -> None:
    bench.trained(settings(max_steps=8, learning_rate=RATE, lr_scheduler=name, warmup_ratio=0.25, save_steps=8))
    rates = [row.figures["learning_rate"] for row in bench.metric_rows() if row.kind == "train"]
    expected = [0.0, RATE / 2, *(RATE * SCHEDULES[name](done, 6) for done in range(6))]
    assert rates == pytest.approx(expected, rel=1e-6, abs=1e-12)


def test_a_warm_up_may_be_given_in_steps(bench: Bench, settings: Make) -> None:
    """Row D14."""
    bench.trained(settings(max_steps=6, learning_rate=RATE, warmup_steps=3, save_steps=6))
    rates = [row.figures["learning_rate"] for row in bench.metric_rows() if row.kind == "train"]
    assert rates == pytest.approx([0, RATE / 3, RATE * 2 / 3, RATE, RATE * 2 / 3, RATE / 3])


def test_the_rms_ratio_rises_by_itself_whatever_the_number_of_steps(bench: Bench, settings: Make) -> None:
    """Row C17: sqrt((1 - b^t) / (1 + b^t)), .071 at t = 1 and .224 at t = 10 for b = 0.99; no step is made at t = 0, which is zero."""
    for steps in (3, 10):
        given = {
            "lr_scheduler": "rms_ratio",
            "beta2": 0.99,
            "learning_rate": RATE,
            "max_steps": steps,
            "save_steps": 10,
        }
        bench.trained(settings(**given))
        rates = [row.figures["learning_rate"] for row in bench.metric_rows() if row.kind == "train"]
        assert rates[:3] == pytest.approx(
            [RATE * math.sqrt((1 - 0.99**t) / (1 + 0.99**t)) for t in (1, 2, 3)], rel=1e-6
        )
    assert rates[0] == pytest.approx(0.071 * RATE, rel=0.01)
    assert rates[9] == pytest.approx(0.224 * RATE, rel=0.01)


def test_a_constant_rate_has_no_warm_up(bench: Bench, settings: Make) -> None:
    bench.trained(settings(lr_scheduler="constant", learning_rate=RATE, max_steps=3))
    assert [row.figures["learning_rate"] for row in bench.metric_rows() if row.kind == "train"] == [RATE] * 3


def test_the_first_step_is_as_long_as_the_learning_rate_says(bench: Bench, settings: Make) -> None:
    once = of("B", weights(bench, settings(**ONE_STEP, max_grad_norm=1e6)))
    twice = of("B", weights(bench, settings(**{**ONE_STEP, "learning_rate": 2 * RATE, "max_grad_norm": 1e6})))
    torch.testing.assert_close(twice, 2 * once, rtol=1e-4, atol=1e-9)
    assert float(once.norm()) == pytest.approx(RATE * first_figures(bench)["grad_norm"], rel=1e-3)
    assert once.abs().max() > 0


def test_weight_decay_shrinks_what_has_no_gradient(bench: Bench, settings: Make) -> None:
    """Matrix A has none in the first step, since B is zero."""
    adamw = {**ONE_STEP, "optimizer": "adamw_torch"}
    kept = weights(bench, settings(**adamw, weight_decay=0.0))
    shrunk = weights(bench, settings(**adamw, weight_decay=0.5))
    torch.testing.assert_close(of("A", shrunk), of("A", kept) * (1 - RATE * 0.5), rtol=1e-5, atol=1e-8)
    torch.testing.assert_close(of("B", shrunk), of("B", kept), rtol=1e-4, atol=1e-7)


def test_without_a_limit_no_gradient_is_clipped(bench: Bench, settings: Make) -> None:
    """Row A14: 0 is off."""
    free, off = (of("B", weights(bench, settings(**ONE_STEP, max_grad_norm=limit))) for limit in (1e6, 0.0))
    assert torch.equal(free, off)


@pytest.mark.filterwarnings("ignore:Paged optimizers are not supported on CPU")
def test_a_cpu_says_that_it_pages_nothing(bench: Bench, settings: Make) -> None:
    """Row G13."""
    bench.trained(settings(optimizer="paged_adamw_8bit", max_steps=1))
    [said] = [event.body for event in bench.events() if event.kind == "post"]
    assert said == "paged_adamw_8bit: there is no GPU here, so nothing is paged: its state stays in memory"


def test_a_gradient_longer_than_max_grad_norm_is_clipped_to_it(bench: Bench, settings: Make) -> None:
    free = of("B", weights(bench, settings(**ONE_STEP, max_grad_norm=1e6)))
    norm = first_figures(bench)["grad_norm"]
    clipped = of("B", weights(bench, settings(**ONE_STEP, max_grad_norm=norm / 4)))
    assert first_figures(bench)["grad_norm"] == pytest.approx(norm, rel=1e-4), "the norm before clipping is reported"
    assert float(free.norm()) == pytest.approx(RATE * norm, rel=1e-3)
    torch.testing.assert_close(clipped, free / 4, rtol=1e-3, atol=1e-9)


def test_micro_batches_that_are_accumulated_make_the_step_of_one_large_batch(bench: Bench, settings: Make) -> None:
    large = of("B", weights(bench, settings(**ONE_STEP)))
    tokens = first_figures(bench)["tokens"]
    halves = of("B", weights(bench, settings(**{**ONE_STEP, "micro_batch_size": 2, "gradient_accumulation_steps": 2})))
    assert first_figures(bench)["tokens"] == tokens
    torch.testing.assert_close(halves, large, rtol=1e-3, atol=1e-7)
    weights(bench, settings(**{**ONE_STEP, "micro_batch_size": 2}))
    assert first_figures(bench)["tokens"] < tokens


def test_rank_alpha_and_dropout_shape_the_adapter_and_its_gradient(bench: Bench, settings: Make) -> None:
    plain = {**ONE_STEP, "lora_r": 4, "lora_alpha": 8, "max_grad_norm": 1e6}
    small = weights(bench, settings(**plain))
    config = json.loads(next(bench.place.run_folder.rglob("adapter_config.json")).read_text())
    assert (config["r"], config["lora_alpha"], config["lora_dropout"]) == (4, 8, 0.0)
    assert {value.shape[0] for name, value in small.items() if "lora_A" in name} == {4}
    stronger = weights(bench, settings(**{**plain, "lora_alpha": 16}))
    torch.testing.assert_close(of("B", stronger), 2 * of("B", small), rtol=1e-3, atol=1e-8)
    dropped = weights(bench, settings(**plain, lora_dropout=0.5))
    assert not torch.allclose(of("B", dropped), of("B", small), rtol=1e-2)
    again = weights(bench, settings(**plain, lora_dropout=0.5))
    assert torch.equal(of("B", again), of("B", dropped)), "the seed decides what is dropped"


def test_gradient_checkpointing_computes_layers_twice_and_changes_no_result(
    bench: Bench, settings: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls, forward = [0], LlamaMLP.forward

    def counted(layer: LlamaMLP, values: torch.Tensor) -> torch.Tensor:
        calls[0] += 1
        return forward(layer, values)

    monkeypatch.setattr(LlamaMLP, "forward", counted)
    kept = weights(bench, settings(**ONE_STEP))
    once, calls[0] = calls[0], 0
    recomputed = weights(bench, settings(**ONE_STEP, gradient_checkpointing=True))
    assert calls[0] - once == LAYERS
    torch.testing.assert_close(of("B", recomputed), of("B", kept), rtol=1e-4, atol=1e-8)


def test_rows_longer_than_sequence_len_are_cut_to_it(bench: Bench, settings: Make) -> None:
    short = bench.do("prepare", settings(sequence_len=31, max_cut_rows=1.0, max_lost_rows=1.0))["prepared"]
    whole = bench.do("prepare", settings(sequence_len=64))["prepared"]
    assert short.cut > 0 == whole.cut
    assert short.tokens < whole.tokens and short.tokens <= 31 * (short.rows + short.held_out)


def test_float16_is_refused_on_a_cpu(bench: Bench, settings: Make) -> None:
    """G19; a worker may be placed elsewhere than the plan thought."""
    with pytest.raises(UserError, match="a CPU computes in float32") as refused:
        bench.trained(settings(fp16=True))
    assert refused.value.where == "fp16"
