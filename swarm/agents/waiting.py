"""`swarm wait`: returns once when something happened that its caller wants to know, with what changed since it last asked.

It reads the log only, so that a coordinator may come and go meanwhile; whether a worker stands still is asked of the coordinator.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from swarm.access.checked import waitable
from swarm.agents.inbox import Reader, cursor
from swarm.errors import UserError
from swarm.log import Entry, run_is_alive
from swarm.printable import one_line
from swarm.rundir import RunFolder
from swarm.settings import RunSettings
from swarm.state import State, fold
from swarm.views import logview
from swarm.views.digest import short
from swarm.views.streamrows import as_measured, state_of, waits_of
from toon import encode, estimated_tokens

CONDITIONS = ("done", "failed", "stalled", "verdict", "waits", "question")
LOOK_SECONDS = 0.2
ASK_SECONDS = 5.0
"""Between two questions to the coordinator about its workers."""
SILENT_SECONDS = 30.0
"""A run without a coordinator for this long stands still; a restart takes a few seconds."""
BUDGET_TOKENS = 400
LINE_CHARACTERS = 160
MET, ENDED, TIMEOUT = 0, 1, 6
"""Exit statuses: a condition was met, the run ended otherwise, the time is over."""
NOTABLE = frozenset({
    "fail", "back", "verdict", "trained", "score", "promote", "object", "approve", "stop", "pause", "resume", "end", "task", "hand",
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
    named = tuple(word.strip() for word in words.replace(",", "|").split("|") if word.strip())
    if not named or not set(named) <= set(CONDITIONS):
        raise UserError("--until", f"{words!r} is no condition", f"take some of {' | '.join(CONDITIONS)}")
    return named


def wait(
    agent: Waiter,
    until: Sequence[str],
    timeout_seconds: float,
    *,
    since: int | None = None,
    budget_tokens: int = BUDGET_TOKENS,
) -> Woken:
    """Waits until one of the conditions holds; the agent's cursor moves on unless `since` is given.

    Raises UserError for a time that nobody can wait.
    """
    from swarm import config
    from swarm.artifacts import metrics

    waitable("--timeout", timeout_seconds)
    settings = config.of_run(agent.folder, fold(agent.tail()).added)
    with cursor(agent.folder, agent.name, moves=since is None, file="wait") as place:
        start = place.seq if since is None else since
        cause, status = _wait(agent, settings, until, start, time.monotonic() + timeout_seconds)
        entries = agent.tail()
        place.seq = max(place.seq, entries[-1].seq if entries else 0)
    state = fold(entries)
    newest = metrics.newest(agent.folder.metrics, state.streams)
    answer = changed(entries, state, settings, agent.name, start, budget_tokens, newest)
    return Woken(cause, status, max(start, place.seq), answer)


def _wait(agent: Waiter, settings: RunSettings, until: Sequence[str], start: int, deadline: float) -> tuple[str, int]:
    state = fold(entry for entry in agent.tail() if entry.seq <= start)
    waited_before, standing = waits_of(state, settings), Standing(agent)
    happened: set[str] = set()
    while True:
        for entry in agent.tail(state.seq):
            state.apply(entry)
            happened.add(entry.event.kind)
        waits = waits_of(state, settings)
        now = {
            "done": state.end is not None and not state.end.rc,
            "failed": "fail" in happened,
            "verdict": "verdict" in happened,
            "waits": bool(waits) and waits != waited_before,
            "question": any(agent.name in asked.to and seq > start for seq, asked in state.questions.items()),
        }
        if cause := next((condition for condition in until if now.get(condition)), ""):
            return cause, MET
        if state.end:
            return "ended", ENDED
        if "stalled" in until and state.run and standing.still():
            return "stalled", MET
        if time.monotonic() >= deadline:
            return "timeout", TIMEOUT
        time.sleep(LOOK_SECONDS)


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
    tables = {
        "run": "ended" if state.end else "stopped" if state.stopped else "running" if state.run else "not started",
        "streams": [
            _stream_row(state, stream, newest.get(stream, {})) for stream in state.streams if stream in touched
        ],
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
