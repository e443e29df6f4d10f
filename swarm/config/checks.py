"""Checks keys, types, ranges and choices of a config by the classes of the settings, with messages for people.

pydantic finds the mistakes (strictly: true is not 1, and '8' is not 8); the messages are derived from the field's annotation.
"""

from __future__ import annotations

import math
import re
import types
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from annotated_types import Ge, Gt, Le, Lt, MaxLen, MinLen
from pydantic import ValidationError
from pydantic.fields import FieldInfo

from swarm import kinds
from swarm.config.names import fix_of_key, fix_of_value
from swarm.config.tree import Node, Problems, Spot, Step, follow, joined
from swarm.event import ROLES
from swarm.keys import OneOf, Reads, Settings
from swarm.printable import in_message
from swarm.settings import Part, RunSettings, StreamSettings

NAME_WORDS = "small letters, digits, `.`, `_` and `-`, beginning with a letter or digit, at most 64"


def checked(root: Node, problems: Problems) -> RunSettings | None:
    """The settings, or None with what is wrong added to `problems`."""
    known = _known(root, RunSettings, problems)
    if not known.items.get("streams", Node({}, root.at, "")).items:
        _no_streams(known, problems)
    try:
        return RunSettings.model_validate(_values(known), strict=True)
    except ValidationError as error:
        for mistake in error.errors(include_url=False, include_context=False, include_input=False):
            _add_mistake(known, mistake["loc"], str(mistake["type"]), problems)
        return None


# ---- keys ------------------------------------------------------------------------------------------------------------


def _known(node: Node, group: type[Settings], problems: Problems) -> Node:
    """The node without unknown keys, which are added to the problems."""
    if not isinstance(node.value, dict):
        return node
    group = _chosen(group, node)
    kept = {}
    for key, below in node.value.items():
        if key in group.model_fields:
            kept[key] = _known_below(below, group.model_fields[key], problems)
        else:
            problems.add(below.key_at or below.at, below.path, "unknown setting", fix_of_key(key, group))
    return replace(node, value=kept)


def _chosen(group: type[Settings], node: Node) -> type[Settings]:
    """The group with the keys of the method, adapter kind and optimizer that the node chooses."""
    if not issubclass(group, Part):
        return group
    return group.chosen_by({key: node.items[key].value for key in kinds.GROUPS if key in node.items})


def _known_below(node: Node, field: FieldInfo, problems: Problems) -> Node:
    inner = _group_in(field.annotation)
    if inner is None:
        return node
    match node.value:  # a group, a list of groups, or groups by name
        case dict() if isinstance(field.annotation, type) or get_origin(field.annotation) in {Union, types.UnionType}:
            return _known(node, inner, problems)
        case list():
            return replace(node, value=[_known(item, inner, problems) for item in node.value])
        case dict():
            return replace(node, value={name: _known(item, inner, problems) for name, item in node.value.items()})
        case _:
            return node


def _group_in(annotation: Any) -> type[Settings] | None:
    """The class of settings that a field holds: itself, in a list or by name."""
    if isinstance(annotation, type) and issubclass(annotation, Settings):
        return annotation
    return next((found for part in get_args(annotation) if (found := _group_in(part))), None)


def _no_streams(root: Node, problems: Problems) -> None:
    streams = root.items.get("streams")
    fix = "write `streams:` with one name per fine-tune below it, e.g. `narrow: {lora_r: 8}`"
    if streams is None:
        problems.add(
            root.at, "streams", "no stream", f"{fix}; a config of another tool: `swarm init NEW.yaml --from FILE`"
        )
    elif streams.value is None or streams.value in ({}, []):
        problems.add(streams.at, "streams", "no stream", fix)
    elif not isinstance(streams.value, dict):
        problems.add(streams.at, "streams", f"expected streams by name, got {in_words(streams)}", fix)


# ---- values ----------------------------------------------------------------------------------------------------------


def _values(node: Node) -> Any:
    """Plain values.  Infinity and not-a-number become text, so that pydantic refuses them for every setting."""
    match node.value:
        case dict():
            return {key: _values(item) for key, item in node.value.items()}
        case list():
            return [_values(item) for item in node.value]
        case float() if not math.isfinite(node.value):
            return str(node.value)
        case _:
            return node.value


