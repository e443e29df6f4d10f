"""Rate limits of one member: a token bucket for messages and one for bytes. Pure: the caller passes the time."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Rate:
    """The rate that one member may send at. A run of 64 streams needs about 640 messages/s in all (10/s each)."""

    messages_per_second: float = 20_000
    bytes_per_second: float = 64 << 20
    burst_seconds: float = 1.0


class Budget:
    """The two token buckets of one member, each kept as the moment at which it will be full again (ITU-T I.371, virtual scheduling).

    One addition takes a message, and none fills a bucket. Moments are counted from the first one, so that sums of short times stay exact.
    """

    def __init__(self, rate: Rate, now_seconds: float) -> None:
        self._message_seconds, self._byte_seconds = 1 / rate.messages_per_second, 1 / rate.bytes_per_second
        self._burst_seconds = rate.burst_seconds + _ROUNDING_SECONDS
        self._start_seconds = now_seconds
        self._messages_full = self._bytes_full = 0.0

    def spend(self, size_bytes: int, now_seconds: float) -> bool:
        """Take one message from both buckets. False, and nothing taken, if a bucket is empty."""
        now = now_seconds - self._start_seconds
        # Two calls of `max` would take as long as the rest.
        messages = self._messages_full if self._messages_full > now else now  # noqa: FURB136
        size = self._bytes_full if self._bytes_full > now else now  # noqa: FURB136
        messages += self._message_seconds
        size += size_bytes * self._byte_seconds
        latest = now + self._burst_seconds
        if messages > latest or size > latest:
            return False
        self._messages_full, self._bytes_full = messages, size
        return True

    def wait_ms(self, size_bytes: int, now_seconds: float) -> int:
        """Milliseconds until a message of this size is allowed, at least one."""
        full = max(self._messages_full + self._message_seconds, self._bytes_full + size_bytes * self._byte_seconds)
        return max(1, int((full - self._burst_seconds - (now_seconds - self._start_seconds)) * 1000) + 1)


_ROUNDING_SECONDS = 1e-9
"""A burst of exactly the allowed length is allowed, whatever its sum is rounded to."""
