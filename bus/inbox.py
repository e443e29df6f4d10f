"""Messages that wait for the hub's caller: a queue for each member, served in turn. Pure.

However many messages one member sends, another member's next message waits for at most one message of each other member.
"""

from collections import deque

from bus.envelope import Envelope


class _Queue:
    """Of one member; it is kept when it is empty, since members are few and messages many."""

    __slots__ = ("envelopes", "size_bytes")

    def __init__(self) -> None:
        self.envelopes: deque[Envelope] = deque()
        self.size_bytes = 0


class Inbox:
    """See the module."""

    def __init__(self) -> None:
        self.count = 0
        self.size_bytes = 0
        """Of the bodies, counted in characters: a close lower bound that costs nothing."""
        self._queues: dict[str, _Queue] = {}
        self._turns: deque[_Queue] = deque()
        """Those with waiting messages, the next one first."""

    def __len__(self) -> int:
        return self.count

    def add(self, envelope: Envelope) -> None:
        queue = self._queues.get(envelope.source)
        if queue is None:
            queue = self._queues[envelope.source] = _Queue()
        if not queue.envelopes:
            self._turns.append(queue)
        size = len(envelope.body)
        queue.envelopes.append(envelope)
        queue.size_bytes += size
        self.size_bytes += size
        self.count += 1

    def pop(self) -> Envelope:
        """The oldest message of the member whose turn it is. Raises IndexError when nothing waits."""
        queue = self._turns.popleft()
        envelope = queue.envelopes.popleft()
        size = len(envelope.body)
        queue.size_bytes -= size
        self.size_bytes -= size
        self.count -= 1
        if queue.envelopes:
            self._turns.append(queue)
        return envelope

    def size_of(self, source: str) -> int:
        """Characters that wait from this member."""
        queue = self._queues.get(source)
        return queue.size_bytes if queue else 0
