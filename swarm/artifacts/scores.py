"""Reads the scores row by row that an evaluator left in a stream's folder, checked against the hash that the log has of them."""

from __future__ import annotations

from swarm import figures
from swarm.policy.comparison import RowScores
from swarm.rundir import RunFolder
from swarm.weights import sha256_of
from toon import ToonError, decode

FILE = "scores.toon"


class ScoresError(Exception):
    """The scores cannot be used; the text says why."""


def of_rows(folder: RunFolder, stream: str, sha256: str, metric: str) -> RowScores:
    """Raises ScoresError where the file is not the one that was reported, or lacks the figure."""
    path, name = folder.stream(stream) / FILE, figures.of(metric).compared_as or metric
    try:
        if sha256_of(path) != sha256:
            raise ScoresError(f"{FILE} is not what the evaluator reported; `swarm resume` evaluates it again")
        rows = decode(path.read_text(encoding="utf-8"))[name]
        columns = {key: [float(row[key]) for row in rows] for key in ("adapter", "base", "weight")}
    except (OSError, ToonError, KeyError, TypeError, ValueError) as error:
        raise ScoresError(f"{FILE} cannot be read ({type(error).__name__}: {error})") from error
    return RowScores(**columns)
