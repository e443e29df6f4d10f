"""Equal questions with opposite answers: what one adapter and one adapter for each task make of them, and how far these contradict each other.

The conflict of two adapters W1 = M + D and W2 = M - D is |D|^2 / (|M|^2 + |D|^2): what both tasks have to learn is part of M.  So there are three
cases.  A base that has never answered such questions has to learn which answers there are; one into which an adapter is folded that was trained
on the rows of both tasks knows that, and has to learn to read the question; and where the answer is the same whatever the question, nothing is shared.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from statistics import fmean

import torch
from transformers import AutoTokenizer, PreTrainedModel
from transformers.pytorch_utils import Conv1D

from trainer import bases
from trainer.data.tokens import IGNORED, Tokens
from trainer.loop.adapter import Adapter
from trainer.loop.batches import Batches
from trainer.loop.boundary import Boundary
from trainer.loop.modes import Acts, Modes
from trainer.loop.parts import Controller, Stepped
from trainer.loop.stream import Stream
from trainer.place import Place
from trainer.stress_demo.arms import Run, at_best_rates, load, of_arm, rate_of, recipe, spread, trained
from trainer.unified import MULTI, UnifiedController

STEPS, FORM_STEPS, MICRO_BATCH = 60, 40, 16
QUESTIONS, HELD_OUT = 64, 16
TASKS = ("same", "opposite")
SINGLE, MULTIPLE = ARMS = ("single", "multi")
SEEN = (1, 5, 10, 20, 40, 60)
"""Steps of which the conflict is printed."""
HIGH = 0.8
"""Of a conflict."""
FORM = Run("form", 3e-3, 0)


def rows(base: str, *, read: bool) -> tuple[list[Tokens], list[Tokens]]:
    """To train on, and held out.  The question does not say of which task it is; it decides the answers if it has to be `read`."""
    tokenizer = AutoTokenizer.from_pretrained(bases.folder_of(base))
    draw, made = random.Random(0), []
    for number in range(QUESTIONS + HELD_OUT):
        is_on = draw.random() < 0.5
        question = tokenizer(f"{number} {'on' if is_on else 'off'}:").input_ids
        first = is_on or not read
        for task, is_one in zip(TASKS, (first, not first), strict=True):
            target = tokenizer(" 1" if is_one else " 0", add_special_tokens=False).input_ids[-1]
            labels = [*[IGNORED] * len(question), target]
            made.append(Tokens([*question, target], labels, len(question), task=task))
    return made[: 2 * QUESTIONS], made[2 * QUESTIONS :]


@dataclass
class Learned:
    """Of one stream."""

    conflict: dict[int, float] = field(default_factory=dict)
    """By step, where there are adapters of tasks."""
    losses: tuple[float, ...] = (float("inf"),) * len(TASKS)
    """Held-out loss of each task in the end, by the adapter that learned it; infinite where training failed."""


class Watch(Boundary):
    def __init__(self, held_out: Sequence[Tokens]) -> None:
        self.held_out = held_out
        self.learned: dict[str, Learned] = {}

    def stepped(self, stream: Stream, step: Stepped) -> str | None:
        learned = self.learned.setdefault(stream.name, Learned())
        if "conflict" in step.figures:
            learned.conflict[step.step] = step.figures["conflict"]
        if step.step == stream.steps:
            learned.losses = tuple(self._loss(stream, task) for task in TASKS)
        return None

    def _loss(self, stream: Stream, task: str) -> float:
        assert stream.look is not None, "a stream is stepped by a loop"
        adapter = stream.clones[task].adapter if stream.clones else stream.adapter
        return stream.look([row for row in self.held_out if row.task == task], adapter)


def learn(
    model: PreTrainedModel, train: Sequence[Tokens], held_out: Sequence[Tokens], runs: Sequence[Run]
) -> list[Learned]:
    watch = Watch(held_out)
    recipes = {
        run: recipe(batches_of(train, run), run, STEPS, controllers=partial(controllers, run.arm)) for run in runs
    }
    trained(model, watch, recipes)
    return [watch.learned.get(run.name, Learned()) for run in runs]


def batches_of(train: Sequence[Tokens], run: Run) -> Batches:
    return Batches(train, micro_batch_size=MICRO_BATCH, seed=run.seed)


def controllers(arm: str) -> list[Controller]:
    """Mode multi from the first step to the last, at the scheduled rate."""
    if arm == SINGLE:
        return []
    controller = UnifiedController.preset("glue", lr_multi=1.0, mode=MULTI, theta0=1e-9, theta1=1 - 1e-9, phi=0.5)
    return [Modes(controller, Acts(merge="mean"))]


def teach_form(model: PreTrainedModel, train: Sequence[Tokens]) -> None:
    """One adapter learns both tasks, which is which answers there are, and becomes part of the base."""
    [stream] = trained(model, Boundary(), {FORM: recipe(batches_of(train, FORM), FORM, FORM_STEPS)})
    fold(model, stream.adapter)


@torch.no_grad()
def fold(model: PreTrainedModel, adapter: Adapter) -> None:
    for name, pair in adapter.pairs.items():
        layer = model.get_submodule(name)
        change = pair.scale * pair.b.T @ pair.a  # (out, in)
        weight = layer.get_parameter("weight")
        weight.add_(change.T if isinstance(layer, Conv1D) else change)


def show(base: str, place: Place, seeds: int) -> None:
    model = load(base, place)
    print(
        f"equal questions, opposite answers; {STEPS} steps, {seeds} seeds, each arm at its best rate; mean ± deviation"
    )
    print("loss in nats on questions that were not trained on; a coin's is 0.693")
    show_case("the base as it is", model, rows(base, read=True), seeds)
    teach_form(model, rows(base, read=True)[0])
    show_case("the base knows which answers there are", model, rows(base, read=True), seeds)
    show_case("and each task has one answer, whatever the question", model, rows(base, read=False), seeds)


def show_case(title: str, model: PreTrainedModel, of: tuple[list[Tokens], list[Tokens]], seeds: int) -> None:
    train, held_out = of
    found = at_best_rates(
        ARMS, seeds, lambda runs: learn(model, train, held_out, runs), lambda learned: sum(learned.losses)
    )
    print(f"\n{title}\n{'arm':8} {'rate':>7} " + " ".join(f"{task:>15}" for task in TASKS))
    for arm in ARMS:
        cells = zip(*(learned.losses for learned in of_arm(found, arm)), strict=True)
        print(f"{arm:8} {rate_of(found, arm):>7g} " + " ".join(f"{spread(cell):>15}" for cell in cells))
    show_conflict([learned.conflict for learned in of_arm(found, MULTIPLE) if learned.conflict])
    means = {arm: [fmean(learned.losses) for learned in of_arm(found, arm)] for arm in ARMS}
    better = sum(multi < single for single, multi in zip(means[SINGLE], means[MULTIPLE], strict=True))
    lowest = min(ARMS, key=lambda arm: fmean(means[arm]))
    print(f"lowest mean loss of both tasks: {lowest} (multi beats single in {better} of {seeds} seeds)")


def show_conflict(courses: Sequence[Mapping[int, float]]) -> None:
    """Of each seed whose training did not fail, by step."""
    if not courses:
        return
    at = [f"{spread([course[step] for course in courses], 2)} at step {step}" for step in SEEN if step in courses[0]]
    tops = [max(course.values()) for course in courses]
    high = sum(top > HIGH for top in tops)
    print(f"conflict: {', '.join(at)}; at most {spread(tops, 2)}: above {HIGH:g} in {high} of {len(tops)} seeds")
