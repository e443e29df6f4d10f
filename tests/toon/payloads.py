"""The values that speed, size and token figures are taken from: one event, a table of them, and a session of 20 kB; always the same."""

from __future__ import annotations

import random
from typing import Any

STREAMS = ["wide", "narrow", "baseline", "deep", "quick", "w03", "w11", "alpha"]
PHASES = ["train", "validate", "prepare", "evaluate"]
NOTES = ["", "checkpoint saved", "lease renewed", "learning rate lowered, see log"]


def event(number: int, draw: random.Random) -> dict[str, Any]:
    """Twelve fields, as a worker reports them."""
    return {
        "seq": number,
        "time": f"2026-11-21T09:{draw.randrange(60):02d}:{draw.randrange(60):02d}.{draw.randrange(1000):03d}Z",
        "stream": draw.choice(STREAMS),
        "worker": f"w{draw.randrange(20):02d}",
        "phase": draw.choice(PHASES),
        "step": number * 10,
        "loss": round(draw.random() * 3, 4),
        "grad_norm": draw.random() * 2,
        "learning_rate": 2e-4 * draw.random(),
        "tokens_per_second": round(draw.random() * 9000, 1),
        "ok": draw.random() < 0.9,
        "note": draw.choice(NOTES),
    }


def table(rows: int = 1000) -> list[dict[str, Any]]:
    """Rows of twelve columns."""
    draw = random.Random(12)
    return [event(number, draw) for number in range(rows)]


def session() -> dict[str, Any]:
    """A nested object of about 20 kB: configuration, small tables, mixed lists."""
    draw = random.Random(20)
    return {
        "id": "s-20261121",
        "started": "2026-11-21T09:00:00Z",
        "config": {
            "base_model": "Qwen/Qwen2.5-0.5B-Instruct",
            "lora": {"r": 8, "alpha": 16, "dropout": 0.05, "targets": ["q_proj", "k_proj", "v_proj", "o_proj"]},
            "optimizer": {"name": "adamw", "lr": 2e-4, "betas": [0.9, 0.999], "weight_decay": 0},
        },
        "streams": [{"name": name, "rank": draw.choice([4, 8, 16]), "loss": draw.random()} for name in STREAMS],
        "runs": {name: {"best_loss": draw.random(), "steps": draw.randrange(1000)} for name in STREAMS},
        "agents": [
            {
                "name": f"agent-{number}",
                "role": draw.choice(PHASES),
                "skills": [draw.choice(STREAMS) for _ in range(3)],
                "last": {"seq": draw.randrange(1000), "text": f"Loss rose after step {draw.randrange(900)}, so: rest."},
            }
            for number in range(30)
        ],
        "history": [[number, round(draw.random(), 4), round(draw.random(), 4)] for number in range(100)],
        "events": [event(number, draw) for number in range(30)],
        "stages": {
            f"stage{number}": {
                "on": True,
                "loader": {"path": f"data/{number}.jsonl", "rows": {"first": 0, "last": number}},
                "tags": ["a", "b"],
            }
            for number in range(25)
        },
    }
