"""Issue 17: modes that act. An adapter for each task in multi, snapshots in mirror, ranks in use (U01, U02, U18, U20, U23)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig
from peft.utils.merge_utils import ties as ties_of_peft

from swarm.errors import UserError
from tests.trainer.loop import decoders
from tests.trainer.loop.recipes import Kept, loop_of, recipe, same
from trainer.loop import folder
from trainer.loop.batches import Batches
from trainer.loop.boundary import Boundary
from trainer.loop.clones import conflict, merged_state, ties
from trainer.loop.loop import Loop
from trainer.loop.modes import Acts, Modes
from trainer.loop.parts import Controller, Stepped
from trainer.loop.ranks import Ranks, SteeredRanks
from trainer.loop.recipe import Recipe
from trainer.loop.schedules import NamedSchedule
from trainer.loop.stream import Stream
from trainer.orbital import OrbitalController
from trainer.unified import MIRROR, MULTI, SINGLE, UnifiedController

THRESHOLDS = {SINGLE: (0.98, 0.99), MULTI: (0.001, 0.99), MIRROR: (0.0005, 0.001)}
"""Whatever the loss is, phi lies in this mode."""
TASKS = ("left", "right")


def go_to(stream: Stream, mode: int) -> None:
    [found] = stream.controllers
    controller = found.controller
    controller.theta0, controller.theta1 = THRESHOLDS[mode]


def ranks_of(stream: Stream) -> Ranks:
    [found] = stream.controllers
    assert isinstance(found, SteeredRanks)
    return found.ranks


def modes_of(stream: Stream) -> Modes:
    [found] = stream.controllers
    assert isinstance(found, Modes)
    return found


@dataclass(frozen=True)
class Shares:
    """Of ranks, by mode."""

    of: tuple[float, ...] = (1.0, 0.5, 0.25)
    rescale: bool = False


def steered(does: Acts | Shares) -> Controller:
    thresholds = dict(zip(("theta0", "theta1"), THRESHOLDS[SINGLE], strict=True))
    controller = UnifiedController(
        alpha=1.0, beta=0.0, lr_single=1.0, lr_multi=1.0, lr_mirror=1.0, mode=SINGLE, **thresholds
    )
    if isinstance(does, Shares):
        return SteeredRanks(controller, does.of, rescale=does.rescale)
    return Modes(controller, does)


def tasked(does: Acts | Shares, *, steps: int = 8, tasks: tuple[str, ...] = TASKS, number: int = 0, **changes: Any):
    rows = [replace(row, task=tasks[at % len(tasks)]) for at, row in enumerate(decoders.rows(16, (6, 10), seed=3))]
    return recipe(
        number,
        batches=Batches(rows, micro_batch_size=4, seed=1),
        steps=steps,
        controllers=lambda: [steered(does)],
        held_out=decoders.rows(6, (6, 10), seed=9),
        **changes,
    )  # fmt: skip


def trained(acts: Acts | Shares, course: dict[int, int], **given: Any) -> tuple[Loop, Kept, Stream]:
    """A stream whose mode is changed after the steps of `course`."""
    loop, kept, streams = loop_of({"one": tasked(acts, **given)}, exact=True)
    kept.at = lambda stream, step: go_to(stream, course[step.step]) if step.step in course else None
    loop.run()
    return loop, kept, streams["one"]


# ---- conflict ----


def adapters(*changes: torch.Tensor):
    loop = Loop(decoders.decoder())
    found = [loop.adapter(LoraConfig(r=4, lora_alpha=8, target_modules="all-linear")) for _ in changes]
    for adapter, change in zip(found, changes, strict=True):
        for pair in adapter.pairs.values():
            pair.b.data.copy_(change[:, None].expand_as(pair.b) * torch.linspace(1, 2, pair.b.shape[1]))
    return found


def test_conflict_is_nought_for_equal_adapters_and_near_one_for_opposite_ones() -> None:
    """U02: three that are equal, two that are orthogonal, two that are opposite, and untrained ones, which add nothing."""
    x, y = torch.tensor([1.0, 0, 0, 0]), torch.tensor([0, 1.0, 0, 0])
    assert conflict(adapters(x, x, x)) == pytest.approx(0, abs=1e-6)
    assert conflict(adapters(x, -x)) == pytest.approx(1, abs=1e-6)
    assert conflict(adapters(x * 0, x * 0)) == 0
    found = adapters(x, y)  # two rows of one A that are nearly orthogonal
    assert 0.3 < conflict(found) < 0.7


def test_conflict_by_gram_terms_is_that_of_whole_matrices() -> None:
    """U02."""
    torch.manual_seed(5)
    found = adapters(torch.randn(4), torch.randn(4), torch.randn(4))
    whole = torch.stack(
        [
            torch.cat([(pair.scale * pair.b.T @ pair.a).detach().flatten() for pair in each.pairs.values()])
            for each in found
        ]
    ).double()
    expected = 1 - whole.mean(0).square().sum() / whole.square().sum(1).mean()
    assert conflict(found) == pytest.approx(float(expected), abs=1e-6)


# ---- multi ----


def test_clones_do_not_change_the_function_and_go_on_with_the_optimizers_state() -> None:
    """U01: the losses after the change are those without clones, at once exactly and for a single task for good."""
    _, alone, _ = trained(Acts(), {})
    _, cloned, _ = trained(Acts(merge="mean"), {3: MULTI})
    assert cloned.losses("one")[:5] == pytest.approx(alone.losses("one")[:5], abs=1e-6)
    assert cloned.losses("one")[5:] != pytest.approx(alone.losses("one")[5:], abs=1e-6)
    assert [step.events for step in cloned.steps["one"] if step.events] == [
        ["single -> multi: phi is 0.819", "an adapter for each of 2 tasks: left, right"]
    ]


def test_a_task_without_rows_in_a_step_keeps_its_adapter_as_it_was() -> None:
    """U01: rows go to the adapter of their own task."""
    loop, kept, streams = loop_of({"one": tasked(Acts(merge="mean"), steps=2)})
    stream = streams["one"]
    go_to(stream, MULTI)
    loop.tick()
    assert list(stream.clones) == ["left", "right"]
    stream.batches.rows = [replace(row, task="left") for row in stream.batches.rows]
    before = {task: clone.adapter.state_dict() for task, clone in stream.clones.items()}
    loop.tick()
    moved = {
        task: any(not torch.equal(value, before[task][name]) for name, value in clone.adapter.state_dict().items())
        for task, clone in stream.clones.items()
    }
    assert moved == {"left": True, "right": False}
    assert kept.steps["one"][-1].figures["conflict"] > 0


@pytest.mark.parametrize("number", [0, 2])
def test_left_again_the_clones_are_merged_and_what_is_saved_meanwhile_is_the_merged_adapter(number: int) -> None:
    """U01: LoRA and DoRA; the mean of what the tasks have trained is judged, saved, and trained on."""
    loop, _, streams = loop_of({"one": tasked(Acts(merge="mean"), number=number)})
    stream = streams["one"]
    go_to(stream, MULTI)
    for _ in range(3):
        loop.tick()
    clones = [clone.adapter.state_dict() for clone in stream.clones.values()]
    mean = {name: torch.stack([each[name] for each in clones]).mean(0) for name in clones[0]}
    state = stream.state_dict()
    assert all(torch.allclose(state["adapter"][name], value) for name, value in mean.items())
    left = list(stream.clones.values())
    go_to(stream, SINGLE)
    loop.tick()
    assert not stream.clones and len(loop.slots) == 1
    mean_of = merged_state([clone.optimizer.state_dict() for clone in left])["state"][0]["exp_avg"]
    assert torch.equal(stream.state_dict()["optimizer"]["state"][0]["exp_avg"], mean_of)
    loop.run()
    assert stream.step == 8


def test_ties_is_that_of_peft() -> None:
    torch.manual_seed(0)
    changes = torch.randn(3, 10, 20)
    assert torch.allclose(ties(changes, 0.3), ties_of_peft(list(changes), torch.ones(3), 0.3), atol=1e-6)


def test_the_optimizer_goes_on_with_the_mean_of_moments_and_the_longest_count() -> None:
    states = [
        {"param_groups": [], "state": {0: {"step": torch.tensor(n), "exp_avg": torch.tensor([n, 1.0])}}} for n in (2.0, 4.0)
    ]  # fmt: skip
    merged = merged_state(states)["state"][0]
    assert merged["step"] == 4 and merged["exp_avg"].tolist() == [3, 1]


def test_best_keeps_the_task_whose_adapter_is_best_on_the_anchor_rows() -> None:
    loop, _, streams = loop_of({"one": tasked(Acts(merge="best", anchor_rows=6, anchor_steps=2))})
    stream = streams["one"]
    go_to(stream, MULTI)
    for _ in range(4):
        loop.tick()
    losses = [stream.look(stream.held_out, clone.adapter) for clone in stream.clones.values()]
    best = list(stream.clones.values())[losses.index(min(losses))].adapter.state_dict()
    go_to(stream, SINGLE)
    stream.settle()
    assert all(torch.equal(best[name], value) for name, value in stream.adapter.state_dict().items())


def test_rows_of_one_task_alone_are_refused() -> None:
    with pytest.raises(UserError, match="the rows are of 1 tasks"):
        loop_of({"one": tasked(Acts(merge="mean"), tasks=("only",))})


def test_anchor_rows_without_held_out_rows_are_refused() -> None:
    with pytest.raises(UserError, match="no rows are held out"):
        loop_of({"one": replace(tasked(Acts(anchor_rows=4)), held_out=[])})


# ---- mirror ----


def test_mirror_restores_the_best_snapshot_where_the_anchor_loss_got_worse() -> None:
    """U20: weights and moments are those of the snapshot to the bit; the steps go on."""
    acts, schedule = Acts(anchor_rows=8, anchor_steps=2), NamedSchedule("constant", steps=25)
    one = tasked(acts, steps=25, schedule=schedule, optimizer=lambda values: torch.optim.AdamW(values, lr=0.02))
    loop, kept, streams = loop_of({"one": replace(one, held_out=one.batches.rows)})
    stream = streams["one"]
    for _ in range(20):
        loop.tick()
    go_to(stream, MIRROR)
    loop.tick()
    best = min(modes_of(stream)._ring, key=lambda kept: kept["loss"])
    for group in stream.optimizer.param_groups:
        group["initial_lr"] = 3.0  # ruins it
    loop.tick()
    for group in stream.optimizer.param_groups:
        group["initial_lr"] = 0.0
    anchors = modes_of(stream).rows
    ruined = stream.look(anchors, stream.adapter)
    taken = modes_of(stream).state_dict()  # as a checkpoint is: another thread may still be writing it
    anchor = dict(taken["anchor"])
    go_to(stream, SINGLE)
    loop.tick()
    assert taken["anchor"] == anchor
    assert all(torch.equal(a, b) for a, b in zip(stream.adapter.parameters(), best["adapter"], strict=True))
    moments = stream.state_dict()["optimizer"]["state"][0]["exp_avg"]
    assert torch.equal(moments, best["optimizer"]["state"][0]["exp_avg"]) and stream.step == 23
    assert kept.steps["one"][-1].events[-1].startswith(f"restored step {best['step']}: anchor loss ")
    assert stream.look(anchors, stream.adapter) == pytest.approx(best["loss"], rel=1e-4)
    assert best["loss"] < ruined


def test_mirror_keeps_what_got_no_worse() -> None:
    """U20: within rho, of an optimizer that climbs."""
    found = []
    for rho in (10.0, 0.0):
        acts = Acts(anchor_rows=6, anchor_steps=2, rho=rho)
        climbs = {"optimizer": lambda values: torch.optim.AdamW(values, lr=1e-3, maximize=True)}
        _, kept, _ = trained(acts, {3: MIRROR, 5: SINGLE}, **climbs)
        found.append(kept.steps["one"][5].events[-1].partition(" ")[0])
    assert found == ["kept:", "restored"]


def test_the_pull_leads_back_to_the_snapshot() -> None:
    """U20: with nearly the whole way in each step it stays there."""
    _, _, free = trained(Acts(anchor_rows=6, anchor_steps=2), {3: MIRROR})
    _, _, pulled = trained(Acts(anchor_rows=6, anchor_steps=2, pull=0.999), {3: MIRROR})
    start = min(modes_of(pulled)._ring, key=lambda kept: kept["loss"])["adapter"]

    def far(stream: Stream) -> float:
        return sum(float((a.detach() - b).norm()) for a, b in zip(stream.adapter.parameters(), start, strict=True))

    assert far(pulled) < 0.02 * far(free)


def test_stability_falls_with_the_anchor_loss() -> None:
    """U02: S is 1 / (1 + A / A_best - 1)."""
    _, kept, _ = trained(Acts(anchor_rows=6, anchor_steps=1), {})
    losses = [step.figures["anchor_loss"] for step in kept.steps["one"]]
    for at, step in enumerate(kept.steps["one"]):
        assert step.figures["stability"] == pytest.approx(min(losses[: at + 1]) / losses[at])


# ---- ranks ----


def test_ranks_are_a_leading_slice_and_come_back_as_they_were() -> None:
    """U18, U23: half the ranks in multi; those that rest keep their weights."""
    loop, kept, streams = loop_of({"one": tasked(Shares())})
    stream = streams["one"]
    loop.tick()
    loop.tick()
    pair = next(iter(stream.adapter.pairs.values()))
    before = pair.a.detach().clone()
    go_to(stream, MULTI)
    loop.tick()
    stepped = ranks_of(stream).aside[0][0]
    loop.tick()
    assert not pair.a[2:].any() and not pair.b[2:].any() and pair.a[:2].any()
    assert kept.steps["one"][-1].figures["active_rank"] == 2
    assert kept.steps["one"][-1].figures["learning_rate"] == pytest.approx(stream.schedule(3) * 1e-3)
    go_to(stream, SINGLE)
    loop.tick()
    assert torch.equal(pair.a[2:], stepped) and torch.allclose(pair.a[2:], before[2:], atol=0.01)


def test_rescaled_ranks_count_for_more_as_in_the_source() -> None:
    """U18: half the ranks, twice the scale."""
    found = []
    for rescale in (False, True):
        loop, _, streams = loop_of({"one": tasked(Shares(rescale=rescale))})
        loop.tick()
        go_to(streams["one"], MULTI)
        loop.tick()
        found.append(next(iter(streams["one"].adapter.pairs.values())).b.detach().clone())
    assert torch.allclose(found[1][:2], 2 * found[0][:2])


# ---- going on ----

STEADY = NamedSchedule("constant", steps=8)
STATES = {"warmup": 1, "every": 1, "dwell": 0, "stress": 0.0, "recovery": 0.0}
"""Every phi above the mean of all leads towards low, and every one below it towards high."""
COURSES: dict[str, tuple[Acts | Shares, dict[int, int], int]] = {
    "ties": (Acts(merge="ties", anchor_rows=4, anchor_steps=2), {1: MULTI, 5: MIRROR, 7: SINGLE}, 0),
    "mean of Lion": (Acts(merge="mean"), {1: MULTI, 6: SINGLE}, 1),
    "mean of DoRA": (Acts(merge="mean", anchor_rows=4, anchor_steps=3), {2: MULTI}, 2),
    "best": (Acts(merge="best", anchor_rows=4, anchor_steps=2), {1: MULTI, 7: SINGLE}, 4),
    "mirror": (Acts(anchor_rows=4, anchor_steps=2, rho=0.0, pull=0.1), {2: MIRROR, 6: SINGLE}, 0),
    "mirror of DoRA": (Acts(anchor_rows=4, anchor_steps=2, snapshots=1), {3: MIRROR, 6: SINGLE}, 3),
    "ranks": (Shares(), {1: MULTI, 5: SINGLE}, 0),
    "ranks of DoRA": (Shares(rescale=True), {2: MIRROR, 6: MULTI}, 2),
}
"""What the modes do, which one begins after which steps, and the kind of stream."""


def killed_and_resumed(of: Recipe, course: dict[int, int], folder_of_it: Path) -> Stream:
    """One that is saved after four of eight steps, and goes on in another loop beside another stream."""

    def led(stream: Stream, step: Stepped) -> None:
        if stream.name == "one" and step.step in course:
            go_to(stream, course[step.step])

    def until_saved(stream: Stream, step: Stepped) -> str | None:
        led(stream, step)
        if step.step == 4:
            folder.write(stream, folder_of_it)
        return "killed" if step.step == 4 else None

    loop, kept, _ = loop_of({"one": of}, exact=True)
    kept.at = until_saved
    loop.run()
    again, kept, _ = loop_of({}, exact=True)
    one = of.stream(again, "one")
    for step in range(1, 5):
        if step in course:
            go_to(one, course[step])
    folder.read(one, folder_of_it)
    again.add(one, recipe(1).stream(again, "other"))
    kept.at = led
    again.run()
    assert one.step == 8
    return one


@pytest.mark.parametrize("name", COURSES)
def test_it_goes_on_from_a_folder_bit_for_bit_alone_and_beside_others(name: str, tmp_path: Path) -> None:
    """U01, U18, U20: saved in the midst of a mode."""
    acts, course, number = COURSES[name]
    kind = {"number": number, "schedule": STEADY}
    _, _, through = trained(acts, course, **kind)
    assert same(killed_and_resumed(tasked(acts, **kind), course, tmp_path), through)


@pytest.mark.parametrize("shares", [(1.0, 0.5, 0.25), (1.0, 1.0, 0.5)])
def test_an_orbital_controller_goes_on_from_a_folder_bit_for_bit(shares: tuple[float, ...], tmp_path: Path) -> None:
    """U19: beside another stream, whatever state it is in."""
    of = recipe(2, steps=8, schedule=STEADY, controllers=lambda: [SteeredRanks(OrbitalController(**STATES), shares)])
    loop, kept, streams = loop_of({"one": of}, exact=True)
    loop.run()
    assert len({step.figures["mode"] for step in kept.steps["one"]}) > 1
    assert same(killed_and_resumed(of, {}, tmp_path), streams["one"])


def test_ranks_that_rest_from_the_first_step_on_keep_what_the_stream_begins_with() -> None:
    """U19: weights that a stream takes over from another one are read after it was made."""
    loop = Loop(decoders.decoder(), Boundary())
    stream = recipe(0, controllers=lambda: [SteeredRanks(OrbitalController(), (1.0, 0.5, 0.25))]).stream(loop, "one")
    pair = next(iter(stream.adapter.pairs.values()))
    with torch.no_grad():
        pair.b.fill_(0.5)
    loop.add(stream)
    loop.tick()
    assert not pair.b[2:].any()
    assert torch.equal(ranks_of(stream).aside[0][1], torch.full_like(pair.b[2:], 0.5))
