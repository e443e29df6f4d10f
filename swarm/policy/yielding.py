"""Devices that a run leaves to others for a while: what each worker keeps of them; pure.

GPUs are given from the last to the first, as the layout has them (the largest is the first); cores by letting trainers have fewer
threads, again the last ones first.  What trains on them saves at its next boundary and goes on elsewhere, or when they come back.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from swarm.events import Yield
from swarm.state import Refusal, State

CPU = "cpu"


class Post(Protocol):
    """What is to be known of a worker's place."""

    @property
    def name(self) -> str: ...
    @property
    def roles(self) -> Sequence[str]: ...
    @property
    def device(self) -> str: ...
    @property
    def threads(self) -> int: ...


def kept(state: State, posts: Sequence[Post], now: float, cores: int) -> Mapping[str, int]:
    """Threads that each worker may use now, by name; 0: it has no process.  `cores`: those of the machine."""
    left = {post.name: post.threads for post in posts}
    gpus = _gpus(posts)
    given = set(gpus[len(gpus) - min(_yielded(state, "gpus", now), len(gpus)) :])
    left |= {post.name: 0 for post in posts if post.device in given}
    if (yielded := _yielded(state, "cores", now)) and any(map(_trains_on_cpu, posts)):
        room = rest = max(0, cores - yielded)
        for post in posts:
            if _trains_on_cpu(post):
                left[post.name] = min(post.threads, rest)
                rest -= left[post.name]
            elif post.device == CPU:  # it works before and after the trainers, hardly beside them
                left[post.name] = min(post.threads, room)
    return left


def admit_yield(event: Yield, posts: Sequence[Post], cores: int) -> None:
    """Raises Refusal for more devices than the run has."""
    there = len(_gpus(posts)) if event.what == "gpus" else cores if any(map(_trains_on_cpu, posts)) else 0
    if event.count > there:
        other = "cores" if event.what == "gpus" else "gpus"
        fix = f"yield at most {there}" if there else f"`swarm yield --{other} N`"
        raise Refusal(f"run: it trains on {there or 'no'} {event.what}, and {event.count} are asked for; {fix}")


def _yielded(state: State, what: str, now: float) -> int:
    found = state.yielded.get(what)
    return found.count if found and (found.until is None or now < found.until) else 0


def _gpus(posts: Sequence[Post]) -> list[str]:
    return list(dict.fromkeys(post.device for post in posts if post.device != CPU))


def _trains_on_cpu(post: Post) -> bool:
    return post.device == CPU and "train" in post.roles
