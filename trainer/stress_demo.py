"""Demonstrations of the Unified controller beside plain arms, on the embedded base or one of yours; whoever wins is printed.

    python -m trainer.stress_demo shock                        # answers are shuffled for a while: fixed, cosine, controller, controller + mirror
    python -m trainer.stress_demo tasks                        # two tasks that contradict each other: one adapter, or one for each
    python -m trainer.stress_demo shock --base FOLDER --device cuda --seeds 5

All arms are streams of one shared loop.  Each arm has the learning rate, of three, with which its final held-out loss was lowest on a seed of its
own, which is not among those that are reported.
"""

from __future__ import annotations

import argparse
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from statistics import fmean, stdev
from typing import Any, cast

import torch
from peft import LoraConfig
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from trainer import bases
from trainer.data.tokens import IGNORED, Tokens
from trainer.embedded import demo_data
from trainer.loop.batches import Batches, Tokenised
from trainer.loop.boundary import Boundary
from trainer.loop.loop import Loop
from trainer.loop.modes import Acts, Modes
from trainer.loop.parts import Controller, Stepped
from trainer.loop.recipe import Recipe
from trainer.loop.schedules import NamedSchedule
from trainer.loop.steering import Steering
from trainer.loop.stream import Stream
from trainer.quiet import quieten
from trainer.unified import MULTI, UnifiedController

STEPS, MICRO_BATCH, LONGEST = 120, 2, 96
ONSETS, SHOCK_STEPS = (45, 65), 20
LOOK_STEPS = 5
"""The held-out loss is measured every so many steps."""
BACK = 1.02
"""Times the held-out loss before the shock: from there on a stream has recovered."""
RATES = (1e-3, 3e-3, 1e-2)
SWEEP_SEED = 100
ARMS = ("fixed", "cosine", "controller", "mirror")
TASKS = ("same", "opposite")


# ---- shock ----


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

    held_out: Sequence[Tokenised]
    losses: dict[str, dict[int, float]] = field(default_factory=dict)
    phis: dict[str, list[tuple[float, int]]] = field(default_factory=dict)
    loop: Loop | None = None

    def stepped(self, stream: Stream, step: Stepped) -> str | None:
        if "phi" in step.figures:
            self.phis.setdefault(stream.name, []).append((step.figures["phi"], int(step.figures["mode"])))
        if step.step % LOOK_STEPS == 0:
            assert self.loop
            self.losses.setdefault(stream.name, {})[step.step] = self.loop.held_out(stream, self.held_out)["eval_loss"]
        return None


@dataclass(frozen=True)
class Found:
    """Of one stream of the shock."""

    before: float
    peak: float
    final: float
    recovery: float
    """Steps from the end of the shock until the held-out loss is back; those that were left where it is not."""
    forgot: float
    """Held-out loss at the end of the shock beside that before it."""


def found(losses: dict[int, float], onset: int) -> Found:
    end = onset + SHOCK_STEPS
    before = losses[onset - onset % LOOK_STEPS]
    after = {step: loss for step, loss in losses.items() if step >= end}
    back = next((step for step, loss in after.items() if loss <= BACK * before), max(losses))
    first = next(iter(after.values()))
    peak = max(loss for step, loss in losses.items() if step >= onset)
    return Found(before, peak, losses[max(losses)], back - end, first / before)


def controllers(arm: str) -> list[Controller]:
    made = partial(UnifiedController.preset, "relative", alpha=0.3, warmup=30, dwell=5)
    match arm:
        case "controller":
            return [Steering(made())]
        case "mirror":
            return [Modes(made(), Acts(anchor_rows=8, anchor_steps=LOOK_STEPS))]
        case _:
            return []


def onset_of(seed: int) -> int:
    return random.Random(seed).randrange(*ONSETS)


