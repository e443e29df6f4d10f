"""The thread that owns a peer's sockets, sends its outbox and receives its messages. No other thread touches a socket.

One DEALER is one connection. When it ends, for any reason, it is closed; after a wait that doubles and has jitter, a new one with a
new routing id sends a hello (zguide ch. 4, Lazy Pirate and Paranoid Pirate). Polls for reading only.
"""

import logging
import os
import random
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

import zmq
from zmq.utils.monitor import parse_monitor_message

from bus.envelope import RESERVED, Envelope, pack, read_number, unpack
from bus.errors import BusError, NotAllowed, ProtocolError, Refused, UnknownVersion
from bus.exchange import from_hub
from bus.intake import Intake
from bus.keys import Join
from bus.liveness import backoff_seconds
from bus.mailbox import Mailbox
from bus.sockets import dealer, subscriber

_log = logging.getLogger("bus")
_FIRST_WAIT_SECONDS, _LONGEST_WAIT_SECONDS = 0.1, 5.0
_GREETING_SECONDS = 5.0
_SILENT_BEATS = 5
_SILENT_SECONDS = 3.0
"""The least time without a message that counts as a lost hub: beside four trainers a busy loop pauses for up to a second."""
_FEW = 64
_ENDS = (
    zmq.EVENT_DISCONNECTED | zmq.EVENT_CLOSED | zmq.EVENT_HANDSHAKE_FAILED_AUTH | zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL
)
_EVENTS = _ENDS | zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL | zmq.EVENT_HANDSHAKE_SUCCEEDED


