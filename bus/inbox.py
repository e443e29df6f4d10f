"""Messages that wait for the hub's caller: a queue for each member, served in turn. Pure.

However many messages one member sends, another member's next message waits for at most one message of each other member.
"""

from collections import deque

from bus.envelope import Envelope


class Inbox:
    """See the module."""

    def __init__(self) -> None:
        self.count = 0
        self.size_bytes = 0
        """Of the bodies, counted in characters: a close lower bound that costs nothing."""
        self._queues: dict[str, deque[Envelope]] = {}
        self._sizes: dict[str, int] = {}
        self._turns: deque[str] = deque()
        """Members with waiting messages, the next one first."""

    def __len__(self) -> int:
        return self.count

    def add(self, envelope: Envelope) -> None:
        source, size = envelope.source, len(envelope.body)
        queue = self._queues.get(source)
        if queue is None:
            self._queues[source], self._sizes[source] = deque((envelope,)), size
            self._turns.append(source)
        else:
            queue.append(envelope)
            self._sizes[source] += size
        self.count += 1
        self.size_bytes += size

    def pop(self) -> Envelope:
        """The oldest message of the member whose turn it is. Raises IndexError when nothing waits."""
        source = self._turns.popleft()
        queue = self._queues[source]
        envelope = queue.popleft()
        size = len(envelope.body)
        if queue:
            self._sizes[source] -= size
            self._turns.append(source)
        else:
            del self._queues[source], self._sizes[source]
        self.count -= 1
        self.size_bytes -= size
        return envelope

    def size_of(self, source: str) -> int:
        """Characters that wait from this member."""
        return self._sizes.get(source, 0)
