from __future__ import annotations

import pytest
import torch

from tests.trainer.loop import decoders
from tests.trainer.loop.recipes import FIVE
from trainer.loop.certify import NF4_BOUND, certify

pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_five_streams_that_differ_in_everything_train_together_as_alone_and_as_with_peft(dtype) -> None:
    certificates = certify(decoders.decoder(dtype=dtype), FIVE)
    assert len(certificates) == 10
    for certificate in certificates:
        assert certificate.holds, certificate


def test_a_base_in_nf4_is_certified_too() -> None:
    certificates = certify(decoders.quantised(decoders.decoder()), FIVE)
    assert {certificate.bound for certificate in certificates} == {NF4_BOUND}
    for certificate in certificates:
        assert certificate.holds, certificate


def test_a_learning_rate_that_is_a_hundredth_off_breaks_the_certificate() -> None:
    from dataclasses import replace

    from trainer.loop import certify as room

    wrong = replace(FIVE["small"], optimizer=lambda values: torch.optim.AdamW(values, lr=1.01e-3))
    mine = room.trained(decoders.decoder(), {"small": wrong})["small"]
    right = room.trained(decoders.decoder(), {"small": FIVE["small"]})["small"]
    assert not room._compared("small", "alone", mine, right, 2e-5).holds


@pytest.mark.parametrize("steps", [1, 2, 4])
def test_fp32_is_certified_after_any_number_of_steps(steps) -> None:
    """AdamW's first steps divide by gradients that are nearly zero: there PEFT itself is far from its own training in fp64."""
    found = certify(decoders.decoder(), {name: FIVE[name] for name in ("small", "dora", "rs")}, steps=steps)
    assert all(certificate.holds for certificate in found), found
    assert all(certificate.bound <= 1e-3 for certificate in found)


def test_a_broken_bound_becomes_twice_the_rounding_that_peft_has_by_itself(monkeypatch) -> None:
    from trainer.loop import certify as room

    monkeypatch.setattr(room, "FP32_BOUND", 1e-12)
    model = decoders.decoder()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    for certificate in certify(model, {"small": FIVE["small"]}):
        assert certificate.holds
        assert certificate.rounding is not None
        assert 1e-12 < certificate.bound == 2 * certificate.rounding < 1e-4
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


def test_rounding_that_grows_without_end_widens_no_bound_beyond_a_thousandth(monkeypatch) -> None:
    from trainer.loop import certify as room

    monkeypatch.setattr(room, "FP32_BOUND", 1e-12)
    monkeypatch.setattr(room, "_rounding", lambda *_: 0.5)
    assert {one.bound for one in certify(decoders.decoder(), {"small": FIVE["small"]})} == {1e-3}


def test_bases_one_rounding_apart_are_the_base_but_for_the_last_bit_and_it_is_as_it_was_afterwards() -> None:
    from trainer.loop import certify as room

    model = decoders.decoder()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    for seed in (0, 1):
        with room._beside(model, seed):
            for name, value in model.state_dict().items():
                apart = (value.double() - before[name].double()).abs()
                assert bool((apart > 0).all()), name
                assert bool((apart <= 2**-23 * before[name].double().abs() + 2**-149).all()), name
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


def test_exact_training_is_bit_equal_to_training_alone() -> None:
    for certificate in certify(decoders.decoder(), FIVE, exact=True):
        if certificate.against == "alone":
            assert certificate.loss == 0
            assert certificate.worst[1] == 0
        assert certificate.holds, certificate
