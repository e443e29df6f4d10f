"""The figures of docs/tips.md on a CPU: what length, accumulation and the kind of adapter cost, and what they bring.

python tests/benchmarks/bench_tips.py             # all tables, under three minutes of one core
python tests/benchmarks/bench_tips.py length      # seconds of a step by the tokens of a row
python tests/benchmarks/bench_tips.py batch       # 8 rows at once, or one after the other
python tests/benchmarks/bench_tips.py kinds       # LoRA, DoRA, 4 bits, all weights: speed and held-out loss over three seeds
python tests/benchmarks/bench_tips.py xz          # how far an adapter's file can be packed
"""

from __future__ import annotations

import lzma
import random
import statistics
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import torch
from transformers import AutoTokenizer

from swarm import kinds
from swarm.settings import StreamSettings
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
SEEDS, STEPS = 3, 40


def settings(**changes: object) -> StreamSettings:
    data = [{**one, "path": str(HERE / str(one["path"]))} for one in DATA]
    chosen = {
        "base_model": "tiny-toon", "datasets": data[:1], "test_datasets": data[1:], "sequence_len": 512, "micro_batch_size": 8,
        "max_steps": STEPS, "learning_rate": 6e-3, "lora_alpha": 32, "lr_scheduler": "cosine", "bf16": False, **changes,
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
    print(
        f"kind       trained        seconds of a step   held-out loss after {STEPS} steps: mean, and spread of {SEEDS} seeds"
    )
    rows, held_out = rows_of(settings())
    for name, chosen in KINDS.items():
        if (
            chosen["adapter"] not in kinds.installed("adapter")
            or "shared" not in kinds.adapter(str(chosen["adapter"])).engines
        ):
            continue
        runs = [trained(settings(seed=seed, **chosen), rows, held_out) for seed in range(SEEDS)]
        losses, stream = [loss for _, loss, _ in runs], runs[0][2].streams[0]
        count = sum(value.numel() for value in stream.adapter.parameters())
        spread = f"{statistics.mean(losses):.4f}, {statistics.stdev(losses):.4f}"
        print(f"{name:9}  {count:10,}   {statistics.median(seconds for seconds, _, _ in runs):19.2f}   {spread}")


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
        TABLES[wanted]()
        print()
