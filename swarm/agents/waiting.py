"""`swarm wait`: returns once when something happened that its caller wants to know, with what changed since it last asked.

It reads the log only, so that a coordinator may come and go meanwhile; whether a worker stands still is asked of the coordinator.
"""

from __future__ import annotations

import math
import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from swarm.access.checked import waitable
from swarm.agents.inbox import Reader, cursor
from swarm.errors import UserError
from swarm.log import Entry, run_is_alive
from swarm.policy.bests import best, is_plateau
from swarm.printable import one_line
from swarm.rundir import RunFolder
from swarm.settings import RunSettings
from swarm.state import State, fold
from swarm.views import logview
from swarm.views.digest import short, urgency
from swarm.views.streamrows import as_measured, state_of, waits_of
from toon import encode, estimated_tokens

CONDITIONS = (
    "done",
    "failed",
    "stalled",
    "verdict",
    "waits",
    "question",
    "claimable",
    "concluded",
    "plateau",
    "new_best",
)
NEW_BEST = re.compile(r"new_best(?:>(?P<by>\d*\.?\d+))?")
"""A new best held-out loss, if it is lower than the best one before by more than a number."""
LOOK_SECONDS = 0.2
ASK_SECONDS = 5.0
"""Between two questions to the coordinator about its workers."""
SILENT_SECONDS = 30.0
"""A run without a coordinator for this long stands still; a restart takes a few seconds."""
BUDGET_TOKENS = 400
STREAMS_SHARE = 0.7
"""Of the budget: what the table of streams may take at most."""
LINE_CHARACTERS = 160
MET, ENDED, TIMEOUT = 0, 1, 6
"""Exit statuses: a condition was met, the run ended otherwise, the time is over."""
NOTABLE = frozenset({
    "fail", "back", "verdict", "trained", "score", "promote", "object", "approve", "stop", "pause", "resume", "end", "task", "hand",
    "propose", "conclude", "retrain", "canary",
})  # fmt: skip
"""Kinds of entries that a supervisor reads; what is addressed to it is told too."""


class Waiter(Protocol):
    """What waiting needs of an agent."""

    folder: RunFolder

    @property
    def name(self) -> str: ...
    def tail(self, since: int = 0) -> list[Entry]: ...
    def workers(self) -> list[dict[str, Any]]: ...


@dataclass(frozen=True, slots=True)
class Woken:
    """Why waiting ended, and what is new."""

    cause: str
    """The condition that was met, `ended` (without success) or `timeout`."""
    status: int
    """The exit status of `swarm wait`."""
    next: int
    """The seq up to which the caller now knows the log; the next `since`."""
    changed: dict[str, Any]
    """Tables of what changed since the cursor."""

    def data(self) -> dict[str, Any]:
        return {"cause": self.cause, "next": self.next, **self.changed}

    def text(self) -> str:
        return encode(self.data())


def conditions(words: str) -> tuple[str, ...]:
    """`done | failed` as names.  Raises UserError for others."""
    named = tuple("".join(word.split()) for word in words.replace(",", "|").split("|") if word.strip())
    if not named or not all(word in CONDITIONS or NEW_BEST.fullmatch(word) for word in named):
        raise UserError(
            "--until", f"{words!r} is no condition", f"take some of {' | '.join(CONDITIONS)}, or new_best>0.01"
        )
    return named


def wait(
    agent: Waiter,
    until: Sequence[str],
    timeout_seconds: float,
    *,
    since: int | None = None,
    budget_tokens: int = BUDGET_TOKENS,
    coalesce_seconds: float = 0.0,
    heard: Callable[[State], None] = lambda state: None,
) -> Woken:
    """Waits until one of the conditions holds; the agent's cursor moves on unless `since` is given.

    What else happens within `coalesce_seconds` after that comes with it.  `heard` is called with the state after new entries.
    Raises UserError for a time that nobody can wait.
    """
    from swarm import config
    from swarm.artifacts import metrics

    waitable("--timeout", timeout_seconds)
    waitable("--coalesce", coalesce_seconds)
    settings = config.of_run(agent.folder, fold(agent.tail()).added)
    with cursor(agent.folder, agent.name, moves=since is None, file="wait") as place:
        start = place.seq if since is None else since
        looking = Looking(agent, settings, start)
        cause, status = _wait(looking, until, time.monotonic() + timeout_seconds, heard)
        if status == MET:
            _wait(looking, (), time.monotonic() + coalesce_seconds, heard)
        entries = agent.tail()
        place.seq = max(place.seq, entries[-1].seq if entries else 0)
    state = fold(entries)
    newest = metrics.newest(agent.folder.metrics, state.streams)
    answer = changed(entries, state, settings, agent.name, start, budget_tokens, newest)
    return Woken(cause, status, max(start, place.seq), answer)


def _wait(looking: Looking, until: Sequence[str], deadline: float, heard: Callable[[State], None]) -> tuple[str, int]:
    standing = Standing(looking.agent)
    while True:
        if looking.read():
            heard(looking.state)
        if cause := next((condition for condition in until if looking.holds(condition)), ""):
            return cause, MET
        if looking.state.end:
            return "ended", ENDED
        if "stalled" in until and looking.state.run and standing.still():
            return "stalled", MET
        if time.monotonic() >= deadline:
            return "timeout", TIMEOUT
        time.sleep(LOOK_SECONDS)


