"""Folders that are complete or absent: written beside their place, hashed into a `manifest.json`, synced and renamed into place.

A crash, a kill or a full disk at any instant leaves either no folder or a complete one, and `verify` finds any later change of a
file.  If two processes write the same folder, the first rename wins and the second one's work is dropped.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

from swarm.files import sync_file, sync_folder, write_whole
from swarm.plainfiles import NotPlain, make_folder, read_file, remove_tree, rename
from swarm.weights import MANIFEST, sha256_in_run

MANIFEST_BYTES = 64 << 20
"""More than the facts of a folder and the hashes of its files take."""


class Torn(Exception):
    """A folder is not whole; the text says why."""


def seal(folder: Path, facts: dict[str, Any]) -> str:
    """Write the manifest of a finished folder and sync all of it; returns the manifest's sha256."""
    files = {}
    for path in sorted(path for path in folder.rglob("*") if path.is_file() and path.name != MANIFEST):
        files[str(path.relative_to(folder))] = {"bytes": path.stat().st_size, "sha256": sha256_in_run(path)}
        sync_file(path)
    write_whole(folder / MANIFEST, json.dumps({**facts, "files": files}, indent=1, sort_keys=True) + "\n")
    sync_folder(folder)
    return sha256_in_run(folder / MANIFEST)


def publish(staged: Path, place: Path) -> None:
    """Rename a sealed folder into place; if another process was first, its folder stays and this one is removed."""
    make_folder(place.parent)
    try:
        rename(staged, place)
    except OSError:
        if not (place / MANIFEST).is_file():
            raise
        remove_tree(staged)
    sync_folder(place.parent)


@contextmanager
def new_folder(out: Path) -> Iterator[Path]:
    """A folder to fill; then it is synced and renamed to `out`, which must not exist.  Nothing is left where the block fails."""
    out.parent.mkdir(parents=True, exist_ok=True)
    staged = Path(mkdtemp(prefix=f".{out.name}.", dir=out.parent))
    try:
        yield staged
        for path in staged.rglob("*"):
            if path.is_file():
                sync_file(path)
        sync_folder(staged)
        staged.chmod(0o755)  # mkdtemp makes it the owner's alone
        staged.rename(out)
        sync_folder(out.parent)
    except BaseException:
        shutil.rmtree(staged, ignore_errors=True)
        raise


def verify(folder: Path, sha256: str | None = None) -> dict[str, Any]:
    """The manifest's facts; raises Torn unless it has this hash and every file is there with the size and hash it was sealed with."""
    try:
        sealed_as = read_file(folder / MANIFEST, MANIFEST_BYTES)
        manifest = json.loads(sealed_as)
        files = manifest["files"].items()
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise Torn(f"{folder.name} has no readable {MANIFEST}") from error
    if sha256 not in (None, hashlib.sha256(sealed_as).hexdigest()):
        raise Torn(f"{folder.name} was sealed anew: its {MANIFEST} is another")
    for name, sealed in files:
        path = folder / name
        if not path.is_file():
            raise Torn(f"{folder.name} lacks {name}")
        if path.stat().st_size != sealed["bytes"] or _sha256(path) != sealed["sha256"]:
            raise Torn(f"{name} of {folder.name} is not what was sealed")
    return {key: value for key, value in manifest.items() if key != "files"}


def _sha256(path: Path) -> str:
    try:
        return sha256_in_run(path)
    except NotPlain as error:
        raise Torn(str(error)) from error
