"""Figures of the loop, as ratios of one interleaved run (CPU time of one thread, medians).

    python tests/benchmarks/bench_loop.py            # all tables
    python tests/benchmarks/bench_loop.py shared     # 8 streams in one pass against one after another, by tokens a stream
    python tests/benchmarks/bench_loop.py rows       # the demo's rows: 8 streams against padded steps as TRL makes them
    python tests/benchmarks/bench_loop.py one        # one stream against a plain PyTorch loop and against TRL's trainer

Ratios above 1 say that the loop is faster.
"""

from __future__ import annotations

import os
import random
import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import torch
from peft import LoraConfig, get_peft_model
from torch.nn.functional import pad
from transformers import AutoModelForCausalLM, AutoTokenizer

from tests.trainer.loop import bases
from trainer.data.tokens import IGNORED, Tokens
from trainer.loop.batches import Batches
from trainer.loop.loop import Loop
from trainer.loop.schedules import NamedSchedule
from trainer.loop.stream import Stream
from trainer.quiet import quieten

STREAMS = 8
ROUNDS = int(os.environ.get("ROUNDS", "9"))
EMBEDDED = "trainer/embedded/tiny-toon"
DEMO_ROWS = "configs/data/demo/train.jsonl"


def wide(nf4: bool):
    model = bases.decoder(
        hidden_size=512, intermediate_size=1536, num_hidden_layers=4, num_attention_heads=8, num_key_value_heads=4, head_dim=64,
        vocab_size=1024, max_position_embeddings=1024,
    )  # fmt: skip
    return bases.quantised(model) if nf4 else model


def embedded(nf4: bool):
    model = AutoModelForCausalLM.from_pretrained(EMBEDDED, dtype=torch.float32)
    return bases.quantised(model) if nf4 else model


def config(rank: int) -> LoraConfig:
    return LoraConfig(task_type="CAUSAL_LM", target_modules="all-linear", r=rank, lora_alpha=2 * rank)


def adamw(values) -> torch.optim.Optimizer:
    return torch.optim.AdamW(values, lr=1e-4, fused=True)


def loop_of(model, rows: list[list[Tokens]], size: int, rank: int) -> Loop:
    loop = Loop(model)
    streams = []
    for number, own in enumerate(rows):
        adapter = loop.adapter(config(rank), number)
        streams.append(
            Stream(
                name=str(number), adapter=adapter, optimizer=adamw(adapter.parameters()), steps=10**9,
                batches=Batches(own, micro_batch_size=size, seed=number), schedule=NamedSchedule("constant", steps=1), audits=2,
            )
        )  # fmt: skip
    loop.add(*streams)
    return loop


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


def medians(*functions: Callable[[], None]) -> list[float]:
    """Seconds of CPU time, the functions taken in turn."""
    taken: list[list[float]] = [[] for _ in functions]
    for round_ in range(ROUNDS + 2):
        for function, seconds in zip(functions, taken, strict=True):
            began = time.process_time()
            function()
            if round_ >= 2:
                seconds.append(time.process_time() - began)
    return [statistics.median(seconds) for seconds in taken]


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
                    f"  {name:42} {apart / together:5.2f}x {STREAMS * bare / together:5.2f}x   ({together * 1e3:.0f} ms)",
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
        f"{STREAMS} streams on the demo's rows ({mean:.0f} tokens at the mean) / {STREAMS} padded steps with logits of every position"
    )
    for nf4 in (False, True):
        for size in (8, 1):
            loop = loop_of(embedded(nf4), [data] * STREAMS, size, 8)
            steps = [
                plain_step(embedded(nf4), data, size, 8, seed) for seed in range(STREAMS)
            ]  # each stream's own rows
            together, bare = medians(loop.tick, lambda steps=steps: [step() for step in steps])
            name = f"tiny-toon, {'NF4' if nf4 else 'fp32'}, {size} rows a stream"
            print(
                f"  {name:42} {bare / together:5.2f}x   ({together / STREAMS * 1e3:.1f} ms a stream and step)",
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


def trl_seconds(model, data: list[Tokens], size: int) -> float:
    from datasets import Dataset
    from transformers import TrainerCallback
    from trl.trainer.sft_config import SFTConfig
    from trl.trainer.sft_trainer import SFTTrainer

    seconds: list[float] = []

    class Clock(TrainerCallback):
        def on_step_begin(self, *args, **kwargs) -> None:
            self.began = time.process_time()

        def on_step_end(self, *args, **kwargs) -> None:
            seconds.append(time.process_time() - self.began)

    with tempfile.TemporaryDirectory() as folder:
        arguments = SFTConfig(
            output_dir=folder, dataset_kwargs={"skip_prepare_dataset": True}, max_length=None, per_device_train_batch_size=size,
            max_steps=ROUNDS + 2, use_cpu=True, bf16=False, gradient_checkpointing=False, save_strategy="no", report_to="none",
            disable_tqdm=True, logging_strategy="no",
        )  # fmt: skip
        table = Dataset.from_dict({"input_ids": [row.ids for row in data], "labels": [row.labels for row in data]})
        peft = get_peft_model(model, config(8))
        words = AutoTokenizer.from_pretrained(EMBEDDED)
        SFTTrainer(peft, arguments, train_dataset=table, processing_class=words, callbacks=[Clock()]).train()
    return statistics.median(seconds[2:])


if __name__ == "__main__":
    quieten()
    warnings.filterwarnings("ignore")
    torch.set_num_threads(1)
    for name in sys.argv[1:] or ("shared", "rows", "one"):
        {"shared": shared, "rows": rows, "one": one}[name]()
