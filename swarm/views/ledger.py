"""What was proposed in a run and what became of it: as rows, as text, and as a picture of cost against figure."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from swarm import figures
from swarm.config.dump import flow
from swarm.policy import research
from swarm.printable import one_line
from swarm.settings import Promotion, RunSettings
from swarm.state import State

WIDTH, HEIGHT, MARGIN = 640, 400, 50
COLOURS = {"keep": "#2a9d3f", "discard": "#999999", "replica": "#4a7fd1", "start": "#000000"}
Row = dict[str, Any]


def rows(state: State, settings: RunSettings) -> list[Row]:
    """The start and the proposals, in their order."""
    start = settings.research.start if settings.research else ""
    found = [{"name": start, "by": "", "phase": "", "state": "start", "like": "", "changes": "", "because": "", "refute": "", **_figures(state, settings, start), "verdict": ""}] if start in state.streams else []  # fmt: skip
    for name, one in state.proposals.items():
        event, end = one.event, one.conclusion
        found.append({
            "name": name, "by": one.by, "phase": event.phase or "", "state": end.result if end else _standing(state, name),
            "like": event.like, "changes": one_line(event.changes), "because": one_line(event.why), "refute": one_line(event.refute or ""),
            **_figures(state, settings, name), "verdict": one_line(end.why) if end else "",
        })  # fmt: skip
    return found


def space(settings: RunSettings, phase: str | None) -> dict[str, Any]:
    """What a proposal may change in that phase."""
    if settings.research is None or phase is None:
        return {}
    return settings.research.phases[phase].model_dump(mode="json", exclude_defaults=True)["space"]  # type: ignore[no-any-return]


def _allowed(values: Any) -> str:
    return f"{values['low']:g} to {values['high']:g}" if isinstance(values, dict) else one_line(flow(values))


def _standing(state: State, name: str) -> str:
    objectors = ", ".join(by for by, _ in state.objections_to(name))
    words = ["trains" if name in state.streams else "" if objectors else "waits", f"objected by {objectors}" if objectors else ""]  # fmt: skip
    return ", ".join(filter(None, words))


def _figures(state: State, settings: RunSettings, name: str) -> Row:
    metric = settings.promotion.metric
    stream = state.streams.get(name)
    value = stream.figures.get(metric) if stream and stream.score else None
    steps = stream.trained.step if stream and stream.trained else None
    seconds = stream.trained.figures.get("seconds") if stream and stream.trained else None
    return {metric: value, "steps": steps, "seconds": seconds}


def text(state: State, settings: RunSettings, found: Sequence[Row]) -> str:
    """For people; the order is that of the log."""
    if settings.research is None:
        return "this run takes no proposals; `swarm research GOAL.md` starts one that does"
    phase = research.phase_of(state, settings.research)
    lines = [f"phase: {phase or 'all are done'}; best so far: {research.best_of(state, settings.research)}"]
    lines += [f"it may change {key}: {_allowed(values)}" for key, values in space(settings, phase).items()]
    for row in found:
        value = row[settings.promotion.metric]
        measured = f"{settings.promotion.metric} {figures.of(settings.promotion.metric).text(value)}" if value is not None else ""  # fmt: skip
        lines += ["", " ".join(filter(None, [f"{row['name']} [{row['state']}]", row["phase"], measured]))]
        lines += [f"  like {row['like']} with {row['changes']}" if row["like"] else "  the stream to beat"]
        lines += [f"  {row['by']}: {row['because']}"] if row["by"] else []
        lines += [f"  refuted by: {row['refute']}"] if row["refute"] else []
        lines += [f"  {row['verdict']}"] if row["verdict"] else []
    return "\n".join(lines)


def frontier(found: Sequence[Row], promotion: Promotion) -> list[Row]:
    """The rows of which none other costs less and has a better figure, by their seconds."""
    sign = -1 if promotion.direction == "max" else 1
    best, kept = math.inf, []
    for row in sorted(_measured(found, promotion), key=lambda row: (row["seconds"], sign * row[promotion.metric])):
        if sign * row[promotion.metric] < best:
            best = sign * row[promotion.metric]
            kept.append(row)
    return kept


def picture(found: Sequence[Row], promotion: Promotion) -> str:
    """As SVG: a dot for each trial, a line along the frontier."""
    measured = _measured(found, promotion)
    across = _scale([row["seconds"] for row in measured], MARGIN, WIDTH - MARGIN)
    down = _scale([row[promotion.metric] for row in measured], HEIGHT - MARGIN, MARGIN)
    spots = {row["name"]: (across(row["seconds"]), down(row[promotion.metric])) for row in measured}
    line = " ".join("{:.1f},{:.1f}".format(*spots[row["name"]]) for row in frontier(found, promotion))
    return "\n".join([
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{HEIGHT}" font-family="sans-serif" font-size="12">',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>',
        f'<text x="{WIDTH / 2}" y="{HEIGHT - 12}" text-anchor="middle">seconds of training</text>',
        f'<text x="12" y="20">{promotion.metric}</text>',
        f'<polyline points="{line}" fill="none" stroke="#e07a1f"/>',
        *(_dot(row, *spots[row["name"]]) for row in measured),
        "</svg>", "",
    ])  # fmt: skip


def _dot(row: Mapping[str, Any], x: float, y: float) -> str:
    colour = COLOURS.get(row["state"], "#999999")
    return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4" fill="{colour}"/><text x="{x + 6:.1f}" y="{y - 6:.1f}">{row["name"]}</text>'


def _measured(found: Sequence[Row], promotion: Promotion) -> list[Row]:
    return [row for row in found if row["seconds"] is not None and row[promotion.metric] is not None]


def _scale(values: Sequence[float], first: float, last: float) -> Any:
    low, high = min(values, default=0.0), max(values, default=1.0)
    return lambda value: first + (last - first) * ((value - low) / (high - low) if high > low else 0.5)
