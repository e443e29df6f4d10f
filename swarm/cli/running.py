"""`swarm run, watch, resume, stop, pause`: start a run, look at it, steer it."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from swarm.rundir import RunFolder

STOPPED = 130
"""Exit status after Ctrl-C: everything was saved and stopped."""

RunArgument = Annotated[
    str | None, typer.Argument(metavar="[RUN]", help="run folder or name; default: the newest in ./runs")
]
As = Annotated[str | None, typer.Option("--as", metavar="NAME", help="act under this name")]


def add_to(app: typer.Typer) -> None:
    app.command()(run)
    app.command()(watch)
    app.command()(resume)
    app.command()(stop)
    app.command()(pause)


def run(
    config: Annotated[Path, typer.Argument(help="a YAML or TOML config")],
    overrides: Annotated[
        list[str] | None, typer.Argument(metavar="[KEY.PATH=VALUE]...", help="e.g. streams.wide.lora_r=64")
    ] = None,
    *,
    into: Annotated[
        str | None, typer.Option("--in", metavar="RUN", help="start it in a run that `swarm open` made")
    ] = None,
    plain: Annotated[bool, typer.Option("--plain", help="lines instead of the dashboard")] = False,
    detach: Annotated[bool, typer.Option("--detach", help="start it and return")] = False,
    json: Annotated[bool, typer.Option("--json", help="print the result as JSON")] = False,
    toon: Annotated[bool, typer.Option("--toon", help="print the result as TOON")] = False,
) -> None:
    """Start the run that CONFIG describes and attach to it: the dashboard on a terminal, plain lines elsewhere.

    Ctrl-C saves and stops; `q` in the dashboard detaches and the run goes on.
    """
    from swarm import rundir, starting
    from swarm.cli import screen

    made = starting.plan(config, overrides or [])
    folder = starting.start(made, rundir.find(into) if into else None)
    screen.announce(folder, made)
    if detach:
        print(folder.path)
        return
    sys.exit(attach(folder, plain=plain, form=screen.form(json=json, toon=toon)))


def watch(
    run: RunArgument = None,
    *,
    plain: Annotated[bool, typer.Option("--plain", help="lines instead of the dashboard")] = False,
    readonly: Annotated[bool, typer.Option("--readonly", help="look, but touch nothing")] = False,
) -> None:
    """Attach to a run; `q` or Ctrl-C in plain mode detaches, the run goes on."""
    from swarm import rundir

    sys.exit(attach(rundir.find(run), plain=plain, owns=False, readonly=readonly))


def resume(
    run: RunArgument = None,
    *,
    author: As = None,
    plain: Annotated[bool, typer.Option("--plain", help="lines instead of the dashboard")] = False,
    detach: Annotated[bool, typer.Option("--detach", help="start it and return")] = False,
    stream: Annotated[str | None, typer.Option("--stream", help="let one paused or stopped stream go on")] = None,
) -> None:
    """Go on with a run that was stopped, failed or lost its coordinator; finished tasks are not repeated."""
    from swarm import rundir, starting
    from swarm.door import user_name
    from swarm.log import run_is_alive

    folder = rundir.find(run)
    if stream:
        _say(folder, "resume", stream, author)
        if run_is_alive(folder.log):
            return
    starting.resume(folder, author or user_name())
    print(f"swarm: {folder.name} goes on", file=sys.stderr)
    if not detach:
        sys.exit(attach(folder, plain=plain))


def stop(
    run: RunArgument = None,
    *,
    stream: Annotated[str | None, typer.Option("--stream", help="only this stream")] = None,
    author: As = None,
    wait: Annotated[bool, typer.Option("--wait/--no-wait", help="return when everything is saved")] = True,
) -> None:
    """Save and stop the run (or one stream); `swarm resume` goes on."""
    from swarm import rundir, starting
    from swarm.cli import progress

    folder = rundir.find(run)
    _say(folder, "stop", stream or "run", author)
    if not stream and (ended := starting.end_orphans(folder)):
        print(f"swarm: no coordinator is at work; {', '.join(ended)} saved and left", file=sys.stderr)
    elif wait and not stream:
        progress.wait_for_end(folder)


def pause(
    stream: Annotated[str, typer.Argument(help="the stream")],
    run: Annotated[str | None, typer.Option("--run", help="run folder or name")] = None,
    *,
    author: As = None,
) -> None:
    """Let a stream wait at its next step; `swarm resume --stream NAME` lets it go on."""
    from swarm import rundir

    _say(rundir.find(run), "pause", stream, author)


def _say(folder: RunFolder, kind: str, ref: str, author: str | None) -> None:
    from swarm.door import Door
    from swarm.events import KINDS

    with Door(folder, author) as door:
        print(f"{door.append(KINDS[kind](ref=ref))} {kind} {ref}")


def attach(
    folder: RunFolder, *, plain: bool = False, owns: bool = True, readonly: bool = False, form: str = "table"
) -> int:
    """Show the run until it ends or the person leaves; the exit status of `swarm run`."""
    from swarm.cli import progress, screen

    if not plain and sys.stdin.isatty() and sys.stdout.isatty():
        status = _dashboard(folder, readonly=readonly)
        if status is not None:
            if status == STOPPED:
                progress.wait_for_end(folder)
            if screen.has_ended(folder):
                return screen.print_result(folder, form)
            if status == 0:
                print(
                    f"swarm: detached; {folder.name} goes on: `swarm watch` attaches again, `swarm stop` stops it",
                    file=sys.stderr,
                )
            return status
    return progress.follow(folder, owns=owns, form=form)


def _dashboard(folder: RunFolder, *, readonly: bool) -> int | None:
    """The dashboard in a process of its own; None if it cannot be shown."""
    import importlib.util
    import subprocess

    if importlib.util.find_spec("textual") is None:
        print("swarm: the dashboard needs: pip install 'toonswarm[tui]'; plain lines follow", file=sys.stderr)
        return None
    command = [sys.executable, "-m", "tui", str(folder.path), *(["--readonly"] if readonly else [])]
    process = subprocess.Popen(command, env=dict(os.environ))
    while True:
        try:
            return process.wait()
        except KeyboardInterrupt:  # the terminal sends it to both; the dashboard asks what is meant
            continue
