"""`swarm invite, revoke`: who may take part in a run, and as what; both stand in the log, keys do not."""

from __future__ import annotations

from typing import Annotated

import typer

from swarm.cli.options import As, Form, Idem, Run, agent_of, tell

Who = Annotated[str, typer.Argument(metavar="NAME", help="[a-z0-9][a-z0-9._-]*, at most 64 characters")]


def add_to(app: typer.Typer) -> None:
    for command in (invite, revoke):
        app.command()(command)


def invite(
    name: Who,
    *,
    role: Annotated[
        str, typer.Option("--role", help="viewer (looks), worker (reports), agent (says and claims) or admin (all)")
    ] = "agent",
    author: As = None,
    run: Run = None,
    idem: Idem = None,
    form: Form = None,
) -> None:
    """Let somebody take part; prints the path of their key file.

    Only you can read the file; whoever has it acts as NAME.  Repeating the command gives the same file and no second entry.
    """
    from swarm.access import members

    with agent_of(run, author) as agent:
        path, mark = members.invite(agent.folder, name, role, by=author)
        seq = agent.post(f"invited {name} as {role}", "run", idem=idem or f"invited-{mark}")
    tell(str(path), {"seq": seq, "name": name, "role": role, "path": str(path), "by": agent.name}, form)


def revoke(name: Who, *, author: As = None, run: Run = None, idem: Idem = None, form: Form = None) -> None:
    """Revoke an invitation.

    The key of NAME is refused from now on.

    Leases that NAME holds run out; `swarm invite NAME` gives the name a new key.
    """
    from swarm.access import members

    with agent_of(run, author) as agent:
        members.revoke(agent.folder, name, by=author)
        seq = agent.post(f"revoked {name}", "run", idem=idem)
    tell(f"{seq} revoked {name}", {"seq": seq, "name": name, "by": agent.name}, form)
