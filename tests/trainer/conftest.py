"""The tiny base, a stream's settings on it, and a bench that runs roles in this process and keeps what they say."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from swarm.event import Event
from swarm.messages import Message, MetricRow, Metrics, Piece, Report
from swarm.settings import StreamSettings
from tests.trainer import tiny
from tests.trainer.desk import Desk
from trainer import roles
from trainer.lease import Lease
from trainer.place import Place
from trainer.quiet import quieten

quieten()  # as each process of a run does before it imports the libraries
os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is imported: the machine is shared with other tests


@pytest.fixture(scope="session")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.save_base(tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="session")
def rows_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("data") / "doubles.jsonl"
    path.write_text("".join(json.dumps({"prompt": f"double {n}", "completion": str(2 * n)}) + "\n" for n in range(60)))
    return path


@pytest.fixture
def settings(base: Path, rows_file: Path) -> Callable[..., StreamSettings]:
    def make(**changes: Any) -> StreamSettings:
        chosen = {
            "base_model": str(base), "datasets": [{"path": str(rows_file), "type": "prompt_completion"}],
            "max_steps": 4, "sequence_len": 64, "micro_batch_size": 4, "learning_rate": 5e-3, "warmup_ratio": 0.0,
            "save_steps": 2, "val_set_size": 12, "eval_rows": 4, "eval_max_new_tokens": 6, **changes,
        }  # fmt: skip
        return StreamSettings.model_validate(chosen)

    return make


class Bench:
    """Runs a role as a worker would and keeps its messages; `orders` may act on the lease at a given message."""

    def __init__(self, run_folder: Path) -> None:
        self.place = Place(run_folder, "cpu")
        self.said: list[Message] = []
        self.token = 0
        self.prepared: dict[str, str] = {}
        """Manifests' hashes by folder, as a coordinator has them from its log."""
        self.on_message: Callable[[Message, Lease], None] = lambda message, lease: None

    def do(self, role: str, settings: StreamSettings, **given: Any) -> dict[str, Event]:
        """The last event of each kind that the role reported."""
        self.token += 1
        if "prepared" in given:
            given = {"prepared_sha256": self.prepared[given["prepared"]], **given}
        assign = Piece(ref=f"one/{role}", token=self.token, role=role, stream="one", settings=settings, **given)

        def send(message: Message, fact: bool) -> None:
            self.said.append(message)
            self.on_message(message, self.lease)

        self.said.clear()
        self.lease = Lease(assign.ref, assign.token, send)
        self.lease.begin()
        try:
            roles.load(role).run(assign, self.lease, self.place)
        finally:
            self.lease.flush_metrics()
        said = {event.kind: event for event in self.events()}
        if "prepared" in said:
            self.prepared[said["prepared"].path] = said["prepared"].sha256
        return said

    def events(self) -> list[Event]:
        return [message.event() for message in self.said if isinstance(message, Report)]

    def metric_rows(self) -> list[MetricRow]:
        return [row for message in self.said if isinstance(message, Metrics) for row in message.rows]

    def trained(self, settings: StreamSettings, **given: Any) -> dict[str, Event]:
        prepared = self.do("prepare", settings)["prepared"]
        return self.do("train", settings, prepared=prepared.path, **given)


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


@pytest.fixture
def cores() -> Iterator[None]:
    """Two for this process, whatever the machine has."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Figures are sent at their step and not a moment later."""
    kept = Lease.figures

    def figures(lease: Lease, row: MetricRow, steps: int) -> None:
        kept(lease, row, steps)
        lease.flush_metrics()

    monkeypatch.setattr(Lease, "figures", figures)


@pytest.fixture
def desk() -> Iterator[Desk]:
    desk = Desk()
    yield desk
    desk.close()
