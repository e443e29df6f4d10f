from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import torch
from peft import LoraConfig, get_peft_model

from swarm.errors import UserError
from tests.trainer.loop import decoders
from tests.trainer.loop.recipes import FIVE, loop_of, recipe, same
from trainer.loop.batches import Batches
from trainer.loop.certify import certify
from trainer.loop.loop import Loop
from trainer.loop.plan import Pass, Row

pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_a_new_adapter_has_the_names_and_first_values_that_peft_gives_it(family) -> None:
    config = LoraConfig(task_type="CAUSAL_LM", target_modules="all-linear", r=4, use_dora=True)
    mine = Loop(decoders.decoder(family)).adapter(copy.deepcopy(config), seed=7).state_dict()
    config.fan_in_fan_out = family == "gpt2"
    base = decoders.decoder(family)
    torch.manual_seed(7)
    peft = get_peft_model(base, config)
    theirs = {name.replace(".default", ""): value for name, value in peft.named_parameters() if value.requires_grad}
    theirs = {name.replace("vector.weight", "vector"): value for name, value in theirs.items()}
    assert mine.keys() == theirs.keys()
    for name, value in mine.items():
        assert torch.equal(value, theirs[name]), name


def test_streams_join_and_leave_at_any_tick_and_the_others_are_bit_equal_in_exact_mode() -> None:
    undisturbed, _, alone = loop_of({"dora": FIVE["dora"]}, exact=True)
    undisturbed.run()
    loop, kept, streams = loop_of({"dora": FIVE["dora"], "rs": FIVE["rs"]}, exact=True)
    loop.tick()  # dora is in the middle of nothing, rs too
    late = FIVE["wide"].stream(loop, "late")
    loop.add(late)
    loop.tick()
    loop.remove(streams["rs"])
    loop.tick()
    loop.run()
    assert kept.ends == {"dora": "steps", "late": "steps"}
    assert same(streams["dora"], alone["dora"])
    assert late.step == FIVE["wide"].steps


def test_a_stream_that_joins_does_not_cost_the_others_the_gradient_that_they_have_gathered() -> None:
    accumulating = replace(
        FIVE["small"], batches=Batches(decoders.rows(12, (5, 9)), micro_batch_size=1, accumulation=3)
    )
    undisturbed, _, alone = loop_of({"small": accumulating}, exact=True)
    undisturbed.run()
    loop, _, streams = loop_of({"small": accumulating}, exact=True)
    loop.tick()
    loop.add(FIVE["lion"].stream(loop, "late"))  # after one of three micro-batches
    loop.run()
    assert same(streams["small"], alone["small"])


def test_accumulation_only_splits_the_work_even_with_dropout() -> None:
    rows = decoders.rows(16, (4, 15))
    made = []
    for size, accumulation in ((4, 1), (1, 4), (2, 2)):
        batches = Batches(rows, micro_batch_size=size, accumulation=accumulation, seed=3)
        loop, kept, streams = loop_of(
            {"rs": replace(FIVE["rs"], batches=batches)}, decoders.decoder(dtype=torch.float64)
        )
        loop.run()
        made.append((kept.losses("rs"), streams["rs"].adapter.parameters()))
    for losses, values in made[1:]:
        assert losses == pytest.approx(made[0][0], rel=1e-12)
        for mine, other in zip(values, made[0][1], strict=True):
            torch.testing.assert_close(mine, other, rtol=1e-9, atol=1e-12)


def test_padding_of_rank_stays_zero_and_absent_layers_add_nothing() -> None:
    narrow = recipe(0, targets=["q_proj"])
    loop, _, streams = loop_of({"narrow": narrow, "wide": FIVE["wide"]})
    loop.tick()
    loop.tick()
    query = loop.layers.stacked["model.layers.0.self_attn.q_proj"]
    assert query.a.shape[1] == 32
    assert not query.a[0, 4:].any()
    assert not query.b[0, 4:].any()
    assert query.a[0, :4].all()
    other = loop.layers.stacked["model.layers.0.mlp.up_proj"]
    assert not other.a[0].any()
    assert len(streams["narrow"].adapter.pairs) == 2  # one a layer


