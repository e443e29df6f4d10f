"""`swarm task, claim, renew, hand, done, drop, promote`: work that agents do, each word an entry of the shared log under a name.

Scripts, language models and people use the same words; what they say to each other stands in `talking.py`.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from swarm.cli.running import As

if TYPE_CHECKING:
    from swarm.agent import Agent

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
    app.command()(task)
    app.command()(claim)
    app.command()(renew)
    app.command()(hand)
    app.command()(done)
    app.command()(drop)
    app.command()(promote)


def agent_of(run: str | None, name: str | None) -> Agent:
    from swarm.agent import Agent
    from swarm.door import user_name

    return Agent(name, run) if name else Agent(user_name(), run, own_key=False)


def tell(line: str, data: dict[str, Any], *, json: bool, toon: bool) -> None:
    from swarm.cli import screen

    if json or toon:
        screen.print_data(data, screen.form(json=json, toon=toon))
    else:
        print(line)


def say(run: str | None, author: str | None, kind: str, *, json: bool, toon: bool, **fields: Any) -> None:
    """Append one event and tell its seq."""
    from swarm.agent import checked
    from swarm.events import KINDS

    with agent_of(run, author) as agent:
        event = checked(KINDS[kind], **fields)
        seq = agent.append(event)
    tell(
        f"{seq} {kind} {event.ref}",
        {"seq": seq, "kind": kind, "ref": event.ref, "by": agent.name},
        json=json,
        toon=toon,
    )


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
    say(run, author, "task", ref=ref, title=title or None, idem=idem, json=json, toon=toon)


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

    with agent_of(run, author) as agent:
        token = agent.take(ref, ttl_seconds=ttl, wait_seconds=wait, idem=idem)
        lease = agent.state.tasks[ref].lease
    until = time.strftime("%H:%M:%SZ", time.gmtime(lease.until if lease else time.time()))
    data = {"ref": ref, "token": token, "by": agent.name, "until": until}
    tell(f"claimed {ref} token={token} until {until}", data, json=json, toon=toon)


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
    say(run, author, "renew", ref=ref, tok=token, ttl=ttl, json=json, toon=toon)


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
    say(run, author, "hand", ref=ref, tok=token, to=to, ttl=ttl, body=note, json=json, toon=toon)


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
    with agent_of(run, author) as agent:
        if verdict:
            agent.judge(ref, token, verdict, why=note, heldout=heldout)
        path, sha256 = agent.keep(file, token) if file else (None, None)
        facts = {"path": path, "sha256": sha256, "cmd": evidence, "idem": idem}
        seq = agent.finish(ref, token, note, **facts)
    data = {"seq": seq, "kind": "done", "ref": ref, "by": agent.name, "path": path, "sha256": sha256}
    tell(f"{seq} done {ref}", {k: v for k, v in data.items() if v is not None}, json=json, toon=toon)


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
    say(run, author, "drop", ref=ref, tok=token, why=why, failed=failed, json=json, toon=toon)


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
    with agent_of(run, author) as agent:
        found = agent.state.streams.get(stream)
        if found is None or found.adapter is None:
            raise UserError(stream, "has no validated adapter", "see `swarm status`")
        facts = {"sha256": found.adapter.sha256, "tok": found.adapter.tok, "force": force or None}
    why = why or "chosen by hand"
    say(run, author, "promote", ref=stream, path="promoted", why=why, **facts, json=json, toon=toon)
