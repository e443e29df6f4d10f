"""Issue 17: a controller of a stream, from its settings to the learning rate, the figures, the log and a resumed run (U07, U14, U17, U19, U21)."""

from __future__ import annotations

import csv
import itertools
import json
import xml.etree.ElementTree as ET
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from swarm import config, kinds
from swarm.errors import UserErrors
from swarm.settings import StreamSettings
from tests.trainer.company import Company, same
from tests.trainer.conftest import Bench
from trainer import OrbitalController, UnifiedController
from trainer.loop.modes import Acts

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning:transformers")
Make = Callable[..., StreamSettings]
THETA1 = 0.838
"""A loss of 5.17, which the tiny base passes several times."""
AT_ONCE = {
    "controller": "unified", "controller_preset": "absolute", "controller_alpha": 1.0, "controller_beta": 0.0,
    "controller_theta1": THETA1,
    "lr_scheduler": "constant", "learning_rate": 0.02, "lora_r": 8, "max_steps": 12, "save_steps": 6, "save": "last",
    "micro_batch_size": 8, "exact": True,
}  # fmt: skip
"""Phi is the step's own stress: the mode follows the loss without delay."""


@pytest.fixture
def company(tmp_path: Path, settings: Make) -> Callable[[str], Company]:
    return lambda name: prepared_for(tmp_path / name, settings())


def prepared_for(folder: Path, chosen: StreamSettings) -> Company:
    bench = Bench(folder)
    bench.do("prepare", chosen)
    return Company(folder, bench.prepared)


def factor_of(loss: float) -> float:
    phi = loss / (1 + loss)
    return 1.0 if phi < 0.3 else 0.6 if phi < THETA1 else 0.2


def test_the_mode_scales_the_schedule_and_is_a_figure_and_an_entry(
    company: Callable[[str], Company], settings: Make
) -> None:
    group = company("one")
    group.come("one", settings(**AT_ONCE))
    group.train()
    rows = group.figures["one"]
    assert [row["learning_rate"] for row in rows[1:]] == pytest.approx(
        [0.02 * factor_of(row["loss"]) for row in rows[:-1]]
    )
    assert [row["phi"] for row in rows] == pytest.approx([row["loss"] / (1 + row["loss"]) for row in rows])
    modes = [row["mode"] for row in rows]
    assert modes[0] == 2 and set(modes) == {1, 2}
    posts = [event.body for event in group.events["one"] if event.kind == "post"]
    assert posts[0].startswith("step 1: multi -> mirror: phi is 0.") and len(posts) == 1 + sum(
        before != after for before, after in itertools.pairwise(modes)
    )


def test_it_goes_on_from_a_checkpoint_bit_for_bit(company: Callable[[str], Company], settings: Make) -> None:
    through, again = company("through"), company("again")
    through.come("one", settings(**AT_ONCE, controller_dwell=4))
    through.train()
    saved = next(event for event in through.events["one"] if event.kind == "checkpoint")
    again.place.stream_folder("one").mkdir(parents=True)
    (through.place.run_folder / saved.path).rename(again.place.stream_folder("one") / "checkpoint-6")
    again.come("one", settings(**AT_ONCE, controller_dwell=4), resume_from=["streams/one/checkpoint-6"])
    again.train()
    assert same(again.weights("one"), through.weights("one"))
    assert [row["phi"] for row in again.figures["one"]] == [row["phi"] for row in through.figures["one"]][6:]


def test_the_end_of_a_training_leaves_its_phi_its_changes_of_mode_a_summary_and_a_picture(
    company: Callable[[str], Company], settings: Make
) -> None:
    """U21: from all rows of the training, those before it went on included."""
    group = company("one")
    group.come("one", settings(**AT_ONCE))
    group.train()
    folder, rows = group.place.stream_folder("one"), group.figures["one"]
    written = list(csv.DictReader((folder / "phi_log.csv").read_text().splitlines()))
    assert [float(row["phi"]) for row in written] == [row["phi"] for row in rows]
    changes = json.loads((folder / "transition_log.json").read_text())
    assert [change["step"] for change in changes] == [
        step for step, (a, b) in enumerate(itertools.pairwise(rows), 2) if a["mode"] != b["mode"]
    ]
    summary = json.loads((folder / "phi_summary.json").read_text())
    assert summary["steps"] == 12 and summary["transitions"] == len(changes) and sum(summary["share"].values()) == 1
    picture = ET.parse(folder / "phi.svg").getroot()
    lines = [each for each in picture if each.tag.endswith("polyline")]
    assert [len(line.attrib["points"].split()) for line in lines] == [12, 12]


