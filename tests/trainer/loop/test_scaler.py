"""Row G19: on a base in float16 each stream's loss has a scale of its own, and an overflow costs no row and nobody else anything."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.trainer.loop import decoders
from tests.trainer.loop.recipes import FIVE, Kept, loop_of, same
from trainer.loop import folder
from trainer.loop.scaler import FIRST, GROWTH_STEPS, Scaler
from trainer.loop.stream import Stream

TWO = {name: FIVE[name] for name in ("small", "dora")}


def trained(factor: float = FIRST, *, steps: int | None = None) -> tuple[Kept, dict[str, Stream]]:
    """Each stream in passes of its own, so that their bits can be compared; `factor` of the first one."""
    loop, kept, streams = loop_of(TWO, decoders.decoder(dtype=torch.float16), exact=True)
    assert streams["small"].scaler is not None
    streams["small"].scaler.factor = factor
    while loop.running and (steps is None or streams["small"].step < steps):
        loop.tick()
    assert not kept.failures
    return kept, streams


def test_it_trains_as_in_float32() -> None:
    half, streams = trained()
    loop, whole, _ = loop_of(TWO, exact=True)
    loop.run()
    for name in TWO:
        assert half.losses(name) == pytest.approx(whole.losses(name), rel=0.02)
        assert {value.dtype for value in streams[name].adapter.parameters()} == {torch.float32}
    assert half.steps["small"][0].figures["loss_scale"] == FIRST
    assert "loss_scale" not in whole.steps["small"][0].figures


def test_a_step_that_overflows_is_computed_again_and_the_stream_beside_it_has_the_same_bits() -> None:
    usual, mine = trained()
    overflowing, other = trained(2.0**60)
    assert overflowing.steps["small"][0].figures["loss_scale"] < 2.0**40
    assert [step.step for step in overflowing.steps["small"]] == [step.step for step in usual.steps["small"]]
    assert overflowing.losses("small") == pytest.approx(usual.losses("small"), rel=0.02)
    assert same(mine["dora"], other["dora"])


def test_without_a_scale_small_gradients_would_be_lost() -> None:
    """Float16 rounds to zero what is below 3e-8."""
    loop, _, streams = loop_of({"small": FIVE["small"]}, decoders.decoder(dtype=torch.float16))
    stream = streams["small"]
    lost = {}
    for factor in (2.0**-30, FIRST):
        assert stream.scaler is not None
        stream.scaler.factor = factor
        rows = stream.next_rows(0)
        stream.rewind()
        loop._compute(rows, loop.head.sums(loop.losses), [0])
        gradient = stream.adapter.pairs["model.layers.0.mlp.down_proj"].b.grad
        assert gradient is not None
        lost[factor] = float((gradient == 0).float().mean())
        stream.zero_gradients()
    assert lost[FIRST] < 0.5
    assert lost[2.0**-30] == 1


def test_it_goes_on_with_the_same_bits_and_the_same_scale(tmp_path: Path) -> None:
    _, whole = trained(2.0**60)
    _, half = trained(2.0**60, steps=3)
    folder.write(half["small"], tmp_path)
    loop, _, streams = loop_of({"small": TWO["small"]}, decoders.decoder(dtype=torch.float16), exact=True)
    folder.read(streams["small"], tmp_path)
    assert streams["small"].scaler is not None and half["small"].scaler is not None
    assert streams["small"].scaler.factor == half["small"].scaler.factor < 2.0**40
    loop.run()
    assert same(streams["small"], whole["small"])


def test_a_loss_that_is_not_finite_is_no_fault_of_the_scale() -> None:
    loop, kept, streams = loop_of(TWO, decoders.decoder(dtype=torch.float16), exact=True)
    streams["small"].adapter.pairs["model.layers.1.mlp.down_proj"].b.data.fill_(float("nan"))
    while "small" not in kept.failures:
        assert streams["dora"].step == 0, "it fails at its first step"
        loop.tick()
    assert kept.failures["small"] == "loss was not finite at step 1"


def test_the_scale_grows_after_many_clean_steps_and_ends_at_one() -> None:
    """torch's numbers: doubled after 2,000 steps without an overflow, halved at one."""
    scaler = Scaler()
    for _ in range(GROWTH_STEPS):
        assert scaler.factor == FIRST
        assert scaler.unscaled([torch.ones(3)])
    assert scaler.factor == 2 * FIRST
    gradient = torch.tensor([4 * FIRST])
    assert scaler.unscaled([gradient])
    assert float(gradient) == 2
    times = 0
    while not scaler.unscaled([torch.tensor([torch.inf])]):
        times += 1
    assert (times, scaler.factor) == (17, 1.0)
