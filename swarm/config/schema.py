"""The JSON Schema (2020-12) of a config, with the settings of all installed kinds: for editors and other programs.

It knows keys, types, ranges and choices.  What one key means for another, and whether files and bases are there, `swarm check` says.
"""

from __future__ import annotations

from typing import Any

from swarm import kinds
from swarm.config.layers import GROUPED
from swarm.settings import RunSettings, StreamSettings

DIALECT = "https://json-schema.org/draft/2020-12/schema"
STREAM = {"$ref": "#/$defs/StreamSettings"}
OWN = "#/$defs/StreamSettings/properties/"


def schema() -> dict[str, Any]:
    run = RunSettings.model_json_schema()
    stream = _stream()
    definitions = {**run.pop("$defs"), **stream.pop("$defs", {}), "StreamSettings": stream, "Model": _model(stream)}
    named = {"pattern": run["properties"]["name"]["pattern"]}
    streams = {"description": "The fine-tunes by name.", "type": "object", "minProperties": 1, "propertyNames": named}
    properties = {
        **run.pop("properties"),
        "defaults": {**STREAM, "description": "Copied into every stream; a stream's own keys win."},
        "streams": {**streams, "additionalProperties": STREAM},
    }
    return {"$schema": DIALECT, **run, "title": "A run of toonswarm", "properties": properties, "$defs": definitions}


def _stream() -> dict[str, Any]:
    """A stream as it may be written: `defaults` may hold any of its keys, so that none is required; a name alone is one too."""
    found = StreamSettings.chosen_by(dict.fromkeys(kinds.GROUPS)).model_json_schema()
    for setting in kinds.GROUPS:
        found["properties"][setting]["enum"] = list(kinds.installed(setting))
        for name, owners in _owners(setting).items():
            owned = found["properties"][name]
            owned["description"] = f"{owned.get('description', '')}  Of {', '.join(owners)}.".strip()
    found["properties"][GROUPED] = _also_grouped(found["properties"])
    return _optional(found)


def _also_grouped(properties: dict[str, Any]) -> dict[str, Any]:
    """`controller: unified` beside `controller_preset: glue`, or both as `controller: {kind: unified, preset: glue}`."""
    flat, prefix = properties[GROUPED], f"{GROUPED}_"
    short = {name.removeprefix(prefix): {"$ref": f"{OWN}{name}"} for name in properties if name.startswith(prefix)}
    group = {
        "type": "object",
        "properties": {"kind": {"enum": flat["enum"]}, **short},
        "required": ["kind"],
        "additionalProperties": False,
    }
    about = {key: flat[key] for key in ("description", "default") if key in flat}
    return {**about, "anyOf": [{key: value for key, value in flat.items() if key not in about}, group]}


def _model(stream: dict[str, Any]) -> dict[str, Any]:
    """One of a stream's models: all that a stream has, and its method under another name."""
    return {**stream, "properties": {**stream["properties"], "objective": stream["properties"]["method"]}}


def _optional(found: dict[str, Any]) -> dict[str, Any]:
    return {**{key: value for key, value in found.items() if key != "required"}, "type": ["object", "null"]}


def _owners(setting: str) -> dict[str, list[str]]:
    """The kinds that have a setting of their own, by its name."""
    owners: dict[str, list[str]] = {}
    for kind in kinds.installed(setting).values():
        for name in kind.settings.model_fields:
            owners.setdefault(name, []).append(f"`{setting}: {kind.name}`")
    return owners
