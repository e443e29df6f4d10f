"""`swarm task, claim, renew, hand, done, drop, promote`: tasks of agents; each command appends an entry under the agent's name.

Scripts, language models and people use the same commands; messages between agents are in `talking.py`.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from swarm.cli.options import AGENT_LEASE_SECONDS, As, Form, Idem, Ref, Run, Token, Ttl, agent_of, say, tell


def add_to(app: typer.Typer) -> None:
    for command in (task, claim, renew, hand, done, drop, promote):
        app.command()(command)


def task(
    ref: Ref,
    title: Annotated[str, typer.Argument(help="what is to be done")] = "",
    *,
    author: As = None,
    run: Run = None,
    idem: Idem = None,
    form: Form = None,
) -> None:
    """Add a task beside the streams' own; anybody may claim it."""
    say("task", run, author, form, ref=ref, title=title or None, idem=idem)


def claim(
    ref: Ref,
    *,
    ttl: Ttl = AGENT_LEASE_SECONDS,
    wait: Annotated[float, typer.Option("--wait", metavar="SECONDS", help="wait for its turn")] = 0.0,
    author: As = None,
    run: Run = None,
    idem: Idem = None,
    form: Form = None,
) -> None:
    """Claim a task and print its token; 5 if it is held."""
    with agent_of(run, author) as agent:
        token = agent.take(ref, ttl_seconds=ttl, wait_seconds=wait, idem=idem)
        lease = agent.state.tasks[ref].lease
    until = _clock(lease.until if lease else None)
    data = {"ref": ref, "token": token, "by": agent.name, "until": until}
    tell(f"claimed {ref} token={token} until {until}", data, form)


def renew(
    ref: Ref,
    *,
    token: Token,
    ttl: Ttl = AGENT_LEASE_SECONDS,
    author: As = None,
    run: Run = None,
    idem: Idem = None,
    form: Form = None,
) -> None:
    """Keep a lease for `--ttl` seconds from now.

    It prints until when.
    """
    from swarm.access.checked import checked
    from swarm.events import Renew

    with agent_of(run, author) as agent:
        seq = agent.append(checked(Renew, ref=ref, tok=token, ttl=ttl, idem=idem))
        lease = agent.state.tasks[ref].lease
    until = _clock(lease.until if lease else None)
    data = {"seq": seq, "kind": "renew", "ref": ref, "by": agent.name, "until": until}
    tell(f"{seq} renew {ref} until {until}", data, form)


def _clock(seconds: float | None) -> str:
    """UTC; None: it is over already."""
    import time

    return time.strftime("%H:%M:%SZ", time.gmtime(time.time() if seconds is None else seconds))


def hand(
    ref: Ref,
    *,
    token: Token,
    to: Annotated[str, typer.Option("--to", metavar="NAME", help="who goes on with it")],
    note: Annotated[str, typer.Option("--note", help="what the next one should know")] = "",
    ttl: Annotated[
        float | None, typer.Option("--ttl", metavar="SECONDS", help="how long it lasts; default: as it was claimed")
    ] = None,
    author: As = None,
    run: Run = None,
    idem: Idem = None,
    form: Form = None,
) -> None:
    """Transfer a lease to somebody else.

    Their `swarm claim` gives them the new token; yours is stale.
    """
    with agent_of(run, author) as agent:
        lasts = (agent.claimed_seconds(ref, token) or AGENT_LEASE_SECONDS) if ttl is None else ttl
    say("hand", run, author, form, ref=ref, tok=token, to=to, ttl=lasts, body=note, idem=idem)


