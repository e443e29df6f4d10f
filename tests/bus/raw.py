"""Raw DEALER sockets, for clients that do not follow the protocol."""

import asyncio
import contextlib
import os
import time

import zmq

from bus.envelope import Envelope, pack
from bus.sockets import routing_prefix


def raw_dealer(context, join, *, keys=None, server_key=None, routing_id=None):
    """A DEALER with any keys and any routing id."""
    dealer = context.socket(zmq.DEALER)
    public, secret = keys or (join.public_key.encode(), join.secret_key.encode())
    dealer.curve_publickey, dealer.curve_secretkey = public, secret
    dealer.curve_serverkey = (server_key or join.server_key).encode()
    dealer.routing_id = routing_id or routing_prefix(public.decode()) + os.urandom(8)
    dealer.linger = 0
    dealer.connect(join.endpoint)
    return dealer


def hello(incarnation="raw", lane=True):
    return pack(Envelope("bus-hello", f"hub - 0\n{incarnation} 0" if lane else "hub - 0", incarnation=incarnation))


def hello_without_waiting(dealer):
    """Send a hello without blocking: a refused client has no connection, and a blocking send would never return."""
    with contextlib.suppress(zmq.Again):
        dealer.send(hello(), zmq.NOBLOCK)


async def reply(dealer, seconds=3.0):
    """The next frame, or None."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            return await asyncio.to_thread(dealer.recv, zmq.NOBLOCK)
        except zmq.Again:
            await asyncio.sleep(0.01)
    return None
