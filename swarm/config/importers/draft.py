"""The config that is made of another tool's, as text: each setting with the key it comes from, and what was left out with the reason."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from swarm.config.dump import flow
from swarm.config.importers.rules import OFF, CannotTake, Outcome, as_name
from swarm.config.tree import Node
from swarm.printable import one_line
from swarm.redaction import INSTEAD, redacted

SECRET = re.compile(r"(?:(?<!eos_|bos_|pad_|unk_|sep_|cls_)(?<!mask_)token|key|secret|password|passwd)$", re.IGNORECASE)
"""Names of keys whose values are not copied into a comment; an `eos_token` is a word."""
COMMENT_COLUMN = 48
VALUE_CHARACTERS = 60
RUN = "run."
ORDER = ("base_model", "datasets", "test_datasets", "method", "adapter")
"""Written first; the others follow in the order of the other file."""


@dataclass
class Draft:
    tool: str
    source: Path
    settings: dict[str, Any] = field(default_factory=dict)
    origins: dict[str, list[Node] | str] = field(default_factory=dict)
    """By setting: the nodes of the other file, or whose default it is."""
    left_out: list[tuple[str, str]] = field(default_factory=list)
    off: list[str] = field(default_factory=list)
    lines: list[tuple[str, Node | None]] = field(default_factory=list)

    def take(self, node: Node, outcome: Outcome) -> None:
        """Raises CannotTake where another key has set a setting to something else."""
        if outcome == OFF:
            self.off.append(node.path)
        elif isinstance(outcome, str):
            self.left_out.append((f"{node.path}: {_shown(node)}", outcome))
        else:
            self.left_out += [(f"{node.path}.{key}", why) for key, why in outcome.pop("notes", [])]
            for name, value in outcome.items():
                self._set(name, value, node)

    def _set(self, name: str, value: Any, node: Node) -> None:
        nodes = self.origins.setdefault(name, [])
        assert isinstance(nodes, list)
        if self.settings.setdefault(name, value) != value:
            what = f"`{name}` would be {flow(value)}, and {flow(self.settings[name])} by {nodes[0].path}"
            raise CannotTake(what, "remove one of them")
        nodes.append(node)

    def fill(self, tool: str, defaults: dict[str, Any]) -> None:
        """What the file leaves to the tool's defaults."""
        steps = self.settings.get("max_steps")
        for name, value in defaults.items():
            if name == "logging_steps" and isinstance(steps, int) and value > steps:
                continue  # nothing is lost where nothing would be logged
            if name not in self.settings:
                self.settings[name], self.origins[name] = value, f"default of {tool}"

    def made_of(self, line: int) -> Node | None:
        """The key of the other file that a line of `text` comes from."""
        return self.lines[line - 1][1] if 0 < line <= len(self.lines) else None

    def text(self) -> str:
        self.lines = []
        source = one_line(self.source.name)
        self._write(f"# Made of {source}, a config of {self.tool}, by `swarm init --from`.")
        self._write(
            "# Behind each setting stands the key that it comes from; `swarm check` and `swarm show` say what comes of it."
        )
        self._write(f"name: {flow(self.settings.get(f'{RUN}name', as_name(self.source.stem)))}")
        self._write("defaults:")
        for name in sorted((name for name in self.settings if not name.startswith(RUN)), key=self._rank):
            self._setting(name, self.settings[name])
        self._write(f"streams:\n  {self.settings.get('adapter', 'first')}: {{}}")
        self._comments("Left out, with the reason:", [f"{key} ({why})" for key, why in self.left_out])
        self._comments("Off there, or unset:", [", ".join(self.off)] if self.off else [])
        return "\n".join(line for line, _ in self.lines) + "\n"

    def _rank(self, name: str) -> int:
        return ORDER.index(name) if name in ORDER else len(ORDER)

    def _setting(self, name: str, value: Any) -> None:
        origin = self.origins[name]
        words = origin if isinstance(origin, str) else ", ".join(node.path for node in origin)
        node = origin[0] if isinstance(origin, list) else None
        if isinstance(value, list) and value and isinstance(value[0], dict):
            self._write(f"{f'  {name}:':<{COMMENT_COLUMN}} # {one_line(words)}", node)
            for item in value:
                self._write(f"    - {flow(item)}", node)
        else:
            self._write(f"{f'  {name}: {flow(value)}':<{COMMENT_COLUMN}} # {one_line(words)}", node)

    def _comments(self, head: str, lines: list[str]) -> None:
        if lines:
            self._write(f"\n# {head}")
            for line in lines:
                self._write(f"#   {one_line(line, 400)}")

    def _write(self, text: str, node: Node | None = None) -> None:
        self.lines += [(line, node) for line in text.split("\n")]


def _shown(node: Node) -> str:
    """A value in a comment: short, on one line, and no secret."""
    if SECRET.search(node.path):
        return INSTEAD
    return one_line(redacted(flow(node.plain())), VALUE_CHARACTERS)
