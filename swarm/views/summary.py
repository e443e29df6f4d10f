"""`SUMMARY.md`: what a run came to, for people who were not there; made from the log alone when the run ends, pure.

It is a view and no record: nothing reads it, and a run that goes on and ends again gets a new one.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from swarm import events as ev
from swarm import figures
from swarm.log import Entry
from swarm.printable import one_line
from swarm.state import State, Stream, fold
from swarm.views.streamrows import state_of

FILE = "SUMMARY.md"
SHOWN = ("loss", "eval_loss", "exact_match", "tokens_per_second")
"""Figures of the table, where any stream has them; compared ones that are not named here follow."""
CHARACTERS = 300
WHY_CHARACTERS = 2_000
"""A comparison of many arms is stated whole."""
NAMED_STREAMS = 8


def summary(entries: Sequence[Entry]) -> str:
    """The whole text."""
    state = fold(entries)
    name = state.run.name if state.run else "this run"
    parts = [
        f"# {name}: {_outcome(state)}",
        _question(state),
        _winner(state),
        _table(state),
        _listed("Given up", [f"{stream.name}: {one_line(stream.failed, CHARACTERS)}" for stream in _failed(state)]),
        _listed("Objections", _opinions(entries, ev.Object)),
        _listed("Approvals", _opinions(entries, ev.Approve)),
        _listed("Open questions", _questions(state, entries)),
        _use(state),
        f"Made from `COLLABORATION.md` up to entry {state.seq}; `swarm log` has the whole story, `swarm lineage` where each adapter comes from.",
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _outcome(state: State) -> str:
    if state.promoted:
        return f"{state.promoted.ref} is promoted"
    if state.end and state.end.rc == 130:
        return "stopped before its end"
    return "nothing was promoted"


def _question(state: State) -> str:
    """What the run was to find out."""
    names = list(state.streams)
    if len(names) < 2:
        return f"Question: is {names[0]} better than the bare base?" if names else ""
    more = f" and {len(names) - NAMED_STREAMS} more" if len(names) > NAMED_STREAMS else ""
    by = f", by {figures.of(state.compared.metric).label}" if state.compared else ""
    return f"Question: which is best of {', '.join(names[:NAMED_STREAMS])}{more}{by}?"


def _winner(state: State) -> str:
    if state.promoted is None:
        return ""
    by = f", by {state.promoters.by}" if state.promoters and state.promoters.by != "coordinator" else ""
    return f"Why: {one_line(state.promoted.why, WHY_CHARACTERS)}{by}."


def _table(state: State) -> str:
    measured = {stream.name: figures.split(stream.figures) for stream in state.streams.values()}
    own = {name: found[0] for name, found in measured.items()}
    named = [name for name in _columns(own.values()) if any(name in found for found in own.values())]
    if not state.streams:
        return ""
    head = ["stream", "state", *(figures.of(name).label for name in named), "verdict"]
    rows = [_row(state, stream, own[stream.name], named) for stream in state.streams.values()]
    base = next((found[1] for found in measured.values() if found[1]), {})
    if base:
        rows.append(["bare base", "", *(figures.of(name).text(base.get(name)) for name in named), ""])
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(cell.replace('|', '/') for cell in line)} |" for line in lines)


def _columns(measured: Iterable[Mapping[str, float]]) -> list[str]:
    compared = [name for found in measured for name in found if figures.is_compared(name)]
    return list(dict.fromkeys([*SHOWN, *compared]))


def _row(state: State, stream: Stream, found: Mapping[str, float], named: Sequence[str]) -> list[str]:
    verdict = stream.verdict.result if stream.verdict else ""
    return [
        stream.name,
        state_of(state, stream, None)[0],
        *(figures.of(name).text(found.get(name)) for name in named),
        verdict,
    ]


def _failed(state: State) -> list[Stream]:
    return [stream for stream in state.streams.values() if stream.failed]


def _opinions(entries: Sequence[Entry], kind: type[ev.Approve | ev.Object]) -> list[str]:
    """Each with its reason, as its author wrote it."""
    found = [entry for entry in entries if isinstance(entry.event, kind)]
    return [_line(entry, entry.event.why or entry.event.body) for entry in found if isinstance(entry.event, kind)]


def _questions(state: State, entries: Sequence[Entry]) -> list[str]:
    return [
        _line(entry, f"to {', '.join(state.questions[entry.seq].to)}: {entry.event.body}")
        for entry in entries
        if entry.seq in state.questions
    ]


def _line(entry: Entry, text: str) -> str:
    about = "" if entry.event.ref in {"-", "run"} else f" on {entry.event.ref}"
    shortened = one_line(text, CHARACTERS)
    return f"{entry.author}{about} (entry {entry.seq}){': ' if shortened else ''}{shortened}"


def _listed(title: str, lines: Sequence[str]) -> str:
    return "\n".join([f"## {title}", "", *(f"- {line}" for line in lines)]) if lines else ""


def _use(state: State) -> str:
    if state.promoted is None:
        return ""
    return (
        "## Use it\n\n"
        "The adapter stands in `promoted/`: `swarm ask 'your question'` tries it here, and\n"
        "`PeftModel.from_pretrained(base, 'promoted')` loads it anywhere."
    )