def _add_mistake(root: Node, loc: Sequence[Step], kind: str, problems: Problems) -> None:
    """Add a mistake that pydantic found; `loc` may end in members of a union, which do not stand in the config."""
    node, gone = follow(root, loc)
    if kind == "missing":
        _add_missing(root, node, gone, str(loc[-1]), problems)
    elif loc[-1] == "[key]" and loc[0] == "roles":
        words = _listed(ROLES)
        problems.add(node.key_at or node.at, node.path, f"{in_message(str(loc[-2]))[:80]} is no role", f"take {words}")
    elif loc[-1] == "[key]":
        _add_bad_name(str(loc[-2]), node.key_at or node.at, node.path, problems)
    elif gone != ["streams"] and gone and not problems.has(node.at, node.path):
        _add_bad_value(root, node, gone, problems)


def _add_missing(root: Node, node: Node, gone: list[Step], key: str, problems: Problems) -> None:
    streams = root.items.get("streams")
    in_every_stream = (
        gone[:1] == ["streams"]
        and len(gone) == 2
        and streams
        and not any(key in s.items for s in streams.items.values())
    )
    path = joined("defaults" if in_every_stream else node.path, key)
    at = streams.key_at or node.at if streams and in_every_stream else node.key_at or node.at
    examples = {
        "name": f"write e.g. `name: {_as_name(root.at.source)}`",
        "base_model": "write e.g. `base_model: tiny-toon`, a folder or a name on the hub",
        "datasets": "write e.g. `datasets: [{path: data/train.jsonl, type: chatml}]`",
        "path": "name a file, a pattern such as data/*.jsonl, or a dataset of the hub",
    }
    if key != "streams" and (key in StreamSettings.model_fields or _choices_are_known(node)):
        problems.add(at, path, "is missing", examples.get(key, "write it"))


def _choices_are_known(node: Node) -> bool:
    """Whether a kind that was chosen may be what needs a setting; that of an unknown one is no mistake of its own."""
    return all(str(chosen.value) in kinds.installed(key) for key, chosen in node.items.items() if key in kinds.GROUPS)


def _add_bad_name(name: str, at: Spot, path: str, problems: Problems) -> None:
    problems.add(at, path, f"{in_message(name)[:80]} is no name: {NAME_WORDS}", f"write e.g. `{_as_name(name)}`")


def _as_name(text: str) -> str:
    stem = re.sub(r"\.(?:ya?ml|toml)$", "", text.lower().replace("\\", "/").rpartition("/")[2])
    return re.sub(r"[^a-z0-9._-]+", "-", stem).strip("-._")[:64] or "first"


def _add_bad_value(root: Node, node: Node, gone: Sequence[Step], problems: Problems) -> None:
    field, key = _field_at(root, gone)
    if field is None:  # a whole stream
        if gone[:1] != ["streams"] or len(gone) > 1:
            problems.add(
                node.at, node.path, f"expected settings, got {in_words(node)}", _fix_of_group(root, node, gone)
            )
        return
    table = next((part for part in field.metadata if isinstance(part, OneOf)), None)
    of_table = kinds.installed(key) if key in kinds.GROUPS else table.names() if table else ()
    choices = list(of_table) or _choices(field.annotation)
    if key == "name" and isinstance(node.value, str):
        _add_bad_name(node.value, node.at, node.path, problems)
    elif isinstance(node.value, str) and (of_table or (choices and choices == list(_alternatives(field.annotation)))):
        words = ", ".join(str(choice) for choice in choices)
        problems.add(
            node.at,
            node.path,
            f"{in_words(node)} is not one of {words}",
            fix_of_value(key, node.value, [str(c) for c in choices]),
        )
    else:
        inner = gone[gone.index(key) + 1 :] if _group_in(field.annotation) is None else []
        what = f"expected {expected(_inside(field.annotation, inner), () if inner else field.metadata)}, got {in_words(node)}"
        problems.add(node.at, node.path, what, _fix_of_type(node, field))


