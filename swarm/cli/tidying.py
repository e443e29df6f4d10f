"""`swarm prune`: free the disk space of finished runs."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from swarm.cli.options import Form, Runs


def add_to(app: typer.Typer) -> None:
    app.command()(prune)


def prune(
    *,
    runs: Runs | None = None,
    whole_runs: Annotated[
        bool, typer.Option("--whole-runs", help="remove finished runs, not only their checkpoints")
    ] = False,
    keep: Annotated[int, typer.Option("--keep", min=0, help="newest runs that are left alone")] = 1,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="do not ask")] = False,
    form: Form = None,
) -> None:
    """Free disk: checkpoints of finished runs; asks first.

    With --whole-runs everything of them.
    """
    from swarm import rundir, units
    from swarm.artifacts import pruning
    from swarm.cli import screen
    from swarm.errors import UserError

    found = pruning.candidates(rundir.runs_of(runs), whole_runs=whole_runs, keep=keep)
    if form is not None:
        screen.print_data([{"path": str(item.path), "bytes": item.bytes} for item in found], form)
    if not found:
        print("nothing to prune", file=sys.stderr)
        return
    for item in found if form is None else ():
        print(f"{units.size(item.bytes):>9}  {item.path}")
    total = units.size(sum(item.bytes for item in found))
    if not yes and not sys.stdin.isatty():
        raise UserError(
            "prune", "asks before it removes anything, and there is no terminal", "look at the list, then add --yes"
        )
    if not yes and not typer.confirm(f"remove these {len(found)} folders ({total})?", err=True):
        print("nothing was removed", file=sys.stderr)
        return
    pruning.remove(found)
    print(f"removed {len(found)} folders, {total} freed", file=sys.stderr)
