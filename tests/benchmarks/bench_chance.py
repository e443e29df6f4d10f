"""Does the promoter take chance for more?  A pool of seeds of a shortened demo is trained in one process, then arms are drawn from it.

    python tests/benchmarks/bench_chance.py [POOL.json]      # the pool is kept there and used again

null    100 draws of 4 arms x 3 seeds, all of one configuration, test level 1 % over all arms: at most 5 may be called better.
power   100 draws of 2 arms x 3 seeds, one with a tenth of the learning rate: the other is named in at least 90.
"""

from __future__ import annotations

import json
import random
import sys
import time
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from swarm import events as ev
from swarm.policy import chance
from swarm.policy.comparison import RowScores, compared
from swarm.settings import Promotion, RunSettings, StreamSettings
from swarm.standing import Stream

SEEDS, SLOW_SEEDS, STEPS, ROWS, TRIALS = 48, 12, 20, 60, 100
RATE = 6e-3
SHA = "a" * 64


def trained() -> dict[str, list[list[float]]]:
    """Loss of each held-out row, by configuration and seed; the base's under `base`, the weights under `weight`."""
    import torch
    from peft import get_peft_model, set_peft_model_state_dict
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from trainer import bases
    from trainer.data.boundary import RowBoundary
    from trainer.data.tokens import stop_tokens, tokeniser_of
    from trainer.inspection import facts_of_model
    from trainer.judge.heldout import row_losses
    from trainer.loop.batches import Batches
    from trainer.loop.loop import Loop
    from trainer.loop.recipe import Recipe
    from trainer.quiet import quieten

    quieten()
    torch.set_num_threads(1)

    def settings(seed: int, rate: float) -> StreamSettings:
        return StreamSettings.model_validate(
            {
                "base_model": "tiny-toon", "datasets": [{"path": "configs/data/demo/train.jsonl"}], "lora_alpha": 32,
                "test_datasets": [{"path": "configs/data/demo/eval.jsonl"}], "max_steps": STEPS, "seed": seed,
                "learning_rate": rate, "lr_scheduler": "cosine", "micro_batch_size": 4,
            }
        )  # fmt: skip

    folder = bases.folder_of("tiny-toon")
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    tokenizer, facts = AutoTokenizer.from_pretrained(folder), facts_of_model(model)
    one = settings(0, RATE)
    boundary = RowBoundary(tokeniser_of(one, tokenizer, stop_tokens(tokenizer, folder)))
    rows = [item.row for item in boundary.rows(one.datasets)]
    held_out = [item.row for item in boundary.rows(one.test_datasets)][:ROWS]
    wanted = [("fast", seed, RATE) for seed in range(SEEDS)] + [("slow", seed, RATE / 10) for seed in range(SLOW_SEEDS)]
    base = row_losses(model, held_out, lambda: None)
    pool: dict[str, list[list[float]]] = {
        "weight": [[row.tokens for row in base]], "base": [[row.nats / row.tokens for row in base]], "fast": [], "slow": []
    }  # fmt: skip
    loop, states = Loop(model), []
    for start in range(0, len(wanted), 12):
        streams = []
        for name, seed, rate in wanted[start : start + 12]:
            chosen = settings(seed, rate)
            batches = Batches(rows, micro_batch_size=4, seed=seed)
            streams.append(Recipe.of(chosen, facts, batches).stream(loop, f"{name}-{seed}"))
        loop.add(*streams)
        loop.run()
        states += [
            (name, stream.adapter.state_dict()) for (name, _, _), stream in zip(wanted[start:], streams, strict=False)
        ]
        print(f"trained {len(states)} of {len(wanted)}", file=sys.stderr, flush=True)
    config = Recipe.of(one, facts, Batches(rows, micro_batch_size=4, seed=0)).config
    tuned = get_peft_model(AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32), config).eval()
    for name, state in states:
        set_peft_model_state_dict(tuned, state)
        pool[name].append([row.nats / row.tokens for row in row_losses(tuned, held_out, lambda: None)])
    return pool


def verdict(
    pool: dict[str, list[list[float]]], arms: dict[str, list[list[float]]], level: float, seed: int
) -> ev.Compared:
    """What the promoter says of these arms, each a list of seeds."""
    weight, base = pool["weight"][0], pool["base"][0]
    one = StreamSettings.model_validate({"base_model": "tiny-toon", "datasets": [{"path": "x.jsonl"}]})
    settings, streams, scores = {}, [], {}
    for arm, seeds in arms.items():
        for number, row in enumerate(seeds, start=1):
            name = f"{arm}.s{number}"
            loss = sum(a * b for a, b in zip(row, weight, strict=True)) / sum(weight)
            done = ev.Trained(ref=f"{name}/train", tok=1, step=STEPS, path="x", sha256=SHA, trainable=1)
            score = ev.Score(
                ref=f"{name}/evaluate", tok=1, sha256=SHA, rows_sha256=SHA, rows=ROWS, figures={"eval_loss": loss}
            )
            streams.append(replace(Stream(name), trained=done, score=score))
            settings[name] = one.model_copy(update={"replica_of": arm})
            scores[name] = RowScores(row, base, weight)
    run = RunSettings(name="bench", streams=settings, promotion=Promotion(test_level=level))
    return compared(streams, run, scores, random.Random(seed), SHA)


def main() -> None:
    began = time.monotonic()
    path = Path(sys.argv[1]) if len(sys.argv) > 1 else None
    pool = json.loads(path.read_text()) if path and path.is_file() else trained()
    if path:
        path.write_text(json.dumps(pool))
    losses = [
        sum(a * b for a, b in zip(row, pool["weight"][0], strict=True)) / sum(pool["weight"][0]) for row in pool["fast"]
    ]
    spread = chance.spread_of([losses])
    assert spread
    print(
        f"{len(losses)} seeds: held-out {min(losses):.3f} to {max(losses):.3f}, spread {spread.value:.3f}; {time.monotonic() - began:.0f} s"
    )
    generator = random.Random(0)
    for level in (0.01, 0.05):
        false = 0
        for trial in range(TRIALS):
            drawn = generator.sample(pool["fast"], 12)
            arms = {f"arm{at}": drawn[3 * at : 3 * at + 3] for at in range(4)}
            false += verdict(pool, arms, level, trial).tied is None
        print(f"null, level {level}: {false} of {TRIALS} called better")
    named = 0
    for trial in range(TRIALS):
        arms = {"slow": generator.sample(pool["slow"], 3), "fast": generator.sample(pool["fast"], 3)}
        found = verdict(pool, arms, 0.01, trial)
        named += found.tied is None and found.chosen.startswith("fast")
    print(f"power, level 0.01: the better one is named in {named} of {TRIALS}")


if __name__ == "__main__":
    main()
