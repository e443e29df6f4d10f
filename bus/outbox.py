"""Messages that wait to be sent or acknowledged, in lanes with a number for each message. Pure; the spool keeps them on disk.

A lane is first-in-first-out and numbered without holes at entry; what it drops it declares through `after` of the next message (see
bus.envelope, Numbers). Control overtakes telemetry by being another lane, because one DEALER is first-in-first-out itself.
"""

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from bus.envelope import Envelope, pack, unpack
from bus.errors import OutboxFull

CONTROL_TURNS = 8
"""After this many control messages in a row one telemetry message has its turn, so that control cannot starve it."""


@dataclass(frozen=True)
class LaneLimits:
    """Bounds of one lane."""

    waiting_count: int = 20_000
    waiting_bytes: int = 32 << 20
    flight_count: int = 1024
    """Sent and not acknowledged: the credit window (reference/coordination.md 1.5)."""
    flight_bytes: int = 4 << 20


class Lane:
    """One numbered sequence to one receiver. `drops` says whether a full lane drops its oldest or refuses its newest."""

    def __init__(self, incarnation: str, *, drops: bool, limits: LaneLimits = LaneLimits()) -> None:
        self.incarnation = incarnation
        self.drops = drops
        self.limits = limits
        self.last = 0
        """Number given last."""
        self.acknowledged = 0
        self.dropped = 0
        self.replayed = 0
        self._flying: deque[tuple[int, bytes]] = deque()
        self._waiting: deque[tuple[int, bytes]] = deque()
        self._flying_bytes = 0
        self._waiting_bytes = 0
        self._sent_before = 0  # highest number that was ever handed out
        self._reached = 0  # highest number that the receiver may have taken
        self._doubtful: list[int] = []  # dropped while the receiver may have had them

    def add(self, envelope: Envelope) -> tuple[int, bytes]:
        """Number and keep a message; returns the number and its bytes. Raises ProtocolError, or OutboxFull if the lane may not drop."""
        seq = self.last + 1
        data = pack(envelope._replace(incarnation=self.incarnation, seq=seq, after=seq - 1))
        if not self.drops and self._is_full(len(data)):
            raise OutboxFull(f"{len(self)} messages wait to be acknowledged; is the hub alive?")
        self.put(seq, data)
        return seq, data

    def put(self, seq: int, data: bytes) -> None:
        """Keep a message that has its number already (from the spool of an earlier process)."""
        self.last = seq
        self._waiting.append((seq, data))
        self._waiting_bytes += len(data)
        while self.drops and len(self._waiting) > 1 and self._is_full(0):
            self._drop_oldest()

    def peek(self) -> bytes | None:
        """The bytes to send next; None if nothing waits or the window is full."""
        flight_full = len(self._flying) >= self.limits.flight_count or self._flying_bytes >= self.limits.flight_bytes
        if not self._waiting or flight_full:
            return None
        seq, data = self._waiting[0]
        before = self._flying[-1][0] if self._flying else self.acknowledged
        return data if before == seq - 1 else pack(unpack(data)._replace(after=before))

    def advance(self) -> None:
        """The message that `peek` gave has been sent."""
        seq, data = self._waiting.popleft()
        self._waiting_bytes -= len(data)
        self._flying.append((seq, data))
        self._flying_bytes += len(data)
        if seq <= self._sent_before:
            self.replayed += 1
        self._sent_before = max(seq, self._sent_before)
        self._reached = max(seq, self._reached)

    def acknowledge(self, seq: int) -> None:
        """The receiver is done with everything up to this number; numbers never given are ignored."""
        if seq > self.last:
            return
        while self._flying and self._flying[0][0] <= seq:
            self._flying_bytes -= len(self._flying.popleft()[1])
        while self._waiting and self._waiting[0][0] <= seq:
            self._waiting_bytes -= len(self._waiting.popleft()[1])
        self.acknowledged = max(seq, self.acknowledged)

    def rewind(self, taken: int) -> None:
        """Send again what the receiver has not taken: everything above `taken`. What was counted as dropped and had arrived is uncounted."""
        while self._flying and self._flying[-1][0] > taken:
            seq, data = self._flying.pop()
            self._flying_bytes -= len(data)
            self._waiting.appendleft((seq, data))
            self._waiting_bytes += len(data)
        self.dropped -= sum(1 for seq in self._doubtful if seq <= taken)
        self._doubtful.clear()
        self._reached = taken

    def skip_to(self, taken: int) -> None:
        """The receiver has everything up to `taken`, though not yet for good: keep it, do not send it again."""
        while self._waiting and self._waiting[0][0] <= taken:
            seq, data = self._waiting.popleft()
            self._waiting_bytes -= len(data)
            self._flying.append((seq, data))
            self._flying_bytes += len(data)

    def withdraw(self, seq: int) -> bool:
        """Take back a message that the receiver cannot have; the receiver sees a declared gap. False if it may have it."""
        for index, (number, data) in enumerate(self._waiting):
            if number == seq and seq > self._reached:
                del self._waiting[index]
                self._waiting_bytes -= len(data)
                return True
        return False

    def pending(self) -> list[bytes]:
        """Everything not acknowledged, oldest first."""
        return [data for _, data in (*self._flying, *self._waiting)]

    def __len__(self) -> int:
        return len(self._flying) + len(self._waiting)

    @property
    def size_bytes(self) -> int:
        """Bytes of everything not acknowledged."""
        return self._flying_bytes + self._waiting_bytes

    @property
    def sent_last(self) -> int:
        """Number handed out last, or acknowledged."""
        return self._flying[-1][0] if self._flying else self.acknowledged

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
        if seq <= self._reached:
            self._doubtful.append(seq)


