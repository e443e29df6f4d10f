"""Answers are shuffled for a while, from a random step on: a fixed rate, a cosine schedule, the controller, and the controller with snapshots."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from statistics import fmean

from transformers import AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from trainer import bases
from trainer.data.tokens import IGNORED, Tokens
from trainer.embedded import demo_data
from trainer.loop.batches import Batches, Tokenised
from trainer.loop.boundary import Boundary
from trainer.loop.modes import Acts, Modes
from trainer.loop.parts import Controller, Stepped
from trainer.loop.recipe import Recipe
from trainer.loop.schedules import NamedSchedule
from trainer.loop.steering import Steering
from trainer.loop.stream import Stream
from trainer.place import Place
from trainer.stress_demo.arms import Run, at_best_rates, load, of_arm, rate_of, recipe, spread, trained
from trainer.unified import MIRROR, UnifiedController

STEPS, MICRO_BATCH, LONGEST = 200, 2, 96
ONSETS, SHOCK_STEPS = (90, 110), 40
WARMUP = 50
"""Steps in which the controller measures the usual loss."""
LOOK_STEPS = 10
"""The held-out loss is measured every so many steps, and that of the anchor rows, which are others."""
ANCHORS, JUDGED = 8, 12
"""Held-out rows of each kind."""
BACK = 1.02
"""Times the held-out loss before the shock: from there on a stream has recovered."""
ARMS = ("fixed", "cosine", "controller", "mirror")


class Shocked(Batches):
    """Rows whose answers are shuffled from `onset` on, for a while."""

    onset = 0

    def of_step(self, step: int) -> list[list[Tokenised]]:
        batches = super().of_step(step)
        if not self.onset <= step < self.onset + SHOCK_STEPS:
            return batches
        draw = random.Random(step)
        return [[_shuffled(row, draw) for row in rows] for rows in batches]


def _shuffled(row: Tokenised, draw: random.Random) -> Tokens:
    start = next(at for at, label in enumerate(row.labels) if label != IGNORED)
    answer = list(row.ids[start:])
    draw.shuffle(answer)
    return Tokens([*row.ids[:start], *answer], [IGNORED] * start + answer, start)


@dataclass
class Course(Boundary):
    """Held-out losses of every stream by step, and when each was in which mode."""

    judged: Sequence[Tokenised]
    losses: dict[str, dict[int, float]] = field(default_factory=dict)
    phis: dict[str, list[tuple[float, int]]] = field(default_factory=dict)
    restored: dict[str, list[str]] = field(default_factory=dict)

    def stepped(self, stream: Stream, step: Stepped) -> str | None:
        if "phi" in step.figures:
            self.phis.setdefault(stream.name, []).append((step.figures["phi"], int(step.figures["mode"])))
        self.restored.setdefault(stream.name, []).extend(event for event in step.events if event.startswith("restored"))
        if step.step % LOOK_STEPS == 0:
            assert stream.look is not None, "a stream is stepped by a loop"
            self.losses.setdefault(stream.name, {})[step.step] = stream.look(self.judged, stream.adapter)
        return None


@dataclass(frozen=True)
class Found:
    """Of one stream of the shock; infinite where training failed."""

    before: float
    peak: float
    final: float
    recovery: float
    """Steps from the end of the shock until the held-out loss is back; those that were left where it is not."""
    restored: float = 0
    """How often a snapshot was restored."""


def found(losses: dict[int, float], onset: int, restored: int = 0) -> Found:
    end = onset + SHOCK_STEPS
    before = losses[onset - onset % LOOK_STEPS]
    after = {step: loss for step, loss in losses.items() if step >= end}
    back = next((step for step, loss in after.items() if loss <= BACK * before), max(losses))
    peak = max(loss for step, loss in losses.items() if step >= onset)
    return Found(before, peak, losses[max(losses)], back - end, restored)


def controllers(arm: str) -> list[Controller]:
    made = partial(UnifiedController.preset, "relative", warmup=WARMUP)
    match arm:
        case "controller":
            return [Steering(made())]
        case "mirror":
            return [Modes(made(), Acts(anchor_rows=ANCHORS, anchor_steps=LOOK_STEPS))]
        case _:
            return []


def onset_of(seed: int) -> int:
    return random.Random(seed).randrange(*ONSETS)


def recipe_of(run: Run, rows: Sequence[Tokens], anchors: Sequence[Tokenised]) -> Recipe:
    batches = Shocked(rows, micro_batch_size=MICRO_BATCH, seed=run.seed)
    batches.onset = onset_of(run.seed)
    schedule = NamedSchedule("cosine" if run.arm == "cosine" else "constant", steps=STEPS, warmup=0.05)
    return recipe(batches, run, STEPS, schedule=schedule, controllers=partial(controllers, run.arm), held_out=anchors)


def learn(
    model: PreTrainedModel, course: Course, rows: Sequence[Tokens], anchors: Sequence[Tokenised], runs: Sequence[Run]
) -> list[Found]:
    streams = trained(model, course, {run: recipe_of(run, rows, anchors) for run in runs})
    failed = Found(*[float("inf")] * 4)
    return [
        failed if stream.failure else found(course.losses[run.name], onset_of(run.seed), len(course.restored[run.name]))
        for run, stream in zip(runs, streams, strict=True)
    ]


def show(base: str, place: Place, seeds: int) -> None:
    rows, held_out = demo_rows(base)
    judged, anchors = held_out[:JUDGED], held_out[JUDGED:][:ANCHORS]
    model, course = load(base, place), Course(judged)
    ended = at_best_rates(ARMS, seeds, lambda runs: learn(model, course, rows, anchors, runs), lambda one: one.final)
    print(
        f"{SHOCK_STEPS} of {STEPS} steps with shuffled answers, from a random step of {ONSETS[0]} to {ONSETS[1] - 1}; {seeds} seeds, "
        "each arm at its best rate; held-out loss, mean ± deviation"
    )
    print(
        f"{'arm':12} {'rate':>7} {'before':>15} {'highest':>15} {'final':>15} {'steps to recover':>17} {'restored':>12}"
    )
    for arm in ARMS:
        mine = of_arm(ended, arm)
        cells = " ".join(f"{spread([getattr(one, what) for one in mine]):>15}" for what in ("before", "peak", "final"))
        often = f"{sum(one.restored for one in mine):g} in {seeds}"
        print(f"{arm:12} {rate_of(ended, arm):>7g} {cells} {spread([one.recovery for one in mine], 0):>17} {often:>12}")
    for run in ended:
        if len(phis := course.phis.get(run.name, [])) == STEPS:  # of one that failed there are fewer
            show_phi(run, phis, course.restored[run.name])
    finals = {arm: fmean(one.final for one in of_arm(ended, arm)) for arm in ARMS}
    print(f"lowest final held-out loss: {min(finals, key=finals.__getitem__)}")


def show_phi(run: Run, phis: Sequence[tuple[float, int]], restored: Sequence[str]) -> None:
    onset = onset_of(run.seed)
    before, since = (max(phi for phi, _ in part) for part in (phis[WARMUP:onset], phis[onset:]))
    in_mirror = sum(mode == MIRROR for _, mode in phis)
    print(
        f"{run.arm}, seed {run.seed}: phi at most {before:.2f} before the shock, {since:.2f} from it on, {phis[-1][0]:.2f} at the end; "
        + "; ".join([f"mirror in {in_mirror} steps", *restored])
    )


def demo_rows(base: str) -> tuple[list[Tokens], list[Tokens]]:
    """The demo's rows that are short enough: to train on, and held out."""
    tokenizer = AutoTokenizer.from_pretrained(bases.folder_of(base))
    train, held_out = (list(_tokenised(tokenizer, split)) for split in ("train", "eval"))
    return train, held_out


def _tokenised(tokenizer: PreTrainedTokenizerBase, split: demo_data.Split) -> Iterator[Tokens]:
    stop = [] if tokenizer.eos_token_id is None else [tokenizer.eos_token_id]
    for row in demo_data.rows(split):
        question, answer = (message["content"] for message in row["messages"])
        begin = tokenizer(question + "\n").input_ids
        end = [*tokenizer(answer, add_special_tokens=False).input_ids, *stop]
        if len(begin) + len(end) <= LONGEST:
            yield Tokens([*begin, *end], [IGNORED] * len(begin) + end, len(begin))
