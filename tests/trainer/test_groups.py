"""Trainings of one base in one process: each goes as if it were alone, whoever joins, pauses, leaves or fails beside it."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM

from swarm.errors import UserError
from swarm.settings import StreamSettings
from tests.trainer.company import Company, same
from tests.trainer.conftest import Bench
from trainer.engines import shared
from trainer.engines.arrangement import TOGETHER, Way
from trainer.errors import LeaseRevoked, LeaseStopped
from trainer.loop.loop import Loop
from trainer.loop.stream import Stream

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning:transformers")

Make = Callable[..., StreamSettings]
FOUR: dict[str, dict[str, object]] = {
    "plain": {"lora_r": 4},
    "dora": {"use_dora": True, "lora_dropout": 0.1, "learning_rate": 2e-3},
    "wide": {"lora_r": 16, "lora_dropout": 0.2, "micro_batch_size": 2, "lr_scheduler": "cosine"},
    "slow": {"gradient_accumulation_steps": 3, "optimizer": "sgd", "learning_rate": 0.05},
}


@pytest.fixture
def four(settings: Make) -> dict[str, StreamSettings]:
    """Streams that differ in rank, kind, dropout, batch, accumulation, schedule and optimizer."""
    common = {"engine": "shared", "exact": True, "max_steps": 6, "save_steps": 3, "save": "last"}
    return {name: settings(**{**common, **own}) for name, own in FOUR.items()}


@pytest.fixture
def company(tmp_path: Path, settings: Make) -> Callable[[str], Company]:
    """A run folder of its own by name, all with the same rows."""

    def made(name: str) -> Company:
        bench = Bench(tmp_path / name)
        bench.do("prepare", settings())
        return Company(tmp_path / name, bench.prepared)

    return made


def alone(company: Callable[[str], Company], chosen: dict[str, StreamSettings]) -> dict[str, Company]:
    """Each trained by itself."""
    made = {}
    for name, settings in chosen.items():
        made[name] = company(f"alone-{name}")
        made[name].come(name, settings)
        made[name].train()
    return made


def test_whoever_joins_pauses_and_leaves_four_streams_go_as_each_goes_alone(
    company: Callable[[str], Company], four: dict[str, StreamSettings], base: Path
) -> None:
    expected = alone(company, four)
    group = company("group")
    for name in ("plain", "dora", "slow"):
        group.come(name, four[name])
    seen: list[str] = []

    def at(name: str, step: int) -> None:
        def once(what: str) -> bool:
            return what not in seen and not seen.append(what)

        if (name, step) == ("plain", 2) and once("pause"):
            group.order("plain", "pause")
        if (name, step) == ("dora", 3) and once("late"):
            group.come("wide", four["wide"])
        if (name, step) == ("wide", 2) and once("resume"):
            assert group.works["plain"].lease.held().state == "paused"
            group.order("plain", "resume")
        if (name, step) == ("slow", 2) and once("stop"):
            group.order("slow", "stop")

    group.at = at
    group.train()
    assert sorted(seen) == ["late", "pause", "resume", "stop"]
    assert isinstance(group.errors.pop("slow"), LeaseStopped)
    assert group.errors == dict.fromkeys(("plain", "dora", "wide"))
    for name in ("plain", "dora", "wide"):
        assert same(group.weights(name), expected[name].weights(name)), name
        assert group.losses[name] == expected[name].losses[name]
        assert group.last(name, "trained").figures["loss"] == expected[name].last(name, "trained").figures["loss"]
    assert group.works["plain"].lease.paused_seconds > 0

    stopped = group.last("slow", "checkpoint")
    assert stopped.step in (2, 3)
    group.come("slow", four["slow"], resume_from=[stopped.path])
    group.train()
    assert same(group.weights("slow"), expected["slow"].weights("slow")), "it went on bit for bit"

    folder = group.place.run_folder / group.last("dora", "trained").path
    loaded = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), folder)
    trained = group.last("dora", "trained").trainable
    assert sum(value.numel() for name, value in loaded.named_parameters() if "lora_" in name) == trained


@pytest.mark.parametrize("adapter", ["lora", "qlora"])
def test_streams_go_on_from_their_checkpoints_bit_for_bit(
    company: Callable[[str], Company], four: dict[str, StreamSettings], adapter: str
) -> None:
    chosen = {
        name: StreamSettings.model_validate({**one.model_dump(exclude_unset=True), "adapter": adapter})
        for name, one in four.items()
    }
    through, again = company("through"), company("again")
    for name, settings in chosen.items():
        through.come(name, settings)
    through.train()
    for name, settings in chosen.items():
        saved = next(event for event in through.events[name] if event.kind == "checkpoint")
        assert saved.step == 3
        (again.place.stream_folder(name)).mkdir(parents=True)
        (through.place.run_folder / saved.path).rename(again.place.stream_folder(name) / "checkpoint-3")
        again.come(name, settings, resume_from=[f"streams/{name}/checkpoint-3"])
    again.train()
    for name in chosen:
        assert same(again.weights(name), through.weights(name)), name
        assert again.losses[name] == through.losses[name][3:]


def test_of_a_group_whose_stream_turns_nan_only_that_one_fails(
    company: Callable[[str], Company], four: dict[str, StreamSettings]
) -> None:
    expected = company("without")
    group = company("with")
    for name in ("plain", "dora", "wide"):
        expected.come(name, four[name])
        group.come(name, four[name])
    group.come("hot", four["plain"].model_copy(update={"learning_rate": 1e30, "max_grad_norm": 1e30}))
    expected.train()
    group.train()
    error = group.errors.pop("hot")
    assert isinstance(error, UserError)
    assert "the adapter's weights grew to" in str(error)
    assert str(error).endswith("lower learning_rate")
    assert not [event for event in group.events["hot"] if event.kind in {"trained", "checkpoint"}]
    assert set(group.errors.values()) == {None}
    for name in ("plain", "dora", "wide"):
        assert same(group.weights(name), expected.weights(name)), name


def test_a_stream_whose_files_are_wrong_fails_before_it_joins_and_the_others_go_on(
    company: Callable[[str], Company], four: dict[str, StreamSettings]
) -> None:
    group = company("group")
    group.come("plain", four["plain"])
    group.come("odd", four["plain"].model_copy(update={"lora_target_modules": ["nothing"]}))
    group.come("gone", four["plain"])
    group.order("gone", "revoke")
    group.train()
    assert group.errors["plain"] is None
    assert str(group.errors["odd"]).startswith("lora_target_modules: nothing matches no layer")
    assert isinstance(group.errors["gone"], LeaseRevoked)


def test_a_group_of_paused_streams_waits_and_a_stop_saves_where_they_stand(
    company: Callable[[str], Company], four: dict[str, StreamSettings]
) -> None:
    group = company("group")
    for name in ("plain", "wide"):
        group.come(name, four[name])
        group.order(name, "pause")
    waited = iter([("plain", "resume"), ("wide", "stop")])
    group.idle = lambda: group.order(*next(waited))
    group.train()
    assert group.errors["plain"] is None
    assert isinstance(group.errors["wide"], LeaseStopped)
    assert group.last("wide", "checkpoint").step == 1


def test_an_error_of_the_program_ends_the_process_of_several_and_the_training_of_one(
    company: Callable[[str], Company], four: dict[str, StreamSettings], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("a bug")

    monkeypatch.setattr("trainer.loop.head.Head.backward", broken)
    group = company("group")
    group.come("plain", four["plain"])
    group.train()
    assert str(group.errors["plain"]) == "a bug"
    for name in ("plain", "wide"):
        group.come(name, four[name])
    with pytest.raises(RuntimeError, match="a bug"):
        group.train()


def test_training_goes_on_while_a_checkpoint_is_written(
    company: Callable[[str], Company], four: dict[str, StreamSettings], monkeypatch: pytest.MonkeyPatch
) -> None:
    written, write = threading.Event(), shared.folder.write_state
    group = company("group")

    def slow(*given: object) -> None:
        assert written.wait(30), "the loop waits for the disk"
        write(*given)  # type: ignore[arg-type]

    monkeypatch.setattr(shared.folder, "write_state", slow)
    group.at = lambda name, step: written.set() if step >= 5 else None
    group.come("plain", four["plain"])
    group.train()
    assert [event.step for event in group.events["plain"] if event.kind == "checkpoint"] == [3]
    assert group.errors["plain"] is None


def test_a_checkpoint_that_cannot_be_written_ends_its_stream_alone(
    company: Callable[[str], Company], four: dict[str, StreamSettings], monkeypatch: pytest.MonkeyPatch
) -> None:
    write = shared.folder.write_state

    def full(state: object, stream: object, folder: Path) -> None:
        if "wide" in folder.parts:
            raise OSError(28, "No space left on device")
        write(state, stream, folder)  # type: ignore[arg-type]

    monkeypatch.setattr(shared.folder, "write_state", full)
    group = company("group")
    for name in ("plain", "wide"):
        group.come(name, four[name])
    group.train()
    assert "No space left" in str(group.errors["wide"])
    assert group.errors["plain"] is None
    assert not list(group.place.stream_folder("wide").glob("t*/checkpoint-*"))


def test_a_family_that_cannot_share_goes_to_trl_where_the_settings_leave_the_choice(
    company: Callable[[str], Company], four: dict[str, StreamSettings], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shared, "unfusable", lambda model, **_: "its router sees all rows")
    group = company("group")
    group.come("plain", four["plain"])
    group.come("wide", four["wide"].model_copy(update={"engine": "auto"}))
    group.train()
    assert str(group.errors["plain"]).endswith("its router sees all rows; write `engine: trl`")
    assert repr(group.errors["wide"]) == "Elsewhere('its router sees all rows')"


@pytest.mark.parametrize("is_slow_apart", [False, True])
def test_whether_streams_go_together_is_measured_and_the_log_says_what_was_faster(
    company: Callable[[str], Company], settings: Make, monkeypatch: pytest.MonkeyPatch, is_slow_apart: bool
) -> None:
    tick, seconds = Loop.tick, [0.0]

    def timed(loop: Loop, *meter: Any) -> int:
        seconds[0] += 1.0 if loop.exact == is_slow_apart else 0.1
        return tick(loop, *meter)

    monkeypatch.setattr(Loop, "tick", timed)
    monkeypatch.setattr("trainer.engines.arrangement.time", SimpleNamespace(perf_counter=lambda: seconds[0]))
    group = company("group")
    for name in ("plain", "wide"):
        group.come(name, settings(**{"engine": "auto", **FOUR[name], "max_steps": 12}))
    group.train()
    [note] = [event.body for event in group.events["plain"] if event.kind == "post"]
    apart = Way(exact=True, threads=min(2, torch.get_num_threads()))
    chosen, _, rates = note.partition("; tokens/s: ")
    measured = {way: int(re.findall(rf"{way} (\d+)", rates)[0]) for way in (TOGETHER, apart)}
    assert chosen == f"2 streams go through the base {TOGETHER if is_slow_apart else apart}"
    assert (measured[apart] > measured[TOGETHER]) == (not is_slow_apart)


def test_a_stream_that_memory_does_not_hold_beside_the_others_waits_until_one_has_left(
    company: Callable[[str], Company], four: dict[str, StreamSettings], monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = alone(company, {name: four[name] for name in ("plain", "dora", "wide")})
    add = Loop.add

    def limited(loop: Loop, *streams: Stream) -> None:
        add(loop, *streams)
        if len(loop.running) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(Loop, "add", limited)
    group = company("group")
    for name in ("plain", "dora", "wide"):
        group.come(name, four[name])
    group.train()
    assert group.errors == dict.fromkeys(("plain", "dora", "wide"))
    assert [event.body for event in group.events["wide"] if event.kind == "post"] == [
        "memory does not hold it beside 2 others: it waits until one has left"
    ]
    for name in ("plain", "dora", "wide"):
        assert same(group.weights(name), expected[name].weights(name)), name
