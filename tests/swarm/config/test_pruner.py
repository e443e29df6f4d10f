"""`pruner:` (issue 21, G21): what is wrong in it is found with its place, and `swarm tune --pruner` writes it."""

from __future__ import annotations

import importlib.util
from importlib.util import find_spec
from pathlib import Path

import pytest

from swarm import config
from swarm.cli.tuning import overrides, split
from swarm.errors import UserErrors
from swarm.planning import machine_checks
from tests.swarm.config.conftest import Loading

HEAD = "name: x\ndefaults: {base_model: tiny-toon, datasets: [{path: data/train.jsonl}], max_steps: 40, eval_steps: 10, save_steps: 10}\nstreams: {one: {}, two: {}}\n"


@pytest.mark.parametrize(
    ("written", "problem"),
    [
        ("pruner: median", r"pruner: expected settings, got 'median'; write `\{type: median\}`"),
        ("pruner: {type: medain}", r"pruner\.type: 'medain' is not one of median, .*; did you mean `median`"),
        ("pruner: {type: median, percentile: 25}", r"pruner\.percentile: is no setting of median; write it with `type: percentile`"),
        ("pruner: {type: median, bootstrap_count: 2}", r"write it with `type: successive_halving` or `type: hyperband`"),
        ("pruner: {type: percentile}", r"pruner\.type: percentile needs `percentile`"),
        ("pruner: {type: patient}", r"pruner\.type: patient needs `patience`"),
        ("pruner: {type: threshold, n_warmup_steps: 10}", r"pruner\.type: threshold needs `upper` or `lower`"),
        ("pruner: {type: threshold, lower: 2, upper: 1}", r"pruner\.lower: 2 is above upper, 1"),
        ("pruner: {type: median, min_delta: 0.1}", r"pruner\.min_delta: is nothing without `patience`"),
        ("pruner: {type: hyperband, bootstrap_count: 2}", r"pruner\.bootstrap_count: hyperband needs `max_resource`"),
        ("pruner: {type: median}\nhalving: {first_step: 10}", r"pruner: halving ends streams early too; leave one of them out"),
        ("pruner: {type: median}\ndefaults: {eval_steps: null}", r"eval_steps: a pruner goes by the held-out loss on the way, which is not measured"),
        ("pruner: {type: median}\ndefaults: {save_steps: 25}", r"eval_steps: a pruner is asked at step 50 first, which is not before the end: `max_steps` is 40"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_found_with_its_place(loading: Loading, written: str, problem: str) -> None:
    pruner, _, defaults = written.partition("\ndefaults: ")
    head = HEAD
    for key in ("eval_steps", "save_steps"):
        if key in defaults:
            head = head.replace(f"{key}: 10", defaults.strip("{}"))
    with pytest.raises(UserErrors, match=problem):
        loading(f"{head}{pruner}\n")


def test_a_machine_without_optuna_is_found_before_the_run(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (project / "my.yaml").write_text(f"{HEAD}pruner: {{type: median}}\n")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "optuna" else find_spec(name))
    monkeypatch.setattr(machine_checks, "inspected", lambda *_: ({}, {}))
    with pytest.raises(UserErrors, match=r"pruner: optuna is not installed; pip install 'toonswarm\[search\]'"):
        config.load(Path("my.yaml"), cwd=project, further=machine_checks.Inspection().look)


def test_tune_writes_it_with_the_settings_that_are_typed_beside(project: Path) -> None:
    (project / "my.yaml").write_text(HEAD)
    space, rest = split(["lora_r=4,8,16", "pruner.n_startup_trials=2"])
    words = ["pruner.type=median", *rest, *overrides(space, 3, 1, None, 3)]
    made = config.load(Path("my.yaml"), words, cwd=project).run
    assert made.pruner is not None and made.pruner.keywords() == {"n_startup_trials": 2} and made.halving is None
