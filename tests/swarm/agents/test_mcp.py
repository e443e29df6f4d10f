"""MCP clients: in memory, two over stdio racing for one claim, and the older handshake."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("mcp")

from mcp import Client, ClientSession, StdioServerParameters, stdio_client

import toon
from swarm import events as ev
from swarm.agents.agent import Agent
from swarm.agents.mcp import server
from swarm.artifacts.metrics import MetricsFile
from swarm.log import Log
from swarm.messages import MetricRow, Metrics
from swarm.rundir import RunFolder, user_name
from tests.swarm.places import kinds, state


async def said(client: Client, tool: str, **words: Any) -> str:
    answer = await client.call_tool(tool, words)
    assert not answer.is_error, answer
    return str(answer.content[0].text)  # type: ignore[union-attr]


async def refused(client: Client, tool: str, **words: Any) -> str:
    answer = await client.call_tool(tool, words)
    assert answer.is_error
    return str(answer.content[0].text)  # type: ignore[union-attr]


def as_(name: str, folder: RunFolder) -> StdioServerParameters:
    words = ["-m", "swarm.cli", "mcp", "--as", name, "--run", str(folder.path)]
    return StdioServerParameters(command=sys.executable, args=words, env={**os.environ, "PYTHONPATH": str(Path.cwd())})


async def test_a_model_never_acts_with_the_owners_key_even_under_the_owners_name(
    folder: RunFolder,
) -> None:
    command = [sys.executable, "-m", "swarm.cli", "mcp", "--run", str(folder.path)]
    nameless = subprocess.run(command, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
    assert nameless.returncode == 2 and "needs a name" in nameless.stderr and "swarm mcp --as NAME" in nameless.stderr
    async with Client(as_(user_name(), folder)) as model:
        await said(model, "judge", ref="run", agree=False, text="wait")
        await said(model, "judge", ref="run", agree=True, text="fine")
    *_, approved = Log(folder.log).entries()
    assert isinstance(approved.event, ev.Approve) and approved.author == user_name()
    assert approved.event.person is None, "it is no person's approval"


async def test_eleven_tools_and_their_schema_is_small(folder: RunFolder) -> None:
    async with Client(server(Agent("ada", folder.path))) as client:
        tools = (await client.list_tools()).tools
    schema = json.dumps(
        [t.model_dump(mode="json", exclude_none=True, by_alias=True) for t in tools], separators=(",", ":")
    )
    assert len(tools) == 11
    assert len(schema.encode()) <= 4200


async def test_a_call_that_is_repeated_with_its_key_is_recorded_once(folder: RunFolder) -> None:
    calls: list[dict[str, Any]] = [
        {"tool": "steer", "ref": "a", "how": "task"},
        {"tool": "claim", "ref": "a"},
        {"tool": "settle", "ref": "a", "token": 3, "how": "renew"},
        {"tool": "judge", "ref": "run", "agree": False, "text": "wait"},
        {"tool": "post", "ref": "run", "text": "hello"},
        {"tool": "settle", "ref": "a", "token": 3, "how": "done", "text": "none bad"},
    ]
    async with Client(server(Agent("ada", folder.path))) as ada:
        for number, call in enumerate(calls):
            words = {**call, "idem": f"key-{number}"}
            first = await said(ada, **words)
            again = await said(ada, **words)
            assert first.partition(" left=")[0] == again.partition(" left=")[0]
    assert kinds(folder) == ["post", "task", "claim", "renew", "object", "post", "done"]


async def test_a_model_claims_works_hands_over_and_learns_why_it_is_refused(folder: RunFolder) -> None:
    async with Client(server(Agent("ada", folder.path))) as ada, Client(server(Agent("bob", folder.path))) as bob:
        await said(ada, "steer", ref="data/check", how="task", text="look for bad rows")
        assert (await said(ada, "claim", ref="data/check")).startswith(
            ("claimed data/check token=3 left=599s", "claimed data/check token=3 left=600s")
        )
        assert "held by ada (token 3)" in await refused(bob, "claim", ref="data/check")
        for ttl in (0.5, 604801, 1e300):
            assert "s is out of range; take 3 to 604800" in await refused(bob, "claim", ref="data/check", ttl=ttl)
            assert "s is out of range" in await refused(ada, "settle", ref="data/check", token=3, how="renew", ttl=ttl)
        await said(ada, "settle", ref="data/check", token=3, how="renew")
        await said(ada, "settle", ref="data/check", token=3, how="hand", to="bob", text="half done @bob")
        assert "stale" in await refused(ada, "settle", ref="data/check", token=3, how="done")
        digest = await said(bob, "digest")
        assert "half done @bob" in digest and "data/check,bob,5" in digest
        await said(bob, "settle", ref="data/check", token=5, how="done", text="none bad")
        await said(bob, "judge", ref="run", agree=False, text="wait for the second track")
        await said(bob, "post", ref="run", text="which rate?", ask="ada")
        assert "asked[1]{seq,by,ref,text}:\n  8,bob,run,which rate?" in await said(ada, "digest")
        await said(ada, "post", ref="run", text="2e-3", of=8)
        assert "ref: 'No Ref' is not valid" in await refused(ada, "post", ref="No Ref", text="x")
    assert state(folder).tasks["data/check"].done is not None
    assert state(folder).questions == {}


async def test_a_digest_gives_what_was_corrected_and_asked_within_its_budget(folder: RunFolder) -> None:
    with Agent("bob", folder.path) as bob:
        bob.amend(bob.post("@ada take token 5"), "it is token 7")
        for number in range(9):
            bob.ask("ada", f"question {number}: " + "which of the two learning rates do you mean, and why? " * 20)
    async with Client(server(Agent("ada", folder.path))) as ada:
        whole = await said(ada, "digest", budget=2000)
        assert '2,bob,"-","amended: 3 by bob: it is token 7 ← @ada take token 5"' in whole
        assert "question 8: which of the two" in whole.partition("asked[8]")[2]
        for budget in (300, 800, 2000):
            assert toon.estimated_tokens(await said(ada, "digest", budget=budget)) <= budget


async def test_a_model_that_validates_states_both_losses(folder: RunFolder, candidate: Path) -> None:
    async with Client(server(Agent("ada", folder.path))) as ada:
        claimed = await said(ada, "claim", ref="wide/validate")
        token = int(claimed.partition("token=")[2].split()[0])
        figures = {"eval_loss": 0.5, "base_eval_loss": 2.0, "bleu": 31.5}
        words = {"ref": "wide/validate", "token": token, "how": "done", "verdict": "SUCCESS"}
        assert "states eval_loss and base_eval_loss" in await refused(
            ada, "settle", **words, figures={"eval_loss": 0.5}
        )
        await said(ada, "settle", **words, figures=figures)
    verdict = state(folder).streams["wide"].verdict
    assert verdict is not None and verdict.figures == figures


async def test_a_refusal_needs_no_other_text_and_names_tools_and_no_commands(folder: RunFolder) -> None:
    async with Client(server(Agent("ada", folder.path))) as ada, Client(server(Agent("bob", folder.path))) as bob:
        await said(ada, "steer", ref="data/check", how="task")
        await said(ada, "claim", ref="data/check")
        held = await refused(bob, "claim", ref="data/check")
        assert held.endswith("wait or ask with `post`") and "swarm " not in held
        wrong = await refused(bob, "settle", ref="data/check", token="seven", how="forget")
        assert (
            wrong.startswith("settle: token: input should be a valid integer")
            and "how: input should be 'renew'" in wrong
        )
        assert "http" not in wrong and "pydantic" not in wrong
        for how in ("clone", "add", "propose"):
            torn = await refused(ada, "steer", ref="wide", how=how, new="two", changes="lora_r='8", text="why")
            assert torn.startswith(
                'changes: "lora_r=\'8" cannot be read (No closing quotation); close the quotation mark'
            )


async def test_a_model_names_the_devices_that_are_for_others_and_an_idle_run_has_none_to_give(
    folder: RunFolder,
) -> None:
    async with Client(server(Agent("ada", folder.path))) as ada:
        for words in ("", "gpus", "gpus=-1", "gpus=1 cores=1", "gpus=1 minutes=soon", "lora_r=4"):
            wrong = await refused(ada, "steer", ref="run", how="yield", changes=words)
            assert wrong.startswith(f"changes: {words!r} names no devices; write gpus=1 or cores=2")
        for words in ("gpus=1", "cores=2 minutes=60", "cores=2, minutes=0.5"):
            idle = await refused(ada, "steer", ref="run", how="yield", changes=words)
            assert idle == "run: no run was started here yet; `runs` does"
    assert kinds(folder) == ["post"]


async def test_a_model_that_begins_in_an_empty_folder_opens_a_run_plans_and_reviews_in_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    async with Client(server(None, "ada")) as ada:
        assert (await refused(ada, "digest")) == "run: none is in use; `runs` with how=start or how=open makes one"
        assert (await said(ada, "runs", how="open", what="rates")).startswith("using rates-")
        [opened] = (tmp_path / "runs").iterdir()
        assert "rates-" in await said(ada, "runs", how="list")
        missing = await refused(ada, "runs", how="plan", what="none.yaml")
        assert missing.startswith("none.yaml: no such file") and "swarm init" not in missing
        await said(ada, "steer", ref="rate/choose", how="task")
        token = int((await said(ada, "claim", ref="rate/choose")).partition("token=")[2].split()[0])
        (tmp_path / "rates.txt").write_text("2e-3")
        evidence = {"command": "python sweep.py", "file": str(tmp_path / "rates.txt")}
        await said(ada, "settle", ref="rate/choose", token=token, how="done", text="2e-3", **evidence)
        outcome = await said(ada, "review", ref="run", question="2e-3?", between="bob", seconds=0.2)
        assert outcome == "review of run: open after 1 round\n- open: bob: no answer"
    done = state(RunFolder(opened)).tasks["rate/choose"].done
    assert isinstance(done, ev.Done) and done.cmd == "python sweep.py" and done.path and done.sha256


async def test_reading_goes_on_from_a_cursor_and_stays_within_its_budget(folder: RunFolder) -> None:
    ada = Agent("ada", folder.path)
    for number in range(60):
        ada.post(f"note {number}: a line of some length that costs a few tokens")
    async with Client(server(ada)) as client:
        since, seen = 0, 0
        for _ in range(40):
            text = await said(client, "read_log", since=since, budget=300)
            assert toon.estimated_tokens(text) <= 300
            *lines, last = text.splitlines()
            seen += len(lines)
            since = int(last.split()[0].removeprefix("next="))
            if last.endswith("more=0"):
                break
        assert (seen, since) == (61, 61)
        assert toon.estimated_tokens(await said(client, "digest", budget=200)) <= 260


async def test_figures_come_as_a_toon_table(folder: RunFolder) -> None:
    metrics = MetricsFile(folder.metrics)
    rows = [MetricRow(step, "train", 1.0, {"loss": 1.0 / (step + 1), "bleu": 31.5}) for step in range(30)]
    metrics.insert([Metrics.of("wide", 3, 30, rows)])
    metrics.close()
    async with Client(server(Agent("ada", folder.path))) as client:
        table = toon.decode(await said(client, "metrics", stream="wide", last=5))
        assert [row["step"] for row in table["metrics"]] == [25, 26, 27, 28, 29]
        assert list(table["metrics"][0]) == ["step", "kind", "loss", "bleu"]
        assert "no figures" in await refused(client, "metrics", stream="narrow")


async def test_log_digest_and_stream_are_resources(folder: RunFolder) -> None:
    ada = Agent("ada", folder.path)
    ada.post("about wide", "wide")
    async with Client(server(ada)) as client:
        assert {str(r.uri) for r in (await client.list_resources()).resources} == {"swarm://log", "swarm://digest"}
        for uri, part in (
            ("swarm://log", "post run owner"),
            ("swarm://digest", "you: ada"),
            ("swarm://stream/wide", "about wide"),
        ):
            [content] = (await client.read_resource(uri)).contents
            assert part in content.text  # type: ignore[union-attr]


async def test_of_two_clients_over_stdio_that_race_for_a_task_one_gets_it(folder: RunFolder) -> None:
    rounds = 5
    with Agent("owner", folder.path) as owner:
        for number in range(rounds):
            owner.task(f"race/t{number}")
    async with Client(as_("ada", folder)) as ada, Client(as_("bob", folder)) as bob:
        for number in range(rounds):
            answers = await asyncio.gather(*(c.call_tool("claim", {"ref": f"race/t{number}"}) for c in (ada, bob)))
            assert [answer.is_error for answer in answers].count(True) == 1
    assert kinds(folder).count("claim") == rounds


async def test_the_older_handshake_is_served_too(folder: RunFolder) -> None:
    async with stdio_client(as_("ada", folder)) as (read, write), ClientSession(read, write) as session:
        hello = await session.initialize()
        assert hello.protocol_version < "2026"
        assert len((await session.list_tools()).tools) == 11
        answer = await session.call_tool("post", {"ref": "run", "text": "from an older client"})
        assert not answer.is_error
    assert kinds(folder)[-1] == "post"


def _inspector() -> str | None:
    """The Inspector's command, where it and a Node that is new enough are at hand."""
    node, inspector = shutil.which("node"), shutil.which("mcp-inspector")
    if node is None or inspector is None:
        return None
    found = subprocess.run([node, "--version"], capture_output=True, text=True, check=True).stdout
    packages = (parent / "package.json" for parent in Path(inspector).resolve().parents)
    told = [json.loads(path.read_text()) for path in packages if path.is_file()]
    version = next((str(one["version"]) for one in told if one.get("name") == "@modelcontextprotocol/inspector"), "0")
    recent = tuple(int(n) for n in found.strip("v\n").split(".")[:2]) >= (22, 19)
    return inspector if recent and int(version.split(".")[0]) >= 2 else None


