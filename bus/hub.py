"""The server end of the bus: a ROUTER, an XPUB and the ZAP handler on one asyncio loop. Does not interpret message bodies.

Delivery: `receive` yields every numbered message once and in order within its lane; after `acknowledge` the sender may delete it.
If a hub is killed, the peers send everything unacknowledged again to the next hub on the same endpoint, whose caller passes in
`seen` what it already has (zguide ch. 4, Titanic: disk before acknowledgement; ch. 5, Clone: numbers and replay).
"""

import asyncio
import errno
import fcntl
import os
import secrets
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import zmq
from zmq.utils.monitor import parse_monitor_message

from bus.authentication import ZAP_ENDPOINT, Authenticator
from bus.envelope import HUB_NAME, MAX_MESSAGE_BYTES, Envelope, check_type, pack
from bus.errors import BusError
from bus.exchange import Exchange, Posted
from bus.inbox import Inbox
from bus.keys import Members
from bus.links import Limits, Link
from bus.private import open_private
from bus.sockets import SocketReader, check_bind, publisher, router, user_key

_ACK_SECONDS = 0.003
"""Acknowledgements are collected for this time: one message instead of dozens, and far shorter than a training step."""
_TICK_SECONDS = 0.25
_FORGET_SECONDS = 0.02
_TAIL_SECONDS = 1.0
_REBIND_SECONDS = 3.0


