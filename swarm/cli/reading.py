"""`swarm log`: the entries of a run for people and programs, as they are or as they come."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import typer

from swarm.cli.options import Form, NamedRun, one_run

if TYPE_CHECKING:
    from swarm.agents.inbox import Message
    from swarm.log import Entry
    from swarm.rundir import RunFolder

LOOK_SECONDS = 0.3
"""How often `--follow` looks for new entries."""
NOTE = "note"
"""The kind that lines show for text that a person typed into the file; in data it is `seal`."""


def add_to(app: typer.Typer) -> None:
    app.command()(log)


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
        from swarm.cli import entries, screen
        from swarm.views.replay import checked_seq

        found = _last(self.fresh(), tail)
        if self.wanted.to is not None:
            checked_seq(self.wanted.to, self.log.last_seq)
        if form is None:
            for message in found:
                screen.tell(entries.line(message, self.amended))
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
        from swarm.cli import entries, screen

        for message in found:
            if form is None:
                print(screen.for_people(entries.line(message, self.amended)), flush=True)
            else:  # one document per entry
                screen.print_data(self._data([message], form)[0], form, following=True)

    def _data(self, found: list[Message], form: bool) -> list[dict[str, Any]]:
        from swarm.cli import entries

        rows = [entries.data(message, self.amended, marked=self.reader is not None) for message in found]
        return rows if form else entries.table(rows)


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
