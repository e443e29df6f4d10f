"""Figures of the loop, as ratios of one interleaved run (CPU time of one thread, medians; `rows` by the wall clock on all cores too).

    python tests/benchmarks/bench_loop.py            # all tables
    python tests/benchmarks/bench_loop.py shared     # 8 streams in one pass against one after another, by tokens a stream
    python tests/benchmarks/bench_loop.py rows       # the demo's rows: 8 streams against padded steps as TRL makes them
    python tests/benchmarks/bench_loop.py one        # one stream against a plain PyTorch loop and against TRL's trainer
    python tests/benchmarks/bench_loop.py passes     # what a pass costs besides its tokens (`plan.pass_cost`)
    python tests/benchmarks/bench_loop.py map        # speed-up by tokens a stream and streams: a table, and docs/loop-cpu.svg

Ratios above 1 say that the loop is faster; `reachable` is the ratio of a pass that does nothing but its products with the base's and
the adapters' matrices, at the speed of a large one.
"""

from __future__ import annotations

import io
import os
import random
import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Sequence
from contextlib import redirect_stdout
from functools import cache
from math import prod
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import torch
from peft import LoraConfig, get_peft_model
from torch.nn.functional import pad
from transformers import AutoModelForCausalLM, AutoTokenizer

from tests.trainer.loop import decoders
from trainer.data.tokens import IGNORED, Tokens
from trainer.loop.batches import Batches
from trainer.loop.layer import shape_of
from trainer.loop.loop import Loop
from trainer.loop.plan import Row
from trainer.loop.schedules import NamedSchedule
from trainer.loop.stream import Stream
from trainer.quiet import quieten

STREAMS = 8
CORES = len(os.sched_getaffinity(0))
ROUNDS = int(os.environ.get("ROUNDS", "9"))
EMBEDDED = "trainer/embedded/tiny-toon"
DEMO_ROWS = "configs/data/demo/train.jsonl"


def wide(nf4: bool):
    model = decoders.decoder(
        hidden_size=512, intermediate_size=1536, num_hidden_layers=4, num_attention_heads=8, num_key_value_heads=4, head_dim=64,
        vocab_size=1024, max_position_embeddings=1024,
    )  # fmt: skip
    return decoders.quantised(model) if nf4 else model


def embedded(nf4: bool):
    model = AutoModelForCausalLM.from_pretrained(EMBEDDED, dtype=torch.float32)
    return decoders.quantised(model) if nf4 else model


def config(rank: int) -> LoraConfig:
    return LoraConfig(task_type="CAUSAL_LM", target_modules="all-linear", r=rank, lora_alpha=2 * rank)


def adamw(values) -> torch.optim.Optimizer:
    return torch.optim.AdamW(values, lr=1e-4, fused=True)


def loop_of(model, rows: list[list[Tokens]], size: int, rank: int) -> Loop:
    loop = Loop(model)
    loop.add(*[stream_of(loop, own, size, rank, number) for number, own in enumerate(rows)])
    return loop


def stream_of(loop: Loop, rows: list[Tokens], size: int, rank: int, number: int) -> Stream:
    adapter = loop.adapter(config(rank), number)
    return Stream(
        name=str(number), adapter=adapter, optimizer=adamw(adapter.parameters()), steps=10**9,
        batches=Batches(rows, micro_batch_size=size, seed=number), schedule=NamedSchedule("constant", steps=1), audits=2,
    )  # fmt: skip


def plain_step(model, rows: list[Tokens], size: int, rank: int, seed: int = 0) -> Callable[[], None]:
    """PEFT, padded rows with a mask, logits of every position: what a bare loop and TRL compute."""
    peft = get_peft_model(model, config(rank)).train()
    values = [value for value in peft.parameters() if value.requires_grad]
    optimizer, batches, step = adamw(values), Batches(rows, micro_batch_size=size, seed=seed), iter(range(10**9))

    def run() -> None:
        (part,) = batches.of_step(next(step))
        width = max(len(row.ids) for row in part)
        ids = torch.stack([pad(torch.tensor(row.ids), (0, width - len(row.ids))) for row in part])
        labels = torch.stack([pad(torch.tensor(row.labels), (0, width - len(row.ids)), value=IGNORED) for row in part])
        mask = torch.stack([pad(torch.ones(len(row.ids), dtype=torch.long), (0, width - len(row.ids))) for row in part])
        peft(input_ids=ids, attention_mask=mask, labels=labels, use_cache=False).loss.backward()
        torch.nn.utils.clip_grad_norm_(values, 1.0)
        optimizer.step()
        optimizer.zero_grad()

    return run


