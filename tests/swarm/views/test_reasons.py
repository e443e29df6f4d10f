"""The cause of a failure is read in whatever room there is."""

from __future__ import annotations

import pytest

from swarm.views.reasons import short

BAD_ROW = "prepare: /home/ada/projects/demo/data/bad.jsonl:11: no text; correct the row"


@pytest.mark.parametrize(
    ("characters", "shown"),
    [
        (100, BAD_ROW),
        (70, "/home/ada/projects/demo/data/bad.jsonl:11: no text; correct the row"),
        (40, "bad.jsonl:11: no text; correct the row"),
        (30, "bad.jsonl:11: no text"),
        (18, "bad.jsonl:11: no …"),
    ],
)
def test_a_reason_loses_its_folders_and_the_fix_first_and_what_is_wrong_last(characters: int, shown: str) -> None:
    assert short(BAD_ROW, characters) == shown
    assert len(shown) <= characters


def test_what_is_no_path_is_left_alone() -> None:
    assert short("the disk is full and nothing more can be written", 30) == "…nothing more can be written"
    assert short("train: loss 1/2 and/or nan " * 2, 40) == "…and/or nan train: loss 1/2 and/or nan "
