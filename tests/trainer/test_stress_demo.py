"""Issue 17: the demonstrations of the Unified controller, in small (U02, U10, X04)."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from trainer.data.tokens import IGNORED
from trainer.loop.batches import Batches
from trainer.loop.modes import Acts
from trainer.place import Place
from trainer.stress_demo import arms, shock, tasks
from trainer.stress_demo.__main__ import main
from trainer.stress_demo.arms import Run
from trainer.unified import MIRROR, SINGLE

HERE = Place(Path(), "cpu")


def test_answers_are_shuffled_from_the_onset_on_for_a_while_and_questions_never_are() -> None:
    rows, _ = shock.demo_rows("tiny-toon")
    shocked = shock.Shocked(rows[:8], micro_batch_size=8, seed=1)
    shocked.onset = 3
    plain = Batches(rows[:8], micro_batch_size=8, seed=1)
    changed = []
    for step in range(3 + shock.SHOCK_STEPS + 2):
        [[*mine], [*other]] = [shocked.of_step(step)[0], plain.of_step(step)[0]]
        changed.append(any(a.ids != b.ids for a, b in zip(mine, other, strict=True)))
        for a, b in zip(mine, other, strict=True):
            start = list(b.labels).count(IGNORED)
            assert a.ids[:start] == b.ids[:start] and sorted(a.ids) == sorted(b.ids)
    assert changed == [False] * 3 + [True] * shock.SHOCK_STEPS + [False] * 2


def test_recovery_is_counted_from_the_end_of_the_shock_until_the_loss_is_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shock, "SHOCK_STEPS", 20)
    monkeypatch.setattr(shock, "LOOK_STEPS", 5)
    losses = {5: 2.0, 10: 1.0, 15: 3.0, 20: 4.0, 25: 2.5, 30: 2.0, 35: 1.01, 40: 0.9}
    assert shock.found(losses, 12) == shock.Found(before=1.0, peak=4.0, final=0.9, recovery=35 - 32)


def test_a_shock_leads_to_mirror_and_the_snapshot_from_before_it_is_restored() -> None:
    """U10: with the defaults that any stream has, on the embedded base; the shock harms what was learned by more than rho."""
    rows, held_out = shock.demo_rows("tiny-toon")
    course, run = shock.Course(held_out[:4]), Run("mirror", 3e-3, 0)
    [ended] = shock.learn(arms.load("tiny-toon", HERE), course, rows, held_out[4:8], [run])
    [restored] = course.restored[run.name]
    at, now, best = re.fullmatch(r"restored step (\d+): anchor loss (\S+) -> (\S+)", restored).groups()
    onset = shock.onset_of(0)
    assert int(at) <= onset + shock.LOOK_STEPS and float(now) > (1 + Acts().rho) * float(best)
    assert ended.restored == 1 and ended.final < ended.peak
    modes = [mode for _, mode in course.phis[run.name]]
    assert set(modes[:onset]) == {SINGLE} and MIRROR in modes[onset : onset + shock.SHOCK_STEPS]


def test_each_arm_has_the_rate_with_which_it_was_best_on_another_seed() -> None:
    trained: list[list[Run]] = []

    def train(runs: list[Run]) -> list[float]:
        trained.append(runs)
        return [abs(run.rate - {"one": 1e-3, "other": 1e-2}[run.arm]) for run in runs]

    found = arms.at_best_rates(("one", "other"), 2, train, lambda loss: loss)
    assert {run.seed for run in trained[0]} == {arms.SWEEP_SEED} and len(trained[0]) == 2 * len(arms.RATES)
    assert list(found) == [Run("one", 1e-3, 0), Run("one", 1e-3, 1), Run("other", 1e-2, 0), Run("other", 1e-2, 1)]


def test_tasks_that_contradict_each_other_are_in_conflict_and_only_clones_learn_both(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """U02: on the embedded base, which has learned the form of the answers first; one adapter finds nothing better than a coin."""
    monkeypatch.setattr(tasks, "STEPS", 40)
    train, held_out = tasks.rows("tiny-toon", read=True)
    model = arms.load("tiny-toon", HERE)
    as_it_is, _ = tasks.learn(model, train, held_out, [Run("multi", 1e-3, 0), Run("single", 1e-3, 0)])
    tasks.teach_form(model, train)
    multi, single = tasks.learn(model, train, held_out, [Run("multi", 1e-3, 0), Run("single", 1e-3, 0)])
    assert max(multi.losses) < 0.3 < 0.6 < min(single.losses)
    assert max(as_it_is.conflict.values()) < 0.6 < 0.8 < max(multi.conflict.values()) and not single.conflict


@pytest.mark.parametrize("which", ["shock", "tasks"])
def test_both_run_on_a_base_of_ones_own_by_one_override(
    which: str, base: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """X04: its name is printed with the winner."""
    monkeypatch.setattr(arms, "RATES", (1e-3,))
    for name, value in {"STEPS": 12, "ONSETS": (5, 6), "SHOCK_STEPS": 4, "LOOK_STEPS": 2, "WARMUP": 3, "LONGEST": 400}.items():  # fmt: skip
        monkeypatch.setattr(shock, name, value)
    monkeypatch.setattr(tasks, "STEPS", 4)
    assert main([which, "--base", str(base), "--device", "cpu", "--seeds", "1"]) == 0
    told = capsys.readouterr().out
    assert "\nlowest " in told
    if which == "tasks":
        assert (
            len(re.findall(r"above 0\.8 in [01] of 1 seeds", told))
            == len(re.findall(r"multi beats single in [01] of 1", told))
            == 3
        )


def test_a_base_that_is_not_there_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["tasks", "--base", "./nowhere", "--device", "cpu"]) == 2
    assert "nowhere" in capsys.readouterr().err
