"""The outbox on disk: unacknowledged messages survive the process that wrote them. Appends to and rewrites one file; sends nothing.

A record is 4 bytes length, 4 bytes CRC-32 (both big-endian) and an envelope. An acknowledgement is a record too: type `bus-ack`,
the lane in `incarnation`, the number in `body`. Reading stops at the first incomplete record. There is no fsync: a killed process
loses nothing, a power cut may lose the last seconds. After a failed write nothing more is appended, because a missing number would
count as declared dropped; messages stay in memory, and the file is rewritten when there is space again.
"""

import fcntl
import os
import struct
import zlib
from collections.abc import Iterable
from pathlib import Path

from bus.envelope import MAX_MESSAGE_BYTES, Envelope, pack, unpack
from bus.errors import BusError, ProtocolError
from bus.private import open_private

_HEAD = struct.Struct(">II")
_MAX_BYTES = 512 << 20
"""More than an outbox holds."""
_SLACK_BYTES = 4 << 20
"""A file smaller than this is not worth rewriting."""


class Spool:
    """One file, one process at a time (flock(2))."""

    def __init__(self, path: Path) -> None:
        """Open or create the file. Raises BusError if it cannot be opened or another peer uses it."""
        self.path = path
        self.failures = 0
        """How many writes failed."""
        self.is_whole = True
        """False after a failed write, until `rewrite` succeeds."""
        self._acknowledged: dict[str, int] = {}
        self._is_empty = True
        self._size_bytes = 0
        self._descriptor = _open(path)

    def load(self) -> tuple[dict[str, int], list[bytes]]:
        """The acknowledged number of each lane, and the unacknowledged messages, oldest first. Cuts off an incomplete record."""
        with open(self._descriptor, "rb", closefd=False) as file:
            data = file.read(_MAX_BYTES + 1)
        if len(data) > _MAX_BYTES:
            raise BusError(f"{self.path}: more than {_MAX_BYTES >> 20} MiB, so no spool; move it away")
        records, self._size_bytes = _records(data)
        self._truncate(self._size_bytes)
        for record in records:
            if record.type == "bus-ack":
                self._acknowledged[record.incarnation] = int(record.body)
        left = [r for r in records if r.type != "bus-ack" and r.seq > self._acknowledged.get(r.incarnation, 0)]
        self._is_empty = not left
        return dict(self._acknowledged), [pack(record) for record in left]

    def append(self, data: bytes) -> None:
        """Append a message. A disk error is counted and leaves the file unchanged."""
        self._is_empty = False
        self._write(_record(data))

    def acknowledge(self, incarnation: str, seq: int, *, left: int) -> None:
        """Record that a lane is acknowledged up to this number. With no message `left`, the file is emptied first."""
        self._acknowledged[incarnation] = seq
        if left == 0:
            self._truncate(0)
            self._size_bytes, self.is_whole, self._is_empty = 0, True, True
            self._write(b"".join(self._ack_records()))
        else:
            self._write(_ack_record(incarnation, seq))

    def forget(self, incarnation: str) -> None:
        """Drop a lane of an earlier process that is fully acknowledged."""
        self._acknowledged.pop(incarnation, None)

    def wants_rewrite(self, live_bytes: int) -> bool:
        """Whether `rewrite` would repair the file or free more than half of it."""
        return not self.is_whole or self._size_bytes > 2 * live_bytes + _SLACK_BYTES

    def rewrite(self, messages: Iterable[bytes]) -> None:
        """Replace the file by one with these messages. A disk error leaves the old file in place."""
        temporary = self.path.with_name(f".{self.path.name}.new")
        data = b"".join([*self._ack_records(), *(_record(message) for message in messages)])
        descriptor = -1
        try:
            temporary.unlink(missing_ok=True)
            descriptor = _open(temporary)
            if os.write(descriptor, data) != len(data):
                raise OSError("short write")
            temporary.replace(self.path)
        except (OSError, BusError):
            self.failures += 1
            if descriptor >= 0:
                os.close(descriptor)
            return
        os.close(self._descriptor)
        self._descriptor, self._size_bytes, self.is_whole = descriptor, len(data), True

    def close(self) -> None:
        """Close the file; an empty one is deleted."""
        if self._is_empty:
            self.path.unlink(missing_ok=True)
        os.close(self._descriptor)

    def _write(self, record: bytes) -> None:
        if not self.is_whole:
            self.failures += 1
            return
        try:
            written = os.write(self._descriptor, record)
        except OSError:
            written = 0
        if written == len(record):
            self._size_bytes += written
            return
        self.failures += 1
        self.is_whole = False
        if written:
            self._truncate(self._size_bytes)  # part of a record was written; truncating needs no space

    def _truncate(self, size_bytes: int) -> None:
        os.ftruncate(self._descriptor, size_bytes)
        os.lseek(self._descriptor, size_bytes, os.SEEK_SET)

    def _ack_records(self) -> list[bytes]:
        return [_ack_record(incarnation, seq) for incarnation, seq in self._acknowledged.items()]


def _record(data: bytes) -> bytes:
    return _HEAD.pack(len(data), zlib.crc32(data)) + data


def _ack_record(incarnation: str, seq: int) -> bytes:
    return _record(pack(Envelope("bus-ack", str(seq), incarnation=incarnation)))


def _records(data: bytes) -> tuple[list[Envelope], int]:
    """The complete records from the start, and how many bytes they take."""
    records: list[Envelope] = []
    offset = 0
    while offset + _HEAD.size <= len(data):
        length, check = _HEAD.unpack_from(data, offset)
        body = data[offset + _HEAD.size : offset + _HEAD.size + length]
        if length > MAX_MESSAGE_BYTES or len(body) != length or zlib.crc32(body) != check:
            break
        try:
            records.append(unpack(body))
        except ProtocolError:
            break
        offset += _HEAD.size + length
    return records, offset


def _open(path: Path) -> int:
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = open_private(path)
    except OSError as error:
        raise BusError(f"{path}: {error.strerror}; the spool needs a plain file there") from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(descriptor)
        raise BusError(f"{path}: another peer uses this spool") from error
    return descriptor
