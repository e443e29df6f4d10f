"""Figures of the shared loop on a GPU: random bases in Qwen2.5's shapes, in bf16 and in NF4, rows that are supervised throughout.

    python tests/benchmarks/bench_gpu.py map         # N streams in one pass against one after another, beside the roofline's bound
    python tests/benchmarks/bench_gpu.py memory      # bytes that the estimate predicts against the peak
    python tests/benchmarks/bench_gpu.py profile     # where the time of one tick goes

`bench_ways.py` compares with TRL and with N processes, also under CUDA MPS.  SIZES, KINDS, TOKENS and COUNTS in the environment choose other points (`TOKENS=64,256`); OUT is the folder of gpu.json and the maps as SVG.
Seconds are medians of ticks that end with a synchronisation, after warm-up; one after another is N times one stream alone.
"""

from __future__ import annotations

import json
import os
import random
import statistics
import sys
import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import torch
from bench_loop import drawn, loop_of
from transformers import Qwen2Config, Qwen2ForCausalLM

from tests.trainer.loop import decoders
from trainer.data.tokens import Tokens
from trainer.device import free_memory, set_environment
from trainer.loop.loop import Loop
from trainer.quiet import quieten

SHAPES = {"0.5B": (896, 4864, 24, 14, 2), "1.5B": (1536, 8960, 28, 12, 2)}
KINDS = ("bf16", "nf4")
RANK, ROUNDS = 16, int(os.environ.get("ROUNDS", "5"))
OPERATIONS_PER_SECOND = 798e12
BYTES_PER_SECOND = {"NVIDIA H200": 4.3e12, "NVIDIA H100 80GB HBM3": 3.0e12}
"""Measured on these: a product of 8192 x 8192 matrices in bf16; a copy on the device, read and written."""
OUT = Path(os.environ.get("OUT", "."))


def numbers(name: str, default: str) -> list[int]:
    return [int(word) for word in os.environ.get(name, default).split(",")]


def base(size: str, kind: str) -> Any:
    hidden, inner, layers, heads, groups = SHAPES[size]
    shape = Qwen2Config(
        vocab_size=151_936, hidden_size=hidden, intermediate_size=inner, num_hidden_layers=layers, num_attention_heads=heads,
        num_key_value_heads=groups, max_position_embeddings=4096, tie_word_embeddings=True,
    )  # fmt: skip
    torch.manual_seed(0)
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.bfloat16)
    try:
        with torch.device("cuda"):
            model = Qwen2ForCausalLM(shape)
    finally:
        torch.set_default_dtype(before)
    return decoders.quantised(model, "cuda", torch.bfloat16) if kind == "nf4" else model


def row(tokens: int) -> Tokens:
    ids = [random.Random(tokens).randrange(3, 150_000) for _ in range(tokens)]
    return Tokens(ids, ids, 0)


def loop_with(model: Any, streams: int, tokens: int) -> Loop:
    return loop_of(model, [[row(tokens)] * 4] * streams, 1, RANK)


def seconds(function: Callable[[], object], rounds: int = ROUNDS) -> float:
    taken = []
    for number in range(rounds + 2):
        torch.cuda.synchronize()
        began = time.perf_counter()
        function()
        torch.cuda.synchronize()
        if number >= 2:
            taken.append(time.perf_counter() - began)
    return statistics.median(taken)


def keep(name: str, found: dict[str, Any]) -> None:
    path = OUT / "gpu.json"
    kept = json.loads(path.read_text()) if path.exists() else {}
    about = {"device": torch.cuda.get_device_name(), "torch": torch.__version__, "date": time.strftime("%Y-%m-%d")}
    path.write_text(json.dumps({**kept, **about, name: {**kept.get(name, {}), **found}}, indent=1))


# ---- the map ---------------------------------------------------------------------------------------------------------


def bound(kind: str, tokens: int, streams: int) -> float:
    """Of the speed-up by the roofline: weights are read, and unpacked from NF4, once instead of N times."""

    rate = BYTES_PER_SECOND[torch.cuda.get_device_name()]

    def one(count: int) -> float:
        unpacked = 2.53 / rate if kind == "nf4" else 0.0
        return unpacked + max(2 * count / OPERATIONS_PER_SECOND, 2 / rate)

    return streams * one(tokens) / one(streams * tokens)


def map_() -> None:
    tokens, counts, made = numbers("TOKENS", "64,256,1024"), numbers("COUNTS", "8,32"), dict[str, Any]()
    for size in os.environ.get("SIZES", "0.5B,1.5B").split(","):
        for kind in os.environ.get("KINDS", ",".join(KINDS)).split(","):
            model, title = base(size, kind), f"{size} {kind}"
            print(f"{title}: ms of a step alone; for N streams ms together, speed-up, the roofline's bound, peak GB")
            found = made[title] = {}
            for length in tokens:
                found |= _measured(model, kind, length, counts)
            del model
            free_memory()
            speed = {(length, n): found[f"{length} x {n}"]["speed_up"] for length in tokens for n in counts}
            name = f"{title}, {torch.cuda.get_device_name()}"
            (OUT / f"loop-{size}-{kind}.svg").write_text(drawn(speed, name), encoding="utf-8")
            keep("map", made)


