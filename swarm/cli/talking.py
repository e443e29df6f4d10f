"""`swarm open, post, amend, object, approve, inbox, review, skill, mcp`: what agents say to each other, and how they learn to.

A question, an answer, an objection: an entry of the shared log each, under the name given with `--as`.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from swarm.cli.agents import About, Idem, Json, Run, Toon, agent_of, say, tell
from swarm.cli.running import As

if TYPE_CHECKING:
    from swarm.inbox import Inbox


def add_to(app: typer.Typer) -> None:
    app.command("open")(open_)
    app.command()(post)
    app.command()(amend)
    app.command("object")(object_)
    app.command()(approve)
    app.command()(inbox)
    app.command()(review)
    app.command()(skill)
    app.command()(mcp)


def open_(
    name: Annotated[str, typer.Argument(help="what the run will be about")] = "work",
    *,
    author: As = None,
    runs: Annotated[Path, typer.Option("--runs", help="the folder that holds the runs")] = Path("runs"),
) -> None:
    """Open a log to plan and work in, before (or without) a run; `swarm run CONFIG --in RUN` starts one there."""
    from swarm.agent import open_run
    from swarm.door import user_name

    print(open_run(name, author or user_name(), runs).path)


def post(
    ref: About,
    text: Annotated[str, typer.Argument(help="the note; `@name` reaches that agent's inbox; `-` reads standard input")],
    *,
    author: As = None,
    run: Run = None,
    ask: Annotated[
        str | None, typer.Option("--ask", metavar="NAME", help="a question to this agent; it stays open until answered")
    ] = None,
    wait: Annotated[
        float, typer.Option("--wait", metavar="SECONDS", help="with --ask: wait for the answer and print it")
    ] = 0.0,
    of: Annotated[int | None, typer.Option("--of", metavar="SEQ", help="the entry that this answers")] = None,
    idem: Idem = None,
    json: Json = False,
    toon: Toon = False,
) -> None:
    """Write a note into the log, ask somebody, or answer."""
    from swarm import logview

    body = sys.stdin.read() if text == "-" else text
    if not ask:
        say(run, author, "post", ref=ref, body=body, of=of, idem=idem, json=json, toon=toon)
        return
    with agent_of(run, author) as agent:
        seq, answer = agent.ask(ask, body, ref, wait_seconds=wait, idem=idem)
    answered = {"answer": answer.event.body, "by": answer.author, "at": answer.seq} if answer else {}
    line = logview.line(answer) if answer else f"{seq} post {ref}: {ask} has not answered yet"
    tell(line, {"seq": seq, "kind": "post", "ref": ref, **answered}, json=json, toon=toon)


def amend(
    of: Annotated[int, typer.Argument(metavar="SEQ", help="the entry")],
    text: Annotated[str, typer.Argument(help="what is right")],
    *,
    author: As = None,
    run: Run = None,
    json: Json = False,
    toon: Toon = False,
) -> None:
    """Correct an entry; the log keeps both."""
    with agent_of(run, author) as agent:
        seq = agent.amend(of, text)
    tell(f"{seq} amend of {of}", {"seq": seq, "kind": "amend", "of": of, "by": agent.name}, json=json, toon=toon)


def object_(
    ref: About,
    why: Annotated[str, typer.Argument(help="the reason")],
    *,
    of: Annotated[int | None, typer.Option("--of", metavar="SEQ", help="the entry objected to")] = None,
    author: As = None,
    run: Run = None,
    idem: Idem = None,
    json: Json = False,
    toon: Toon = False,
) -> None:
    """Object and say why; a promotion of that stream waits until you approve."""
    say(run, author, "object", ref=ref, why=why, of=of, idem=idem, json=json, toon=toon)


def approve(
    ref: About,
    text: Annotated[str, typer.Argument(help="a word on it")] = "",
    *,
    of: Annotated[int | None, typer.Option("--of", metavar="SEQ", help="the entry agreed to")] = None,
    author: As = None,
    run: Run = None,
    idem: Idem = None,
    json: Json = False,
    toon: Toon = False,
) -> None:
    """Agree to a promotion (REF: the stream) or to an entry; takes your own objection back."""
    say(run, author, "approve", ref=ref, of=of, body=text, idem=idem, json=json, toon=toon)


# ---- looking ---------------------------------------------------------------------------------------------------------


def inbox(
    *,
    author: As = None,
    since: Annotated[
        int | None, typer.Option("--since", metavar="SEQ", help="look from here; the kept cursor stays")
    ] = None,
    peek: Annotated[bool, typer.Option("--peek", help="look, and find it again next time")] = False,
    run: Run = None,
    json: Json = False,
    toon: Toon = False,
) -> None:
    """What others said to you since you last looked, open questions, and tasks that wait for you."""
    with agent_of(run, author) as agent:
        found = agent.inbox(since=since, peek=peek)
    tell(inbox_text(found), inbox_data(found), json=json, toon=toon)


def inbox_data(found: Inbox) -> dict[str, Any]:
    from swarm import logview

    return {
        "agent": found.agent,
        "at": found.at,
        "messages": [
            {"seq": m.entry.seq, "why": m.why, "ref": m.entry.event.ref, "by": m.entry.author,
             "text": logview.joined(logview.told(m.entry.event), logview.shown(m.entry.event.body))}
            for m in found.messages
        ],
        "questions": [{"seq": seq, "by": q.by, "ref": q.ref} for seq, q in found.questions.items()],
        "waiting": [{"task": ref, "until": round(until)} for ref, until in found.waiting],
        "held": [{"task": ref, "token": token, "until": round(until)} for ref, token, until in found.held],
    }  # fmt: skip


def inbox_text(found: Inbox) -> str:
    from swarm import logview

    lines = [f"{m.why:<9} {logview.line(m.entry)}" for m in found.messages]
    lines += [
        f"unanswered {seq} from {q.by} about {q.ref}: `swarm post {q.ref} '…' --of {seq}`"
        for seq, q in found.questions.items()
    ]
    lines += [f"waits for you {ref}: `swarm claim {ref}`" for ref, _ in found.waiting]
    lines += [f"you hold {ref} token {token}" for ref, token, _ in found.held]
    return "\n".join(lines) or f"nothing new up to {found.at}"


def review(
    ref: About,
    question: Annotated[str, typer.Argument(help="what is to be judged")],
    *,
    between: Annotated[str, typer.Option("--between", metavar="NAMES", help="who judges, with commas: ada,bob")],
    rounds: Annotated[int, typer.Option("--rounds", min=1, help="how often is asked at most")] = 3,
    answer_seconds: Annotated[float, typer.Option("--answer-seconds", help="how long each round waits")] = 300.0,
    author: As = None,
    run: Run = None,
    json: Json = False,
    toon: Toon = False,
) -> None:
    """Ask named agents in rounds until they agree, one objects, or the limit is reached; the outcome is an entry.

    Exit status 0 agreed, 1 not.
    """
    names = [name.strip() for name in between.split(",") if name.strip()]
    with agent_of(run, author) as agent:
        outcome = agent.review(ref, names, question, rounds=rounds, answer_seconds=answer_seconds)
    tell(outcome.text(), outcome.data(), json=json, toon=toon)
    raise typer.Exit(0 if outcome.result == "agreed" else 1)


def skill() -> None:
    """A guide for language models that work here; put it into their instructions."""
    from swarm import skill as rooms

    print(rooms.TEXT, end="")


def mcp(*, author: As = None, run: Run = None) -> None:
    """Serve the swarm to an MCP client over standard input and output."""
    from swarm.errors import UserError

    try:
        from swarm.mcp import server
    except ModuleNotFoundError as error:
        raise UserError("swarm mcp", f"needs the package {error.name}", "pip install 'toonswarm[agents]'") from None
    with agent_of(run, author) as agent:
        server(agent).run(transport="stdio")
