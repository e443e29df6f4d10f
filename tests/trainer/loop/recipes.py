"""Streams that differ in everything: rank, kind, optimizer, dropout, lengths, micro-batches, accumulation, schedule, stop."""

from __future__ import annotations

from typing import Any

import torch
from peft import LoraConfig

from tests.trainer.loop import decoders
from trainer.loop.batches import Batches
from trainer.loop.boundary import Boundary
from trainer.loop.loop import Loop
from trainer.loop.parts import Stepped
from trainer.loop.recipe import Recipe
from trainer.loop.schedules import NamedSchedule
from trainer.loop.stream import Failed, Stream


class Lion(torch.optim.Optimizer):
    """arXiv 2302.06675, algorithm 2."""

    def __init__(
        self, parameters: list[torch.nn.Parameter], lr: float, betas=(0.9, 0.99), weight_decay: float = 0.0
    ) -> None:
        super().__init__(parameters, {"lr": lr, "betas": betas, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure=None) -> None:
        for group in self.param_groups:
            first, second = group["betas"]
            for value in group["params"]:
                mean = self.state[value].setdefault("exp_avg", torch.zeros_like(value))
                value.mul_(1 - group["lr"] * group["weight_decay"])
                value.sub_(group["lr"] * (mean * first + value.grad * (1 - first)).sign())
                mean.mul_(second).add_(value.grad * (1 - second))


def recipe(number: int = 0, **changes: Any) -> Recipe:
    """One of five; `changes` win."""
    adapter, steps, length = [
        ({"r": 4, "lora_alpha": 8}, 7, (4, 12)),
        ({"r": 8, "lora_alpha": 16, "lora_dropout": 0.1}, 5, (6, 20)),
        ({"r": 16, "lora_alpha": 16, "use_dora": True}, 6, (10, 30)),
        ({"r": 32, "lora_alpha": 64, "lora_dropout": 0.05, "use_dora": True}, 3, (3, 9)),
        ({"r": 8, "lora_alpha": 16, "use_rslora": True, "lora_dropout": 0.2}, 4, (16, 18)),
    ][number]
    rows = decoders.rows(14, length, seed=number)
    made: dict[str, Any] = {
        "config": LoraConfig(task_type="CAUSAL_LM", target_modules=changes.pop("targets", "all-linear"), **adapter),
        "optimizer": (lambda values: Lion(values, lr=2e-4, weight_decay=0.1))
        if number == 1
        else (lambda values: torch.optim.AdamW(values, lr=1e-3 * (number + 1))),
        "batches": Batches(rows, micro_batch_size=1 + number % 3, accumulation=1 + number % 2, seed=number),
        "steps": steps,
        "schedule": NamedSchedule("linear" if number % 2 else "cosine", steps=steps, warmup=0.1),
        "max_grad_norm": 0.5 if number % 2 else 1.0,
        "seed": number,
        "recompute": number == 2,
        **changes,
    }
    return Recipe(**made)


FIVE = {name: recipe(number) for number, name in enumerate(["small", "lion", "dora", "wide", "rs"])}


class Kept(Boundary):
    """Remembers all that it is told; `at` may act at a stream's step."""

    def __init__(self) -> None:
        self.steps: dict[str, list[Stepped]] = {}
        self.ends: dict[str, str] = {}
        self.failures: dict[str, str] = {}
        self.splits: list[int] = []
        self.at = lambda stream, step: None

    def stepped(self, stream: Stream, step: Stepped) -> str | None:
        self.steps.setdefault(stream.name, []).append(step)
        return self.at(stream, step)

    def ended(self, stream: Stream, why: str) -> None:
        self.ends[stream.name] = why

    def failed(self, stream: Stream, why: Failed) -> None:
        self.failures[stream.name] = str(why)

    def split(self, pass_tokens: int) -> None:
        self.splits.append(pass_tokens)

    def losses(self, name: str) -> list[float]:
        return [step.figures["loss"] for step in self.steps[name]]


def loop_of(recipes: dict[str, Recipe], model=None, **options: Any) -> tuple[Loop, Kept, dict[str, Stream]]:
    kept = Kept()
    loop = Loop(model or decoders.decoder(), kept, **options)
    streams = {name: recipe.stream(loop, name) for name, recipe in recipes.items()}
    loop.add(*streams.values())
    return loop, kept, streams


def same(mine: Stream, other: Stream) -> bool:
    """Bit for bit."""
    pairs = zip(mine.adapter.parameters(), other.adapter.parameters(), strict=True)
    return all(torch.equal(a, b) for a, b in pairs)
