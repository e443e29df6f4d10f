"""The bare base's figures on held-out rows: what every adapter is measured against, computed once and shared by the streams.

A figure is kept beside the rows it was measured on, in a file whose name hashes the base, how it is held and what was asked.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar, cast

from swarm.settings import StreamSettings
from trainer import bases
from trainer.loading import compute_dtype
from trainer.place import Place
from trainer.whole import sha256_of, write_text

Figure = TypeVar("Figure", float, list[str])

HUB_BLOB = re.compile(r"[0-9a-f]{64}")
"""The hub's cache names a file of weights by its sha256."""


def base_sha256(folder: Path) -> str:
    """Hash of a base's config and weights."""
    digest = hashlib.sha256((folder / "config.json").read_bytes())
    for path in bases.shards_of(folder):
        blob = path.resolve().name
        digest.update((blob if HUB_BLOB.fullmatch(blob) else sha256_of(path)).encode())
    return digest.hexdigest()


def yardstick(
    what: str, prepared: Path, settings: StreamSettings, place: Place, measure: Callable[[], Figure]
) -> Figure:
    """The base's figures called `what`; measured where no stream has measured them on these rows before."""
    held = f"{settings.adapter}-{compute_dtype(settings, place)}-{'gpu' if place.on_gpu else 'cpu'}".replace(
        "torch.", ""
    )
    key = hashlib.sha256(f"{base_sha256(bases.folder_of(settings.base_model))} {held} {what}".encode()).hexdigest()
    path = prepared / f"base-{what.partition(' ')[0]}-{held}-{key[:16]}.json"
    if path.is_file():
        return cast("Figure", json.loads(path.read_text(encoding="utf-8")))
    measured = measure()
    write_text(path, json.dumps(measured, ensure_ascii=False) + "\n")
    return measured
