"""U19: the orbital controller alone; `test_controllers.py` trains streams with it."""

from __future__ import annotations

import json
import math
import random
from itertools import pairwise
from statistics import fmean, pstdev

import pytest

from trainer import OrbitalController, philog
from trainer.orbital import BASE, HIGH, LOW, STATES


def noisy(steps: int, seed: int = 0, noise: float = 0.05) -> list[float]:
    """A language model's loss that falls from 4 to 1.5."""
    draw = random.Random(seed)
    return [(1.5 + 2.5 * math.exp(-step / 200)) * (1 + draw.gauss(0, noise)) for step in range(steps)]


def test_phi_and_its_thresholds_are_those_of_the_equations() -> None:
    """U19: recomputed for each step from all losses, with the window full and not."""
    losses = noisy(700)
    controller = OrbitalController()
    smooth, phis = losses[0], []
    for before, loss in zip([losses[0], *losses], losses, strict=False):
        smooth = 0.9 * smooth + 0.1 * loss
        phis.append(abs(loss - smooth) + 0.5 * max(0, loss - before))
        newest = phis[-500:]
        assert controller.update(loss).phi == pytest.approx(phis[-1])
        assert controller.thresholds() == pytest.approx(
            (fmean(newest) - pstdev(newest), fmean(newest) + 1.5 * pstdev(newest))
        )


def test_states_follow_one_another_without_skipping_at_every_fifth_step_and_last_thirty() -> None:
    """U19: each change is the one that phi asks for, and each state has its factor."""
    controller, factors = OrbitalController(), {HIGH: 1.5, BASE: 1.0, LOW: 0.3}
    for loss in noisy(1500):
        before = controller.trace.mode
        decided = controller.update(loss)
        low, high = controller.thresholds()
        assert decided == factors[decided.mode]
        if decided.mode > before:
            assert decided.phi > (low if before == HIGH else high)
        elif decided.mode < before:
            assert decided.phi < (low if before == BASE else high)
    changes = controller.transition_log()
    assert {change["to"] for change in changes} == {HIGH, BASE, LOW}
    assert all(abs(change["from"] - change["to"]) == 1 for change in changes)
    steps = [0, *(change["step"] for change in changes)]
    assert steps[1] >= 50 and not any(step % 5 for step in steps)
    assert min(after - before for before, after in pairwise(steps)) >= 30


def test_it_takes_every_change_of_the_loss_for_stress_and_a_lasting_shock_for_calm() -> None:
    """U19, U10: of the losses of the source's demonstration it sees the beginning and the end of the shock, each for 30 steps."""
    controller = OrbitalController()
    for step in range(1, 701):
        controller.update(5.0 if 300 <= step < 500 else 0.5)
    changes = [(change["step"], STATES[change["to"]]) for change in controller.transition_log()]
    assert changes == [(300, "low"), (330, "base"), (500, "low"), (530, "base")]


def test_undisturbed_training_passes_through_all_states_too() -> None:
    """U19: what `docs/unified.md` says of 1,500 steps with 2 to 30 % of noise."""
    summaries = []
    for noise in (0.02, 0.05, 0.1, 0.3):
        for seed in range(3):
            controller = OrbitalController()
            for loss in noisy(1500, seed, noise):
                controller.update(loss)
            summaries.append(controller.get_summary())
    assert all(30 <= each["transitions"] <= 45 for each in summaries)
    assert all(0.05 < each["share"]["low"] < 0.25 and each["share"]["high"] > 0.15 for each in summaries)


def test_a_loss_that_is_not_finite_is_an_event_and_enters_no_mean() -> None:
    """U19: one state down at once, and from there as if it had not been."""
    controller = OrbitalController()
    for loss in (2.0, 2.1, 1.9):
        controller.update(loss)
    phis, smooth = list(controller.trace.phis), controller.trace.smooth
    decided = controller.update(math.nan)
    assert decided.events == ("base -> low: the loss is not finite",) and decided == 0.3
    assert (controller.trace.phis, controller.trace.smooth, controller.trace.before) == (phis, smooth, 1.9)


def test_it_goes_on_from_its_state_as_json_keeps_it() -> None:
    """U19."""
    losses = noisy(900)
    through = OrbitalController()
    decided = [through.update(loss) for loss in losses]
    first, second = OrbitalController(), OrbitalController()
    for loss in losses[:600]:
        first.update(loss)
    second.load_state_dict(json.loads(json.dumps(first.state_dict())))
    assert [(each, each.phi) for each in map(second.update, losses[600:])] == [
        (each, each.phi) for each in decided[600:]
    ]
    assert second.transition_log() == through.transition_log()


def test_its_course_is_written_with_the_names_of_its_states(tmp_path) -> None:
    """U19, U21."""
    controller = OrbitalController(warmup=10, dwell=0, every=1)
    for loss in noisy(60):
        controller.update(loss)
    philog.write(tmp_path, controller.phi_log(), names=STATES, bounded=False)
    changes = json.loads((tmp_path / philog.TRANSITIONS).read_text())
    assert changes and {change["to"] for change in changes} <= set(STATES)
    assert set(json.loads((tmp_path / philog.SUMMARY).read_text())["share"]) == set(STATES)
    highest = max(row["phi"] for row in controller.phi_log())
    assert f">{highest:.3g}</text>" in (tmp_path / philog.PICTURE).read_text()
