"""Which worker processes a run starts, with which roles, on which device: decided from estimates, before anything runs.

Streams of one base that the shared engine trains are packed into one process: one for each GPU, or for each such group on a CPU, where
the cores are divided.  Any other stream has a trainer to itself.  What memory does not hold waits.
Nothing is measured or started here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate, chain, cycle

from swarm import units
from swarm.errors import UserError, UserErrors
from swarm.event import JUDGING, Role
from swarm.launch.layout import Layout, WorkerSpec
from swarm.planning import packing
from swarm.planning.estimate import Need
from swarm.planning.gpus import Devices, Gpu
from swarm.planning.packing import Groups, alone
from swarm.settings import Placement

PROCESS_BYTES = 700_000_000
"""A worker's memory on the host before it loads a model: interpreter, torch, trl (measured: 474 MB after the imports)."""
CONTEXT_BYTES = 600_000_000
"""Memory of a GPU that CUDA and its libraries take in each process."""
USABLE_SHARE = 0.9
"""Share of a GPU's free memory that is planned with; the rest covers fragmentation and errors of the estimate."""
LEAST_CPU_STREAMS = 4
"""Trainers at once on a small CPU, so that a person can compare streams early."""
GPU_THREADS_AT_MOST = 4
"""Threads of a worker with a GPU: they only load its data."""


def place(needs: Mapping[str, Need], devices: Devices, placement: Placement, groups: Groups = ()) -> Layout:
    """The workers of a run.  Raises UserErrors naming every stream that fits on no device."""
    made = (_on_gpus if devices.gpus else _on_cpu)(needs, groups, devices, placement)
    own = {name: needs[name].own for group in groups for name in group}
    return replace(made, own_bytes=own, judging_bytes=max(need.judging for need in needs.values()))


# ---- light roles -----------------------------------------------------------------------------------------------------


def _light(device: str, threads: int, gpu_index: int | None = None, *, judge: bool = True) -> list[WorkerSpec]:
    """Workers for prepare, validate and evaluate: where they share a device, one with one import serves them all.

    Preparing needs no GPU; without a `judge` the trainers judge.
    """
    if gpu_index is None:
        return [WorkerSpec("clerk", ("prepare", *JUDGING), device, threads)]
    made = [WorkerSpec("preparer", ("prepare",), "cpu", threads)]
    return [*made, WorkerSpec("judge", JUDGING, device, threads, gpu_index)] if judge else made


# ---- CPU -------------------------------------------------------------------------------------------------------------


