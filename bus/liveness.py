"""Tells three faults apart, exit, link and progress, and says when to restart, wait or park. Pure: clocks come in as arguments.

The three signals are independent on purpose (reference/coordination.md 1.3): SIGKILL shows in the exit, SIGSTOP and a C call that
holds the GIL show in the link's silence, a stuck main thread shows in nothing but the progress mark.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

State = Literal["starting", "running", "stalled", "unreachable", "dead"]
StopStep = Literal["ask", "terminate", "kill"]


@dataclass(frozen=True)
class Signals:
    """What is known of one process at one moment."""

    exit_code: int | None
    """As `subprocess` gives it: None while it runs, negative for a signal."""
    age_seconds: float
    """Since it was started."""
    silent_seconds: float | None
    """Since the link last heard of it; None if never."""
    still_seconds: float | None
    """Since its progress mark last moved; None while no progress is due (it holds no task)."""
    busy: str = ""
    """What it says it is doing, for the why-text."""


@dataclass(frozen=True)
class Patience:
    """How long each signal may be missing. Lease time must be ten heartbeats or more: beside four trainers a beat slips 0.9 s."""

    start_seconds: float = 120.0
    """For the first word; importing trl alone takes 6 s of CPU, and four workers share it."""
    silent_seconds: float = 10.0
    still_seconds: float = 60.0


@dataclass(frozen=True)
class Verdict:
    """The state shown, and why in words."""

    state: State
    why: str


@dataclass(frozen=True)
class Restart:
    """Start it again after this wait."""

    wait_seconds: float


@dataclass(frozen=True)
class Parked:
    """Do not start it again; a person or an agent must look."""

    why: str


def judge(signals: Signals, patience: Patience = Patience()) -> Verdict:
    """The state of a process. An exit outranks silence, silence outranks stillness: a dead one is silent and still as well."""
    if signals.exit_code is not None:
        return Verdict("dead", exit_words(signals.exit_code))
    if signals.silent_seconds is None:
        late = signals.age_seconds > patience.start_seconds
        return Verdict(
            "unreachable" if late else "starting", f"no word for {signals.age_seconds:.0f} s since its start"
        )
    if signals.silent_seconds > patience.silent_seconds:
        return Verdict(
            "unreachable", f"no heartbeat for {signals.silent_seconds:.0f} s; stopped, cut off, or held in a C call"
        )
    if signals.still_seconds is not None and signals.still_seconds > patience.still_seconds:
        return Verdict("stalled", f"no step for {signals.still_seconds:.0f} s while its heart beats")
    return Verdict("running", signals.busy)


def exit_words(exit_code: int) -> str:
    """What an exit code means to a reader; numbers from signal(7)."""
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
    """Whether to restart after these exits (times on the clock of `now_seconds`): 5 within 60 s park it, else the wait doubles."""
    recent = [moment for moment in exits_seconds if now_seconds - moment <= flap_seconds]
    if len(recent) >= flap_count:
        return Parked(f"ended {len(recent)} times within {flap_seconds:.0f} s; not started again")
    return Restart(backoff_seconds(max(len(recent) - 1, 0), first=first_wait_seconds, longest=longest_wait_seconds))


def backoff_seconds(attempt: int, *, first: float, longest: float, chance: float = 1.0) -> float:
    """Wait before attempt n (0..): doubles up to `longest`; `chance` in 0..1 takes off up to half of it, so that peers do not return in step."""
    return float(min(first * 2.0 ** min(attempt, 32), longest) * (0.5 + 0.5 * chance))


def stop_step(asked_seconds_ago: float, *, ask_seconds: float = 30.0, terminate_seconds: float = 30.0) -> StopStep:
    """The rung of the stop ladder: ask to checkpoint and stop, then SIGTERM, then SIGKILL of the process group."""
    if asked_seconds_ago < ask_seconds:
        return "ask"
    return "terminate" if asked_seconds_ago < ask_seconds + terminate_seconds else "kill"
