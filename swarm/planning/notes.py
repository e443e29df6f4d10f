"""Remarks on a plan that is correct: weights that get no adapter, and streams that cannot be compared; pure."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from swarm import kinds
from swarm.facts import BaseFacts
from swarm.settings import Part, RunSettings

RANK = re.compile(r" r\d+\b")
"""In the label of an adapter: sizes of one way of training are no different ways."""


def notes(run: RunSettings, bases: Mapping[str, BaseFacts]) -> list[str]:
    return [*_experts(bases), *_left_out(bases), *_attention(run, bases), *_comparisons(run), *_learning_rates(run)]


def _experts(bases: Mapping[str, BaseFacts]) -> Iterator[str]:
    for name, base in bases.items():
        if base.experts_parameters:
            share = base.experts_parameters / base.parameters
            yield f"{name}: its experts, {share:.0%} of the weights, get no adapter; the layers around them do"


def _left_out(bases: Mapping[str, BaseFacts]) -> Iterator[str]:
    for name, base in bases.items():
        odd = [module.name for module in base.modules if not module.adaptable]
        if odd:
            kinds_of_them = ", ".join(dict.fromkeys(one.rpartition(".")[2] for one in odd))
            yield f"{name}: {len(odd)} of its layers ({kinds_of_them}) cannot be wrapped by PEFT and get no adapter"


def _attention(run: RunSettings, bases: Mapping[str, BaseFacts]) -> Iterator[str]:
    automatic = {
        part.base_model
        for settings in run.streams.values()
        for part in settings.parts.values()
        if part.attn_implementation == "auto"
    }
    for name, base in bases.items():
        if name in automatic and base.attention == "eager":
            yield f"{name}: attention is computed eagerly (attn_implementation: eager): torch's fused kernels do not support its family"


def _comparisons(run: RunSettings) -> Iterator[str]:
    """Streams are ranked by figures on the same held-out rows, each compared with its own base as it is loaded."""
    together: dict[tuple[object, ...], list[str]] = {}
    for name, settings in run.streams.items():
        together.setdefault(tuple(map(_judged_by, settings.parts.values())), []).append(name)
    if len(together) > 1:
        groups = "; ".join(", ".join(names) for names in together.values())
        yield f"not all streams are judged on the same rows, tokens and base: compare figures within a group ({groups})"
    held = {kinds.adapter(part.adapter).quantisation for s in run.streams.values() for part in s.parts.values()}
    if len(held) > 1:
        yield "qlora streams are compared with the base in 4 bits, the others with the base in full precision"


def _judged_by(part: Part) -> tuple[object, ...]:
    """Figures of streams that differ in this cannot be compared."""
    rows = part.test_datasets or part.datasets
    share = None if part.test_datasets else part.val_set_size
    return part.base_model, *map(str, rows), share, part.sequence_len, part.train_on_inputs, part.train_on


def _learning_rates(run: RunSettings) -> Iterator[str]:
    """Each way of training has its own best learning rate: a comparison at one rate is one of rates too."""
    rates: dict[str, set[float]] = {}
    for settings in run.streams.values():
        adapter = RANK.sub("", kinds.adapter(settings.adapter).label(settings))
        way = f"{settings.method} {adapter} {settings.optimizer}"
        rates.setdefault(way, set()).add(settings.learning_rate)
    unswept = [way for way, tried in rates.items() if len(tried) == 1]
    if len(rates) > 1 and unswept:
        yield (
            f"warning: different ways of training are compared, each at one learning rate ({', '.join(unswept)}); "
            "`sweep_lr: [1e-4, 2e-4, 5e-4]` adds a stream for each"
        )