def shock(loop: Loop, course: Course, rows: Sequence[Tokens], runs: Sequence[tuple[str, float, int]]) -> list[Found]:
    """Arms with a learning rate and a seed each, trained together."""
    streams = []
    for arm, rate, seed in runs:
        batches = Shocked(rows, micro_batch_size=MICRO_BATCH, seed=seed)
        batches.onset = onset_of(seed)
        schedule = NamedSchedule("cosine" if arm == "cosine" else "constant", steps=STEPS, warmup=0.05)
        one = recipe(
            batches, rate, seed, schedule=schedule, controllers=partial(controllers, arm), held_out=course.held_out
        )
        streams.append(one.stream(loop, f"{arm} {rate:g} {seed}"))
    loop.add(*streams)
    loop.run()
    return [
        found(course.losses[stream.name], onset_of(seed)) for stream, (_, _, seed) in zip(streams, runs, strict=True)
    ]


def recipe(batches: Batches, rate: float, seed: int, **parts: object) -> Recipe:
    return Recipe(
        config=LoraConfig(task_type="CAUSAL_LM", target_modules="all-linear", r=8, lora_alpha=16),
        optimizer=lambda values: torch.optim.AdamW(values, lr=rate), batches=batches, steps=STEPS, seed=seed,
        **{"schedule": NamedSchedule("constant", steps=STEPS), **parts},  # type: ignore[arg-type]
    )  # fmt: skip


def show_shock(model: str, device: str, seeds: int) -> None:
    rows, held_out = demo_rows(model)
    swept = [(arm, rate, SWEEP_SEED) for arm in ARMS for rate in RATES]
    course = Course(held_out[:12])
    course.loop = loop = Loop(load(model, device), course)
    ends = dict(zip(swept, shock(loop, course, rows, swept), strict=True))
    best = {arm: min(RATES, key=lambda rate, arm=arm: ends[arm, rate, SWEEP_SEED].final) for arm in ARMS}  # type: ignore[misc]
    runs = [(arm, best[arm], seed) for arm in ARMS for seed in range(seeds)]
    all_found = dict(zip(runs, shock(loop, course, rows, runs), strict=True))
    print(
        f"{SHOCK_STEPS} of {STEPS} steps with shuffled answers, from a random step of {ONSETS[0]} to {ONSETS[1] - 1}; {seeds} seeds; mean ± deviation"
    )
    print(f"{'arm':12} {'rate':>6} {'before':>14} {'highest':>14} {'final':>14} {'steps to recover':>17}")
    for arm in ARMS:
        mine = [one for (name, _, _), one in all_found.items() if name == arm]
        cells = " ".join(f"{spread([getattr(one, what) for one in mine]):>14}" for what in ("before", "peak", "final"))
        print(f"{arm:12} {best[arm]:>6g} {cells} {spread([one.recovery for one in mine], 0):>17}")
    for (arm, rate, seed), _ in zip(runs, all_found, strict=True):
        phis = course.phis.get(f"{arm} {rate:g} {seed}")
        if phis and seed == 0:
            onset = onset_of(seed)
            print(
                f"{arm}, seed 0: phi at most {max(phi for phi, _ in phis[30:onset]):.2f} before the shock, {max(phi for phi, _ in phis[onset:]):.2f} from it on, {phis[-1][0]:.2f} at the end; mirror in {sum(mode == 2 for _, mode in phis)} steps"
            )
    finals = {arm: fmean(one.final for (name, _, _), one in all_found.items() if name == arm) for arm in ARMS}
    print(f"lowest final held-out loss: {min(finals, key=lambda arm: finals[arm])}")


def spread(values: Sequence[float], digits: int = 3) -> str:
    return f"{fmean(values):.{digits}f} ± {stdev(values) if len(values) > 1 else 0:.{digits}f}"


# ---- tasks ----


