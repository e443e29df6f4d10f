"""D23, X02: the table of optimizers takes each one's best rate, is made in turns, and says that it is void where its control moves."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.benchmarks import bench_duo
from tests.benchmarks.bench_duo import ARMS, FIGURES, RATES, SEEDS, Asked, Trial, best_rates, main, missing, table


def measured(found: dict[Trial, dict[str, float]], trial: Trial, eval_seconds: float = 1.0) -> None:
    """A loss that is the lower, the nearer its rate is to the second one."""
    _, rate, seed = trial
    loss = 1 + abs(RATES.index(rate) - 1) + seed / 10
    found[trial] = {**dict.fromkeys(FIGURES, 1.0), "held-out loss": loss, "eval s": eval_seconds}


def all_measured(slow: str = "") -> dict[Trial, dict[str, float]]:
    found: dict[Trial, dict[str, float]] = {}
    while trials := missing(found, RATES):
        measured(found, trials[0], eval_seconds=1.2 if trials[0][0] == slow else 1.0)
    return found


def test_each_arm_is_tried_with_each_rate_and_then_in_turns_with_other_seeds_at_its_best() -> None:
    found = all_measured()
    assert best_rates(found, RATES) == dict.fromkeys(ARMS, RATES[1])
    order = list(found)
    assert len(order) == len(ARMS) * (len(RATES) + SEEDS)
    assert order[-len(ARMS) :] == [(arm, RATES[1], SEEDS) for arm in ARMS]
    lines = table(found, Asked()).splitlines()
    assert lines[0] == "tiny-toon on cpu:" and len(lines) == 4 + len(ARMS) + 2
    assert "| AdamW / AdamW | 0.001 | 1 ± 0 | 1.2 ± 0.1 |" in lines[4]
    assert lines[-1] == "The time of evaluation, which no optimizer changes, differs by 0%."


def test_a_table_whose_control_moves_is_void() -> None:
    assert table(all_measured(slow="blend"), Asked()).endswith(
        "Void: the time of evaluation, which no optimizer changes, differs by 20%."
    )


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """One arm, two steps, a few rows."""
    for name, value in {"ARMS": {"Lion / Lion": ARMS["Lion / Lion"]}, "SEEDS": 2, "ROWS": 2}.items():
        monkeypatch.setattr(bench_duo, name, value)
    keys = ("datasets", "test_datasets")
    models = {
        name: {**model, **{key: [{**model[key][0], "limit": 8}] for key in keys}}
        for name, model in bench_duo.MODELS.items()
    }
    changes = {"max_steps": 2, "save_steps": 2, "eval_steps": 2, "micro_batch_size": 2, "models": models}
    monkeypatch.setattr(bench_duo, "COMMON", {**bench_duo.COMMON, **changes})


@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.usefixtures("few")
def test_it_is_made_on_a_base_and_a_device_of_ones_own_by_one_override(
    base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """X02: the table names both; the results of one base are not continued with another."""
    file = tmp_path / "duo.jsonl"
    asked = [str(file), "--device", "cpu", "--rates", "1e-3", "--set", "models.decoder.adapter=qlora"]
    assert main([*asked, "--base", str(base)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert f"{base} on cpu models.decoder.adapter=qlora:" in lines
    assert any(line.startswith("| Lion / Lion | 0.001, the end of the range | ") for line in lines)
    trials = [json.loads(line)["figures"] for line in file.read_text().splitlines()[1:]]
    for found in trials:
        assert found["steps/s"] * found["train s"] == pytest.approx(2)
        assert found["samples/s"] == pytest.approx(2 * 2 * found["steps/s"]), "two rows of each of two models"
        evaluations = found["evals/s"] * found["eval s"]
        assert evaluations == pytest.approx(round(evaluations)) and round(evaluations) > 0
    assert len(trials) == 3 and any(found["peak gradient"] > found["last gradient"] for found in trials)
    assert main([*asked, "--base", "tiny-toon"]) == 2
    assert str(base) in capsys.readouterr().err