def medians(*functions: Callable[[], object], clock: Callable[[], float] = time.process_time) -> list[float]:
    """Seconds, the functions taken in turn."""
    taken: list[list[float]] = [[] for _ in functions]
    for round_ in range(ROUNDS + 2):
        for function, seconds in zip(functions, taken, strict=True):
            began = clock()
            function()
            if round_ >= 2:
                seconds.append(clock() - began)
    return [statistics.median(seconds) for seconds in taken]


@cache
def peak_flops() -> float:
    """Of a large product in fp32 on one thread."""
    matrix = torch.randn(1536, 1536)
    (seconds,) = medians(lambda: matrix @ matrix)
    return 2 * 1536**3 / seconds


def at_peak(loop: Loop, tokens: float) -> float:
    """Seconds: two products with a frozen matrix a token, three with a trained one."""
    frozen = sum(prod(shape_of(layer)) for layer in loop.layers.linear.values())
    trained = sum(value.numel() for value in loop.streams[0].adapter.parameters())
    return tokens * (4 * frozen + 6 * trained) / peak_flops()


def shared() -> None:
    print(f"{STREAMS} streams in one pass / one after another (same code), and / {STREAMS} steps of a bare PEFT loop")
    for title, base, vocabulary in (("llama 512 x 4", wide, 1024), ("tiny-toon", embedded, 1024)):
        for nf4 in (False, True):
            for tokens in (16, 64):
                draw = random.Random(0)
                rows = [
                    [
                        Tokens(ids, ids, 0)
                        for ids in ([draw.randrange(3, vocabulary) for _ in range(tokens)] for _ in range(8))
                    ]
                ] * STREAMS
                loop = loop_of(base(nf4), rows, 1, 16)

                def tick(exact: bool, loop=loop) -> None:
                    loop.exact = exact
                    loop.tick()

                one = plain_step(base(nf4), rows[0], 1, 16)
                together, apart, bare = medians(lambda tick=tick: tick(False), lambda tick=tick: tick(True), one)
                name = f"{title}, {'NF4' if nf4 else 'fp32'}, {tokens} tokens a stream"
                print(
                    f"  {name:42} {apart / together:5.2f}x {STREAMS * bare / together:5.2f}x   ({together * 1e3:.0f} ms, "
                    f"reachable {apart / at_peak(loop, STREAMS * tokens):.2f}x)",
                    flush=True,
                )


def demo_rows(count: int = 400, length: int = 256) -> list[Tokens]:
    import json

    tokenizer, made = AutoTokenizer.from_pretrained(EMBEDDED), []
    for line in Path(DEMO_ROWS).read_text().splitlines()[:count]:
        messages = json.loads(line)["messages"]
        whole = tokenizer.apply_chat_template(messages, tokenize=True, return_dict=False)[:length]
        start = len(
            tokenizer.apply_chat_template(messages[:-1], tokenize=True, add_generation_prompt=True, return_dict=False)
        )
        made.append(Tokens(whole, ([IGNORED] * start + whole[start:])[: len(whole)], start))
    return made


def rows() -> None:
    data = demo_rows()
    mean = statistics.mean(len(row.ids) for row in data)
    print(
        f"{STREAMS} streams on the demo's rows ({mean:.0f} tokens at the mean) / {STREAMS} padded steps with logits of every position, "
        f"of a bare PEFT loop and of TRL's trainer; on several cores the faster of one pass and of {CORES} at once, as `engine: auto` takes it"
    )
    for nf4 in (False, True):
        for size in (8, 1):
            loop = loop_of(embedded(nf4), [data] * STREAMS, size, 8)
            steps = [
                plain_step(embedded(nf4), data, size, 8, seed) for seed in range(STREAMS)
            ]  # each stream's own rows

            def apart(steps=steps) -> None:
                for step in steps:
                    step()

            together, bare = medians(loop.tick, apart)
            reachable = bare / at_peak(loop, STREAMS * size * mean)
            trl = trl_of_streams(nf4, data, size)
            torch.set_num_threads(CORES)

            def tick(threads: int, loop=loop) -> None:
                loop.threads = threads
                loop.tick()

            clock = time.perf_counter
            one, more, bare_wall = medians(lambda t=tick: t(1), lambda t=tick: t(CORES), apart, clock=clock)
            wall, trl_wall = min(one, more), trl_of_streams(nf4, data, size, clock=clock)
            torch.set_num_threads(1)
            name = f"tiny-toon, {'NF4' if nf4 else 'fp32'}, {size} rows a stream"
            print(
                f"  {name:34} {bare / together:5.2f}x {trl / together:5.2f}x   ({together / STREAMS * 1e3:.1f} ms a stream and step, "
                f"reachable {reachable:.2f}x); wall on {CORES} cores {bare_wall / wall:5.2f}x {trl_wall / wall:5.2f}x",
                flush=True,
            )