def done(
    ref: Ref,
    *,
    token: Token,
    note: Annotated[str, typer.Option("--note", help="what came out")] = "",
    file: Annotated[
        Path | None, typer.Option("--file", help="a file that shows it; kept in the run folder with its hash")
    ] = None,
    evidence: Annotated[
        str | None, typer.Option("--evidence", metavar="COMMAND", help="the command that showed it")
    ] = None,
    rc: Annotated[int, typer.Option("--rc", metavar="N", help="with --evidence: the command's exit status")] = 0,
    verdict: Annotated[
        str | None, typer.Option("--verdict", help="for STREAM/validate: SUCCESS, WARNING or FAIL")
    ] = None,
    figure: Annotated[
        list[str] | None,
        typer.Option("--figure", metavar="NAME=VALUE", help="with --verdict: what you measured; once for each figure"),
    ] = None,
    author: As = None,
    run: Run = None,
    idem: Idem = None,
    form: Form = None,
) -> None:
    """Finish a task; exit status 5 if the token is stale."""
    from swarm.errors import UserError

    if figure and not verdict:
        raise UserError("--figure", "is part of a verdict", "add --verdict SUCCESS, WARNING or FAIL")
    figures = dict(map(_figure, figure or ()))
    if verdict and rc:
        raise UserError("--rc", "a verdict is a result, whatever it says", "leave --rc out, or `swarm drop` the task")
    with agent_of(run, author) as agent:
        path, sha256 = agent.keep(file, token) if file else (None, None)
        facts = {"path": path, "sha256": sha256, "cmd": evidence, "rc": rc}
        if verdict:
            shown = f"shown by {path} (sha256 {sha256})" if path else ""
            seq = agent.judge(ref, token, verdict, why=note, figures=figures, cmd=evidence, body=shown, idem=idem)
        else:
            seq = agent.finish(ref, token, note, idem=idem, **facts)
    kind = "verdict" if verdict else "done"
    data = {"seq": seq, "kind": kind, "ref": ref, "by": agent.name, **facts}
    tell(f"{seq} {kind} {ref}", {k: v for k, v in data.items() if v is not None}, form)


def _figure(text: str) -> tuple[str, float]:
    """`eval_loss=0.41`.  Raises UserError."""
    from swarm.errors import UserError
    from swarm.figures import checked_name, number

    name, equals, value = text.partition("=")
    try:
        if equals:
            return checked_name(name), number(value)
        what = f"{text!r} is no NAME=VALUE"
    except ValueError as error:
        what = str(error)
    raise UserError("--figure", what, "write e.g. --figure eval_loss=0.41 --figure base_eval_loss=2.04")


def drop(
    ref: Ref,
    *,
    token: Token,
    why: Annotated[str | None, typer.Option("--why", help="the reason")] = None,
    failed: Annotated[bool, typer.Option("--failed", help="it counts against the task's retries")] = False,
    author: As = None,
    run: Run = None,
    idem: Idem = None,
    form: Form = None,
) -> None:
    """Give a task back unfinished."""
    say("drop", run, author, form, ref=ref, tok=token, why=why, failed=failed, idem=idem)


def promote(
    stream: Annotated[str, typer.Argument(help="whose adapter")],
    *,
    why: Annotated[str | None, typer.Option("--why", help="the reason; it stands in the log")] = None,
    force: Annotated[
        bool, typer.Option("--force", help="over a WARNING, missing approvals or an objection; wants --why")
    ] = False,
    author: As = None,
    run: Run = None,
    idem: Idem = None,
    form: Form = None,
) -> None:
    """Make a stream's validated adapter the run's.

    The run's owner may, and whoever was invited as admin.
    """
    from swarm.errors import UserError

    if force and not why:
        raise UserError("--force", "wants a reason", "add --why 'what you looked at'")
    with agent_of(run, author) as agent:
        found, before = agent.state.streams.get(stream), agent.state.promoted
    if found is None or found.adapter is None:
        raise UserError(stream, "has no validated adapter", "see `swarm status`")
    facts = {"sha256": found.adapter.sha256, "tok": found.adapter.tok, "force": force or None, "idem": idem}
    say("promote", run, author, form, ref=stream, path="promoted", why=why or "chosen by hand", **facts)
    if before and before.ref != stream:
        print(
            f"swarm: {stream} takes the place of {before.ref}, whose adapter stays in streams/{before.ref}/adapter",
            file=sys.stderr,
        )
