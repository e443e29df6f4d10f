"""What a stream of a warm group takes is measured, and is what the process allocates for it."""

from __future__ import annotations

import gc
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from peft import LoraConfig

from swarm.planning.estimate import estimate
from swarm.planning.packing import bytes_of
from swarm.policy.fitting import CPU_PASS_TOKENS
from swarm.settings import StreamSettings
from tests.trainer.company import Company
from tests.trainer.conftest import Bench
from tests.trainer.loop import decoders
from tests.trainer.loop.recipes import FIVE, loop_of
from trainer.data.tokens import Tokens
from trainer.inspection import facts_of_model
from trainer.loop.batches import Batches
from trainer.loop.loop import Loop
from trainer.loop.memory import WARM_STEPS, Meter, Taken, taken
from trainer.loop.recipe import Recipe
from trainer.loop.schedules import NamedSchedule
from trainer.loop.stream import Stream

RANK, LENGTH = 8, 40


def plain(length: int = LENGTH, size: int = 2, **adapter: object) -> Recipe:
    row = Tokens(list(range(3, 3 + length)), list(range(3, 3 + length)), 0)
    config = LoraConfig(task_type="CAUSAL_LM", target_modules="all-linear", r=RANK, lora_alpha=16, **adapter)
    return Recipe(
        config=config, optimizer=lambda values: torch.optim.AdamW(values, lr=1e-3), steps=1000,
        batches=Batches([row] * 8, micro_batch_size=size), schedule=NamedSchedule("constant", steps=1),
    )  # fmt: skip


def warm(recipes: dict[str, Recipe]) -> tuple[Loop, dict[str, Stream]]:
    loop, _, streams = loop_of(recipes)
    for _ in range(WARM_STEPS):
        loop.tick()
    return loop, streams


def measured(loop: Loop, streams: dict[str, Stream]) -> dict[str, Taken]:
    meter = Meter(torch.device("cpu"))
    assert loop.tick(meter)
    found = taken(loop, meter.bytes)
    return {name: found[stream] for name, stream in streams.items()}


def all_tensors_bytes() -> int:
    """Of every storage that Python holds."""
    gc.collect()
    tensors = [value for value in gc.get_objects() if type(value) in {torch.Tensor, torch.nn.Parameter}]
    storages = {value.untyped_storage().data_ptr(): value.untyped_storage().nbytes() for value in tensors}
    gradients = [value.grad for value in tensors if value.grad is not None]
    storages |= {value.untyped_storage().data_ptr(): value.untyped_storage().nbytes() for value in gradients}
    return sum(storages.values())


@pytest.mark.parametrize("adapter", [{}, {"use_dora": True}], ids=str)
def test_what_streams_keep_is_what_the_process_holds_more_with_them(adapter: dict[str, object]) -> None:
    held = {}
    for count in (1, 3):
        loop, streams = warm({str(number): plain(**adapter) for number in range(count)})
        kept = measured(loop, streams)["0"].kept
        held[count] = all_tensors_bytes()
        loop.layers.remove()
        del loop, streams
    assert (held[3] - held[1]) / 2 == pytest.approx(kept, rel=0.01)


def test_what_passes_is_in_proportion_to_the_tokens_and_what_is_allocated_once_is_nobodys() -> None:
    one = measured(*warm({"a": plain()}))["a"]
    three = measured(*warm({name: plain() for name in "abc"}))
    assert three["a"] == three["b"] == three["c"]
    assert three["a"].passing == pytest.approx(one.passing, rel=0.1)
    mixed = measured(*warm({"short": plain(), "long": plain(size=6)}))
    assert mixed["long"].passing == pytest.approx(3 * mixed["short"].passing, rel=0.01)

    cold, _, streams = loop_of({"a": plain()})
    assert measured(cold, streams)["a"].kept == one.kept, "moments are made by the first step"
    with Meter(torch.device("cpu")) as meter:
        kept = torch.empty(1000, 1000)
        torch.empty(500, 1000)
        torch.empty(250, 1000)
    assert meter.bytes == 4 * 1_500_000
    assert kept.numel()


def test_rows_that_are_shorter_in_the_measured_step_do_not_hide_the_longest_ones() -> None:
    rows = [Tokens([5] * length, [5] * length, 0) for length in (10, 10, 10, 10, 10, 10, 10, 40)]
    ragged = plain()
    batches = Batches(rows, micro_batch_size=2)
    assert batches.most_tokens == 50
    units = Batches(rows, micro_batch_size=1, units=[[0, 1, 2], [3, 7]])
    assert units.most_tokens == 50
    found = measured(*warm({"a": Recipe(**{**vars(ragged), "batches": batches})}))["a"]
    even = measured(*warm({"a": plain(length=25)}))["a"]
    assert found.passing == pytest.approx(even.passing, rel=0.35)


