"""The figures of docs/tips.md on a CPU: what length, accumulation and the kind of adapter cost, and what they bring.

python tests/benchmarks/bench_tips.py             # all tables, under five minutes of one core
python tests/benchmarks/bench_tips.py length      # seconds of a step by the tokens of a row
python tests/benchmarks/bench_tips.py batch       # 8 rows at once, or one after the other
python tests/benchmarks/bench_tips.py kinds       # LoRA, DoRA, 4 bits, all weights: memory, speed and held-out loss over three seeds
python tests/benchmarks/bench_tips.py xz          # how far an adapter's file can be packed
"""

from __future__ import annotations

import lzma
import random
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import torch
from transformers import AutoTokenizer

from swarm import units
from swarm.settings import StreamSettings
from tests.trainer.conftest import Bench
from trainer import bases
from trainer.data.boundary import GoodRow, boundary_of
from trainer.data.tokens import Tokens
from trainer.inspection import facts_of_model
from trainer.loading import load_base
from trainer.loop import folder
from trainer.loop.batches import Batches
from trainer.loop.loop import Loop
from trainer.loop.recipe import Recipe
from trainer.place import Place
from trainer.quiet import quieten

DATA = [{"path": f"configs/data/demo/{name}.jsonl", "type": "chatml"} for name in ("train", "eval")]
HERE = Path(__file__).resolve().parents[2]
KINDS = {
    "lora r8": {"adapter": "lora"}, "dora r8": {"adapter": "lora", "use_dora": True}, "qlora r8": {"adapter": "qlora"}, "full": {"adapter": "full"},
}  # fmt: skip
RATES = dict.fromkeys(KINDS, (0.006,)) | {"full": (3e-4, 1e-3, 3e-3)}
"""That of the demo; all weights want a lower one, the best of these by the first seed."""
SEEDS, STEPS = 3, 40


def settings(**changes: object) -> StreamSettings:
    data = [{**one, "path": str(HERE / str(one["path"]))} for one in DATA]
    chosen = {
        "base_model": "tiny-toon", "datasets": data[:1], "test_datasets": data[1:], "sequence_len": 512, "micro_batch_size": 8,
        "max_steps": STEPS, "learning_rate": 6e-3, "lr_scheduler": "cosine", "bf16": False,
        **({} if changes.get("adapter") == "full" else {"lora_alpha": 32}), **changes,
    }  # fmt: skip
    return StreamSettings.model_validate(chosen)


def rows_of(given: StreamSettings) -> list[list[Tokens]]:
    place = bases.folder_of("tiny-toon")
    boundary = boundary_of(given, AutoTokenizer.from_pretrained(place), place)
    return [
        [item.row for item in boundary.rows([one]) if isinstance(item, GoodRow)]
        for one in (*given.datasets, *given.test_datasets)
    ]


def trained(given: StreamSettings, rows: list[Tokens], held_out: list[Tokens]) -> tuple[float, float, Loop]:
    """Seconds of a step in the middle of a training, and the held-out loss."""
    model = load_base(bases.folder_of("tiny-toon"), given, Place(Path(), "cpu"))
    loop = Loop(model)
    batches = Batches(
        rows, micro_batch_size=given.micro_batch_size, accumulation=given.gradient_accumulation_steps, seed=given.seed
    )
    stream = Recipe.of(given, facts_of_model(model), batches).stream(loop, "one")
    loop.add(stream)
    taken = []
    while stream.step < (given.max_steps or 1) - 1:
        began, step = time.perf_counter(), stream.step
        while stream.step == step:
            loop.tick()
        taken.append(time.perf_counter() - began)
    loss = loop.held_out(stream, held_out)["eval_loss"] if held_out else 0.0
    return statistics.median(taken), loss, loop


def length() -> None:
    print("tokens of a row   seconds of a step (4 rows)   beside half of it")
    draws, before = random.Random(0), 0.0
    for tokens in (128, 256, 512, 1024):
        ids = [[draws.randrange(8, 500) for _ in range(tokens)] for _ in range(8)]
        rows = [Tokens(one, one, 0) for one in ids]
        seconds, _, _ = trained(settings(max_steps=5, micro_batch_size=4, sequence_len=1024), rows, [])
        print(f"{tokens:15}   {seconds:26.2f}   {f'{seconds / before:.1f} x' if before else ''}")
        before = seconds


def batch() -> None:
    print("rows at once x passes   seconds of a step   held-out loss after 10 steps")
    rows, held_out = rows_of(settings())
    for micro_batch, passes in ((8, 1), (2, 4), (1, 8)):
        given = settings(max_steps=11, micro_batch_size=micro_batch, gradient_accumulation_steps=passes)
        seconds, loss, _ = trained(given, rows, held_out[:40])
        print(f"{micro_batch:12} x {passes:<8}   {seconds:17.2f}   {loss:.4f}")


def kinds_of_adapters() -> None:
    """Each kind in a process of its own, so that its peak of memory is its own."""
    print(
        f"kind       trained        rate     seconds of a step   tok/s   peak       held-out loss after {STEPS} steps"
    )
    for name in KINDS:
        subprocess.run([sys.executable, __file__, f"kind={name}"], check=True)


def one_kind(name: str) -> None:
    """At the best of its rates by the first seed, then with the others."""
    chosen = {"save_steps": STEPS, "eval_rows": 0, **KINDS[name]}
    tried = [of_roles(settings(learning_rate=rate, **chosen)) for rate in RATES[name]]
    rate, first = min(zip(RATES[name], tried, strict=True), key=lambda one: one[1]["eval_loss"])
    others = [of_roles(settings(learning_rate=rate, seed=seed, **chosen)) for seed in range(1, SEEDS)]
    losses = [one["eval_loss"] for one in (first, *others)]
    seconds = statistics.median(one["seconds"] / STEPS for one in (first, *others))
    speed = statistics.median(one["tokens_per_second"] for one in (first, *others))
    print(
        f"{name:9}  {int(first['trainable']):10,}   {rate:7.0e}   {seconds:19.2f}   {speed:5.0f}   {units.size(tried[0]['peak_bytes']):8}"
        f"   {statistics.mean(losses):.3f} +- {statistics.stdev(losses):.3f}", flush=True,
    )  # fmt: skip


def of_roles(given: StreamSettings) -> dict[str, float]:
    """Prepared, trained and validated as in a run."""
    with tempfile.TemporaryDirectory() as place:
        bench = Bench(Path(place))
        done = bench.trained(given)["trained"]
        judged = {"prepared": next(iter(bench.prepared)), "checkpoint": done.path, "sha256": done.sha256}
        verdict = bench.do("validate", given, **judged, figures=done.figures)["verdict"]
        return {**done.figures, **verdict.figures, "trainable": done.trainable}


def xz() -> None:
    rows, _ = rows_of(settings())
    _, _, loop = trained(settings(), rows, [])
    with tempfile.TemporaryDirectory() as place:
        folder.write(loop.streams[0], Path(place))
        whole = (Path(place) / "adapter_model.safetensors").read_bytes()
    packed = len(lzma.compress(whole, preset=9 | lzma.PRESET_EXTREME))
    print(f"adapter_model.safetensors: {len(whole):,} bytes, as .xz {packed:,} ({packed / len(whole):.0%})")


TABLES = {"length": length, "batch": batch, "kinds": kinds_of_adapters, "xz": xz}

if __name__ == "__main__":
    quieten()
    torch.set_num_threads(1)
    for wanted in sys.argv[1:] or TABLES:
        if wanted.startswith("kind="):
            one_kind(wanted.removeprefix("kind="))
        else:
            TABLES[wanted]()
            print()
