"""`seeds` and `sweep_lr` add streams to a config, and a run's own config reads back to the same ones."""

from __future__ import annotations

import pytest

from swarm.errors import UserErrors
from swarm.planning.notes import notes
from tests.swarm.config.conftest import Loading

TEXT = """
name: x
defaults: {base_model: tiny-toon, datasets: [{path: data/train.jsonl}], seed: 7}
streams:
  wide: {lora_r: 32, seeds: 3, sweep_lr: [1e-4, 2e-4]}
  narrow: {seeds: 2}
  plain: {use_dora: true}
"""


def test_replicas_and_learning_rates_become_streams(loading: Loading) -> None:
    streams = loading(TEXT).run.streams
    wide = [f"wide.lr{rate}.s{seed}" for rate in ("0.0001", "0.0002") for seed in (1, 2, 3)]
    assert list(streams) == [*wide, "narrow.s1", "narrow.s2", "plain"]
    assert [streams[name].seed for name in wide] == [7, 8, 9] * 2
    assert [streams[name].learning_rate for name in wide] == [1e-4] * 3 + [2e-4] * 3
    assert {streams[name].replica_of for name in wide} == {"wide.lr0.0001", "wide.lr0.0002"}
    assert streams["plain"].replica_of is None


def test_the_config_of_the_run_reads_back_to_the_same_streams(loading: Loading) -> None:
    first = loading(TEXT)
    assert loading(first.dump(), name="again.yaml").run == first.run


def test_a_name_that_is_there_already_is_a_problem(loading: Loading) -> None:
    with pytest.raises(UserErrors, match=r"there are two streams narrow\.s1; name one of them otherwise"):
        loading(TEXT + "  narrow.s1: {}\n")


def test_a_slip_of_the_key_makes_no_million_streams(loading: Loading) -> None:
    with pytest.raises(UserErrors, match=r"my\.yaml:6: streams\.narrow\.seeds: .*64"):
        loading(TEXT.replace("seeds: 2", "seeds: 1000000000"))
    rates = ", ".join(f"{rate}e-4" for rate in range(1, 1000))
    with pytest.raises(UserErrors, match=r"sweep_lr: .*16"):
        loading(TEXT.replace("seeds: 2", f"sweep_lr: [{rates}]"))


def test_ways_of_training_at_one_learning_rate_each_get_a_warning(loading: Loading) -> None:
    [line] = [line for line in notes(loading(TEXT).run, {}) if "learning rate" in line]
    assert line.startswith("warning: different ways of training are compared, each at one learning rate")
    assert "sweep_lr" in line
    swept = TEXT.replace("plain: {use_dora: true}", "plain: {use_dora: true, sweep_lr: [1e-3, 2e-3]}")
    assert not [line for line in notes(loading(swept).run, {}) if "learning rate" in line]
