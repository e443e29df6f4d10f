"""Unified LoRA's controller: golden numbers of its equations (U02-U10), hysteresis (U14, U15), factors (U07, U16, U17), jumps (U22)."""

from __future__ import annotations

import json
import math
import random
import subprocess
import sys
from collections.abc import Iterator
from fractions import Fraction
from itertools import product

import pytest

from trainer import JumpMonitor, UnifiedController, philog
from trainer.unified import MIRROR, MULTI, PRESETS, SINGLE, Weights, stability_of


def shock(step: int) -> float:
    """The source's demonstration: a loss of 0.5, of 5.0 in steps 300 to 499, and of 0.5 again (U10)."""
    return 5.0 if 300 <= step < 500 else 0.5


def test_the_demonstration_of_the_source_is_replayed_to_three_decimals() -> None:
    """U03, U04, U05, U06, U10."""
    controller, seen = UnifiedController(), {}
    for step in range(1, 701):
        controller.update(shock(step))
        state = controller.get_state()
        seen[step] = (round(state["phi"], 3), round(state["E_smooth"], 3), state["mode"])
    assert {step: seen[step] for step in (1, 250, 300, 310, 320, 350, 499, 505, 520, 550, 700)} == {
        1: (0.499, 0.950, MULTI), 250: (0.333, 0.500, MULTI), 300: (0.349, 0.950, MULTI), 310: (0.597, 3.588, MULTI),
        320: (0.735, 4.508, MIRROR), 350: (0.827, 4.979, MIRROR), 499: (0.833, 5.000, MIRROR), 505: (0.807, 2.891, MIRROR),
        520: (0.624, 0.992, MULTI), 550: (0.371, 0.521, MULTI), 700: (0.333, 0.500, MULTI),
    }  # fmt: skip
    changes = [(change["step"], change["to"]) for change in controller.trace.transitions]
    assert changes == [(317, MIRROR), (515, MULTI)], "18 updates after the shock begins, 16 after it ends"


@pytest.mark.parametrize(
    ("band", "dwell", "changes"), [(0.0, 0, 69), (0.0, 100, 17), (0.01, 0, 13), (0.02, 10, 1), (0.05, 20, 0)]
)
def test_a_band_and_a_dwell_time_keep_a_noisy_loss_from_flipping_the_mode(
    band: float, dwell: int, changes: int
) -> None:
    """U14: 2,000 losses around the upper threshold."""
    draw = random.Random(0)
    controller = UnifiedController(band=band, dwell=dwell, phi=0.7, smooth=2.33)
    for _ in range(2000):
        controller.update(draw.uniform(1.2, 3.6))
    assert len(controller.trace.transitions) == changes


def test_the_thresholds_of_phi_are_losses_of_0_43_and_2_33_in_absolute_stress() -> None:
    for loss, theta in ((0.42857, 0.3), (2.33333, 0.7)):
        controller = UnifiedController(phi=0.0, smooth=0.0)
        for _ in range(2000):
            controller.update(loss)
        assert controller.get_state()["phi"] == pytest.approx(theta, abs=1e-4)


def test_each_mode_has_its_learning_rate_or_its_factor() -> None:
    """U07, U08, U16, U17."""
    rates = UnifiedController(theta0=0.3, theta1=0.7, lr_single=5e-5, lr_multi=3e-5, lr_mirror=1e-5)
    assert rates.update(0.5) == 3e-5 and rates.update(0.5).mode == MULTI
    assert [UnifiedController.preset("glue").values, UnifiedController.preset("tinker").values] == [
        (1, 0.6, 0.2),
        (4, 1, 0.2),
    ]
    changed = UnifiedController.preset("glue", lr_mirror=0.1)
    assert changed.values == (1, 0.6, 0.1)
    with pytest.raises(ValueError, match="'none' is no preset; take one of absolute, glue, tinker, relative"):
        UnifiedController.preset("none")


def test_a_summary_counts_jumps_of_phi_and_the_share_of_each_mode() -> None:
    """U17."""
    controller = UnifiedController(alpha=1.0, beta=0.0)
    for loss in (0.1, 0.1, 1.0, 9.0, 9.0, 9.0, 1.0, 1.0):
        controller.update(loss)
    summary = controller.get_summary()
    assert (summary["shock_events"], summary["transitions"]) == (2, 4)
    assert summary["share"] == {"single": 2 / 8, "multi": 3 / 8, "mirror": 3 / 8}