@dataclass
class Looking:
    """What an agent saw of a run up to `start`, and what has happened since."""

    agent: Waiter
    settings: RunSettings
    start: int
    state: State = field(default_factory=State)
    happened: set[str] = field(default_factory=set)
    bests: list[float] = field(default_factory=list)
    """The best held-out loss after each measurement."""

    def __post_init__(self) -> None:
        self._fold(entry for entry in self.agent.tail() if entry.seq <= self.start)
        self.happened.clear()
        self.waited, self.best = waits_of(self.state, self.settings), best(self.state)
        self.was_claimable = self._claimable()

    def read(self) -> bool:
        """Whether there were new entries."""
        before = self.state.seq
        self._fold(self.agent.tail(before))
        return self.state.seq > before

    def _fold(self, entries: Iterable[Entry]) -> None:
        for entry in entries:
            self.state.apply(entry)
            self.happened.add(entry.event.kind)
            if entry.event.kind in {"checkpoint", "trained"}:
                self.bests.append(best(self.state))

    def holds(self, condition: str) -> bool:
        state = self.state
        match condition:
            case "done":
                return state.end is not None and not state.end.rc
            case "failed":
                return "fail" in self.happened
            case "verdict":
                return "verdict" in self.happened
            case "waits":
                waits = waits_of(state, self.settings)
                return bool(waits) and waits != self.waited
            case "question":
                asked = state.questions.items()
                return any(self.agent.name in question.to and seq > self.start for seq, question in asked)
            case "claimable":
                return bool(self._claimable() - self.was_claimable)
            case "concluded":
                return "conclude" in self.happened
            case "plateau":
                return "checkpoint" in self.happened and is_plateau(self.bests)
            case _:
                return self._is_new_best(condition)

    def _is_new_best(self, condition: str) -> bool:
        found, now = NEW_BEST.fullmatch(condition), best(self.state)
        return found is not None and math.isfinite(now) and now < self.best - float(found["by"] or 0)

    def _claimable(self) -> set[str]:
        """Tasks that this agent may claim: those that agents added, and those of roles for which the config names it."""
        named = f"agent:{self.agent.name}"
        return {
            task.ref
            for task in self.state.ready()
            if task.role is None or named in self.settings.roles.get(task.role, ())
        }


class Standing:
    """Whether a run stands still: one of its workers makes no progress or cannot be reached, or it has no coordinator."""

    def __init__(self, agent: Waiter) -> None:
        self.agent = agent
        self._ask_at = 0.0
        self._alone_since: float | None = None

    def still(self) -> bool:
        now = time.monotonic()
        if not run_is_alive(self.agent.folder.log):
            self._alone_since = self._alone_since or now
            return now - self._alone_since >= SILENT_SECONDS
        self._alone_since = None
        if now < self._ask_at:
            return False
        self._ask_at = now + ASK_SECONDS
        try:
            return any(row.get("state") in {"stalled", "unreachable"} for row in self.agent.workers())
        except UserError:  # it is just starting or leaving: the next question tells
            return False


def changed(
    entries: Sequence[Entry],
    state: State,
    settings: RunSettings,
    name: str,
    since: int,
    budget_tokens: int,
    newest: Mapping[str, Mapping[str, float]],
) -> dict[str, Any]:
    """What a supervisor needs to know of the entries after `since`, within the budget; the newest entries come first to it."""
    touched = {entry.event.stream for entry in entries if entry.seq > since}
    rows = [_stream_row(state, stream, newest.get(stream, {})) for stream in state.streams if stream in touched]
    shown = _most_urgent(rows, budget_tokens * STREAMS_SHARE)
    tables = {
        "run": "ended" if state.end else "stopped" if state.stopped else "running" if state.run else "not started",
        "streams": shown,
        "more_streams": len(rows) - len(shown),
        "waits": waits_of(state, settings),
    }
    answer = {key: value for key, value in tables.items() if value}
    left = budget_tokens - estimated_tokens(encode(answer))
    lines: list[str] = []
    notable = list(_notable(entries, name, since))
    for entry in reversed(notable):
        line = logview.line(entry, LINE_CHARACTERS)
        left -= estimated_tokens(line) + 2
        if lines and left < 0:
            break
        lines.append(line)
    more = len(notable) - len(lines)
    return {**answer, **({"entries": lines[::-1]} if lines else {}), **({"more": more} if more else {})}


def _most_urgent(rows: list[dict[str, Any]], most_tokens: float) -> list[dict[str, Any]]:
    """As many as there is room for, in the order in which they came."""
    kept = sorted(rows, key=urgency)
    while len(kept) > 1 and estimated_tokens(encode({"streams": kept})) > most_tokens:
        kept.pop()
    return [row for row in rows if any(row is one for one in kept)]


def _notable(entries: Sequence[Entry], name: str, since: int) -> Iterator[Entry]:
    reader = Reader(name)
    for entry in entries:
        concerns = reader.why(entry)
        if entry.seq > since and entry.author != name and (concerns or entry.event.kind in NOTABLE):
            yield entry


def _stream_row(state: State, name: str, newest: Mapping[str, float]) -> dict[str, Any]:
    stream = state.streams[name]
    word, why = state_of(state, stream, None)
    step, measured = as_measured(stream, newest)
    row = {"stream": name, "state": word, "step": step, "loss": short(measured.get("eval_loss", measured.get("loss")))}
    return {**row, "why": one_line(why, LINE_CHARACTERS) if word == "failed" else None}
