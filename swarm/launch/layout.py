"""The worker processes of a run, their roles and devices; computed by `planning`, stored in the run folder."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from swarm.errors import UserError
from swarm.event import Role
from swarm.files import read_json, write_whole

if TYPE_CHECKING:
    from swarm.messages import Held


@dataclass(frozen=True, slots=True)
class WorkerSpec:
    """A worker process to start."""

    name: str
    roles: tuple[Role, ...]
    device: str
    """`cpu`, `mps`, or `gpu0` with the index as the user sees it."""
    threads: int = 1
    gpu_index: int | None = None
    streams: tuple[str, ...] | None = None
    """The streams that fit its device; None: all."""
    slots: int = 1
    """Streams that it trains at once."""
    predicted_bytes: int | None = None
    """Memory on the host that it will need at most; None where its streams are on a GPU."""


@dataclass(frozen=True, slots=True)
class Layout:
    """All workers of a run."""

    workers: tuple[WorkerSpec, ...]
    notes: tuple[str, ...] = ()
    """Remarks for the user, one line each: `gpu0: 3 streams at once, 14.1 GB of 23.6 GB free`."""
    own_bytes: Mapping[str, int] = field(default_factory=dict)
    """What each stream that may share a base will take beside it, as predicted."""
    judging_bytes: int = 0
    """What the process that judges will take at most."""

    def trainers(self) -> list[WorkerSpec]:
        return [worker for worker in self.workers if "train" in worker.roles]

    def own_of(self, trainings: Iterable[Held]) -> int:
        """What they take beside their base, as predicted."""
        return sum(self.own_bytes.get(held.stream, 0) for held in trainings)

    def write(self, path: Path) -> None:
        write_whole(path, json.dumps(asdict(self), indent=1))

    @classmethod
    def read(cls, path: Path) -> Layout:
        """Raises UserError."""
        try:
            values: dict[str, Any] = read_json(path)
            workers = tuple(_spec(**worker) for worker in values["workers"])
            rest = {key: values[key] for key in ("own_bytes", "judging_bytes") if key in values}  # older ones have none
            return cls(workers, tuple(values["notes"]), **rest)
        except (KeyError, TypeError) as error:
            raise UserError(str(path), f"is not a layout ({error!r})", "`swarm resume` writes it again") from error


def _spec(*, roles: Sequence[Role], streams: Sequence[str] | None, **rest: Any) -> WorkerSpec:
    return WorkerSpec(roles=tuple(roles), streams=None if streams is None else tuple(streams), **rest)
