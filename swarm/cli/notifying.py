"""`swarm notify`: sends what waits for the receivers of `alerts:`, or a test message."""

from __future__ import annotations

from typing import Annotated

import typer

from swarm.cli.options import Form, NamedRun, RunArgument, one_run


def add_to(app: typer.Typer) -> None:
    app.command()(notify)


def notify(
    run: RunArgument = None,
    *,
    test: Annotated[bool, typer.Option("--test", help="send a test message to each")] = False,
    named: NamedRun = None,
    form: Form = None,
) -> None:
    """Send what waits for the receivers of `alerts:`.

    With --test each gets a test message; a config may stand in place of the run.
    """
    from pathlib import Path

    from swarm import config, rundir
    from swarm.artifacts import notices
    from swarm.cli import screen
    from swarm.errors import UserError
    from swarm.plainfiles import check_ours

    is_config = run is not None and Path(run).is_file()
    folder = None if is_config else rundir.find(one_run(run, named))
    settings = config.load(Path(str(run)), cwd=Path.cwd()).run if folder is None else config.of_run(folder, ())
    if not settings.alerts:
        raise UserError("alerts", "the config names nobody", "add `alerts: [{url: https://...}]`")
    if folder is None and not test:
        raise UserError(str(run), "is a config, and messages wait in runs", "name a run, or add --test")
    if folder is not None:
        check_ours(folder.path)  # its commands would be run as ours
    if test or folder is None:
        rows = notices.tested(settings, folder.name if folder else settings.name)
    else:
        rows = notices.Queue(folder).sent(settings.alerts)
    if form is None:
        screen.tell("\n".join(row["why"] or f"{row['receiver']}: taken" for row in rows) or "nothing waits")
    else:
        screen.print_data({"alerts": rows}, form)
    raise typer.Exit(1 if any(row["why"] for row in rows) else 0)
