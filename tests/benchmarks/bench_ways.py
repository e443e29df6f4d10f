"""Ways to train N streams on one device, by tokens a stream: one pass for all, one after another, TRL, N processes, those under CUDA MPS.

    python tests/benchmarks/bench_ways.py      # on the GPU that is there (0.5B in Qwen2.5's shape, bf16), else on all cores (Llama, 512 x 4, fp32)

TOKENS, COUNTS, SIZE (0.5B, 1.5B; wide, embedded) and KIND (bf16, nf4; fp32, nf4) in the environment choose other points; OUT is a folder for ways.json.
Tokens a second by the wall clock, and in brackets how many times that one pass for all computes; `bound`: what one pass could compute at most by the roofline
(each weight read once; on a CPU the speed of a large matrix product).  Processes begin to measure together and each has its share of the cores.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import bench_gpu
import bench_loop
import torch
from bench_gpu import numbers, row
from bench_loop import CORES, loop_of, medians, trl_seconds

from trainer.device import free_memory, set_environment
from trainer.loop.loop import Loop
from trainer.quiet import quieten

ON_GPU = torch.cuda.is_available()
TOKENS = numbers("TOKENS", "64,256,1024" if ON_GPU else "16,64,256")
COUNTS = numbers("COUNTS", "8" if ON_GPU else "2,8")
SIZE, KIND = os.environ.get("SIZE", "0.5B" if ON_GPU else "wide"), os.environ.get("KIND", "bf16" if ON_GPU else "fp32")
RANK = 16
SECONDS = float(os.environ.get("SECONDS", "3"))
"""That processes train while they are measured."""
PATIENCE_SECONDS = 120.0
"""Until all of them have loaded the base."""
WAYS = ("together", "one after another", "TRL", "processes", "processes, MPS")


def base() -> Any:
    if ON_GPU:
        return bench_gpu.base(SIZE, KIND)
    return {"wide": bench_loop.wide, "embedded": bench_loop.embedded}[SIZE](KIND == "nf4")


def clock() -> float:
    """Of work that is done."""
    if ON_GPU:
        torch.cuda.synchronize()
    return time.perf_counter()


def rows(length: int) -> list[Any]:
    if ON_GPU:
        return [row(length)] * 4
    return [bench_loop.Tokens([5 + at % 900 for at in range(length)], [5 + at % 900 for at in range(length)], 0)] * 4


def ticking(model: Any, length: int, streams: int) -> Loop:
    return loop_of(model, [rows(length)] * streams, 1, RANK)


# ---- in one process --------------------------------------------------------------------------------------------------


def in_one_process(length: int) -> dict[str, dict[int, float]]:
    """Tokens a second by way and streams; one after another and TRL are the same for any number of them."""
    model = base()
    loop = ticking(model, length, 1)
    (alone,) = medians(loop.tick, clock=clock)
    found = {"together": {}, "bound": {}, "one after another": dict.fromkeys(COUNTS, length / alone)}
    for count in COUNTS:
        found["bound"][count] = bound(loop, alone, length, count)
    loop.layers.remove()
    for count in COUNTS:
        loop = ticking(model, length, count)
        (seconds,) = medians(loop.tick, clock=clock)
        found["together"][count] = count * length / seconds
        loop.layers.remove()
    arguments = {"use_cpu": False, "bf16": KIND == "bf16", "optim": "adamw_torch_fused"} if ON_GPU else {}
    trl = trl_seconds(model, rows(length) * 8, 1, rank=RANK, clock=clock, **arguments)
    del model, loop
    free_memory()
    return {**found, "TRL": dict.fromkeys(COUNTS, length / trl)}


def bound(loop: Loop, alone: float, length: int, count: int) -> float:
    if ON_GPU:
        return bench_gpu.bound(KIND, length, count) * length / alone
    return CORES * count * length / bench_loop.at_peak(loop, count * length)


# ---- N processes -----------------------------------------------------------------------------------------------------


def in_processes(count: int) -> dict[int, float]:
    """Tokens a second of all together by length, which all measure at the same time.  Raises RuntimeError with what one says that ends."""
    environment = {**os.environ, "OMP_NUM_THREADS": str(max(1, CORES // count))}
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        started = [
            subprocess.Popen([sys.executable, __file__, "one", place, str(number)], env=environment, stderr=subprocess.PIPE, text=True)
            for number in range(count)
        ]  # fmt: skip
        try:
            return {length: _measured_at_once(length, started, folder) for length in TOKENS}
        finally:
            for process in started:
                process.kill()
                process.communicate()


def _measured_at_once(length: int, started: Sequence[subprocess.Popen[str]], folder: Path) -> float:
    _await(f"ready-{length}-*", started, folder, PATIENCE_SECONDS)
    (folder / f"go-{length}").touch()
    return sum(float(path.read_text()) for path in _await(f"rate-{length}-*", started, folder, SECONDS + 60))


def _await(pattern: str, started: Sequence[subprocess.Popen[str]], folder: Path, seconds: float) -> list[Path]:
    deadline = time.monotonic() + seconds
    while len(found := list(folder.glob(pattern))) < len(started):
        if failed := next((process for process in started if process.poll()), None):
            raise RuntimeError(failed.communicate()[1].strip().rpartition("\n")[2])
        if time.monotonic() > deadline:
            raise RuntimeError(f"{len(found)} of {len(started)} processes came within {seconds:.0f} s")
        time.sleep(0.02)
    return found


def one_of_them(folder: Path, number: str) -> None:
    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    model = base()
    for length in TOKENS:
        loop = ticking(model, length, 1)
        for _ in range(3):
            loop.tick()
        (folder / f"ready-{length}-{number}").touch()
        while not (folder / f"go-{length}").exists():
            time.sleep(0.005)
        began, ticks = clock(), 0
        while clock() - began < SECONDS:
            loop.tick()
            ticks += 1
        staged = folder / f"staged-{length}-{number}"
        staged.write_text(str(ticks * length / (clock() - began)))
        staged.rename(folder / f"rate-{length}-{number}")
        loop.layers.remove()


# ---- CUDA MPS --------------------------------------------------------------------------------------------------------


@contextmanager
def mps() -> Iterator[None]:
    """CUDA's multi-process service for the processes that start meanwhile.  Raises RuntimeError where it cannot be had."""
    if not ON_GPU:
        raise RuntimeError("no CUDA device here")
    with tempfile.TemporaryDirectory() as place:
        folders = {"CUDA_MPS_PIPE_DIRECTORY": f"{place}/pipe", "CUDA_MPS_LOG_DIRECTORY": f"{place}/log"}
        for folder in folders.values():
            Path(folder).mkdir()
        _control(["-d"], None, folders)
        os.environ.update(folders)
        try:
            yield
        finally:
            for name in folders:
                del os.environ[name]
            _control([], "quit\n", folders)


