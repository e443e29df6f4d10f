"""What an export costs a language model: tokens of its forms, counted with a tokenizer or estimated; it reads no run itself."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from swarm.errors import UserError
from swarm.rundir import RunFolder


def counter(name: str | None, folder: RunFolder) -> Callable[[str], int] | None:
    """Counts tokens with the tokenizer that `name` says: a stream of the run, a base model's folder or name, or a tokenizer.json.

    None without a name: sizes are estimated.  Raises UserError if there is none of that name.
    """
    if name is None:
        return None
    path = _file(name, folder)
    try:
        from tokenizers import Tokenizer
    except ModuleNotFoundError:
        raise UserError("--tokenizer", "needs the package tokenizers", "pip install 'toonswarm[train]'") from None
    try:
        tokenizer = Tokenizer.from_file(str(path))
    except Exception as error:  # the library has no class of its own for it
        raise UserError("--tokenizer", f"{path} cannot be read ({error})", "name a tokenizer.json") from error
    return lambda text: len(tokenizer.encode(text, add_special_tokens=False).ids)


def _file(name: str, folder: RunFolder) -> Path:
    if Path(name).is_file():
        return Path(name)
    from swarm.inbox import settings_of

    settings = settings_of(folder)
    base = settings.streams[name].base_model if settings and name in settings.streams else name
    found = base_folder(base) / "tokenizer.json"
    if not found.is_file():
        raise UserError("--tokenizer", f"{found} is missing", "name a stream, a base model or a tokenizer.json")
    return found


def base_folder(name: str) -> Path:
    """Where a base model lies; only the trainer knows, and it is asked in a process of its own.

    Raises UserError if it is not here.
    """
    command = [sys.executable, "-m", "trainer.bases", "--check", name, "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    folder = json.loads(done.stdout)["folder"] if done.returncode == 0 else None
    if folder is None:
        why = done.stderr.strip().splitlines()[-1:] or ["it is not on this machine"]
        raise UserError("--tokenizer", f"{name}: {why[0]}", "name a stream, a base model or a tokenizer.json")
    return Path(folder)


def costs(value: Any, count_tokens: Callable[[str], int] | None) -> list[dict[str, Any]]:
    """Bytes and tokens of the value's forms, cheapest first, each beside compact JSON."""
    from toon import stats

    sizes = {size.form: size for size in stats(value, count_tokens=count_tokens, levels=0).sizes}
    compact = sizes["json"].tokens
    rows = [
        {"form": s.form, "bytes": s.size_bytes, "tokens": s.tokens, "against_json": round(s.tokens / compact, 3)}
        for s in sizes.values()
    ]
    return sorted(rows, key=lambda row: row["tokens"])