def test_in_the_engine_trl_it_steers_as_in_the_shared_one_and_goes_on_from_a_checkpoint(
    tmp_path: Path, settings: Make
) -> None:
    """U07, U21: the factor is that of the step before, the mode an entry, and the weights of a resumed run are those of one in one go."""
    chosen = settings(**{**AT_ONCE, "exact": False}, engine="trl")
    bench = Bench(tmp_path)
    prepared = bench.do("prepare", chosen)["prepared"].path
    trained = bench.do("train", chosen, prepared=prepared)["trained"]
    rows = [row.figures for row in bench.metric_rows() if "loss" in row.figures]
    assert [row["phi"] for row in rows] == pytest.approx([row["loss"] / (1 + row["loss"]) for row in rows], abs=1e-3)
    factors = [1.0, *((1, 0.6, 0.2)[int(row["mode"])] for row in rows)]
    assert [row["learning_rate"] for row in rows] == pytest.approx([0.02 * factor for factor in factors[:-1]])
    posts = [event.body for event in bench.events() if event.kind == "post" and "->" in event.body]
    assert posts[0].startswith("step 1: multi -> mirror: phi is 0.")
    assert (bench.place.stream_folder("one") / "phi.svg").exists()
    again = Bench(tmp_path)
    again.prepared = bench.prepared
    middle = next(event for event in bench.events() if event.kind == "checkpoint" and event.step == 6)
    resumed = again.do("train", chosen, prepared=prepared, resume_from=[middle.path])["trained"]
    first, second = (load_file(tmp_path / event.path / "adapter_model.safetensors") for event in (trained, resumed))
    assert same(first, second)


ACTS = {
    "controller": "unified", "controller_preset": "absolute", "controller_alpha": 1.0, "controller_beta": 0.0,
    "controller_theta0": 0.0001, "controller_theta1": 0.98, "controller_merge": "ties", "controller_anchor_rows": 4,
    "controller_anchor_steps": 2, "lr_scheduler": "constant", "learning_rate": 0.02, "lora_r": 8, "max_steps": 12,
    "save_steps": 6, "save": "last", "micro_batch_size": 8, "exact": True,
}  # fmt: skip


def with_tasks(folder: Path) -> list[dict[str, str]]:
    rows = [
        {"prompt": f"{word} {n}", "completion": answer, "skill": word}
        for n in range(24)
        for word, answer in (("double", str(2 * n)), ("halve", str(n / 2)))
    ]
    path = folder / "skills.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return [{"path": str(path), "type": "prompt_completion", "task": "skill"}]


def test_a_column_of_the_data_names_the_tasks_that_get_adapters_of_their_own(tmp_path: Path, settings: Make) -> None:
    """U01: from a file's column through preparation to the log, and on from a checkpoint that was saved in mode multi."""
    chosen = settings(**ACTS, datasets=with_tasks(tmp_path))
    through, again = (prepared_for(tmp_path / name, chosen) for name in ("through", "again"))
    through.come("one", chosen)
    through.train()
    assert through.errors == {"one": None}
    posts = [event.body for event in through.events["one"] if event.kind == "post"]
    assert posts == ["step 1: an adapter for each of 2 tasks: double, halve"]
    last = through.figures["one"][-1]
    assert last["mode"] == 1 and last["conflict"] > 0 and 0 < last["stability"] <= 1
    saved = next(event for event in through.events["one"] if event.kind == "checkpoint")
    again.place.stream_folder("one").mkdir(parents=True)
    (through.place.run_folder / saved.path).rename(again.place.stream_folder("one") / "checkpoint-6")
    again.come("one", chosen, resume_from=["streams/one/checkpoint-6"])
    again.train()
    assert same(again.weights("one"), through.weights("one"))


ORBITAL = {
    "controller": "orbital", "controller_warmup": 10, "controller_every": 1, "controller_dwell": 1, "controller_stress": 0.0,
    "controller_recovery": 0.0, "lr_scheduler": "constant", "learning_rate": 0.02, "lora_r": 8, "max_steps": 18, "save_steps": 14,
    "save": "last", "micro_batch_size": 8, "exact": True,
}  # fmt: skip
"""Every phi above the mean of all leads towards low, and every one below it towards high."""
FACTORS, RANKS = (1.5, 1.0, 0.3), (8, 4, 2)