def falling(steps: int, noise: float = 0.05, seed: int = 1) -> Iterator[float]:
    """A language model's loss: from 4 to 1.5, with noise of each batch."""
    draw = random.Random(seed)
    for step in range(steps):
        yield (1.5 + 2.5 * math.exp(-step / 200)) * (1 + draw.gauss(0, noise))


def test_relative_stress_knows_a_shock_of_a_falling_loss_that_absolute_stress_calls_mirror_throughout() -> None:
    """A healthy language model at a loss above 2.33 is not under stress (U06 as it was); a doubled loss is."""
    relative, absolute = UnifiedController.preset("relative"), UnifiedController.preset("absolute")
    modes: dict[int, int] = {}
    for step, loss in enumerate(falling(1000), start=1):
        given = loss * (2 if 600 <= step < 700 else 1)
        modes[step] = relative.update(given).mode
        absolute.update(given)
    assert {modes[step] for step in range(1, 600)} == {SINGLE}
    assert MIRROR in {modes[step] for step in range(600, 640)}, "within forty steps"
    assert modes[1000] == SINGLE
    assert absolute.get_summary()["share"]["mirror"] > 0.1 > relative.get_summary()["share"]["mirror"]


def test_noise_is_no_stress_and_a_doubled_loss_is_whatever_the_noise() -> None:
    reached = []
    for noise, seed in product((0.02, 0.05, 0.1, 0.3), range(12)):
        quiet, shocked = UnifiedController.preset("relative"), UnifiedController.preset("relative")
        modes = []
        for step, loss in enumerate(falling(1500, noise, seed), start=1):
            quiet.update(loss)
            modes.append(shocked.update(loss * (2 if 600 <= step < 700 else 1)).mode)
        assert not quiet.trace.transitions, (noise, seed)
        assert modes[720:] == [SINGLE] * (1500 - 720)
        reached.append(max(modes[599:631]))
    assert reached == [MIRROR] * 48


def shocked_early(seed: int, noise: float) -> Iterator[float]:
    """A short fine-tune: the loss falls from 4 to 0.5 at once, and is led to 4.5 in steps 100 to 139."""
    draw, level = random.Random(seed), 4.0
    for step in range(200):
        target, share = (4.5, 0.3) if 100 <= step < 140 else (0.5, 0.04)
        level += share * (target - level)
        yield level * math.exp(draw.gauss(0, noise) - noise * noise / 2)


def test_a_loss_that_fell_steeply_while_it_was_measured_does_not_hide_a_shock() -> None:
    """U10: the fall is a trend, and neither it nor the shock itself is taken for the usual fluctuations."""
    for noise, seed in product((0.1, 0.3), range(8)):
        controller = UnifiedController.preset("relative")
        modes = [controller.update(loss).mode for loss in shocked_early(seed, noise)]
        assert set(modes[:100]) == {SINGLE} and MIRROR in modes[100:130], (noise, seed)


def test_a_loss_that_never_moved_is_stressed_by_a_shock_too() -> None:
    controller = UnifiedController.preset("relative")
    modes = [controller.update(shock(step)).mode for step in range(1, 701)]
    assert set(modes[:299]) == {SINGLE} and MIRROR in modes[299:320] and modes[-1] == SINGLE


def test_a_loss_that_is_not_finite_is_an_event_and_no_part_of_an_average() -> None:
    controller = UnifiedController()
    before = controller.get_state()
    decided = controller.update(math.nan)
    assert decided.events == ("multi -> mirror: the loss is not finite",) and decided == 1e-5
    assert controller.get_state() == {**before, "mode": MIRROR, "step": 1}


