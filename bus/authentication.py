"""The ZAP handler: libzmq asks it whether a connection may be made. Only keys of the members' list are admitted.

Source: RFC 27/ZAP. libzmq sends one request per handshake to inproc://zeromq.zap.01. The user id of the reply, here the public key,
is attached to every frame of that connection.
"""

from collections.abc import Callable

import zmq
from zmq.utils import z85

from bus.keys import Members
from bus.sockets import ZAP_DOMAIN

ZAP_ENDPOINT = "inproc://zeromq.zap.01"


class Authenticator:
    """Admits or refuses handshakes and counts both."""

    def __init__(self, members: Members, is_crowded: Callable[[], bool]) -> None:
        self._members, self._is_crowded = members, is_crowded
        self.admitted = 0
        self.refused = 0

    def answer(self, frames: list[zmq.Frame]) -> list[bytes]:
        """The reply to one ZAP request. A malformed request is refused."""
        parts = [frame.bytes for frame in frames]
        request_id = parts[1] if len(parts) > 1 else b""
        if (
            len(parts) != 7
            or parts[0] != b"1.0"
            or parts[2] != ZAP_DOMAIN
            or parts[5] != b"CURVE"
            or len(parts[6]) != 32
        ):
            return self._reply(request_id, b"400", b"not a CURVE handshake of this bus")
        if self._is_crowded():
            return self._reply(request_id, b"500", b"too many connections")
        key = z85.encode(parts[6])
        if self._members.by_key(key.decode()) is None:
            return self._reply(request_id, b"400", b"this key is not on the list")
        return self._reply(request_id, b"200", b"OK", key)

    def _reply(self, request_id: bytes, status: bytes, text: bytes, user: bytes = b"") -> list[bytes]:
        if status == b"200":
            self.admitted += 1
        else:
            self.refused += 1
        return [b"1.0", request_id, status, text, user, b""]
