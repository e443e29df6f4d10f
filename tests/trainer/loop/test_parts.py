"""Losses, controllers and stops of one's own, and the order of steps that transformers' Trainer has."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import pytest
import torch
from torch.nn.functional import cross_entropy

from swarm import kinds
from tests.trainer.loop import decoders
from tests.trainer.loop.recipes import FIVE, loop_of, same
from trainer.loop import folder
from trainer.loop.batches import Batches
from trainer.loop.certify import certify
from trainer.loop.parts import Controller, Loss, Stop


class Dft(Loss):
    """Probability-weighted likelihood (arXiv 2508.05629): tokens that the model finds unlikely count for less."""

    def __call__(self, tokens):
        nats = cross_entropy(tokens.logits, tokens.targets, reduction="none")
        return nats * (-nats.detach()).exp()


class DriftFromBase(Loss):
    """Reverse KL divergence from the bare base, beside the likelihood."""

    needs_base = True

    def __call__(self, tokens):
        mine, base = tokens.logits.log_softmax(-1), tokens.base.log_softmax(-1)
        return cross_entropy(tokens.logits, tokens.targets, reduction="none") + (mine.exp() * (mine - base)).sum(-1)


@dataclass
class Halved(Controller):
    """Halves the learning rate for good once the loss has risen `patience` times."""

    patience: int = 1
    rises: int = 0
    last: float = field(default=float("inf"))

    def __call__(self, step) -> float:
        self.rises += step.figures["loss"] > self.last
        self.last = step.figures["loss"]
        return 0.5 if self.rises >= self.patience else 1.0

    def state_dict(self):
        return {"rises": self.rises, "last": self.last}

    def load_state_dict(self, state):
        self.rises, self.last = state["rises"], state["last"]


@dataclass
class TokenBudget(Stop):
    tokens: int

    def __call__(self, step):
        return "tokens" if step.figures["tokens"] >= self.tokens else None


def test_a_stream_has_its_own_loss_beside_others_and_goes_as_if_alone() -> None:
    made = []
    for others in ({}, {"wide": FIVE["wide"], "lion": FIVE["lion"]}):
        loop, kept, streams = loop_of({"rs": FIVE["rs"], **others}, decoders.decoder(dtype=torch.float64))
        streams["rs"].loss = Dft()
        loop.run()
        made.append((kept.losses("rs"), streams["rs"].adapter.parameters()))
    assert made[0][0] == pytest.approx(made[1][0], rel=1e-12)
    assert made[0][0][0] < 1  # far below the likelihood's 4.6
    for mine, other in zip(made[0][1], made[1][1], strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-9, atol=1e-13)


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")
def test_losses_that_look_at_the_base_are_certified_beside_one_that_does_not() -> None:
    drift = DriftFromBase()
    recipes = {
        "rs": replace(FIVE["rs"], loss=drift), "lion": replace(FIVE["lion"], loss=Dft()),
        "dora": replace(FIVE["dora"], loss=drift), "small": FIVE["small"],
    }  # fmt: skip
    for certificate in certify(decoders.decoder(dtype=torch.float64), recipes, steps=3):
        assert certificate.holds, certificate


def test_an_untrained_adapter_has_not_drifted_from_the_base() -> None:
    made = []
    for loss in (FIVE["small"].loss, DriftFromBase()):
        loop, kept, _ = loop_of({"small": replace(FIVE["small"], loss=loss, steps=4)})
        loop.run()
        made.append(kept.losses("small"))
    assert made[0][0] == pytest.approx(made[1][0], rel=1e-6)
    assert made[1][3] > made[0][3]


def test_a_controller_scales_the_learning_rate_from_the_next_step_on() -> None:
    loop, kept, streams = loop_of({"small": replace(FIVE["small"], controllers=lambda: [Halved()])})
    free = [streams["small"].schedule(step) * 1e-3 for step in range(7)]
    loop.run()
    rates = [step.figures["learning_rate"] for step in kept.steps["small"]]
    losses = kept.losses("small")
    risen = next(at for at in range(1, 7) if losses[at] > losses[at - 1])
    assert rates == pytest.approx([rate if at <= risen else rate / 2 for at, rate in enumerate(free)])


def test_a_stop_ends_its_stream_and_says_why() -> None:
    loop, kept, streams = loop_of({"small": FIVE["small"], "rs": replace(FIVE["rs"], stops=lambda: [TokenBudget(100)])})
    loop.run()
    assert kept.ends == {"small": "steps", "rs": "tokens"}
    assert streams["rs"].tokens >= 100 > streams["rs"].tokens - 34


def test_controllers_and_stops_go_on_from_where_they_were(tmp_path) -> None:
    def made():
        parts = {"controllers": lambda: [Halved()], "stops": lambda: [TokenBudget(70)]}
        loop, kept, streams = loop_of({"small": replace(FIVE["small"], steps=12, **parts)})
        return loop, kept, streams["small"]

    loop, kept, through = made()
    kept.at = lambda stream, step: folder.write(stream, tmp_path) if step.step == 5 else None
    loop.run()
    again, _, resumed = made()
    folder.read(resumed, tmp_path)
    again.run()
    assert resumed.step == through.step < 12
    assert resumed.factors == through.factors
    assert same(resumed, through)


def test_the_order_of_rows_is_that_of_accelerates_sampler() -> None:
    from accelerate.data_loader import SeedableRandomSampler

    rows = decoders.rows(11, (4, 6))
    batches = Batches(rows, micro_batch_size=2, accumulation=2, seed=5)
    sampler = SeedableRandomSampler(range(11), data_seed=5)
    for epoch in range(2):
        theirs = [rows[index] for index in sampler]
        mine = [row for step in range(3) for part in batches.of_step(3 * epoch + step) for row in part]
        assert mine == theirs
    assert [[len(part) for part in batches.of_step(step)] for step in range(3)] == [[2, 2], [2, 2], [2, 1]]


@pytest.mark.filterwarnings("ignore:Paged optimizers are not supported on CPU")
@pytest.mark.parametrize("name", sorted(kinds.installed("optimizer")))
def test_every_optimizer_of_the_product_steps_the_tensors_that_the_layers_compute_with(name) -> None:
    kind = kinds.optimizer(name)
    made, arguments = kind.made_of(kind.settings())
    recipe = replace(FIVE["rs"], optimizer=lambda values: made(values, lr=1e-3, **arguments))
    loop, kept, streams = loop_of({"small": FIVE["small"], "wide": FIVE["wide"], "rs": recipe})
    loop.run()
    assert not kept.failures
    assert streams["rs"].audits == 1
