from __future__ import annotations

from dataclasses import replace

import pytest

from swarm.errors import UserError, UserErrors
from swarm.launch.layout import Layout
from swarm.planning import packing
from swarm.planning.estimate import Need
from swarm.planning.gpus import Devices, Gpu
from swarm.planning.placement import PROCESS_BYTES, place
from swarm.policy.fitting import CPU_PASS_TOKENS, PASS_TOKENS
from swarm.settings import Placement

GB = 10**9


def need(total_gb: float, *, judging_gb: float = 0.5, of: str = "weights") -> Need:
    parts = dict.fromkeys(("weights", "adapter", "gradients", "moments", "activations", "overhead"), 0)
    return Need(trainable=1, judging=int(judging_gb * GB), **{**parts, of: int(total_gb * GB)})


def gpu(index: int, free_gb: float | None) -> Gpu:
    free = None if free_gb is None else int(free_gb * GB)
    return Gpu(index, f"GPU-{index}", "test", free, free)


def gpus(*free_gb: float | None, cores: int = 16, host_gb: float = 64) -> Devices:
    return Devices(tuple(gpu(index, free) for index, free in enumerate(free_gb)), cores, int(host_gb * GB))


def cpu(cores: int, free_gb: float | None) -> Devices:
    return Devices((), cores, None if free_gb is None else int(free_gb * GB))


def shown(layout: Layout) -> list[str]:
    return [
        f"{w.name} {'+'.join(w.roles)} {w.device} x{w.threads}"
        + (f" [{' '.join(w.streams)}]" if w.streams is not None else "")
        for w in layout.workers
    ]


FOUR_TINY = {f"s{number}": need(0.1, judging_gb=0.1) for number in range(4)}


# ---- CPU -------------------------------------------------------------------------------------------------------------


def test_four_streams_on_two_cores_train_at_once_beside_one_process_for_the_light_roles():
    assert shown(place(FOUR_TINY, cpu(2, 24), Placement())) == [
        "clerk prepare+validate+evaluate cpu x1",
        "trainer-1 train cpu x1", "trainer-2 train cpu x1", "trainer-3 train cpu x1", "trainer-4 train cpu x1",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("streams", "cores", "free_gb", "asked", "trainers", "threads"),
    [
        (1, 8, 64, "auto", 1, 8), (2, 8, 64, "auto", 2, 4), (20, 8, 64, "auto", 8, 1), (20, 2, 64, "auto", 4, 1),
        (4, 2, 2.5, "auto", 2, 1), (4, 2, 1.7, "auto", 1, 2), (4, 2, None, "auto", 4, 1), (4, 8, 64, 2, 2, 4), (2, 8, 64, 9, 2, 4),
    ],
)  # fmt: skip
def test_cores_and_memory_bound_the_trainers_on_a_cpu(streams, cores, free_gb, asked, trainers, threads):
    needs = {f"s{number}": need(0.1, judging_gb=0.1) for number in range(streams)}
    made = place(needs, cpu(cores, free_gb), Placement(cpu_streams=asked)).trainers()
    assert (len(made), {worker.threads for worker in made}) == (trainers, {threads})


def test_streams_that_no_memory_holds_are_all_named_with_a_fix():
    needs = {"small": need(0.1), "big": need(30), "long": need(20, of="activations"), "fat": need(9, of="moments")}
    with pytest.raises(UserErrors) as caught:
        place(needs, cpu(8, 8.5), Placement())
    assert str(caught.value).splitlines() == [
        "streams.big: needs 30.0 GB, this machine has room for 6.6 GB (8.5 GB free); use a smaller base, or `adapter: qlora` if it is not set",
        "streams.long: needs 20.0 GB, this machine has room for 6.6 GB (8.5 GB free); lower `micro_batch_size` or `sequence_len`, or set `gradient_checkpointing: true`",
        "streams.fat: needs 9.0 GB, this machine has room for 6.6 GB (8.5 GB free); lower `lora_r`, or use `optimizer: adamw_8bit`",
        "3 problems; nothing was started",
    ]  # fmt: skip


def sharing(own_gb: float, shared_gb: float = 1.0) -> Need:
    """A stream that trains beside others on one base."""
    return replace(need(shared_gb), activations=int(own_gb * GB))


def lanes(layout: Layout) -> list[str]:
    return [f"{w.device} x{w.threads} {w.slots} of {' '.join(w.streams or ['all'])}" for w in layout.trainers()]


