"""A model that has nothing but the tools of `swarm mcp` plans, starts, waits for, judges and reviews a real run."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("mcp")

from mcp import Client, StdioServerParameters, stdio_client

import toon
from swarm.rundir import RunFolder
from tests.runs import swarm_process as sp

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300), pytest.mark.asyncio]


@pytest.fixture(autouse=True)
def _nothing_is_left_behind(tmp_path: Path) -> Iterator[None]:
    yield from sp.end_everything(tmp_path)


async def told(client: Client, tool: str, **words: Any) -> str:
    answer = await client.call_tool(tool, words)
    text = str(answer.content[0].text)  # type: ignore[union-attr]
    assert not answer.is_error, text
    return text


async def test_from_a_config_to_an_approved_promotion_by_tools_alone(tmp_path: Path) -> None:
    config = sp.write_config(tmp_path, streams="  narrow: {lora_r: 2}\n  wide: {lora_r: 8}")
    config.write_text(config.read_text() + "promotion: {approvers: [ada], must_beat: nothing}\n")
    words = ["-m", "swarm.cli", "mcp", "--as", "ada"]
    how = StdioServerParameters(command=sys.executable, args=words, env=sp.environment(), cwd=tmp_path)
    texts: list[str] = []
    async with Client(stdio_client(how)) as ada:
        planned = toon.decode(await told(ada, "runs", how="plan", what="run.yaml"))
        assert [row["stream"] for row in planned["streams"]] == ["narrow", "wide"]  # type: ignore[index,call-overload,union-attr]
        assert (await told(ada, "runs", how="start", what="run.yaml", overrides="defaults.max_steps=4")).startswith(
            "using "
        )
        since, cause = 0, ""
        while cause != "waits":
            texts.append(await told(ada, "wait", until="done | failed | waits", timeout=200, since=since))
            woken = toon.decode(texts[-1])
            assert isinstance(woken, dict)
            since, cause = int(woken["next"]), str(woken["cause"])
            assert cause in {"waits", "timeout"}, texts[-1]
        stream = str(woken["waits"]).partition(":")[0]
        assert f"{stream} waits for your approval" in await told(ada, "digest") and "`judge`" in await told(
            ada, "digest"
        )
        measured = toon.decode(await told(ada, "metrics", stream=stream, last=4))
        assert [row["step"] for row in measured["metrics"]][-1] == 4  # type: ignore[index,call-overload,union-attr]
        outcome = await told(ada, "review", ref=stream, question="take it?", between="bob", seconds=0.2)
        assert outcome.startswith(f"review of {stream}: open")
        await told(ada, "judge", ref=stream, agree=True, text="the lowest held-out loss")
        texts.append(await told(ada, "wait", until="done", timeout=100, since=since))
        assert "cause: done" in texts[-1] and "run: ended" in texts[-1]
    [path] = (tmp_path / "runs").iterdir()
    state = sp.state(RunFolder(path))
    assert state.promoted is not None and state.promoted.ref == stream and state.end is not None and state.end.rc == 0
    assert toon.estimated_tokens("\n".join(texts)) < 1200, json.dumps(texts)
