"""`swarm runs, status, log, ask, export, prune`: read runs, and free the disk space of finished ones."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from swarm.cli.options import Form, NamedRun, OnlyStream, Run, RunArgument, Runs, form_words, one_run
from swarm.spawning import module_command

if TYPE_CHECKING:
    from swarm.agents.inbox import Message
    from swarm.log import Entry
    from swarm.rundir import RunFolder

LOOK_SECONDS = 0.3
"""How often `--follow` looks for new entries."""
NOTE = "note"
"""The kind that lines show for text that a person typed into the file; in data it is `seal`."""


def add_to(app: typer.Typer) -> None:
    app.command()(runs)
    app.command()(status)
    app.command()(log)
    app.command()(ask)
    app.command()(export)
    app.command()(prune)


def status(
    run: RunArgument = None,
    *,
    named: NamedRun = None,
    bus: Annotated[bool, typer.Option("--bus", help="latency by type of message, links, hand-overs, errors")] = False,
    form: Form = None,
) -> None:
    """One look at a run: streams, workers, bus, what is held."""
    from swarm import rundir
    from swarm.cli import screen

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
    screen.tell(screen.status_text(snapshot))


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


def runs(*, runs: Runs | None = None, form: Form = None) -> None:
    """List the runs here, the newest last.

    When they began, how they stand, what they promoted.
    """
    from swarm import rundir
    from swarm.cli import screen
    from swarm.views.runlist import run_rows

    rows = run_rows(rundir.runs_here() if runs is None else runs)
    if form is not None:
        screen.print_data({"runs": rows}, form)
    elif rows:
        screen.tell(screen.columns([tuple(rows[0]), *(tuple(str(v or "-") for v in row.values()) for row in rows)]))
    else:
        print("no run yet: `swarm run CONFIG` starts one", file=sys.stderr)


def log(
    words: Annotated[
        list[str] | None, typer.Argument(metavar="[verify] [RUN]", help="`verify` checks every byte instead of showing")
    ] = None,
    *,
    named: NamedRun = None,
    since: Annotated[int | None, typer.Option("--since", metavar="SEQ", min=0, help="entries after this one")] = None,
    to: Annotated[int | None, typer.Option("--to", metavar="SEQ", min=1, help="this one is the last")] = None,
    tail: Annotated[int | None, typer.Option("--tail", metavar="N", min=0, help="only the last N")] = None,
    stream: Annotated[
        str | None, typer.Option("--stream", metavar="REF", help="only about this stream, task, or `run`")
    ] = None,
    kind: Annotated[str | None, typer.Option("--kind", help="only this kind of entry")] = None,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="go on as entries come (--json: one object a line)")
    ] = False,
    author: Annotated[
        str | None, typer.Option("--as", metavar="NAME", help="mark what is addressed to NAME, with the reason")
    ] = None,
    form: Form = None,
) -> None:
    """Show the log, one line per entry; `verify` checks it.

    --json and --toon give entries whole: `swarm log --to SEQ --tail 1 --toon`.
    """
    from swarm import rundir
    from swarm.cli import record

    verify, run = _verify_and_run(words or [], named)
    chosen = {"--since": since, "--to": to, "--tail": tail, "--stream": stream, "--kind": kind, "--follow": follow, "--as": author}  # fmt: skip
    if verify:
        _check_unused(chosen, "verify", "looks at every entry")
        sys.exit(record.verify_log(run, form))
    wanted = _Wanted(since or 0, to, stream, kind)
    reading = _Reading(rundir.find(run), wanted, author)
    if follow:
        reading.follow(tail, form)
    else:
        reading.show(tail, form)


def _verify_and_run(words: list[str], named: str | None) -> tuple[bool, str | None]:
    """Whether to verify, and the run."""
    from swarm.errors import UserError

    verify = words[:1] == ["verify"]
    runs = words[verify:]
    if len(runs) > 1:
        raise UserError(runs[1], "one run at a time", "swarm log [verify] [RUN]")
    return verify, one_run(runs[0] if runs else None, named)


@dataclass(frozen=True)
class _Wanted:
    """The entries to show."""

    since: int
    to: int | None
    ref: str | None
    """A stream, a task or `run`."""
    kind: str | None
    """As lines name it or as data do."""

    def holds(self, entry: Entry) -> bool:
        from swarm.views.logview import name_of

        event = entry.event
        return (
            self.since < entry.seq <= (self.to or entry.seq)
            and self.ref in {None, event.stream, event.ref}
            and self.kind in {None, event.kind, name_of(event)}
        )


class _Reading:
    """Reads the wanted entries of a log, and remembers how far."""

    def __init__(self, folder: RunFolder, wanted: _Wanted, author: str | None) -> None:
        """Raises UserError for an unknown name, kind or stream."""
        from swarm import rundir
        from swarm.agents.inbox import Reader
        from swarm.log import Log
        from swarm.views.export import check_stream

        _check_kind(wanted.kind)
        check_stream(folder, wanted.ref, tasks=True)
        self.folder, self.wanted = folder, wanted
        self.log = Log(folder.log)
        self.amended: dict[int, str] = {}
        self.has_ended = False
        self.reader = Reader(rundir.checked_name(author)) if author is not None else None

    def fresh(self) -> list[Message]:
        """The wanted entries among those since the last call."""
        from swarm.agents.inbox import Message
        from swarm.events import Amend, End, Resume

        entries = self.log.refresh()
        for entry in entries:
            self.has_ended = isinstance(entry.event, End) or (self.has_ended and not isinstance(entry.event, Resume))
        self.amended.update({e.event.of: f"{e.seq} by {e.author}" for e in entries if isinstance(e.event, Amend)})
        found = [Message(self.reader.why(entry) if self.reader else "", entry) for entry in entries]
        return [message for message in found if self.wanted.holds(message.entry)]

    def show(self, tail: int | None, form: bool | None) -> None:
        from swarm.cli import screen
        from swarm.views.replay import checked_seq

        found = _last(self.fresh(), tail)
        if self.wanted.to is not None:
            checked_seq(self.wanted.to, self.log.last_seq)
        if form is None:
            for message in found:
                screen.tell(screen.entry_line(message, self.amended))
        else:
            screen.print_data({"entries": self._data(found, form)}, form)

    def follow(self, tail: int | None, form: bool | None) -> None:
        """Show entries as they come, up to the last one that is wanted or to the end of the run.

        Raises UserError when the run is removed.
        """
        import time

        from swarm.errors import UserError
        from swarm.log import run_is_alive

        found = _last(self.fresh(), tail)
        while True:
            self._print_each(found, form)
            if self.wanted.to is not None and self.log.last_seq >= self.wanted.to:
                return
            if self.has_ended and not run_is_alive(self.folder.log) and not (found := self.fresh()):
                return
            time.sleep(LOOK_SECONDS)
            if not self.folder.is_run:
                raise UserError(str(self.folder.path), "was removed", "there is nothing more to follow")
            found = self.fresh()

    def _print_each(self, found: list[Message], form: bool | None) -> None:
        from swarm.cli import screen

        for message in found:
            if form is None:
                print(screen.for_people(screen.entry_line(message, self.amended)), flush=True)
            else:  # one document per entry
                screen.print_data(self._data([message], form)[0], form, following=True)

    def _data(self, found: list[Message], form: bool) -> list[dict[str, Any]]:
        from swarm.cli import screen

        rows = [screen.entry_data(message, self.amended, marked=self.reader is not None) for message in found]
        return rows if form else screen.as_table(rows)


def _last(found: list[Message], count: int | None) -> list[Message]:
    return found if count is None else found[-count:] if count else []


def _check_kind(kind: str | None) -> None:
    from swarm.errors import UserError
    from swarm.events import KINDS

    known = {*KINDS, NOTE}
    if kind is not None and kind not in known:
        raise UserError("--kind", f"{kind!r} is no kind of entry", f"take one of {', '.join(sorted(known))}")


def _check_unused(options: Mapping[str, Any], by: str, why: str) -> None:
    """Raises UserError for an option that has no effect here."""
    from swarm.errors import UserError

    for option, value in options.items():
        if value is not None and value is not False:
            raise UserError(option, f"means nothing to `{by}`, which {why}", "leave it out")


def ask(
    prompts: Annotated[
        list[str],
        typer.Argument(
            metavar="PROMPT...", help="what to ask; `-` reads standard input.  Words without quotes are one question"
        ),
    ],
    run: Run = None,
    *,
    stream: Annotated[
        str | None, typer.Option("--stream", help="this stream's adapter instead of the promoted one")
    ] = None,
    tokens: Annotated[
        int | None,
        typer.Option(
            "--max-new-tokens",
            metavar="N",
            min=1,
            help="cut an answer after N tokens; by default after `eval_max_new_tokens`",
        ),
    ] = None,
    form: Form = None,
) -> None:
    """Put the same questions to base and adapter."""
    import json
    import subprocess
    import tempfile

    from swarm import config, rundir
    from swarm.errors import UserError
    from swarm.log import Log
    from swarm.state import fold
    from swarm.weights import check_adapter

    folder = rundir.find(run)
    state = fold(Log(folder.log).entries())
    name = stream or (state.promoted.ref if state.promoted else None)
    if name is None or name not in state.streams:
        raise UserError(
            folder.name, f"no stream {name!r}" if name else "nothing was promoted", "name one with --stream"
        )
    adapter = folder.stream(name) / "adapter" if stream else folder.promoted
    try:
        check_adapter(adapter)
    except FileNotFoundError:
        raise UserError(str(adapter), "has no adapter yet", "wait until the stream is validated") from None
    settings = config.of_run(folder, state.added).streams[name]
    settings = settings.model_copy(update={"eval_max_new_tokens": tokens or settings.eval_max_new_tokens})
    texts = [sys.stdin.read() if prompt == "-" else prompt for prompt in _questions(prompts)]
    with tempfile.NamedTemporaryFile("w", suffix=".json", encoding="utf-8") as file:
        file.write(json.dumps(settings.model_dump(mode="json")))
        file.flush()
        command = module_command(
            "trainer.ask", "--run", str(folder.path), "--adapter", str(adapter),
            "--base", settings.base_model, "--settings", file.name, *form_words(form), "--", *texts,
        )  # fmt: skip
        sys.exit(subprocess.run(command, check=False).returncode)


def _questions(words: list[str]) -> list[str]:
    """Words that a shell has taken apart are one question; where one holds a space, each was quoted as a question of its own."""
    if "-" in words or any(any(map(str.isspace, word)) for word in words):
        return words
    return [" ".join(words)]


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
    if tokens:
        if format or follow:
            raise UserError("--tokens", "compares all forms of what is there now", "leave out --format and --follow")
        found = exports.document(folder, what, stream, since, points=points, columns=names)
        screen.print_data({"tokens": counting.costs(found, count)}, form=False)
        return
    for line in exports.lines(
        folder, what=what, form=format or "toon", stream=stream, since=since, follow=follow, points=points, columns=names,
        count_tokens=count,
    ):  # fmt: skip
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
    from swarm import units
    from swarm.artifacts import pruning
    from swarm.errors import UserError

    if not runs.is_dir():
        raise UserError("--runs", f"there is no folder {runs}", "name the folder that holds the runs")
    found = pruning.candidates(runs, whole_runs=whole_runs, keep=keep)
    if not found:
        print("nothing to prune", file=sys.stderr)
        return
    for item in found:
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
