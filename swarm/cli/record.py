"""`swarm digest, replay, lineage` and `swarm log verify`: the log in short, at an earlier moment, by adapter, and checked."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Annotated, Any

import typer

from swarm.cli.options import Form, NamedRun, RunArgument, RunOrStream, agent_of, one_run, run_or_stream

if TYPE_CHECKING:
    from swarm.log import Fault


def add_to(app: typer.Typer) -> None:
    app.command()(digest)
    app.command()(replay)
    app.command()(lineage)


def digest(
    run: RunArgument = None,
    *,
    named: NamedRun = None,
    budget: Annotated[
        int, typer.Option("--budget", metavar="TOKENS", help="never more than this (o200k), as printed")
    ] = 600,
    author: Annotated[
        str | None, typer.Option("--as", metavar="NAME", help="with what was written to NAME and not looked at yet")
    ] = None,
    form: Form = None,
) -> None:
    """The state of the run in a few hundred tokens of TOON."""
    from swarm.cli import screen
    from swarm.errors import UserError
    from swarm.views import digest as digests
    from swarm.views.digesting import digest_of
    from toon import encode
    from toon.sizes import compact_json

    if budget < digests.LEAST_TOKENS:
        raise UserError("--budget", f"{budget} tokens are too few", f"take {digests.LEAST_TOKENS} or more")
    with agent_of(one_run(run, named), author) as agent:
        found = agent.inbox(peek=True).messages if author else ()
        unread = [digests.Unread(m.entry.seq, m.entry.author, m.entry.event.ref, m.as_corrected) for m in found]
        write = compact_json if form else encode
        text = digest_of(agent.folder, agent.state, agent.now(), budget, unread, write=write)
    screen.tell(text)


def replay(
    run: RunArgument = None,
    *,
    named: NamedRun = None,
    to: Annotated[
        int | None, typer.Option("--to", metavar="SEQ", help="when this entry was the last; default: now")
    ] = None,
    form: Form = None,
) -> None:
    """A run as it stood at any moment, folded from its log."""
    from swarm import rundir
    from swarm.cli import screen, statuses
    from swarm.views.replay import snapshot_at
    from swarm.views.report import session

    snapshot = snapshot_at(rundir.find(one_run(run, named)), to)
    if form is not None:
        screen.print_data(session(snapshot), form)
        return
    screen.tell(statuses.text(snapshot))
    screen.tell("\n" + "\n".join(snapshot.tail[-3:]))


def lineage(run: RunOrStream = None, *, named: NamedRun = None, form: Form = None) -> None:
    """Where adapters come from, and whether they are whole.

    `swarm lineage STREAM` is about that one.  Data, base, attempts, judges, who approved.
    """
    from swarm.artifacts.lineage import rows
    from swarm.cli import screen

    folder, stream = run_or_stream(run, named, None)
    documents = [found for found in _lineages(folder) if stream in {None, found["stream"]}]
    if form is not None:
        screen.print_data({"run": folder.name, "adapters": documents if form else rows(documents)}, form)
    elif not documents:
        print("no adapter was published yet")
    else:
        screen.tell(_lineage_text(rows(documents)))


def _lineages(folder: Any) -> list[dict[str, Any]]:
    from swarm.artifacts.lineage import lineage as lineage_of
    from swarm.log import Log
    from swarm.state import fold

    state = fold(Log(folder.log).entries())
    settings = _settings(folder, state)
    return [
        {
            **lineage_of(folder.name, state, name, settings.get(name)),
            "files": _files(folder, stream.adapter),
            "promoted_files": _files(folder, state.promoted if state.promoted and state.promoted.ref == name else None),
            "config": _config(folder, state.run),
        }
        for name, stream in state.streams.items()
        if stream.adapter
    ]


def _settings(folder: Any, state: Any) -> dict[str, Any]:
    """The settings of the streams in the config; none if it cannot be read, which `_config` reports."""
    from swarm import config
    from swarm.errors import UserErrors

    try:
        return config.of_run(folder, state.added).streams
    except UserErrors:
        return {}


def _files(folder: Any, published: Any) -> str | None:
    """Whether the published files have the hash of their entry: ok, changed or missing."""
    from swarm.artifacts import publish

    return publish.intact(folder, published.path, published.sha256) if published else None


def _config(folder: Any, run: Any) -> str:
    """Whether the config is the one with which the run began: ok, changed or missing."""
    from swarm.weights import sha256_in_run

    if not folder.config.exists():
        return "missing"
    return "ok" if run and sha256_in_run(folder.config) == run.config_sha256 else "changed"


def _lineage_text(rows: list[dict[str, Any]]) -> str:
    """One block per adapter: a table of so many columns would be too wide."""
    blocks = []
    for row in rows:
        shown = {key: value for key, value in row.items() if value not in (None, "")}
        blocks.append("\n".join(f"{key:<17}{value}" for key, value in shown.items()))
    return "\n\n".join(blocks)


def verify_log(run: str | None, form: bool | None) -> int:
    """`swarm log verify`: every fault with its place on stdout; exit status 1 if there is one."""
    import sys
    from dataclasses import asdict

    from swarm import rundir
    from swarm.cli import screen
    from swarm.log import verify
    from swarm.rundir import LogFiles

    folder = rundir.find(run)
    secret = folder.log_secret(make=False)
    faults = verify(folder.log, secret=secret)
    if form is not None:
        screen.print_data({"faults": [asdict(fault) for fault in faults]}, form)
    for fault in faults if form is None else ():
        screen.tell(_fault_text(fault))
    signed = "signed heads checked" if secret else "no secret here: signed heads were not checked"
    cut = "" if LogFiles(folder.log).wal.exists() else "; without collaboration/wal a cut end cannot be seen"
    print(f"{folder.log}: {_count(folder, faults)}; {signed}{cut}", file=sys.stderr)
    return 1 if faults else 0


def _fault_text(fault: Fault) -> str:
    """Place, entry and reason of a fault; some reasons name the entry themselves, and the write-ahead file has no lines."""
    place = f"{fault.file}:{fault.line}" if fault.line else f"{fault.file}, byte {fault.offset}"
    entry = "" if re.search(r"\bentry (?:\d|before )", fault.why) else f"entry {fault.seq}: "
    return f"{place}: {entry}{fault.why}"


def _count(folder: Any, faults: list[Any]) -> str:
    from swarm.log import Log

    if faults:
        return f"{len(faults)} fault{'s' * (len(faults) > 1)}"
    log = Log(folder.log)
    log.read()
    return f"{log.last_seq} entries, every byte as written"
