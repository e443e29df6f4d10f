"""Put validated adapters where people find them: checked by token and hash, staged, synced, renamed; decides nothing.

Whoever holds the log's lock calls this and appends the event that it returns.  Both fences stand here: weights whose train
lease is older than that of what is published are refused, and so are weights that are not those that were validated.
"""

from __future__ import annotations

import ctypes
import hashlib
import json
import os
import shutil
from pathlib import Path
from typing import Any

from swarm.errors import UserError
from swarm.events import Adapter, Promote
from swarm.lineage import FILE, lineage
from swarm.log.files import sync_folder
from swarm.rundir import RunFolder
from swarm.settings import StreamSettings
from swarm.state import State

ADAPTER_FILES = ("adapter_config.json", "adapter_model.safetensors")
"""What PEFT needs to load an adapter, by its own names."""


class PublishError(Exception):
    """The weights are not what the validator saw, or a newer lease has published."""


def adapter(folder: RunFolder, state: State, name: str, settings: StreamSettings) -> Adapter:
    """Publish the validated checkpoint as the stream's adapter.  Raises PublishError, OSError."""
    stream = state.streams[name]
    assert stream.verdict and stream.candidate
    token, sha256 = stream.candidate.tok, stream.verdict.sha256
    if stream.adapter and token < stream.adapter.tok:
        raise PublishError(f"token {token} is older than {stream.adapter.tok}, under which the adapter was published")
    target = folder.stream(name) / "adapter"
    told = {**lineage(folder.name, state, name, settings), "token": token, "sha256": sha256}
    _place(_source(folder, stream.verdict.path), target, sha256, told)
    return Adapter(ref=name, tok=token, path=str(target.relative_to(folder.path)), sha256=sha256)


def promotion(
    folder: RunFolder, state: State, name: str, settings: StreamSettings, why: str, *, force: bool = False
) -> Promote:
    """Publish the stream's adapter as the run's.  Raises PublishError, OSError, and then `promoted/` is as it was."""
    published = state.streams[name].adapter
    assert published
    told = {**lineage(folder.name, state, name, settings), "promoted": {"why": why, "forced": force}}
    _place(_source(folder, published.path), folder.promoted, published.sha256, told)
    return Promote(
        ref=name, path=folder.promoted.name, sha256=published.sha256, why=why, tok=published.tok, force=force or None
    )


def intact(folder: RunFolder, path: str, sha256: str) -> str:
    """Whether the published weights are still those: ok, changed or missing."""
    file = folder.path / path / ADAPTER_FILES[1]
    if not file.is_file():
        return "missing"
    return "ok" if sha256_of(file) == sha256 else "changed"


def sha256_of(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _source(folder: RunFolder, path: str) -> Path:
    try:
        return folder.inside(path)
    except UserError as error:
        raise PublishError(str(error)) from error


def _place(source: Path, target: Path, sha256: str, told: dict[str, Any]) -> None:
    """Make `target` an adapter folder with the files of `source` and a `lineage.json`; untouched if that fails."""
    _fence(target, told)
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
    (staged / FILE).write_text(json.dumps(told, indent=2) + "\n", encoding="utf-8")
    _sync_files(staged)
    _swap(staged, target)


def _fence(target: Path, told: dict[str, Any]) -> None:
    """The token stands beside the weights too, so that the resource itself knows whom it has taken from."""
    try:
        recorded = json.loads((target / FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):  # nothing published yet, or torn by a person: the log's own token was compared before
        return
    if recorded.get("stream") == told["stream"] and int(recorded.get("token") or 0) > told["token"]:
        raise PublishError(f"{target.name} holds weights of token {recorded['token']}, newer than {told['token']}")


def _swap(staged: Path, target: Path) -> None:
    """Puts `staged` into place; at any moment `target` is the old folder or the new one, whole."""
    old = target.with_name(f".{target.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    if target.exists() and _exchange(staged, target):
        old = staged
    else:
        if target.exists():
            target.rename(old)
        staged.rename(target)
    sync_folder(target.parent)
    shutil.rmtree(old, ignore_errors=True)  # only this program has made it


def _exchange(one: Path, other: Path) -> bool:
    """Two names change places in one step; False where that cannot be had (NFS, old C libraries)."""
    here, exchange = -100, 2  # AT_FDCWD and RENAME_EXCHANGE of Linux' renameat2(2)
    try:
        rename = ctypes.CDLL(None).renameat2
    except AttributeError:
        return False
    return bool(rename(here, os.fsencode(one), here, os.fsencode(other), exchange) == 0)


def _sync_files(folder: Path) -> None:
    for path in folder.iterdir():
        with path.open("rb") as file:
            os.fsync(file.fileno())
    sync_folder(folder)
