r"""The write-ahead file: every byte that belongs into the current log file, synced before it is acknowledged.

    toonswarm wal 1\n
    frame*      <length u32> <BLAKE2b-64 over offset and payload> <payload>
    zeros       space claimed ahead

A frame's payload is what one group commit appends to COLLABORATION.md, byte for byte; all payloads together are the file
as it should be.  Readers read it, and a log file that an editor overwrote with an old buffer is mended from it; so the
write-ahead file starts anew only when the log file does (at a rotation, after the full file is on the disk).

Space is claimed ahead in zeros: an fdatasync inside the file's size does not have to commit a new size to the file
system's journal, and a full disk shows when space is claimed, not in the middle of a frame.  This module knows nothing of
entries.
"""

from __future__ import annotations

import os
import struct
from hashlib import blake2b
from pathlib import Path

from swarm import plainfiles
from swarm.files import read_or_nothing, replace_file, write_all
from swarm.log.errors import LogDamaged

MAGIC = b"toonswarm wal 1\n"
HEAD = struct.Struct(">I8s")
CLAIM_BYTES = 1 << 16
MARK_BYTES = len(MAGIC) + HEAD.size
"""The first bytes, which identify a write-ahead file: the hash of its first frame is among them."""


class Wal:
    """The open write-ahead file: its whole frames, and room for more behind them."""

    def __init__(self, file: Path) -> None:
        self._file = file
        if not file.exists():
            replace_file(file, MAGIC)
        self._fd = plainfiles.open_file(file, os.O_RDWR)
        data = read_or_nothing(file)
        frames, self._end = frames_of(data)
        self._payload = bytearray().join(frames)
        self.last_at = len(self._payload) - len(frames[-1]) if frames else 0
        """Where in the log file the last group begins."""
        self.torn = is_torn(data, self._end)
        """There are bytes behind the last whole frame; the caller decides what they were and calls `forget_torn`."""
        self._claimed = len(data)

    @property
    def size_bytes(self) -> int:
        """Of payload: the size that the log file should have."""
        return len(self._payload)

    def payload(self) -> bytes:
        """All payloads: what the log file should hold."""
        return bytes(self._payload)

    def append(self, payload: bytes) -> None:
        """Appends one frame, durable on return; after an OSError nothing of it is left."""
        frame = framed(self._end, payload)
        try:
            self._claim(self._end + len(frame))
            write_all(self._fd, frame, self._end)
            os.fdatasync(self._fd)
        except OSError:
            self._cut()
            raise
        self.last_at = len(self._payload)
        self._end += len(frame)
        self._payload += payload

    def forget_torn(self) -> None:
        """Removes what a crash left behind the last whole frame; it was never acknowledged."""
        if self.torn:
            self._cut()
            self.torn = False

    def _claim(self, needed: int) -> None:
        if needed <= self._claimed:
            return
        target = -(-needed // CLAIM_BYTES) * CLAIM_BYTES
        try:
            write_all(self._fd, bytes(target - self._claimed), self._claimed)
        except OSError:
            if os.fstat(self._fd).st_size < needed:
                raise
        self._claimed = os.fstat(self._fd).st_size

    def _cut(self) -> None:
        try:
            os.ftruncate(self._fd, self._end)
            if not self._end:
                write_all(self._fd, MAGIC, 0)
                self._end = len(MAGIC)
            os.fdatasync(self._fd)
        except OSError as failed:
            raise LogDamaged(self._file, f"could not be cut back ({failed}); open the log again") from failed
        self._claimed = self._end

    def close(self) -> None:
        os.close(self._fd)


def framed(offset: int, payload: bytes) -> bytes:
    return HEAD.pack(len(payload), digest_of(offset, payload)) + payload


def digest_of(offset: int, payload: bytes) -> bytes:
    return blake2b(payload, digest_size=8, salt=offset.to_bytes(8, "big")).digest()


def frames_of(data: bytes) -> tuple[list[bytes], int]:
    """The payloads of the whole frames of a write-ahead file, and where they end (0: this is none)."""
    if not data.startswith(MAGIC):
        return [], 0
    return frames_from(data[len(MAGIC) :], len(MAGIC))


def frames_from(data: bytes, offset: int) -> tuple[list[bytes], int]:
    """The same for the bytes of such a file from `offset` on, where a frame begins."""
    frames: list[bytes] = []
    at, unpack, size = 0, HEAD.unpack_from, HEAD.size
    while at + size < len(data):
        length, digest = unpack(data, at)
        end = at + size + length
        payload = data[at + size : end]
        if not length or end > len(data) or digest != digest_of(offset + at, payload):
            break
        frames.append(payload)
        at = end
    return frames, offset + at


def is_torn(data: bytes, end: int) -> bool:
    """True if there are bytes behind the whole frames, or this is no write-ahead file at all."""
    return not end or data.count(0, end) < len(data) - end


def image(payload: bytes) -> bytes:
    """A whole write-ahead file whose only frame is `payload`."""
    return MAGIC + (framed(len(MAGIC), payload) if payload else b"")
