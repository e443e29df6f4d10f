"""What a language model pays to take part, in o200k tokens: the guide, the MCP schema, reading, and exports beside compact JSON.

    npm install gpt-tokenizer && python tests/benchmarks/bench_agents.py

Without that package the tokens are estimated.  The run is made up: 16 streams of 120 steps, and 200 notes in the log.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from swarm.agents.agent import Agent, open_run
from swarm.agents.skill import TEXT
from swarm.artifacts.metrics import MetricsFile
from swarm.messages import MetricRow, Metrics
from swarm.rundir import RunFolder
from swarm.views import export
from toon import encode, estimated_tokens
from toon.sizes import compact_json

NODE = """import {encode} from 'gpt-tokenizer/encoding/o200k_base';
let text = ''; for await (const part of process.stdin) text += part;
console.log(JSON.stringify(JSON.parse(text).map(one => encode(one).length)))"""


def counted(texts: list[str]) -> tuple[list[int], str]:
    """Tokens of each text, and how they were counted."""
    command = ["node", "--input-type=module", "-e", NODE]
    try:
        done = subprocess.run(command, input=json.dumps(texts), capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return [estimated_tokens(text) for text in texts], "estimated"
    return list(json.loads(done.stdout)), "o200k"


def a_run(folder: Path) -> RunFolder:
    run = open_run("bench", "owner", folder)
    metrics = MetricsFile(run.metrics)
    rows = [
        MetricRow(n, "train", 1.79e9 + n, {"loss": round(2.3 / n**0.5, 6), "learning_rate": 2e-4, "grad_norm": 0.5, "tokens": n * 900, "tokens_per_second": 3100.0})
        for n in range(1, 121)
    ]  # fmt: skip
    metrics.insert(Metrics.of(f"lora-{n}", n + 1, 120, rows) for n in range(16))
    metrics.close()
    with Agent("ada", run.path) as ada:
        for number in range(200):
            ada.post(f"rows {number * 6}-{number * 6 + 5} are fine, none is longer than 512 tokens", "data/check")
    return run


async def schema(agent: Agent) -> str:
    from mcp import Client

    from swarm.agents.mcp import server

    async with Client(server(agent)) as client:
        tools = (await client.list_tools()).tools
    return compact_json([tool.model_dump(mode="json", exclude_none=True, by_alias=True) for tool in tools])


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        run = a_run(Path(folder))
        with Agent("bob", run.path) as bob:
            from swarm.agents.mcp import Tools

            tools = Tools(bob)
            texts = {
                "swarm skill": TEXT,
                "MCP schema, 9 tools": asyncio.run(schema(bob)),
                "MCP read_log, the last 8 entries": tools.read_log(since=193),
                "the whole log as it stands": run.log.read_text(encoding="utf-8"),
                "MCP digest": tools.digest(since=193),
            }
        for what in ("metrics", "events"):
            value = export.document(run, what)
            texts |= {f"export {what}, TOON": encode(value), f"export {what}, compact JSON": compact_json(value)}
    tokens, how = counted(list(texts.values()))
    print(f"tokens ({how})")
    for name, text, count in zip(texts, texts.values(), tokens, strict=True):
        print(f"{name:<34} {count:>8,} tokens {len(text.encode()):>9,} bytes")


if __name__ == "__main__":
    main()
