from __future__ import annotations

import re
import weakref
from dataclasses import replace

import pytest
import torch

from tests.trainer.loop import decoders
from tests.trainer.loop.recipes import FIVE, loop_of, recipe, same
from tests.trainer.loop.test_families import FAMILIES
from trainer.loop.audit import audit
from trainer.loop.batches import Batches


def poisoned_at(step: int, name: str):
    """The stream's next forward pass meets a NaN in its own weights."""

    def at(stream, done) -> None:
        if stream.name == name and done.step == step:
            stream.adapter.parameters()[0].data[0, 0] = torch.nan

    return at


@pytest.mark.parametrize("victim", ["rs", "wide"])
def test_a_stream_that_turns_nan_is_evicted_and_leaves_the_others_bit_equal(victim) -> None:
    healthy, _, expected = loop_of(FIVE)
    healthy.run()
    loop, kept, streams = loop_of(FIVE)
    kept.at = poisoned_at(2, victim)
    loop.run()
    assert kept.failures == {victim: "loss was not finite at step 3"}
    assert set(kept.ends) == set(FIVE) - {victim}
    for name in set(FIVE) - {victim}:
        assert same(streams[name], expected[name]), name
    assert streams[victim].step >= 2


def test_its_weights_are_those_before_the_step_that_failed() -> None:
    loop, kept, streams = loop_of({"small": FIVE["small"], "rs": FIVE["rs"]})
    kept.at = poisoned_at(2, "rs")
    while not kept.failures:
        before = streams["rs"].adapter.state_dict()
        loop.tick()
    after = streams["rs"].adapter.state_dict()
    assert all(torch.equal(before[name], after[name]) or before[name].isnan().any() for name in before)


def test_an_evicted_stream_is_gone_after_the_next_one_joins() -> None:
    loop, kept, _ = loop_of({"small": FIVE["small"], "rs": FIVE["rs"]})
    kept.at = poisoned_at(1, "rs")
    while not kept.failures:
        loop.tick()
    assert [stream.name for stream in loop.streams] == ["small", "rs"]
    loop.add(FIVE["lion"].stream(loop, "late"))
    assert [stream.name for stream in loop.streams] == ["small", "late"]
    loop.run()
    assert set(kept.ends) == {"small", "late"}


class Failing(list):
    """Rows of which some cannot be read, from a time on."""

    broken = False

    def __getitem__(self, index):
        if self.broken:
            raise OSError("the disk is gone")
        return super().__getitem__(index)


def test_a_stream_whose_data_fails_is_evicted_and_leaves_the_others_bit_equal() -> None:
    alike = [replace(row, labels=row.ids) for row in decoders.rows(8, (12, 12))]
    even = Batches(alike, micro_batch_size=2)  # of one length and one number of supervised tokens: the shapes stay
    healthy, _, expected = loop_of({**FIVE, "rs": replace(FIVE["rs"], batches=even)})
    healthy.run()
    rows = Failing(alike)
    failing = Batches(rows, micro_batch_size=2)
    loop, kept, streams = loop_of({**FIVE, "rs": replace(FIVE["rs"], batches=failing)})

    def at(stream, done) -> None:
        rows.broken |= stream.name == "rs" and done.step == 2

    kept.at = at
    loop.run()
    assert kept.failures == {"rs": "the rows of step 3 cannot be read: the disk is gone"}
    for name in set(FIVE) - {"rs"}:
        assert same(streams[name], expected[name]), name


def test_rows_without_a_supervised_token_fail_their_stream() -> None:
    bare = [replace(row, labels=[-100] * len(row.ids)) for row in decoders.rows(4, (5, 9))]
    loop, kept, _ = loop_of({"small": FIVE["small"], "bare": recipe(1, batches=Batches(bare, micro_batch_size=2))})
    loop.run()
    assert kept.failures == {"bare": "the rows of step 1 hold no supervised token"}
    assert kept.ends == {"small": "steps"}


def limited(loop, tokens: int) -> None:
    """A device whose memory holds so many tokens."""
    hidden = loop.head.hidden

    def held(ids):
        if ids.numel() > tokens:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return hidden(ids)

    loop.head.hidden = held


def test_what_memory_does_not_hold_is_split_and_tried_again_without_changing_a_result() -> None:
    free, _, expected = loop_of(FIVE, decoders.decoder(dtype=torch.float64))
    free.run()
    loop, kept, streams = loop_of(FIVE, decoders.decoder(dtype=torch.float64))
    limited(loop, 40)
    loop.run()
    assert kept.splits
    assert kept.splits == sorted(kept.splits, reverse=True)
    assert not kept.failures
    for name, stream in streams.items():
        for mine, other in zip(stream.adapter.parameters(), expected[name].adapter.parameters(), strict=True):
            torch.testing.assert_close(mine, other, rtol=1e-9, atol=1e-12)


def test_what_a_pass_took_is_free_before_smaller_ones_are_tried() -> None:
    loop, kept, _ = loop_of(FIVE)
    held: list[weakref.ref[torch.Tensor]] = []
    hidden = loop.head.hidden

    def too_much(ids):
        states = hidden(ids)
        held.append(weakref.ref(states))
        if len(held) == 1:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return states

    def split(pass_tokens: int) -> None:
        assert held[0]() is None
        kept.splits.append(pass_tokens)

    loop.head.hidden, kept.split = too_much, split
    loop.run()
    assert len(kept.splits) == 1
    assert not kept.failures


