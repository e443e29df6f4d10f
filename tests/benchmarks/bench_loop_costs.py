"""What a stream costs the streams beside it: memory, and the steps of a stream that joins; and how fast an order is followed.

python -m tests.benchmarks.bench_loop_costs memory     # bytes of an added stream, measured, against what is predicted
python -m tests.benchmarks.bench_loop_costs control    # steps from an order to its effect, and what a joining stream costs the others
"""

from __future__ import annotations

import random
import statistics
import sys
import threading
import time
import warnings
from itertools import accumulate

import torch

from swarm.planning.estimate import estimate
from swarm.planning.packing import bytes_of
from swarm.settings import StreamSettings
from tests.benchmarks.bench_loop import STREAMS, demo_rows, embedded, loop_of, medians, stream_of, wide
from trainer.data.tokens import Tokens
from trainer.inspection import facts_of_model
from trainer.loop.boundary import Boundary
from trainer.loop.loop import Loop
from trainer.loop.parts import Stepped
from trainer.loop.stream import Stream
from trainer.quiet import quieten


def memory() -> None:
    """What a group takes beside its base: tensors that stay, and the highest sum that a tick allocates beside them."""
    print("bytes of streams of rank 16 beside their base, in passes of a CPU one after another: measured / predicted")
    facts = facts_of_model(wide(False))
    for size, length in ((1, 128), (1, 256), (8, 64), (4, 512), (1, 1024)):
        ids = [random.Random(1).randrange(3, 1024) for _ in range(length)]
        rows = [[Tokens(ids, ids, 0)] * size]
        settings = StreamSettings.model_validate(
            {"base_model": "-", "datasets": [{"path": "-"}], "lora_r": 16, "sequence_len": length, "micro_batch_size": size}
        )  # fmt: skip
        need = estimate(facts, settings, on_gpu=False, shared=True)
        for count in (1, 2, 4, 8):
            held, passing = measured(loop_of(wide(False), rows * count, size, 16))
            predicted = bytes_of([need] * count, count, cores=1) - need.shared
            of_passes = predicted - count * need.held
            print(
                f"  {count} x {size} x {length:4} tokens: parameters, gradients, moments {held:12,} = {held / count / need.held:.2f}; "
                f"activations and logits {passing:12,} / {of_passes:12,} = {passing / of_passes:.2f}; "
                f"together {(held + passing) / predicted:.2f}",
                flush=True,
            )


def measured(loop: Loop) -> tuple[int, int]:
    """Bytes that are held between steps beside the base, and the most that are allocated on top of them within a tick."""
    for _ in range(2):  # the optimizers make their moments
        loop.tick()
    layers = loop.layers.stacked.values()
    stacks = [stack for layer in layers for stack in (layer.a, layer.b, layer.magnitude, layer.norm)]
    moments = [value for one in loop.streams for state in one.optimizer.state.values() for value in state.values()]
    tensors = [*stacks, *(stack.grad for stack in stacks if stack.grad is not None), *moments]
    held = {value.untyped_storage().data_ptr(): value.untyped_storage().nbytes() for value in tensors}
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as found:
        loop.tick()
    events = [event for event in found.profiler.kineto_results.events() if event.name() == "[memory]"]  # type: ignore[union-attr]
    changes = [event.nbytes() for event in sorted(events, key=lambda event: event.start_ns())]
    return sum(held.values()), max(accumulate(changes))


def control() -> None:
    """In the demo's rows, 8 rows a stream: an order to one of 8 streams, and a stream that joins 8 others, in steps of one stream."""
    data, rounds = demo_rows(), 5
    loop = loop_of(embedded(False), [data] * STREAMS, 8, 8)
    alone = loop_of(embedded(False), [data], 8, 8)
    (step,) = medians(alone.tick)
    ordered: list[float] = []
    effects: list[float] = []

    class Stops(Boundary):
        def stepped(self, stream: Stream, done: Stepped) -> str | None:
            return "stop" if ordered and stream.name == "3" else None

        def ended(self, stream: Stream, why: str) -> None:
            effects.append(time.perf_counter() - ordered[0])

    loop.boundary = Stops()
    began = time.perf_counter()
    loop.tick()
    seconds = time.perf_counter() - began
    timer = threading.Timer(seconds / 3, lambda: ordered.append(time.perf_counter()))
    timer.start()
    while not effects:
        loop.tick()
    print(f"order to effect: {effects[0] / seconds:.2f} steps of the group ({effects[0]:.2f} s)")
    taken = []
    for number in range(rounds):
        loop = loop_of(embedded(False), [data] * STREAMS, 8, 8)
        for _ in range(2):
            loop.tick()
        began = time.process_time()
        joining = stream_of(loop, data, 8, 8, 100 + number)
        joining.audits = 0  # its first step is audited
        loop.add(joining)
        joined = time.process_time() - began
        firsts, later = [], []
        for at in range(4):
            began = time.process_time()
            loop.tick()
            (later if at else firsts).append(time.process_time() - began)
        taken.append(joined + firsts[0] - statistics.median(later))
    print(
        f"a stream joins {STREAMS} others: {statistics.median(taken) / step:.2f} of its own steps ({step * 1e3:.0f} ms each)"
    )


FIGURES = {"memory": memory, "control": control}

if __name__ == "__main__":
    quieten()
    warnings.filterwarnings("ignore")
    torch.set_num_threads(1)
    for name in sys.argv[1:] or FIGURES:
        FIGURES[name]()