def one() -> None:
    print("one stream / a plain PyTorch loop, and / TRL's trainer, each step")
    data = demo_rows()
    for title, base in (("tiny-toon", embedded), ("llama 512 x 4", wide)):
        for nf4 in (False, True):
            for size in (8, 1):
                mine, bare = medians(loop_of(base(nf4), [data], size, 8).tick, plain_step(base(nf4), data, size, 8))
                trl = trl_seconds(base(nf4), data, size)
                name = f"{title}, {'NF4' if nf4 else 'fp32'}, {size} rows"
                print(f"  {name:42} {bare / mine:5.2f}x {trl / mine:5.2f}x   ({mine * 1e3:.1f} ms)", flush=True)
    print("one stream on rows of one length, all supervised: nothing to save / a plain PyTorch loop")
    for tokens in (16, 64, 256):
        ids = [[random.Random(number).randrange(3, 1024) for _ in range(tokens)] for number in range(16)]
        even = [Tokens(row, row, 0) for row in ids]
        mine, bare = medians(loop_of(wide(False), [even], 1, 16).tick, plain_step(wide(False), even, 1, 16))
        print(f"  {f'llama 512 x 4, fp32, {tokens} tokens':42} {bare / mine:5.2f}x   ({mine * 1e3:.1f} ms)", flush=True)


def trl_of_streams(nf4: bool, data: list[Tokens], size: int, **options) -> float:
    """Seconds of a step of all streams by TRL's trainer, each on its own rows: those that the loop computes."""
    each = [trl_steps(embedded(nf4), data, size, seed=seed, **options) for seed in range(STREAMS)]
    return statistics.median(map(sum, zip(*each, strict=True)))


def trl_seconds(model, data: list[Tokens], size: int, **options) -> float:
    """Of a step of TRL's trainer, on the rows that a loop of the same seed takes."""
    return statistics.median(trl_steps(model, data, size, **options))


def trl_steps(
    model,
    data: list[Tokens],
    size: int,
    *,
    rank: int = 8,
    seed: int = 0,
    clock: Callable[[], float] = time.process_time,
    **arguments,
) -> list[float]:
    """Seconds of each step of TRL's trainer on a CPU, or as its `arguments` say; the first two are left out."""
    from datasets import Dataset
    from transformers import TrainerCallback
    from trl.trainer.sft_config import SFTConfig
    from trl.trainer.sft_trainer import SFTTrainer

    seconds: list[float] = []

    class Clock(TrainerCallback):
        def on_step_begin(self, *args, **kwargs) -> None:
            self.began = clock()

        def on_step_end(self, *args, **kwargs) -> None:
            seconds.append(clock() - self.began)

    arguments = {"use_cpu": True, "bf16": False, **arguments}
    with tempfile.TemporaryDirectory() as folder:
        made = SFTConfig(
            output_dir=folder, dataset_kwargs={"skip_prepare_dataset": True}, max_length=None, per_device_train_batch_size=size,
            max_steps=ROUNDS + 2, gradient_checkpointing=False, save_strategy="no", report_to="none", disable_tqdm=True,
            logging_strategy="no", seed=seed, data_seed=seed, **arguments,
        )  # fmt: skip
        table = Dataset.from_dict({"input_ids": [row.ids for row in data], "labels": [row.labels for row in data]})
        peft = get_peft_model(model, config(rank))
        words = AutoTokenizer.from_pretrained(EMBEDDED)
        with redirect_stdout(io.StringIO()):  # its summary
            SFTTrainer(peft, made, train_dataset=table, processing_class=words, callbacks=[Clock()]).train()
    return seconds[2:]