def test_a_state_chooses_the_learning_rate_and_the_ranks_and_goes_on_from_a_checkpoint_bit_for_bit(
    company: Callable[[str], Company], settings: Make
) -> None:
    """U19: what rests in the end is nothing in the saved adapter; its states are named in the files of its course."""
    through, again = company("through"), company("again")
    through.come("one", settings(**ORBITAL))
    through.train()
    rows = through.figures["one"]
    states = [int(row["mode"]) for row in rows]
    assert len(set(states)) >= 2
    assert [row["learning_rate"] for row in rows] == pytest.approx([0.02 * FACTORS[at] for at in [1, *states[:-1]]])
    assert [row["active_rank"] for row in rows] == [RANKS[at] for at in states]
    for name, value in through.weights("one").items():
        used = value if "lora_A" in name else value.T
        assert used[: RANKS[states[-1]]].any(dim=1).all() and not used[RANKS[states[-1]] :].any(), name
    folder = through.place.stream_folder("one")
    changes = json.loads((folder / "transition_log.json").read_text())
    assert changes and {change["to"] for change in changes} <= {"high", "base", "low"}
    saved = next(event for event in through.events["one"] if event.kind == "checkpoint")
    again.place.stream_folder("one").mkdir(parents=True)
    (through.place.run_folder / saved.path).rename(again.place.stream_folder("one") / "checkpoint-14")
    again.come("one", settings(**ORBITAL), resume_from=["streams/one/checkpoint-14"])
    again.train()
    assert same(again.weights("one"), through.weights("one"))
    assert [row["phi"] for row in again.figures["one"]] == [row["phi"] for row in rows][14:]


def test_where_it_adapts_the_rate_alone_trl_trains_with_it_too(tmp_path: Path, settings: Make) -> None:
    """U19."""
    chosen = settings(**{**ORBITAL, "exact": False}, controller_adapt="rate", engine="trl")
    bench = Bench(tmp_path)
    bench.trained(chosen)
    rows = [row.figures for row in bench.metric_rows() if "loss" in row.figures]
    states = [int(row["mode"]) for row in rows]
    assert len(set(states)) >= 2 and not any("active_rank" in row for row in rows)
    assert [row["learning_rate"] for row in rows] == pytest.approx([0.02 * FACTORS[at] for at in [1, *states[:-1]]])


def test_each_setting_of_a_controller_arrives(settings: Make) -> None:
    """U06, U07, U14, U15, U18, U19, U20, U23: in the controller, and in what its modes do."""
    numbers = {
        "alpha": 0.2, "beta": 0.8, "theta0": 0.2, "theta1": 0.6, "band": 0.03, "dwell": 7, "warmup": 9,
        "mirror_lock": True, "skip": False,
    }  # fmt: skip
    rates = {"single": 2.0, "multi": 0.7, "mirror": 0.1}
    parts = {
        "error": 0.9,
        "conflict": 0.1,
        "stability": 0.2,
        "error_rise": 0.3,
        "conflict_rise": 0.4,
        "stability_fall": 0.5,
    }
    acts = {"merge": "ties", "anchor_rows": 6, "anchor_steps": 5, "snapshots": 2, "rho": 0.1, "pull": 0.3}
    weights = {f"weight_{name}": value for name, value in parts.items()}
    modes: Any = begun(settings, "unified", {**numbers, **rates, **weights, **acts})
    expected = UnifiedController.preset(
        "relative", **numbers, **{f"lr_{mode}": rate for mode, rate in rates.items()}, weights=parts
    )
    assert vars(modes.controller) == vars(expected)
    assert modes.acts == Acts(**acts)  # type: ignore[arg-type]
    ranks: Any = begun(settings, "unified", {"adapt": "rank", "ranks": [1.0, 0.75, 0.125], "rescale": True})
    assert (ranks.shares, ranks.rescale, ranks.controller.values) == ([1.0, 0.75, 0.125], True, (1.0, 1.0, 1.0))
    numbers = {
        "alpha": 0.2, "spike": 0.3, "stress": 1.2, "recovery": 0.8, "window": 20, "warmup": 12, "dwell": 4, "every": 2,
    }  # fmt: skip
    orbital: Any = begun(settings, "orbital", {**numbers, "high": 2.0, "low": 0.1, "ranks": [1.0, 0.75, 0.125]})
    assert vars(orbital.controller) == vars(OrbitalController(**numbers, lr_high=2.0, lr_low=0.1))  # type: ignore[arg-type]
    assert orbital.shares == [1.0, 0.75, 0.125]


def begun(settings: Make, name: str, given: dict[str, Any]) -> object:
    chosen = settings(controller=name, **{f"controller_{key}": value for key, value in given.items()})
    return kinds.controller(name).begin(chosen)


STREAM = "name: demo\nstreams:\n  one:\n    base_model: tiny-toon\n    datasets: [{path: a.jsonl}]\n"


def read(folder: Path, lines: str) -> StreamSettings:
    (folder / "a.jsonl").write_text('{"messages": []}\n' * 50)
    (folder / "my.yaml").write_text(STREAM + lines)
    return config.load(folder / "my.yaml", cwd=folder).run.streams["one"]


def test_a_group_of_settings_is_short_for_flat_keys(tmp_path: Path) -> None:
    nested = read(tmp_path, "    controller: {kind: unified, preset: glue, mirror: 0.1}\n")
    flat = read(tmp_path, "    controller: unified\n    controller_preset: glue\n    controller_mirror: 0.1\n")
    assert nested == flat
    assert read(tmp_path, "").controller == "none"