class Hub:
    """See the module. Call all methods on the loop that `start` ran on."""

    def __init__(
        self, members: Members, *, allowed: Mapping[str, frozenset[str]], seen: Mapping[tuple[str, str], int] | None = None,
        limits: Limits | None = None,
    ) -> None:  # fmt: skip
        """`allowed`: role -> message types it may send, "*" = all. `seen`: (source, incarnation) -> last number that is durable here."""
        self.members = members
        self.incarnation = secrets.token_hex(8)
        self.malformed = 0
        """Messages that were not two frames on a connection with a key."""
        self._limits = limits or Limits()
        self._inbox = Inbox(self._limits)
        self._exchange = Exchange(
            members, allowed, seen or {}, self._limits, self.incarnation, self._post, self._deliver, self._inbox.is_full
        )  # fmt: skip
        self._authenticator = Authenticator(members, self._is_crowded)
        self._arrived = asyncio.Event()
        self._publishing = asyncio.Lock()
        self._published = 0
        self._topics: dict[str, int] = {}
        self._connections: set[tuple[str, int]] = set()
        self._removals = members.removals
        self._context: zmq.Context[Any] | None = None
        self._readers: list[SocketReader] = []
        self._lock = -1
        self._ticker: asyncio.Task[None] | None = None
        self._ack_timer: asyncio.TimerHandle | None = None

    async def start(self) -> None:
        """Bind and begin to receive. Raises BusError if another hub serves this run, or an endpoint is in use or not safe."""
        for endpoint in (self.members.endpoint, self.members.publish_endpoint):
            check_bind(endpoint, self.members)
        self._lock = _take_lock(self.members.folder / "hub.lock")
        self._context = zmq.Context()
        try:
            self._open(self._context, asyncio.get_running_loop())
        except BaseException:
            await self.close()
            raise
        self._ticker = asyncio.create_task(self._tick())
        self._ticker.add_done_callback(lambda _: self._arrived.set())

    async def close(self) -> None:
        """Stop. The peers will send unacknowledged messages again to the next hub."""
        if self._ticker is not None:
            self._ticker.cancel()
            await asyncio.wait([self._ticker])
        if self._ack_timer is not None:
            self._acknowledge_now()
        for reader in self._readers:
            reader.close()
        if self._context is not None:
            context, self._context = self._context, None
            await asyncio.to_thread(context.term)
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1
        self._arrived.set()

    async def receive(self) -> Envelope:
        """The next message. Raises BusError once the hub is closed."""
        while not self._inbox.count:
            self._check()
            self._arrived.clear()
            await self._arrived.wait()
        return self._inbox.pop()

    async def receive_batch(self, limit: int, limit_bytes: int = MAX_MESSAGE_BYTES) -> list[Envelope]:
        """Wait for a message, then return messages that have arrived, for one transaction; members are served in turn.

        At most `limit` messages, and none after the bodies have `limit_bytes`.
        """
        batch = [await self.receive()]
        size_bytes = len(batch[0].body)
        while self._inbox.count and len(batch) < limit and size_bytes < limit_bytes:
            batch.append(self._inbox.pop())
            size_bytes += len(batch[-1].body)
        return batch

    async def acknowledge(self, envelope: Envelope) -> None:
        """Tell the sender that this message, and everything before it in its lane, is durable and may be deleted."""
        self._exchange.settle(envelope)
        self._acknowledge_soon()

    async def send(self, member: str, type: str, body: str, *, correlation: str = "") -> bool:  # noqa: A002
        """Send to a member's newest process. False if it is not connected; True: delivered once, unless that process ends first."""
        return self._exchange.send(member, self._envelope(check_type(type), body, correlation))

    async def reaches(self, member: str) -> bool:
        """Whether `send` would find the member connected. Asked before what must be recorded ahead of the sending."""
        return self._exchange.reaches(member)

    async def answer(self, request: Envelope, body: str) -> None:
        """Answer a `Peer.request`, which also acknowledges it."""
        self._exchange.answer(request, self._envelope("bus-answer", body, request.correlation))
        self._acknowledge_soon()

    async def refuse(self, request: Envelope, reason: str, *, status: int = 5) -> None:
        """Make the `Peer.request` raise Refused(reason, status)."""
        self._exchange.answer(request, self._envelope("bus-refused", f"{status} {reason}", request.correlation))
        self._acknowledge_soon()

    async def publish(self, topic: str, body: str) -> None:
        """Send to every subscriber of the topic; the envelope's type is the topic. Raises BusError above the limit of topics."""
        check_type(topic)
        if topic not in self._topics and len(self._topics) >= self._limits.topics:
            raise BusError(f"{topic}: a hub publishes at most {self._limits.topics} topics")
        async with self._publishing:
            self._check()
            await self._disconnect_revoked()
            self._published += 1
            before = self._topics.get(topic, 0)
            data = pack(Envelope(topic, body, "", "", self.incarnation, self._published, _now_ms(), "", before))
            self._broadcast(topic, data)
            self._topics[topic] = before + 1

    def links(self) -> dict[str, Link]:
        """Every member that has sent a message, by name."""
        return self._exchange.links()

    @property
    def unauthenticated(self) -> int:
        """Handshakes and messages refused because of their key."""
        return self._authenticator.refused + self._exchange.unauthenticated

    def _check(self) -> None:
        """Raise BusError if the hub is closed, or if its timer task has failed."""
        if self._context is None:
            raise BusError("the hub is closed")
        if self._ticker is not None and self._ticker.done() and not self._ticker.cancelled():
            raise BusError(f"the hub has failed: {self._ticker.exception()!r}") from self._ticker.exception()

    def _envelope(self, type_: str, body: str, correlation: str) -> Envelope:
        return Envelope(type_, body, time_ms=_now_ms(), correlation=correlation)

    def _open(self, context: zmq.Context[Any], loop: asyncio.AbstractEventLoop) -> None:
        zap = context.socket(zmq.REP)
        zap.linger = 0
        zap.bind(ZAP_ENDPOINT)
        self._zap_reader = SocketReader(
            loop, zap, lambda frames: zap.send_multipart(self._authenticator.answer(frames))
        )
        self._router = SocketReader(loop, router(context, self.members), self._take)
        self._xpub = SocketReader(loop, publisher(context, self.members), lambda frames: None)
        self._readers = [self._zap_reader, self._router, self._xpub]
        for reader, name in ((self._router, "in"), (self._xpub, "out")):
            self._readers.append(self._watch(loop, reader.socket, name))
        _bind(self._router.socket, self.members.endpoint)
        _bind(self._xpub.socket, self.members.publish_endpoint)

    def _watch(self, loop: asyncio.AbstractEventLoop, socket: zmq.Socket[Any], name: str) -> SocketReader:
        """Follow the connections of a socket through its monitor, to count them and to notice their end."""
        monitor = socket.get_monitor_socket(zmq.EVENT_ACCEPTED | zmq.EVENT_DISCONNECTED)

        def take(frames: list[zmq.Frame]) -> None:
            event = parse_monitor_message([frame.bytes for frame in frames])
            connection = (name, int(event["value"]))
            if event["event"] == zmq.EVENT_ACCEPTED:
                self._connections.add(connection)
            else:
                self._connections.discard(connection)
                # The ROUTER removes the routing id shortly after the monitor event.
                loop.call_later(_FORGET_SECONDS, self._probe)

        return SocketReader(loop, monitor, take)

    def _is_crowded(self) -> bool:
        return len(self._connections) > self._limits.connections

    def _take(self, frames: list[zmq.Frame]) -> None:
        key = user_key(frames[1]) if len(frames) == 2 else ""
        if not key:
            self.malformed += 1
            return
        self._exchange.take(key, frames[0].bytes, frames[1].bytes, time.monotonic())
        if self._exchange.acks_due:
            self._acknowledge_soon()

    def _deliver(self, envelope: Envelope) -> None:
        self._inbox.add(envelope)
        self._arrived.set()

    def _post(self, routing_id: bytes, data: bytes) -> Posted:
        if self._router.socket.closed:
            return "gone"
        try:
            self._router.socket.send_multipart([routing_id, data], zmq.NOBLOCK)
        except zmq.Again:
            return "full"
        except zmq.ZMQError as error:
            if error.errno != errno.EHOSTUNREACH:
                raise
            return "gone"
        finally:
            self._router.read_soon()
        return "sent"

    def _broadcast(self, topic: str, data: bytes) -> None:
        self._xpub.socket.send_multipart([topic.encode() + b"\0", data], zmq.NOBLOCK)
        self._xpub.read_soon()

    def _acknowledge_soon(self) -> None:
        if self._ack_timer is None:
            self._ack_timer = asyncio.get_running_loop().call_later(_ACK_SECONDS, self._acknowledge_now)

    def _acknowledge_now(self) -> None:
        self._ack_timer = None
        self._exchange.acknowledge_all()

    def _probe(self) -> None:
        if self._context is not None:
            self._exchange.probe()

    async def _tick(self) -> None:
        tailed = 0.0
        while True:
            await asyncio.sleep(_TICK_SECONDS)
            for reader in self._readers:
                reader.read_soon()
            if self._exchange.acks_due:
                self._acknowledge_soon()
            self._exchange.push_all()
            async with self._publishing:
                await self._disconnect_revoked()
                if time.monotonic() - tailed >= _TAIL_SECONDS:
                    tailed = time.monotonic()
                    self._publish_tails()

    def _publish_tails(self) -> None:
        """Publish the next number of each topic, so that a subscriber that lost the end of a burst notices (zguide ch. 5, Clone, HUGZ)."""
        for topic, count in self._topics.items():
            tail = Envelope("bus-tail", "", "", "", self.incarnation, self._published + 1, _now_ms(), "", count)
            self._broadcast(topic, pack(tail))

    async def _disconnect_revoked(self) -> None:
        """Disconnect revoked members. An XPUB cannot drop one subscriber, so all have to reconnect and are authenticated again."""
        self.members.refresh()
        if self.members.removals == self._removals or self._context is None:
            return
        self._removals = self.members.removals
        self._exchange.disconnect_revoked()
        loop, endpoint, old = asyncio.get_running_loop(), self.members.publish_endpoint, self._xpub
        monitor = self._readers.pop()
        old.socket.unbind(endpoint)
        old.socket.disable_monitor()
        monitor.close()
        old.socket.linger = 0
        old.close()
        self._connections = {(name, number) for name, number in self._connections if name == "in"}
        self._xpub = SocketReader(loop, publisher(self._context, self.members), lambda frames: None)
        self._readers[self._readers.index(old)] = self._xpub
        self._readers.append(self._watch(loop, self._xpub.socket, "out"))
        await _bind_again(self._xpub.socket, endpoint)