def opposed(model: str) -> list[Tokens]:
    """Equal questions with opposite answers, by task."""
    tokenizer = AutoTokenizer.from_pretrained(bases.folder_of(model))
    draw, made = random.Random(0), []
    for number in range(64):
        told = draw.random() < 0.5
        for task, answer in (("same", told), ("opposite", not told)):
            ids = tokenizer(f"{number} {'on' if told else 'off'}:").input_ids
            target = tokenizer(" 1" if answer else " 0", add_special_tokens=False).input_ids[-1]
            made.append(Tokens([*ids, target], [IGNORED] * len(ids) + [target], len(ids), task=task))
    return made


def always_multi() -> list[Controller]:
    controller = UnifiedController.preset("glue", lr_multi=1.0, mode=MULTI, theta0=1e-9, theta1=1 - 1e-9, phi=0.5)
    return [Modes(controller, Acts(merge="mean"))]


def show_tasks(model: str, device: str, seeds: int) -> None:
    rows = opposed(model)
    print(f"equal questions, opposite answers; {STEPS} steps, {seeds} seeds; loss in nats, a coin's is 0.693")
    print(f"{'arm':22} {'rate':>6} " + " ".join(f"{task:>14}" for task in TASKS) + f" {'conflict':>14}")
    for arm in ("single", "multi"):
        for rate in RATES:
            each = [tasks_once(load(model, device), rows, arm, rate, seed) for seed in range(seeds)]
            print(
                f"{arm:22} {rate:>6g} " + " ".join(f"{spread(list(values)):>14}" for values in zip(*each, strict=True))
            )


def tasks_once(
    model: PreTrainedModel, rows: Sequence[Tokens], arm: str, rate: float, seed: int
) -> tuple[float, float, float]:
    """Losses of both tasks, each by the adapter that learned it, and the conflict."""
    last: list[float] = []

    class Newest(Boundary):
        def stepped(self, stream: Stream, step: Stepped) -> str | None:
            if step.step == STEPS:
                look, clones = stream.look, stream.clones
                assert look
                for task in TASKS:
                    adapter = clones[task].adapter if clones else stream.adapter
                    last.append(look([row for row in rows if row.task == task], adapter))
                last.append(step.figures.get("conflict", 0.0))
            return None

    loop = Loop(model, Newest())
    batches = Batches(rows, micro_batch_size=16, seed=seed)
    one = recipe(batches, rate, seed, controllers=always_multi if arm == "multi" else tuple)
    loop.add(one.stream(loop, arm))
    loop.run()
    return last[0], last[1], last[2]


# ---- bases and rows ----


def load(model: str, device: str) -> PreTrainedModel:
    made: Any = AutoModelForCausalLM.from_pretrained(bases.folder_of(model), dtype=torch.float32)
    return cast("PreTrainedModel", made.to(device))


def demo_rows(model: str) -> tuple[list[Tokens], list[Tokens]]:
    """The demo's rows that are short enough: to train on, and held out."""
    tokenizer = AutoTokenizer.from_pretrained(bases.folder_of(model))
    train, held_out = (list(_tokenised(tokenizer, split)) for split in ("train", "eval"))
    return train, held_out


def _tokenised(tokenizer: PreTrainedTokenizerBase, split: demo_data.Split) -> Iterator[Tokens]:
    for row in demo_data.rows(split):
        question, answer = (message["content"] for message in row["messages"])
        begin = tokenizer(question + "\n").input_ids
        end = [*tokenizer(answer, add_special_tokens=False).input_ids, tokenizer.eos_token_id]
        if len(begin) + len(end) <= LONGEST:
            yield Tokens([*begin, *end], [IGNORED] * len(begin) + end, len(begin))


def main() -> None:
    quieten()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("which", choices=("shock", "tasks"))
    parser.add_argument("--base", default="tiny-toon", help="a folder or a name; default: the embedded base")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--seeds", type=int, default=5)
    given = parser.parse_args()
    {"shock": show_shock, "tasks": show_tasks}[given.which](given.base, given.device, given.seeds)


if __name__ == "__main__":
    main()
