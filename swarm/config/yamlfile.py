"""Parses YAML into a tree with line numbers: numbers and booleans as in YAML 1.2; no duplicate keys, no tags, bounded aliases.

PyYAML follows YAML 1.1, where `2e-4` is text, `no` is false, `1:30` is 90 and the second of two equal keys wins silently.
Import this module only where a file is read, since it imports yaml.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path

import yaml

from swarm.config.tree import Node, Problems, Scalar, Spot, joined, only
from swarm.printable import in_message

VALUES_AT_MOST = 20_000
"""A config has some hundred values; nested aliases could expand to billions."""
DEPTH_AT_MOST = 24

TAG = "tag:yaml.org,2002:"
# The core schema of YAML 1.2 (yaml.org/spec/1.2.2, 10.3.2), with Python's underscores between digits.
PLAIN = (
    ("null", re.compile(r"~|null|Null|NULL|"), "~nN"),
    ("bool", re.compile(r"true|True|TRUE|false|False|FALSE"), "tTfF"),
    ("int", re.compile(r"[-+]?[0-9](?:_?[0-9])*|0x[0-9a-fA-F]+|0o[0-7]+"), "-+0123456789"),
    ("float", re.compile(r"[-+]?(?:\.[0-9]+|[0-9](?:_?[0-9])*(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)"), "-+.0123456789"),
    ("merge", re.compile(r"<<"), "<"),
)  # fmt: skip


class Loader(yaml.SafeLoader):
    """PyYAML's parser with the scalars of YAML 1.2; this module constructs the values."""

    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}  # noqa: RUF012  PyYAML's own shape

    def scan_flow_scalar(self, style: str) -> yaml.ScalarToken:
        """JSON writes a character above U+FFFF as two escapes, which PyYAML reads as two halves."""
        token = super().scan_flow_scalar(style)
        try:
            token.value = token.value.encode("utf-16", "surrogatepass").decode("utf-16")
        except UnicodeDecodeError:
            what = "half a surrogate pair"
            raise yaml.scanner.ScannerError(None, None, what, token.start_mark) from None
        return token


for _name, _pattern, _first in PLAIN:
    Loader.add_implicit_resolver(
        TAG + _name, re.compile(f"(?:{_pattern.pattern})$"), [*_first, *([""] if _name == "null" else [])]
    )


def read(text: str, source: str, folder: Path, problems: Problems) -> Node:
    """Raises UserErrors if the text is not YAML; other mistakes, such as duplicate keys, are added to `problems`."""
    at = Spot(source, 1, folder)
    try:
        loader = Loader(text)
        node = loader.get_single_node()
        return _Reading(source, folder, problems).node(node, "") if node is not None else Node(None, at, "")
    except yaml.YAMLError as error:
        raise only(_spot_of(error, text, at), _what(error), _fix(error)) from error
    except RecursionError as error:
        raise only(at, "nested too deeply", "write it flatter") from error


def scalar(text: str) -> Scalar:
    """A plain scalar, as it would be read in a file.

    Raises ValueError on a number that is too long to read.
    """
    name = next((name for name, pattern, _ in PLAIN if pattern.fullmatch(text) and name != "merge"), "str")
    return _made(name, text)


def _made(name: str, text: str) -> Scalar:
    digits = text.replace("_", "")
    match name:
        case "null":
            return None
        case "bool":
            return text.lower() == "true"
        case "int":
            return int(digits, 0) if digits[:2] in {"0x", "0o"} else int(digits)
        case "float":
            return float(digits.lower().replace(".inf", "inf").replace(".nan", "nan"))
        case _:
            return text