def test_without_skipping_modes_are_passed_one_by_one_and_a_locked_mirror_opens_to_single_alone() -> None:
    """U15."""
    stepwise = UnifiedController(skip=False, mode=SINGLE, phi=0.0, alpha=1.0, beta=0.0)
    assert [stepwise.update(9.0).mode, stepwise.update(9.0).mode] == [MULTI, MIRROR]
    locked = UnifiedController(mirror_lock=True, mode=MIRROR, alpha=1.0, beta=0.0)
    assert [locked.update(loss).mode for loss in (1.0, 0.5, 0.1)] == [MIRROR, MIRROR, SINGLE]


def test_conflict_stability_and_their_changes_for_the_worse_are_stress_by_their_weights() -> None:
    """U02: phi = f(C, E, S, dC, dE, dS)."""

    def target(weights: Weights, *given: tuple[float | None, float | None]) -> float:
        controller = UnifiedController(alpha=1.0, beta=0.0, weights=weights, phi=0.0)
        for conflict, stability in given:
            controller.update(1.0, conflict=conflict, stability=stability)
        return controller.get_state()["phi"]

    assert target(Weights(), (1.0, 0.0)) == 0.5, "the error alone, by default"
    assert target(Weights(error=0, conflict=0.5), (0.6, None)) == pytest.approx(0.3)
    assert target(Weights(error=0, stability=0.5), (None, 0.2)) == pytest.approx(0.4)
    assert target(Weights(error=0, conflict_rise=1), (0.2, None), (0.5, None)) == pytest.approx(0.3)
    assert target(Weights(error=0, conflict_rise=1), (0.5, None), (0.2, None)) == 0
    assert target(Weights(error=0, error_rise=1), (None, None)) == 0.5, "from none to that of a loss of 1"
    assert target(Weights(error=0, error_rise=1), (None, None), (None, None)) == 0
    assert target(Weights(error=0, stability_fall=1), (None, 0.9), (None, 0.4)) == pytest.approx(0.5)
    assert target(Weights(error=9), (None, None)) == 1, "never above 1"


def test_stress_from_outside_counts_beside_the_loss_and_can_reach_mirror() -> None:
    """U13: the source divides twice, so that phi stays below its own threshold."""
    controller = UnifiedController(stress_share=0.5)
    for _ in range(300):
        decided = controller.update(9.0, stress=1.0)
    assert decided.mode == MIRROR and decided.phi == pytest.approx(0.95, abs=0.01)


@pytest.mark.parametrize("preset", PRESETS)
def test_it_goes_on_from_its_saved_state_as_if_it_had_never_stopped(preset: str) -> None:
    losses = list(falling(400, noise=0.3))
    whole, first = UnifiedController.preset(preset), UnifiedController.preset(preset)
    expected = [whole.update(loss) for loss in losses]
    for loss in losses[:150]:
        first.update(loss)
    second = UnifiedController.preset(preset)
    second.load_state_dict(json.loads(json.dumps(first.state_dict())))
    assert [second.update(loss) for loss in losses[150:]] == expected[150:]
    assert second.get_state() == whole.get_state()


def test_a_state_that_is_kept_can_be_gone_back_to_more_than_once() -> None:
    controller, monitor = UnifiedController(), JumpMonitor(first=0, steps=1)
    for loss in (0.5, 1.0, 2.0):
        controller.update(loss)
        monitor.update(loss)
    kept, rising = controller.state_dict(), monitor.state_dict()
    courses = []
    for _ in range(2):
        controller.load_state_dict(kept)
        monitor.load_state_dict(rising)
        rates = [controller.update(9.0) for _ in range(20)]
        courses.append((rates, controller.transition_log(), monitor.update(9.0)))
    assert courses[0] == courses[1] and courses[0][1] and courses[0][2]


def test_losses_and_weights_are_taken_as_a_loop_of_ones_own_has_them() -> None:
    """U08: weights as a mapping, and a loss that is a number of another class."""
    one, other = UnifiedController(weights={"error": 0.5}), UnifiedController(weights=Weights(error=0.5))
    assert one.update({"task": Fraction(1, 2)}) == other.update({"task": 0.5})
    assert type(one.trace.tasks["task"].smooth) is float


