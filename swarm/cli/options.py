"""Arguments and options that several commands take, and how commands print their answer."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from swarm.cli.flags import as_overrides

if TYPE_CHECKING:
    from swarm.agents.agent import Agent
    from swarm.rundir import RunFolder

Form = Annotated[bool | None, typer.Option("--json/--toon", help="as JSON, as TOON")]
"""True JSON, False TOON, None for people."""


def some_run(run: str | None) -> str | None:
    """RUN itself.  Raises UserError for an empty one: an unset variable of a script does not mean the newest run."""
    from swarm.errors import UserError

    if run == "":
        raise UserError("RUN", "'' names no run", "name one, or leave it out for the newest in ./runs")
    return run


RUN_HELP = "run folder or name; default: the newest in ./runs, here or above"
RunArgument = Annotated[str | None, typer.Argument(metavar="[RUN]", help=RUN_HELP)]
RunOrStream = Annotated[
    str | None, typer.Argument(metavar="[RUN|STREAM]", help="a stream of the newest run, or a run folder or name")
]
Run = Annotated[str | None, typer.Option("--run", metavar="RUN", help=RUN_HELP, callback=some_run)]
NamedRun = Annotated[
    str | None, typer.Option("--run", metavar="RUN", help="RUN, as the other commands take it", callback=some_run)
]
Runs = Annotated[Path, typer.Option("--runs", help="the folder that holds the runs")]
Config = Annotated[Path, typer.Argument(help="a YAML or TOML config")]
Overrides = Annotated[
    list[str] | None,
    typer.Argument(metavar="[KEY.PATH=VALUE]...", help="e.g. streams.wide.lora_r=64", callback=as_overrides),
]
OnlyStream = Annotated[str | None, typer.Option("--stream", help="only this stream")]
Plain = Annotated[bool, typer.Option("--plain", help="lines instead of the dashboard")]
Detach = Annotated[bool, typer.Option("--detach", help="start it and return")]
Again = Annotated[bool, typer.Option("--again", help="also what was run before with the same settings and data")]

Device = Annotated[str | None, typer.Option("--device", help="cpu, mps or gpu0; default: a GPU if there is one")]

As = Annotated[str | None, typer.Option("--as", metavar="NAME", help="act under this name")]
Idem = Annotated[
    str | None,
    typer.Option("--idem", metavar="KEY", help="idempotency key: the same event sent again is recorded once"),
]
Ref = Annotated[str, typer.Argument(help="a task like wide/validate or data/check")]
About = Annotated[str, typer.Argument(help="run, a stream, a task, or `-` for nothing in particular")]
Judged = Annotated[
    str, typer.Argument(help="a stream, or `run` for whatever is promoted; with --of also a task or `-`")
]
OfEntry = Annotated[int | None, typer.Option("--of", metavar="SEQ", help="the entry that this is about")]
AGENT_LEASE_SECONDS = 600.0
"""Default lease of an agent: a model that reads and judges takes minutes."""
Token = Annotated[int, typer.Option("--token", min=1, help="what `claim` gave")]
Ttl = Annotated[
    float, typer.Option("--ttl", metavar="SECONDS", help="how long the lease lasts unless renewed: 3 s to 7 days")
]


def one_run(run: str | None, named: str | None) -> str | None:
    """The run, given as an argument or as `--run`.  Raises UserError if both are given and differ."""
    from swarm import rundir
    from swarm.errors import UserError

    if some_run(run) is not None and named is not None and rundir.find(run).path != rundir.find(named).path:
        raise UserError("--run", f"{named} is another run than {run}", "name the run once")
    return run if named is None else named


def run_or_stream(word: str | None, named: str | None, stream: str | None) -> tuple[RunFolder, str | None]:
    """The run and the stream of `COMMAND WORD`: WORD names a run, or else a stream of `named` or of the newest run.

    Raises UserError if it names neither.
    """
    from swarm import rundir
    from swarm.errors import UserError
    from swarm.log import Log
    from swarm.rundir import RunFolder
    from swarm.state import fold

    if some_run(word) is None or stream is not None:
        return rundir.find(one_run(word, named)), stream
    assert word
    places = (Path(word), rundir.runs_here() / word)
    any_run = named is not None or next(rundir.all_runs(rundir.runs_here()), None) is not None
    if any_run and not any(RunFolder(path).is_run for path in places):
        folder = rundir.find(named)
        streams = fold(Log(folder.log).entries()).streams
        if word in streams:
            return folder, word
        try:
            rundir.find(word)
        except UserError:
            raise UserError(word, f"is no run and no stream of {folder.name}", _near(word, streams)) from None
    return rundir.find(one_run(word, named)), stream


def _near(word: str, streams: Iterable[str]) -> str:
    from difflib import get_close_matches

    near = get_close_matches(word, streams, n=1)
    return f"did you mean {near[0]}?" if near else "`swarm runs` lists the runs, `swarm status` the streams"


def form_words(form: bool | None) -> list[str]:
    """The option that selects the form in the trainer's commands."""
    return [] if form is None else ["--json" if form else "--toon"]


def agent_of(run: str | None, name: str | None) -> Agent:
    """The agent in whose name the command acts; without a name the run's owner."""
    from swarm.agents.agent import Agent
    from swarm.rundir import user_name

    return Agent(user_name(), run, own_key=False) if name is None else Agent(name, run)


def tell(line: str, data: dict[str, Any], form: bool | None) -> None:
    """Print the answer on stdout: the line for people, or the data."""
    from swarm.cli import screen

    if form is None:
        screen.tell(line)
    else:
        screen.print_data(data, form)


def say(kind: str, run: str | None, author: str | None, form: bool | None, **fields: Any) -> None:
    """Append one event and print its seq."""
    from swarm.access.checked import checked
    from swarm.events import KINDS
    from swarm.policy.research import remark

    with agent_of(run, author) as agent:
        event = checked(KINDS[kind], **fields)
        seq = agent.append(event)
        if note := remark(agent.state, event):
            print(f"swarm: {note}", file=sys.stderr)
    tell(f"{seq} {kind} {event.ref}", {"seq": seq, "kind": kind, "ref": event.ref, "by": agent.name}, form)
