"""The hub's side of the protocol: hellos, heartbeats and numbered messages in both directions. Sends through the function `post`.

The key is checked for every message and not only at the handshake: libzmq goes on delivering messages of a connection whose key has
been revoked.
"""

from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Literal

from bus.budget import Budget
from bus.envelope import (
    HUB_NAME,
    MAX_MESSAGE_BYTES,
    RESERVED,
    VERSION,
    Envelope,
    check_incarnation,
    pack,
    read_number,
    unpack,
)
from bus.errors import OutboxFull, ProtocolError, UnknownVersion
from bus.intake import Intake
from bus.keys import Member, Members
from bus.links import Limits, Link, MemberState, Process
from bus.sockets import routing_prefix

Posted = Literal["sent", "full", "gone"]
ALL = "*"
_MAX_LANES_IN_HELLO = 256
_ASK_AGAIN_SECONDS = 0.05
_CROWDED_WAIT_MS = 100


class Exchange:
    """One per hub; called on the hub's loop only."""

    def __init__(
        self, members: Members, allowed: Mapping[str, frozenset[str]], seen: Mapping[tuple[str, str], int], limits: Limits,
        incarnation: str, post: Callable[[bytes, bytes], Posted], deliver: Callable[[Envelope], None],
        is_full: Callable[[str], bool] = lambda member: False,
    ) -> None:  # fmt: skip
        self.incarnation = incarnation
        self.unauthenticated = 0
        """Messages of connections whose key is not a member's (any more), or whose routing id does not belong to the key."""
        self.member_states: dict[str, MemberState] = {}
        self.acks_due: list[tuple[Process, MemberState]] = []
        """Processes to which acknowledgements must be sent."""
        self._members, self._allowed, self._seen, self._limits = members, allowed, seen, limits
        self._post, self._deliver, self._is_full = post, deliver, is_full
        self._by_routing_id: dict[bytes, tuple[MemberState, Process]] = {}
        self._longest_body = lru_cache(maxsize=1024)(self._find_longest_body)

    def take(self, key: str, routing_id: bytes, data: bytes, now_seconds: float) -> None:
        """Handle one received message. Never raises for its content: a message that breaks the protocol is counted and answered."""
        member = self._members.by_key(key, now_seconds)
        if member is None or not routing_id.startswith(routing_prefix(key)):
            return self._reject_key(routing_id)
        state = self._state_of(member, now_seconds)
        state.last_heard = now_seconds
        if not state.budget.spend(len(data), now_seconds):
            return self._over_budget(state, routing_id, len(data), now_seconds)
        try:
            self._dispatch(state, routing_id, unpack(data, state.name, state.role), now_seconds)
        except UnknownVersion as error:
            self._deny(state, routing_id, "version", f"{error}; this hub speaks version {VERSION}")
        except (ProtocolError, ValueError) as error:
            self._deny(state, routing_id, "malformed", str(error)[:200])

    def send(self, member: str, envelope: Envelope) -> bool:
        """Number a message to a member's newest process and send it; False if it is not connected or its lane is full."""
        state = self.member_states.get(member)
        process = state.newest() if state is not None and self._members.by_name(member) is not None else None
        if process is None:
            return False
        try:
            seq, _ = process.outgoing.add(envelope)
        except OutboxFull:
            return False
        self.push(process)
        return bool(process.routing_id) or not process.outgoing.withdraw(seq)

    def reaches(self, member: str) -> bool:
        """Whether the member is connected now. Sends it a heartbeat: a ROUTER reports a closed connection only when it sends."""
        state = self.member_states.get(member)
        while state is not None and (process := state.newest()) is not None:
            if self._send_unnumbered(process.routing_id, "bus-beat", "") != "gone":
                return True
            self._disconnect(process)
        return False

    def answer(self, request: Envelope, envelope: Envelope) -> bool:
        """Queue an answer for the process that asked, also if it is disconnected at the moment. The request counts as settled."""
        self.settle(request, only=True)
        state = self.member_states.get(request.source)
        process = state.process_of(request.incarnation) if state is not None else None
        if process is None:
            return False
        try:
            process.outgoing.add(envelope)
        except OutboxFull:
            return False
        self.push(process)
        return True

    def settle(self, envelope: Envelope, *, only: bool = False) -> None:
        """A delivered message is durable and, unless `only`, everything before it in its lane too."""
        state = self.member_states.get(envelope.source)
        intake = state.lanes.get(envelope.incarnation) if state is not None else None
        if state is None or intake is None or not envelope.seq:
            return
        if only:
            intake.settle_one(envelope.seq)
        else:
            intake.settle_to(envelope.seq)
        self._acknowledge_later(state, envelope.incarnation)

    def acknowledge_all(self) -> None:
        """Send the acknowledgements that are due."""
        acks_due, self.acks_due = self.acks_due, []
        for process, state in acks_due:
            lanes, process.acks_due = process.acks_due, set()
            for lane in lanes:
                self._acknowledge(process, state, lane)

    def push(self, process: Process) -> None:
        """Send the messages that wait for this process, as far as its window and its socket buffer allow."""
        while process.routing_id and (data := process.outgoing.peek()) is not None:
            match self._post(process.routing_id, data):
                case "sent":
                    process.outgoing.advance()
                case "full":
                    return
                case "gone":
                    self._disconnect(process)

    def push_all(self) -> None:
        """`push` for every connected process."""
        for _, process in list(self._by_routing_id.values()):
            self.push(process)

    def probe(self) -> None:
        """Find closed connections: a ROUTER reports them only when it sends (ROUTER_MANDATORY)."""
        beat = pack(Envelope("bus-beat", "", incarnation=self.incarnation))
        for _, process in list(self._by_routing_id.values()):
            if self._post(process.routing_id, beat) == "gone":
                self._disconnect(process)

    def disconnect_revoked(self) -> None:
        """Disconnect every member whose key is no longer on the list."""
        for routing_id, (state, _) in list(self._by_routing_id.items()):
            if self._members.by_name(state.name) is None:
                self._reject_key(routing_id)

    def links(self) -> dict[str, Link]:
        """Every member that has sent a message, by name."""
        return {name: state.link() for name, state in self.member_states.items()}

    def _dispatch(self, state: MemberState, routing_id: bytes, envelope: Envelope, now_seconds: float) -> None:
        if envelope.type == "bus-hello":
            return self._hello(state, routing_id, envelope)
        known = self._by_routing_id.get(routing_id)
        if known is None:
            return self._deny(state, routing_id, "hello", "send bus-hello first")
        if not envelope.type.startswith(RESERVED):
            return self._receive(state, known[1], envelope, now_seconds)
        match envelope.type:
            case "bus-beat":
                self._beat(state, known[1], envelope, now_seconds)
            case "bus-ack":
                self._confirm(known[1], envelope)
            case "bus-bye":
                self._disconnect(known[1])
            case unknown:
                raise ProtocolError(f"a peer may not send {unknown}")
        return None

    def _hello(self, state: MemberState, routing_id: bytes, envelope: Envelope) -> None:
        incarnation = envelope.incarnation
        first, *lines = envelope.body.split("\n")
        _, hub, taken = first.split(" ")
        if "." in check_incarnation(incarnation) or len(lines) > _MAX_LANES_IN_HELLO:
            raise ProtocolError("a hello names its process and at most 256 lanes")
        lanes = [(check_incarnation(lane), read_number(number)) for lane, number in (line.split(" ") for line in lines)]
        confirmed = read_number(taken) if hub == self.incarnation else 0
        if (known := state.processes.get(incarnation)) is not None:
            self._disconnect(known)
        process = state.connect(incarnation, self.incarnation, routing_id)
        self._by_routing_id[routing_id] = (state, process)
        resumed = [self._resume(state, process, lane, number) for lane, number in lanes]
        self._send_unnumbered(routing_id, "bus-welcome", "\n".join(resumed))
        process.outgoing.acknowledge(confirmed)
        process.outgoing.rewind(confirmed)
        self.push(process)

    def _resume(self, state: MemberState, process: Process, lane: str, acknowledged: int) -> str:
        intake = state.intake(lane, self._seen)
        intake.known(acknowledged)
        intake.acknowledged = intake.settled
        state.sender_of_lane[lane] = process
        return f"{lane} {intake.settled} {intake.last}"

    def _beat(self, state: MemberState, process: Process, envelope: Envelope, now_seconds: float) -> None:
        head, _, text = envelope.body.partition("\n")
        if max(len(head), len(text)) > self._limits.heartbeat_bytes:
            raise ProtocolError(f"a heartbeat has at most {self._limits.heartbeat_bytes} bytes")
        process.heartbeat = text
        figures = head.split(" ")
        process.dropped, process.replayed, process.reconnects = (read_number(text) for text in figures[:3])
        self._send_unnumbered(process.routing_id, "bus-beat", "")
        for figure in figures[3:]:
            lane, _, sent = figure.partition(":")
            intake = state.lanes.get(lane)
            # A connection keeps its order: a message that was sent before this heartbeat and is not here was refused.
            if intake is not None and read_number(sent) > intake.last:
                self._ask_again(process, lane, intake, now_seconds)

    def _confirm(self, process: Process, envelope: Envelope) -> None:
        if envelope.incarnation == self.incarnation:
            process.outgoing.acknowledge(read_number(envelope.body))
            self.push(process)

    def _receive(self, state: MemberState, process: Process, envelope: Envelope, now_seconds: float) -> None:
        intake = state.lanes.get(envelope.incarnation)
        if envelope.seq:
            if intake is None:
                return self._deny(state, process.routing_id, "hello", "this lane was not in the hello")
            if intake.open_count >= self._limits.open_count or self._is_full(state.name):
                return self._ask_again(process, envelope.incarnation, intake, now_seconds, _CROWDED_WAIT_MS)
            match intake.classify(envelope.seq, envelope.after):
                case "take":
                    pass
                case "early":
                    return self._ask_again(process, envelope.incarnation, intake, now_seconds)
                case "duplicate":
                    intake.acknowledged = -1
                    return self._acknowledge_later(state, envelope.incarnation)
        most = self._longest_body(state.role, envelope.type)
        if most is None:
            return self._refuse(state, process, intake, envelope, f"role a {state.role} may not send {envelope.type}")
        if len(envelope.body) > most:
            reason = f"size {envelope.type}: longer than {most} bytes; put it into a file and name that"
            return self._refuse(state, process, intake, envelope, reason)
        return self._deliver(envelope)

    def _find_longest_body(self, role: str, type_: str) -> int | None:
        """How many bytes a body of this type may have; None: the role may not send it."""
        types = self._allowed.get(role, frozenset())
        is_allowed = type_ in types or ALL in types
        return self._limits.body_bytes.get((role, type_), MAX_MESSAGE_BYTES) if is_allowed else None

    def _refuse(
        self, state: MemberState, process: Process, intake: Intake | None, envelope: Envelope, reason: str
    ) -> None:
        """Settle a numbered message without delivering it, and answer with the reason."""
        state.refused += 1
        if intake is not None and envelope.seq:
            intake.settle_one(envelope.seq)
            self._acknowledge_later(state, envelope.incarnation)
        try:
            process.outgoing.add(Envelope("bus-denied", reason, correlation=envelope.correlation))
        except OutboxFull:
            return  # the process reads nothing; the refusal is counted above
        self.push(process)

    def _over_budget(self, state: MemberState, routing_id: bytes, size_bytes: int, now_seconds: float) -> None:
        state.refused += 1
        known = self._by_routing_id.get(routing_id)
        if known is not None:
            wait_ms = state.budget.wait_ms(size_bytes, now_seconds) + _CROWDED_WAIT_MS
            for lane in [lane for lane, carrier in state.sender_of_lane.items() if carrier is known[1]]:
                self._ask_again(known[1], lane, state.lanes[lane], now_seconds, wait_ms)

    def _ask_again(
        self, process: Process, lane: str, intake: Intake, now_seconds: float, wait_ms: int = 0
    ) -> None:  # fmt: skip
        if now_seconds - intake.asked_seconds >= _ASK_AGAIN_SECONDS:
            intake.asked_seconds = now_seconds
            self._send_unnumbered(process.routing_id, "bus-resend", f"{intake.last} {wait_ms}", lane)

    def _reject_key(self, routing_id: bytes) -> None:
        self.unauthenticated += 1
        known = self._by_routing_id.get(routing_id)
        if known is not None:
            self._send_unnumbered(routing_id, "bus-denied", "key this key is no longer on the list")
            self._disconnect(known[1])

    def _deny(self, state: MemberState, routing_id: bytes, cause: str, reason: str) -> None:
        if cause != "hello":  # that is a message left from an earlier connection; its sender sends it again
            state.refused += 1
        self._send_unnumbered(routing_id, "bus-denied", f"{cause} {reason}")

    def _acknowledge(self, process: Process, state: MemberState, lane: str) -> None:
        intake = state.lanes.get(lane)
        if intake is not None and intake.settled > intake.acknowledged and process.routing_id:
            if self._send_unnumbered(process.routing_id, "bus-ack", str(intake.settled), lane) == "sent":
                intake.acknowledged = intake.settled
            else:
                self._acknowledge_later(state, lane)

    def _acknowledge_later(self, state: MemberState, lane: str) -> None:
        process = state.sender_of_lane.get(lane)
        if process is not None and process.routing_id:
            if not process.acks_due:
                self.acks_due.append((process, state))
            process.acks_due.add(lane)

    def _send_unnumbered(self, routing_id: bytes, type_: str, body: str, lane: str = "") -> Posted:
        return self._post(routing_id, pack(Envelope(type_, body, incarnation=lane or self.incarnation)))

    def _disconnect(self, process: Process) -> None:
        self._by_routing_id.pop(process.routing_id, None)
        process.routing_id = b""

    def _state_of(self, member: Member, now_seconds: float) -> MemberState:
        state = self.member_states.get(member.name)
        if state is None:
            state = self.member_states[member.name] = MemberState(member.name, member.role, self._limits, now_seconds)
        if state.role != member.role:
            state.role, state.budget = member.role, Budget(self._limits.rate_of(member.role), now_seconds)
        return state


def from_hub(envelope: Envelope) -> Envelope:
    """The envelope with the hub as its source."""
    return envelope._replace(source=HUB_NAME, role=HUB_NAME)
