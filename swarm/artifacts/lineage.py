"""The lineage of an adapter: data, base, settings, parents, validation and approvals, as one document; pure.

It is written beside the weights (`lineage.json`) when they are published and promoted; `swarm lineage` makes it again from the log
and also says whether the files are unchanged.
"""

from __future__ import annotations

from itertools import chain
from typing import Any

from swarm import figures
from swarm.event import Event
from swarm.policy.results import token_in
from swarm.settings import StreamSettings
from swarm.standing import Promoters
from swarm.state import State, Stream

FILE = "lineage.json"


def lineage(run: str, state: State, name: str, settings: StreamSettings | None) -> dict[str, Any]:
    """What the log states about the stream's published (or last validated) adapter; settings: None if they are not known."""
    stream = state.streams[name]
    candidate, verdict = stream.candidate, stream.verdict
    assert candidate
    sha256 = stream.adapter.sha256 if stream.adapter else verdict.sha256 if verdict else candidate.sha256
    opinions = _opinions(state, name, sha256)
    return {
        "run": run,
        "stream": name,
        "token": stream.adapter.tok if stream.adapter else candidate.tok,
        "sha256": sha256,
        "base_model": settings.base_model if settings else None,
        "data_sha256": stream.prepared.sha256 if stream.prepared else None,
        "config_sha256": state.run.config_sha256 if state.run else None,
        "parents": _parents(stream),
        **{event.kind: _stated(stream, event) for event in _results(stream)},
        "rejected": list(stream.rejected),
        "approved": sorted(opinions.approved),
        "approvals": [{"by": by, "why": why} for by, why in opinions.reasons],
        "objections": [{"by": by, "why": why} for by, why in opinions.objections],
        "promoted": _promotion(state, name),
        "settings": settings.model_dump(mode="json") if settings else None,
    }


def _opinions(state: State, name: str, sha256: str) -> Promoters:
    """Approvals and objections at the time these weights were promoted; if they were not, the present ones."""
    if state.promoted and state.promoters and (state.promoted.ref, state.promoted.sha256) == (name, sha256):
        return state.promoters
    return Promoters("", state.approvers(name), state.objections(name), state.reasons(name))


def _results(stream: Stream) -> list[Event]:
    return [e for e in (stream.prepared, stream.trained, stream.back, stream.verdict, stream.score) if e]


def _stated(stream: Stream, event: Event) -> dict[str, Any]:
    return {"by": stream.by.get(event.kind), **event.facts()}


def _parents(stream: Stream) -> dict[str, Any]:
    """The attempts that the weights were trained in, by token, and the checkpoint."""
    candidate = stream.candidate
    assert candidate
    made = [*(c for c in stream.checkpoints if c.step <= candidate.step), candidate]
    attempts = {c.tok for c in made} | {token_in(stream.name, c.path) for c in made}
    return {"tokens": sorted(attempts), "checkpoint": candidate.path, "clone_of": _origin(stream)}


def _origin(stream: Stream) -> dict[str, Any] | None:
    """The checkpoint of another stream with which its training began."""
    added = stream.added
    if added is None or not added.warm:
        return None
    return {"stream": added.like, "step": added.step, "sha256": added.sha256}


def _promotion(state: State, name: str) -> dict[str, Any] | None:
    """The promotion of weights of this stream; their hash differs from the adapter's if a newer one was published since."""
    promoted = state.promoted
    if promoted is None or promoted.ref != name:
        return None
    by = state.promoters.by if state.promoters else None
    return {
        "by": by,
        "why": promoted.why,
        "forced": bool(promoted.force),
        "version": promoted.version,
        "sha256": promoted.sha256,
    }


def rows(documents: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """One flat row for each lineage: the table that `swarm lineage` prints."""
    measured = [{**(document.get("verdict") or {}), **(document.get("score") or {})} for document in documents]
    names = [name for name in dict.fromkeys(chain.from_iterable(measured)) if figures.is_compared(name)]
    return [
        _row(document, {name: found.get(name) for name in names})
        for document, found in zip(documents, measured, strict=True)
    ]


def _origin_text(origin: dict[str, Any] | None) -> str | None:
    return f"{origin['stream']} step {origin['step']}" if origin else None


def _row(document: dict[str, Any], measured: dict[str, float | None]) -> dict[str, Any]:
    promoted, verdict = document["promoted"] or {}, document.get("verdict") or {}
    return {
        "stream": document["stream"],
        "token": document["token"],
        "sha256": document["sha256"][:12],
        "base": document["base_model"],
        "data": (document["data_sha256"] or "")[:12],
        "clone_of": _origin_text(document["parents"].get("clone_of")),
        "attempts": len(document["parents"]["tokens"]),
        "step": (document.get("back") or document.get("trained") or {}).get("step"),
        **measured,
        "verdict": verdict.get("result"),
        "validated_by": verdict.get("by"),
        "approved_by": " ".join(document["approved"]) or None,
        "files": document.get("files"),
        "promoted": promoted.get("why"),
        "promoted_by": promoted.get("by"),
        "promoted_sha256": promoted.get("sha256", "")[:12],
        "promoted_files": document.get("promoted_files"),
        "config": document.get("config"),
    }
