"""What a group of settings is: its base class and the number types that several groups use."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

Positive = Annotated[int, Field(ge=1)]
Share = Annotated[float, Field(ge=0, lt=1)]


@dataclass(frozen=True)
class Reads:
    """How an error says what a text must look like, where a pattern decides."""

    words: str


class Settings(BaseModel):
    """A group of settings: unknown keys are errors, and nothing is changed after reading."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, use_attribute_docstrings=True)


class NoSettings(Settings):
    """Of a method, adapter kind or optimizer that has none of its own."""
