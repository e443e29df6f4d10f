"""Creates CURVE sockets with the options that the bus relies on, and reads a socket on an asyncio loop. Decides nothing.

Source for each option: libzmq zmq_setsockopt(3).
"""

import asyncio
import hashlib
import os
import stat
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any

import zmq

from bus.envelope import MAX_MESSAGE_BYTES
from bus.errors import BusError
from bus.keys import Join, Members, is_loopback

ZAP_DOMAIN = b"toonswarm"
KEY_DIGEST_BYTES = 8
MAX_FRAME_BYTES = MAX_MESSAGE_BYTES + 256
"""CURVE adds 33 bytes to a frame before MAXMSGSIZE looks at it (RFC 26/CURVEZMQ), and XPUB a topic."""
_BURST = 256


@lru_cache(maxsize=1024)
def routing_prefix(public_key: str) -> bytes:
    """The first 8 bytes of every routing id of this key, so that no member can use the routing id of another."""
    return hashlib.blake2b(public_key.encode(), digest_size=KEY_DIGEST_BYTES).digest()


_HANDSHAKE_MS = 5_000
"""How long a connection may hold a descriptor without having shown its key; libzmq's default is 30 s."""


def listener(context: zmq.Context[Any], kind: int, members: Members) -> zmq.Socket[Any]:
    """A server socket that asks the ZAP handler about every connection and refuses all while there is no handler."""
    socket: zmq.Socket[Any] = context.socket(kind)
    socket.curve_server = True
    socket.curve_publickey = members.server_key.encode()
    socket.curve_secretkey = members.server_secret.encode()
    # Both are needed: without ZAP_ENFORCE_DOMAIN libzmq admits any key while there is no handler.
    socket.zap_domain = ZAP_DOMAIN
    socket.setsockopt(zmq.ZAP_ENFORCE_DOMAIN, 1)
    socket.linger = 500
    socket.handshake_ivl = _HANDSHAKE_MS
    _common(socket)
    return socket


def router(context: zmq.Context[Any], members: Members) -> zmq.Socket[Any]:
    """The hub's ROUTER. MANDATORY: sending to a closed connection is an error. No HANDOVER: a new connection cannot take an id in use."""
    socket = listener(context, zmq.ROUTER, members)
    socket.router_mandatory = True
    socket.router_handover = False
    socket.rcvhwm = _BURST  # x 1 MiB bounds what one connection can make the hub hold
    socket.sndhwm = 4096
    return socket


def publisher(context: zmq.Context[Any], members: Members) -> zmq.Socket[Any]:
    """The hub's XPUB. A subscriber that reads too slowly loses messages, and `after` shows how many."""
    socket = listener(context, zmq.XPUB, members)
    socket.sndhwm = 2000
    return socket


def dealer(context: zmq.Context[Any], join: Join) -> zmq.Socket[Any]:
    """A peer's DEALER for ONE connection. It never reconnects by itself: a new connection needs a new routing id and a hello."""
    socket = _client(context, zmq.DEALER, join)
    socket.routing_id = routing_prefix(join.public_key) + os.urandom(8)
    socket.immediate = True
    socket.reconnect_ivl = -1
    socket.sndhwm = 4096
    socket.linger = 200
    return socket


def subscriber(context: zmq.Context[Any], join: Join, topics: list[bytes]) -> zmq.Socket[Any]:
    """A subscriber's SUB. libzmq reconnects it; `after` shows what was lost meanwhile."""
    socket = _client(context, zmq.SUB, join)
    socket.reconnect_ivl, socket.reconnect_ivl_max = 100, 2000
    socket.rcvhwm = 2000
    socket.linger = 0
    for topic in topics:
        socket.setsockopt(zmq.SUBSCRIBE, topic)
    return socket


def check_bind(endpoint: str, members: Members) -> None:
    """Raises BusError where the hub must not listen: an ipc folder that others can enter, a public address with no members yet."""
    if endpoint.startswith("ipc://"):
        folder = Path(endpoint.removeprefix("ipc://")).parent
        try:
            status = folder.stat()
        except OSError as error:
            raise BusError(f"{endpoint}: {error.strerror}; make the runtime folder first") from error
        if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid() or status.st_mode & 0o077:
            raise BusError(f"{folder}: others can enter the folder of the sockets; chmod 700 it")
    elif not is_loopback(endpoint) and not len(members):
        raise BusError(f"{endpoint}: reachable from outside, and nobody is invited yet; invite the members first")


def user_key(frame: zmq.Frame) -> str:
    """The public key of the frame's connection (the ZAP user id); "" if there is none."""
    try:
        return str(frame.get("User-Id"))
    except zmq.ZMQError:
        return ""


class SocketReader:
    """Calls a function for every message of a socket, on the loop's thread.

    A 0MQ descriptor is edge-triggered, and any call on the socket may consume the edge (zmq_getsockopt(3), ZMQ_FD). So the socket is
    read until it is empty, and `read_soon` must follow every send.
    """

    def __init__(
        self, loop: asyncio.AbstractEventLoop, socket: zmq.Socket[Any], take: Callable[[list[zmq.Frame]], None]
    ) -> None:
        self._loop, self.socket, self._take = loop, socket, take
        self._is_scheduled = False
        self._descriptor = int(socket.getsockopt(zmq.FD))
        loop.add_reader(self._descriptor, self._read)
        self.read_soon()

    def read_soon(self) -> None:
        """Read at the loop's next turn, whether or not the descriptor is readable."""
        if not self._is_scheduled and not self.socket.closed:
            self._is_scheduled = True
            self._loop.call_soon(self._read)

    def close(self) -> None:
        """Stop reading and close the socket."""
        if not self.socket.closed:
            self._loop.remove_reader(self._descriptor)
            self.socket.close()

    def _read(self) -> None:
        self._is_scheduled = False
        for _ in range(_BURST):
            if self.socket.closed:
                return
            try:
                frames = [self.socket.recv(zmq.NOBLOCK, copy=False)]
                while frames[-1].more:  # `recv_multipart` asks the socket for this, which costs as much as receiving
                    frames.append(self.socket.recv(zmq.NOBLOCK, copy=False))
            except zmq.Again:
                return
            self._take(frames)
        self.read_soon()


def _client(context: zmq.Context[Any], kind: int, join: Join) -> zmq.Socket[Any]:
    socket: zmq.Socket[Any] = context.socket(kind)
    socket.curve_serverkey = join.server_key.encode()
    socket.curve_publickey = join.public_key.encode()
    socket.curve_secretkey = join.secret_key.encode()
    _common(socket)
    return socket


def _common(socket: zmq.Socket[Any]) -> None:
    socket.maxmsgsize = MAX_FRAME_BYTES
    socket.handshake_ivl = 5000
    # No ZMTP heartbeats: in libzmq 4.3.5 their timer aborts the process (`!_io_error`, stream_engine_base.cpp out_event) on a
    # broken connection whose pipe was full. The bus sends its own heartbeats; TCP keepalive closes half-open connections.
    socket.heartbeat_ivl = 0
    socket.tcp_keepalive, socket.tcp_keepalive_idle, socket.tcp_keepalive_intvl, socket.tcp_keepalive_cnt = 1, 3, 1, 4
    socket.tcp_maxrt = 7000
    socket.setsockopt(zmq.IPV6, 1)
