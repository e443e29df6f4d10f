"""Messages that wait for the hub's caller: a queue for each member, served in turn. Pure.

However many messages one member sends, another member's next message waits for at most one message of each other member.
"""

from collections import deque

from bus.envelope import Envelope
from bus.links import Limits


class _Queue:
    """Of one member; it is kept when it is empty, since members are few and messages many."""

    __slots__ = ("envelopes", "size_bytes")

    def __init__(self) -> None:
        self.envelopes: deque[Envelope] = deque()
        self.size_bytes = 0


class Inbox:
    """See the module."""

    def __init__(self, limits: Limits) -> None:
        self.count = 0
        self.size_bytes = 0
        """Of the bodies, counted in characters: a close lower bound that costs nothing."""
        self._limits = limits
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

    def is_full(self, source: str) -> bool:
        """Whether the caller is so far behind that this member must keep its messages and send them later."""
        limits, queue = self._limits, self._queues.get(source)
        return (
            self.count >= limits.inbox_count
            or self.size_bytes >= limits.inbox_bytes
            or (queue is not None and queue.size_bytes >= limits.member_inbox_bytes)
        )
