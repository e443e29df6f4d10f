"""Row A11 from a stream's settings: `loss`, `kl_lambda` and what belongs to it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from swarm import kinds
from swarm.errors import UserError
from swarm.policy.batching import engines_of
from swarm.settings import StreamSettings
from tests.trainer.conftest import Bench
from trainer.engines import shared
from trainer.loop.losses import Regularised

Make = Callable[..., StreamSettings]
pytestmark = [
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]


def losses(bench: Bench, name: str = "loss") -> list[float]:
    return [row.figures[name] for row in bench.metric_rows() if row.kind == "train"]


def test_dft_is_trls(bench: Bench, settings: Make) -> None:
    made = []
    for engine in ("shared", "trl"):
        bench.trained(settings(loss="dft", engine=engine, max_steps=6, gradient_accumulation_steps=2))
        made.append(losses(bench))
    assert made[0] == pytest.approx(made[1], abs=1e-5)
    bench.trained(settings(max_steps=6, gradient_accumulation_steps=2))
    assert losses(bench)[0] > 20 * made[0][0], "of a random base, each token has about 1 / 259"


def test_entropy_and_token_accuracy_are_those_of_trl(bench: Bench, settings: Make) -> None:
    """A20."""
    made = []
    for engine in ("shared", "trl"):
        bench.trained(settings(engine=engine, max_steps=12))
        made.append((losses(bench, "entropy"), losses(bench, "token_accuracy")))
    for ours, theirs in zip(*made, strict=True):
        assert ours == pytest.approx(theirs, abs=1e-4)
        assert max(ours) > min(ours)


def test_a_kl_term_holds_the_stream_near_its_base_and_its_figures_are_logged_as_means(
    bench: Bench, settings: Make
) -> None:
    drift = {}
    for weight in (0.01, 10.0):
        bench.trained(settings(kl_lambda=weight, max_steps=20, logging_steps=4))
        made = [losses(bench, name) for name in ("loss", "ce", "kl")]
        assert [a for a, _, _ in zip(*made, strict=True)] == pytest.approx(
            [ce + weight * kl for _, ce, kl in zip(*made, strict=True)], abs=1e-4
        )
        drift[weight] = made[2][-1]
    assert drift[10.0] < drift[0.01] / 1.5


def test_temperature_direction_and_tokens_of_the_kl_term_arrive(settings: Make) -> None:
    """A11."""
    method = kinds.method("sft")
    held = {"kl_lambda": 0.5, "kl_tau": 2.0, "kl_direction": "reverse", "kl_on": "all"}
    assert method.loss(settings(**held)) == Regularised(0.5, 2.0, reverse=True, everywhere=True)
    assert method.loss(settings(kl_lambda=0.5)) == Regularised(0.5)
    assert method.loss(settings(loss="asft")) == Regularised(0.05, weighted=True)


def test_asft_is_dft_with_the_kl_term_of_its_authors(bench: Bench, settings: Make) -> None:
    bench.trained(settings(loss="asft", max_steps=5))
    named = losses(bench), losses(bench, "ce"), losses(bench, "kl")
    bench.trained(settings(loss="dft", kl_lambda=0.05, max_steps=5))
    assert named == (losses(bench), losses(bench, "ce"), losses(bench, "kl"))


def test_a_base_that_the_shared_engine_cannot_take_is_refused_and_not_trained_without_the_term(
    bench: Bench, settings: Make, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(shared, "unfusable", lambda model, **_: "it is a mixture of experts")
    assert engines_of(settings(kl_lambda=0.1)) == {"shared"}
    with pytest.raises(UserError, match="mixture of experts; leave out what the shared engine alone has"):
        bench.trained(settings(kl_lambda=0.1))