def _fix_of_group(root: Node, node: Node, gone: Sequence[Step]) -> str:
    field, _ = _field_at(root, gone[:-1])
    return _as_group(_group_in(field.annotation) if field else None, node)


def _as_group(group: type[Settings] | None, node: Node) -> str:
    """A value that stands for a whole group is that of the only setting which the group needs."""
    needed = [name for name, one in group.model_fields.items() if one.is_required()] if group else []
    if len(needed) == 1 and isinstance(node.value, str):
        return f"write `{{{needed[0]}: {in_message(node.value)[:60]}}}`"
    return "write `key: value` lines below it"


def _field_at(root: Node, gone: Sequence[Step]) -> tuple[FieldInfo | None, str]:
    """The setting that the steps lead to; None for a group of them in a list or by name."""
    group: type[Settings] = RunSettings
    field, key, node = None, "", root
    for step in gone:
        node = node.child(step) or node
        if isinstance(step, str) and step in group.model_fields and (field is None or _group_in(field.annotation)):
            field, key = group.model_fields[step], step
            group = _group_in(field.annotation) or group
        elif field is not None and (inner := _group_in(field.annotation)):
            field, group = None, _chosen(inner, node)
    return field, key


def _inside(annotation: Any, steps: Sequence[Step]) -> Any:
    """The annotation of what stands in a list or mapping, as deep as the steps go."""
    for _ in steps:
        while get_origin(annotation) is Annotated:
            annotation = get_args(annotation)[0]
        annotation = (get_args(annotation) or [annotation])[-1]
    return annotation


def _fix_of_type(node: Node, field: FieldInfo) -> str:
    words = expected(field.annotation, field.metadata)
    match node.value:
        case str(text) if text.lower() in {"yes", "no", "on", "off"} and words.endswith("true or false"):
            return f"write {'true' if text.lower() in {'yes', 'on'} else 'false'}"
        case str(text) if text.lower() in {"true", "false"} and words.endswith("true or false"):
            return "write it without quotes"
        case float(number) if number.is_integer() and "whole number" in words:
            return f"write {int(number)}"
        case str() | int() as one if get_origin(field.annotation) is list and _fits_in(field.annotation, one):
            return f"write it as a list: [{one}]"
        case str(text) if "number" in words and re.fullmatch(
            r"[-+]?[0-9][0-9._]*(?:e[-+]?[0-9]+)?", text, re.IGNORECASE
        ):
            return "write it without quotes"
        case None:
            return "give it a value, or remove the line"
        case _ if _group_in(field.annotation):
            return (
                "write `datasets: [{path: ..., type: ...}]`"
                if isinstance(field.default, list) or field.is_required()
                else _as_group(_group_in(field.annotation), node)
            )
        case _ if field.is_required():
            return "correct it"
        case _ if field.default is None or field.default in ({}, []):
            return "correct it, or leave it out"
        case _:
            return f"the default is {_default(field.default)}"


def _fits_in(annotation: Any, value: object) -> bool:
    """Whether a list of this annotation could hold the value."""
    (of,) = get_args(annotation)
    choices = {str(choice) for choice in _choices(of)} or {
        name for part in get_args(of)[1:] if isinstance(part, OneOf) for name in part.names()
    }
    return str(value) in choices if choices else isinstance(value, _plain_type(of))


def _plain_type(annotation: Any) -> type:
    inner = get_args(annotation)[0] if get_origin(annotation) is Annotated else annotation
    return inner if isinstance(inner, type) else type(None)


def _default(value: object) -> str:
    match value:
        case bool():
            return str(value).lower()
        case float():
            return f"{value:g}"
        case list():
            return f"[{', '.join(map(str, value))}]"
        case _:
            return str(value)


# ---- texts -----------------------------------------------------------------------------------------------------------


