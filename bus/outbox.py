"""Messages that wait to be sent or acknowledged, in numbered lanes. Pure; the spool keeps them on disk.

A lane is first-in-first-out and numbers its messages without gaps. What it drops it declares in `after` of the next message (see
bus.envelope, Numbers). Control and telemetry are two lanes, so that control can overtake telemetry: a DEALER keeps its order.
"""

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from bus.envelope import Envelope, pack, unpack
from bus.errors import OutboxFull

CONTROL_TURNS = 8
"""After this many control messages in a row one telemetry message is sent, so that control cannot starve telemetry."""


@dataclass(frozen=True)
class LaneLimits:
    """Bounds of one lane."""

    waiting_count: int = 20_000
    waiting_bytes: int = 32 << 20
    flight_count: int = 1024
    """The credit window: messages sent and not acknowledged."""
    flight_bytes: int = 4 << 20


class Lane:
    """One numbered sequence to one receiver. `drops` says whether a full lane drops its oldest or refuses its newest."""

    def __init__(self, incarnation: str, *, drops: bool, limits: LaneLimits = LaneLimits()) -> None:
        self.incarnation = incarnation
        self.drops = drops
        self.limits = limits
        self.last = 0
        """Highest number given to a message."""
        self.acknowledged = 0
        self.dropped = 0
        self.replayed = 0
        self._in_flight: deque[tuple[int, bytes]] = deque()
        self._waiting: deque[tuple[int, bytes]] = deque()
        self._in_flight_bytes = 0
        self._waiting_bytes = 0
        self._sent_before = 0  # highest number that was ever sent
        self._maybe_taken = 0  # highest number that the receiver may have taken
        self._maybe_received: list[int] = []  # numbers dropped here that the receiver may have taken

    def add(self, envelope: Envelope) -> tuple[int, bytes]:
        """Number and keep a message; returns the number and its bytes. Raises ProtocolError, or OutboxFull if the lane may not drop."""
        seq = self.last + 1
        type_, body, source, role, _, _, time_ms, correlation, _ = envelope
        data = pack(Envelope(type_, body, source, role, self.incarnation, seq, time_ms, correlation, seq - 1))
        if not self.drops and self._is_full(len(data)):
            raise OutboxFull(f"{len(self)} messages wait to be acknowledged; is the hub alive?")
        self.put(seq, data)
        return seq, data

    def put(self, seq: int, data: bytes) -> None:
        """Keep a message that already has a number (from the spool of an earlier process)."""
        self.last = seq
        self._waiting.append((seq, data))
        self._waiting_bytes += len(data)
        while self.drops and len(self._waiting) > 1 and self._is_full(0):
            self._drop_oldest()

    def peek(self) -> bytes | None:
        """The bytes to send next; None if nothing waits or the window is full."""
        flight_full = (
            len(self._in_flight) >= self.limits.flight_count or self._in_flight_bytes >= self.limits.flight_bytes
        )
        if not self._waiting or flight_full:
            return None
        seq, data = self._waiting[0]
        before = self._in_flight[-1][0] if self._in_flight else self.acknowledged
        return data if before == seq - 1 else pack(unpack(data)._replace(after=before))

    def advance(self) -> None:
        """The message from `peek` has been sent."""
        seq, data = self._waiting.popleft()
        self._waiting_bytes -= len(data)
        self._in_flight.append((seq, data))
        self._in_flight_bytes += len(data)
        if seq <= self._sent_before:
            self.replayed += 1
        self._sent_before = max(seq, self._sent_before)
        self._maybe_taken = max(seq, self._maybe_taken)

    def acknowledge(self, seq: int) -> None:
        """The receiver acknowledged everything up to this number; a number that was never used is ignored."""
        if seq > self.last:
            return
        while self._in_flight and self._in_flight[0][0] <= seq:
            self._in_flight_bytes -= len(self._in_flight.popleft()[1])
        while self._waiting and self._waiting[0][0] <= seq:
            self._waiting_bytes -= len(self._waiting.popleft()[1])
        self.acknowledged = max(seq, self.acknowledged)

    def rewind(self, taken: int) -> None:
        """Send everything above `taken` again. Messages counted as dropped that the receiver did take are no longer counted."""
        while self._in_flight and self._in_flight[-1][0] > taken:
            seq, data = self._in_flight.pop()
            self._in_flight_bytes -= len(data)
            self._waiting.appendleft((seq, data))
            self._waiting_bytes += len(data)
        self.dropped -= sum(1 for seq in self._maybe_received if seq <= taken)
        self._maybe_received.clear()
        self._maybe_taken = taken

    def skip_to(self, taken: int) -> None:
        """The receiver has everything up to `taken`, but it is not durable there yet: keep it and do not send it again."""
        while self._waiting and self._waiting[0][0] <= taken:
            seq, data = self._waiting.popleft()
            self._waiting_bytes -= len(data)
            self._in_flight.append((seq, data))
            self._in_flight_bytes += len(data)

    def withdraw(self, seq: int) -> bool:
        """Remove a message that the receiver cannot have; the receiver sees a declared gap. False if the receiver may have it."""
        for index, (number, data) in enumerate(self._waiting):
            if number == seq and seq > self._maybe_taken:
                del self._waiting[index]
                self._waiting_bytes -= len(data)
                return True
        return False

    def pending(self) -> list[bytes]:
        """All unacknowledged messages, oldest first."""
        return [data for _, data in (*self._in_flight, *self._waiting)]

    def __len__(self) -> int:
        return len(self._in_flight) + len(self._waiting)

    @property
    def size_bytes(self) -> int:
        """Bytes of all unacknowledged messages."""
        return self._in_flight_bytes + self._waiting_bytes

    @property
    def sent_last(self) -> int:
        """Highest number sent, or acknowledged if nothing is in flight."""
        return self._in_flight[-1][0] if self._in_flight else self.acknowledged

    def _is_full(self, more_bytes: int) -> bool:
        full = (
            len(self._waiting) > self.limits.waiting_count
            if self.drops
            else len(self._waiting) >= self.limits.waiting_count
        )
        return full or self._waiting_bytes + more_bytes > self.limits.waiting_bytes

    def _drop_oldest(self) -> None:
        seq, data = self._waiting.popleft()
        self._waiting_bytes -= len(data)
        self.dropped += 1
        if seq <= self._maybe_taken:
            self._maybe_received.append(seq)


