"""Settings that no engine can train together, each named where it is written."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TypeVar, get_args

from swarm import kinds
from swarm.config.tree import Node, Problems
from swarm.policy.batching import Engine, engine_of, engines_of, engines_of_part
from swarm.settings import Part, StreamSettings

CHOOSING = frozenset({"method", "adapter", "optimizer", "controller", "engine"})
"""Keys whose values decide which others there are."""
P = TypeVar("P", bound=Part)


def check(stream: Node, settings: StreamSettings, problems: Problems) -> None:
    if len(settings.parts) > 1:
        _check_models(stream, settings, problems)
    else:
        _check_model(stream, settings, problems)


def parts_of(stream: Node, settings: StreamSettings) -> Iterator[tuple[Node, Part]]:
    """The parts of a stream, each with where its settings are written."""
    for name, part in settings.parts.items():
        node = stream
        for step in settings.part_steps(name):
            node = node.items[step]
        yield node, part


# ---- a stream of one model ----


def _check_model(stream: Node, settings: StreamSettings, problems: Problems) -> None:
    able = engines_of(settings)
    named = [settings.method, settings.adapter, settings.controller]
    chosen = " + ".join(name for name in named if name != "none")
    if engine_of(settings) not in able:
        engine, without = _what_excludes(settings)
        so = f"with {' and '.join(without)}" if without else "with these settings"
        why = ": its trainers leave out each step whose gradients overflow" if without == ["fp16"] else ""
        fix = f"write {' or '.join(sorted(able))}, or leave it out" if able else _way_out(without)
        problems.add(*stream.setting("engine"), f"{engine} cannot train {chosen} {so}{why}", fix)
    elif settings.exact and engine_of(settings) != "shared":
        what = f"it is for the shared engine, and {chosen} is trained by {engine_of(settings)}, without company"
        problems.add(*stream.setting("exact"), what, "leave it out, or write `engine: shared`")


def _what_excludes(settings: StreamSettings) -> tuple[Engine, list[str]]:
    """The engine that would have trained it, and the keys that it cannot do, each by itself; none where that lies in several together, or in kinds."""
    engine = engine_of(_plain(settings))
    return engine, _excluding(settings, lambda one: engine in engines_of(one))


def _way_out(keys: Sequence[str]) -> str:
    if keys == ["fp16"]:
        return "leave it out: `bf16: auto` takes float32 where a GPU has no bfloat16"
    if keys:
        return f"leave {' and '.join(keys)} out, or take another adapter or method"
    return "leave out what the shared engine alone has (fp16, packing and the like), or take another adapter or method"


# ---- a stream of several ----


def _check_models(stream: Node, settings: StreamSettings, problems: Problems) -> None:
    """They have an engine of their own: what that cannot do is the shared engine's, which trains one model."""
    [own] = kinds.method(settings.method).engines
    if settings.engine != "auto":
        what = f"{settings.engine} trains streams of one model, and {settings.method} has {len(settings.parts)}"
        problems.add(*stream.setting("engine"), what, "leave it out")
    fixes = {
        node.setting(key): fix for node, part in parts_of(stream, settings) for key, fix in _unfit(part, own).items()
    }
    for place, fix in fixes.items():
        problems.add(*place, "the shared engine alone has it, which trains streams of one model", fix)


def _unfit(part: Part, engine: str) -> Mapping[str, str]:
    """What this engine cannot train a model with, and what to do instead."""

    def works(one: Part) -> bool:
        return engine in engines_of_part(one)

    if works(part):
        return {}
    if keys := _excluding(part, works):
        return dict.fromkeys(keys, "leave it out")
    key = "adapter" if engine in kinds.controller(part.controller).engines_with(part) else "controller"
    return {key: _choice_of(key, part, works) or f"take another {key}"}


def _choice_of(group: str, part: Part, works: Callable[[Part], bool]) -> str | None:
    """A choice of the kind's own with which it can be trained."""
    for key, field in kinds.installed(group)[getattr(part, group)].settings.model_fields.items():
        for value in get_args(field.annotation):
            if isinstance(value, str) and works(part.model_copy(update={key: value})):
                return f"write `{key}: {value}`"
    return None


# ---- which settings it lies in ----


def _plain(part: P) -> P:
    """With the same kinds, and their defaults."""
    fields = type(part).model_fields
    written = (part.model_fields_set - CHOOSING) & fields.keys()
    return part.model_copy(update={key: fields[key].get_default(call_default_factory=True) for key in written})


def _excluding(part: P, works: Callable[[P], bool]) -> list[str]:
    """The written keys with which it does not work, each by itself; none where it does not work without any."""
    plain = _plain(part)
    if not works(plain):
        return []
    written = sorted(part.model_fields_set - CHOOSING)
    return [key for key in written if not works(plain.model_copy(update={key: getattr(part, key)}))]
