"""`swarm yield`: leave devices of a running run to others for a while."""

from __future__ import annotations

from typing import Annotated

import typer

from swarm.cli.joining import Why
from swarm.cli.options import As, Form, Idem, Run, agent_of, tell


def add_to(app: typer.Typer) -> None:
    app.command("yield")(yield_)


def yield_(
    *,
    gpus: Annotated[int | None, typer.Option("--gpus", metavar="N", min=0, help="so many; 0 takes them back")] = None,
    cores: Annotated[int | None, typer.Option("--cores", metavar="N", min=0, help="so many; 0 takes them back")] = None,
    minutes: Annotated[
        float | None, typer.Option("--minutes", metavar="N", help="they come back after this; default: when you say so")
    ] = None,
    why: Why = "",
    author: As = None,
    run: Run = None,
    idem: Idem = None,
    form: Form = None,
) -> None:
    """Leave devices of a running run to others.

    What trains there saves at its next step boundary and goes on elsewhere, or from there when the devices come back.
    """
    from swarm.errors import UserError

    match gpus, cores:
        case int(), None:
            what, count = "gpus", gpus
        case None, int():
            what, count = "cores", cores
        case _:
            raise UserError("swarm yield", "takes --gpus N or --cores N", "name one of them; 0 takes devices back")
    with agent_of(run, author) as agent:
        seq = agent.yield_devices(what, count, minutes=minutes, why=why, idem=idem)
        data = {"seq": seq, "kind": "yield", "ref": "run", what: count, "by": agent.name}
        tell(f"{seq} yield {what}={count}", data, form)