class Outbox:
    """A peer's lanes in the order of sending: what earlier processes left, then control, then telemetry."""

    def __init__(
        self, incarnation: str, *, control: LaneLimits = LaneLimits(), telemetry: LaneLimits = LaneLimits()
    ) -> None:
        self.control = Lane(incarnation, drops=False, limits=control)
        self.telemetry = Lane(f"{incarnation}.t", drops=True, limits=telemetry)
        self.inherited: dict[str, Lane] = {}
        self._control_limits, self._telemetry_limits = control, telemetry
        self._turns = 0
        self._chosen = self.control

    def lanes(self) -> list[Lane]:
        """All lanes, the oldest first."""
        return [*self.inherited.values(), self.control, self.telemetry]

    def lane(self, incarnation: str) -> Lane | None:
        """The lane of that name, or None."""
        return next((lane for lane in self.lanes() if lane.incarnation == incarnation), None)

    def inherit(self, data: bytes, acknowledged: Mapping[str, int]) -> None:
        """Keep a message that an earlier process left in the spool, under its original number."""
        envelope = unpack(data)
        drops = envelope.incarnation.endswith(".t")
        limits = self._telemetry_limits if drops else self._control_limits
        lane = self.inherited.setdefault(envelope.incarnation, Lane(envelope.incarnation, drops=drops, limits=limits))
        lane.acknowledged = acknowledged.get(envelope.incarnation, 0)
        lane.put(envelope.seq, data)

    def send_with(self, send: Callable[[bytes], bool], count: int) -> bool:
        """Pass up to `count` messages to `send`; stop when it returns False. True if more can be sent now."""
        for _ in range(count):
            data = self._next()
            if data is None or not send(data):
                return False
            self._chosen.advance()
            self._turns = 0 if self._chosen.drops else self._turns + 1
        return True

    def acknowledge(self, incarnation: str, seq: int) -> None:
        """The hub acknowledged that lane up to this number. An empty lane of an earlier process is removed."""
        lane = self.lane(incarnation)
        if lane is not None:
            lane.acknowledge(seq)
            if not len(lane):
                self.inherited.pop(incarnation, None)

    def __len__(self) -> int:
        return sum(len(lane) for lane in self.lanes())

    @property
    def size_bytes(self) -> int:
        """Bytes of all unacknowledged messages."""
        return sum(lane.size_bytes for lane in self.lanes())

    def _next(self) -> bytes | None:
        for lane in self._order():
            data = lane.peek()
            if data is not None:
                self._chosen = lane
                return data
        return None

    def _order(self) -> Sequence[Lane]:
        """The lanes that may send now, in order of preference."""
        is_turn_of_telemetry = self._turns >= CONTROL_TURNS
        if not self.inherited:
            return (self.telemetry, self.control) if is_turn_of_telemetry else (self.control, self.telemetry)
        left = list(self.inherited.values())
        # Control messages of an earlier process are acknowledged first: this process's messages may depend on them.
        lanes = left if any(not lane.drops for lane in left) else [*left, self.control, self.telemetry]
        return sorted(lanes, key=lambda lane: not lane.drops) if is_turn_of_telemetry else lanes
