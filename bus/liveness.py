"""Tells an ended, an unreachable and a stalled process apart, and decides when to restart it. Pure: times are arguments.

Three independent signals: SIGKILL shows in the exit code; SIGSTOP and a C call that holds the GIL show in missing heartbeats; a
main thread that hangs shows only in missing progress.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

State = Literal["starting", "running", "stalled", "unreachable", "dead"]
StopStep = Literal["ask", "terminate", "kill"]


@dataclass(frozen=True)
class Signals:
    """What is known about one process at one moment."""

    exit_code: int | None
    """`returncode` of `subprocess`: None while it runs, negative for a signal."""
    age_seconds: float
    """Seconds since it was started."""
    silent_seconds: float | None
    """Seconds since its last message; None if there was none."""
    no_progress_seconds: float | None
    """Seconds since its step counter last rose; None while it holds no task."""
    busy: str = ""
    """What it reports to be doing, for the reason text."""


@dataclass(frozen=True)
class Timeouts:
    """Timeouts of the signals. A lease must be ten heartbeats or longer: beside four trainers a heartbeat is up to 0.9 s late."""

    start_seconds: float = 120.0
    """Until the first message. Importing trl takes 6 s of CPU, and four workers do it at once."""
    silent_seconds: float = 10.0
    no_progress_seconds: float = 60.0


@dataclass(frozen=True)
class Liveness:
    """The state of a process and the reason for it."""

    state: State
    why: str


@dataclass(frozen=True)
class Restart:
    """Start the process again after this wait."""

    wait_seconds: float


@dataclass(frozen=True)
class Parked:
    """Do not start the process again by itself; a person or an agent has to decide."""

    why: str


def judge(signals: Signals, timeouts: Timeouts = Timeouts()) -> Liveness:
    """The state of a process. An exit is checked before missing heartbeats and these before missing progress: each implies the next."""
    if signals.exit_code is not None:
        return Liveness("dead", describe_exit(signals.exit_code))
    if signals.silent_seconds is None:
        late = signals.age_seconds > timeouts.start_seconds
        return Liveness(
            "unreachable" if late else "starting", f"no message in the {signals.age_seconds:.0f} s since its start"
        )
    if signals.silent_seconds > timeouts.silent_seconds:
        return Liveness(
            "unreachable",
            f"no heartbeat for {signals.silent_seconds:.0f} s; stopped, disconnected, or busy in a C call",
        )
    if signals.no_progress_seconds is not None and signals.no_progress_seconds > timeouts.no_progress_seconds:
        return Liveness("stalled", f"no step for {signals.no_progress_seconds:.0f} s while heartbeats arrive")
    return Liveness("running", signals.busy)


def describe_exit(exit_code: int) -> str:
    """An exit code as text; signal numbers from signal(7)."""
    if exit_code >= 0:
        return f"exit {exit_code}"
    name = {
        1: "SIGHUP",
        2: "SIGINT",
        6: "SIGABRT",
        7: "SIGBUS",
        8: "SIGFPE",
        9: "SIGKILL",
        11: "SIGSEGV",
        15: "SIGTERM",
    }
    hint = " (out of memory, or killed by hand)" if exit_code == -9 else ""
    return f"{name.get(-exit_code, f'signal {-exit_code}')}{hint}"


def after_exit(
    exits_seconds: Sequence[float], now_seconds: float, *, flap_count: int = 5, flap_seconds: float = 60.0,
    first_wait_seconds: float = 0.5, longest_wait_seconds: float = 30.0,
) -> Restart | Parked:  # fmt: skip
    """Whether to restart after these exits (times on the clock of `now_seconds`): five within 60 s park it, otherwise the wait doubles."""
    recent = [moment for moment in exits_seconds if now_seconds - moment <= flap_seconds]
    if len(recent) >= flap_count:
        return Parked(f"ended {len(recent)} times within {flap_seconds:.0f} s; not started again")
    return Restart(backoff_seconds(max(len(recent) - 1, 0), first=first_wait_seconds, longest=longest_wait_seconds))


def backoff_seconds(attempt: int, *, first: float, longest: float, chance: float = 1.0) -> float:
    """Wait before attempt n (0..): doubles up to `longest`. `chance` in 0..1 is jitter: it shortens the wait by up to half."""
    return float(min(first * 2.0 ** min(attempt, 32), longest) * (0.5 + 0.5 * chance))


def stop_step(asked_seconds_ago: float, *, ask_seconds: float = 30.0, terminate_seconds: float = 30.0) -> StopStep:
    """What to do about a process that should stop: ask it to save and stop, then SIGTERM, then SIGKILL of its process group."""
    if asked_seconds_ago < ask_seconds:
        return "ask"
    return "terminate" if asked_seconds_ago < ask_seconds + terminate_seconds else "kill"