class Outbox:
    """A peer's lanes in the order in which they may speak: what earlier processes left, then control, then telemetry."""

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
        """Keep a message that an earlier process left behind, under the number that it gave."""
        envelope = unpack(data)
        drops = envelope.incarnation.endswith(".t")
        limits = self._telemetry_limits if drops else self._control_limits
        lane = self.inherited.setdefault(envelope.incarnation, Lane(envelope.incarnation, drops=drops, limits=limits))
        lane.acknowledged = acknowledged.get(envelope.incarnation, 0)
        lane.put(envelope.seq, data)

    def send_with(self, send: Callable[[bytes], bool], count: int) -> bool:
        """Hand up to `count` messages to `send`; stops when that returns False. True if more could go now."""
        for _ in range(count):
            data = self._next()
            if data is None or not send(data):
                return False
            self._chosen.advance()
            self._turns = 0 if self._chosen.drops else self._turns + 1
        return True

    def acknowledge(self, incarnation: str, seq: int) -> None:
        """The hub is done with that lane up to this number. A lane of an earlier process is forgotten when it is empty."""
        lane = self.lane(incarnation)
        if lane is not None:
            lane.acknowledge(seq)
            if not len(lane):
                self.inherited.pop(incarnation, None)

    def __len__(self) -> int:
        return sum(len(lane) for lane in self.lanes())

    @property
    def size_bytes(self) -> int:
        """Bytes of everything not acknowledged."""
        return sum(lane.size_bytes for lane in self.lanes())

    def _next(self) -> bytes | None:
        for lane in self._order():
            data = lane.peek()
            if data is not None:
                self._chosen = lane
                return data
        return None

    def _order(self) -> Sequence[Lane]:
        """The lanes that may speak now, the first to be asked first."""
        is_turn_of_telemetry = self._turns >= CONTROL_TURNS
        if not self.inherited:
            return (self.telemetry, self.control) if is_turn_of_telemetry else (self.control, self.telemetry)
        left = list(self.inherited.values())
        # What an earlier process had to say is settled before this one speaks: its first word may rest on that.
        lanes = left if any(not lane.drops for lane in left) else [*left, self.control, self.telemetry]
        return sorted(lanes, key=lambda lane: not lane.drops) if is_turn_of_telemetry else lanes
