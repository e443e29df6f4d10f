"""What a person should know of a plan that is no mistake: what no adapter reaches, and which streams cannot be compared; pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from swarm import kinds
from swarm.facts import BaseFacts
from swarm.settings import Part, RunSettings


def notes(run: RunSettings, bases: Mapping[str, BaseFacts]) -> list[str]:
    return [*_experts(bases), *_comparisons(run)]


def _experts(bases: Mapping[str, BaseFacts]) -> Iterator[str]:
    for name, base in bases.items():
        if base.experts_parameters:
            share = base.experts_parameters / base.parameters
            yield f"{name}: its experts, {share:.0%} of the weights, get no adapter; the layers around them do"


def _comparisons(run: RunSettings) -> Iterator[str]:
    """Streams are ranked by figures on the same held-out rows, each against its own base as that is held in memory."""
    together: dict[tuple[object, ...], list[str]] = {}
    for name, settings in run.streams.items():
        together.setdefault(tuple(map(_judged_by, settings.parts.values())), []).append(name)
    if len(together) > 1:
        groups = "; ".join(", ".join(names) for names in together.values())
        yield f"not all streams are judged on the same rows, tokens and base: compare figures within a group ({groups})"
    held = {kinds.adapter(part.adapter).quantisation for s in run.streams.values() for part in s.parts.values()}
    if len(held) > 1:
        yield "a base in 4 bits is measured too: qlora streams are compared with that, the others with the whole base"


def _judged_by(part: Part) -> tuple[object, ...]:
    """Figures of streams that differ in this are of different things."""
    rows = part.test_datasets or part.datasets
    share = None if part.test_datasets else part.val_set_size
    return part.base_model, *map(str, rows), share, part.sequence_len, part.train_on_inputs, part.train_on
