"""A worker whose trainings were measured takes more streams at once where some wait: from its heartbeat to the next claim."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from bus.hub import Hub
from bus.keys import Members
from swarm import events as ev
from swarm.cli import statuses
from swarm.coordinator.effects import Effects
from swarm.coordinator.reception import SPEAKS
from swarm.coordinator.record import Record
from swarm.coordinator.supervisor import Supervisor
from swarm.launch.layout import Layout, WorkerSpec
from swarm.log import LogWriter
from swarm.messages import Heartbeat, Held
from swarm.policy.commands import Grant, SendOrder
from swarm.policy.schedule import decide
from swarm.rundir import RunFolder
from swarm.surroundings import free_memory_bytes
from swarm.views import report
from tests.swarm.story import Story, settings

MB = 10**6


async def test_what_was_measured_is_shown_beside_what_was_predicted_and_lets_the_next_stream_begin(
    tmp_path: Path,
) -> None:
    if (free_memory_bytes() or 0) < 500 * MB:
        pytest.skip("less than 0.5 GB of memory is free")
    folder, chosen, story = RunFolder(tmp_path), settings("a", "b"), Story("a", "b")
    for name in "ab":
        story.prepared(name)
    token = story.claim("a/train", "trainer")
    spec = WorkerSpec("trainer", ("train",), "cpu", predicted_bytes=900 * MB)
    layout = Layout((spec,), own_bytes={"a": 40 * MB, "b": 60 * MB})
    members = Members.create(folder.keys, f"ipc://{tmp_path}/in", f"ipc://{tmp_path}/out")
    hub = Hub(members, allowed=SPEAKS)
    await hub.start()
    with LogWriter.open(folder.log) as writer:
        writer.append([(entry.author, entry.event) for entry in story.entries])
        record, crew = Record(writer, hub, chosen), Supervisor(layout, folder, members, chosen)
        effects, trainer = Effects(record, hub, crew, folder), crew._members["trainer"]
        trainer.state = "ready"

        async def heard(*held: Held) -> list[object]:
            """What is decided after a heartbeat."""
            trainer.beat = Heartbeat(state="working", holds=list(held))
            await effects.widen()
            return list(decide(record.state, crew.view(), record.clock(), chosen))

        training = Held(ref="a/train", token=token, step=1)
        assert await heard(training) == [SendOrder("a/train", token, "trainer", "measure")]
        assert crew.rows(record.state)[0].own_bytes is None
        measured = training.model_copy(update={"kept_bytes": 15 * MB, "passing_bytes": 5 * MB})
        assert await heard(measured) == [Grant(("b/train",), "trainer")]
        [note] = [e.event.body for e in writer.log.entries(len(story.entries)) if isinstance(e.event, ev.Post)]
        assert (
            note
            == "trainer: 2 streams at once instead of 1: what it trains takes 20 MB beside the base, and 40 MB were predicted"
        )
        assert [one.slots for one in Layout.read(folder.layout).workers] == [2], "a coordinator after this one knows it"

        [row] = crew.rows(record.state)
        assert (row.own_bytes, row.predicted_own_bytes) == (20 * MB, 40 * MB)
        assert report.worker_of(row)["own_bytes"] == 20 * MB
        assert statuses._memory(replace(row, memory_bytes=700 * MB)) == "700 MB of 900 MB, streams 20 MB of 40 MB"
        assert await heard(measured) == [Grant(("b/train",), "trainer")]
        assert len(list(writer.log.entries())) == len(story.entries) + 1, "nothing is said twice"
    await hub.close()
