"""`swarm open, post, task, claim, renew, hand, done, drop, amend, object, approve, inbox, review, promote, skill, mcp`.

What agents do, a line of the shared log each: scripts, language models and people take part with the same words.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from swarm.cli.running import As

if TYPE_CHECKING:
    from swarm.agent import Agent
    from swarm.inbox import Inbox

Run = Annotated[
    str | None, typer.Option("--run", metavar="RUN", help="run folder or name; default: the newest in ./runs")
]
Ref = Annotated[str, typer.Argument(help="a task like wide/validate or data/check")]
About = Annotated[str, typer.Argument(help="run, a stream, a task, or `-` for nothing in particular")]
TokenOption = Annotated[int, typer.Option("--token", min=1, help="what `claim` gave")]
Idem = Annotated[str | None, typer.Option("--idem", metavar="KEY", help="say it once, however often it is sent")]
Json = Annotated[bool, typer.Option("--json", help="as JSON")]
Toon = Annotated[bool, typer.Option("--toon", help="as TOON")]
Ttl = Annotated[float, typer.Option("--ttl", metavar="SECONDS", min=1, help="how long the lease lasts unless renewed")]


def add_to(app: typer.Typer) -> None:
    app.command("open")(open_)
    app.command()(post)
    app.command()(task)
    app.command()(claim)
    app.command()(renew)
    app.command()(hand)
    app.command()(done)
    app.command()(drop)
    app.command()(amend)
    app.command("object")(object_)
    app.command()(approve)
    app.command()(inbox)
    app.command()(review)
    app.command()(promote)
    app.command()(skill)
    app.command()(mcp)


def _agent(run: str | None, name: str | None) -> Agent:
    from swarm.agent import Agent
    from swarm.door import user_name

    return Agent(name, run) if name else Agent(user_name(), run, own_key=False)


def _tell(line: str, data: dict[str, Any], *, json: bool, toon: bool) -> None:
    from swarm.cli import screen

    if json or toon:
        screen.print_data(data, screen.form(json=json, toon=toon))
    else:
        print(line)


def _say(run: str | None, author: str | None, kind: str, *, json: bool, toon: bool, **fields: Any) -> None:
    """Append one event and tell its seq."""
    from swarm.agent import checked
    from swarm.events import KINDS

    with _agent(run, author) as agent:
        event = checked(KINDS[kind], **fields)
        seq = agent.append(event)
    _tell(
        f"{seq} {kind} {event.ref}",
        {"seq": seq, "kind": kind, "ref": event.ref, "by": agent.name},
        json=json,
        toon=toon,
    )


# ---- talk ------------------------------------------------------------------------------------------------------------


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
        _say(run, author, "post", ref=ref, body=body, of=of, idem=idem, json=json, toon=toon)
        return
    with _agent(run, author) as agent:
        seq, answer = agent.ask(ask, body, ref, wait_seconds=wait, idem=idem)
    answered = {"answer": answer.event.body, "by": answer.author, "at": answer.seq} if answer else {}
    line = logview.line(answer) if answer else f"{seq} post {ref}: {ask} has not answered yet"
    _tell(line, {"seq": seq, "kind": "post", "ref": ref, **answered}, json=json, toon=toon)


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
    with _agent(run, author) as agent:
        seq = agent.amend(of, text)
    _tell(f"{seq} amend of {of}", {"seq": seq, "kind": "amend", "of": of, "by": agent.name}, json=json, toon=toon)


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
    _say(run, author, "object", ref=ref, why=why, of=of, idem=idem, json=json, toon=toon)


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
    _say(run, author, "approve", ref=ref, of=of, body=text, idem=idem, json=json, toon=toon)


# ---- work ------------------------------------------------------------------------------------------------------------


def task(
    ref: Ref,
    title: Annotated[str, typer.Argument(help="what is to be done")] = "",
    *,
    author: As = None,
    run: Run = None,
    idem: Idem = None,
    json: Json = False,
    toon: Toon = False,
) -> None:
    """Add a task beside the streams' own; anybody may claim it."""
    _say(run, author, "task", ref=ref, title=title or None, idem=idem, json=json, toon=toon)


def claim(
    ref: Ref,
    *,
    author: As = None,
    ttl: Ttl = 60.0,
    wait: Annotated[float, typer.Option("--wait", metavar="SECONDS", help="wait for its turn")] = 0.0,
    run: Run = None,
    idem: Idem = None,
    json: Json = False,
    toon: Toon = False,
) -> None:
    """Hold a task: prints the token under which you work; exit status 5 if somebody holds it."""
    import time

    with _agent(run, author) as agent:
        token = agent.take(ref, ttl_seconds=ttl, wait_seconds=wait, idem=idem)
        lease = agent.state.tasks[ref].lease
    until = time.strftime("%H:%M:%SZ", time.gmtime(lease.until if lease else time.time()))
    data = {"ref": ref, "token": token, "by": agent.name, "until": until}
    _tell(f"claimed {ref} token={token} until {until}", data, json=json, toon=toon)


