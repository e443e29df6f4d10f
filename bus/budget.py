"""Rate limits of one member: a token bucket for messages and one for bytes. Pure: the caller passes the time."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Rate:
    """The rate that one member may send at. A run of 64 streams needs about 640 messages/s in all (10/s each)."""

    messages_per_second: float = 20_000
    bytes_per_second: float = 64 << 20
    burst_seconds: float = 1.0


class Budget:
    """The two token buckets of one member."""

    def __init__(self, rate: Rate, now_seconds: float) -> None:
        self._rate = rate
        self._messages = rate.messages_per_second * rate.burst_seconds
        self._bytes = rate.bytes_per_second * rate.burst_seconds
        self._filled_seconds = now_seconds

    def spend(self, size_bytes: int, now_seconds: float) -> bool:
        """Take one message from both buckets. False, and nothing taken, if a bucket is empty."""
        self._fill(now_seconds)
        if self._messages < 1 or self._bytes < size_bytes:
            return False
        self._messages -= 1
        self._bytes -= size_bytes
        return True

    def wait_ms(self, size_bytes: int) -> int:
        """Milliseconds until a message of this size is allowed, at least one."""
        messages = (1 - self._messages) / self._rate.messages_per_second
        size = (size_bytes - self._bytes) / self._rate.bytes_per_second
        return max(1, int(max(messages, size) * 1000) + 1)

    def _fill(self, now_seconds: float) -> None:
        elapsed = now_seconds - self._filled_seconds
        self._filled_seconds = now_seconds
        most = self._rate.burst_seconds
        self._messages = min(
            self._messages + elapsed * self._rate.messages_per_second, self._rate.messages_per_second * most
        )
        self._bytes = min(self._bytes + elapsed * self._rate.bytes_per_second, self._rate.bytes_per_second * most)
