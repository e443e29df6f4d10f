"""Reads a config file and the command line's overrides into checked settings, and notes where each setting was written.

    config = load(Path("my.yaml"), ["streams.wide.lora_r=64"], cwd=Path.cwd())

An override without `streams.` or `defaults.` (`datasets.0.path=x`) applies to every stream.  All problems are raised
together as `UserErrors`.  The settings are defined in `swarm.settings`.  Nothing here checks GPUs, memory or the network:
callers pass such checks as `further`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import reduce
from pathlib import Path
from typing import Any

from swarm.config import added, checks, contradictions, layers, pairs, paths, replicas
from swarm.config.tree import IN_DEFAULTS, Node, Problems, Spot, joined, only
from swarm.events import Add
from swarm.plainfiles import opener
from swarm.redaction import holds_token
from swarm.rundir import RunFolder
from swarm.settings import RunSettings

__all__ = ["Config", "load", "of_run", "read_tree", "text_of"]

BYTES_AT_MOST = 1 << 20
"""A larger file is refused: it is probably a data file, named by mistake."""
CONFIG_FIX = "correct the path; `swarm init` writes a config to begin with"


@dataclass(frozen=True, slots=True)
class Config:
    """A config after reading."""

    path: Path
    run: RunSettings
    origins: dict[str, str]
    """Every setting by its path (`streams.wide.lora_r`) and where it came from: `my.yaml:15`, `my.yaml:8 (defaults)`, `command line` or `built-in`."""

    def place(self, stream: str, key: str) -> str:
        """Where a stream's setting was written, as errors name it: `my.yaml:8: defaults.base_model`."""
        origin = self.origins[f"streams.{stream}.{key}"]
        if origin.endswith(IN_DEFAULTS):
            return f"{origin.removesuffix(IN_DEFAULTS)}: defaults.{key}"
        return f"{origin}: streams.{stream}.{key}"

    def dump(self) -> str:
        """YAML of every effective setting with its origin; `load` reads it back to the same settings."""
        from swarm.config.dump import text

        return text(self.run, self.origins)


Further = Callable[[Node, RunSettings | None, Problems], None]
"""A further check of the merged tree, which adds problems.  The settings are None if the tree has mistakes already."""


def load(
    path: Path,
    overrides: Sequence[str] = (),
    *,
    cwd: Path,
    further: Further | None = None,
    files: bool = True,
    of_a_run: bool = False,
) -> Config:
    """Read and check a config; changes nothing on disk.  Raises UserErrors with all problems, those of `further` included.

    Without `files` what the config names need not be there (any more).  `of_a_run`: it lies in a run folder (see `plainfiles`).
    """
    problems = Problems()
    root = layers.merged(_read(path, cwd, problems, of_a_run=of_a_run), overrides, cwd, problems)
    _refuse_tokens(root, problems)
    root = pairs.spread(replicas.expanded(root, problems), problems)
    root = paths.absolute(root, problems) if files else root
    run = checks.checked(root, problems)
    if run is not None:
        contradictions.check(root, run, problems)
    if further is not None:
        further(root, run, problems)
    problems.raise_any()
    assert run is not None, "pydantic refused the config, but no problem was reported"
    return Config(path, run, _origins(root, run.dumped()))


def of_run(folder: RunFolder, joined: Iterable[Add]) -> RunSettings:
    """The settings of a run with the streams that joined it (`State.added`), even if its data files are gone; without streams
    if no run was started yet.

    Raises UserErrors.
    """
    if folder.config.exists():
        read = load(folder.config, cwd=folder.path, files=False, of_a_run=True).run
        return reduce(added.settings_of, joined, read)
    return RunSettings.model_construct(name=folder.name, streams={})


def read_tree(path: Path, cwd: Path) -> Node:
    """A YAML or TOML file as it is written, whosever config it is.  Raises UserErrors."""
    problems = Problems()
    root = _read(path, cwd, problems, of_a_run=False)
    problems.raise_any()
    return root


def _refuse_tokens(node: Node, problems: Problems) -> None:
    """Add a problem for each access token: a config is copied into the run folder, which others may read."""
    if isinstance(node.value, str) and holds_token(node.value):
        fix = "take it out and make it invalid: HF_TOKEN or `hf auth login` hands tokens over"
        problems.add(node.at, node.path, "holds an access token or a password", fix)
    for _, below in node.steps():
        _refuse_tokens(below, problems)


def _read(path: Path, cwd: Path, problems: Problems, *, of_a_run: bool) -> Node:
    at = Spot(str(path), 0, cwd)
    whole = cwd / path
    text = text_of(whole, at, opener if of_a_run else None)
    if whole.suffix == ".toml":
        from swarm.config import tomlfile

        root = tomlfile.read(text, str(path), whole.parent.absolute())
    else:
        from swarm.config import yamlfile

        root = yamlfile.read(text, str(path), whole.parent.absolute(), problems)
    if not isinstance(root.value, dict):
        raise only(
            root.at,
            "is empty" if root.value is None else "holds no `key: value` settings",
            "`swarm init` writes a config to begin with",
        )
    return root


def text_of(path: Path, at: Spot, how: Callable[[str, int], int] | None = None, *, fix: str = CONFIG_FIX) -> str:
    """What a config or a goal file holds.  Raises UserErrors."""
    try:
        with open(path, "rb", opener=how) as file:
            data = file.read(BYTES_AT_MOST + 1)
    except (OSError, ValueError) as error:
        raise only(at, _why_unread(error), fix) from error
    if len(data) > BYTES_AT_MOST:
        raise only(
            at, f"larger than {BYTES_AT_MOST >> 20} MiB, so no config", "name the config; data files are named in it"
        )
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise only(
            Spot(at.source, line, at.folder), f"byte {error.start} is not UTF-8", "save the file as UTF-8"
        ) from error


def _why_unread(error: OSError | ValueError) -> str:
    match error:
        case FileNotFoundError():
            return "no such file"
        case IsADirectoryError():
            return "a folder, not a file"
        case OSError(strerror=str(why)):
            return f"cannot be read ({why})"
        case _:
            return f"cannot be read ({error})"


def _origins(root: Node, dumped: dict[str, Any]) -> dict[str, str]:
    """The origin of every setting of the whole run; lists of plain values count as one."""
    found: dict[str, str] = {}
    _note_origins(root, dumped, "", found)
    return found


def _note_origins(node: Node | None, value: Any, path: str, found: dict[str, str]) -> None:
    match value:
        case dict() if value:
            for key, below in value.items():
                _note_origins(node.child(key) if node else None, below, joined(path, key), found)
        case [dict(), *_]:
            for number, below in enumerate(value):
                _note_origins(node.child(number) if node else None, below, joined(path, number), found)
        case _:
            found[path] = node.origin if node else "built-in"