@pytest.mark.parametrize(
    ("lines", "problem"),
    [
        ("    controller: {kind: unfied}\n", "my.yaml:6: streams.one.controller.kind: 'unfied' is not one of none, orbital, unified; did you mean `unified`?"),
        ("    controller: {preset: glue}\n", "my.yaml:6: streams.one.controller: names no kind; write `controller: {kind: NAME, ...}`"),
        ("    controller: {kind: unified, presets: glue}\n", "my.yaml:6: streams.one.controller.presets: unknown setting; did you mean `controller_preset`?"),
        ("    controller_preset: glue\n", "my.yaml:6: streams.one.controller_preset: unknown setting; it is a setting of `controller: unified`"),
        ("    controller: unified\n    controller_theta0: 0.8\n", "my.yaml:7: streams.one.controller_theta0: mode multi would begin at 0.8, above mirror's 0.7; write less than 0.7"),
        ("    controller: {kind: unified, rho: 0.1}\n", "my.yaml:6: streams.one.controller.rho: it does nothing without controller_anchor_rows; set controller_anchor_rows: 16, or leave it out"),
        ("    controller: {kind: unified, weight_conflict: 0.5}\n", "my.yaml:6: streams.one.controller.weight_conflict: it does nothing without controller_merge; set controller_merge: mean, or leave it out"),
        ("    controller: {kind: unified, preset: glue, warmup: 9}\n", "my.yaml:6: streams.one.controller.warmup: it does nothing with controller_preset: glue; leave it out"),
        ("    controller: {kind: unified, merge: best}\n", "my.yaml:6: streams.one.controller.merge: best is chosen by controller_anchor_rows; set controller_anchor_rows: 16, or write mean"),
        ("    controller: {kind: unified, adapt: rank, merge: mean}\n", "my.yaml:6: streams.one.controller.adapt: ranks are not adapted beside merge or anchor_rows; leave one of them out"),
        ("    controller: {kind: unified, adapt: rank, ranks: [1, 0.5]}\n", "my.yaml:6: streams.one.controller.ranks: 2 shares for three modes; write [1.0, 0.5, 0.25]"),
        ("    controller: {kind: unified, adapt: rank}\n    init_lora_weights: olora\n", "my.yaml:7: streams.one.init_lora_weights: with olora each rank holds a part of the base, which would be missing where ranks rest; leave controller_adapt out, or write default"),
        ("    controller: {kind: unified, adapt: rank, mirror: 0.1}\n", "my.yaml:6: streams.one.controller.mirror: it does nothing with controller_adapt: rank; leave it out"),
        ("    controller: {kind: unified, rescale: true}\n", "my.yaml:6: streams.one.controller.rescale: it does nothing with controller_adapt: rate; leave it out"),
        ("    adapter: control\n    allow_one_class: true\n    controller: {kind: unified, merge: mean}\n", "my.yaml:8: streams.one.controller.merge: the conflict of tasks is measured on products of two matrices, which control adapters are not; write `adapter: lora`, or leave it out"),
        ("    controller: {kind: orbital, adapt: rate, ranks: [1, 0.4, 0.2]}\n", "my.yaml:6: streams.one.controller.ranks: it does nothing with controller_adapt: rate; leave it out"),
        ("    controller: {kind: orbital, adapt: rank, low: 0.1}\n", "my.yaml:6: streams.one.controller.low: it does nothing with controller_adapt: rank; leave it out"),
        ("    controller: {kind: orbital, ranks: [1, 0.5]}\n", "my.yaml:6: streams.one.controller.ranks: 2 shares for three modes; write [1.0, 0.5, 0.25]"),
        ("    controller: orbital\n    init_lora_weights: pissa\n", "my.yaml:7: streams.one.init_lora_weights: with pissa each rank holds a part of the base, which would be missing where ranks rest; write controller_adapt: rate, or write default"),
        ("    adapter: full\n    controller: orbital\n", "my.yaml:6: streams.one.adapter: the controller adapts ranks, and there are none; write controller_adapt: rate, or take lora"),
        ("    controller: orbital\n    engine: trl\n", "my.yaml:7: streams.one.engine: trl cannot train sft + lora + orbital with these settings; write shared, or leave it out"),
        ("    controller: {kind: unified, anchor_rows: 8}\n    engine: trl\n", "my.yaml:7: streams.one.engine: trl cannot train sft + lora + unified with controller_anchor_rows; write shared, or leave it out"),
    ],
)  # fmt: skip
def test_what_is_wrong_with_it_is_found_before_anything_starts(tmp_path: Path, lines: str, problem: str) -> None:
    with pytest.raises(UserErrors) as found:
        read(tmp_path, lines)
    assert [str(error).replace(f"{tmp_path}/", "") for error in found.value.errors] == [problem]
