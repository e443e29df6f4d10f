"""`swarm tune` is `swarm run` with a search: its words become settings, and a word that searches nothing is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from swarm import config
from swarm.cli.tuning import overrides, split
from swarm.errors import UserError

TEXT = "name: x\ndefaults: {base_model: tiny-toon, datasets: [{path: a.jsonl}], eval_steps: 10, save_steps: 10}\nstreams: {one: {}}\n"


def test_lists_and_ranges_are_searched_and_other_words_are_settings(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"messages": []}\n' * 40)
    (tmp_path / "my.yaml").write_text(TEXT)
    words = ["lora_r=4,8,16", "learning_rate=1e-4..1e-2:log", "max_steps=40..60", "use_dora=true", "name=tuned"]
    space, rest = split(words)
    assert rest == ["use_dora=true", "name=tuned"]
    made = config.load(Path("my.yaml"), [*rest, *overrides(space, 5, 1, 10, 2)], cwd=tmp_path).run
    assert made.name == "tuned" and len(made.streams) == 5
    for trial in made.streams.values():
        assert trial.lora_r in (4, 8, 16) and 1e-4 <= trial.learning_rate <= 1e-2 and trial.use_dora
        assert trial.max_steps in range(40, 61)
    assert made.halving is not None and (made.halving.first_step, made.halving.reduction) == (10, 2)


@pytest.mark.parametrize("words", [[], ["lora_r=4"], ["datasets=[{path: a, type: text}]"]])
def test_without_anything_to_search_it_says_how(words: list[str]) -> None:
    with pytest.raises(UserError, match=r"tune: nothing is searched; write KEY=A,B,C or KEY=LOW\.\.HIGH"):
        split(words)


def test_numbers_keep_their_points() -> None:
    assert split(["lora_dropout=0.05..0.2", "weight_decay=0.0,0.1"])[0] == {
        "lora_dropout": "{low: 0.05, high: 0.2}", "weight_decay": "[0.0, 0.1]",
    }  # fmt: skip
