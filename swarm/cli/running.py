"""`swarm run, watch, resume, stop, pause`: start runs, attach to them, control them."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Annotated

import typer

from swarm.cli.flags import TAKES_SETTINGS
from swarm.cli.options import (
    Again,
    As,
    Config,
    Detach,
    Form,
    Idem,
    NamedRun,
    OnlyStream,
    Overrides,
    Plain,
    Run,
    RunArgument,
    RunOrStream,
    one_run,
    run_or_stream,
    say,
    tell,
)  # fmt: skip
from swarm.spawning import module_command
from swarm.surroundings import can_draw

if TYPE_CHECKING:
    from swarm.rundir import RunFolder

STOPPED = 130
"""Exit status after Ctrl-C: everything was saved and stopped."""


def add_to(app: typer.Typer) -> None:
    app.command(context_settings=TAKES_SETTINGS)(run)
    for command in (watch, resume, stop, pause):
        app.command()(command)


def run(
    config: Config,
    overrides: Overrides = None,
    *,
    into: Annotated[
        str | None, typer.Option("--in", metavar="RUN", help="start it in a run that `swarm open` made")
    ] = None,
    again: Again = False,
    plain: Plain = False,
    detach: Detach = False,
    form: Form = None,
) -> None:
    """Start the run that CONFIG describes and attach to it.

    The dashboard on a terminal, plain lines elsewhere; --json and --toon give the result at its end.
    Ctrl-C saves and stops; `q` in the dashboard detaches and the run goes on.
    """
    from swarm import rundir
    from swarm.cli import endings, plans
    from swarm.planning import starting

    made = starting.plan(config, overrides or [])
    if not again:
        starting.refuse_repetition(made)
    folder = starting.start(made, None if into is None else rundir.find(into))
    plans.announce(folder, made)
    if detach:
        endings.print_detached(folder)
        tell(str(folder.path), {"run": folder.name, "path": str(folder.path)}, form)
        return
    sys.exit(attach(folder, plain=plain, form=form, since=0))


def watch(
    run: RunArgument = None,
    *,
    named: NamedRun = None,
    plain: Plain = False,
    readonly: Annotated[bool, typer.Option("--readonly", help="look, but touch nothing")] = False,
    author: As = None,
) -> None:
    """Attach to a run; `q` detaches, and the run goes on.

    So does Ctrl-C where plain lines are shown.
    """
    from swarm import rundir

    if author is not None:
        rundir.checked_name(author)
    sys.exit(attach(rundir.find(one_run(run, named)), plain=plain, owns=False, readonly=readonly, author=author))


def resume(
    run: RunOrStream = None,
    *,
    named: NamedRun = None,
    stream: Annotated[str | None, typer.Option("--stream", help="let one paused or stopped stream go on")] = None,
    plain: Plain = False,
    detach: Detach = False,
    author: As = None,
    idem: Idem = None,
    form: Form = None,
) -> None:
    """Go on with a run or stream that stopped or failed.

    `swarm resume STREAM` lets one go on, also one that is paused.

    Finished tasks are not repeated.  --json and --toon: with --detach or --stream the entry, else the result at its end.
    """
    from swarm.planning import starting
    from swarm.rundir import user_name

    folder, stream = run_or_stream(run, named, stream)
    seq, ref = starting.resume(folder, author, stream=stream, idem=idem), stream or "run"
    if not detach and not stream:
        print(f"swarm: {folder.name} goes on", file=sys.stderr)
        sys.exit(attach(folder, plain=plain, form=form, since=seq - 1))
    tell(f"{seq} resume {ref}", {"seq": seq, "kind": "resume", "ref": ref, "by": author or user_name()}, form)


def stop(
    run: RunOrStream = None,
    *,
    named: NamedRun = None,
    stream: OnlyStream = None,
    wait: Annotated[bool, typer.Option("--wait/--no-wait", help="return when everything is saved")] = True,
    author: As = None,
    idem: Idem = None,
    form: Form = None,
) -> None:
    """Save and stop the run or one stream.

    `swarm stop STREAM` stops that one; `swarm resume` goes on.
    """
    from swarm.cli import progress
    from swarm.planning import starting

    folder, stream = run_or_stream(run, named, stream)
    say("stop", str(folder.path), author, form, ref=stream or "run", idem=idem)
    if not stream and (ended := starting.end_orphans(folder)):
        print(f"swarm: no coordinator is at work; {', '.join(ended)} saved and left", file=sys.stderr)
    elif wait and not stream:
        progress.wait_for_end(folder)


def pause(
    stream: Annotated[str, typer.Argument(help="the stream")],
    *,
    author: As = None,
    run: Run = None,
    idem: Idem = None,
    form: Form = None,
) -> None:
    """Let a stream wait at its next step.

    `swarm resume STREAM` lets it go on.
    """
    say("pause", run, author, form, ref=stream, idem=idem)


def attach(
    folder: RunFolder,
    *,
    plain: bool = False,
    owns: bool = True,
    readonly: bool = False,
    form: bool | None = None,
    since: int | None = None,
    author: str | None = None,
) -> int:
    """Show the run until it ends or the person leaves; the exit status of `swarm run`.

    `author`: in whose name the dashboard's keys act; by default the owner's.
    """
    from swarm.cli import endings, progress

    if not plain and can_draw(sys.stdin, sys.stdout):
        status = _dashboard(folder, readonly=readonly, author=author)
        if status is not None:
            if status == STOPPED:
                progress.wait_for_end(folder)
            if endings.has_ended(folder):
                return endings.print_result(folder, form)
            if status == 0:
                endings.print_left(folder)
            return status
    return progress.follow(folder, owns=owns, form=form, since=since)


def _dashboard(folder: RunFolder, *, readonly: bool, author: str | None) -> int | None:
    """Run the dashboard in its own process; None if it cannot be shown."""
    import contextlib
    import importlib.util
    import signal
    import subprocess

    if importlib.util.find_spec("textual") is None:
        print("swarm: the dashboard needs: pip install 'toonswarm[tui]'; plain lines follow", file=sys.stderr)
        return None
    words = [*(["--readonly"] if readonly else []), *(["--as", author] if author else [])]
    command = module_command("tui", str(folder.path), *words)
    process = subprocess.Popen(command, env=dict(os.environ))
    before = signal.signal(
        signal.SIGTERM, lambda *_: process.terminate()
    )  # the dashboard restores the terminal and detaches
    try:
        while True:
            with contextlib.suppress(
                KeyboardInterrupt
            ):  # the terminal sends SIGINT to both; the dashboard asks what to stop
                return process.wait()
    finally:
        signal.signal(signal.SIGTERM, before)