def in_words(node: Node) -> str:
    """A value, shortened for a message."""
    match node.value:
        case None:
            return "nothing"
        case bool():
            return str(node.value).lower()
        case str():
            return repr(node.value if len(node.value) <= 60 else node.value[:57] + "...")
        case float() if not math.isfinite(node.value):
            return f".{str(node.value).removeprefix('-')}" if node.value != -math.inf else "-.inf"
        case int() | float():
            return _short_number(node.value)
        case list():
            values = [_short(item) for item in node.value]
            return f"[{', '.join(values[:4])}{', ...' if len(values) > 4 else ''}]"
        case dict():
            return "a group of settings"


def _short(item: object) -> str:
    if isinstance(item, Node):
        return "[...]" if isinstance(item.value, list) else in_words(item)
    return str(item)


def _short_number(value: float) -> str:
    return "a number of hundreds of digits" if isinstance(value, int) and abs(value) > 10**99 else str(value)


def expected(annotation: Any, metadata: Iterable[Any] = ()) -> str:
    """An annotation as text: `auto or a whole number of at least 1`."""
    origin = get_origin(annotation)
    if origin is Annotated:
        inner, *more = get_args(annotation)
        return expected(
            inner, [part for info in more for part in (info.metadata if isinstance(info, FieldInfo) else [info])]
        )
    if origin in {Union, types.UnionType}:
        return _listed(words for part in get_args(annotation) if part is not type(None) for words in _words(part))
    if origin is Literal:
        return _listed(_words(annotation))
    if origin is list:
        shortest = next((f", at least {part.min_length}" for part in metadata if isinstance(part, MinLen) and part.min_length > 1), "")  # fmt: skip
        longest = next((f", at most {part.max_length}" for part in metadata if isinstance(part, MaxLen)), "")
        at_least_one = any(isinstance(part, MinLen) for part in metadata)
        return f"a list of {_several(get_args(annotation)[0], at_least_one=at_least_one)}{shortest}{longest}"
    if origin is dict:
        return f"{_several(get_args(annotation)[1], at_least_one=False)} by name"
    if table := next((part for part in metadata if isinstance(part, OneOf)), None):
        return _listed(table.names())
    if words_of_field := next((part.words for part in metadata if isinstance(part, Reads)), None):
        return words_of_field
    words: dict[Any, str] = {bool: "true or false", int: "a whole number", float: "a number", str: "text"}
    return words.get(annotation, "settings") + _bounds(metadata)


def _words(part: Any) -> list[str]:
    """The choices of a literal one by one, anything else as a whole."""
    if get_origin(part) is Literal:
        return [str(choice) for choice in get_args(part)]
    return ["true", "false"] if part is bool else [expected(part)]


def _listed(words: Iterable[str]) -> str:
    *first, last = words
    return f"{', '.join(first)} or {last}" if first else last


def _bounds(metadata: Iterable[Any]) -> str:
    limits = []
    for part in metadata:
        match part:
            case Ge(ge=value):
                limits.append(f"of at least {value}")
            case Gt(gt=value):
                limits.append(f"above {value}")
            case Lt(lt=value):
                limits.append(f"below {value}")
            case Le(le=value):
                limits.append(f"at most {value}")
            case _:
                pass
    return " " + " and ".join(limits) if limits else ""


def _several(annotation: Any, *, at_least_one: bool) -> str:
    """What a list holds, in the plural."""
    if group := _group_in(annotation):
        one = group.__name__.lower()
        return f"at least one {one}" if at_least_one else f"{one}s"
    words = expected(annotation)
    is_choice = any(isinstance(part, OneOf) for part in get_args(annotation)[1:])
    return words if is_choice else re.sub(r"^(?:a ((?:whole )?number)|(text))", r"\1\2s", words)


def _choices(annotation: Any) -> list[Any]:
    return [
        choice
        for part in _alternatives(annotation)
        for choice in ([part] if not isinstance(part, type) and get_origin(part) is None else [])
    ]


def _alternatives(annotation: Any) -> Iterable[Any]:
    """The members of a union, and the choices of its literals."""
    origin = get_origin(annotation)
    if origin in {Union, types.UnionType}:
        for part in get_args(annotation):
            if part is not type(None):
                yield from _alternatives(part)
    elif origin is Literal:
        yield from get_args(annotation)
    else:
        yield annotation
