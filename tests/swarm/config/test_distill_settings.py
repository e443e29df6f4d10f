"""`method: distill`: what cannot be set beside it is a mistake of the config."""

from __future__ import annotations

from pathlib import Path

import pytest

from swarm.config import load
from swarm.errors import UserErrors

DATA = "datasets: [{path: rows.jsonl, type: prompt_completion}]"


def loaded(folder: Path, given: str) -> object:
    (folder / "rows.jsonl").write_text("{}\n")
    lines = ["base_model: tiny-toon", "method: distill", given, *([] if given.startswith("datasets") else [DATA])]
    (folder / "my.yaml").write_text("name: q\nstreams:\n  one:\n" + "".join(f"    {line}\n" for line in lines))
    return load(Path("my.yaml"), cwd=folder).run.streams["one"]


@pytest.mark.parametrize(
    ("given", "what"),
    [
        ("train_on_inputs: true", "train_on_inputs: distill learns from the model's own answers; leave it out"),
        ("train_on: marked", "train_on: distill learns the last answer of each row"),
        ("demonstration: 'so: {completion}'", r"demonstration: it names completion; write \{prompt\} and"),
        ("demonstration: '{prompt} {completion} {why}'", "demonstration: it names completion and prompt and why"),
        ("demonstration: '{prompt} {completion'", "demonstration: cannot be read"),
        ("demonstration: 'nothing'", "demonstration: names no column"),
        ("rollout_temperature: 0", "rollout_temperature: expected a number above 0"),
        ("kl_lambda: 0.1", "kl_lambda: unknown setting"),
        ("packing: bfd", "trl cannot train distill .* with packing; leave packing out, or take another"),
        ("engine: shared", "shared cannot train distill"),
        ("datasets: [{path: rows.jsonl, type: text}]", "type: distill learns from alpaca or auto or chatml"),
    ],
)
def test_what_distillation_cannot_have_is_refused_where_it_is_written(tmp_path: Path, given: str, what: str) -> None:
    with pytest.raises(UserErrors, match=what):
        loaded(tmp_path, given)


def test_a_demonstration_may_be_written_otherwise(tmp_path: Path) -> None:
    given = "demonstration: '{completion} answers {prompt}; {{you}}?'"
    assert vars(loaded(tmp_path, given))["demonstration"] == "{completion} answers {prompt}; {{you}}?"
