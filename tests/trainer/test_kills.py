"""Issue 17: every part of Duo and Unified is killed in the midst of its training, alone and beside another stream, and ends as if it had not been.

A real SIGKILL of a real process, at a step drawn by the case's name.  What is left is compared bit for bit with an uninterrupted training: weights,
optimizer, controllers, stops and counters of the last checkpoint, and each logged figure but those of the clock (D05, D10, D16-D18, D20, D21, D27,
D38, U01, U07, U15-U20, U22, U23, X03).
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from swarm.config import load
from swarm.messages import Piece
from swarm.settings import StreamSettings
from tests.trainer import killed
from tests.trainer.adaptive_cases import CASES, NEIGHBOUR, PAIRS, Settings, dies_at, slug, stream_of, write_files
from tests.trainer.conftest import Bench

QUICK = ("blend, bump, unified", "pair: tied, both trained, in 4 bits")
"""In the suite; all others by `make torture`."""


@dataclass
class Runs:
    """Trainings in one run folder."""

    bench: Bench
    files: Path
    prepared: dict[str, str] = field(default_factory=dict)
    """Folders of prepared rows, by what was asked for."""

    @property
    def folder(self) -> Path:
        return self.bench.place.run_folder

    def piece(self, stream: str, settings: StreamSettings) -> Piece:
        asked = settings.model_dump_json(include={"datasets", "test_datasets", "models", "adapter", "sequence_len"})
        if asked not in self.prepared:
            self.prepared[asked] = self.bench.do("prepare", settings)["prepared"].path
        place = self.prepared[asked]
        return Piece(
            ref=f"{stream}/train", token=1, role="train", stream=stream, settings=settings, prepared=place,
            prepared_sha256=self.bench.prepared[place],
        )  # fmt: skip

    def whole(self, stream: str, settings: StreamSettings) -> dict[str, Any]:
        """What an uninterrupted training leaves."""
        if not self.place(stream).exists():
            killed.in_a_process(self.folder, [self.piece(stream, settings)])
        return killed.left(self.place(stream))

    def interrupted(self, streams: Mapping[str, StreamSettings], dies_at: int) -> list[dict[str, Any]]:
        """What each leaves where the process of all is killed and another one goes on."""
        pieces = [self.piece(stream, settings) for stream, settings in streams.items()]
        killed.in_a_process(self.folder, pieces, dies_at=dies_at)
        left = [killed.gone_on(self.folder, piece) for piece in pieces]
        assert all(piece.resume_from for piece in left)
        killed.in_a_process(self.folder, left)
        return [killed.left(self.place(stream)) for stream in streams]

    def notes(self, stream: str) -> str:
        path = self.folder / "streams" / killed.NOTES
        lines = path.read_text().splitlines() if path.exists() else []
        return "\n".join(line for line in lines if line.startswith(f"{stream}: "))

    def place(self, stream: str) -> Path:
        return self.bench.place.stream_folder(stream)


@pytest.fixture(scope="module")
def runs(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Runs:
    files = tmp_path_factory.mktemp("files")
    write_files(files, base)
    return Runs(Bench(tmp_path_factory.mktemp("kills")), files)


def settings_of(files: Path, case: Settings, *, is_pair: bool = False) -> StreamSettings:
    config = files / "case.yaml"
    config.write_text(json.dumps({"name": "kills", "streams": {"one": stream_of(case, is_pair=is_pair)}}))
    return load(config, cwd=files).run.streams["one"]


def in_the_suite(names: Iterable[str]) -> list[Any]:
    torture = pytest.mark.skipif(os.environ.get("TORTURE") != "1", reason="`make torture` runs it: 5 trainings")
    return [pytest.param(name, marks=[] if name in QUICK else [torture]) for name in names]


@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize("name", in_the_suite(CASES))
def test_what_a_kill_interrupts_ends_bit_for_bit_as_if_it_had_not(runs: Runs, name: str) -> None:
    case, stream = CASES[name], slug(name)
    settings = settings_of(runs.files, case.settings, is_pair=name in PAIRS)
    whole = runs.whole(f"{stream}.whole", settings)
    assert re.search(case.seen, runs.notes(f"{stream}.whole")), runs.notes(f"{stream}.whole")
    [alone] = runs.interrupted({f"{stream}.alone": settings}, dies_at(name))
    assert killed.differing(alone, whole) == []
    if name in PAIRS:  # its engine trains one stream at a time: there is no group
        return
    in_bits = {"adapter": case.settings.get("adapter", "lora")}
    neighbour = settings_of(runs.files, {**NEIGHBOUR, **in_bits})
    beside = runs.whole(f"neighbour.{in_bits['adapter']}", neighbour)
    group = {f"{stream}.group": settings, f"{stream}.neighbour": neighbour}
    assert [killed.differing(mine, other) for mine, other in zip(runs.interrupted(group, dies_at(name)), (whole, beside), strict=True)] == [[], []]  # fmt: skip
