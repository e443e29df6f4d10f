"""Where an adapter comes from: data, base, settings, parents, judges and who agreed, as one document; pure.

It is written beside the weights (`lineage.json`) when they are published and promoted, and told anew from the log by
`swarm lineage`, which also says whether the files are still those.
"""

from __future__ import annotations

from typing import Any

from swarm.events import Event
from swarm.settings import StreamSettings
from swarm.standing import Promoters
from swarm.state import State, Stream

FILE = "lineage.json"


def lineage(run: str, state: State, name: str, settings: StreamSettings) -> dict[str, Any]:
    """All that the log tells of the stream's published (or just validated) adapter."""
    stream = state.streams[name]
    candidate, verdict = stream.candidate, stream.verdict
    assert candidate
    promoted = state.promoted is not None and state.promoted.ref == name
    heard = state.promoters if promoted and state.promoters else _heard(state, name)
    return {
        "run": run,
        "stream": name,
        "token": stream.adapter.tok if stream.adapter else candidate.tok,
        "sha256": stream.adapter.sha256 if stream.adapter else verdict.sha256 if verdict else candidate.sha256,
        "base_model": settings.base_model,
        "data_sha256": stream.prepared.sha256 if stream.prepared else None,
        "config_sha256": state.run.config_sha256 if state.run else None,
        "parents": _parents(stream),
        **{event.kind: _told(stream, event) for event in _handed_over(stream)},
        "rejected": list(stream.rejected),
        "approved": sorted(heard.approved),
        "objections": [{"by": by, "why": why} for by, why in heard.objections],
        "promoted": _promotion(state, stream),
        "settings": settings.model_dump(mode="json"),
    }


def _heard(state: State, name: str) -> Promoters:
    return Promoters("", state.approvers(name), state.objections(name))


def _handed_over(stream: Stream) -> list[Event]:
    return [e for e in (stream.prepared, stream.trained, stream.back, stream.verdict, stream.score) if e]


def _told(stream: Stream, event: Event) -> dict[str, Any]:
    return {"by": stream.by.get(event.kind), **event.facts()}


def _parents(stream: Stream) -> dict[str, Any]:
    """What the weights grew out of beside the base: a stream it was cloned from, and attempts it went on from."""
    candidate = stream.candidate
    assert candidate
    attempts = sorted({c.tok for c in stream.checkpoints if c.step <= candidate.step} | {candidate.tok})
    return {"stream": stream.of, "tokens": attempts, "checkpoint": candidate.path}


def _promotion(state: State, stream: Stream) -> dict[str, Any] | None:
    promoted = state.promoted
    return {"why": promoted.why, "forced": bool(promoted.force)} if promoted and promoted.ref == stream.name else None


def rows(documents: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """One flat row for each lineage: the table that `swarm lineage` prints."""
    return [
        {
            "stream": document["stream"],
            "token": document["token"],
            "sha256": document["sha256"][:12],
            "base": document["base_model"],
            "data": (document["data_sha256"] or "")[:12],
            "from": document["parents"]["stream"],
            "attempts": len(document["parents"]["tokens"]),
            "step": (document.get("back") or document.get("trained") or {}).get("step"),
            "heldout": _figure(document, "heldout"),
            "base_heldout": _figure(document, "base_heldout"),
            "exact": _figure(document, "exact"),
            "verdict": (document.get("verdict") or {}).get("result"),
            "validated_by": (document.get("verdict") or {}).get("by"),
            "approved_by": " ".join(document["approved"]) or None,
            "promoted": (document["promoted"] or {}).get("why"),
            "files": document.get("files"),
        }
        for document in documents
    ]


def _figure(document: dict[str, Any], name: str) -> float | None:
    found = (document.get("score") or {}).get(name)
    return found if found is not None else (document.get("verdict") or {}).get(name)
