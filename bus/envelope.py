"""The message format of the bus: THE WIRE PROTOCOL, version 1. Pure; opens no socket.

Sockets. The hub binds a ROUTER (its endpoint) and an XPUB (its publish endpoint); every peer connects one DEALER and, if it
subscribes, one SUB. All use CURVE; there is no mode without it. A peer's name and role follow from its public key alone.

Frames. Between DEALER and ROUTER a message is ONE frame, an envelope. (The ROUTER sees the routing id in front of it. A
routing id is 8 bytes of blake2b of the sender's public key, then 8 random bytes that are new for every connection; any other is
refused.) From XPUB to SUB it is two frames: the topic followed by a zero byte, and an envelope whose type is the topic.

Envelope. A msgpack array of eight:
    [1,            # version of this protocol, an int, always first
     type,         # str  [a-z][a-z0-9_-]{0,31}; names that start with "bus-" belong to the bus itself
     body,         # str  UTF-8 text that the bus does not interpret
     incarnation,  # str  of the sending process; its telemetry lane adds ".t" (see Numbers); "" or [a-z0-9][a-z0-9.-]{0,63}
     seq,          # int  1.. within (source, incarnation), or 0 for a message without number
     after,        # int  the number of the message before this one in the lane; the sender dropped the numbers between
     time_ms,      # int  wall clock of the sender, milliseconds since 1970
     correlation]  # str  id of a request, or of the request that this answers; "" or [A-Za-z0-9._:-]{1,80}
Source and role are not sent: the receiver sets them from the key of the connection.

Limits. One envelope is at most 1 MiB (`MAX_MESSAGE_BYTES`); strings count bytes, arrays at most 16 items, no maps, no binaries,
no extension types, integers 0 .. 2^53. A message outside these limits is refused, counted and answered with `bus-denied`.

Numbers. A peer numbers its messages in two lanes, control and telemetry, each in order and without gaps from 1, so that control
can overtake telemetry. The hub takes number n if `after` <= the last number it took from that lane, drops n <= last as a
duplicate, and asks to send again (`bus-resend`) when `after` > last. Acknowledgements are cumulative. The hub numbers its messages
to each peer in one lane in the same way. A published message has a number in `seq`, contiguous for the whole hub, and in `after`
the number of earlier messages of the SAME topic: a subscriber that counted fewer has missed the difference.

Types of the bus itself, all with seq 0 unless it says otherwise:
    peer -> hub
    bus-hello    first on every connection. body: "hub <hub incarnation or -> <last number taken from it>", then a line
                 "<lane> <acknowledged>" for every lane that the peer still has
    bus-beat     heartbeat. body: "<dropped> <replayed> <reconnects>" and " <lane>:<last number sent>" for each lane, newline, the
                 peer's own text. Numbers sent before a beat and not here at the beat are asked for again
    bus-ack      incarnation: the hub's; body: the last number taken
    bus-bye      the peer disconnects
    hub -> peer
    bus-welcome  body: a line "<lane> <acknowledged> <last taken>" for every lane of the hello
    bus-beat     answer to a heartbeat, or a test whether the connection is still open
    bus-ack      incarnation: the lane; body: acknowledged up to this number (it is durable at the hub)
    bus-resend   incarnation: the lane; body: "<last taken> <wait_ms>": send again from the number after it, after that wait
    bus-answer   answers the request named in correlation (numbered)
    bus-refused  refuses it; body: "<exit status> <reason>" (numbered)
    bus-denied   body: "<cause> <reason>"; cause is one of
                 version (the reason names the hub's version), key, malformed, hello (send it again), role or size (numbered;
                 the type is not allowed or the body too long; correlation names the request, if it was one)
    bus-tail     on XPUB, once a second for every topic: no message, but `seq` and `after` that the next message will have
An unknown version is answered with `bus-denied version` in the hub's own version: an array that starts with its number.
"""

import re
from functools import lru_cache
from typing import NamedTuple

import msgpack  # type: ignore[import-untyped]

from bus.errors import ProtocolError, UnknownVersion

VERSION = 1
MAX_MESSAGE_BYTES = 1 << 20
MAX_NUMBER = 1 << 53
"""Numbers above this are not exact in every language that may read them (IEEE 754 binary64)."""
MAX_BODY_BYTES = MAX_MESSAGE_BYTES - 512
"""Longest body that always fits: all other fields together take less than 512 bytes."""
RESERVED = "bus-"
HUB_NAME = "hub"
"""Source of all messages of the hub; no member may have this name."""

_TYPE = re.compile(r"[a-z][a-z0-9_-]{0,31}")
_INCARNATION = re.compile(r"(?:[a-z0-9][a-z0-9.-]{0,63})?")
_CORRELATION = re.compile(r"[A-Za-z0-9._:-]{0,80}")
_FIELD_COUNT = 8


class Envelope(NamedTuple):
    """One message. The module's docstring says what each field is on the wire."""

    type: str
    body: str
    source: str = ""
    """Member name; set on receipt from the CURVE key, never from the wire."""
    role: str = ""
    """Member role; set on receipt from the key."""
    incarnation: str = ""
    seq: int = 0
    time_ms: int = 0
    correlation: str = ""
    after: int = 0


