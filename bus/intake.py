"""What a receiver has taken from one numbered lane: which message is new, which a duplicate, which came too early. Pure."""

from collections import deque
from dataclasses import dataclass, field
from typing import Literal

Ruling = Literal["take", "duplicate", "early"]


@dataclass
class Intake:
    """The state of one lane at its receiver."""

    last: int = 0
    """Number taken last."""
    settled: int = 0
    """Everything up to here is durable, answered or refused: it may be acknowledged."""
    received: int = 0
    duplicates: int = 0
    gaps: int = 0
    """Numbers that the sender declared dropped."""
    told: int = -1
    """Acknowledged to the sender so far."""
    asked_seconds: float = 0.0
    """When the sender was last asked to send again."""
    _open: deque[int] = field(default_factory=deque)
    _done: set[int] = field(default_factory=set)

    def rule(self, seq: int, after: int) -> Ruling:
        """Take this number, drop it as a duplicate, or ask for what is missing before it. Counts what it rules."""
        if seq <= self.last:
            self.duplicates += 1
            return "duplicate"
        if after > self.last or after >= seq:
            return "early"
        self.gaps += seq - 1 - self.last
        self.received += 1
        self.last = seq
        self._open.append(seq)
        return "take"

    def settle_to(self, seq: int) -> None:
        """Everything up to `seq` is durable."""
        while self._open and self._open[0] <= seq:
            self._done.discard(self._open.popleft())
        self.settled = max(self.settled, min(seq, self.last))
        self._join()

    def settle_one(self, seq: int) -> None:
        """One message is dealt with (answered, refused), which says nothing of those before it."""
        if self.settled < seq <= self.last:
            self._done.add(seq)
            self._join()

    def known(self, acknowledged: int) -> None:
        """The sender says that it was told so far before; it can send nothing below that any more."""
        self.last = max(self.last, acknowledged)
        self.settle_to(acknowledged)

    @property
    def open_count(self) -> int:
        """Taken and not settled."""
        return len(self._open)

    def _join(self) -> None:
        while self._open and self._open[0] in self._done:
            self.settled = self._open.popleft()
            self._done.remove(self.settled)
        if not self._open:
            self.settled = max(self.settled, self.last)