@dataclass(slots=True)
class _Reading:
    """The conversion of one file into a tree."""

    source: str
    folder: Path
    problems: Problems
    open: list[yaml.Node] = field(default_factory=list)
    """The groups that are being read, outermost first."""
    seen: int = 0

    def node(self, node: yaml.Node, path: str, key_at: Spot | None = None) -> Node:
        at = self._spot(node)
        self.seen += 1
        if self.seen > VALUES_AT_MOST:
            raise only(at, f"aliases expand to more than {VALUES_AT_MOST:,} values", "write the values out")
        if any(node is outer for outer in self.open):
            raise only(at, "an alias that contains itself", "write the value out")
        if len(self.open) > DEPTH_AT_MOST:
            raise only(at, f"nested deeper than {DEPTH_AT_MOST}", "write it flatter")
        self.open.append(node)
        made = self._value(node, path, at)
        self.open.pop()
        return Node(made, at, path, key_at or at)

    def _value(self, node: yaml.Node, path: str, at: Spot) -> Scalar | list[Node] | dict[str, Node]:
        match node:
            case yaml.MappingNode(tag=f) if f == TAG + "map":
                return self._group(node, path)
            case yaml.SequenceNode(tag=f) if f == TAG + "seq":
                return [self.node(item, joined(path, number)) for number, item in enumerate(node.value)]
            case yaml.ScalarNode():
                return self._scalar(node, path, at)
            case _:
                self.problems.add(at, path, f"the tag {node.tag} is not understood", "remove it")
                return None

    def _scalar(self, node: yaml.ScalarNode, path: str, at: Spot) -> Scalar:
        name = str(node.tag).removeprefix(TAG)
        if name not in {"null", "bool", "int", "float", "str", "merge"}:
            self.problems.add(at, path, f"the tag {in_message(str(node.tag))} is not understood", "remove it")
            return None
        try:
            return _made(name, node.value)
        except ValueError:  # a tag that does not fit the value, or thousands of digits
            self.problems.add(at, path, f"{node.value[:40]!r} cannot be read as {name}", "correct it")
            return None

    def _group(self, node: yaml.MappingNode, path: str) -> dict[str, Node]:
        merged: dict[str, Node] = {}
        own: dict[str, Node] = {}
        for key, value in node.value:
            at = self._spot(key)
            if key.tag == TAG + "merge":
                merged = {**self._merged(value, path), **merged}  # the first of several wins (yaml.org/type/merge)
            elif not isinstance(key, yaml.ScalarNode):
                self.problems.add(at, path, "a key that is no text", "write `key: value`")
            elif key.value in own:
                first = own[key.value].key_at
                self.problems.add(
                    at,
                    joined(path, key.value),
                    f"written twice, first on line {first.line if first else '?'}",
                    "remove one of them",
                )
            else:
                own[key.value] = self.node(value, joined(path, key.value), at)
        return {**merged, **own}

    def _merged(self, value: yaml.Node, path: str) -> dict[str, Node]:
        sources = value.value if isinstance(value, yaml.SequenceNode) else [value]
        merged: dict[str, Node] = {}
        for source in sources:
            group = self.node(source, path)
            if not isinstance(group.value, dict):
                self.problems.add(
                    self._spot(value),
                    joined(path, "<<"),
                    "merges what is no group",
                    "name the anchor of a group: `<<: *anchor`",
                )
            merged = {**group.items, **merged}
        return merged

    def _spot(self, node: yaml.Node) -> Spot:
        return Spot(self.source, node.start_mark.line + 1, self.folder, node.start_mark.column + 1)


def _spot_of(error: yaml.YAMLError, text: str, at: Spot) -> Spot:
    match error:
        case yaml.MarkedYAMLError(problem_mark=mark) if mark is not None:
            line, column = mark.line, mark.column + 1
        case yaml.reader.ReaderError(position=int(position)):
            line, column = text.count("\n", 0, position), position - text.rfind("\n", 0, position)
        case _:
            return at
    return Spot(at.source, line + 1, at.folder, column)


def _what(error: yaml.YAMLError) -> str:
    match error:
        case yaml.MarkedYAMLError(problem=str(problem)):
            return f"not YAML: {problem}"
        case yaml.reader.ReaderError(character=character):
            return f"the character U+{ord(character) if isinstance(character, str) else character:04X} may not stand in YAML"
        case _:
            return f"not YAML: {' '.join(str(error).split())}"


def _fix(error: yaml.YAMLError) -> str:
    words = str(error)
    if "surrogate" in words:
        return "write the character itself"
    if r"'\t'" in words:
        return "indent with spaces, not with tabs"
    if "alias" in words:
        return "a value that begins with * needs quotes"
    if "special characters" in words:
        return "remove it, or write it as an escape in double quotes"
    return "check colons, quotes and indentation here and on the line before"
