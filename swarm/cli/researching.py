"""`swarm research, propose, ledger`: a run that takes proposals, a proposal, and what became of all of them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from swarm.cli.joining import Changes, New
from swarm.cli.options import (
    As,
    Detach,
    Form,
    Idem,
    NamedRun,
    Overrides,
    Plain,
    Run,
    RunArgument,
    agent_of,
    one_run,
    tell,
)


def add_to(app: typer.Typer) -> None:
    app.command()(research)
    app.command()(propose)
    app.command()(ledger)


def research(
    goal: Annotated[Path, typer.Argument(metavar="GOAL.md", help="the goal, below the settings of the research")],
    overrides: Overrides = None,
    *,
    budget: Annotated[
        list[str] | None,
        typer.Option("--budget", metavar="NAME=NUMBER", help="steps, tokens, minutes or usd of all trials together"),
    ] = None,
    plain: Plain = False,
    detach: Detach = False,
    form: Form = None,
) -> None:
    """Start a run in which agents propose trials.

    Each is trained at a fixed budget, compared with the best so far, and kept or discarded with the chance stated.
    """
    from swarm.cli.running import run
    from swarm.planning.goal import read

    found = read(goal)
    words = [*found.words, *(f"budget.{limit}" for limit in budget or ()), *(overrides or [])]
    run(found.config, words, again=True, plain=plain, detach=detach, form=form)


def propose(
    new: New,
    changes: Changes = None,
    *,
    like: Annotated[str, typer.Option("--like", metavar="STREAM", help="whose settings it has but for the changes")],
    because: Annotated[str, typer.Option("--because", metavar="TEXT", help="the hypothesis")],
    refute: Annotated[str, typer.Option("--refute", metavar="TEXT", help="what would show that it is wrong")] = "",
    author: As = None,
    run: Run = None,
    idem: Idem = None,
    form: Form = None,
) -> None:
    """Propose a trial to the research of the running run.

    It is refused outside of the space of the open phase, or if it was made before; it joins when there is room.
    """
    with agent_of(run, author) as agent:
        seq = agent.propose(new, like, changes or [], why=because, refute=refute, idem=idem)
        tell(f"{seq} propose {new}", {"seq": seq, "kind": "propose", "ref": new, "by": agent.name}, form)


def ledger(
    run: RunArgument = None,
    *,
    svg: Annotated[
        Path | None, typer.Option("--svg", metavar="FILE", help="a picture: cost against figure, with the frontier")
    ] = None,
    named: NamedRun = None,
    form: Form = None,
) -> None:
    """What was proposed, by whom and why, and what became of it."""
    from swarm import config, rundir
    from swarm.cli import screen
    from swarm.files import write_whole
    from swarm.log import Log
    from swarm.policy import research as research_policy
    from swarm.state import fold
    from swarm.views import ledger as view

    folder = rundir.find(one_run(run, named))
    state = fold(Log(folder.log).entries())
    settings = config.of_run(folder, state.added)
    rows = view.rows(state, settings)
    if svg is not None:
        write_whole(svg, view.picture(rows, settings.promotion))
        screen.tell(f"{svg}: {len(rows)} rows")
    elif form is None:
        screen.tell(view.text(state, settings, rows))
    else:
        phase = research_policy.phase_of(state, settings.research) if settings.research else None
        about = {"phase": phase, "space": view.space(settings, phase), "kept": state.kept or None}
        screen.print_data({**about, "proposals": rows}, form)
