"""What each stream of a config is, needs and will do, as rows for `swarm plan`; the command line prints them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from swarm import kinds
from swarm.config import Config
from swarm.facts import BaseFacts
from swarm.launch.layout import Layout, WorkerSpec
from swarm.planning import estimate, rows
from swarm.policy.batching import engine_of, groups
from swarm.settings import StreamSettings


@dataclass(frozen=True, slots=True)
class PlanRow:
    """One stream; sizes are bytes."""

    stream: str
    adapter: str
    """`qlora r8`, `lora r8 dora`"""
    trainable: int
    """Parameters."""
    weights_bytes: int
    adapter_gradients_moments_bytes: int
    activations_bytes: int
    total_bytes: int
    engine: str
    """What trains it: `trl`, or `shared` with the number of the group of streams that may be trained together: `shared 1`."""
    shared_bytes: int
    """Of the sum, what all streams of its group need once."""
    device: str
    """Where it may run; empty without a layout."""
    rows: int | None
    """Rows to train on; None where they are not known before they are prepared."""
    steps: int | None
    """Optimizer steps; None where rows or a time limit decide."""
    batch_rows: int
    """Effective batch: rows of one optimizer step."""
    step_tokens: int
    """Tokens of one optimizer step at most: where each of its rows has `sequence_len`."""


def plan_table(config: Config, bases: Mapping[str, BaseFacts], layout: Layout | None = None) -> list[PlanRow]:
    """One row per stream, in the config's order; `bases` by `base_model`."""
    engines = {
        name: f"shared {number}" for number, group in enumerate(groups(config.run.streams), start=1) for name in group
    }
    return [
        _row(name, settings, bases, layout, engines.get(name, engine_of(settings)))
        for name, settings in config.run.streams.items()
    ]


def _row(
    name: str, settings: StreamSettings, bases: Mapping[str, BaseFacts], layout: Layout | None, engine: str
) -> PlanRow:
    trainers = [w for w in layout.trainers() if w.streams is None or name in w.streams] if layout else []
    need = estimate.of_stream(
        bases, settings, on_gpu=not trainers or any(worker.gpu_index is not None for worker in trainers)
    )
    counted = rows_of(settings)
    batch = settings.gradient_accumulation_steps * max(part.micro_batch_size for part in settings.parts.values())
    return PlanRow(
        stream=name,
        adapter=" + ".join(kinds.adapter(part.adapter).label(part) for part in settings.parts.values()),
        trainable=need.trainable,
        weights_bytes=need.weights,
        adapter_gradients_moments_bytes=need.adapter + need.gradients + need.moments,
        activations_bytes=need.passing,
        total_bytes=need.total,
        engine=engine,
        shared_bytes=need.shared,
        device=_devices(trainers),
        rows=counted,
        steps=steps_of(settings, counted),
        batch_rows=batch,
        step_tokens=batch * max(part.sequence_len for part in settings.parts.values()),
    )


def rows_of(settings: StreamSettings) -> int | None:
    """The largest number of rows among its parts: a step takes a micro-batch of each.  None: sequences of documents are not counted here."""
    if any(part.has_documents for part in settings.parts.values()):
        return None
    counts = [rows.trained_on(part) for part in settings.parts.values()]
    return None if None in counts else max(count for count in counts if count is not None)


def steps_of(settings: StreamSettings, counted: int | None) -> int | None:
    """Optimizer steps as transformers' Trainer counts them: the last step of an epoch may have fewer rows."""
    if settings.max_steps is not None:
        return settings.max_steps
    return None if counted is None or kinds.stops_armed(settings) else rows.most_steps(settings, counted)


def _devices(trainers: list[WorkerSpec]) -> str:
    """`gpu0 shared, gpu1`: shared if several trainers may use it at once."""
    names = [worker.device for worker in trainers]
    return ", ".join(name if names.count(name) == 1 else f"{name} shared" for name in dict.fromkeys(names))
