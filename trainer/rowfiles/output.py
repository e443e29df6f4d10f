"""A new file of rows and the manifest beside it, `NAME.manifest.json`: what it was made from, by which command, and its counts.

Neither is ever put over an existing file unless that is asked for.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

from swarm.errors import UserError
from swarm.files import sync_file, sync_folder
from swarm.weights import sha256_of

Record = Mapping[str, Any]


@dataclass(frozen=True)
class Made:
    """What came of a command."""

    manifest: dict[str, Any]
    line: str
    """The same in a sentence."""
    warnings: Sequence[str] = field(default=())


def manifest_of(out: Path) -> Path:
    return out.with_name(f"{out.name}.manifest.json")


def refuse_existing(out: Path, *, force: bool, endings: Sequence[str] = (".jsonl",)) -> None:
    """Before any work: raises UserError where a file stands there, or the ending is another."""
    if out.suffix not in endings:
        raise UserError("--out", f"{out} is no {' or '.join(endings)} file", "name one")
    for path in (out, manifest_of(out)):
        if path.exists() and not force:
            raise UserError("--out", f"{path} exists", "name another file, or give --force")


def jsonl(rows: Iterable[Record]) -> str:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def written(
    command: str, out: Path, text: str, *, force: bool, inputs: Sequence[Path] = (), **facts: Any
) -> dict[str, Any]:
    """Writes both files; returns the manifest.  Raises UserError, also where one of them would replace an input."""
    for path in inputs:
        if any(made.exists() and made.samefile(path) for made in (out, manifest_of(out))):
            raise UserError("--out", f"{path} is one of its inputs, and would be lost", "name another file")
    sources = [{"path": str(path), "sha256": sha256_of(path)} for path in inputs]
    _write(out, text, force=force)
    manifest = {
        "command": f"swarm data {command}", "version": metadata.version("toonswarm"), "inputs": sources, **facts,
        "out": str(out), "sha256": sha256_of(out),
    }  # fmt: skip
    _write(manifest_of(out), json.dumps(manifest, indent=1, ensure_ascii=False) + "\n", force=force)
    return manifest


def _write(path: Path, text: str, *, force: bool) -> None:
    staged = path.with_name(f".{path.name}.{os.getpid()}.staged")
    try:
        staged.write_text(text, encoding="utf-8")
        sync_file(staged)
        if force:
            staged.replace(path)
        else:
            os.link(staged, path)  # unlike a rename it never replaces a file
        sync_folder(path.parent)
    except FileExistsError:
        raise UserError("--out", f"{path} exists", "name another file, or give --force") from None
    except OSError as error:
        raise UserError("--out", f"{path} cannot be written ({error.strerror})", "name another place") from error
    finally:
        with suppress(OSError):
            staged.unlink()
