"""What a group of settings is: its base class and the number types that several groups use."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

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

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, use_attribute_docstrings=True)


class NoSettings(Settings):
    """Of a method, adapter kind or optimizer that has none of its own."""
