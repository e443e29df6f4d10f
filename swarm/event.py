"""What every event has: the types of its fields, and the two base classes; the closed list of events is `swarm.events`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    PlainValidator,
    StringConstraints,
    model_validator,
)

from swarm.figures import MAX_FIGURES, MAX_WHOLE, checked_name, number
from swarm.printable import without_control

NAME = r"[a-z0-9][a-z0-9._-]{0,63}"
"""A stream, worker, agent or run name."""
RESERVED = frozenset({"coordinator", "hub", "log", "run", "unknown"})
"""Author names that no member may have: they are the program's own."""

Name = Annotated[str, StringConstraints(pattern=f"^{NAME}$")]
Names = Annotated[str, StringConstraints(pattern=f"^{NAME}(,{NAME})*$")]
Role = Literal["prepare", "train", "validate", "evaluate", "sealed"]
ROLES: tuple[Role, ...] = ("prepare", "train", "validate", "evaluate")
"""A stream's tasks, in the order in which they are done.  `sealed` is none of them: only who is to be promoted is examined."""
JUDGING: tuple[Role, ...] = ("validate", "evaluate")
"""Those that judge what was trained."""
DONE_BY: dict[Role, Role] = {"sealed": "validate"}
"""The workers of which role do a task, where they have another name."""

Ref = Annotated[str, StringConstraints(pattern=rf"^(?:-|{NAME}(?:/{NAME})?)$")]
"""What an entry is about: `run`, a stream, `stream/role`, or `-` for nothing in particular."""


def _stays_inside(path: str) -> str:
    if path.startswith("/") or ".." in path.split("/") or not path or any(ord(c) < 0x20 for c in path):
        raise ValueError("must be a path inside the run folder")
    return path


RelativePath = Annotated[str, AfterValidator(_stays_inside)]
"""A path inside the run folder: relative, never climbing out."""

Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
ShortSha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{16,64}$")]
"""The first 16 digits of one: names what nothing else vouches for.  Earlier versions wrote all 64."""
SHORT = 16
Count = Annotated[int, Field(ge=0, lt=MAX_WHOLE)]
"""A whole number that SQLite can hold, and that is printed and divided without an error."""
ExitStatus = Annotated[int, Field(ge=-(1 << 31), lt=1 << 31)]
Seconds = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Token = Annotated[int, Field(ge=1, lt=MAX_WHOLE)]
"""A fencing token: the seq of the claim (or hand) that began the lease."""


Figures = Annotated[
    dict[Annotated[str, AfterValidator(checked_name)], Annotated[float, PlainValidator(number)]],
    Field(max_length=MAX_FIGURES),
]
"""Numbers by the names of `swarm.figures`; one may be NaN or infinite, and who judges by it says what that means."""


class Event(BaseModel):
    """Something that happened, about `ref`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    implied: ClassVar[Mapping[str, str]] = {}
    """Facts that follow from the others, as templates of these and of `stream`: an entry states one only where it differs."""

    ref: Ref
    body: Annotated[str, AfterValidator(without_control)] = ""
    """Without control characters, so that the event is equal to what is read back."""
    idem: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9._:-]{1,64}$")] | None = None
    """Idempotency key: the same author's second event with it is the first."""

    @property
    def kind(self) -> str:
        return type(self).__name__.lower()

    @property
    def stream(self) -> str:
        return self.ref.partition("/")[0]

    def facts(self) -> dict[str, Any]:
        """The fields that stand in the entry, in the order of the class, unset ones left out."""
        return {name: value for name, value in vars(self).items() if value is not None and name not in {"ref", "body"}}


class Measured(Event):
    """An event with figures: in the entry, and in `facts()`, each stands under its own name.

    So a key that is no field of the class is a figure, and its value a number.
    """

    figures: Figures = {}
    """Of the adapter, by the names of `swarm.figures`; the bare base's as `base_<name>`."""

    @model_validator(mode="before")
    @classmethod
    def _gather_figures(cls, fields: Any) -> Any:
        if not isinstance(fields, dict) or fields.keys() <= cls.model_fields.keys():
            return fields
        known = {key: value for key, value in fields.items() if key in cls.model_fields}
        flat = {OLDER_NAMES.get(key, key): value for key, value in fields.items() if key not in known}
        return {**known, "figures": {**known.get("figures", {}), **flat}}

    def facts(self) -> dict[str, Any]:
        facts = super().facts()
        named = facts.pop("figures")
        return {**facts, **named}


OLDER_NAMES = {
    "heldout": "eval_loss", "base_heldout": "base_eval_loss", "exact": "exact_match", "base_exact": "base_exact_match",
    "loss_first": "first_loss", "loss_last": "loss", "tok_s": "tokens_per_second",
}  # fmt: skip
"""Figures as entries named them before they were named in one table."""
