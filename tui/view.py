"""A snapshot together with what the person selected, marked and filtered; pure."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import count

from swarm import figures
from swarm.views.snapshot import STREAM_STATES, Snapshot, StreamRow, WorkerRow

FIRST_MARKS = 6
"""How many streams are marked by default."""
OVER = frozenset({"done", "promoted", "failed"})
"""States in which a stream can be neither paused nor stopped."""
HELD = frozenset({"paused", "stopped"})
"""States in which `p` resumes a stream."""
STATES = frozenset(state.lower() for state in STREAM_STATES)
ORDERS = ("config", "name", "state", "loss", "eval_loss", "eta")
"""By what the streams are sorted; figures with the best first, and what is not known last."""
DRAWN = ("loss", "learning_rate", "grad_norm", "phi", "mode")
"""Figures whose curves can be drawn, where there are any: the first always."""
EMPTY = Snapshot(run="", folder="")


@dataclass(frozen=True, slots=True)
class View:
    """Everything that the panes draw."""

    snapshot: Snapshot = EMPTY
    selected: str = ""
    """The stream under the cursor."""
    marked: frozenset[str] | None = None
    """Streams whose curves are overlaid; None until a person chose."""
    words: str = ""
    """The filter: every word must match a row."""
    by_device: bool = False
    """Order of the workers: by device instead of by name."""
    log_y: bool | None = None
    """Logarithmic axis of losses; None: if their range is wide."""
    smoothed: bool = True
    figure: str = "loss"
    """Whose curves are drawn: one of `DRAWN`."""
    by_time: bool = False
    """Curves over the time since each stream's first step, instead of over steps."""
    order: str = ORDERS[0]
    """One of `ORDERS`."""

    leaders: bool | None = None
    """The leaderboard is shown; None: where trials compete."""

    @property
    def shows_leaders(self) -> bool:
        board = self.snapshot.leaderboard
        return self.leaders if self.leaders is not None else board.is_search and bool(board.places)

    @property
    def rows(self) -> tuple[StreamRow, ...]:
        """The streams that pass the filter, in the order that was chosen."""
        words = self.words.lower().split()
        found = [row for row in self.snapshot.streams if all(matches(row, word) for word in words)]
        return tuple(found if self.order == ORDERS[0] else sorted(found, key=lambda row: place(row, self.order)))

    @property
    def drawable(self) -> tuple[str, ...]:
        """The figures of `DRAWN` that a stream has, and those of each of two models."""
        of_models = (prefix + name for name in DRAWN for prefix in ("", *figures.OF_MODELS))
        measured = {name for row in self.snapshot.streams for name, points in row.curves.items() if points}
        return tuple(name for name in of_models if name == DRAWN[0] or name in measured)

    @property
    def row(self) -> StreamRow | None:
        """The selected stream, or the first one shown where the selected one is not."""
        rows = self.rows
        return next((row for row in rows if row.name == self.selected), rows[0] if rows else None)

    def pinned(self) -> View:
        """With a stream selected, which stays so when the order changes."""
        return self if self.selected or not self.row else replace(self, selected=self.row.name)

    @property
    def marks(self) -> frozenset[str]:
        """Those that a person chose, else the first that have the figure that is drawn."""
        if self.marked is not None:
            return self.marked
        having = [row for row in self.snapshot.streams if self.figure == DRAWN[0] or row.curve(self.figure)]
        return frozenset(row.name for row in having[:FIRST_MARKS])

    @property
    def overlaid(self) -> tuple[StreamRow, ...]:
        """The streams whose curves are drawn: the marked ones, or the selected one alone."""
        marked = tuple(row for row in self.snapshot.streams if row.name in self.marks)
        return marked or tuple(filter(None, [self.row]))

    @property
    def workers(self) -> tuple[WorkerRow, ...]:
        key = (lambda w: (w.device, w.name)) if self.by_device else (lambda w: ("", w.name))
        return tuple(sorted(self.snapshot.workers, key=key))

    @property
    def counts(self) -> list[tuple[str, int]]:
        """How many streams are in each state, in the order in which the states are first met."""
        return list(Counter(row.state for row in self.snapshot.streams).items())

    def place(self, name: str) -> int:
        """The stream's number in the run: its colour everywhere."""
        return next((i for i, row in enumerate(self.snapshot.streams) if row.name == name), 0)

    def free_name(self, like: str) -> str:
        """A name for a stream like another one: `fast-2`."""
        known = {row.name for row in self.snapshot.streams}
        return next(name for number in count(2) if (name := f"{like}-{number}") not in known)

    def toggled(self, name: str) -> View:
        """With the stream's mark flipped."""
        return replace(self, marked=self.marks ^ {name})


def after(choices: Sequence[str], one: str) -> str:
    """The next choice, round and round."""
    return choices[(choices.index(one) + 1) % len(choices)]


def place(row: StreamRow, order: str) -> tuple[float, str]:
    """Where a stream stands in an order."""
    match order:
        case "name":
            return 0.0, row.name
        case "state":
            return float(STREAM_STATES.index(row.state) if row.state in STREAM_STATES else len(STREAM_STATES)), row.name
        case "eta":
            return math.inf if row.eta_seconds is None else row.eta_seconds, row.name
        case _:
            value = row.figures.get(order, math.nan)
            return value if math.isfinite(value) else math.inf, row.name


def matches(row: StreamRow, word: str) -> bool:
    """Whether a word of the filter matches the row: the name of a state matches streams in it, `state:` also its beginning."""
    field, colon, rest = word.partition(":")
    match field if colon else "":
        case "state":
            return row.state.lower().startswith(rest)
        case "why":
            return rest in row.why.lower()
        case _ if word in STATES:
            return row.state.lower() == word
        case _:
            facts = (row.name, row.worker, row.device, row.settings, row.verdict, row.why)
            return any(word in fact.lower() for fact in facts)
