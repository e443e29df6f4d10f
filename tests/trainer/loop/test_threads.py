"""Passes of different streams are computed at once, each on its own core, and give what they give one after another."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch

from tests.trainer.loop import decoders
from tests.trainer.loop.recipes import FIVE, Kept, loop_of, same
from tests.trainer.loop.test_families import FAMILIES
from trainer.engines.arrangement import TOGETHER, Way, ways
from trainer.loop.loop import Loop
from trainer.loop.stream import Stream
from trainer.loop.threads import Threads, may_compute_at_once

pytestmark = [pytest.mark.filterwarnings("ignore:`parallel_attn`"), pytest.mark.usefixtures("cores")]
WITHOUT_RECOMPUTING = {name: replace(recipe, recompute=False, steps=3) for name, recipe in FIVE.items()}
"""They end at once: the last one that trains has all cores again."""


def trained(
    way: Way, base: Any = None, cores: int = 2, only: Sequence[str] = tuple(FIVE)
) -> tuple[dict[str, Stream], Kept]:
    torch.set_num_threads(cores)
    loop, kept, streams = loop_of({name: WITHOUT_RECOMPUTING[name] for name in only}, base)
    way.taken(loop)
    loop.run()
    return streams, kept


def test_streams_that_are_computed_two_at_a_time_end_as_one_after_another_on_one_core() -> None:
    at_once, kept = trained(Way(exact=True, threads=2))
    expected, other = trained(Way(exact=True), cores=1)
    assert kept.ends == other.ends
    for name, stream in at_once.items():
        assert same(stream, expected[name]), name
        assert kept.losses(name) == other.losses(name)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_family_goes_through_its_passes_on_several_threads_as_on_one(family: str) -> None:
    two = {"only": ("lion", "wide")}
    at_once, _ = trained(Way(exact=True, threads=2), decoders.decoder(family), **two)
    expected, _ = trained(Way(exact=True), decoders.decoder(family), cores=1, **two)
    assert all(same(stream, expected[name]) for name, stream in at_once.items())


def test_groups_that_are_computed_at_once_give_the_same_bits_each_time_and_are_within_rounding_of_one_pass() -> None:
    groups, kept = trained(Way(exact=False, threads=2))
    again, _ = trained(Way(exact=False, threads=2))
    _, together = trained(TOGETHER)
    for name, stream in groups.items():
        assert same(stream, again[name]), name
        assert kept.losses(name) == pytest.approx(together.losses(name), rel=2e-5)


def test_a_pass_that_memory_does_not_hold_is_split_while_others_are_computed() -> None:
    expected, _ = trained(Way(exact=True), cores=1)
    torch.set_num_threads(2)
    loop, kept, streams = loop_of(WITHOUT_RECOMPUTING)
    Way(exact=True, threads=2).taken(loop)
    compute, failed = loop._compute, threading.Event()

    def limited(rows, sums, padded) -> None:
        if streams["rs"].step == 1 and rows[0].slot == loop.slots_of(streams["rs"])[0] and not failed.is_set():
            failed.set()
            raise MemoryError
        compute(rows, sums, padded)

    loop._compute = limited  # type: ignore[method-assign]
    loop.run()
    assert kept.ends == dict.fromkeys(FIVE, "steps") and not kept.failures
    assert len(kept.splits) == 1
    for name, stream in streams.items():
        for mine, other in zip(stream.adapter.parameters(), expected[name].adapter.parameters(), strict=True):
            torch.testing.assert_close(mine, other, rtol=1e-3, atol=1e-5)


def test_an_error_is_raised_once_nothing_is_computed_any_more() -> None:
    begun, ended = threading.Barrier(2), threading.Event()

    def compute(group: str) -> None:
        begun.wait(30)  # both are at it
        if group == "bad":
            raise ValueError("a bug")
        time.sleep(0.2)
        ended.set()

    with pytest.raises(ValueError, match="a bug"):
        Threads().first(compute, ["bad", "good"], 2)
    assert ended.is_set()


def test_one_core_a_stream_that_recomputes_and_a_base_that_its_passes_change_go_one_after_another() -> None:
    loop, _, streams = loop_of(WITHOUT_RECOMPUTING)
    assert loop.most_threads == 2
    assert ways(loop) == [TOGETHER, Way(exact=False, threads=2), Way(exact=True, threads=2)]
    loop.remove(*[stream for name, stream in streams.items() if name not in {"small", "rs"}])
    assert ways(loop) == [TOGETHER, Way(exact=True, threads=2)]
    torch.set_num_threads(1)
    assert ways(loop) == [TOGETHER, Way(exact=True)]
    torch.set_num_threads(2)
    assert loop_of(FIVE)[0].most_threads == 1, "one of them recomputes its activations"
    dynamic = {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 10000.0}
    assert not may_compute_at_once(decoders.decoder(rope_parameters=dynamic))
    assert Loop(decoders.decoder(rope_parameters=dynamic)).most_threads == 1

    class Foreign(type(decoders.decoder())):  # type: ignore[misc]
        """Of somebody else's code."""

    foreign = decoders.decoder()
    foreign.__class__ = Foreign
    assert not may_compute_at_once(foreign)
