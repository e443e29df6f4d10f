"""The exceptions of the bus. All derive from `BusError`, so a caller can catch that one alone.

BusError
  ProtocolError        bytes that are not an envelope, or an envelope that cannot be packed
    UnknownVersion     an envelope of a protocol version that this end does not support
  OutboxFull           unacknowledged control messages have filled the outbox
  Refused              the hub refused a request
    NotAllowed         ... because of the sender: an unknown or revoked key, or a role that may not send this type
"""


class BusError(Exception):
    """A fault of the bus. Its text is one line for the user: `where: what; the likely fix`."""


class ProtocolError(BusError):
    """These bytes are not an envelope of this protocol, or these fields do not make one."""


class UnknownVersion(ProtocolError):
    """The envelope was written in another version of the protocol."""

    def __init__(self, version: int) -> None:
        super().__init__(f"protocol version {version} is not supported here")
        self.version = version


class OutboxFull(BusError):
    """The outbox is full of unacknowledged control messages. Control messages are never dropped, so the sender gets this error."""


class Refused(BusError):
    """The hub refused a request. `status` is the exit status for a command line (5 = a claim was refused)."""

    def __init__(self, reason: str, status: int = 5) -> None:
        super().__init__(reason)
        self.reason = reason
        self.status = status


class NotAllowed(Refused):
    """The sender may not make this request: its key is unknown or revoked, or its role may not send this type."""
