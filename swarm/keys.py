"""What a group of settings is: its base class and the number types that several groups use."""

from __future__ import annotations

import ast
import inspect
import textwrap
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Annotated, Any, cast

from pydantic import BaseModel, ConfigDict, Field, GetJsonSchemaHandler
from pydantic_core import CoreSchema

Positive = Annotated[int, Field(ge=1)]
Share = Annotated[float, Field(ge=0, lt=1)]


@dataclass(frozen=True)
class Reads:
    """How an error says what a text must look like, where a pattern decides."""

    words: str


@dataclass(frozen=True)
class OneOf:
    """A text that is one of the names of a table; the table may grow."""

    names: Callable[[], Sequence[str]]

    def __get_pydantic_json_schema__(self, core: CoreSchema, of: GetJsonSchemaHandler) -> dict[str, Any]:
        return {**of(core), "enum": list(self.names())}


class Settings(BaseModel):
    """A group of settings: unknown keys are errors, and nothing is changed after reading."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    @classmethod
    def descriptions(cls) -> dict[str, str]:
        """What stands below each setting in the sources.  pydantic can do it, in every process that reads a setting: 70 ms of each."""
        return {name: text for group in reversed(cls.__mro__) for name, text in _below_attributes(group)}

    @classmethod
    def __get_pydantic_json_schema__(cls, core: CoreSchema, of: GetJsonSchemaHandler) -> dict[str, Any]:
        found = of(core)
        properties = of.resolve_ref_schema(found)["properties"]
        for name, text in cls.descriptions().items():
            properties[name].setdefault("description", text)
        return found


def _below_attributes(group: type) -> Iterator[tuple[str, str]]:
    if not issubclass(group, Settings) or group.__module__ == __name__:
        return
    try:
        source = inspect.getsource(group)
    except (OSError, TypeError):  # it was made of others, or typed in at a prompt
        return
    [made] = ast.parse(textwrap.dedent(source)).body
    for attribute, below in pairwise(cast("ast.ClassDef", made).body):
        if (
            isinstance(attribute, ast.AnnAssign)
            and isinstance(below, ast.Expr)
            and isinstance(below.value, ast.Constant)
        ):
            yield ast.unparse(attribute.target), inspect.cleandoc(str(below.value.value))


class NoSettings(Settings):
    """Of a method, adapter kind or optimizer that has none of its own."""
