"""`swarm runs, status, export`: how runs stand."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from swarm.cli.options import Form, NamedRun, OnlyStream, RunArgument, Runs, one_run

if TYPE_CHECKING:
    from swarm.rundir import RunFolder


def add_to(app: typer.Typer) -> None:
    app.command()(runs)
    app.command()(status)
    app.command()(export)


def status(
    run: RunArgument = None,
    *,
    named: NamedRun = None,
    bus: Annotated[bool, typer.Option("--bus", help="latency by type of message, links, hand-overs, errors")] = False,
    form: Form = None,
) -> None:
    """One look at a run: streams, workers, bus, what is held."""
    from swarm import rundir
    from swarm.cli import screen, statuses

    if bus:
        _bus(rundir.find(one_run(run, named)), form)
        return
    from swarm.views.report import session
    from swarm.views.watch import Watcher

    with Watcher.attach(rundir.find(one_run(run, named)).path) as watcher:
        snapshot = watcher.complete(timeout_seconds=5.0)
    if form is not None:
        screen.print_data(session(snapshot), form)
        return
    screen.tell(statuses.text(snapshot))


def _bus(folder: RunFolder, form: bool | None) -> None:
    from swarm.cli import screen
    from swarm.views.busview import bus_data

    data = bus_data(folder)
    if form is not None:
        screen.print_data(data, form)
        return
    for rows in filter(None, (data["messages"], data["links"])):
        screen.tell(
            screen.columns([tuple(rows[0]), *(tuple(str(cell) for cell in row.values()) for row in rows)]) + "\n"
        )
    if not data["messages"]:
        print("no coordinator is at work: latencies are known only while one is", file=sys.stderr)
    screen.tell(" · ".join(f"{count} {name.replace('_', '-')}" for name, count in data["counts"].items()))


def runs(
    *,
    runs: Runs | None = None,
    name: Annotated[str | None, typer.Option("--name", metavar="PATTERN", help="runs of this name, `demo*`")] = None,
    base: Annotated[str | None, typer.Option("--base", metavar="PATTERN", help="runs on this base model")] = None,
    state: Annotated[str | None, typer.Option("--state", metavar="PATTERN", help="running, ended, stopped, ...")] = None,
    promoted: Annotated[bool, typer.Option("--promoted", help="runs that promoted an adapter")] = False,
    compare: Annotated[bool, typer.Option("--compare", help="a row for each stream, with its figures and what its settings differ in")] = False,
    form: Form = None,
) -> None:  # fmt: skip
    """List the runs here, the newest last.

    When they began, how they stand, their best figure, what they promoted and as which version.
    """
    from swarm import rundir
    from swarm.cli import screen
    from swarm.rundir import RunFolder
    from swarm.views.runlist import Wanted, run_rows, stream_rows

    here = rundir.runs_of(runs)
    rows = run_rows(here, Wanted(name, base, state, promoted))
    if compare:
        rows = stream_rows([RunFolder(here / row["run"]) for row in rows if row["state"] != "damaged log"])
    if form is not None:
        screen.print_data({"streams" if compare else "runs": rows}, form)
    elif rows:
        screen.tell(screen.columns([tuple(rows[0]), *(tuple(map(_cell, row.values())) for row in rows)]))
    else:
        print(
            "no run yet: `swarm run CONFIG` starts one" if next(rundir.all_runs(here), None) is None else "no such run",
            file=sys.stderr,
        )


def _cell(value: Any) -> str:
    """Of a setting or a figure: data sets by their files, and nothing longer than a table bears; `--json` has all of it."""
    from swarm.printable import one_line

    match value:
        case None | [] | {}:
            return "-"
        case float():
            return f"{value:.4g}"
        case [{"path": _}, *_]:
            return one_line(", ".join(Path(one["path"]).name for one in value), CELL_CHARACTERS)
        case _:
            return one_line(str(value), CELL_CHARACTERS)


CELL_CHARACTERS = 48


def export(
    run: RunArgument = None,
    *,
    named: NamedRun = None,
    what: Annotated[str, typer.Option("--what", help="metrics, events, bus or session")] = "session",
    format: Annotated[str | None, typer.Option("--format", help="toon (the default), json, jsonl, csv or auto: the cheaper of toon and json")] = None,  # noqa: A002  the word users write
    stream: OnlyStream = None,
    since: Annotated[int, typer.Option("--since", metavar="N", min=0, help="steps (metrics) or entries (events) after this one")] = 0,
    points: Annotated[int | None, typer.Option("--points", metavar="N", min=1, help="metrics: only N rows of each stream, evenly, with the last")] = None,
    columns: Annotated[str | None, typer.Option("--columns", metavar="NAMES", help="only these, with commas: stream,step,loss")] = None,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="go on until the run ends")] = False,
    tokens: Annotated[bool, typer.Option("--tokens", help="say what it costs in tokens instead, beside compact JSON")] = False,
    tokenizer: Annotated[str | None, typer.Option("--tokenizer", metavar="NAME", help="count with this: a stream, a base model, a tokenizer.json; else estimated")] = None,
    form: Form = None,
) -> None:  # fmt: skip
    """Write metrics, entries, bus or session for programs."""
    from swarm import rundir
    from swarm.cli import screen
    from swarm.errors import UserError
    from swarm.views import export as exports
    from swarm.views import tokens as counting

    folder = rundir.find(one_run(run, named))
    names = [name.strip() for name in (columns or "").split(",") if name.strip()]
    count = counting.counter(tokenizer, folder)
    if form is not None and format:
        raise UserError("--format", f"{format} and {'--json' if form else '--toon'} are both given", "leave one out")
    if tokens:
        if format or follow:
            raise UserError("--tokens", "compares all forms of what is there now", "leave out --format and --follow")
        found = exports.document(folder, what, stream, since, points=points, columns=names)
        screen.print_data({"tokens": counting.costs(found, count)}, form=bool(form))
        return
    for line in exports.lines(
        folder, what=what, form=format or ("json" if form else "toon"), stream=stream, since=since, follow=follow, points=points, columns=names,
        count_tokens=count,
    ):  # fmt: skip
        print(screen.as_shown(line), flush=follow)
