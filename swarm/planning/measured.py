"""How many streams a worker takes at once, by what those that it trains were measured to take; pure.

What a stream that waits will take is its estimate, corrected by the ratio at which the estimate was right for those that train
on the same base.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from swarm import units
from swarm.launch.layout import Layout, WorkerSpec
from swarm.messages import Held
from swarm.planning.gpus import Devices
from swarm.planning.placement import USABLE_SHARE
from swarm.policy.batching import batch_key
from swarm.settings import RunSettings

Measured = Mapping[str, Sequence[Held]]
"""The trainings of each worker, where all that it holds were measured."""


def corrected(predicted: int, layout: Layout, measured: Sequence[Held]) -> int:
    """Of a stream's own bytes."""
    known = [held for held in measured if held.stream in layout.own_bytes]
    if not known:
        return predicted
    return round(predicted * sum(held.own_bytes or 0 for held in known) / layout.own_of(known))


def widened(layout: Layout, run: RunSettings, measured: Measured, waiting: Sequence[str], devices: Devices) -> Layout:
    """The layout with more slots where streams wait and memory holds them; a number that the user has written stays."""
    asked = run.placement.streams_per_gpu if devices.gpus else run.placement.cpu_streams
    if asked != "auto":
        return layout
    workers = {worker.name: worker for worker in layout.workers}
    rooms = {worker.gpu_index: _room(layout, measured, devices, worker.gpu_index) for worker in layout.trainers()}
    for name, held in measured.items():
        worker, slots = workers[name], len(held)
        for own in _wanted(worker, layout, run, held, waiting):
            room = rooms[worker.gpu_index]
            if room is None or own > room:
                break
            rooms[worker.gpu_index], slots = room - own, slots + 1
        workers[name] = replace(worker, slots=max(worker.slots, slots))
    return replace(layout, workers=tuple(workers.values()))


def grown(before: Layout, now: Layout, measured: Measured) -> Iterator[str]:
    """A remark for each worker that takes more streams at once."""
    slots = {worker.name: worker.slots for worker in before.workers}
    for worker in now.workers:
        if worker.slots > slots[worker.name]:
            held = measured[worker.name]
            taken = units.size(sum(one.own_bytes or 0 for one in held))
            yield (
                f"{worker.name}: {worker.slots} streams at once instead of {slots[worker.name]}: what it trains takes {taken}"
                f" beside the base, and {units.size(before.own_of(held))} were predicted"
            )


def _wanted(
    worker: WorkerSpec, layout: Layout, run: RunSettings, held: Sequence[Held], waiting: Sequence[str]
) -> Iterator[int]:
    """Own bytes of the streams that wait and could train beside those that it holds."""
    key = batch_key(run.streams[held[0].stream])
    for name in waiting:
        is_taken, predicted = worker.streams is None or name in worker.streams, layout.own_bytes.get(name)
        if is_taken and predicted is not None and batch_key(run.streams[name]) == key:
            yield corrected(predicted, layout, held)


def _room(layout: Layout, measured: Measured, devices: Devices, gpu_index: int | None) -> int | None:
    """Free bytes of a device for further streams; None where they are not known.

    On a CPU what a step takes and gives back may be free at this moment; on a GPU the allocator keeps it.
    """
    if (free := devices.free_bytes_of(gpu_index)) is None:
        return None
    there = [worker for worker in layout.workers if worker.gpu_index == gpu_index]
    judging = layout.judging_bytes if any("validate" in worker.roles for worker in there) else 0
    passing = [held.passing_bytes or 0 for worker in there for held in measured.get(worker.name, ())]
    return int(free * USABLE_SHARE) - judging - (sum(passing) if gpu_index is None else 0)
