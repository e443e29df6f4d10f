"""`swarm status, log, ask, export, prune`: read what a run did, and clear up after it."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer

from swarm.cli.options import Form, NamedRun, OnlyStream, Run, RunArgument, Runs, form_words, one_run


def add_to(app: typer.Typer) -> None:
    app.command()(status)
    app.command()(log)
    app.command()(ask)
    app.command()(export)
    app.command()(prune)


def status(run: RunArgument = None, *, named: NamedRun = None, form: Form = None) -> None:
    """One look at a run: streams, workers, bus, what is held."""
    from swarm import rundir
    from swarm.cli import screen
    from swarm.report import session
    from swarm.watch import Watcher

    with Watcher.attach(rundir.find(one_run(run, named)).path) as watcher:
        snapshot = watcher.complete(timeout_seconds=5.0)
    if form is not None:
        screen.print_data(session(snapshot), form)
        return
    screen.tell(screen.status_text(snapshot))


def log(
    words: Annotated[
        list[str] | None, typer.Argument(metavar="[verify] [RUN]", help="`verify` checks every byte instead of showing")
    ] = None,
    *,
    named: NamedRun = None,
    since: Annotated[int, typer.Option("--since", metavar="SEQ", help="entries after this one")] = 0,
    tail: Annotated[int | None, typer.Option("--tail", metavar="N", min=0, help="only the last N")] = None,
    stream: OnlyStream = None,
    kind: Annotated[str | None, typer.Option("--kind", help="only this kind of entry")] = None,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="go on as entries come (--json: one object a line)")
    ] = False,
    author: Annotated[
        str | None, typer.Option("--as", metavar="NAME", help="mark what is addressed to NAME, with the reason")
    ] = None,
    form: Form = None,
) -> None:
    """The shared log, one line per entry; `verify` checks every byte."""
    import time

    from swarm import rundir
    from swarm.cli import record, screen
    from swarm.errors import UserError
    from swarm.events import KINDS, Amend
    from swarm.export import check_stream
    from swarm.inbox import Message, Reader
    from swarm.log import Log

    verify, runs = (words or [])[:1] == ["verify"], [*(words or [])]
    del runs[:verify]
    if len(runs) > 1:
        raise UserError(runs[1], "one run at a time", "swarm log [verify] [RUN]")
    run = one_run(runs[0] if runs else None, named)
    if verify:
        sys.exit(record.verify_log(run, form))
    if kind is not None and kind not in KINDS:
        raise UserError("--kind", f"{kind!r} is no kind of entry", f"take one of {', '.join(sorted(KINDS))}")
    folder = rundir.find(run)
    check_stream(folder, stream)
    read = Log(folder.log)
    reader = Reader(rundir.checked_name(author)) if author is not None else None

    amended: dict[int, str] = {}

    def fresh() -> Iterator[Message]:
        entries = read.refresh()
        amended.update({e.event.of: f"{e.seq} by {e.author}" for e in entries if isinstance(e.event, Amend)})
        for entry in entries:
            why = reader.why(entry) if reader else ""
            if entry.seq > since and stream in {None, entry.event.stream} and kind in {None, entry.event.kind}:
                yield Message(why, entry)

    found = list(fresh())
    if tail is not None:
        found = found[-tail:] if tail else []
    if form is not None and not follow:
        screen.print_data({"entries": [screen.entry_data(m, amended, marked=reader is not None) for m in found]}, form)
        return
    while True:
        for message in found:
            if form is None:
                print(screen.entry_line(message, amended), flush=follow)
            else:  # a document for each entry
                screen.print_data(screen.entry_data(message, amended, marked=reader is not None), form, following=True)
        if not follow:
            return
        time.sleep(0.3)
        found = list(fresh())


def ask(
    prompts: Annotated[list[str], typer.Argument(metavar="PROMPT...", help="what to ask; `-` reads standard input")],
    run: Run = None,
    *,
    stream: Annotated[
        str | None, typer.Option("--stream", help="this stream's adapter instead of the promoted one")
    ] = None,
    form: Form = None,
) -> None:
    """Ask base and adapter the same questions and show both answers."""
    import json
    import subprocess
    import tempfile

    from swarm import config, rundir
    from swarm.errors import UserError
    from swarm.log import Log
    from swarm.state import fold

    folder = rundir.find(run)
    state = fold(Log(folder.log).entries())
    name = stream or (state.promoted.ref if state.promoted else None)
    if name is None or name not in state.streams:
        raise UserError(
            folder.name, f"no stream {name!r}" if name else "nothing was promoted", "name one with --stream"
        )
    adapter = folder.stream(name) / "adapter" if stream else folder.promoted
    if not adapter.exists():
        raise UserError(str(adapter), "has no adapter yet", "wait until the stream is validated")
    settings = config.of_run(folder).streams[name]
    texts = [sys.stdin.read() if prompt == "-" else prompt for prompt in prompts]
    with tempfile.NamedTemporaryFile("w", suffix=".json", encoding="utf-8") as file:
        file.write(json.dumps(settings.model_dump(mode="json")))
        file.flush()
        command = [
            sys.executable, "-m", "trainer.ask", "--run", str(folder.path), "--adapter", str(adapter),
            "--base", settings.base_model, "--settings", file.name, *form_words(form), "--", *texts,
        ]  # fmt: skip
        sys.exit(subprocess.run(command, check=False).returncode)


def export(
    run: RunArgument = None,
    *,
    named: NamedRun = None,
    what: Annotated[str, typer.Option("--what", help="metrics, events, bus or session")] = "session",
    format: Annotated[str | None, typer.Option("--format", help="toon (if not said), json, jsonl, csv or auto: the cheaper of toon and json")] = None,  # noqa: A002  the word users write
    stream: OnlyStream = None,
    since: Annotated[int, typer.Option("--since", metavar="N", help="steps (metrics) or entries (events) after this one")] = 0,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="go on until the run ends")] = False,
    tokens: Annotated[bool, typer.Option("--tokens", help="say what it costs in tokens instead, beside compact JSON")] = False,
    tokenizer: Annotated[str | None, typer.Option("--tokenizer", metavar="NAME", help="count with this: a stream, a base model, a tokenizer.json; else estimated")] = None,
) -> None:  # fmt: skip
    """Write metrics, entries, the bus or the session, row by row."""
    from swarm import export as rooms
    from swarm import rundir
    from swarm import tokens as counting
    from swarm.cli import screen
    from swarm.errors import UserError

    folder = rundir.find(one_run(run, named))
    count = counting.counter(tokenizer, folder)
    if tokens:
        if format or follow:
            raise UserError("--tokens", "compares all forms of what is there now", "leave out --format and --follow")
        screen.print_data({"tokens": counting.costs(rooms.document(folder, what, stream, since), count)}, form=False)
        return
    for line in rooms.lines(
        folder, what=what, form=format or "toon", stream=stream, since=since, follow=follow, count_tokens=count
    ):
        print(screen.as_shown(line), flush=follow)


def prune(
    *,
    runs: Runs = Path("runs"),
    whole_runs: Annotated[
        bool, typer.Option("--whole-runs", help="remove finished runs, not only their checkpoints")
    ] = False,
    keep: Annotated[int, typer.Option("--keep", min=0, help="newest runs that are left alone")] = 1,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="do not ask")] = False,
) -> None:
    """Free disk: checkpoints of finished runs; asks first.

    With --whole-runs everything of them.
    """
    from swarm import pruning, units

    found = pruning.candidates(runs, whole_runs=whole_runs, keep=keep)
    if not found:
        print("nothing to prune", file=sys.stderr)
        return
    for item in found:
        print(f"{units.size(item.bytes):>9}  {item.path}")
    total = units.size(sum(item.bytes for item in found))
    if not yes and not typer.confirm(f"remove these {len(found)} folders ({total})?", err=True):
        print("nothing was removed", file=sys.stderr)
        return
    pruning.remove(found)
    print(f"removed {len(found)} folders, {total} freed", file=sys.stderr)
