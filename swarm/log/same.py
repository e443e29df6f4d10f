"""Facts that stand in the same file already, so that a later entry may refer to them instead of repeating them.

A checkpoint's path and hash are stated once; what follows from it says `path=~26 sha256=~26`.  An entry with (nearly) the facts
of an earlier one of its kind says `~6` and what differs (`why=~`: it states no why).  References stay within a file: every file can be read by itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

LEAST_VALUE = 7
"""Characters of a value that is worth a reference; shorter ones are better read where they stand."""
LEAST_TEXT = 16
"""Characters of an entry's facts that are worth one."""
LEAST_SAVING = 8
"""Characters that a reference to a whole entry must save."""

UNSET = "~"
"""Stands for a fact of the other entry that this one does not state."""

Whole = tuple[int, Mapping[str, str]]


@dataclass(slots=True)
class Stated:
    """What one file states, and where."""

    values: dict[tuple[str, str], int] = field(default_factory=dict)
    """(fact, value) -> the first entry that states it"""
    kinds: dict[str, Whole] = field(default_factory=dict)
    """kind -> the last entry of it that states all its facts, and what they are"""
    known: Stated | None = None
    """For entries that are not written yet: what the file states before them."""

    def copy(self) -> Stated:
        return Stated(self.values.copy(), self.kinds.copy(), self.known)

    def keep(self, drafted: Stated) -> None:
        """The entries of a draft that knew this were written."""
        self.values.update(drafted.values)
        self.kinds.update(drafted.kinds)

    def add(self, seq: int, kind: str, facts: Mapping[str, str], implied: Mapping[str, str]) -> str:
        """The facts of the next entry as its comment states them; what they are is remembered.  `implied` ones need not be stated."""
        values = {
            key: value if len(value) < LEAST_VALUE else self._value(seq, key, value) for key, value in facts.items()
        }
        stated = {key: value for key, value in values.items() if implied.get(key) != facts[key]}
        whole = text_of(stated)
        if found := self.kinds.get(kind) or (self.known and self.known.kinds.get(kind)):
            base, there = found
            differs = {key: text for key, text in stated.items() if there.get(key) != facts[key] or key in implied}
            same = f" ~{base}" + text_of(differs | dict.fromkeys(there.keys() - facts.keys(), UNSET))
            if len(same) + LEAST_SAVING <= len(whole):
                return same
        self.kinds[kind] = seq, facts
        return whole

    def _value(self, seq: int, key: str, value: str) -> str:
        known = self.known.values.get((key, value)) if self.known else None
        known = known or self.values.setdefault((key, value), seq)
        return value if known == seq else f"~{known}"


def text_of(facts: Mapping[str, str]) -> str:
    return "".join([f" {key}={value}" for key, value in facts.items()])
