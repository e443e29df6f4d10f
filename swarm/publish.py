"""Put validated adapters where people find them: checked by hash, staged, synced, renamed; decides nothing.

Each function returns the event that says so; whoever holds the log's lock appends it.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from pathlib import Path
from typing import Any

from swarm.events import Adapter, Promote
from swarm.rundir import RunFolder, sync_folder
from swarm.settings import StreamSettings
from swarm.state import Stream

ADAPTER_FILES = ("adapter_config.json", "adapter_model.safetensors")
"""What PEFT needs to load an adapter, by its own names."""


class PublishError(Exception):
    """The checkpoint is not what the validator saw."""


def adapter(folder: RunFolder, stream: Stream, settings: StreamSettings) -> Adapter:
    """Publish the validated checkpoint as the stream's adapter.  Raises PublishError, OSError."""
    assert stream.verdict
    assert stream.trained
    target = folder.stream(stream.name) / "adapter"
    _place(folder.inside(stream.verdict.path), target, stream.verdict.sha256, _lineage(folder, stream, settings))
    path = str(target.relative_to(folder.path))
    return Adapter(ref=stream.name, tok=stream.trained.tok, path=path, sha256=stream.verdict.sha256)


def promotion(folder: RunFolder, stream: Stream, settings: StreamSettings, why: str) -> Promote:
    """Publish the stream's adapter as the run's.  Raises PublishError, OSError."""
    assert stream.adapter
    lineage = {**_lineage(folder, stream, settings), "why": why}
    _place(folder.inside(stream.adapter.path), folder.promoted, stream.adapter.sha256, lineage)
    return Promote(ref=stream.name, path=folder.promoted.name, sha256=stream.adapter.sha256, why=why)


def _lineage(folder: RunFolder, stream: Stream, settings: StreamSettings) -> dict[str, Any]:
    handed_over = [stream.prepared, stream.trained, stream.verdict, stream.score]
    facts = {event.kind: event.facts() for event in handed_over if event}
    return {"run": folder.name, "stream": stream.name, "settings": settings.model_dump(mode="json"), **facts}


def sha256_of(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _place(source: Path, target: Path, sha256: str, lineage: dict[str, Any]) -> None:
    """Make `target` an adapter folder with the files of `source` and a `lineage.json`; untouched if that fails."""
    staged = target.with_name(f".{target.name}.staged")
    shutil.rmtree(staged, ignore_errors=True)
    staged.mkdir(parents=True)
    for name in ADAPTER_FILES:
        if (source / name).is_symlink() or not (source / name).is_file():
            raise PublishError(f"{source.name}: {name} is missing")
        shutil.copyfile(source / name, staged / name)
    if sha256_of(staged / ADAPTER_FILES[1]) != sha256:
        shutil.rmtree(staged)
        raise PublishError(f"{source.name}: the weights are not those that were validated")
    (staged / "lineage.json").write_text(json.dumps(lineage, indent=2) + "\n", encoding="utf-8")
    _sync_files(staged)
    if target.exists():  # only an earlier adapter, made by this program
        shutil.rmtree(target)
    staged.rename(target)
    sync_folder(target.parent)


def _sync_files(folder: Path) -> None:
    for path in folder.iterdir():
        with path.open("rb") as file:
            os.fsync(file.fileno())
    sync_folder(folder)
