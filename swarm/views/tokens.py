"""Counts or estimates the tokens that each form of an export costs a language model."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from swarm import config
from swarm.errors import UserError
from swarm.log import Log
from swarm.planning import machine_checks
from swarm.rundir import RunFolder
from swarm.state import fold


def counter(name: str | None, folder: RunFolder) -> Callable[[str], int] | None:
    """A function that counts tokens with the tokenizer of `name`: a stream, a base model (folder or name), or a tokenizer.json.

    None without a name: sizes are then estimated.  Raises UserError if no tokenizer is found.
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
    except Exception as error:  # the library raises a plain Exception
        raise UserError("--tokenizer", f"{path} cannot be read ({error})", "name a tokenizer.json") from error
    return lambda text: len(tokenizer.encode(text, add_special_tokens=False).ids)


def _file(name: str, folder: RunFolder) -> Path:
    if Path(name).is_file():
        return Path(name)
    streams = config.of_run(folder, fold(Log(folder.log).entries()).added).streams
    base = streams[name].base_model if name in streams else name
    found = machine_checks.folder_of(base, "--tokenizer") / "tokenizer.json"
    if not found.is_file():
        raise UserError("--tokenizer", f"{found} is missing", "name a stream, a base model or a tokenizer.json")
    return found


def costs(value: Any, count_tokens: Callable[[str], int] | None) -> list[dict[str, Any]]:
    """Bytes and tokens of each form of the value, cheapest first, with the ratio to compact JSON."""
    from toon import stats

    sizes = {size.form: size for size in stats(value, count_tokens=count_tokens, levels=0).sizes}
    compact = sizes["json"].tokens
    rows = [
        {"form": s.form, "bytes": s.size_bytes, "tokens": s.tokens, "against_json": round(s.tokens / compact, 3)}
        for s in sizes.values()
    ]
    return sorted(rows, key=lambda row: row["tokens"])
