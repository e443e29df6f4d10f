"""Everything the bus raises; one tree, so that a caller can catch `BusError` and nothing more.

BusError
  ProtocolError        bytes that are not an envelope, or an envelope that may not be packed
    UnknownVersion     an envelope of a protocol version that this end does not speak
  OutboxFull           control messages that nobody acknowledges have filled the outbox
  Refused              the hub said no to a request
    NotAllowed         ... because of who asked: an unknown or revoked key, or a role that may not send this type
"""


class BusError(Exception):
    """A fault of the bus that the caller can name to the user: one line that says what, and the likely fix."""


class ProtocolError(BusError):
    """These bytes are not an envelope of this protocol, or these fields do not make one."""


class UnknownVersion(ProtocolError):
    """The envelope was written in another version of the protocol."""

    def __init__(self, version: int) -> None:
        super().__init__(f"protocol version {version} is not spoken here")
        self.version = version


class OutboxFull(BusError):
    """The outbox holds as many unacknowledged control messages as it may; control is never dropped, so the sender must know."""


class Refused(BusError):
    """The hub refused a request; `status` is the exit status that a command line shall end with (5 = a claim refused)."""

    def __init__(self, reason: str, status: int = 5) -> None:
        super().__init__(reason)
        self.reason = reason
        self.status = status


class NotAllowed(Refused):
    """The hub knows the question and not the asker's right to it: key unknown or revoked, or type closed to the role."""
