"""`swarm clone, add`: let streams join a running run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from swarm.cli.options import As, Form, Idem, Run, agent_of, tell

if TYPE_CHECKING:
    from swarm.agents.agent import Agent

Changes = Annotated[
    list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="what differs, e.g. learning_rate=1e-4 lora_r=16")
]
New = Annotated[str, typer.Argument(metavar="NEW", help="the name of the new stream")]
Why = Annotated[str, typer.Option("--why", help="the reason, for the log")]


def add_to(app: typer.Typer) -> None:
    app.command()(clone)
    app.command()(add)


def clone(
    stream: Annotated[str, typer.Argument(metavar="STREAM", help="whose newest checkpoint it begins with")],
    new: New,
    changes: Changes = None,
    *,
    why: Why = "",
    author: As = None,
    run: Run = None,
    idem: Idem = None,
    form: Form = None,
) -> None:
    """Let a stream join that goes on from another's weights.

    And from its optimizer's moments: in the running run, from the next step on.  Another rank pads or cuts the weights; base and quantisation stay.
    """
    with agent_of(run, author) as agent:
        _tell(agent, agent.clone(stream, new, changes or [], why=why, idem=idem), new, form)


def add(
    new: New,
    changes: Changes = None,
    *,
    like: Annotated[str, typer.Option("--like", metavar="STREAM", help="whose settings it has but for the changes")],
    why: Why = "",
    author: As = None,
    run: Run = None,
    idem: Idem = None,
    form: Form = None,
) -> None:
    """Let a stream join the running run, from step 0.

    It has the settings of another stream but for the changes; base and quantisation stay.
    """
    with agent_of(run, author) as agent:
        _tell(agent, agent.add(new, like, changes or [], why=why, idem=idem), new, form)


def _tell(agent: Agent, seq: int, new: str, form: bool | None) -> None:
    tell(f"{seq} add {new}", {"seq": seq, "kind": "add", "ref": new, "by": agent.name}, form)
