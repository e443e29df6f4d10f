"""Reviews: one agent asks, named agents approve, object or answer in rounds, and the outcome is an entry.

The agent that asks gives no opinion itself; a round ends when all have answered or its time is over.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Protocol

from swarm import events as ev
from swarm.access.checked import waitable
from swarm.errors import UserError
from swarm.event import Event
from swarm.rundir import is_name

if TYPE_CHECKING:
    from swarm.log import Entry


class Chair(Protocol):
    """What a review needs of the agent that leads it."""

    @property
    def name(self) -> str: ...
    def post(
        self, text: str, ref: str = "-", *, of: int | None = None, asks: str | None = None, idem: str | None = None
    ) -> int: ...
    def find(self, wanted: Callable[[Entry], bool], since: int, timeout_seconds: float) -> Entry | None: ...


@dataclass(slots=True)
class Outcome:
    """How a review ended."""

    ref: str
    result: Literal["agreed", "objected", "open"]
    rounds: int
    seq: int = 0
    """The entry that says so."""
    words: dict[str, tuple[str, str]] = field(default_factory=dict)
    """By agent: approve, object, post or silent, and its text in the last round."""

    @property
    def left_open(self) -> list[str]:
        """The answers that are no approval, a line each."""
        return [f"{name}: {answer or 'no answer'}" for name, (kind, answer) in self.words.items() if kind != "approve"]

    def text(self) -> str:
        head = f"review of {self.ref}: {self.result} after {self.rounds} round{'s' * (self.rounds != 1)}"
        return "\n".join([head, *(f"- open: {line}" for line in self.left_open)])

    def data(self) -> dict[str, Any]:
        rows = [{"agent": name, "word": kind, "said": answer} for name, (kind, answer) in self.words.items()]
        return {"ref": self.ref, "result": self.result, "rounds": self.rounds, "seq": self.seq, "agents": rows}


def review(
    chair: Chair, ref: str, between: Sequence[str], question: str, *,
    rounds: int = 3, answer_seconds: float = 300.0, idem: str | None = None,
) -> Outcome:  # fmt: skip
    """Ask in rounds until all approve, one objects, or the limit is reached.

    Each round is a question to all of them, which the next one, or the outcome, closes.  An answer is `approve`, `object` or `post` with `of`
    the round's entry.  With the same key an interrupted review is
    continued.  Raises UserError for names, rounds or seconds that are not valid.
    """
    if not between or not all(map(is_name, between)) or len(set(between)) < len(between):
        raise UserError("--between", f"{','.join(between)!r} are no names of agents", "name them like ada,bob")
    if chair.name in between:
        raise UserError(
            "--between",
            f"{chair.name} asks and cannot answer while it waits",
            "leave it out, or ask under another name",
        )
    if rounds < 1:
        raise UserError("--rounds", f"{rounds} rounds ask nobody", "take 1 or more")
    waitable("--answer-seconds", answer_seconds)
    left_open, asked = "", 0
    for number in range(1, rounds + 1):
        call = _call(ref, between, question, number, rounds, left_open)
        asked = chair.post(call, ref, of=asked or None, asks=",".join(between), idem=idem and f"{idem}:{number}")
        words = _answers(chair, asked, between, answer_seconds)
        outcome = Outcome(ref, _result(words), number, words=words)
        if outcome.result != "open":
            break
        left_open = "\n".join(outcome.left_open)
    outcome.seq = chair.post(outcome.text(), ref, of=asked, idem=idem and f"{idem}:end")
    return outcome


def _call(ref: str, between: Sequence[str], question: str, number: int, rounds: int, left_open: str) -> str:
    names = " ".join(f"@{name}" for name in between)
    before = f"\nso far:\n{left_open}" if left_open else ""
    return f"{names} review of {ref}, round {number} of {rounds}: {question}{before}"


def _answers(chair: Chair, asked: int, between: Sequence[str], answer_seconds: float) -> dict[str, tuple[str, str]]:
    """Each agent's last answer to the entry, once all have answered or the time is over."""
    words: dict[str, tuple[str, str]] = dict.fromkeys(between, ("silent", ""))
    deadline, since = time.monotonic() + answer_seconds, asked
    while any(kind == "silent" for kind, _ in words.values()):
        entry = chair.find(
            lambda e: e.author in words and _about(e) == asked, since, max(0.0, deadline - time.monotonic())
        )
        if entry is None:
            break
        since = entry.seq
        words[entry.author] = (entry.event.kind, _answer(entry.event))
    return words


def _about(entry: Entry) -> int | None:
    match entry.event:
        case ev.Approve(of=of) | ev.Object(of=of) | ev.Post(of=of):
            return of
        case _:
            return None


def _answer(event: Event) -> str:
    return (event.why if isinstance(event, ev.Object | ev.Approve) else "") or event.body.strip()


def _result(words: dict[str, tuple[str, str]]) -> Literal["agreed", "objected", "open"]:
    kinds = {kind for kind, _ in words.values()}
    return "objected" if "object" in kinds else "agreed" if kinds == {"approve"} else "open"
