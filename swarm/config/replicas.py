"""`search`, `sweep_lr` and `seeds`: replaces one stream of a config by several with other settings, learning rates or seeds."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from swarm.config.tree import Node, Problems
from swarm.config.trials import trials_of
from swarm.settings import MOST_RATES, MOST_SEEDS


def expanded(root: Node, problems: Problems) -> Node:
    """The tree with such streams replaced.  Values of a wrong type or size are left for the checks."""
    streams = root.items.get("streams")
    if streams is None or not streams.items:
        return root
    made: dict[str, Node] = {}
    for name, stream in streams.items.items():
        for trial, drawn in trials_of(name, stream):
            for swept, one in _swept(trial, drawn):
                for replica, node in _seeded(swept, one):
                    _add(made, replica, node, problems)
    return root.with_child("streams", replace(streams, value=made))


def _add(made: dict[str, Node], name: str, stream: Node, problems: Problems) -> None:
    if name in made:
        problems.add(
            stream.key_at or stream.at, stream.path, f"there are two streams {name}", "name one of them otherwise"
        )
    made[name] = stream


def _swept(name: str, stream: Node) -> Iterator[tuple[str, Node]]:
    rates = stream.items.get("sweep_lr")
    values = rates.value if rates and isinstance(rates.value, list) else []
    if not 0 < len(values) <= MOST_RATES or not all(_is_rate(rate.value) for rate in values):
        yield name, stream
        return
    for rate in values:
        yield f"{name}.lr{rate.value:g}", _with(stream, "sweep_lr", learning_rate=rate)


def _seeded(name: str, stream: Node) -> Iterator[tuple[str, Node]]:
    count, first = stream.items.get("seeds"), stream.items.get("seed")
    start = first.value if first else 0
    if count is None or type(count.value) is not int or type(start) is not int or not 1 < count.value <= MOST_SEEDS:
        yield name, stream
        return
    for number in range(count.value):
        seed, whose = replace(count, value=start + number), replace(count, value=name)
        yield f"{name}.s{number + 1}", _with(stream, "seeds", seed=seed, replica_of=whose)


def _with(stream: Node, without: str, **values: Node) -> Node:
    return replace(stream, value={**{key: node for key, node in stream.items.items() if key != without}, **values})


def _is_rate(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and value > 0