def test_a_group_is_one_process_with_all_cores_and_as_many_places_as_memory_holds():
    needs = {f"s{number}": sharing(1.0) for number in range(8)}
    groups = [tuple(needs)]
    assert lanes(place(needs, cpu(4, 24), Placement(), groups)) == ["cpu x4 8 of all"]
    tight = place(
        needs, cpu(4, 7.6), Placement(), groups
    )  # 0.7 each for a clerk and the trainer, 0.5 to judge, 1 for the base
    assert lanes(tight) == ["cpu x4 4 of all"]
    assert tight.notes == ("cpu: 4 at once in one process, 4 waiting, 4 of 4 cores each, 7.6 GB free",)
    assert lanes(place(needs, cpu(4, 7.6), Placement(cpu_streams=2), groups)) == ["cpu x4 2 of all"]


def test_what_a_trainer_will_need_is_predicted_for_as_many_streams_as_it_takes():
    needs = {"a": sharing(3.0, shared_gb=2), "b": sharing(0.5, shared_gb=2)}
    [trainer] = place(needs, cpu(4, 64), Placement(), [("a", "b")]).trainers()
    assert trainer.predicted_bytes == 5.5 * GB + PROCESS_BYTES
    [first, second] = place(needs, cpu(4, 64), Placement()).trainers()
    assert first.predicted_bytes == second.predicted_bytes == 5 * GB + PROCESS_BYTES, "either may take either"


def test_the_largest_streams_of_a_group_decide_how_many_it_takes():
    needs = {"a": sharing(3.0), "b": sharing(0.2), "c": sharing(0.2)}
    assert lanes(place(needs, cpu(4, 7.0), Placement(), [("a", "b", "c")])) == ["cpu x4 3 of all"]
    assert lanes(place(needs, cpu(4, 6.2), Placement(), [("a", "b", "c")])) == ["cpu x4 2 of all"]


