"""G01: devices that a run leaves to others: which workers give way, what becomes of their tasks, and that all comes back."""

from __future__ import annotations

from dataclasses import replace

import pytest

from swarm import events as ev
from swarm.launch.layout import WorkerSpec
from swarm.policy.admission import admit
from swarm.policy.commands import Dismiss, Grant, SendOrder
from swarm.policy.schedule import decide
from swarm.policy.yielding import admit_yield, kept
from swarm.state import Refusal
from tests.swarm.story import Story, settings, worker

GPUS = (
    WorkerSpec("preparer", ("prepare",), "cpu", 2),
    WorkerSpec("judge", ("validate", "evaluate"), "gpu0", 2, 0),
    WorkerSpec("trainer-1", ("train",), "gpu0", 2, 0),
    WorkerSpec("trainer-2", ("train",), "gpu1", 2, 1),
)
CPUS = (
    WorkerSpec("clerk", ("prepare", "validate", "evaluate"), "cpu", 4),
    WorkerSpec("trainer-1", ("train",), "cpu", 4),
    WorkerSpec("trainer-2", ("train",), "cpu", 4),
)


def yielding(what: str, count: int, **more: object) -> ev.Yield:
    return ev.Yield.model_validate({"ref": "run", "what": what, "count": count, **more})


def threads(story: Story, posts: tuple[WorkerSpec, ...], *, cores: int = 8, later: float = 0.0) -> list[int]:
    return list(kept(story.state, posts, story.now + later, cores).values())


def test_the_last_gpus_are_given_and_all_who_work_on_them_leave() -> None:
    story = Story("wide")
    assert threads(story, GPUS) == [2, 2, 2, 2]
    story.say("ada", yielding("gpus", 1))
    assert threads(story, GPUS) == [2, 2, 2, 0]
    story.say("ada", yielding("gpus", 2))
    assert threads(story, GPUS) == [2, 0, 0, 0]
    story.say("bob", yielding("gpus", 0))
    assert threads(story, GPUS) == [2, 2, 2, 2]


def test_cores_are_given_by_fewer_threads_and_only_then_by_fewer_trainers() -> None:
    story = Story("wide")
    given = {}
    for count in (0, 1, 4, 6, 8):
        story.say("ada", yielding("cores", count))
        given[count] = threads(story, CPUS)
    assert given == {0: [4, 4, 4], 1: [4, 4, 3], 4: [4, 4, 0], 6: [2, 2, 0], 8: [0, 0, 0]}


def test_where_trainers_share_cores_what_is_given_is_free_of_all_of_them() -> None:
    story = Story("wide")
    story.say("ada", yielding("cores", 1))
    crowd = tuple(WorkerSpec(f"trainer-{number}", ("train",), "cpu", 1) for number in range(4))
    assert threads(story, crowd, cores=2) == [1, 0, 0, 0]


def test_devices_come_back_when_the_time_is_over_and_when_the_run_ends() -> None:
    story = Story("wide")
    story.say("ada", yielding("gpus", 1, seconds=60))
    assert threads(story, GPUS, later=50) == [2, 2, 2, 0]
    assert threads(story, GPUS, later=70) == [2, 2, 2, 2]
    story.say("ada", yielding("gpus", 1))
    story.say("coordinator", ev.End(ref="run", rc=0))
    story.say("ada", ev.Resume(ref="run"))
    assert threads(story, GPUS) == [2, 2, 2, 2]


def test_a_training_saves_at_its_boundary_its_worker_leaves_and_another_goes_on() -> None:
    story = Story("wide")
    story.prepared("wide")
    tok = story.claim("wide/train", "trainer-2")
    stays, leaves = worker("trainer-1", "train"), worker("trainer-2", "train", yields=True)
    crew, run = (leaves, stays), settings("wide")
    assert decide(story.state, crew, story.now, run) == [SendOrder("wide/train", tok, "trainer-2", "stop")]
    story.say("trainer-2", ev.Drop(ref="wide/train", tok=tok))
    assert decide(story.state, crew, story.now, run) == [
        Dismiss("trainer-2", "the run yields devices"),
        Grant(("wide/train",), "trainer-1"),
    ]
    assert story.state.tasks["wide/train"].failures == []


def test_a_run_without_devices_waits_and_goes_on_when_they_are_back() -> None:
    story = Story("wide")
    story.prepared("wide")
    gone = worker("trainer-1", "train", state="gone", yields=True)
    assert decide(story.state, [gone], story.now, settings("wide")) == []
    back = replace(gone, state="ready", yields=False)
    assert decide(story.state, [back], story.now, settings("wide")) == [Grant(("wide/train",), "trainer-1")]


def test_a_task_that_is_no_training_is_finished_first() -> None:
    story = Story("wide")
    story.claim("wide/prepare", "clerk")
    leaves = worker("clerk", "prepare", yields=True)
    assert decide(story.state, [leaves], story.now, settings("wide")) == []


def test_more_than_there_is_is_refused_with_what_there_is() -> None:
    for event, posts, words in (
        (yielding("gpus", 3), GPUS, "run: it trains on 2 gpus, and 3 are asked for; yield at most 2"),
        (yielding("gpus", 1), CPUS, "run: it trains on no gpus, and 1 are asked for; `swarm yield --cores N`"),
        (yielding("cores", 1), GPUS, "run: it trains on no cores, and 1 are asked for; `swarm yield --gpus N`"),
    ):
        with pytest.raises(Refusal) as refused:
            admit_yield(event, posts, 8)
        assert str(refused.value) == words
    admit_yield(yielding("gpus", 0), CPUS, 8)


def test_only_a_running_run_yields_and_no_stream_does() -> None:
    story = Story("wide")
    admit(story.state, "ada", yielding("gpus", 1), story.now)
    with pytest.raises(Refusal, match="a run yields devices, not a stream; `swarm pause wide`"):
        admit(story.state, "ada", yielding("gpus", 1, ref="wide"), story.now)
    story.say("ada", ev.Stop(ref="run"))
    with pytest.raises(Refusal, match="is not running, so that its devices are free already"):
        admit(story.state, "ada", yielding("gpus", 1), story.now)
