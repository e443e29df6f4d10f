"""Tokens of digests, counted with the real o200k vocabulary, against the bound that keeps them within their budget.

    npm install gpt-tokenizer && python tests/benchmarks/bench_digest.py

Wanted: sixteen streams in 600 tokens or less, and the bound never below the count.
"""

from __future__ import annotations

import json
import random
import statistics
import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from swarm.views.digest import digest, tokens_at_most
from tests.swarm.views.test_digest import SIXTEEN, busy_run

NODE = (
    "import {encode} from 'gpt-tokenizer/encoding/o200k_base'; import fs from 'fs';"
    "console.log(JSON.stringify(JSON.parse(fs.readFileSync(0, 'utf8')).map(text => encode(text).length)))"
)
LETTERS = "abcdefghijklmnopqrstuvwxyz0123456789.-_"


def random_names(rng: random.Random) -> list[str]:
    return sorted({"a" + "".join(rng.choices(LETTERS, k=rng.randrange(64))) for _ in range(rng.choice([1, 9, 150]))})


def texts(names_of: object, budget: int) -> list[str]:
    found = []
    for seed in range(40):
        rng = random.Random(seed)
        story = busy_run(rng, names_of(rng) if callable(names_of) else SIXTEEN)
        found.append(digest(story.state, story.now, budget))
    return found


def main() -> int:
    for title, names_of in (("sixteen streams", None), ("names of random letters", random_names)):
        made = texts(names_of, 600)
        try:
            out = subprocess.run(
                ["node", "--input-type=module", "-e", NODE],
                input=json.dumps(made),
                capture_output=True,
                text=True,
                check=True,
            )
        except (OSError, subprocess.CalledProcessError):
            print("`npm install gpt-tokenizer` in this folder to count tokens (o200k)")
            return 1
        counted = json.loads(out.stdout)
        shares = [count / tokens_at_most(text) for count, text in zip(counted, made, strict=True)]
        print(f"{title}: {statistics.median(counted):.0f} tokens at the median, {max(counted)} at most (budget 600)")
        print(f"  of the bound: {statistics.median(shares):.2f} at the median, {max(shares):.2f} at most (wanted <= 1)")
    return 0


if __name__ == "__main__":
    sys.exit(main())
