"""What holders may report under their tokens, and what may become of the weights that they made; pure."""

from __future__ import annotations

import math
import re

from swarm import events as ev
from swarm.event import Role
from swarm.events import RESULT_OF
from swarm.policy.leases import admit_author, current, stream_of
from swarm.state import Refusal, State, Stream

ROLE_OF: dict[str, Role] = {"checkpoint": "train", **{kind: role for role, kind in RESULT_OF.items()}}
"""Only who holds that task may report such a result."""


Result = ev.Prepared | ev.Checkpoint | ev.Trained | ev.Verdict | ev.Score | ev.Sealed


def admit_result(state: State, author: str, event: Result, now: float) -> None:
    lease = current(state, event.ref, event.tok)
    admit_author(lease, author, event.ref, now, who=lease.worker or lease.by)
    role = state.tasks[event.ref].role
    if role != ROLE_OF[event.kind]:
        raise Refusal(f"{event.ref}: a {event.kind} belongs to `{event.stream}/{ROLE_OF[event.kind]}`")
    stream = state.streams[event.stream]
    match event:
        case ev.Checkpoint(path=path) | ev.Trained(path=path):
            if token_in(stream.name, path) > event.tok:
                raise Refusal(f"{event.ref}: {path} belongs to a newer token than {event.tok}")
        case ev.Verdict():
            _admit_verdict(stream, event)
        case ev.Score():
            _admit_score(stream, event)
        case ev.Sealed() if stream.adapter is None or event.sha256 != stream.adapter.sha256:
            raise Refusal(f"{event.ref}: other weights were examined than those that are published")
        case ev.Prepared() | ev.Sealed():
            pass  # rows may stand anywhere in the run


def token_in(stream: str, path: str) -> int:
    """The fencing token that a checkpoint's folder carries.  Raises Refusal for a path that is none of the stream's."""
    found = re.fullmatch(rf"streams/{re.escape(stream)}/t([1-9]\d{{0,17}})/[^/]+", path)
    if found is None:
        raise Refusal(f"{path}: is no checkpoint of {stream}; they stand in streams/{stream}/t<token>/")
    return int(found[1])


def _admit_verdict(stream: Stream, event: ev.Verdict) -> None:
    candidate = stream.candidate
    if candidate is None or event.path != candidate.path:
        raise Refusal(f"{event.ref}: {event.path} is not what is to be judged ({candidate and candidate.path})")
    if event.result == "FAIL":
        return
    if event.sha256 != candidate.sha256:
        raise Refusal(
            f"{event.ref}: the weights were reported as {candidate.sha256[:12]}, these are {event.sha256[:12]}"
        )
    if not _states_both_losses(event):
        raise Refusal(f"{event.ref}: {event.result} states eval_loss and base_eval_loss, both finite; else say FAIL")


def _admit_score(stream: Stream, event: ev.Score) -> None:
    if stream.verdict is None or event.sha256 != stream.verdict.sha256:
        raise Refusal(f"{event.ref}: the score is of other weights than those that were validated")
    if not _states_both_losses(event):
        raise Refusal(f"{event.ref}: a score states eval_loss and base_eval_loss, and all its figures are finite")


def _states_both_losses(event: ev.Verdict | ev.Score) -> bool:
    return {"eval_loss", "base_eval_loss"} <= event.figures.keys() and all(map(math.isfinite, event.figures.values()))


def admit_artifact(state: State, event: ev.Adapter | ev.Back | ev.Promote) -> None:
    stream = stream_of(state, event.ref)
    match event:
        case ev.Adapter():
            if stream.verdict is None or stream.verdict.result == "FAIL" or stream.verdict.sha256 != event.sha256:
                raise Refusal(f"{event.ref}: these weights were not validated")
            if stream.adapter and event.tok < stream.adapter.tok:
                raise Refusal(f"{event.ref}: token {event.tok} is older than {stream.adapter.tok} of what is published")
        case ev.Back():
            if event.path not in {c.path for c in stream.earlier()}:
                raise Refusal(f"{event.ref}: {event.path} is no earlier checkpoint that may still be judged")
        case ev.Promote():
            if stream.adapter is None:
                raise Refusal(f"{event.ref}: has no validated adapter to promote")
            if event.sha256 != stream.adapter.sha256 or (event.tok or stream.adapter.tok) != stream.adapter.tok:
                published = f"token {stream.adapter.tok}, sha256 {stream.adapter.sha256[:12]}"
                raise Refusal(f"{event.ref}: is published under {published}; look at that before you promote it")