def test_a_large_micro_batch_takes_the_memory_of_a_pass_on_a_cpu() -> None:
    made, row = plain(), Tokens([5] * 100, [5] * 100, 0)
    of = {size: Recipe(**{**vars(made), "batches": Batches([row] * 60, micro_batch_size=size)}) for size in (10, 60)}
    one, six = (measured(*warm({"a": recipe}))["a"] for recipe in of.values())
    assert six.passing == pytest.approx(one.passing * CPU_PASS_TOKENS / 1000, rel=0.05)


@pytest.mark.parametrize(("streams", "rows", "length"), [(1, 1, 128), (4, 2, 64), (3, 8, 256), (2, 1, 1100)])
def test_a_group_on_a_cpu_takes_what_is_predicted_within_a_tenth(streams: int, rows: int, length: int) -> None:
    model = decoders.decoder(
        hidden_size=256, intermediate_size=512, num_attention_heads=4, num_key_value_heads=4, head_dim=64,
        vocab_size=512, max_position_embeddings=2048,
    )  # fmt: skip
    settings = StreamSettings.model_validate(
        {
            "base_model": "-", "datasets": [{"path": "-"}],
            "lora_r": RANK, "lora_dropout": 0, "sequence_len": length, "micro_batch_size": rows,
        }
    )  # fmt: skip
    need = estimate(facts_of_model(model), settings, on_gpu=False, shared=True)
    recipe = plain(1, rows)
    long = Tokens([5] * length, [5] * length, 0)
    group = Recipe(**{**vars(recipe), "batches": Batches([long] * rows, micro_batch_size=rows)})
    loop, _, _ = loop_of({str(number): group for number in range(streams)}, model)
    for _ in range(WARM_STEPS):
        loop.tick()
    meter = Meter(torch.device("cpu"))
    assert loop.tick(meter)
    kept = sum(one.kept for one in taken(loop, meter.bytes).values())
    predicted = bytes_of([need] * streams, streams, cores=1) - need.shared
    assert kept + meter.bytes == pytest.approx(predicted, rel=0.1)


def test_streams_that_differ_in_everything_are_measured_together_with_their_clones_and_optimizers() -> None:
    loop, streams = warm({name: FIVE[name] for name in ("small", "dora", "lion")})
    found = measured(loop, streams)
    assert all(one.kept > 0 and one.passing > 0 for one in found.values())
    slots = {name: one.kept - states(streams[name]) for name, one in found.items()}
    assert len(set(slots.values())) == 1, "slots of a stack are as large as its largest rank"


def states(stream: Stream) -> int:
    return sum(
        value.nbytes
        for state in stream.optimizer.state.values()
        for value in state.values()
        if isinstance(value, torch.Tensor)
    )


def test_a_group_is_measured_where_somebody_waits_once_it_is_warm_and_again_when_another_has_joined(
    tmp_path: Path, settings: Callable[..., StreamSettings]
) -> None:
    bench = Bench(tmp_path)
    bench.do("prepare", settings())
    group, chosen = Company(tmp_path, bench.prepared), settings(engine="shared", max_steps=8)
    group.come("a", chosen)
    group.order("a", "measure")
    seen: dict[str, list[tuple[int, bool]]] = {"a": [], "b": []}

    def at(name: str, step: int) -> None:
        held = group.works[name].lease.held()
        if not seen[name] or seen[name][-1][0] != step:
            seen[name].append((step, held.own_bytes is not None))
        if (name, step) == ("a", 4) and "b" not in group.works:
            group.come("b", settings(engine="shared", max_steps=5, lora_r=4))

    group.at = at
    group.train()
    assert group.errors == {"a": None, "b": None}
    assert next(step for step, known in seen["a"] if known) == WARM_STEPS + 1
    assert next(step for step, known in seen["b"] if known) == WARM_STEPS + 1
    a, b = (group.works[name].lease.held() for name in "ab")
    assert a.kept_bytes is not None and b.kept_bytes is not None
    assert a.kept_bytes > b.kept_bytes > 0, "its moments are of another rank"


def test_a_group_that_nobody_waits_for_is_not_measured_on_a_cpu(
    tmp_path: Path, settings: Callable[..., StreamSettings]
) -> None:
    bench = Bench(tmp_path)
    bench.do("prepare", settings())
    group = Company(tmp_path, bench.prepared)
    group.come("a", settings(engine="shared", max_steps=WARM_STEPS + 2))
    group.train()
    assert group.errors == {"a": None}
    assert group.works["a"].lease.held().own_bytes is None
