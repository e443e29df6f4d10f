"""A config as a tree of values, each with the file and line where it was written and its key path.

It knows no setting; `yamlfile` and `tomlfile` build trees, `layers` merges defaults and overrides into them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from swarm.errors import UserError, UserErrors
from swarm.printable import in_message

Scalar = None | bool | int | float | str
Step = str | int

COMMAND_LINE = "command line"
IN_DEFAULTS = " (defaults)"


@dataclass(frozen=True, slots=True)
class Spot:
    """The place where a value or key was written."""

    source: str
    """`my.yaml`, as it was named; or `command line`."""
    line: int
    """From 1; 0 if the format has no line numbers.  For the command line: the number of the override."""
    folder: Path
    """The folder to which relative paths written here are relative."""
    column: int = 0
    """From 1; 0 if the format has no columns."""

    def __str__(self) -> str:
        return f"{self.source}:{self.line}" if self.line and not self.typed else self.source

    @property
    def typed(self) -> bool:
        """Whether it came from the command line."""
        return self.source == COMMAND_LINE


@dataclass(frozen=True, slots=True)
class Node:
    """A value of a config."""

    value: Scalar | list[Node] | dict[str, Node]
    at: Spot
    path: str
    """As written: `defaults.datasets.0.path`, also after it was merged into a stream."""
    key_at: Spot | None = None
    """The place of its key, for errors about the key."""

    @property
    def items(self) -> dict[str, Node]:
        """The keys of a group; nothing for other values."""
        return self.value if isinstance(self.value, dict) else {}

    @property
    def origin(self) -> str:
        from_defaults = self.path.startswith("defaults.") and not self.at.typed
        return f"{self.at}{IN_DEFAULTS}" if from_defaults else str(self.at)

    def plain(self) -> object:
        """The value as plain Python."""
        match self.value:
            case dict():
                return {key: node.plain() for key, node in self.value.items()}
            case list():
                return [node.plain() for node in self.value]
            case _:
                return self.value

    def steps(self) -> Iterator[tuple[Step, Node]]:
        """The values directly below this one."""
        match self.value:
            case dict():
                yield from self.value.items()
            case list():
                yield from enumerate(self.value)
            case _:
                pass

    def child(self, step: Step) -> Node | None:
        return next((node for key, node in self.steps() if key == step), None)

    def setting(self, key: str) -> tuple[Spot, str]:
        """The place and path of a setting of this group; the place of the group if the setting was not written."""
        node = self.items.get(key)
        return (node.at, node.path) if node else (self.key_at or self.at, f"{self.path}.{key}")

    def with_child(self, step: Step, node: Node) -> Node:
        """A copy with another value at `step`."""
        if isinstance(self.value, list):
            assert isinstance(step, int)
            return replace(self, value=[*self.value[:step], node, *self.value[step + 1 :]])
        return replace(self, value={**self.items, str(step): node})


def joined(path: str, step: Step) -> str:
    shown = in_message(step) if isinstance(step, str) else str(step)
    return f"{path}.{shown}" if path else shown


class Mistake(UserError):
    """A problem of a config, with its place for programs that read it."""

    def __init__(self, at: Spot, path: str, what: str, fix: str) -> None:
        super().__init__(f"{at}: {path}" if path else str(at), what, fix)
        self.at, self.key = at, path

    def place(self) -> dict[str, str | int | None]:
        line, column = (0, 0) if self.at.typed else (self.at.line, self.at.column)
        return {"file": self.at.source, "line": line or None, "column": column or None, "key": self.key or None}


@dataclass(slots=True)
class Problems:
    """The problems of a config, collected so that all are raised together."""

    found: dict[str, tuple[tuple[bool, int], Mistake]] = field(default_factory=dict)
    """By its text, so that a mistake in `defaults` is reported once and not once per stream."""

    def add(self, at: Spot, path: str, what: str, fix: str) -> None:
        error = Mistake(at, path, what, fix)
        self.found.setdefault(str(error), ((at.typed, at.line), error))

    def has(self, at: Spot, path: str) -> bool:
        """Whether a problem of this value is known, from which further ones probably follow."""
        return any(error.where == f"{at}: {path}" for _, error in self.found.values())

    def raise_any(self, outcome: str = "nothing was started") -> None:
        """Raises UserErrors if there are problems: those of the file by line, then those of the command line."""
        if self.found:
            ordered = sorted(self.found.values(), key=lambda entry: entry[0])
            raise UserErrors([error for _, error in ordered], outcome)


def only(at: Spot, what: str, fix: str) -> UserErrors:
    """UserErrors with one problem, after which nothing else can be checked."""
    return UserErrors([Mistake(at, "", what, fix)])


def problem_rows(error: UserError | UserErrors) -> list[dict[str, str | int | None]]:
    """Each problem as data: file, line, column, key (None where there is none), what it is and the fix."""
    found = error.errors if isinstance(error, UserErrors) else (error,)
    return [{**_place(one), "what": one.what, "fix": one.fix} for one in found]


def _place(error: UserError) -> dict[str, str | int | None]:
    """That of an error outside of configs is named in words: a device, a folder."""
    if isinstance(error, Mistake):
        return error.place()
    return {"file": None, "line": None, "column": None, "key": error.where}


def follow(root: Node, steps: Sequence[Step]) -> tuple[Node, list[Step]]:
    """The deepest existing node along the steps, and the steps to it."""
    node, gone = root, []
    for step in steps:
        below = node.child(step)
        if below is None:
            break
        node = below
        gone.append(step)
    return node, gone
