"""The state of a run in a few hundred tokens of TOON, for agents that need it before they act; pure.

One row per stream, open leases with the time left, unread messages, the last decisions, and agents' tasks that nobody holds.
The budget of tokens is kept for a run of any size: rows that do not fit are left out, the least urgent first, and counted
under `more`.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from swarm import figures
from swarm.printable import one_line
from swarm.settings import Promotion, RunSettings
from swarm.state import State, Stream, Task
from swarm.views.leaderboard import competes, of_val_rows, ranked
from swarm.views.streamrows import as_measured, state_of
from toon import encode

LEAST_TOKENS = 40
"""The smallest budget: the counts alone take about this much."""
BEST = 3
TEXT_CHARACTERS = 160
WHY_CHARACTERS = 80
SHARES = {"streams": 0.6, "claims": 0.75, "unread": 0.9, "decisions": 0.0, "open": 0.0}
"""First each section may fill the digest up to this share of the budget, so that a hundred streams leave room for the sections
after them; then what is left over is filled in the same order.
"""
URGENCY = ("failed", "train", "validate", "evaluate", "prepare", "paused", "wait", "stopped", "promoted", "done")


GOING = "running"


def going_of(*, alive: bool) -> str:
    """How a run stands that has begun and has not ended; `alive`: a coordinator is at work."""
    return GOING if alive else "no coordinator, `swarm resume` goes on"


@dataclass(frozen=True, slots=True)
class Unread:
    """An entry addressed to the reader that it has not read."""

    seq: int
    by: str
    ref: str
    text: str


def digest(
    state: State,
    now: float,
    budget_tokens: int,
    *,
    unread: Sequence[Unread] = (),
    name: str | None = None,
    waits: str = "",
    going: str = GOING,
    newest: Mapping[str, Mapping[str, float]] | None = None,
    settings: RunSettings | None = None,
    write: Callable[[Any], str] = encode,
) -> str:
    """The digest at log time `now` in the form that `write` gives it, at most `budget_tokens` as `tokens_at_most` counts them.

    `name`: the run folder's, for a log in which no run was started.  `waits`: for whom a promotion waits (`waits_of`).
    `going`: how a run stands that has begun and has not ended (`going_of`).  `newest`: what was measured last, by stream
    (`artifacts.metrics.newest`): the log has figures only from one checkpoint to the next.  `settings`: say by what the best are
    chosen, where streams compete; without them by the held-out loss.
    Raises ValueError for a budget below LEAST_TOKENS.
    """
    if budget_tokens < LEAST_TOKENS:
        raise ValueError(f"a digest takes at least {LEAST_TOKENS} tokens")
    compared, last = _compared(state), newest or {}
    measured = {name: as_measured(stream, last.get(name, {})) for name, stream in state.streams.items()}
    rows = [_stream_row(state, stream, compared, *measured[name]) for name, stream in state.streams.items()]
    best = _best(state, {name: own for name, (_, own) in measured.items()}, settings) if competes(state) else ""
    head = _head(state, rows, name, going, best) | ({"waits": one_line(waits, TEXT_CHARACTERS)} if waits else {})
    draft = _Draft(head, budget_tokens, write)
    whole = {
        "streams": [{**row, "why": None} for row in sorted(rows, key=urgency)],
        "claims": [_claim_row(task, now) for task in sorted(state.held(), key=_left)],
        "unread": [_unread_row(message) for message in reversed(unread)],
        "decisions": [
            {"seq": d.seq, "kind": d.kind, "ref": d.ref, "by": d.by, "why": one_line(d.why, WHY_CHARACTERS)}
            for d in reversed(state.decisions)
        ],
        "open": [{"task": task.ref} for task in state.tasks.values() if not (task.role or task.lease or task.done)],
    }
    draft.fill(whole)
    draft.explain({row["stream"]: row["why"] for row in rows if row["why"]})
    return draft.text(list(state.streams))


class _Draft:
    """Rows by section, added while they fit; after each row the whole text is measured."""

    def __init__(self, head: Mapping[str, Any], budget_tokens: int, write: Callable[[Any], str]) -> None:
        self.head, self.budget, self.write = head, budget_tokens, write
        self.kept: dict[str, list[dict[str, Any]]] = {}
        self.left: dict[str, int] = {}

    def fill(self, whole: Mapping[str, list[dict[str, Any]]]) -> None:
        self.left = {section: len(rows) for section, rows in whole.items() if rows}
        if not self.fits():
            self.head = {"at": self.head["at"]}
        for section, share in SHARES.items():
            self._add(section, whole[section], share)
        for section in SHARES:  # what is left over goes to streams first, to old decisions last
            self._add(section, whole[section][len(self.kept.get(section, [])) :], 1.0)

    def _add(self, section: str, rows: Iterable[dict[str, Any]], share: float) -> None:
        for row in rows:
            kept = self.kept.setdefault(section, [])
            kept.append(row)
            self.left[section] -= 1
            if not self.fits(share):
                kept.pop()
                self.left[section] += 1
                return

    def explain(self, whys: Mapping[str, str]) -> None:
        """Add the reasons last: they are long, and a state is useful without its reason."""
        for row in self.kept.get("streams", []):
            row["why"] = whys.get(row["stream"])
            if row["why"] and not self.fits():
                row["why"] = None

    def fits(self, share: float = 1.0) -> bool:
        return tokens_at_most(self.text()) <= self.budget * share

    def text(self, order: Sequence[str] = ()) -> str:
        places = {name: at for at, name in enumerate(order)}
        streams = sorted(self.kept.get("streams", []), key=lambda row: places.get(row["stream"], 0))
        sections = {**self.kept, "streams": streams}
        more = ", ".join(_counted(section, count) for section, count in self.left.items() if count)
        tables = {section: sections[section] for section in SHARES if sections.get(section)}
        return self.write({**self.head, **tables, **({"more": more} if more else {})})


def _counted(section: str, count: int) -> str:
    return f"{count} {section.removesuffix('s') if count == 1 else section}"


def _head(state: State, rows: Sequence[Mapping[str, Any]], name: str | None, going: str, best: str) -> dict[str, Any]:
    counts = Counter(str(row["state"]) for row in rows)
    word = "ended" if state.end else "stopped" if state.stopped else going if state.run else "not started"
    counted = ", ".join(f"{counts[name]} {name}" for name in URGENCY if counts[name])
    return {
        "run": state.run.name if state.run else name,
        "at": state.seq,
        "state": f"{word}: {counted}" if counted else word,
        **({"best": best} if best else {}),
    }


def _best(state: State, measured: Mapping[str, Mapping[str, float]], settings: RunSettings | None) -> str:
    """The head of the leaderboard: the row of a stream says nothing of the others."""
    unlike = of_val_rows(state, settings) if settings else ()
    metric, _, first = ranked(measured, settings.promotion if settings else Promotion(), unlike)
    listed = ", ".join(f"{name} {value:.3g}" for name, value in first[:BEST])
    return f"{metric}: {listed}" if listed else ""


def urgency(row: Mapping[str, Any]) -> int:
    """The place of a stream's row among those that a reader with little room should see first."""
    return URGENCY.index(str(row["state"])) if row["state"] in URGENCY else len(URGENCY)


