"""`search`: replaces one stream of a config by trials whose settings are drawn from a space, the same ones at every reading."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator, Mapping
from dataclasses import replace
from itertools import islice, product
from typing import Any

from pydantic import ValidationError

from swarm.config.tree import Node
from swarm.settings import TRIALS, Range, Search

DRAWS_PER_TRIAL = 100
"""After so many draws that were all there before, a space is exhausted."""
DIGITS = 3
"""Significant ones of a number that is drawn."""

Trial = Mapping[str, Any]


def trials_of(name: str, stream: Node) -> Iterator[tuple[str, Node]]:
    """The stream itself if it has no search, or one whose trials join later; one that is wrong is left for the checks."""
    node = stream.items.get("search")
    search = _read(node) if node else None
    if node is None or search is None or search.learns or search.unusable():
        yield name, stream
        return
    space = node.items["space"].items
    rest = {key: value for key, value in stream.items.items() if key != "search"}
    for number, trial in enumerate(drawn(search), start=1):
        own = {key: _placed(value, space[key], f"{stream.path}.{key}") for key, value in trial.items()}
        yield f"{name}.t{number}", replace(stream, value={**rest, **own})


def _read(node: Node) -> Search | None:
    try:
        return Search.model_validate(node.plain(), strict=True)
    except ValidationError:
        return None


def drawn(search: Search) -> list[Trial]:
    """Different ones, in the order of the draws; fewer than asked for where the space holds no more."""
    if search.sampler == "grid":
        values = [value for value in search.space.values() if isinstance(value, list)]
        return [dict(zip(search.space, chosen, strict=True)) for chosen in islice(product(*values), search.trials)]
    draw = random.Random(search.seed)
    found: dict[str, Trial] = {}
    wanted = search.trials or TRIALS
    for _ in range(DRAWS_PER_TRIAL * wanted):
        trial = {key: _one(draw, values) for key, values in search.space.items()}
        found.setdefault(repr(trial), trial)
        if len(found) == wanted:
            break
    return list(found.values())


def _one(draw: random.Random, values: list[Any] | Range) -> Any:
    if isinstance(values, list):
        return draw.choice(values)
    if values.is_whole and not values.log:
        return draw.randint(int(values.low), int(values.high))
    low, high = (math.log(end) if values.log else float(end) for end in (values.low, values.high))
    number = draw.uniform(low, high)
    rounded = float(f"{math.exp(number) if values.log else number:.{DIGITS}g}")
    return round(rounded) if values.is_whole else rounded


def _placed(value: Any, node: Node, path: str) -> Node:
    """A value as if written at the place where its values stand."""
    match value:
        case dict():
            return replace(
                node, value={key: _placed(item, node, f"{path}.{key}") for key, item in value.items()}, path=path
            )
        case list():
            return replace(node, value=[_placed(item, node, f"{path}.{n}") for n, item in enumerate(value)], path=path)
        case _:
            return replace(node, value=value, path=path)