def renew(
    ref: Ref,
    *,
    token: TokenOption,
    author: As = None,
    ttl: Ttl = 60.0,
    run: Run = None,
    json: Json = False,
    toon: Toon = False,
) -> None:
    """Keep a lease for `--ttl` seconds from now."""
    _say(run, author, "renew", ref=ref, tok=token, ttl=ttl, json=json, toon=toon)


def hand(
    ref: Ref,
    *,
    token: TokenOption,
    to: Annotated[str, typer.Option("--to", metavar="NAME", help="who goes on with it")],
    note: Annotated[str, typer.Option("--note", help="what the next one should know")] = "",
    author: As = None,
    ttl: Ttl = 60.0,
    run: Run = None,
    json: Json = False,
    toon: Toon = False,
) -> None:
    """Give a live lease to somebody else; `swarm claim` gives them the new token, yours is stale."""
    _say(run, author, "hand", ref=ref, tok=token, to=to, ttl=ttl, body=note, json=json, toon=toon)


def done(
    ref: Ref,
    *,
    token: TokenOption,
    note: Annotated[str, typer.Option("--note", help="what came out")] = "",
    file: Annotated[
        Path | None, typer.Option("--file", help="a file that shows it; kept in the run folder with its hash")
    ] = None,
    evidence: Annotated[
        str | None, typer.Option("--evidence", metavar="COMMAND", help="the command that showed it")
    ] = None,
    verdict: Annotated[
        str | None, typer.Option("--verdict", help="for STREAM/validate: SUCCESS, WARNING or FAIL")
    ] = None,
    heldout: Annotated[
        float | None, typer.Option("--heldout", help="with --verdict: the held-out loss you measured")
    ] = None,
    author: As = None,
    run: Run = None,
    idem: Idem = None,
    json: Json = False,
    toon: Toon = False,
) -> None:
    """Finish a task; exit status 5 if the token is stale."""
    with _agent(run, author) as agent:
        if verdict:
            agent.judge(ref, token, verdict, why=note, heldout=heldout)
        path, sha256 = agent.keep(file, token) if file else (None, None)
        facts = {"path": path, "sha256": sha256, "cmd": evidence, "idem": idem}
        seq = agent.finish(ref, token, note, **facts)
    data = {"seq": seq, "kind": "done", "ref": ref, "by": agent.name, "path": path, "sha256": sha256}
    _tell(f"{seq} done {ref}", {k: v for k, v in data.items() if v is not None}, json=json, toon=toon)


def drop(
    ref: Ref,
    *,
    token: TokenOption,
    why: Annotated[str | None, typer.Option("--why", help="the reason")] = None,
    failed: Annotated[bool, typer.Option("--failed", help="it counts against the task's retries")] = False,
    author: As = None,
    run: Run = None,
    json: Json = False,
    toon: Toon = False,
) -> None:
    """Give a task back unfinished."""
    _say(run, author, "drop", ref=ref, tok=token, why=why, failed=failed, json=json, toon=toon)


def promote(
    stream: Annotated[str, typer.Argument(help="whose adapter")],
    *,
    why: Annotated[str | None, typer.Option("--why", help="the reason; it stands in the log")] = None,
    force: Annotated[
        bool, typer.Option("--force", help="over a WARNING, missing approvals or an objection; wants --why")
    ] = False,
    author: As = None,
    run: Run = None,
    json: Json = False,
    toon: Toon = False,
) -> None:
    """Make a stream's validated adapter the run's; agents' own keys may not, the run's owner may."""
    from swarm.errors import UserError

    if force and not why:
        raise UserError("--force", "wants a reason", "add --why 'what you looked at'")
    with _agent(run, author) as agent:
        found = agent.state.streams.get(stream)
        if found is None or found.adapter is None:
            raise UserError(stream, "has no validated adapter", "see `swarm status`")
        facts = {"sha256": found.adapter.sha256, "tok": found.adapter.tok, "force": force or None}
    why = why or "chosen by hand"
    _say(run, author, "promote", ref=stream, path="promoted", why=why, **facts, json=json, toon=toon)


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
    with _agent(run, author) as agent:
        found = agent.inbox(since=since, peek=peek)
    _tell(inbox_text(found), inbox_data(found), json=json, toon=toon)


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
    with _agent(run, author) as agent:
        outcome = agent.review(ref, names, question, rounds=rounds, answer_seconds=answer_seconds)
    _tell(outcome.text(), outcome.data(), json=json, toon=toon)
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
    with _agent(run, author) as agent:
        server(agent).run(transport="stdio")
