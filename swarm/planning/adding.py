"""Whether a stream can join a running run: checked as a config is before a start, its memory against what is free now."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from swarm import kinds, units
from swarm.config import added
from swarm.config.tree import Node, Problems
from swarm.errors import UserError, UserErrors
from swarm.events import Add
from swarm.facts import BaseFacts
from swarm.kinds import Shape
from swarm.launch.layout import Layout, WorkerSpec
from swarm.planning import columns, disk, estimate, gpus, rows
from swarm.planning.estimate import Need
from swarm.planning.gpus import Devices
from swarm.planning.machine_checks import Inspection
from swarm.planning.measured import Measured, corrected
from swarm.planning.placement import USABLE_SHARE
from swarm.policy.batching import engine_of
from swarm.rundir import RunFolder
from swarm.settings import Part, RunSettings, StreamSettings


def admitted(
    folder: RunFolder, run: RunSettings, event: Add, layout: Layout, measured: Measured, most_slots: int | None = None
) -> Layout:
    """The layout with the stream on every worker that takes the one that it is like; no worker gets more slots than `most_slots`.

    Raises UserErrors with all that is wrong with its settings, UserError for memory or disk that will not do.
    """
    inspection = Inspection()

    def further(root: Node, alone: RunSettings, problems: Problems) -> None:
        inspection.look(root, alone, problems)
        columns.look(root, alone, problems)
        rows.look(root, alone, problems)

    made = added.checked(run, event.ref, event.like, shlex.split(event.changes or ""), Path("/"), further=further)
    like = run.streams[event.like]
    if event.warm:
        _check_weights_fit(event, inspection.facts, like, made)
    devices = gpus.devices(run.placement)
    need, known = (estimate.of_stream(inspection.facts, s, on_gpu=bool(devices.gpus)) for s in (made, like))
    disk.check(run.model_copy(update={"streams": {event.ref: made}}), {event.ref: need}, folder.path)
    placed = _placed(event, layout, need, known, devices)
    if engine_of(made) != "shared":
        return placed
    placed = replace(placed, own_bytes={**layout.own_bytes, event.ref: need.own})
    return _with_slots(placed, event.ref, need, measured, devices, most_slots)


def _placed(event: Add, layout: Layout, need: Need, known: Need, devices: Devices) -> Layout:
    """A worker that takes `like` has room for as much; what the new stream needs beyond that must be free now."""
    more = need.total - known.total
    able = {worker.name for worker in layout.trainers() if _takes(worker, event.like)}
    fit = {worker.name for worker in layout.workers if worker.name in able and _has_room(worker, more, devices)}
    if not fit:
        what = f"needs {units.size(need.total)}, {units.size(more)} more than {event.like}, and so much is not free"
        raise UserError(f"streams.{event.ref}", what, "lower `lora_r`, `micro_batch_size` or `sequence_len`")
    workers = [
        replace(one, streams=(*one.streams, event.ref))
        if one.streams is not None and (one.name in fit or (one.name not in able and _takes(one, event.like)))
        else one
        for one in layout.workers
    ]
    return replace(layout, workers=tuple(workers))


def _with_slots(
    layout: Layout, stream: str, need: Need, measured: Measured, devices: Devices, most: int | None
) -> Layout:
    """One more stream at once where what it needs beside the base is free now; else it waits for its turn."""

    def has_room(one: WorkerSpec) -> bool:
        held = measured.get(one.name)
        own = corrected(need.own, layout, held) if held else need.total - need.weights
        return _has_room(one, own, devices)

    workers = [
        replace(one, slots=one.slots + 1)
        if "train" in one.roles and one.slots != most and _takes(one, stream) and has_room(one)
        else one
        for one in layout.workers
    ]
    return replace(layout, workers=tuple(workers))


def _takes(worker: WorkerSpec, stream: str) -> bool:
    return worker.streams is None or stream in worker.streams


def _has_room(worker: WorkerSpec, more: int, devices: Devices) -> bool:
    there = devices.free_bytes_of(worker.gpu_index)
    return more <= 0 or there is None or more <= there * USABLE_SHARE


def _check_weights_fit(event: Add, facts: dict[str, BaseFacts], like: StreamSettings, made: StreamSettings) -> None:
    """Raises UserErrors where the weights of `like` cannot be carried over: only the rank of its matrices may differ."""
    if any(kinds.adapter(part.adapter).filed(facts[part.base_model], part) is not part for part in made.parts.values()):
        what = "holds rows that are not trained (start_adapter, init_lora_weights), which a clone would train"
        fix = "`swarm add` starts the stream from step 0"
        raise UserErrors([UserError(f"streams.{event.ref}", what, fix)], added.OUTCOME)
    found = [
        UserError(
            f"streams.{event.ref}.{key}",
            f"gives the adapter other tensors than that of {event.like}, whose weights are carried over",
            "leave it out, or `swarm add` starts the stream from step 0",
        )
        for key in _keys_of_other_tensors(facts, like, made)
    ]
    if found:
        raise UserErrors(found, added.OUTCOME)


def _keys_of_other_tensors(facts: dict[str, BaseFacts], like: StreamSettings, made: StreamSettings) -> Iterator[str]:
    """The settings of the adapter by which its tensors are others."""
    for name, part in made.parts.items():
        other, above = like.parts[name], made.part_steps(name)
        if part.adapter != other.adapter:
            keys = {"adapter": part}
        else:
            fields = kinds.adapter(part.adapter).settings.model_fields
            keys = {key: other.model_copy(update={key: getattr(part, key)}) for key in fields}
        before = _tensors(facts, other)
        for key, changed in keys.items():
            if not _same_but_for_rank(before, _tensors(facts, changed)):
                yield ".".join([*above, key])


def _tensors(facts: dict[str, BaseFacts], part: Part) -> dict[str, Shape]:
    return kinds.adapter(part.adapter).tensors(facts[part.base_model], part)


def _same_but_for_rank(one: dict[str, Shape], other: dict[str, Shape]) -> bool:
    """Whether the names are the same, and each shape but for one of its sizes."""
    return one.keys() == other.keys() and all(
        len(one[name]) == len(other[name]) and sum(a != b for a, b in zip(one[name], other[name], strict=True)) <= 1
        for name in one
    )
