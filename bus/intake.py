"""The receiver's side of one numbered lane: tells new messages from duplicates and from messages that arrived too early. Pure."""

from collections import deque
from dataclasses import dataclass, field
from typing import Literal

Arrival = Literal["take", "duplicate", "early"]


@dataclass
class Intake:
    """The state of one lane at its receiver."""

    last: int = 0
    """Highest sequence number accepted."""
    settled: int = 0
    """Everything up to this number is durable, answered or refused, so it may be acknowledged."""
    received: int = 0
    duplicates: int = 0
    gaps: int = 0
    """Numbers that the sender declared dropped."""
    acknowledged: int = -1
    """Highest number for which an acknowledgement was sent."""
    asked_seconds: float = 0.0
    """When the sender was last asked to send again."""
    _open: deque[int] = field(default_factory=deque)
    _done: set[int] = field(default_factory=set)

    def classify(self, seq: int, after: int) -> Arrival:
        """Whether to take this number, drop it as a duplicate, or ask for what is missing before it. Updates the counters."""
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
        """One message was answered or refused; the messages before it may still be open."""
        if self.settled < seq <= self.last:
            self._done.add(seq)
            self._join()

    def known(self, acknowledged: int) -> None:
        """The sender received acknowledgements up to this number from an earlier hub, so it cannot send those messages again."""
        self.last = max(self.last, acknowledged)
        self.settle_to(acknowledged)

    @property
    def open_count(self) -> int:
        """How many messages are taken and not settled."""
        return len(self._open)

    def _join(self) -> None:
        while self._open and self._open[0] in self._done:
            self.settled = self._open.popleft()
            self._done.remove(self.settled)
        if not self._open:
            self.settled = max(self.settled, self.last)
