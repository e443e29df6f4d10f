"""Reads the scores row by row that an evaluator left in a stream's folder, checked against the hash that the log has of them."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import chain
from math import isfinite

from swarm import figures
from swarm.plainfiles import LOG_BYTES, read_text
from swarm.policy.comparison import RowScores
from swarm.rundir import RunFolder
from swarm.weights import sha256_in_run
from toon import ToonError, decode

FILE = "scores.toon"


class ScoresError(Exception):
    """The scores cannot be used; the text says why."""

    def __init__(self, why: str, stream: str = "") -> None:
        super().__init__(why)
        self.stream = stream


def of_rows(folder: RunFolder, stream: str, sha256: str, metric: str) -> RowScores:
    """`sha256`: the file's, or its first digits.  Raises ScoresError where the file is not the one that was reported, or lacks the figure."""
    path, name = folder.stream(stream) / FILE, figures.of(metric).compared_as or metric
    try:
        if not sha256_in_run(path).startswith(sha256):
            raise ScoresError(f"{FILE} is not what the evaluator reported; put it back as it was, then `swarm resume`")
        rows = decode(read_text(path, LOG_BYTES))[name]
        columns = {key: [float(row[key]) for row in rows] for key in ("adapter", "base", "weight")}
    except (OSError, ToonError, KeyError, TypeError, ValueError) as error:
        raise ScoresError(f"{FILE} cannot be read ({type(error).__name__}: {error})") from error
    if not columns["weight"] or min(columns["weight"]) <= 0 or not all(map(isfinite, chain(*columns.values()))):
        raise ScoresError(f"{FILE} has no finite {name} for each row")
    return RowScores(**columns)


def of_streams(folder: RunFolder, reported: Mapping[str, str], metric: str) -> dict[str, RowScores]:
    """By stream, of the hashes by stream.  Raises ScoresError, with the stream that is to blame."""
    found: dict[str, RowScores] = {}
    for stream, sha256 in reported.items():
        try:
            found[stream] = of_rows(folder, stream, sha256, metric)
        except ScoresError as error:
            error.stream = stream
            raise
        if len(found[stream].weight) != len(next(iter(found.values())).weight):
            raise ScoresError(f"{FILE} has other rows than that of {next(iter(found))}", stream)
    return found
