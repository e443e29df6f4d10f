"""The hub's conversation with its members: hellos, heartbeats, numbered messages both ways. Knows sockets only as the function `post`.

Every message is judged by the key of its connection, also on a connection that was let in long ago: libzmq goes on delivering for a
key that has been struck from the list (reference/coordination.md 6).
"""

from collections.abc import Callable, Mapping
from typing import Literal

from bus.envelope import HUB_NAME, RESERVED, VERSION, Envelope, check_incarnation, pack, read_number, unpack
from bus.errors import OutboxFull, ProtocolError, UnknownVersion
from bus.intake import Intake
from bus.keys import Member, Members
from bus.links import Limits, Link, Party, Process
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
        is_full: Callable[[], bool] = lambda: False,
    ) -> None:  # fmt: skip
        self.incarnation = incarnation
        self.strangers = 0
        """Messages on connections whose key is no member's (any more), or whose routing id is not its own."""
        self.parties: dict[str, Party] = {}
        self.waking: list[tuple[Process, Party]] = []
        """Processes with acknowledgements to send."""
        self._members, self._allowed, self._seen, self._limits = members, allowed, seen, limits
        self._post, self._deliver, self._is_full = post, deliver, is_full
        self._who: dict[bytes, tuple[Party, Process]] = {}

    def take(self, key: str, routing_id: bytes, data: bytes, now_seconds: float) -> None:
        """One message as it came. Never raises for what is in it: what breaks the protocol is counted and answered."""
        member = self._members.by_key(key)
        if member is None or not routing_id.startswith(routing_prefix(key)):
            return self._turn_away(routing_id)
        party = self._party(member, now_seconds)
        party.last_heard = now_seconds
        if not party.budget.spend(len(data), now_seconds):
            return self._over_budget(party, routing_id, len(data), now_seconds)
        try:
            self._understand(party, routing_id, unpack(data, party.name, party.role), now_seconds)
        except UnknownVersion as error:
            self._deny(party, routing_id, "version", f"{error}; this hub speaks version {VERSION}")
        except (ProtocolError, ValueError) as error:
            self._deny(party, routing_id, "malformed", str(error)[:200])

    def send(self, member: str, envelope: Envelope) -> bool:
        """Number a message to a member's newest process and post it; False if it has no connection now or cannot take more."""
        party = self.parties.get(member)
        process = party.newest() if party is not None and self._members.by_name(member) is not None else None
        if process is None:
            return False
        try:
            seq, _ = process.outgoing.add(envelope)
        except OutboxFull:
            return False
        self.push(process)
        return bool(process.routing_id) or not process.outgoing.withdraw(seq)

    def answer(self, request: Envelope, envelope: Envelope) -> bool:
        """Number an answer to the process that asked, also if its connection is broken just now. The request counts as settled."""
        self.settle(request, only=True)
        party = self.parties.get(request.source)
        process = party.process_of(request.incarnation) if party is not None else None
        if process is None:
            return False
        try:
            process.outgoing.add(envelope)
        except OutboxFull:
            return False
        self.push(process)
        return True

    def settle(self, envelope: Envelope, *, only: bool = False) -> None:
        """A delivered message is durable (and, unless `only`, everything before it in its lane)."""
        party = self.parties.get(envelope.source)
        intake = party.lanes.get(envelope.incarnation) if party is not None else None
        if party is None or intake is None or not envelope.seq:
            return
        if only:
            intake.settle_one(envelope.seq)
        else:
            intake.settle_to(envelope.seq)
        self._wake(party, envelope.incarnation)

    def acknowledge_all(self) -> None:
        """Tell every waking process how far its lanes are settled."""
        waking, self.waking = self.waking, []
        for process, party in waking:
            lanes, process.waking = process.waking, set()
            for lane in lanes:
                self._acknowledge(process, party, lane)

    def push(self, process: Process) -> None:
        """Post what waits for this process, as far as its window and its pipe allow."""
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
        for _, process in list(self._who.values()):
            self.push(process)

    def probe(self) -> None:
        """Find connections that are gone: ROUTER tells only when it is asked to send (ROUTER_MANDATORY)."""
        beat = pack(Envelope("bus-beat", "", incarnation=self.incarnation))
        for _, process in list(self._who.values()):
            if self._post(process.routing_id, beat) == "gone":
                self._disconnect(process)

    def expel(self) -> None:
        """Part from everyone whose key is no longer on the list."""
        for routing_id, (party, _) in list(self._who.items()):
            if self._members.by_name(party.name) is None:
                self._turn_away(routing_id)

    def links(self) -> dict[str, Link]:
        """Every member that was ever heard."""
        return {name: party.link() for name, party in self.parties.items()}

    def _understand(self, party: Party, routing_id: bytes, envelope: Envelope, now_seconds: float) -> None:
        if envelope.type == "bus-hello":
            return self._hello(party, routing_id, envelope)
        known = self._who.get(routing_id)
        if known is None:
            return self._deny(party, routing_id, "hello", "say hello first")
        match envelope.type:
            case "bus-beat":
                self._beat(party, known[1], envelope, now_seconds)
            case "bus-ack":
                self._confirm(known[1], envelope)
            case "bus-bye":
                self._disconnect(known[1])
            case reserved if reserved.startswith(RESERVED):
                raise ProtocolError(f"{reserved} is not for a peer to send")
            case _:
                self._receive(party, known[1], envelope, now_seconds)
        return None

    def _hello(self, party: Party, routing_id: bytes, envelope: Envelope) -> None:
        incarnation = envelope.incarnation
        first, *lines = envelope.body.split("\n")
        _, hub, taken = first.split(" ")
        if "." in check_incarnation(incarnation) or len(lines) > _MAX_LANES_IN_HELLO:
            raise ProtocolError("a hello names its process and at most 256 lanes")
        lanes = [(check_incarnation(lane), read_number(number)) for lane, number in (line.split(" ") for line in lines)]
        confirmed = read_number(taken) if hub == self.incarnation else 0
        if (known := party.processes.get(incarnation)) is not None:
            self._disconnect(known)
        process = party.greet(incarnation, self.incarnation, routing_id)
        self._who[routing_id] = (party, process)
        told = [self._resume(party, process, lane, number) for lane, number in lanes]
        self._say(routing_id, "bus-welcome", "\n".join(told))
        process.outgoing.acknowledge(confirmed)
        process.outgoing.rewind(confirmed)
        self.push(process)

    def _resume(self, party: Party, process: Process, lane: str, acknowledged: int) -> str:
        intake = party.intake(lane, self._seen)
        intake.known(acknowledged)
        intake.told = intake.settled
        party.carriers[lane] = process
        return f"{lane} {intake.settled} {intake.last}"

    def _beat(self, party: Party, process: Process, envelope: Envelope, now_seconds: float) -> None:
        head, _, process.heartbeat = envelope.body.partition("\n")
        figures = head.split(" ")
        process.dropped, process.replayed, process.reconnects = (read_number(text) for text in figures[:3])
        self._say(process.routing_id, "bus-beat", "")
        for figure in figures[3:]:
            lane, _, sent = figure.partition(":")
            intake = party.lanes.get(lane)
            # One connection is first-in-first-out: what was sent before this beat and is not here was refused on the way.
            if intake is not None and read_number(sent) > intake.last:
                self._ask_again(process, lane, intake, now_seconds)

    def _confirm(self, process: Process, envelope: Envelope) -> None:
        if envelope.incarnation == self.incarnation:
            process.outgoing.acknowledge(read_number(envelope.body))
            self.push(process)

    def _receive(self, party: Party, process: Process, envelope: Envelope, now_seconds: float) -> None:
        intake = party.lanes.get(envelope.incarnation)
        if envelope.seq:
            if intake is None:
                return self._deny(party, process.routing_id, "hello", "this lane was not in the hello")
            if intake.open_count >= self._limits.open_count or self._is_full():
                return self._ask_again(process, envelope.incarnation, intake, now_seconds, _CROWDED_WAIT_MS)
            match intake.rule(envelope.seq, envelope.after):
                case "early":
                    return self._ask_again(process, envelope.incarnation, intake, now_seconds)
                case "duplicate":
                    intake.told = -1
                    return self._wake(party, envelope.incarnation)
                case "take":
                    pass
        if not self._may(party.role, envelope.type):
            return self._refuse_type(party, process, intake, envelope)
        return self._deliver(envelope)

    def _may(self, role: str, type_: str) -> bool:
        types = self._allowed.get(role, frozenset())
        return type_ in types or ALL in types

    def _refuse_type(self, party: Party, process: Process, intake: Intake | None, envelope: Envelope) -> None:
        party.refused += 1
        if intake is not None and envelope.seq:
            intake.settle_one(envelope.seq)
            self._wake(party, envelope.incarnation)
        reason = f"role a {party.role} may not send {envelope.type}"
        try:
            process.outgoing.add(Envelope("bus-denied", reason, correlation=envelope.correlation))
        except OutboxFull:
            return  # it reads nothing; the refusal is counted above all the same
        self.push(process)

    def _over_budget(self, party: Party, routing_id: bytes, size_bytes: int, now_seconds: float) -> None:
        party.refused += 1
        known = self._who.get(routing_id)
        if known is not None:
            wait_ms = party.budget.wait_ms(size_bytes) + _CROWDED_WAIT_MS
            for lane in [lane for lane, carrier in party.carriers.items() if carrier is known[1]]:
                self._ask_again(known[1], lane, party.lanes[lane], now_seconds, wait_ms)

    def _ask_again(
        self, process: Process, lane: str, intake: Intake, now_seconds: float, wait_ms: int = 0
    ) -> None:  # fmt: skip
        if now_seconds - intake.asked_seconds >= _ASK_AGAIN_SECONDS:
            intake.asked_seconds = now_seconds
            self._say(process.routing_id, "bus-resend", f"{intake.last} {wait_ms}", lane)

    def _turn_away(self, routing_id: bytes) -> None:
        self.strangers += 1
        known = self._who.get(routing_id)
        if known is not None:
            self._say(routing_id, "bus-denied", "key this key is not on the list any more")
            self._disconnect(known[1])

    def _deny(self, party: Party, routing_id: bytes, cause: str, reason: str) -> None:
        if cause != "hello":  # what an earlier connection left in the pipe; its sender sends it again
            party.refused += 1
        self._say(routing_id, "bus-denied", f"{cause} {reason}")

    def _acknowledge(self, process: Process, party: Party, lane: str) -> None:
        intake = party.lanes.get(lane)
        if intake is not None and intake.settled > intake.told and process.routing_id:
            if self._say(process.routing_id, "bus-ack", str(intake.settled), lane) == "sent":
                intake.told = intake.settled
            else:
                self._wake(party, lane)

    def _wake(self, party: Party, lane: str) -> None:
        process = party.carriers.get(lane)
        if process is not None and process.routing_id:
            if not process.waking:
                self.waking.append((process, party))
            process.waking.add(lane)

    def _say(self, routing_id: bytes, type_: str, body: str, lane: str = "") -> Posted:
        return self._post(routing_id, pack(Envelope(type_, body, incarnation=lane or self.incarnation)))

    def _disconnect(self, process: Process) -> None:
        self._who.pop(process.routing_id, None)
        process.routing_id = b""

    def _party(self, member: Member, now_seconds: float) -> Party:
        party = self.parties.get(member.name)
        if party is None:
            party = self.parties[member.name] = Party(member.name, member.role, self._limits, now_seconds)
        party.role = member.role
        return party


def from_hub(envelope: Envelope) -> Envelope:
    """The envelope with the source that everything from a hub has."""
    return envelope._replace(source=HUB_NAME, role=HUB_NAME)