def test_its_state_history_and_names_are_the_sources() -> None:
    """U09."""
    controller = UnifiedController()
    for _ in range(3):
        controller.update(0.5)
    assert controller.get_state().keys() == {"phi", "E_smooth", "mode", "step"}
    assert controller.get_history().keys() == {"step", "phi", "E_smooth", "mode", "value"}
    assert {len(values) for values in controller.get_history().values()} == {3}
    assert [controller.mode_name(mode) for mode in range(3)] == ["single", "multi", "mirror"]
    assert repr(controller) == "UnifiedController(step=3, mode=multi, phi=0.493)"
    controller.reset()
    assert (
        controller.get_state() == {"phi": 0.5, "E_smooth": 1.0, "mode": MULTI, "step": 0}
        and not controller.get_history()["phi"]
    )


@pytest.mark.parametrize("wrong", [{"theta0": 0.8}, {"theta1": 1.5}, {"alpha": 0.0}, {"beta": 1.0}])
def test_settings_that_mean_nothing_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="needed, not"):
        UnifiedController(**wrong)


def test_a_loss_that_keeps_rising_is_an_alarm_and_one_that_is_not_finite_is_another() -> None:
    """U22."""
    steady, rising = JumpMonitor(), JumpMonitor()
    assert not any(steady.update(2.0 + 0.01 * (step % 2)) for step in range(200))
    alarms = [step for step in range(1, 101) if rising.update(1.0 if step < 70 else 1.0 + 0.3 * (step - 69))]
    assert alarms[0] == 73 and alarms[-1] == 100
    early = JumpMonitor()
    assert not any(early.update(1.0 + 0.3 * step) for step in range(59)), "before step 60 a loss may rise"
    assert rising.update(math.inf) == "the loss is not finite"


def test_it_is_imported_without_torch() -> None:
    code = "import sys; from trainer import UnifiedController; UnifiedController().update(1.0); print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_its_logs_and_their_files_are_those_of_every_step(tmp_path) -> None:
    """U21: a loop of one's own writes what a stream's end does; a loss that is not finite is a row, and no point of the curve."""
    controller = UnifiedController()
    for step in range(1, 701):
        controller.update(math.inf if step == 600 else shock(step))
    philog.write(tmp_path, controller.phi_log(), (controller.theta0, controller.theta1))
    changes = json.loads((tmp_path / philog.TRANSITIONS).read_text())
    assert [(change["step"], change["to"]) for change in changes[:3]] == [
        (317, "mirror"),
        (515, "multi"),
        (600, "mirror"),
    ]
    assert [change["step"] for change in controller.transition_log()] == [change["step"] for change in changes]
    kept = controller.get_summary()
    assert kept["transitions"] == len(changes) and kept["shock_events"] == 0
    assert kept["share"] == json.loads((tmp_path / philog.SUMMARY).read_text())["share"]
    lines = (tmp_path / philog.CSV).read_text().splitlines()
    assert len(lines) == 701 and lines[0].startswith(
        "step,loss,E_smooth,error,conflict,stability,target,phi,mode,value"
    )
    assert (tmp_path / philog.PICTURE).read_text().count("<rect") == 2 * (len(changes) + 1)
    philog.write(tmp_path, [])
    assert (tmp_path / philog.CSV).read_text() == "\n"


def test_a_controller_of_several_tasks_averages_their_errors() -> None:
    """U02: E is the mean of the tasks' errors, each smoothed for itself; state goes on with them."""
    both, left, right = (UnifiedController(phi=0.0, smooth=0.0) for _ in range(3))
    for step in range(30):
        both.update({"left": 0.5, "right": 3.0 + step / 10})
        left.update(0.5)
        right.update(3.0 + step / 10)
    assert both.trace.error == pytest.approx((left.trace.error + right.trace.error) / 2)
    again = UnifiedController(phi=0.0, smooth=0.0)
    again.load_state_dict(json.loads(json.dumps(both.state_dict())))
    losses = {"left": 1.0, "right": 2.0}
    assert again.update(losses).phi == both.update(losses).phi


def test_stability_is_lost_in_the_share_by_which_the_anchor_loss_is_above_its_best() -> None:
    """U02."""
    assert stability_of(2.0, 2.0) == stability_of(1.5, 2.0) == 1
    assert stability_of(4.0, 2.0) == 0.5 and stability_of(4.0, 2.0, kappa=3.0) == 0.25
