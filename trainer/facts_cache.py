"""Facts of bases kept in the user's cache folder under a hash of the base's files, since transformers takes seconds to import."""

from __future__ import annotations

import hashlib
import json
import os
from contextlib import suppress
from importlib import metadata
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from swarm.facts import BaseFacts
from swarm.files import write_whole
from swarm.weights import sha256_of
from trainer.hub import CODE, SMALL_FILES

FORMAT = 10
"""Of the facts in the cache; raised when the same files would give others."""
DECIDING = ("torch", "transformers", "peft", "bitsandbytes")
"""Packages whose versions decide what a base's facts are."""

FACTS = TypeAdapter(BaseFacts)


def key_of(folder: Path, weights: list[Path], *, trust_remote_code: bool) -> str:
    """Of all that the facts depend on: small files by content, large ones by name, size and time."""
    names = sorted({path for pattern in (*SMALL_FILES, CODE) for path in folder.glob(pattern) if path.is_file()})
    small = {path.name: sha256_of(path) for path in names}
    large = [(path.name, path.stat().st_size, path.stat().st_mtime_ns) for path in weights]
    versions = [metadata.version(package) for package in DECIDING]
    whole = json.dumps([FORMAT, versions, trust_remote_code, small, large])
    return hashlib.sha256(whole.encode()).hexdigest()


def _cache_file(key: str) -> Path | None:
    """None where nobody has a home."""
    try:
        home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    except RuntimeError:
        return None
    return home / "toonswarm" / "bases" / f"{key}.json"


def found(key: str) -> BaseFacts | None:
    """A file that cannot be read is as good as none: the facts are made again."""
    path = _cache_file(key)
    with suppress(OSError, ValidationError):
        return FACTS.validate_json(path.read_bytes()) if path else None
    return None


def keep(key: str, facts: BaseFacts) -> None:
    """Without a place to write, the next command takes some seconds again."""
    if path := _cache_file(key):
        with suppress(OSError):
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            write_whole(path.resolve(), FACTS.dump_json(facts).decode(), mode=0o600)
