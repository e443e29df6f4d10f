"""Which tasks one process may do together: trainings, or those of judges, whose frozen bases are the same in memory; pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, NamedTuple

from swarm import kinds
from swarm.event import JUDGING, Role
from swarm.settings import Part, StreamSettings

Engine = Literal["shared", "trl", "pair"]
"""shared: several streams on one base; trl: one stream by TRL; pair: one stream of two models, trained as PEFT holds them."""

ENGINES: tuple[Engine, ...] = ("shared", "trl", "pair")
"""In the order in which they are preferred."""


class BaseKey(NamedTuple):
    """What decides how a base is loaded."""

    base_model: str
    trust_remote_code: bool
    quantisation: str | None
    dtype: str
    """The type it computes in: `auto` (bfloat16 where the GPU has it), `bfloat16`, `float16` or `float32`."""
    attention: str
    dequantise: str


class BatchKey(NamedTuple):
    """What streams must have in common to be trained together."""

    bases: tuple[BaseKey, ...]
    """One for each part of the stream."""
    engine: Engine
    exact: bool


def batch_key(settings: StreamSettings) -> BatchKey:
    return BatchKey(tuple(map(_base_key, settings.parts.values())), engine_of(settings), settings.exact)


class SharedKey(NamedTuple):
    """What tasks must have in common for one worker to do them together."""

    role: Role
    bases: BatchKey | tuple[BaseKey, ...]
    """Judges take any engine's adapters."""
    method: str | None = None
    """By which they are judged: models of labels have another head than those of words."""


def shared_key(role: Role, settings: StreamSettings) -> SharedKey | None:
    """None: such a task is done by itself."""
    key = batch_key(settings)
    if role == "train":
        return SharedKey(role, key) if key.engine == "shared" else None
    return SharedKey(role, key.bases, settings.method) if role in JUDGING and len(key.bases) == 1 else None


def groups(streams: Mapping[str, StreamSettings]) -> list[tuple[str, ...]]:
    """The names of those that the shared engine may train together, by their key; one may be without company."""
    found: dict[BatchKey, list[str]] = {}
    for name, settings in streams.items():
        if (key := batch_key(settings)).engine == "shared":
            found.setdefault(key, []).append(name)
    return [tuple(names) for names in found.values()]


def engine_of(settings: StreamSettings) -> Engine:
    """The engine that is to train a stream, as far as its settings can tell: `shared` may turn out not to work on the base."""
    if settings.engine != "auto":
        return settings.engine
    able = engines_of(settings)
    return next((engine for engine in ENGINES if engine in able), "trl")


def engines_of(settings: StreamSettings) -> frozenset[str]:
    """Those that can run its method with its adapters, its controllers and its stops, as they are set."""
    stops = [able for stop in kinds.stops_armed(settings) if (able := stop.engines_with(settings)) is not None]
    parts = map(engines_of_part, settings.parts.values())
    able = kinds.method(settings.method).engines_with(settings).intersection(*parts, *stops)
    if shapes_batches(settings):
        able &= {"shared"}
    return able & {"trl"} if settings.use_liger_kernel or settings.use_kernels else able


def engines_of_part(part: Part) -> frozenset[str]:
    """Those that can train a model with its adapter and its controller, as they are set."""
    able = _engines_of_adapter(part) & kinds.controller(part.controller).engines_with(part)
    return able & {"shared"} if part.fp16 else able


def _engines_of_adapter(part: Part) -> frozenset[str]:
    kind = kinds.adapter(part.adapter)
    able = kind.engines_with(part)
    return able | {"pair"} if kind.in_pair(part) else able


def shapes_batches(settings: StreamSettings) -> bool:
    """Whether it has micro-batches of another kind than so many rows in random order: the shared engine's alone."""
    return settings.packing != "none" or settings.group_by_length or settings.batch_size_tokens is not None


def _dtype(part: Part) -> str:
    if part.fp16:
        return "float16"
    return "auto" if part.bf16 == "auto" else "bfloat16" if part.bf16 else "float32"


def _base_key(part: Part) -> BaseKey:
    return BaseKey(
        base_model=part.base_model,
        trust_remote_code=part.trust_remote_code,
        quantisation=kinds.adapter(part.adapter).held(part),
        dtype=_dtype(part),
        attention=part.attn_implementation,
        dequantise=part.dequantise if kinds.adapter(part.adapter).quantisation else "",
    )
