"""Writes `kept.yaml` into the run folder: the configuration that research has kept, with its lineage, as a config that runs."""

from __future__ import annotations

from collections.abc import Iterator

from swarm.config.dump import flow
from swarm.files import write_whole
from swarm.printable import one_line
from swarm.rundir import RunFolder
from swarm.settings import RunSettings
from swarm.state import State

FILE = "kept.yaml"


def write(folder: RunFolder, state: State, settings: RunSettings) -> None:
    write_whole(folder.path / FILE, text(folder.name, state, settings))


def text(run: str, state: State, settings: RunSettings) -> str:
    """Raises KeyError where nothing was kept."""
    name = state.kept
    stream = settings.streams[name].model_dump(mode="json", exclude_defaults=True)
    lines = [f"    {key}: {flow(value)}" for key, value in stream.items() if key not in {"search", "replica_of"}]
    promotion = flow(settings.promotion.model_dump(mode="json", exclude_defaults=True))
    head = [f"# Kept by the research of {run}; the newest first:", *_lineage(state)]
    return "\n".join([*head, f"name: {settings.name}", f"promotion: {promotion}", "streams:", f"  {name}:", *lines, ""])


def _lineage(state: State) -> Iterator[str]:
    name = state.kept
    while one := state.proposals.get(name):
        event, end = one.event, one.conclusion
        why = f"{event.why}; {end.why if end else ''}"
        words = f"{name} (entry {one.seq}, {one.by}): like {event.like} with {event.changes}: {why}"
        yield f"# {one_line(words)}"  # agents wrote it: it must stay one comment
        name = event.like
    yield f"# {name}: the start"
