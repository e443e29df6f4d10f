"""Issue 21: `search` makes trials of a stream, the same ones at every reading, and its mistakes are found with their place."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swarm.config.trials import drawn
from swarm.errors import UserErrors
from swarm.settings import MOST_TRIALS, Search
from tests.swarm.config.conftest import Loading

TEXT = """
name: x
defaults: {base_model: tiny-toon, datasets: [{path: data/train.jsonl}]}
streams:
  wide:
    use_dora: true
    search:
      space: {lora_r: [4, 8, 16], learning_rate: {low: 1e-4, high: 1e-2, log: true}}
      trials: 6
  plain: {}
"""


def test_trials_take_the_place_of_their_stream(loading: Loading) -> None:
    streams = loading(TEXT).run.streams
    assert list(streams) == [*(f"wide.t{number}" for number in range(1, 7)), "plain"]
    trials = [streams[f"wide.t{number}"] for number in range(1, 7)]
    assert {trial.lora_r for trial in trials} <= {4, 8, 16} and all(trial.use_dora for trial in trials)
    assert all(1e-4 <= trial.learning_rate <= 1e-2 for trial in trials)
    assert len({trial.learning_rate for trial in trials}) == 6
    assert all(trial.search is None for trial in trials)


@pytest.mark.parametrize(
    ("space", "problem"),
    [
        ("{lora_r: [4, 0, 16]}", r"streams\.wide\.search\.space\.lora_r: cannot be 0; correct it"),
        ("{lora_rr: [4, 8, 16]}", r"streams\.wide\.search\.space\.lora_rr: is no setting of the stream"),
        ("{base_model: [a, b, c]}", r"streams\.wide\.search\.space\.base_model: cannot be changed: all streams of a running run"),
    ],
)  # fmt: skip
def test_what_a_trial_could_not_have_when_it_joins_is_found_before_the_run(
    loading: Loading, space: str, problem: str
) -> None:
    head = TEXT.partition("streams:")[0]
    with pytest.raises(UserErrors, match=problem):
        loading(f"{head}streams: {{wide: {{search: {{space: {space}, sampler: tpe, trials: 3}}}}}}\n")


def test_the_config_of_the_run_names_the_trials_themselves(loading: Loading) -> None:
    first = loading(TEXT)
    assert loading(first.dump(), name="again.yaml").run == first.run
    assert "space:" not in first.dump()


def test_the_seed_alone_decides_the_draws(loading: Loading) -> None:
    def rates(seed: int) -> list[float]:
        streams = loading(TEXT.replace("trials: 6", f"trials: 6\n      seed: {seed}")).run.streams
        return [stream.learning_rate for stream in streams.values()]

    assert rates(1) == rates(1) != rates(2)


def test_a_grid_is_every_combination_and_seeds_of_trials_ride_along(loading: Loading) -> None:
    grid = "{space: {lora_r: [4, 8], learning_rate: [1e-3, 1e-4]}, sampler: grid}"
    streams = loading(f"{TEXT.partition('streams:')[0]}streams: {{a: {{seeds: 2, search: {grid}}}}}\n").run.streams
    assert [(s.lora_r, s.learning_rate) for s in streams.values()] == [
        pair for pair in ((4, 1e-3), (4, 1e-4), (8, 1e-3), (8, 1e-4)) for _ in range(2)
    ]
    assert list(streams)[:2] == ["a.t1.s1", "a.t1.s2"]
    first = grid.replace("grid}", "grid, trials: 3}")
    streams = loading(f"{TEXT.partition('streams:')[0]}streams: {{a: {{search: {first}}}}}\n").run.streams
    assert [(s.lora_r, s.learning_rate) for s in streams.values()] == [(4, 1e-3), (4, 1e-4), (8, 1e-3)]


@given(st.integers(0, 50), st.integers(1, 40))
def test_no_trial_is_drawn_twice_and_none_outside_the_space(seed: int, trials: int) -> None:
    space = {
        "lora_r": [4, 8],
        "use_dora": [True, False],
        "max_steps": {"low": 10, "high": 14},
        "learning_rate": {"low": 1e-5, "high": 1e-1, "log": True},
    }
    found = drawn(Search.model_validate({"space": space, "trials": trials, "seed": seed}))
    assert len({repr(trial) for trial in found}) == len(found) == trials
    assert all(10 <= trial["max_steps"] <= 14 and 1e-5 <= trial["learning_rate"] <= 1e-1 for trial in found)
    few = drawn(Search.model_validate({"space": {"lora_r": [4, 8, 8]}, "trials": trials, "seed": seed}))
    assert len(few) == min(2, trials), "a space of two values holds two trials"


def test_a_range_in_the_logarithm_is_even_there() -> None:
    search = {"space": {"learning_rate": {"low": 1e-5, "high": 1e-1, "log": True}}, "trials": MOST_TRIALS}
    logs = [math.log10(trial["learning_rate"]) for trial in drawn(Search.model_validate(search))]
    assert all(0.15 < sum(low <= value < low + 1 for value in logs) / len(logs) < 0.35 for low in (-5, -4, -3, -2))


@pytest.mark.parametrize(
    ("written", "problem"),
    [
        ("{space: {lora_rr: [4, 8]}}", r"my\.yaml:8: streams\.wide\.lora_rr: unknown setting; did you mean `lora_r`\?"),
        ("{space: {lora_r: [4, -8]}}", r"my\.yaml:8: streams\.wide\.lora_r: expected a whole number of at least 1, got -8"),
        ("{space: {lora_r: [4]}, sampler: tepe}", r"my\.yaml:8: streams\.wide\.search\.sampler: 'tepe' is not one of random, grid, tpe"),
        ("{space: {lora_r: [4]}, sampler: tpe}", r"lora_r: the space holds 1 trials; lower `trials`, or widen the space"),
        ("{space: {lora_r: [4, 8, 8]}, trials: 3}", r"lora_r: the space holds 2 trials; lower `trials`, or widen the space"),
        ("{space: {lora_r: [4, 8]}, sampler: grid, trials: 3}", r"lora_r: the space holds 2 trials; lower `trials`"),
        ("{space: {lora_r: {low: 4, high: 8}}, trials: 6}", r"lora_r: the space holds 5 trials; lower `trials`"),
        ("{space: {learning_rate: {low: 1, high: 0.1}}}", r"my\.yaml:8: streams\.wide\.search\.space\.learning_rate: low 1 is not a number below high 0\.1"),
        ("{space: {learning_rate: {low: 0, high: 1, log: true}}}", r"learning_rate: low 0 is not a number above 0 below high 1"),
        ("{space: {learning_rate: {low: 1e-4, high: 1}}, sampler: grid}", r"learning_rate: a grid has lists of values; write a list, or `sampler: random`"),
        ("{space: {lora_r: [1,2,3,4,5,6,7], lora_alpha: [1,2,3,4,5,6,7], seed: [1,2,3,4,5,6]}, sampler: grid}", r"the grid has 294 trials, more than 256"),
        ("{spaces: {}}", r"streams\.wide\.search\.spaces: unknown setting; did you mean `space`\?"),
    ],
)  # fmt: skip
def test_what_is_wrong_with_a_search_is_found_with_its_place(loading: Loading, written: str, problem: str) -> None:
    head = TEXT.partition("  wide:")[0]
    with pytest.raises(UserErrors, match=problem):
        loading(f"{head}  wide:\n    use_dora: true\n    lora_dropout: 0.1\n    search: {written}\n")
