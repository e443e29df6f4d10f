"""`models:` of a stream: each has the settings of a stream, with the stream's own as defaults; `objective:` is what its `method:` is.

The rest of the program knows a stream by one base and its rows: those are the decoder's, unless the stream has its own.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from swarm import kinds
from swarm.config.tree import Node, Problems
from swarm.settings import StreamSettings

MODELS, LAST, ROLE = "models", "decoder", "duo_role"
OF_STREAM = frozenset({
    MODELS, "method", "engine", "seeds", "sweep_lr", "search", "replica_of", "max_steps", "num_epochs", "report_to",
})  # fmt: skip
"""What a model does not take from its stream."""
OF_DECODER = ("base_model", "datasets", "test_datasets", "val_datasets")
"""What a stream takes from its decoder, where it has none."""


def spread(root: Node, problems: Problems) -> Node:
    """The tree with every model's settings written out."""
    streams = root.items.get("streams")
    if streams is None or not streams.items:
        return root
    return root.with_child(
        "streams", replace(streams, value={name: _stream(one, problems) for name, one in streams.items.items()})
    )


def _stream(stream: Node, problems: Problems) -> Node:
    models = stream.items.get(MODELS)
    if models is None or not models.items:
        return stream
    made = {name: _model(name, model, stream.items, problems) for name, model in models.items.items()}
    last = made.get(LAST)
    own = {key: last.items[key] for key in OF_DECODER if last and key in last.items and key not in stream.items}
    return replace(stream, value={**own, **stream.items, MODELS: replace(models, value=made)})


def _model(name: str, model: Node, stream: Mapping[str, Node], problems: Problems) -> Node:
    if not isinstance(model.value, dict):
        return model
    own = {_renamed(key): node for key, node in model.items.items()}
    choices = {**{key: stream[key] for key in kinds.GROUPS if key in stream and key not in OF_STREAM}, **own}
    known = StreamSettings.chosen_by({key: choices[key].value for key in kinds.GROUPS if key in choices}).model_fields
    if MODELS in known:
        node = own.pop("method")
        problems.add(node.at, node.path, f"a model of a stream is one model, not {node.value}", "write e.g. sft")
    taken = {key: node for key, node in stream.items() if key in known and key not in OF_STREAM}
    role = {ROLE: Node(name, model.at, f"{model.path}.{ROLE}")} if ROLE in known else {}
    typed = {key: node for key, node in taken.items() if node.at.typed and not (key in own and own[key].at.typed)}
    return replace(model, value={**taken, **role, **own, **typed})


def _renamed(key: str) -> str:
    return "method" if key == "objective" else key