def test_gradients_of_a_stream_come_from_its_own_rows_alone() -> None:
    loop, _, _ = loop_of(FIVE)
    row = [5, 6, 7, 8]
    for slot, stream in enumerate(loop.streams):
        current = Pass.of(
            [Row(other, row, row, float(other == slot), key=other) for other in range(5)], torch.device("cpu")
        )
        sums = loop.head.sums([each.loss for each in loop.streams])
        with loop.plan.running(current):
            loop.head.backward(loop.head.hidden(current.ids), current, [each.loss for each in loop.streams], sums)
        for other in loop.streams:
            moved = any(bool(value.grad.any()) for value in other.adapter.parameters())
            assert moved == (other is stream)
            other.zero_gradients()


def test_recomputing_activations_changes_no_bit() -> None:
    made = []
    for recompute in (False, True):
        loop, _, streams = loop_of({"wide": replace(FIVE["wide"], recompute=recompute), "rs": FIVE["rs"]})
        loop.run()
        made.append(streams)
    assert same(made[0]["wide"], made[1]["wide"])
    assert same(made[0]["rs"], made[1]["rs"])


def test_the_head_in_chunks_gives_the_plain_loss_and_gradient() -> None:
    loop, _, _ = loop_of({"small": FIVE["small"]})
    rows = [Row(0, row.ids, row.labels, 0.01) for row in decoders.rows(6, (5, 20))]
    current = Pass.of(rows, torch.device("cpu"))
    sums = torch.zeros(2, 1, 1, dtype=torch.float64)
    gradients = []
    for chunk, total in zip((10**6, 3), sums, strict=True):
        loop.head.chunk_tokens = chunk
        hidden = loop.head.hidden(current.ids).detach().requires_grad_()
        loop.head.backward(hidden, current, [loop.streams[0].loss], total)
        gradients.append(hidden.grad)
    logits = loop.model(input_ids=current.ids, use_cache=False).logits[:, :-1].flatten(0, 1)
    labels = torch.full(current.ids.shape, -100)
    for number, row in enumerate(current.rows):
        labels[number, : len(row.labels)] = torch.tensor(row.labels)
    plain = torch.nn.functional.cross_entropy(logits, labels[:, 1:].flatten(), ignore_index=-100, reduction="sum")
    assert sums.flatten().tolist() == pytest.approx([float(plain)] * 2, rel=1e-6)
    torch.testing.assert_close(gradients[0], gradients[1], rtol=1e-5, atol=1e-8)


def test_layers_have_ranks_and_scales_of_their_own_by_pattern_as_with_peft() -> None:
    """`rank_pattern` and `alpha_pattern` on the shared engine: certified against PEFT, beside a stream without."""
    changed = replace(FIVE["dora"], config=copy.deepcopy(FIVE["dora"].config))
    changed.config.rank_pattern, changed.config.alpha_pattern = {"q_proj": 2, "0.mlp.*": 24}, {"v_proj": 3}
    recipes = {"patterns": changed, "small": FIVE["small"]}
    for certificate in certify(decoders.decoder(dtype=torch.float64), recipes, steps=3):
        assert certificate.holds, certificate
    loop = Loop(decoders.decoder())
    ranks = {name: pair.rank for name, pair in loop.adapter(changed.config).pairs.items()}
    assert ranks["model.layers.1.self_attn.q_proj"] == 2
    assert ranks["model.layers.0.mlp.up_proj"] == 24
    assert ranks["model.layers.1.mlp.up_proj"] == 16


def test_an_adapter_that_changes_the_base_is_refused_with_the_reason() -> None:
    loop = Loop(decoders.decoder())
    with pytest.raises(UserError, match="modules_to_save"):
        loop.adapter(LoraConfig(target_modules="all-linear", modules_to_save=["lm_head"]))
    with pytest.raises(UserError, match="matches no linear layer"):
        loop.adapter(LoraConfig(target_modules=["nowhere"]))


def test_what_is_measured_of_each_of_several_streams_is_that_of_its_adapter_alone() -> None:
    rows = decoders.rows(6, (5, 20), seed=9)
    loop, _, streams = loop_of(FIVE)
    for _ in range(3):
        loop.tick()
    for name, stream in streams.items():
        alone, _, others = loop_of({name: FIVE[name]})
        others[name].adapter.load_state_dict(stream.adapter.state_dict())
        alone.layers.renorm(0)
        expected = alone.held_out(others[name], rows)
        assert loop.held_out(stream, rows) == pytest.approx(expected, rel=1e-5), name
