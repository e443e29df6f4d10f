"""Tokens per second of `swarm serve` against transformers' plain `generate`: same base, prompt, tokens and greedy text.

python tests/benchmarks/bench_serve.py [BASE] [--tokens 128] [--rounds 5]

Rounds are interleaved; of each way the median counts.  `streamed` is the time to the last event of a streamed answer.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM

from trainer import bases
from trainer.data.prompt import Asker, prompt_of_base
from trainer.data.tokens import stop_tokens
from trainer.loading import load_tokenizer

ROWS = Path(__file__).parents[2] / "configs/data/demo/eval.jsonl"


def plain(model: Any, prompt: list[int], stops: list[int], tokens: int) -> tuple[list[int], float]:
    ids = torch.tensor([prompt])
    how: dict[str, Any] = {
        "do_sample": False,
        "max_new_tokens": tokens,
        "eos_token_id": stops,
        "pad_token_id": stops[0],
    }
    began = time.perf_counter()
    made = model.generate(input_ids=ids, attention_mask=torch.ones_like(ids), **how)[0, len(prompt) :].tolist()
    return made, len(made) / (time.perf_counter() - began)


def served(url: str, name: str, prompt: list[int], tokens: int, *, stream: bool) -> tuple[str, float]:
    body = {
        "model": name,
        "prompt": prompt,
        "max_tokens": tokens,
        "temperature": 0,
        "stream": stream,
        "stream_options": {"include_usage": True},
    }
    request = urllib.request.Request(f"{url}/completions", json.dumps(body).encode())
    began = time.perf_counter()
    with urllib.request.urlopen(request) as answer:
        raw = answer.read().decode()
    seconds = time.perf_counter() - began
    told = (
        [json.loads(line[6:]) for line in raw.splitlines() if line.startswith("data: {")]
        if stream
        else [json.loads(raw)]
    )
    text = "".join(choice["text"] for part in told for choice in part["choices"])
    return text, told[-1]["usage"]["completion_tokens"] / seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("base", nargs="?", default=bases.EMBEDDED)
    parser.add_argument("--tokens", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=5)
    longest = max((json.loads(line)["messages"][0]["content"] for line in ROWS.read_text().splitlines()), key=len)
    parser.add_argument("--prompt", default=f"to json: {longest}", help="what is asked; it should have a long answer")
    options = parser.parse_args()
    folder = bases.folder_of(options.base)
    tokenizer = load_tokenizer(folder)
    stops = sorted(stop_tokens(tokenizer, folder))
    prompt = Asker(tokenizer, prompt_of_base(tokenizer, stops), 1 << 14).question(options.prompt)
    model = AutoModelForCausalLM.from_pretrained(str(folder), dtype=torch.float32).eval()
    ids, _ = plain(model, prompt, stops, options.tokens)
    command = [
        sys.executable,
        "-P",
        "-m",
        "trainer.ship.serve",
        options.base,
        "--port",
        "0",
        "--json",
        "--device",
        "cpu",
    ]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, env={**os.environ, "HF_HUB_OFFLINE": "1"}
    ) as server:
        try:
            assert server.stdout
            told = json.loads(server.stdout.readline())
            rates: dict[str, list[float]] = {"plain": [], "served": [], "streamed": []}
            text = tokenizer.decode(ids, skip_special_tokens=True)
            for _ in range(options.rounds):
                rates["plain"].append(plain(model, prompt, stops, options.tokens)[1])
                for way in ("served", "streamed"):
                    found, rate = served(
                        told["url"], told["models"][0], prompt, options.tokens, stream=way == "streamed"
                    )
                    assert found == text, f"another text: {found!r} and {text!r}"
                    rates[way].append(rate)
        finally:
            server.terminate()
    medians = {way: statistics.median(values) for way, values in rates.items()}
    print(
        f"{Path(options.base).name}, prompt {len(prompt)}, answer {len(ids)} tokens, {torch.get_num_threads()} threads"
    )
    for way, rate in medians.items():
        print(f"{way:<9} {rate:8.1f} tokens/s  {rate / medians['plain']:.2f} x plain")


if __name__ == "__main__":
    main()
