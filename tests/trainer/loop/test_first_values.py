"""PiSSA and OLoRA beside a base that stays as it is: they train as PEFT's do on a base of their own, and their file fits the base."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import pytest
import torch
from peft import PeftModel, get_peft_model

from swarm.errors import UserError
from tests.trainer.loop import decoders
from tests.trainer.loop.recipes import FIVE, loop_of, same
from trainer.loop import folder
from trainer.loop.certify import _gradient, certify
from trainer.loop.recipe import Recipe

pytestmark = [
    pytest.mark.filterwarnings("ignore::UserWarning"),
    pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning"),
]


def recipe(first: str, **changes: Any) -> Recipe:
    config = copy.deepcopy(FIVE["small"].config)
    config.init_lora_weights = first
    for name, value in changes.items():
        setattr(config, name, value)
    filed = copy.deepcopy(config)
    filed.init_lora_weights, filed.r = True, 2 * config.r
    filed.lora_alpha = config.lora_alpha * (2**0.5 if config.use_rslora else 2)
    return replace(FIVE["small"], config=config, filed=filed, optimizer=lambda values: torch.optim.SGD(values, lr=0.05))


def by_peft(made: Recipe) -> list[float]:
    """Losses of a plain loop over a PeftModel, which takes the product out of its own base."""
    model = decoders.decoder()
    peft = get_peft_model(model.eval(), copy.deepcopy(made.config))
    parameters = [value for value in peft.parameters() if value.requires_grad]
    optimizer = made.optimizer(parameters)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, made.schedule)
    losses = []
    for step in range(made.steps):
        losses.append(_gradient(peft, made, [], step))
        torch.nn.utils.clip_grad_norm_(parameters, made.max_grad_norm or float("inf"))
        optimizer.step()
        scheduler.step()
        optimizer.zero_grad()
    return losses


@pytest.mark.parametrize("changes", [{}, {"use_rslora": True}], ids=["lora", "rslora"])
@pytest.mark.parametrize("first", ["pissa", "olora"])
def test_losses_are_those_of_peft_beside_streams_of_other_kinds(first: str, changes: dict[str, Any]) -> None:
    made = recipe(first, **changes)
    loop, kept, _ = loop_of({"first": made, "rs": FIVE["rs"], "dora": FIVE["dora"]})
    loop.run()
    assert not kept.failures
    assert kept.losses("first") == pytest.approx(by_peft(made), rel=1e-4)
    plain, others, _ = loop_of({"first": FIVE["small"]})
    plain.run()
    assert kept.losses("first")[0] == pytest.approx(others.losses("first")[0], rel=1e-4), "it begins as the base"
    assert kept.losses("first")[-1] != pytest.approx(others.losses("first")[-1], rel=1e-4)


@pytest.mark.parametrize("first", ["pissa", "olora"])
def test_the_file_is_an_ordinary_adapter_of_the_base_as_it_is(first: str, tmp_path: Any) -> None:
    loop, _, streams = loop_of({"first": recipe(first, use_dora=True)})
    loop.run()
    folder.write(streams["first"], tmp_path)
    row = torch.tensor([[5, 6, 7, 8, 9]])
    base = decoders.decoder().eval()
    bare = base(input_ids=row).logits
    trained = PeftModel.from_pretrained(base, str(tmp_path)).eval()
    mine, _, again = loop_of({"first": recipe(first, use_dora=True)})
    folder.read(again["first"], tmp_path)
    assert same(again["first"], streams["first"])
    mine.add()
    from trainer.loop.plan import Pass, Row

    with torch.no_grad(), mine.plan.running(Pass.of([Row(0, row[0].tolist(), row[0].tolist())], row.device)):
        ours = mine.head.logits(mine.head.hidden(row)[0])
    theirs = trained(input_ids=row).logits[0]
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)
    assert (theirs - bare[0]).abs().max() > 1e-3
    assert trained.peft_config["default"].r == 8


def test_a_stream_with_pissa_is_bit_equal_alone_and_in_a_group_and_after_a_resume(tmp_path: Any) -> None:
    made = []
    for others in ({}, {"rs": FIVE["rs"], "dora": FIVE["dora"]}):
        loop, kept, streams = loop_of({"first": recipe("pissa"), **others}, exact=True)
        if not others:
            kept.at = lambda stream, step: folder.write(stream, tmp_path) if step.step == 3 else None
        loop.run()
        made.append(streams["first"])
    loop, _, streams = loop_of({"first": recipe("pissa")}, exact=True)
    folder.read(streams["first"], tmp_path)
    loop.run()
    assert same(made[0], made[1])
    assert same(made[0], streams["first"])


def test_certify_refuses_what_peft_has_no_place_for() -> None:
    with pytest.raises(UserError, match="holds rows that are not trained"):
        certify(decoders.decoder(), {"plain": FIVE["small"], "first": recipe("pissa")})