def test_activations_of_a_group_grow_no_further_than_those_of_the_fullest_pass():
    wide = replace(need(1, of="activations"), tokens=PASS_TOKENS // 2, weights=GB, adapter=GB // 4)
    assert [packing.bytes_of([wide] * 8, slots) / GB for slots in (1, 2, 4)] == [2.25, 3.5, 4]
    longer = replace(wide, tokens=2 * PASS_TOKENS)  # one row at least, however long it is
    assert packing.bytes_of([longer] * 8, 4) == 3 * GB


@pytest.mark.parametrize("of", ["activations", "logits"])
def test_each_core_of_a_cpu_computes_a_pass_of_its_own_and_they_are_smaller(of):
    full = replace(need(1, of=of), tokens=CPU_PASS_TOKENS)
    assert [packing.bytes_of([full] * 8, slots, cores=2) / GB for slots in (1, 2, 4, 8)] == [1, 2, 2, 2]
    assert packing.bytes_of([full] * 64, 64, cores=64) / GB == PASS_TOKENS / CPU_PASS_TOKENS
    longer = replace(full, tokens=4 * CPU_PASS_TOKENS)
    assert [packing.bytes_of([longer] * 8, 8, cores=cores) / GB for cores in (1, 2)] == [1, 2]
    needs = {name: replace(full, weights=GB) for name in "abcdefgh"}
    assert lanes(place(needs, cpu(2, 5.5), Placement(), [tuple(needs)])) == ["cpu x2 8 of all"]


def test_each_group_has_a_process_of_its_own_and_other_streams_have_theirs():
    needs = {name: sharing(0.1) for name in "abcde"}
    groups = [("a", "c"), ("b",)]
    assert lanes(place(needs, cpu(4, 64), Placement(), groups)) == [
        "cpu x1 2 of a c", "cpu x1 1 of b", "cpu x1 1 of d e", "cpu x1 1 of d e",
    ]  # fmt: skip
    assert lanes(place(needs, cpu(2, 64), Placement(cpu_streams=2), groups)) == ["cpu x1 1 of a c b", "cpu x1 1 of d e"]
    assert lanes(place(needs, cpu(2, 64), Placement(cpu_streams=1), groups)) == ["cpu x2 1 of all"]


def test_each_gpu_has_one_process_for_the_streams_that_fit_it():
    needs = {f"s{number}": sharing(2.0, shared_gb=16) for number in range(8)}
    layout = place(needs, gpus(80, 80), Placement(), [tuple(needs)])
    assert lanes(layout) == ["gpu0 x4 4 of all", "gpu1 x4 4 of all"]
    assert layout.notes[0] == "gpu0: 4 at once (8 streams take turns), at most 24.6 GB of 80.0 GB free"
    assert lanes(place(needs, gpus(24), Placement(), [tuple(needs)])) == ["gpu0 x4 2 of all"]
    assert lanes(place(needs, gpus(80), Placement(streams_per_gpu=3), [tuple(needs)])) == ["gpu0 x4 3 of all"]


# ---- GPUs ------------------------------------------------------------------------------------------------------------


def test_one_gpu_holds_every_stream_that_fits_and_its_judges():
    assert shown(place({"a": need(4), "b": need(4)}, gpus(24), Placement())) == [
        "preparer prepare cpu x4", "judge validate+evaluate gpu0 x4", "trainer-1 train gpu0 x4", "trainer-2 train gpu0 x4",
    ]  # fmt: skip


def test_the_gpu_of_a_mac_is_used_like_any_other():
    """Row A17: workers are told its name."""
    apples = Devices((replace(gpu(0, 24), by_mps=True),), 8, 24 * GB)
    assert lanes(place({"a": need(4), "b": need(4)}, apples, Placement(), [("a", "b")])) == ["mps x4 2 of all"]
    with pytest.raises(UserErrors, match=r"needs 31\.0 GB, mps has room for"):
        place({"a": need(31)}, apples, Placement())


def test_streams_beyond_a_gpus_memory_wait():
    layout = place({name: need(9) for name in "abcd"}, gpus(24), Placement())
    assert [worker.device for worker in layout.trainers()] == ["gpu0", "gpu0"]
    assert layout.notes == ("gpu0: 2 at once (4 streams take turns), at most 19.2 GB of 24.0 GB free",)


def test_trainers_judge_where_judges_would_take_a_trainers_place():
    layout = place({"a": need(9, judging_gb=8), "b": need(9, judging_gb=8)}, gpus(24), Placement())
    assert [(worker.name, worker.roles) for worker in layout.workers] == [
        ("preparer", ("prepare",)),
        ("trainer-1", ("train", "validate", "evaluate")),
        ("trainer-2", ("train", "validate", "evaluate")),
    ]


def test_streams_are_dealt_over_the_gpus_and_a_small_gpu_takes_only_what_fits():
    needs = {"big": need(40), "mid": need(15), "small": need(2)}
    layout = place(needs, gpus(24, 80), Placement())
    assert [(w.device, w.gpu_index, w.streams) for w in layout.trainers()] == [
        ("gpu1", 1, None),
        ("gpu1", 1, None),
        ("gpu0", 0, ("mid", "small")),
    ]


def test_every_stream_finds_a_trainer_even_with_fewer_streams_than_gpus():
    layout = place({"big": need(40), "small": need(2)}, gpus(24, 24, 24, 80), Placement())
    assert any(worker.streams is None for worker in layout.trainers())
    assert len(layout.trainers()) == 2


def test_a_configured_number_of_streams_per_gpu_is_used_without_an_estimate():
    layout = place({name: need(9) for name in "abcdefg"}, gpus(24, 24), Placement(streams_per_gpu=3))
    assert [worker.device for worker in layout.trainers()] == ["gpu0"] * 3 + ["gpu1"] * 3


def test_a_gpu_that_does_not_tell_its_memory_takes_one_stream_at_a_time():
    assert len(place({"a": need(9), "b": need(9)}, gpus(None), Placement()).trainers()) == 1


def test_a_stream_that_fits_no_gpu_is_an_error():
    with pytest.raises(
        UserErrors,
        match=r"^streams.big: needs 31.0 GB, gpu1 has room for 20.6 GB \(23.6 GB free\); use a smaller base",
    ):
        place({"big": need(31), "small": need(1)}, gpus(12, 23.6), Placement())


@pytest.mark.parametrize(
    "devices", [gpus(24), gpus(24, 80), gpus(None, 12), cpu(2, 24), cpu(64, 6), cpu(1, None)], ids=str
)
@pytest.mark.parametrize("streams", [1, 3, 40])
def test_every_layout_gives_every_role_and_every_stream_a_worker(devices, streams):
    needs = {f"s{number}": need(0.05 + 0.1 * (number % 5), judging_gb=0.2) for number in range(streams)}
    layout = place(needs, devices, Placement())
    assert {role for worker in layout.workers for role in worker.roles} == {"prepare", "train", "validate", "evaluate"}
    assert all(any(worker.streams is None or name in worker.streams for worker in layout.trainers()) for name in needs)
    assert len({worker.name for worker in layout.workers}) == len(layout.workers)
    assert 1 <= len(layout.trainers()) <= streams


def test_a_layout_reads_back_as_it_was_written(tmp_path):
    layout = place({"big": need(40), "small": need(2)}, gpus(24, 80), Placement())
    layout.write(tmp_path / "layout.json")
    assert Layout.read(tmp_path / "layout.json") == layout


def test_a_torn_layout_is_reported_with_its_file(tmp_path):
    (tmp_path / "layout.json").write_text('{"workers": [{"name": "x"}]}')
    with pytest.raises(UserError, match=r"layout.json: is not a layout"):
        Layout.read(tmp_path / "layout.json")