def test_only_a_stream_that_does_not_fit_alone_is_blamed() -> None:
    loop, kept, _ = loop_of(
        {"small": FIVE["small"], "long": recipe(4, batches=Batches(decoders.rows(6, (50, 60)), micro_batch_size=2))}
    )
    limited(loop, 40)
    loop.run()
    assert list(kept.failures) == ["long"]
    assert "memory does not hold one row" in kept.failures["long"]
    assert kept.ends == {"small": "steps"}


def test_an_error_of_the_program_is_no_memory_error() -> None:
    loop, _, _ = loop_of({"small": FIVE["small"]})

    def broken(ids):
        raise RuntimeError("a bug")

    loop.head.hidden = broken
    with pytest.raises(RuntimeError, match="a bug"):
        loop.tick()


def test_a_layer_that_never_moves_is_named_and_fails_its_stream() -> None:
    def forgetful(values):
        return torch.optim.AdamW(values[:3] + values[4:], lr=1e-3)  # not q_proj's... B of the second layer adapted

    loop, kept, streams = loop_of({"small": FIVE["small"], "bad": recipe(4, optimizer=forgetful)})
    loop.run()
    name = list(dict(streams["bad"].adapter.named_parameters()))[3]
    assert kept.failures["bad"] == f"{name} has not moved from zero; {name} is 0 times in the optimizer, not once"
    assert kept.ends == {"small": "steps"}


def audited(loop, stream) -> list[str]:
    return audit([stream], loop.streams, loop.layers, loop.head)[stream]


def test_gradients_that_cross_from_one_stream_to_another_are_found() -> None:
    loop, _, streams = loop_of({"small": FIVE["small"], "rs": FIVE["rs"]})
    loop.tick()
    loop.tick()  # the first step's learning rate is zero
    assert audited(loop, streams["rs"]) == []
    layer = loop.layers.stacked["model.layers.1.mlp.down_proj"]
    base = layer.base.forward
    layer.base.forward = lambda x: (
        base(x) + x.sum(0, keepdim=True).mean(2, keepdim=True)
    )  # rows mixed, as a router's capacity would
    assert any(
        "gives a gradient to small" in fault or "give a gradient to small" in fault
        for fault in audited(loop, streams["rs"])
    )


def backward_passes(loop) -> list[int]:
    """Grows by one with each."""
    passes, backward = [], loop.head.backward
    loop.head.backward = lambda *given: (passes.append(1), backward(*given))
    return passes


@pytest.mark.parametrize("family", FAMILIES)
def test_many_streams_are_audited_in_few_passes_and_each_is_its_own(family) -> None:
    nine = {f"s{at}": recipe(at % 5, seed=at, recompute=False, steps=9) for at in range(9)}
    loop, kept, streams = loop_of(nine, decoders.decoder(family))
    for _ in range(4):  # two steps of those that accumulate: the first one's learning rate is zero
        loop.tick()
    assert not kept.failures
    passes = backward_passes(loop)
    assert audit(loop.streams, loop.streams, loop.layers, loop.head) == {stream: [] for stream in streams.values()}
    assert len(passes) == 5, "all rows alike, and two for each of the two digits of nine numbers"


def test_streams_that_mix_rows_are_each_told_whom_they_give_a_gradient() -> None:
    loop, _, streams = loop_of({name: FIVE[name] for name in ("small", "rs", "lion")})
    loop.tick()
    loop.tick()
    attention = loop.layers.stacked["model.layers.1.self_attn.v_proj"]
    base, slots = attention.base.forward, [loop.streams.index(streams[name]) for name in ("small", "rs")]

    def mixed(x):
        out = base(x)
        first, second = (len(x) // 3 * slot for slot in slots)
        return torch.cat([out[:second], out[second : second + 1] + x[first : first + 1].mean(), out[second + 1 :]])

    attention.base.forward = mixed
    passes = backward_passes(loop)
    found = audit(loop.streams, loop.streams, loop.layers, loop.head)
    assert len(passes) == 2 + 3, "two that show it, and one for each stream that shows whose it is"
    giving = {
        stream.name: [fault for fault in faults if "give a gradient" in fault] for stream, faults in found.items()
    }
    assert {name for name, faults in giving.items() if faults} == {"rs"}
    assert all(fault.endswith(": rs's rows give a gradient to small") for fault in giving["rs"])


def test_the_audit_leaves_no_trace() -> None:
    loop, _, streams = loop_of(FIVE)
    loop.tick()
    before = [value.grad.clone() for stream in loop.streams for value in stream.adapter.parameters()]
    audited(loop, streams["rs"])
    after = [value.grad for stream in loop.streams for value in stream.adapter.parameters()]
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))
    loop.tick()
    assert any(value.grad.any() for value in streams["lion"].adapter.parameters()) or streams["lion"].step


def test_weights_that_a_rate_has_blown_up_are_named_as_that() -> None:
    loop, kept, _ = loop_of(
        {"small": replace(FIVE["small"], optimizer=lambda values: torch.optim.SGD(values, lr=1e12))}
    )
    loop.run()
    assert re.fullmatch(
        r"the adapter's weights grew to \de\+\d\d at step \d|.* was not finite at step \d", kept.failures["small"]
    )