def _control(words: Sequence[str], order: str | None, folders: dict[str, str]) -> None:
    command, environment = ["nvidia-cuda-mps-control", *words], {**os.environ, **folders}
    try:
        done = subprocess.run(command, input=order, env=environment, text=True, capture_output=True, timeout=30, check=False)  # fmt: skip
    except (OSError, subprocess.TimeoutExpired) as error:
        raise RuntimeError(str(error)) from error
    if done.returncode:
        raise RuntimeError(f"{done.stdout} {done.stderr}".strip())


# ---- the table -------------------------------------------------------------------------------------------------------


def main() -> None:
    device = torch.cuda.get_device_name() if ON_GPU else f"{CORES} cores"
    print(
        f"{SIZE} {KIND} on {device}, torch {torch.__version__}, load {os.getloadavg()[0]:.1f}: tokens a second",
        flush=True,
    )
    found: dict[str, dict[str, float]] = {f"{length} x {count}": {} for length in TOKENS for count in COUNTS}
    for length in TOKENS:
        for way, rates in in_one_process(length).items():
            for count, rate in rates.items():
                found[f"{length} x {count}"][way] = rate
    for count in COUNTS:
        for length, rate in in_processes(count).items():
            found[f"{length} x {count}"]["processes"] = rate
    try:
        with mps():
            for count in COUNTS:
                for length, rate in in_processes(count).items():
                    found[f"{length} x {count}"]["processes, MPS"] = rate
    except RuntimeError as error:
        print(f"  CUDA MPS is left out: {error}")
    show(found)
    if folder := os.environ.get("OUT"):
        Path(folder, "ways.json").write_text(
            json.dumps({"device": device, "size": SIZE, "kind": KIND, **found}, indent=1)
        )


def show(found: dict[str, dict[str, float]]) -> None:
    for name, rates in found.items():
        shared = rates["together"]
        ways = [f"{way} {rates[way]:,.0f} ({shared / rates[way]:.2f}x)" for way in WAYS[1:] if way in rates]
        print(f"  {name:>10}: together {shared:,.0f} (bound {rates['bound']:,.0f}); {'; '.join(ways)}", flush=True)


if __name__ == "__main__":
    set_environment()
    quieten()
    warnings.filterwarnings("ignore")
    torch.set_num_threads(CORES)
    if sys.argv[1:2] == ["one"]:
        one_of_them(Path(sys.argv[2]), sys.argv[3])
    else:
        main()