def pack(envelope: Envelope) -> bytes:
    """The envelope's bytes. Raises ProtocolError if a field is invalid or the message is larger than 1 MiB."""
    _check(envelope)
    fields = (VERSION, envelope.type, envelope.body, envelope.incarnation, envelope.seq, envelope.after)
    try:
        data: bytes = msgpack.packb((*fields, envelope.time_ms, envelope.correlation))
    except UnicodeEncodeError as error:
        raise ProtocolError(f"{envelope.type}: the body cannot be encoded as UTF-8: {error}") from error
    if len(data) > MAX_MESSAGE_BYTES:
        raise ProtocolError(
            f"{envelope.type}: {len(data)} bytes, more than the {MAX_MESSAGE_BYTES} of a message; send it in parts"
        )
    return data


def unpack(data: bytes, source: str = "", role: str = "") -> Envelope:
    """The envelope in these bytes, with the given source and role. Raises ProtocolError (UnknownVersion for another version)."""
    version, fields = _fields(data)
    if version != VERSION:
        raise UnknownVersion(version)
    if len(fields) != _FIELD_COUNT:
        raise ProtocolError(f"an envelope has {_FIELD_COUNT} fields, this one {len(fields)}")
    _, type_, body, incarnation, seq, after, time_ms, correlation = fields
    # The constructor of a NamedTuple takes four times as long as the tuple's own, and this is done for every message.
    envelope = tuple.__new__(Envelope, (type_, body, source, role, incarnation, seq, time_ms, correlation, after))
    _check(envelope)
    return envelope


def read_number(text: str) -> int:
    """A whole number of at most 16 decimal digits. Raises ProtocolError; int() alone would take seconds for a long one."""
    if not (text.isascii() and text.isdigit() and len(text) <= 16):
        raise ProtocolError(f"{text[:20]!r} is not a number")
    return int(text)


def check_incarnation(text: str) -> str:
    """The text itself, if it is a valid name of a process or one of its lanes. Raises ProtocolError."""
    if not text or not _INCARNATION.fullmatch(text):
        raise ProtocolError(f"{text[:80]!r} is not a valid incarnation")
    return text


def check_type(name: str) -> str:
    """The name itself, if a caller may use it as a message type or a topic. Raises ProtocolError."""
    if not isinstance(name, str) or not _TYPE.fullmatch(name) or name.startswith(RESERVED):
        raise ProtocolError(f"{name!r} is not a message type: [a-z][a-z0-9_-]{{0,31}}, and not '{RESERVED}...'")
    return name


def _fields(data: bytes) -> tuple[int, tuple[object, ...]]:
    if len(data) > MAX_MESSAGE_BYTES:
        raise ProtocolError(f"{len(data)} bytes, more than the {MAX_MESSAGE_BYTES} of a message")
    try:
        fields = msgpack.unpackb(
            data, use_list=False, raw=False, strict_map_key=True, max_str_len=MAX_MESSAGE_BYTES,
            max_array_len=16, max_map_len=0, max_bin_len=0, max_ext_len=0,
        )  # fmt: skip
    except (ValueError, TypeError, RecursionError, msgpack.UnpackException) as error:
        raise ProtocolError(f"not msgpack within the limits: {error}") from error
    if not isinstance(fields, tuple) or not fields or type(fields[0]) is not int:
        raise ProtocolError("not an array that starts with a version number")
    return fields[0], fields


def _check(envelope: Envelope) -> None:
    type_, body, _, _, incarnation, seq, time_ms, correlation, after = envelope
    is_sound = (
        type(type_) is type(body) is type(incarnation) is type(correlation) is str
        and _are_names(type_, incarnation)
        and (not correlation or _CORRELATION.fullmatch(correlation))
        and type(seq) is type(after) is type(time_ms) is int
        and 0 <= seq <= MAX_NUMBER
        and 0 <= after <= MAX_NUMBER
        and 0 <= time_ms <= MAX_NUMBER
    )
    if not is_sound:
        raise _fault(envelope)


@lru_cache(maxsize=1024)
def _are_names(type_: str, incarnation: str) -> bool:
    """Whether both are valid. A sender uses few of them, so that their patterns are not matched for every message."""
    return bool(_TYPE.fullmatch(type_) and _INCARNATION.fullmatch(incarnation))


def _fault(envelope: Envelope) -> ProtocolError:
    """Describes the first invalid field."""
    for name, value, pattern in (
        ("type", envelope.type, _TYPE),
        ("incarnation", envelope.incarnation, _INCARNATION),
        ("correlation", envelope.correlation, _CORRELATION),
    ):
        if type(value) is not str or not pattern.fullmatch(value):
            return ProtocolError(f"{name} {str(value)[:80]!r} does not match {pattern.pattern}")
    if type(envelope.body) is not str:
        return ProtocolError("the body is not text")
    numbers = f"{envelope.seq!r:.80}, {envelope.after!r:.80}, {envelope.time_ms!r:.80}"
    return ProtocolError(f"seq, after and time must be whole numbers from 0 to 2^53: {numbers}")