@pytest.mark.skipif(_inspector() is None, reason="needs mcp-inspector 2 and Node 22.19")
@pytest.mark.parametrize(("ref", "status"), [("a", 0), ("nothing", 5)])
def test_the_inspectors_command_line_tells_a_refusal_by_its_exit_status(
    folder: RunFolder, ref: str, status: int
) -> None:
    with Agent("owner", folder.path) as owner:
        owner.task("a")
    command = [str(_inspector()), "--cli", sys.executable, "-m", "swarm.cli", "mcp", "--as", "ada", "--run", str(folder.path),
               "--method", "tools/call", "--tool-name", "claim", "--tool-arg", f"ref={ref}"]  # fmt: skip
    assert subprocess.run(command, capture_output=True, check=False, timeout=60).returncode == status


async def test_a_waiting_model_is_told_of_progress(folder: RunFolder) -> None:
    heard: list[float] = []

    async def progress(done: float, total: float | None, message: str | None) -> None:
        heard.append(done)

    with Agent("bob", folder.path) as bob:
        async with Client(server(Agent("ada", folder.path))) as ada:
            waiting = asyncio.create_task(
                ada.call_tool("wait", {"until": "question", "timeout": 20}, progress_callback=progress)
            )
            await asyncio.sleep(0.5)
            await asyncio.to_thread(bob.post, "first a note")
            await asyncio.sleep(0.5)
            await asyncio.to_thread(bob.ask, "ada", "which rate?", "run")
            answer = await waiting
    assert "cause: question" in answer.content[0].text  # type: ignore[union-attr]
    assert len(heard) >= 2 and heard == sorted(heard)