def _now_ms() -> int:
    return time.time_ns() // 1_000_000


def _bind(socket: zmq.Socket[Any], endpoint: str) -> None:
    try:
        socket.bind(endpoint)
    except zmq.ZMQError as error:
        raise BusError(
            f"{endpoint}: cannot listen there: {zmq.strerror(error.errno or 0)}; choose another address"
        ) from error


async def _bind_again(socket: zmq.Socket[Any], endpoint: str) -> None:
    """Bind where a socket of this process has just been closed: libzmq frees the address, and removes an ipc file, a moment later."""
    deadline = time.monotonic() + _REBIND_SECONDS
    while True:
        path = Path(endpoint.removeprefix("ipc://")) if endpoint.startswith("ipc://") else None
        try:
            if path is None or not path.exists() or time.monotonic() > deadline:
                return _bind(socket, endpoint)
        except BusError:
            if time.monotonic() > deadline:
                raise
        await asyncio.sleep(0.01)


def _take_lock(path: Path) -> int:
    """Take the lock of the members' folder: a second bind on an ipc path would take it over without an error."""
    try:
        descriptor = open_private(path)
    except OSError as error:
        raise BusError(f"{path}: {error.strerror}; a plain file belongs there: move it away") from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(descriptor)
        raise BusError(f"{path}: another hub serves this run") from error
    return descriptor


__all__ = ["HUB_NAME", "Hub", "Limits", "Link"]