def _on_cpu(needs: Mapping[str, Need], groups: Groups, devices: Devices, placement: Placement) -> Layout:
    room = _cpu_room(needs, devices)
    if room is not None:
        _refuse(needs, "this machine", room - PROCESS_BYTES, devices.free_memory_bytes)
    asked = None if placement.cpu_streams == "auto" else placement.cpu_streams
    dealt = _dealt(groups, alone(groups, [*needs]), _trainers_on_cpu(needs, groups, devices, room, asked))
    parts = [packing.units(needs, groups, names) for names in dealt]
    threads = max(1, devices.cores // len(dealt))
    slots = packing.slots_in(parts, None if asked else room, PROCESS_BYTES, at_most=asked or len(needs), cores=threads)
    workers = [
        WorkerSpec(
            f"trainer-{number}", ("train",), "cpu", threads, streams=None if len(names) == len(needs) else names, slots=count,
            predicted_bytes=PROCESS_BYTES + max(packing.bytes_of(unit, count, cores=threads) for unit in part),
        )
        for number, (names, part, count) in enumerate(zip(dealt, parts, slots, strict=True), start=1)
    ]  # fmt: skip
    return Layout((*_light("cpu", threads), *workers), (_note_of_cpu(workers, len(needs), devices, threads),))


def _trainers_on_cpu(
    needs: Mapping[str, Need], groups: Groups, devices: Devices, room: int | None, asked: int | None
) -> int:
    """Processes at once: one for each group, and for each stream that is trained by itself."""
    each = packing.units(needs, groups, [*needs])
    if asked:
        return min(len(each), asked)
    largest = sorted((packing.bytes_of(unit, 1, cores=1) + PROCESS_BYTES for unit in each), reverse=True)
    return max(1, _counted(largest[: max(devices.cores, LEAST_CPU_STREAMS)], room))


def _dealt(groups: Groups, single: Sequence[str], trainers: int) -> list[tuple[str, ...]]:
    """The streams of each trainer: groups take turns where there are fewer trainers, other streams take whichever of theirs is free."""
    for_groups = min(len(groups), trainers - bool(single and trainers > 1))
    dealt = [tuple(chain.from_iterable(groups[at::for_groups])) for at in range(for_groups)]
    for_single = min(len(single), trainers - for_groups)
    if single and not for_single:
        return [(*dealt[0], *single), *dealt[1:]]
    return [*dealt, *[tuple(single)] * for_single]


def _cpu_room(needs: Mapping[str, Need], devices: Devices) -> int | None:
    """Memory for trainers and their processes; None where it is not known."""
    if devices.free_memory_bytes is None:
        return None
    return devices.free_memory_bytes - PROCESS_BYTES - max(need.judging for need in needs.values())


def _note_of_cpu(workers: Sequence[WorkerSpec], streams: int, devices: Devices, threads: int) -> str:
    trainers = sum(worker.slots for worker in workers)
    processes = "one process" if len(workers) == 1 else f"{len(workers)} processes"
    inside = f" in {processes}" if trainers > len(workers) else ""
    free = "" if devices.free_memory_bytes is None else f", {units.size(devices.free_memory_bytes)} free"
    waiting = f", {streams - trainers} waiting" if streams > trainers else ""
    return f"cpu: {trainers} at once{inside}{waiting}, {threads} of {devices.cores} cores each{free}"


# ---- GPUs ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Room:
    """A GPU and the memory of it that is planned with."""

    gpu: Gpu
    bytes: int | None
    """None if the driver does not report it."""

    def holds(self, bytes_needed: int) -> bool:
        return self.bytes is None or bytes_needed + CONTEXT_BYTES <= self.bytes

    def less(self, bytes_taken: int) -> _Room:
        return replace(self, bytes=None if self.bytes is None else self.bytes - bytes_taken)


@dataclass(frozen=True, slots=True)
class _Slots:
    """What is trained on one GPU."""

    room: _Room
    count: int
    """Streams at once."""
    streams: tuple[str, ...]


def _on_gpus(needs: Mapping[str, Need], groups: Groups, devices: Devices, placement: Placement) -> Layout:
    rooms = [_Room(gpu, None if gpu.free_bytes is None else int(gpu.free_bytes * USABLE_SHARE)) for gpu in devices.gpus]
    rooms.sort(
        key=lambda room: (-(room.bytes or 0), room.gpu.index)
    )  # the largest first: a stream that fits anywhere fits there
    _refuse_what_no_gpu_holds(needs, rooms)
    judge, slots = _judged(needs, groups, rooms, placement)
    trainers = len(slots) if groups else _count(slots)
    threads = max(1, min(GPU_THREADS_AT_MOST, devices.cores // (trainers + judge)))
    light = _light(rooms[0].gpu.device, threads, rooms[0].gpu.index, judge=judge)
    return Layout(
        (*light, *_trainers(slots, len(needs), threads, judging=not judge, together=bool(groups))),
        tuple(_note_of(slot, needs, groups) for slot in slots),
    )


def _judged(
    needs: Mapping[str, Need], groups: Groups, rooms: list[_Room], placement: Placement
) -> tuple[bool, list[_Slots]]:
    """A judge of its own on the largest GPU, unless a trainer would lose its place: then trainers do its roles too."""
    widest, *others = rooms
    each = max(need.judging for need in needs.values()) + CONTEXT_BYTES
    both = {
        name: replace(need, overhead=need.overhead + max(0, need.judging - need.total)) for name, need in needs.items()
    }
    by_trainers = _shared_out(both, groups, rooms, placement)
    slots = _shared_out(needs, groups, [widest.less(each), *others], placement)
    if {name for slot in slots for name in slot.streams} == set(needs) and _count(slots) >= _count(by_trainers):
        return True, slots
    return False, by_trainers


def _count(slots: Sequence[_Slots]) -> int:
    return sum(slot.count for slot in slots)


def _shared_out(
    needs: Mapping[str, Need], groups: Groups, rooms: Sequence[_Room], placement: Placement
) -> list[_Slots]:
    """Places dealt to the GPUs one by one, until every stream has one or every GPU is full."""
    fitting = [tuple(name for name, need in needs.items() if room.holds(need.total)) for room in rooms]
    most = [_most(needs, groups, room, streams, placement) for room, streams in zip(rooms, fitting, strict=True)]
    counts = [0] * len(rooms)
    for at in cycle(range(len(rooms))):
        if counts == most or sum(counts) >= len(needs):
            break
        counts[at] += counts[at] < most[at]
    return [_Slots(room, count, streams) for room, count, streams in zip(rooms, counts, fitting, strict=True) if count]


def _most(needs: Mapping[str, Need], groups: Groups, room: _Room, streams: Sequence[str], placement: Placement) -> int:
    """How many streams one GPU takes at once, whichever of its own they are."""
    if placement.streams_per_gpu != "auto":
        return min(placement.streams_per_gpu, len(streams))
    if room.bytes is None:
        return min(1, len(streams))
    if groups and streams:
        part = packing.units(needs, groups, streams)
        return packing.slots_in([part], room.bytes, CONTEXT_BYTES, at_most=len(streams))[0]
    return _counted(sorted((needs[name].total + CONTEXT_BYTES for name in streams), reverse=True), room.bytes)


def _trainers(
    slots: Sequence[_Slots], streams: int, threads: int, *, judging: bool, together: bool
) -> list[WorkerSpec]:
    """`together`: one process for each GPU, else one for each stream."""
    roles: tuple[Role, ...] = ("train", *JUDGING) if judging else ("train",)
    places = [slot for slot in slots for _ in range(1 if together else slot.count)]
    return [
        WorkerSpec(
            f"trainer-{number}", roles, slot.room.gpu.device, threads, slot.room.gpu.index,
            None if len(slot.streams) == streams else slot.streams, slot.count if together else 1,
        )
        for number, slot in enumerate(places, start=1)
    ]  # fmt: skip


def _note_of(slot: _Slots, needs: Mapping[str, Need], groups: Groups) -> str:
    if groups:
        most = CONTEXT_BYTES + max(
            packing.bytes_of(unit, slot.count) for unit in packing.units(needs, groups, slot.streams)
        )
    else:
        most = sum(sorted((needs[name].total + CONTEXT_BYTES for name in slot.streams), reverse=True)[: slot.count])
    waiting = len(slot.streams) - slot.count
    free = (
        "free memory unknown" if slot.room.gpu.free_bytes is None else f"of {units.size(slot.room.gpu.free_bytes)} free"
    )
    shared = f" ({len(slot.streams)} streams take turns)" if waiting > 0 else ""
    return f"{slot.room.gpu.device}: {slot.count} at once{shared}, at most {units.size(most)} {free}"


# ---- what fits -------------------------------------------------------------------------------------------------------


def _counted(largest: Sequence[int], room: int | None) -> int:
    """How many fit at once, whichever they are: the largest come first."""
    return len(largest) if room is None else sum(taken <= room for taken in accumulate(largest))


def _refuse_what_no_gpu_holds(needs: Mapping[str, Need], rooms: Sequence[_Room]) -> None:
    widest = rooms[0]
    if widest.bytes is not None and all(room.bytes is not None for room in rooms):
        _refuse(needs, widest.gpu.device, widest.bytes - CONTEXT_BYTES, widest.gpu.free_bytes)


def _refuse(needs: Mapping[str, Need], device: str, room_bytes: int, free_bytes: int | None) -> None:
    """Raises UserErrors naming every stream that needs more."""
    has = f"{device} has room for {units.size(max(0, room_bytes))} ({units.size(free_bytes)} free)"
    too_large = {name: need for name, need in needs.items() if need.total > room_bytes}
    if too_large:
        whats = {name: f"needs {units.size(need.total)}, {has}" for name, need in too_large.items()}
        raise UserErrors([UserError(f"streams.{name}", whats[name], _fix(need)) for name, need in too_large.items()])


def _fix(need: Need) -> str:
    """The setting that makes the largest part smaller."""
    if need.weights >= need.total / 2:
        return "use a smaller base, or `adapter: qlora` if it is not set"
    if need.passing >= need.total / 3:
        return "lower `micro_batch_size` or `sequence_len`, or set `gradient_checkpointing: true`"
    return "lower `lora_r`, or use `optimizer: adamw_8bit`"
