"""When held-out loss is measured while a stream trains, and which checkpoints stay."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from swarm.settings import StreamSettings
from tests.trainer.conftest import Bench

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning")
Make = Callable[..., StreamSettings]


@pytest.mark.parametrize(
    ("given", "steps", "due"),
    [
        ({"evals_per_run": 2}, 9, [0, 9]),
        ({"evals_per_run": 11}, 100, list(range(0, 101, 10))),
        ({"evals_per_run": 4}, 10, [0, 3, 7, 10]),
        ({"evals_per_run": 9}, 3, [0, 1, 2, 3]),
        ({"eval_steps": 4}, 10, [4, 8]),
        ({}, 10, []),
    ],
    ids=str,
)
def test_evaluations_are_spread_evenly_over_the_steps(
    settings: Make, given: dict[str, int], steps: int, due: list[int]
) -> None:
    """C27: of n evaluations number i comes after step round(i T / (n - 1)), as the source system has it."""
    made = settings(**given)
    assert [step for step in range(steps + 1) if made.evaluates_after(step, steps)] == due


@pytest.mark.parametrize("engine", ["shared", "trl"])
def test_held_out_loss_is_measured_at_the_start_at_the_end_and_evenly_between(
    bench: Bench, settings: Make, engine: str
) -> None:
    """C27, C32: what is measured before the first step is the base's, and no checkpoint is chosen by it."""
    given = settings(evals_per_run=3, max_steps=6, engine=engine, metrics=["eval_token_accuracy"])
    trained = bench.trained(given)["trained"]
    accuracy = {row.step: row.figures["eval_token_accuracy"] for row in bench.metric_rows() if row.kind == "eval"}
    found = {row.step: row.figures["eval_loss"] for row in bench.metric_rows() if row.kind == "eval"}
    assert list(found) == [0, 3, 6]
    path = str(next((bench.place.run_folder / "prepared").iterdir()).relative_to(bench.place.run_folder))
    judged = bench.do("validate", given, prepared=path, checkpoint=trained.path, sha256=trained.sha256)["verdict"]
    assert found[0] == pytest.approx(judged.figures["base_eval_loss"], abs=1e-4)
    assert trained.step == 6 and f"checkpoint-{min((3, 6), key=found.__getitem__)}" in trained.path
    assert "eval_loss" in trained.figures and "eval_token_accuracy" not in trained.figures  # the log has losses alone
    score = bench.do("evaluate", given, prepared=path, checkpoint=trained.path, sha256=trained.sha256)["score"].figures
    saved = 3 if "checkpoint-3" in trained.path else 6
    # a token whose two likeliest are as good as equal may fall either way in another order of sums
    assert score["base_eval_token_accuracy"] == pytest.approx(accuracy[0], abs=0.06)
    assert score["eval_token_accuracy"] == pytest.approx(accuracy[saved], abs=0.06)


def test_all_checkpoints_are_kept_where_none_is_to_go(bench: Bench, settings: Make) -> None:
    """C29."""
    bench.trained(settings(save_total_limit=0, save_steps=1, max_steps=5))
    kept = {path.name for path in bench.place.run_folder.glob("streams/one/t*/checkpoint-*")}
    assert kept == {f"checkpoint-{step}" for step in range(1, 6)}
