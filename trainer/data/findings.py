"""What preparing found of the rows, counted, each kind with its first places; and which of it ends the stream before it is trained."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from swarm.errors import UserError
from swarm.settings import Part

EXAMPLES = 3


@dataclass
class Findings:
    counts: Counter[str] = field(default_factory=Counter)
    places: dict[str, list[str]] = field(default_factory=dict)

    def note(self, kind: str, where: str) -> None:
        self.counts[kind] += 1
        known = self.places.setdefault(kind, [])
        if len(known) < EXAMPLES:
            known.append(where)

    def examples(self, kind: str) -> str:
        """`rows.jsonl:3, rows.jsonl:9, ...`"""
        more = ", ..." if self.counts[kind] > EXAMPLES else ""
        return ", ".join(self.places.get(kind, [])) + more

    def refuse_cut(self, settings: Part, rows: int) -> None:
        """Raises UserError where `sequence_len` cuts more rows, or more answers, than the settings allow; `rows`: all that were read."""
        limits = {
            "lost": ("before their answer", settings.max_lost_rows, "max_lost_rows"),
            "cut": ("at their end", settings.max_cut_rows, "max_cut_rows"),
        }
        for kind, (where, limit, setting) in limits.items():
            count = self.counts[kind]
            if count > limit * rows:
                what = f"{settings.sequence_len} tokens cut {count} of {rows} rows {where} ({self.examples(kind)}), and `{setting}` is {limit:g}"
                raise UserError("sequence_len", what, f"raise it, shorten the rows, or raise {setting}")