def _compared(state: State) -> list[str]:
    """The figures by which streams are compared, of those that any stream has; held-out loss always."""
    found = {"eval_loss", *(name for stream in state.streams.values() for name in stream.figures)}
    return [name for name in figures.with_goal() if name in found]


def _stream_row(
    state: State, stream: Stream, compared: Sequence[str], step: int | None, measured: Mapping[str, float]
) -> dict[str, Any]:
    word, why = state_of(state, stream, None)
    warned = stream.verdict is not None and stream.verdict.result != "SUCCESS"
    has_reason = word == "failed" or why.startswith("again") or (word == "done" and warned)
    return {
        "stream": stream.name,
        "state": word,
        "step": step,
        "loss": short(measured.get("loss")),
        **{name: short(measured.get(name)) for name in compared},
        "why": one_line(why, WHY_CHARACTERS) if has_reason else None,
    }


def short(value: float | None) -> float | None:
    """A figure with three digits, for readers who pay for each; None where it is not finite."""
    return float(f"{value:.3g}") if value is not None and math.isfinite(value) else None


def _claim_row(task: Task, now: float) -> dict[str, Any]:
    """`left_s` is None for a worker: its lease is kept by heartbeats and not by a deadline."""
    lease = task.lease
    assert lease
    left = None if lease.worker else max(0, math.floor(lease.until - now))
    return {"task": task.ref, "by": lease.by, "token": lease.token, "left_s": left}


def _left(task: Task) -> float:
    return task.lease.until if task.lease and not task.lease.worker else math.inf


def _unread_row(message: Unread) -> dict[str, Any]:
    return {"seq": message.seq, "by": message.by, "ref": message.ref, "text": one_line(message.text, TEXT_CHARACTERS)}


# ---- the measure -----------------------------------------------------------------------------------------------------

SEAMS = ('"},{"', '":"', '","', '},{"', '":', '"}', ',"', '{"')
"""The separators between names and values of compact JSON; each is one token."""
PIECE = re.compile(
    rf"[A-Za-z]+|[0-9]{{1,3}}|{'|'.join(map(re.escape, SEAMS))}|[ -/:-@\[-`{{-~]+|\n *|[^\x00-\x7f]|[\x00-\x1f]"
)
WORDS = frozenset(
    re.findall(
        r"\w+",
        """run at state more streams claims unread decisions open stream step loss eval exact match why task by token left s seq kind ref text
        ended stopped running not started failed train validate evaluate prepare paused wait promoted done null claim verdict back fail
        object approve promote stop pause resume end coordinator trainer validator evaluator exit status success warning""",
    )
)
"""Words of the digest that are one token each in o200k_base."""


def tokens_at_most(text: str) -> int:
    """An upper bound of a digest's tokens in o200k_base, computed without a tokenizer.

    Counted as one token: three digits, a word of `WORDS`, two letters of any other word, each punctuation mark, each separator of
    `SEAMS`, and each byte of a character outside ASCII.  `tests/benchmarks/bench_digest.py` counts with the real vocabulary: digests took 0.82 of this
    on average and 0.94 at most (as compact JSON 0.99), also with names and reasons made of random letters.
    """
    return sum(map(_piece_tokens, PIECE.findall(text)))


def _piece_tokens(piece: str) -> int:
    first = piece[0]
    if first.isascii() and first.isalpha():
        return 1 if piece.lower() in WORDS else math.ceil(len(piece) / 2)
    if first.isdigit() or first == "\n" or piece in SEAMS:
        return 1
    return len(piece.encode(errors="replace"))
