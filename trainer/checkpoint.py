"""Checkpoints of a training: `checkpoint-<step>` folders with PEFT's files and those of the engine that wrote them; each is complete or absent.

transformers' Trainer saves in place and resumes from whatever it finds: an incomplete newest folder ends it, a missing optimizer.pt is
accepted silently.  So every engine saves into a staging folder, and training resumes only from checkpoints that verify.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from swarm.errors import UserError
from swarm.files import write_whole
from swarm.plainfiles import read_text, remove_tree, rename
from swarm.weights import ADAPTER_CONFIG, adapter_files, adapter_sha256
from trainer.whole import MANIFEST_BYTES, Torn, publish, seal, verify

OLDER_FILES = ("optimizer.pt", "scheduler.pt", "trainer_state.json")
"""What TRL needs to resume: manifests of versions that had no other engine do not list their files."""
OLDER_FIGURES = "figures.json"
"""A file in checkpoints of the version before: the tokens trained on, and all metric rows up to this step."""
SPARE_BYTES = 64 << 20
FIRST_CHECKPOINT_BYTES = 32 << 20
"""Tokenizer, configs and cards beside the tensors, before a first checkpoint has shown its size."""


@dataclass(frozen=True)
class Whole:
    """A checkpoint that verified."""

    folder: Path
    facts: dict[str, Any]

    @property
    def step(self) -> int:
        return int(self.facts["step"])

    @property
    def steps(self) -> int:
        """Optimizer steps of the whole training, as planned when it was saved."""
        if "steps" in self.facts:
            return int(self.facts["steps"])
        return int(json.loads(read_text(self.folder / "trainer_state.json", MANIFEST_BYTES))["max_steps"])

    @property
    def engine(self) -> str:
        """The engine that wrote it."""
        return str(self.facts.get("engine", "trl"))

    @property
    def spent_seconds(self) -> float:
        return float(self.facts["spent_seconds"])

    @property
    def seconds_from_start(self) -> float:
        """Of all attempts so far, since a worker took the stream; older checkpoints know the seconds of training alone."""
        return float(self.facts.get("seconds_from_start", self.spent_seconds))

    @property
    def stops(self) -> dict[str, dict[str, Any]]:
        """What the stops remembered, by name."""
        return dict(self.facts.get("stops", {}))

    @property
    def over(self) -> str | None:
        """Why training ended here, where it did so by itself."""
        over = self.facts.get("over")
        return None if over is None else str(over)

    @property
    def tokens(self) -> int:
        """Tokens trained on, pads left out."""
        return int((self._older or self.facts)["tokens"])

    @property
    def older_rows(self) -> list[dict[str, Any]] | None:
        """Metric rows that the checkpoint holds; None: they stand in the stream's own log."""
        return self._older["rows"] if self._older else None

    @cached_property
    def _older(self) -> dict[str, Any] | None:
        path = self.folder / OLDER_FIGURES
        return json.loads(read_text(path, MANIFEST_BYTES)) if path.is_file() else None


def opened(folder: Path) -> Whole:
    """Raises Torn unless the checkpoint is whole and holds all that training needs to go on."""
    facts = verify(folder)
    _refuse_incomplete(folder, facts.get("resumable", OLDER_FILES))
    return Whole(folder, facts)


def _refuse_incomplete(folder: Path, files: Iterable[str]) -> None:
    for name in (*adapter_files(folder), *files):
        if not (folder / name).is_file():
            raise Torn(f"{folder.name} has no {name}, so training could not go on as if it had never stopped")


def newest_whole(folders: Sequence[Path]) -> tuple[Whole | None, list[str]]:
    """The first that can be resumed from, and why those before it cannot."""
    passed_over: list[str] = []
    for folder in folders:
        try:
            return opened(folder), passed_over
        except Torn as error:
            passed_over.append(str(error))
    return None, passed_over


def keep(staged: Path, place: Path, facts: dict[str, Any], files: Sequence[str]) -> str:
    """Seal what an engine has saved and put it into place; returns the adapter's sha256.

    Raises Torn where one of the `files` that the engine needs to go on from it is not there.
    """
    _refuse_incomplete(staged, files)
    sort_config(staged)
    sha256 = adapter_sha256(staged)
    seal(staged, {**facts, "resumable": list(files)})
    publish(staged, place)
    return sha256


def sort_config(folder: Path) -> None:
    """Write the lists of an adapter's config in order: PEFT keeps sets, whose order differs from process to process, and with it the hash."""
    for path in (folder / name for name in adapter_files(folder) if name.endswith(ADAPTER_CONFIG)):
        config = json.loads(read_text(path))
        for key, value in config.items():
            if isinstance(value, list) and all(isinstance(item, str) for item in value):
                config[key] = sorted(value)
        write_whole(path, json.dumps(config, indent=2, sort_keys=True))


def saved_in(folder: Path) -> list[Path]:
    """Checkpoints in a folder, newest first."""
    found = [path for path in folder.glob("checkpoint-*") if path.name.partition("-")[2].isdecimal()]
    return sorted(found, key=lambda path: int(path.name.partition("-")[2]), reverse=True)


def of_step(stream_folder: Path, step: int) -> Whole | None:
    """The checkpoint of a step that verifies, of whichever attempt; the newest attempt's first."""
    folders = sorted(stream_folder.glob(f"t*/checkpoint-{step}"), key=lambda path: -int(path.parent.name[1:]))
    return newest_whole(folders)[0]


def remove_old(folder: Path, limit: int, best: int | None = None) -> None:
    """Keep the newest `limit`, all where it is 0, and that of step `best`; an old one is renamed first, so that no reader meets half of it."""
    old = [path for path in saved_in(folder)[limit:] if limit and path.name != f"checkpoint-{best}"]
    for path in old:
        going = path.with_name(f".{path.name}.going")
        rename(path, going)
        remove_tree(going)


def refuse_full_disk(folder: Path, trainable: int) -> None:
    """Raises UserError where the next checkpoint would not fit: adapter and two moments in fp32, or what the last one took."""
    last = next(iter(saved_in(folder)), None)
    guess = trainable * 4 * 3 + FIRST_CHECKPOINT_BYTES
    needed = sum(path.stat().st_size for path in last.rglob("*")) if last else guess
    place = next(path for path in (folder, *folder.parents) if path.is_dir())
    free_bytes = shutil.disk_usage(place).free
    if free_bytes < needed + SPARE_BYTES:
        what = f"{free_bytes / 1e6:.0f} MB are free and a checkpoint takes {needed / 1e6:.0f} MB"
        raise UserError(
            str(place), what, "free some space (`swarm prune` removes old checkpoints), then `swarm resume`"
        )
