"""Slots go by what the streams of a warm group were measured to take."""

from __future__ import annotations

import json

import pytest

from swarm.launch.layout import Layout, WorkerSpec
from swarm.messages import Held
from swarm.planning.gpus import Devices, Gpu
from swarm.planning.measured import corrected, grown, widened
from swarm.settings import Placement, RunSettings, StreamSettings

MB = 10**6
STREAM = {"base_model": "base", "datasets": [{"path": "rows.jsonl"}]}


def run(**placement: object) -> RunSettings:
    streams = {name: StreamSettings.model_validate(STREAM) for name in "abcd"}
    streams["quantised"] = StreamSettings.model_validate({**STREAM, "adapter": "qlora"})
    return RunSettings(name="demo", streams=streams, placement=Placement.model_validate(placement))


def layout(slots: int = 1, gpu_index: int | None = None, *, judging: int = 0) -> Layout:
    clerk = WorkerSpec("clerk", ("prepare", "validate"), "cpu")
    trainer = WorkerSpec("trainer", ("train",), "cpu", gpu_index=gpu_index, slots=slots)
    return Layout((clerk, trainer), own_bytes=dict.fromkeys("abcd", 100 * MB), judging_bytes=judging)


def held(*names: str, kept: int, passing: int = 0) -> list[Held]:
    return [
        Held(ref=f"{name}/train", token=at, kept_bytes=kept * MB, passing_bytes=passing * MB)
        for at, name in enumerate(names, 1)
    ]


def free(megabytes: int | None) -> Devices:
    return Devices((), 2, None if megabytes is None else megabytes * MB)


def slots(found: Layout) -> int:
    return found.workers[1].slots


def test_the_estimate_of_a_stream_is_corrected_by_the_ratio_of_those_that_were_measured():
    assert corrected(60 * MB, layout(), held("a", "b", kept=20, passing=30)) == 30 * MB
    assert corrected(60 * MB, layout(), held("unknown", kept=20)) == 60 * MB


@pytest.mark.parametrize(("megabytes", "wanted"), [(10, 1), (56, 2), (112, 3), (500, 4), (None, 1)])
def test_streams_that_wait_get_slots_as_far_as_what_is_free_holds_them_as_measured(megabytes, wanted):
    found = widened(layout(), run(), {"trainer": held("a", kept=50)}, "bcd", free(megabytes))
    assert slots(found) == wanted


def test_what_a_step_takes_and_gives_back_on_a_cpu_is_no_room_and_neither_is_what_judging_will_take():
    measured = {"trainer": held("a", "b", kept=10, passing=40)}
    assert slots(widened(layout(2), run(), measured, "cd", free(150))) == 3, "135 less 80 of the two, 50 each"
    assert slots(widened(layout(2, judging=10 * MB), run(), measured, "cd", free(150))) == 2
    on_gpu = Devices((Gpu(0, "uuid", "test", 150 * MB, 150 * MB),), 2, 0)
    assert slots(widened(layout(2, 0, judging=10 * MB), run(), measured, "cd", on_gpu)) == 4, (
        "the allocator keeps it, and the judge is elsewhere"
    )


def test_a_number_that_the_user_has_written_stays_and_so_does_one_that_is_larger():
    measured = {"trainer": held("a", kept=1)}
    assert slots(widened(layout(), run(cpu_streams=1), measured, "bcd", free(500))) == 1
    assert slots(widened(layout(3), run(), measured, "b", free(500))) == 3


def test_only_streams_of_the_same_base_in_memory_can_join_and_two_workers_do_not_take_the_same_room_twice():
    assert slots(widened(layout(), run(), {"trainer": held("a", kept=1)}, ["quantised"], free(500))) == 1
    made = layout()
    two = Layout((*made.workers, WorkerSpec("other", ("train",), "cpu")), own_bytes=made.own_bytes)
    measured = {"trainer": held("a", kept=50), "other": held("b", kept=50)}
    found = widened(two, run(), measured, "cd", free(120))
    assert [worker.slots for worker in found.trainers()] == [3, 1]


def test_a_remark_says_what_was_measured_and_what_was_predicted():
    before, measured = layout(), {"trainer": held("a", kept=20, passing=30)}
    now = widened(before, run(), measured, "bc", free(500))
    assert list(grown(before, now, measured)) == [
        "trainer: 3 streams at once instead of 1: what it trains takes 50 MB beside the base, and 100 MB were predicted"
    ]
    assert list(grown(now, now, measured)) == []


def test_the_layout_keeps_what_was_predicted_and_one_of_an_older_version_is_read(tmp_path):
    made = layout(judging=7)
    made.write(tmp_path / "layout.json")
    assert Layout.read(tmp_path / "layout.json") == made
    older = json.loads((tmp_path / "layout.json").read_text())
    del older["own_bytes"], older["judging_bytes"]
    (tmp_path / "layout.json").write_text(json.dumps(older))
    assert Layout.read(tmp_path / "layout.json") == Layout(made.workers)