class ConnectionThread(threading.Thread):
    """Runs from `start` to `stop`."""

    def __init__(
        self, join: Join, mailbox: Mailbox, heartbeat: Callable[[], str], heartbeat_seconds: float, topics: Sequence[str]
    ) -> None:  # fmt: skip
        super().__init__(name=f"bus-{join.name}", daemon=True)
        self.heard_seconds = time.monotonic()
        self.hub_incarnation = "-"
        self.is_ready = False
        """Whether the hub has accepted the present connection."""
        self._key, self._mail, self._heartbeat, self._beat_seconds = join, mailbox, heartbeat, heartbeat_seconds
        self._topics = list(topics)
        self._stopping = self._is_shut = False
        self._wake_out, self._wake_in = os.pipe()
        os.set_blocking(self._wake_out, False)
        os.set_blocking(self._wake_in, False)
        self._awake = threading.Event()
        self._dealer: zmq.Socket[Any] | None = None
        self._monitor: zmq.Socket[Any] | None = None
        self._sub: zmq.Socket[Any] | None = None
        self._attempt = 0
        self._due = dict.fromkeys(("connect", "beat", "greeting", "resume"), 0.0)
        self._intake = Intake()
        self._confirmed = 0
        self._counts: dict[str, int] = {}
        self._publisher = ""

    def wake(self) -> None:
        """Make the thread send the outbox now. Call it under the mailbox's lock, under which the pipe is closed."""
        if not self._awake.is_set() and not self._is_shut:
            self._awake.set()
            os.write(self._wake_in, b"w")

    def stop(self, timeout_seconds: float) -> None:
        """Send bus-bye and end the thread. Raises BusError if it does not end in time."""
        self._stopping = True
        with self._mail.changed:
            self.wake()
        if self.ident is not None:
            self.join(timeout_seconds)
        if self.is_alive():
            raise BusError("the bus thread did not end in time; does its heartbeat function hang?")
        with self._mail.changed:
            self._is_shut = True
            os.close(self._wake_in)
            os.close(self._wake_out)

    def run(self) -> None:
        context = zmq.Context()
        try:
            self._run_sockets(context)
        except BaseException as error:
            _log.exception("the bus thread of %s ended", self._key.name)
            with self._mail.changed:
                self._mail.failure = error
                self._mail.changed.notify_all()
            self._mail.fail_all(BusError(f"the bus thread has ended: {error!r}"))
        finally:
            context.destroy(linger=200)

    def _run_sockets(self, context: zmq.Context[Any]) -> None:
        poller = zmq.Poller()
        poller.register(self._wake_out, zmq.POLLIN)
        if self._topics:
            self._sub = subscriber(context, self._key, [_filter(topic) for topic in self._topics])
            self._sub.connect(self._key.publish_endpoint)
            poller.register(self._sub, zmq.POLLIN)
        while not self._stopping:
            now = time.monotonic()
            if self._dealer is None and now >= self._due["connect"]:
                self._connect(context, poller)
            more = self._work(now, poller)
            self._read(poller.poll(0 if more else self._idle_ms(time.monotonic())), poller)
        if self.is_ready:
            self._send_unnumbered("bus-bye", "")
        if self._dealer is not None:
            self._end("closed", poller, wait=False)

    def _work(self, now: float, poller: zmq.Poller) -> bool:
        """Do what is due; True if there is more to send at once."""
        self._mail.tidy()
        if self._dealer is not None and not self.is_ready and now > self._due["greeting"]:
            self._end(f"no welcome from {self._key.endpoint} within {_GREETING_SECONDS:.0f} s", poller)
        if not self.is_ready:
            return False
        if now - self.heard_seconds > max(_SILENT_BEATS * self._beat_seconds, _SILENT_SECONDS):
            self._end(f"the hub was silent for {now - self.heard_seconds:.0f} s", poller)
            return False
        if now >= self._due["beat"]:
            self._due["beat"] = now + self._beat_seconds
            self._beat()
        return now >= self._due["resume"] and self._mail.send_with(self._send, _FEW)

    def _read(self, events: Sequence[tuple[Any, int]], poller: zmq.Poller) -> None:
        sources = [source for source, _ in events]
        if self._wake_out in sources:
            os.read(self._wake_out, 4096)
            self._awake.clear()  # after the read and before the outbox is sent, or a wake would be lost
        if self._sub is not None and self._sub in sources:
            self._drain(self._sub, self._on_publisher)
        if self._dealer is not None and self._dealer in sources:
            self._drain(self._dealer, lambda frames: self._on_hub(frames, poller))
        if self._monitor is not None and self._monitor in sources:
            self._drain(self._monitor, lambda frames: self._on_monitor(frames, poller))
        if self.is_ready and self._confirmed != self._intake.last:
            self._confirmed = self._intake.last
            self._send_unnumbered("bus-ack", str(self._intake.last), self.hub_incarnation)

    def _drain(self, socket: zmq.Socket[Any], hear: Callable[[list[bytes]], None]) -> None:
        """Read what has arrived, but return to sending and heartbeats after a few messages."""
        for _ in range(_FEW):
            if socket.closed:
                return
            try:
                frames = socket.recv_multipart(zmq.NOBLOCK)
            except zmq.Again:
                return
            hear(frames)

    def _connect(self, context: zmq.Context[Any], poller: zmq.Poller) -> None:
        self._dealer = dealer(context, self._key)
        self._monitor = self._dealer.get_monitor_socket(_EVENTS)
        self._due["greeting"] = time.monotonic() + _GREETING_SECONDS
        poller.register(self._dealer, zmq.POLLIN)
        poller.register(self._monitor, zmq.POLLIN)
        self._dealer.connect(self._key.endpoint)

    def _end(self, why: str, poller: zmq.Poller, *, wait: bool = True) -> None:
        """Close this connection; the next one follows after the wait."""
        if self._dealer is None or self._monitor is None:
            return
        poller.unregister(self._dealer)
        poller.unregister(self._monitor)
        self._dealer.disable_monitor()
        self._monitor.close(0)
        self._dealer.close(0 if wait else None)
        self._dealer = self._monitor = None
        self.is_ready = False
        self._mail.disconnect_reason = why
        pause = backoff_seconds(
            self._attempt, first=_FIRST_WAIT_SECONDS, longest=_LONGEST_WAIT_SECONDS, chance=random.random()
        )  # fmt: skip
        self._due["connect"] = time.monotonic() + pause
        self._attempt += 1

    def _refused(self, why: str, poller: zmq.Poller) -> None:
        """The hub refuses us: wait the longest time before the next attempt, and end every open request."""
        self._attempt = 32
        self._end(why, poller)
        self._mail.fail_all(NotAllowed(why, status=2))

    def _on_monitor(self, frames: list[bytes], poller: zmq.Poller) -> None:
        event = parse_monitor_message(frames)
        match event["event"]:
            case zmq.EVENT_HANDSHAKE_SUCCEEDED:
                self._hello()
            case zmq.EVENT_HANDSHAKE_FAILED_AUTH if event["value"] == 400:
                self._refused(
                    f"{self._key.endpoint}: the hub does not admit the key of {self._key.name}; ask for a new invitation",
                    poller,
                )
            case zmq.EVENT_HANDSHAKE_FAILED_AUTH:
                self._end(f"{self._key.endpoint}: the hub takes no more connections now", poller)
            case zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL:
                self._end(f"{self._key.endpoint}: what answers there is not the hub that the join file names", poller)
            case _:
                self._end(f"{self._key.endpoint}: no connection; is the hub running?", poller)

    def _hello(self) -> None:
        lanes = [f"{lane.incarnation} {lane.acknowledged}" for lane in self._mail.lanes()]
        self._send_unnumbered("bus-hello", "\n".join([f"hub {self.hub_incarnation} {self._intake.last}", *lanes]))

    def _beat(self) -> None:
        try:
            text = self._heartbeat()
            data = self._beat_bytes(text)
        except Exception:
            # The caller's function failed: send the heartbeat without its text, and log the reason.
            _log.exception("the heartbeat text of %s", self._key.name)
            data = self._beat_bytes("")
        self._send(data)

    def _beat_bytes(self, text: str) -> bytes:
        counters = self._mail.count()
        sent = [f"{lane.incarnation}:{lane.sent_last}" for lane in self._mail.lanes()]
        head = " ".join([str(counters.dropped), str(counters.replayed), str(counters.reconnects), *sent])
        return pack(Envelope("bus-beat", f"{head}\n{text}", incarnation=self._mail.incarnation, time_ms=_now_ms()))

    def _send_unnumbered(self, type_: str, body: str, incarnation: str = "") -> bool:
        return self._send(
            pack(Envelope(type_, body, incarnation=incarnation or self._mail.incarnation, time_ms=_now_ms()))
        )

    def _send(self, data: bytes) -> bool:
        if self._dealer is None:
            return False
        try:
            self._dealer.send(data, zmq.NOBLOCK)
        except zmq.Again:
            self._due["resume"] = time.monotonic() + 0.005  # the socket buffer is full; POLLOUT is not polled for
            return False
        return True

    def _on_hub(self, frames: list[bytes], poller: zmq.Poller) -> None:
        self.heard_seconds = time.monotonic()
        try:
            self._dispatch(from_hub(unpack(frames[-1])), poller)
        except UnknownVersion as error:
            self._refused(f"{self._key.endpoint}: {error}; both ends need the same release", poller)
        except (ProtocolError, ValueError) as error:
            self._end(f"{self._key.endpoint}: not understood: {error}", poller)

    def _dispatch(self, envelope: Envelope, poller: zmq.Poller) -> None:
        if envelope.seq:
            self._take_numbered(envelope, poller)
            return
        match envelope.type:
            case "bus-welcome":
                self._welcome(envelope)
            case "bus-ack":
                self._mail.acknowledge(envelope.incarnation, read_number(envelope.body))
            case "bus-resend":
                taken, wait_ms = (read_number(text) for text in envelope.body.split(" "))
                self._mail.rewind(envelope.incarnation, taken)
                self._due["resume"] = self.heard_seconds + wait_ms / 1000
            case "bus-denied":
                self._denied(envelope, poller)
            case _:
                pass  # a heartbeat: its arrival is all that counts

    def _welcome(self, envelope: Envelope) -> None:
        if envelope.incarnation != self.hub_incarnation:
            self._intake, self._confirmed = Intake(), 0
            self.hub_incarnation = envelope.incarnation
        for line in envelope.body.split("\n"):
            lane, settled, taken = line.split(" ")
            self._mail.resume(lane, read_number(settled), read_number(taken))
        if self._attempt:
            self._mail.counters.reconnects += 1
        self._attempt, self._due["beat"], self._due["resume"] = 0, 0.0, 0.0
        self._mail.disconnect_reason = ""
        self.is_ready = True
        with self._mail.changed:
            self._mail.changed.notify_all()

    def _take_numbered(self, envelope: Envelope, poller: zmq.Poller) -> None:
        match self._intake.classify(envelope.seq, envelope.after):
            case "early":
                self._end("a message from the hub is missing", poller)
            case "duplicate":
                self._confirmed = -1
            case "take":
                self._intake.settle_to(envelope.seq)
                self._deliver(envelope)

    def _deliver(self, envelope: Envelope) -> None:
        head, _, rest = envelope.body.partition(" ")
        match envelope.type:
            case "bus-answer":
                self._mail.settle(envelope.correlation, envelope)
            case "bus-refused":
                self._mail.settle(envelope.correlation, Refused(rest, read_number(head)))
            case "bus-denied":
                self._mail.counters.refused += 1
                if not self._mail.settle(envelope.correlation, NotAllowed(rest, status=2)):
                    _log.warning("%s: %s", self._key.name, rest)
            case reserved if reserved.startswith(RESERVED):
                _log.warning("%s: the hub sent the unknown type %s", self._key.name, reserved)
            case _:
                self._mail.arrive(self._mail.commands, envelope)

    def _denied(self, envelope: Envelope, poller: zmq.Poller) -> None:
        cause, _, reason = envelope.body.partition(" ")
        if cause == "hello":
            self._end("the hub does not know this connection", poller)
        else:
            self._refused(f"{self._key.endpoint}: refused ({cause}): {reason}", poller)

    def _on_publisher(self, frames: list[bytes]) -> None:
        try:
            envelope = from_hub(unpack(frames[-1]))
        except ProtocolError as error:
            _log.warning("%s: published message not understood: %s", self._key.name, error)
            return
        topic = frames[0].rstrip(b"\0").decode("ascii", "replace")
        if envelope.incarnation != self._publisher:
            self._publisher, self._counts = envelope.incarnation, {}
        expected = self._counts.get(topic, envelope.after)
        self._mail.counters.missed += max(envelope.after - expected, 0)
        is_tail = envelope.type == "bus-tail"
        self._counts[topic] = envelope.after + (0 if is_tail else 1)
        if not is_tail:
            self._mail.arrive(self._mail.published, envelope)

    def _idle_ms(self, now: float) -> int:
        """Milliseconds until something is due."""
        names = ("beat", "resume") if self.is_ready else ("greeting",) if self._dealer is not None else ("connect",)
        waits = [self._due[name] - now for name in names if self._due[name] > now]
        return max(1, min(1000, int(min(waits, default=1.0) * 1000) + 1))


def _filter(topic: str) -> bytes:
    """Subscriptions are prefixes; the zero byte makes a topic's name whole. "*" and "" mean every topic."""
    return b"" if topic in {"", "*"} else topic.encode() + b"\0"


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
