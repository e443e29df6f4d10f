"""Scores row by row: read where they are what the evaluator reported, and whoever hands in others is named."""

from __future__ import annotations

from pathlib import Path

import pytest

from swarm.artifacts.scores import ScoresError, of_streams
from swarm.rundir import RunFolder
from swarm.weights import sha256_of
from toon import encode

ROWS = [{"adapter": 0.5, "base": 2.0, "weight": 3}, {"adapter": 0.25, "base": 1.0, "weight": 4}]


def written(folder: RunFolder, stream: str, document: object) -> str:
    path = folder.stream(stream) / "scores.toon"
    path.parent.mkdir(parents=True)
    path.write_text(document if isinstance(document, str) else encode(document))
    return sha256_of(path)


def test_each_figure_is_a_table_and_a_perplexity_is_read_as_the_loss_it_is_made_of(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    reported = {"wide": written(folder, "wide", {"eval_loss": ROWS})}
    for metric in ("eval_loss", "perplexity"):
        found = of_streams(folder, reported, metric)["wide"]
        assert (found.adapter, found.base, found.weight) == ([0.5, 0.25], [2.0, 1.0], [3.0, 4.0])


@pytest.mark.parametrize(
    ("document", "why"),
    [
        ({"exact_match": ROWS}, "cannot be read (KeyError"),
        ("x: [", "cannot be read"),
        ({"eval_loss": [{"adapter": "a", "base": 1, "weight": 1}]}, "cannot be read (ValueError"),
        ({"eval_loss": [{"adapter": 1, "base": 1, "weight": 0}]}, "has no finite eval_loss for each row"),
        ({"eval_loss": [{"adapter": "nan", "base": 1, "weight": 1}]}, "has no finite eval_loss for each row"),
        ({"eval_loss": []}, "has no finite eval_loss for each row"),
        ({"eval_loss": ROWS[:1]}, "has other rows than that of wide"),
    ],
)
def test_scores_that_cannot_be_compared_name_their_stream(tmp_path: Path, document: object, why: str) -> None:
    folder = RunFolder(tmp_path)
    reported = {"wide": written(folder, "wide", {"eval_loss": ROWS}), "odd": written(folder, "odd", document)}
    with pytest.raises(ScoresError) as caught:
        of_streams(folder, reported, "eval_loss")
    assert caught.value.stream == "odd"
    assert str(caught.value).startswith(f"scores.toon {why}")


def test_a_file_that_was_changed_since_is_not_compared(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    reported = {"wide": written(folder, "wide", {"eval_loss": ROWS})}
    (folder.stream("wide") / "scores.toon").write_text(encode({"eval_loss": ROWS[::-1]}))
    with pytest.raises(ScoresError, match="is not what the evaluator reported"):
        of_streams(folder, reported, "eval_loss")
