r"""The write-ahead file: every byte that belongs into the current log file, synced before anyone is told so.

    toonswarm wal 1\n
    frame*      <length u32> <BLAKE2b-64 over offset and payload> <payload>
    zeros       space claimed ahead

A frame's payload is what one group commit appends to COLLABORATION.md, byte for byte; all payloads together are the file
as it should be.  That second copy is what a file saved from an old editor buffer is mended from, so the write-ahead file
starts anew only when the log file does (rotation, after an fsync of the full one).

Space is claimed ahead in zeros: an fdatasync inside the file's size does not have to commit a new size to the file
system's journal, and a full disk is met when claiming, not in the middle of a frame.  This module knows nothing of
entries.
"""

from __future__ import annotations

import os
import struct
from hashlib import blake2b
from pathlib import Path

from swarm.log.errors import LogDamaged
from swarm.log.files import replace_file, write_all

MAGIC = b"toonswarm wal 1\n"
HEAD = struct.Struct(">I8s")
CLAIM_BYTES = 1 << 16


class Wal:
    """The open write-ahead file: its whole frames, and room for more behind them."""

    def __init__(self, file: Path) -> None:
        self._file = file
        if not file.exists():
            replace_file(file, MAGIC)
        self._fd = os.open(file, os.O_RDWR)
        data = file.read_bytes()
        frames, self._end = frames_of(data)
        self._payload = bytearray().join(frames)
        self.last_at = len(self._payload) - len(frames[-1]) if frames else 0
        """Where in the log file the last group begins."""
        self.torn = not self._end or any(data[self._end :])
        """True if there are bytes behind the last whole frame; they stay until the first append, for whoever must decide."""
        self._claimed = len(data)
        self._frame_at = self._end

    @property
    def size_bytes(self) -> int:
        """Of payload: the size that the log file should have."""
        return len(self._payload)

    def payload(self) -> bytes:
        """All that was appended: what the log file should hold."""
        return bytes(self._payload)

    def append(self, payload: bytes) -> None:
        """One frame, durable on return; after an OSError nothing of it is left."""
        if self.torn:
            self._forget_torn()
        frame = framed(self._end, payload)
        try:
            self._claim(self._end + len(frame))
            write_all(self._fd, frame, self._end)
            os.fdatasync(self._fd)
        except OSError:
            self._cut(self._end)
            raise
        self._frame_at, self.last_at = self._end, len(self._payload)
        self._end += len(frame)
        self._payload += payload

    def retract(self) -> None:
        """Takes the last appended frame back, durably (its group could not be written where readers look)."""
        self._cut(self._frame_at)
        self._end = self._frame_at
        del self._payload[self.last_at :]

    def _forget_torn(self) -> None:
        self._cut(self._end)
        if not self._end:
            write_all(self._fd, MAGIC, 0)
            self._end = self._claimed = len(MAGIC)
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

    def _cut(self, end: int) -> None:
        try:
            os.ftruncate(self._fd, end)
            os.fdatasync(self._fd)
        except OSError as failed:
            raise LogDamaged(self._file, f"could not be cut back ({failed}); open the log again") from failed
        self._claimed = end

    def close(self) -> None:
        os.close(self._fd)


def framed(offset: int, payload: bytes) -> bytes:
    return HEAD.pack(len(payload), digest_of(offset, payload)) + payload


def digest_of(offset: int, payload: bytes) -> bytes:
    return blake2b(payload, digest_size=8, salt=offset.to_bytes(8, "big")).digest()


def frames_of(data: bytes) -> tuple[list[bytes], int]:
    """The payloads of the whole frames at the beginning, and where they end (0: this is no write-ahead file)."""
    if not data.startswith(MAGIC):
        return [], 0
    frames: list[bytes] = []
    end = len(MAGIC)
    while end + HEAD.size < len(data):
        length, digest = HEAD.unpack_from(data, end)
        payload = data[end + HEAD.size : end + HEAD.size + length]
        if not length or len(payload) < length or digest != digest_of(end, payload):
            break
        frames.append(payload)
        end += HEAD.size + length
    return frames, end


def image(payload: bytes) -> bytes:
    """A whole write-ahead file whose only frame is `payload`."""
    return MAGIC + (framed(len(MAGIC), payload) if payload else b"")