def _measured(model: Any, kind: str, length: int, counts: Sequence[int]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    line = f"  {length:>5} tokens "
    for count in (1, *counts):
        loop = loop_with(model, count, length)
        torch.cuda.reset_peak_memory_stats()
        taken = seconds(loop.tick)
        peak = torch.cuda.max_memory_allocated()
        assert not any(stream.failure for stream in loop.streams)
        loop.layers.remove()
        del loop
        free_memory()
        if count == 1:
            alone, line = taken, line + f"{taken * 1e3:7.1f}"
        ratio = count * alone / taken
        found[f"{length} x {count}"] = {
            "seconds": taken, "speed_up": ratio, "bound": bound(kind, length, count), "peak_bytes": peak,
            "tokens_per_second": count * length / taken,
        }  # fmt: skip
        if count > 1:
            line += (
                f"  | N={count} {taken * 1e3:7.1f} {ratio:5.2f}x ({bound(kind, length, count):5.2f}x) {peak / 1e9:4.1f}"
            )
    print(line, flush=True)
    return found


# ---- memory ----------------------------------------------------------------------------------------------------------


def memory() -> None:
    from swarm.planning import packing
    from swarm.planning.estimate import estimate
    from swarm.settings import StreamSettings
    from trainer.inspection import facts_of_model
    from trainer.loop.batches import Batches
    from trainer.loop.recipe import Recipe

    found = {}
    cases: list[dict[str, Any]] = [
        {}, {"gradient_checkpointing": True}, {"use_dora": True}, {"micro_batch_size": 8}, {"lora_r": 64, "micro_batch_size": 1},
    ]  # fmt: skip
    for kind in KINDS:
        model = base("0.5B", kind)
        facts = facts_of_model(model)
        for changes in cases:
            settings = StreamSettings.model_validate(
                {
                    "base_model": "-", "datasets": [{"path": "-"}], "lora_r": 16, "sequence_len": 512, "micro_batch_size": 2,
                    "max_steps": 10, "adapter": "qlora" if kind == "nf4" else "lora", **changes,
                }
            )  # fmt: skip
            need = estimate(facts, settings, on_gpu=True, shared=True)
            for count in (1, 4):
                free_memory()
                torch.cuda.reset_peak_memory_stats()
                loop = Loop(model)
                batches = Batches([row(settings.sequence_len)] * 16, micro_batch_size=settings.micro_batch_size)
                loop.add(*(Recipe.of(settings, facts, batches).stream(loop, str(number)) for number in range(count)))
                for _ in range(3):
                    loop.tick()
                peak, predicted = torch.cuda.max_memory_allocated(), packing.bytes_of([need] * count, count)
                loop.layers.remove()
                del loop
                name = f"0.5B {kind}, {changes or 'r 16, 2 x 512'}, {count} streams"
                found[name] = {"peak": peak, "predicted": predicted}
                print(f"  {name:70} {peak / 1e9:6.2f} / {predicted / 1e9:6.2f} GB = {peak / predicted:.2f}", flush=True)
        del model
    keep("memory", found)


# ---- where the time goes ---------------------------------------------------------------------------------------------


def profile() -> None:
    import cProfile
    import pstats

    from torch.profiler import ProfilerActivity
    from torch.profiler import profile as recorded

    for kind in KINDS:
        model = base("0.5B", kind)
        loop = loop_with(model, 8, 256)
        taken = seconds(loop.tick)
        print(f"== 0.5B {kind}, 8 streams x 256 tokens: {taken * 1e3:.1f} ms a tick; {_parts(loop)}", flush=True)
        with recorded(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as made:
            for _ in range(3):
                loop.tick()
            torch.cuda.synchronize()
        events = made.key_averages()
        on_gpu = sum(event.self_device_time_total for event in events) / 3e3
        calls = {
            event.key: event.count // 3
            for event in events
            if event.key.startswith("cuda") or "item" in event.key or "nonzero" in event.key
        }
        print(f"   kernels {on_gpu:.1f} ms a tick; calls a tick: {calls}")
        print(events.table(sort_by="self_cuda_time_total", row_limit=16, max_name_column_width=60))
        print(events.table(sort_by="self_cpu_time_total", row_limit=22, max_name_column_width=60))
        python = cProfile.Profile()
        python.enable()
        for _ in range(3):
            loop.tick()
        python.disable()
        pstats.Stats(python).sort_stats("tottime").print_stats(18)
        loop.layers.remove()
        del model, loop
        free_memory()


def _parts(loop: Loop) -> str:
    """Milliseconds of a tick's parts, each ended by a synchronisation."""
    taken: dict[str, float] = {}

    def timed(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def run(*args: Any, **kwargs: Any) -> Any:
            torch.cuda.synchronize()
            began = time.perf_counter()
            result = function(*args, **kwargs)
            torch.cuda.synchronize()
            taken[name] = taken.get(name, 0.0) + time.perf_counter() - began
            return result

        return run

    head = loop.head
    kept = head.hidden, head.backward, loop._finish
    head.hidden, head.backward, loop._finish = (  # type: ignore[method-assign]
        timed("forward", head.hidden), timed("head and backward", head.backward), timed("steps", loop._finish)
    )  # fmt: skip
    for _ in range(3):
        loop.tick()
    head.hidden, head.backward, loop._finish = kept  # type: ignore[method-assign]
    return ", ".join(f"{name} {total / 3 * 1e3:.1f} ms" for name, total in taken.items())


FIGURES = {"map": map_, "memory": memory, "profile": profile}

if __name__ == "__main__":
    set_environment()
    quieten()
    warnings.filterwarnings("ignore")
    if not torch.cuda.is_available():
        sys.exit("bench_gpu: no CUDA device here; bench_loop.py and bench_ways.py measure on a CPU")
    print(torch.cuda.get_device_name(), torch.__version__)
    for name in sys.argv[1:] or FIGURES:
        began = time.perf_counter()
        print(f"{name}:", flush=True)
        FIGURES[name]()
        print(f"  ({time.perf_counter() - began:.0f} s)", flush=True)
