"""What cannot be in `search`, `halving`, `pruner` and `research`: spaces from which nothing can be drawn, rungs that are not measured."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

from pydantic import ValidationError, create_model
from pydantic.fields import FieldInfo

from swarm.config.dump import flow
from swarm.config.tree import Node, Problems
from swarm.event import ROLES
from swarm.keys import Settings
from swarm.policy.research import TASKS
from swarm.settings import Range, RunSettings, StreamSettings
from swarm.settings.search import Space

FIXED = {
    "base_model": "all streams of a running run train on the bases that it began with",
    "trust_remote_code": "no code is brought into a running run",
    "judge": "answers and a key of the environment go to the judge that the run began with",
    "seeds": "one stream joins at a time",
    "sweep_lr": "one stream joins at a time",
}
"""Settings in which a stream that joins may not differ from the one that it is like, and why."""
UNSEARCHED = {**FIXED, "search": "one stream joins at a time"}
"""Settings that no stream which joins can have from a space, and why."""


def check(root: Node, stream: Node, settings: StreamSettings, run: RunSettings, problems: Problems) -> None:
    _check_search(stream, settings, problems)
    _check_halving(root, stream, settings, run, problems)
    _check_pruner(root, stream, settings, run, problems)


def check_research(root: Node, run: RunSettings, problems: Problems) -> None:
    """Every proposal joins like the start, in a phase that is a task which an agent may claim."""
    research = run.research
    if research is None:
        return
    node = root.items["research"]
    if research.start not in run.streams:
        what, fix = f"there is no stream {research.start}", f"write one of {', '.join(run.streams)}"
        problems.add(*node.setting("start"), what, fix)
        return
    if TASKS in run.streams:
        what = f"`{TASKS}/` is where the phases stand as tasks"
        problems.add(*root.items["streams"].setting(TASKS), what, "give the stream another name")
    for phase, part in research.phases.items():
        if phase in ROLES:
            what = f"phase {phase} bears the name of a role, whose tasks workers do"
            problems.add(*node.setting("phases"), what, "give it another name")
        for key, what, fix in _unusable(part.space, run.streams[research.start]):
            problems.add(*node.setting("phases"), f"phase {phase} changes {key}, which {what}", fix)


def _check_search(stream: Node, settings: StreamSettings, problems: Problems) -> None:
    """One that could be drawn from has become trials before."""
    if settings.search is None:
        return
    space = stream.items["search"].items["space"]
    if wrong := settings.search.unusable():
        key, what, fix = wrong
        problems.add(*space.setting(key), what, fix)
    elif settings.search.learns:
        for key, what, fix in _unusable(settings.search.space, settings):
            problems.add(*space.setting(key), what, fix)


def _unusable(space: Space, like: StreamSettings) -> Iterator[tuple[str, str, str]]:
    """Of streams that join: the setting, why it, or a value of it, can be in none of them, and the fix."""
    for key, values in space.items():
        field = type(like).model_fields.get(key)
        if field is None:
            yield key, "is no setting of the stream", "see docs/settings.md"
        elif key in UNSEARCHED:
            yield key, f"cannot be changed: {UNSEARCHED[key]}", "leave it out, or start another run with `swarm run`"
        elif isinstance(values, Range) and values.low > values.high:
            yield key, f"has no number from {values.low:g} to {values.high:g}", "exchange them"
        elif wrong := _refused(key, field, [values.low, values.high] if isinstance(values, Range) else values):
            yield key, f"cannot be {wrong[0]}", "correct it; see docs/settings.md"


def _refused(key: str, field: FieldInfo, values: list[Any]) -> list[str]:
    """The values that the setting does not take."""
    fields: Any = {key: (field.annotation, field)}
    one = create_model("One", __base__=Settings, **fields)
    return [flow(value) for value in values if not _fits(one, key, value)]


def _fits(model: type[Settings], key: str, value: Any) -> bool:
    try:
        model.model_validate({key: value}, strict=True)
    except ValidationError:
        return False
    return True


def _check_halving(root: Node, stream: Node, settings: StreamSettings, run: RunSettings, problems: Problems) -> None:
    """Each rung is a checkpoint whose held-out loss is measured, and the first comes before the end."""
    if run.halving is None:
        return
    first = run.halving.first_step
    if settings.eval_steps is None:
        what = "halving goes by the held-out loss on the way, which is not measured"
        problems.add(*stream.setting("eval_steps"), what, f"write `eval_steps: {first}`, or a divisor of it")
    for key, every in (("eval_steps", settings.eval_steps), ("save_steps", settings.save_steps)):
        if every and first % every:
            what = f"step {first}, the first rung of halving, is none of every {every}"
            problems.add(*stream.setting(key), what, f"write {first}, or a divisor of it")
    if settings.max_steps is not None and settings.max_steps <= first:
        what = f"step {first} is not before the end: `max_steps` is {settings.max_steps}"
        problems.add(*root.items["halving"].setting("first_step"), what, f"write less than {settings.max_steps}")


def _check_pruner(root: Node, stream: Node, settings: StreamSettings, run: RunSettings, problems: Problems) -> None:
    """It goes by checkpoints whose held-out loss is measured, and the first comes before the end."""
    if run.pruner is None:
        return
    if run.halving:
        problems.add(*root.setting("pruner"), "halving ends streams early too", "leave one of them out")
    if wrong := run.pruner.unusable():
        key, what, fix = wrong
        problems.add(*root.items["pruner"].setting(key), what, fix)
    if settings.eval_steps is None:
        what = "a pruner goes by the held-out loss on the way, which is not measured"
        problems.add(*stream.setting("eval_steps"), what, "write `eval_steps:`, and the same for `save_steps`")
        return
    first, last = math.lcm(settings.eval_steps, settings.save_steps), settings.max_steps
    if last is not None and last <= first:
        what = f"a pruner is asked at step {first} first, which is not before the end: `max_steps` is {last}"
        problems.add(*stream.setting("eval_steps"), what, "write the same for `eval_steps` and `save_steps`, and less")
