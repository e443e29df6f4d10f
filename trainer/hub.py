"""Bases on the hub: their files downloaded into its cache on this machine, and what it refuses in a user's words."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from swarm.errors import UserError
from swarm.facts import BaseFacts

SMALL_FILES = ("*.json", "*.jinja", "*.model", "tokenizer*", "vocab.txt", "merges.txt")
CODE = "*.py"
DISK_SPARE_BYTES = 1 << 30


def folder_of(name: str, *, local_only: bool, code: bool = False, weights: bool = True) -> Path:
    """In the hub's cache; what is not there is downloaded unless `local_only`.  Raises UserError."""
    from huggingface_hub import snapshot_download

    patterns = [*SMALL_FILES, *([CODE] if code else []), *(["*.safetensors"] if weights else [])]
    with _errors(name):
        return Path(snapshot_download(name, allow_patterns=patterns, local_files_only=local_only))


def sizes_of(name: str) -> dict[str, int]:
    """Bytes of each of a base's files on the hub.  Raises UserError."""
    from huggingface_hub import HfApi

    with _errors(name):
        info = HfApi().model_info(name, files_metadata=True)
    return {file.rfilename: file.size or 0 for file in info.siblings or []}


def is_offline() -> bool:
    return os.environ.get("HF_HUB_OFFLINE", "0").lower() in ("1", "true", "yes", "on")


def refuse_full_disk(facts: BaseFacts) -> None:
    """Raises UserError where what is still to be downloaded has no room."""
    from huggingface_hub.constants import HF_HUB_CACHE

    place = next(path for path in (Path(HF_HUB_CACHE), *Path(HF_HUB_CACHE).parents) if path.is_dir())
    free_bytes = shutil.disk_usage(place).free
    if facts.bytes + DISK_SPARE_BYTES > free_bytes:
        what = f"{facts.name} takes {facts.bytes / 1e9:.1f} GB on disk, {free_bytes / 1e9:.1f} GB are free in {place}"
        raise _error(what, "free some space, or set HF_HOME to another disk")


@contextmanager
def _errors(name: str) -> Iterator[None]:
    """What the hub refuses, in a user's words."""
    from huggingface_hub.errors import (
        GatedRepoError,
        HfHubHTTPError,
        HFValidationError,
        LocalEntryNotFoundError,
        OfflineModeIsEnabled,
        RepositoryNotFoundError,
    )

    try:
        yield
    except GatedRepoError as problem:
        raise _error(f"{name} is gated", "accept its terms on the hub and log in with `hf auth login`") from problem
    except RepositoryNotFoundError as problem:
        raise _error(f"the hub has no {name}", "check the spelling; a private model needs `hf auth login`") from problem
    except HFValidationError as problem:
        raise _error(
            f"{name} is neither a folder nor a hub name", "correct it; `tiny-toon` ships with the product"
        ) from problem
    except (LocalEntryNotFoundError, OfflineModeIsEnabled) as problem:
        fix = "go online and unset HF_HUB_OFFLINE, name a local folder, or use `tiny-toon`"
        raise _error(f"{name} is not on this machine", fix) from problem
    except (HfHubHTTPError, OSError) as problem:
        words = " ".join(str(problem).split())[:200]
        raise _error(f"{name} cannot be downloaded ({words})", "check the network, try again") from problem


def _error(what: str, fix: str) -> UserError:
    return UserError("base_model", what, fix)