def passes() -> None:
    """The time of a pass by its tokens, as a straight line: where it meets zero tokens is what a pass costs besides its tokens."""
    print(
        "milliseconds of a pass besides its tokens, of a token, and the first in tokens: measured / taken by the loop"
    )
    for title, base in (("tiny-toon", embedded), ("llama 512 x 4", wide)):
        lengths = (8, 16, 32, 64)
        loop = loop_of(base(False), [[Tokens([5], [5], 0)]], 1, 8)

        def a_pass(length: int, loop=loop) -> None:
            row = Row(0, [5] * length, [IGNORED] * (length - 4) + [5] * 4, weight=1.0)
            loop._compute([row] * 4, torch.zeros(1, dtype=torch.float64), [0])

        seconds = medians(*[lambda length=length, a_pass=a_pass: a_pass(length) for length in lengths])
        slope, start = statistics.linear_regression([4 * length for length in lengths], seconds)
        print(
            f"  {title:14} {start * 1e3:6.1f} {slope * 1e3:7.3f}  {start / slope:5.0f} / {loop.pass_cost}", flush=True
        )


TOKENS, COUNTS = (16, 64, 256, 1024), (2, 4, 8, 16)


def map_() -> None:
    found = regimes(lambda: wide(False), TOKENS, COUNTS)
    Path("docs/loop-cpu.svg").write_text(drawn(found, "llama 512 x 4, fp32, one CPU core"), encoding="utf-8")


def regimes(base: Callable, tokens: Sequence[int], counts: Sequence[int]) -> dict[tuple[int, int], float]:
    """Speed-up of one pass for all over one after another, by tokens a stream and streams."""
    print(f"load {os.getloadavg()[0]:.1f}; speed-up of a shared pass; columns: streams")
    print(f"{'tokens':>8}" + "".join(f"{count:>8}" for count in counts), flush=True)
    found = {}
    for length in tokens:
        for count in counts:
            ids = [random.Random(length).randrange(3, 1024) for _ in range(length)]
            loop = loop_of(base(), [[Tokens(ids, ids, 0)] * 8] * count, 1, 16)

            def tick(exact: bool, loop=loop) -> None:
                loop.exact = exact
                loop.tick()

            together, apart = medians(lambda tick=tick: tick(False), lambda tick=tick: tick(True))
            found[length, count] = apart / together
        print(f"{length:>8}" + "".join(f"{found[length, count]:>7.2f}x" for count in counts), flush=True)
    return found


def drawn(found: dict[tuple[int, int], float], title: str) -> str:
    """The map as an SVG: the greener, the more a shared pass saves."""
    tokens, counts = ([*dict.fromkeys(key[at] for key in found)] for at in (0, 1))
    parts = [
        f'<text x="10" y="18">Speed-up of a shared pass: {title}</text>',
        '<text x="10" y="40">tokens a stream</text>',
    ]
    parts += [f'<text x="{150 + 70 * at}" y="40">{count} streams</text>' for at, count in enumerate(counts)]
    for row, length in enumerate(tokens):
        parts.append(f'<text x="10" y="{70 + 30 * row}">{length}</text>')
        for at, count in enumerate(counts):
            value = found[length, count]
            light = max(45, min(97, round(97 - 50 * (value - 1))))
            parts += [
                f'<rect x="{145 + 70 * at}" y="{50 + 30 * row}" width="66" height="28" fill="hsl(140,45%,{light}%)"/>',
                f'<text x="{155 + 70 * at}" y="{70 + 30 * row}">{value:.2f}x</text>',
            ]
    width, height = max(160 + 70 * len(counts), 220 + 6 * len(title)), 60 + 30 * len(tokens)
    head = f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" font-family="sans-serif" font-size="12">'
    return "\n".join([head, *parts, "</svg>", ""])


FIGURES = {
    "shared": shared,
    "rows": rows,
    "one": one,
    "passes": passes,
    "map": map_,
}

if __name__ == "__main__":
    quieten()
    warnings.filterwarnings("ignore")
    torch.set_num_threads(1)
    print(f"load {os.getloadavg()[0]:.1f}")
    for name in sys.argv[1:] or ("shared", "rows", "one"):
        FIGURES[name]()
