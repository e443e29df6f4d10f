"""What a stream of the loop is made of, so that it can be made more than once; from a stream's settings, as transformers' Trainer reads them."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self, cast

import torch
from peft import LoraConfig
from torch import nn

from swarm import kinds
from trainer.loop.adapter import Fixed
from trainer.loop.batches import Batches, Tokenised
from trainer.loop.classed import classed
from trainer.loop.decay import Decay
from trainer.loop.head import NLL
from trainer.loop.parts import Controller, Loss, Schedule, Stop
from trainer.loop.scaler import Scaler
from trainer.loop.schedules import NamedSchedule
from trainer.loop.stream import Stream

if TYPE_CHECKING:
    from swarm.facts import BaseFacts
    from swarm.settings import StreamSettings
    from trainer.loop.loop import Loop


@dataclass(frozen=True, kw_only=True)
class Recipe:
    config: LoraConfig
    filed: LoraConfig | None = None
    """What adapter_config.json says, where rows that are not trained make it another one."""
    below: Mapping[str, Fixed] = field(default_factory=dict)
    """The adapter on which it begins, by layer."""
    optimizer: Callable[[list[nn.Parameter]], torch.optim.Optimizer]
    batches: Batches
    steps: int
    schedule: Schedule
    max_grad_norm: float | None = 1.0
    seed: int = 0
    recompute: bool = False
    loss: Loss = NLL
    decay: Decay | None = None
    neutral: float = 0.0
    """Weight of |u|^2 / |x|^2, the mean of the sites, on neutral tokens of a control adapter."""
    controllers: Callable[[], Sequence[Controller]] = tuple
    stops: Callable[[], Sequence[Stop]] = tuple
    held_out: Sequence[Tokenised] = ()
    """Rows that controllers may look at."""

    @classmethod
    def of(
        cls, settings: StreamSettings, facts: BaseFacts, batches: Batches, held_out: Sequence[Tokenised] = ()
    ) -> Self:
        steps = steps_of(settings, batches)
        kind, arguments = kinds.optimizer(settings.optimizer).made_of(settings)
        made: Any = kind  # torch's base class knows no `lr`
        rate, decay = settings.learning_rate, settings.weight_decay
        adapter, loss = kinds.adapter(settings.adapter), kinds.method(settings.method).loss(settings)
        filed = adapter.filed(facts, settings)
        return cls(
            config=cast("LoraConfig", adapter.config(facts, settings)),
            filed=cast("LoraConfig", adapter.config(facts, filed)) if filed is not settings else None,
            below=start.values() if (start := adapter.start(settings)) else {},
            optimizer=lambda values: made([{"params": values, "weight_decay": decay}], lr=rate, **arguments),
            batches=batches,
            steps=steps,
            schedule=NamedSchedule.of(settings, steps),
            max_grad_norm=settings.max_grad_norm or None,
            seed=settings.seed,
            recompute=settings.gradient_checkpointing,
            loss=classed(loss) if adapter.reads_classes else loss,
            decay=Decay(*shrinks) if (shrinks := adapter.shrinking(settings)) else None,
            neutral=adapter.neutral_lambda(settings),
            controllers=lambda: controllers_of(settings),
            held_out=held_out,
        )

    def stream(self, loop: Loop, name: str) -> Stream:
        adapter = loop.adapter(self.config, self.seed, self.filed, self.below)
        sites = [pair for pair in adapter.pairs.values() if pair.form]
        for pair in sites:
            pair.neutral = self.neutral / len(sites)
        return Stream(
            name=name, adapter=adapter, optimizer=self.optimizer(adapter.parameters()), batches=self.batches, steps=self.steps,
            schedule=self.schedule, max_grad_norm=self.max_grad_norm, seed=self.seed, recompute=self.recompute,
            loss=self.loss, decay=self.decay, controllers=self.controllers(), stops=self.stops(),
            fresh_optimizer=self.optimizer, held_out=self.held_out, scaler=Scaler() if loop.model.dtype is torch.float16 else None,
        )  # fmt: skip


def controllers_of(settings: StreamSettings) -> list[Controller]:
    """The chosen one, and what acts in place of a stop."""
    made = [kinds.controller(settings.controller).begin(settings)]
    made += [stop.controller(settings) for stop in kinds.stops_armed(settings)]
    return [one for one in made if one is not None]


def steps_of(settings: StreamSettings, batches: Batches) -> int:
    """Optimizer steps of the whole training."""
    return settings.max_steps or math.ceil(settings.num_epochs * batches.steps_per_epoch)
