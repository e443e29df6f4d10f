"""D23: the table of optimizers takes each one's best rate, is made in turns, and says that it is void where its control moves."""

from __future__ import annotations

from tests.benchmarks.bench_duo import ARMS, FIGURES, RATES, SEEDS, Trial, best_rates, missing, table


def measured(found: dict[Trial, dict[str, float]], trial: Trial, eval_seconds: float = 1.0) -> None:
    """A loss that is the lower, the nearer its rate is to the second one."""
    _, rate, seed = trial
    loss = 1 + abs(RATES.index(rate) - 1) + seed / 10
    found[trial] = {**dict.fromkeys(FIGURES, 1.0), "held-out loss": loss, "eval s": eval_seconds}


def all_measured(slow: str = "") -> dict[Trial, dict[str, float]]:
    found: dict[Trial, dict[str, float]] = {}
    while trials := missing(found):
        measured(found, trials[0], eval_seconds=1.2 if trials[0][0] == slow else 1.0)
    return found


def test_each_arm_is_tried_with_each_rate_and_then_in_turns_with_other_seeds_at_its_best() -> None:
    found = all_measured()
    assert best_rates(found) == dict.fromkeys(ARMS, RATES[1])
    order = list(found)
    assert len(order) == len(ARMS) * (len(RATES) + SEEDS)
    assert order[-len(ARMS) :] == [(arm, RATES[1], SEEDS) for arm in ARMS]
    lines = table(found).splitlines()
    assert len(lines) == 2 + len(ARMS) + 2
    assert "| AdamW / AdamW | 0.001 | 1 ± 0 | 1.2 ± 0.1 |" in lines[2]
    assert lines[-1] == "The time of evaluation, which no optimizer changes, differs by 0%."


def test_a_table_whose_control_moves_is_void() -> None:
    assert table(all_measured(slow="blend")).endswith(
        "Void: the time of evaluation, which no optimizer changes, differs by 20%."
    )
