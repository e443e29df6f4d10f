"""Rows A06, A12, A13, D18, D19: what ends a training early, when exactly, what it says, and that a resumed one goes on with its memory."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from swarm import kinds
from swarm.errors import UserError
from swarm.messages import Metrics, Order
from swarm.settings import StreamSettings
from tests.trainer.conftest import Bench
from trainer import checkpoint
from trainer.engines import shared, trl
from trainer.errors import LeaseStopped
from trainer.stops.patience import Patience

Make = Callable[..., StreamSettings]
pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning:transformers")
FLAT = {"learning_rate": 1e-9, "plateau_patience": 3, "plateau_min_delta": 0.5, "plateau_window": 2}
"""So small a rate teaches nothing."""


@pytest.fixture(params=["shared", "trl"])
def settings(settings: Make, request: pytest.FixtureRequest) -> Make:
    return lambda **changes: settings(**{"engine": request.param, **changes})


def test_patience_ends_at_the_exact_event_of_a_curve_that_turns_flat() -> None:
    """A12: the mean of the window, improved by at least min_delta, stalled for `patience` logged steps, not before min_steps."""
    curve = [4.0, 3.0, 2.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0]
    for min_steps, expected in ((0, 8), (9, 9)):
        watch = Patience("loss", patience=3, min_delta=0.1, why="plateau", window=2, min_steps=min_steps)
        said = {step: why for step, loss in enumerate(curve, start=1) if (why := watch(step, {"loss": loss}))}
        assert min(said) == expected  # the mean is 1.0 for the first time at 5, and stalls at 6, 7 and 8
    assert watch(10, {"tokens": 1}) is None, "a step that logs nothing is no event"
    slow = Patience("loss", patience=3, min_delta=0.1, why="plateau")
    falls = [slow(step, {"loss": 4 - 0.05 * step}) is not None for step in range(1, 6)]
    assert falls == [False] * 5, "every second loss is better by min_delta than the best"
    slower = Patience("loss", patience=3, min_delta=0.1, why="plateau")
    falls = [slower(step, {"loss": 4 - 0.01 * step}) is not None for step in range(1, 6)]
    assert falls == [False, False, False, True, True], "a smaller gain is none"


def test_what_is_set_of_a_stop_or_an_action_arrives(settings: Make) -> None:
    """A12, A13, D18 to D20."""
    flat = {"plateau_patience": 5, "plateau_min_delta": 0.5, "plateau_window": 2, "plateau_min_steps": 7}
    watch = Patience("loss", 5, 0.5, "plateau of the training loss", 2, 7)
    stops = {kind.name: kind for kind in kinds.stops()}
    assert stops["plateau"].begin(settings(**flat)) == watch
    acts: Any = stops["plateau"].controller(
        settings(**flat, engine="shared", plateau_action="bump", plateau_times=4, plateau_factor=3.0)
    )
    assert (acts.patience, acts.action, acts.left, acts.factor) == (watch, "bump", 4, 3.0)
    early = settings(eval_steps=2, early_stopping_patience=4, early_stopping_min_delta=0.2)
    assert stops["early stopping"].begin(early) == Patience("eval_loss", 4, 0.2, "early stop by the held-out loss")


def test_a_flat_training_loss_ends_the_training_and_says_why(bench: Bench, settings: Make) -> None:
    trained = bench.trained(settings(max_steps=30, logging_steps=2, save_steps=30, **FLAT))["trained"]
    assert trained.step == 8, "the first logged loss is the best, then 3 of every second step"
    assert trained.why.startswith("plateau of the training loss: 3 times in a row no better than ")


def test_a_held_out_loss_that_rises_ends_the_training_and_the_best_is_handed_over(bench: Bench, settings: Make) -> None:
    given = settings(max_steps=200, eval_steps=2, save_steps=2, early_stopping_patience=2, learning_rate=0.3)
    trained = bench.trained(given)["trained"]
    losses = {row.step: row.figures["eval_loss"] for row in bench.metric_rows() if row.kind == "eval"}
    best = min(losses, key=lambda step: losses[step])
    assert max(losses) == best + 4 < 200
    assert trained.why.startswith("early stop by the held-out loss: 2 times in a row no better than ")
    assert trained.path.endswith(f"checkpoint-{best}")


def test_the_step_that_reaches_the_token_budget_is_the_last(bench: Bench, settings: Make) -> None:
    trained = bench.trained(settings(max_steps=50, max_tokens=300, save_steps=50))["trained"]
    tokens = [row.figures["tokens"] for row in bench.metric_rows() if row.kind == "train"]
    assert (trained.why, trained.step) == ("max_tokens", len(tokens))
    assert tokens[-1] >= 300 > tokens[-2]
    exact = bench.trained(settings(max_steps=50, max_tokens=int(tokens[1]), save_steps=50))["trained"]
    assert exact.step == 2, "reached is enough"


def test_the_time_cap_may_count_the_loading_of_the_base(
    bench: Bench, settings: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock, ahead = time.monotonic, [0.0]  # loading takes ten minutes of this clock
    monkeypatch.setattr(time, "monotonic", lambda: clock() + ahead[0])
    for engine in (shared, trl):
        load: Any = engine.load_base
        monkeypatch.setattr(
            engine, "load_base", lambda *given, load=load: (ahead.append(ahead.pop() + 600), load(*given))[1]
        )
    found = {}
    for origin in ("training", "start"):
        given = settings(max_steps=3, max_minutes=15, max_minutes_from=origin)  # both loads: 20
        trained = bench.trained(given)["trained"]
        found[origin] = trained.why, trained.step
    assert found == {"training": ("max_steps", 3), "start": ("max_minutes", 1)}
    kept = checkpoint.opened(bench.place.run_folder / trained.path)
    assert kept.seconds_from_start > 600, "a resumed attempt counts from here"


ARMED = {
    "plateau_patience": 14, "plateau_window": 3, "early_stopping_patience": 3, "eval_steps": 4, "max_tokens": 3000,
    "max_minutes": 60.0, "max_minutes_from": "start",
}  # fmt: skip


def test_a_training_is_resumed_bit_for_bit_with_every_stop_armed(bench: Bench, settings: Make, at_once: None) -> None:
    given = settings(max_steps=18, save_steps=100, lora_dropout=0.1, save="last", **ARMED)
    whole = bench.trained(given)["trained"]
    prepared = bench.do("prepare", given)["prepared"].path
    bench.on_message = lambda message, lease: stop_after(7, message, lease)
    with pytest.raises(LeaseStopped):
        bench.do("train", given, prepared=prepared)
    saved = next(event for event in bench.events() if event.kind == "checkpoint")
    bench.on_message = lambda message, lease: None
    resumed = bench.do("train", given, prepared=prepared, resume_from=[saved.path])["trained"]
    assert (resumed.step, resumed.why) == (whole.step, whole.why)
    mine, others = (checkpoint.opened(bench.place.run_folder / trained.path) for trained in (resumed, whole))
    assert mine.stops == others.stops
    assert set(mine.stops) == {"plateau", "early stopping", "time cap", "token budget"}
    assert mine.stops["plateau"]["best"] is not None and len(mine.stops["plateau"]["values"]) == 3
    before, after = (load_file(one.folder / "adapter_model.safetensors") for one in (mine, others))
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_a_training_that_a_stop_had_ended_before_its_worker_died_is_only_reported(bench: Bench, settings: Make) -> None:
    given = settings(max_steps=30, save_steps=30, **FLAT)
    first = bench.trained(given)["trained"]
    again = bench.trained(given, resume_from=[first.path])["trained"]
    assert (again.sha256, again.step, again.why) == (first.sha256, first.step, first.why)
    assert bench.metric_rows() == []


def stop_after(step: int, message: object, lease: Any) -> None:
    if isinstance(message, Metrics) and message.rows[-1].step >= step:
        lease.take(Order(ref="one/train", token=lease.token, what="stop"))


def test_a_stop_that_can_end_nothing_is_refused_once_the_steps_are_known(bench: Bench, settings: Make) -> None:
    with pytest.raises(UserError) as error:
        bench.trained(settings(max_steps=None, num_epochs=1, plateau_patience=11))
    assert str(error.value) == (
        "plateau_patience: it can end nothing before step 12 x 1 = 12 (12 logged steps), and the training has 12; "
        "write at most 10, or lower `logging_steps`"
    )
