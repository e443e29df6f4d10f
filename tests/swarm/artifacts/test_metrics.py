"""Figures on their way into the run's database: what is taken, what is refused, and that twice is once."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from pathlib import Path

import pytest

from bus.hub import Hub
from bus.keys import Join, Members
from bus.peer import Peer
from swarm.artifacts.metrics import MetricsFile, records
from swarm.coordinator.reception import SPEAKS, Reception
from swarm.errors import UserError
from swarm.messages import METRIC_COLUMNS, MetricColumns, MetricRow, Metrics
from toon import encode

ROW = {
    "step": 3, "kind": "train", "time": 1.79e9, "epoch": 0.5, "loss": None, "learning_rate": 2e-4, "grad_norm": 1, "tokens": 900,
    "tokens_per_second": 3100.5, "memory_bytes": 1 << 30,
}  # fmt: skip
HEAD = {"stream": "wide", "token": 7, "steps": 120}


def message(rows: object = None, **head: object) -> str:
    """A table of two rows, as a worker of another mind might write it."""
    return encode({**HEAD, "rows": [ROW, ROW | {"step": 4}] if rows is None else rows, **head})


def test_what_a_worker_says_is_what_the_database_holds(tmp_path: Path) -> None:
    rows = [
        MetricRow(step=step, kind="train", time=1.5 + step, loss=2 / step, tokens=64 * step) for step in range(1, 9)
    ]
    said = Metrics(**HEAD, rows=rows)
    table = Metrics.read(said.toon())
    assert table == said
    file = MetricsFile(tmp_path / "metrics.db")
    for _ in range(2):
        file.insert([table])
    assert file.tables() == [said]
    assert [type(value) for value in next(iter(file.read())).values()][:6] == [str, int, int, int, str, float]
    file.close()


def test_rows_and_columns_are_the_same_table() -> None:
    assert tuple(MetricColumns.model_fields) == METRIC_COLUMNS == tuple(ROW)
    assert Metrics.read(message()).rows == [MetricRow(**ROW), MetricRow(**(ROW | {"step": 4}))]
    assert records(Metrics.read(message()))[1] == ("wide", 7, 120, 4, *list(ROW.values())[1:])


@pytest.mark.parametrize(
    "cell",
    [
        {"step": -1}, {"step": 1.5}, {"step": "3"}, {"step": None}, {"step": True}, {"step": 1 << 63}, {"kind": "test"}, {"kind": None},
        {"kind": 1}, {"time": None}, {"time": "1.5"}, {"loss": "nan"}, {"loss": True}, {"loss": 10**400}, {"tokens": -1}, {"tokens": 0.5},
        {"tokens": 1 << 63}, {"memory_bytes": "1"}, {"epoch": False}, {"unknown": 1}, {"step": {"a": 1}},
    ],
    ids=str,
)  # fmt: skip
def test_one_wrong_cell_refuses_the_whole_table(cell: dict[str, object]) -> None:
    with pytest.raises(ValueError):
        Metrics.read(message([ROW, ROW | {"step": 4} | cell]))
    with pytest.raises(ValueError):
        Metrics.read(message([ROW | cell, ROW | {"step": 4} | cell]))


@pytest.mark.parametrize("name", METRIC_COLUMNS)
def test_a_table_without_one_of_its_columns_is_refused(name: str) -> None:
    rows = [{column: value for column, value in row.items() if column != name} for row in (ROW, ROW | {"step": 4})]
    with pytest.raises(ValueError, match=name):
        Metrics.read(message(rows))


@pytest.mark.parametrize(
    "head",
    [
        {"token": 0}, {"token": "7"}, {"token": 1 << 63}, {"token": True}, {"steps": -1}, {"steps": 1 << 63}, {"steps": None},
        {"stream": "../wide"}, {"stream": "Wide"}, {"stream": 7}, {"extra": 1},
    ],
    ids=str,
)  # fmt: skip
def test_a_table_of_no_stream_or_lease_is_refused(head: dict[str, object]) -> None:
    with pytest.raises(ValueError):
        Metrics.read(message(**head))


@pytest.mark.parametrize("rows", [[], [1, 2], {}, 7, "rows", {name: [] for name in METRIC_COLUMNS[1:]}], ids=str)
def test_what_is_no_table_is_refused(rows: object) -> None:
    with pytest.raises(ValueError):
        Metrics.read(message(rows))


def test_arrays_of_different_lengths_are_no_table() -> None:
    arrays = {name: [value] for name, value in ROW.items()}
    assert Metrics.read(message(arrays)).rows == [MetricRow(**ROW)], "the same columns, written out one by one"
    with pytest.raises(ValueError, match="different lengths"):
        Metrics.read(message(arrays | {"loss": [0.1, 0.2]}))


def test_a_count_that_the_database_cannot_hold_never_reaches_it(tmp_path: Path) -> None:
    """SQLite's integers have eight bytes; the error came from inside the transaction, and took the coordinator with it."""
    file = MetricsFile(tmp_path / "metrics.db")
    highest = (1 << 63) - 1
    file.insert([Metrics.read(message([ROW | {"step": highest}], token=highest, steps=highest))])
    assert next(iter(file.read()))["step"] == highest
    file.close()


async def test_a_malformed_message_is_left_out_and_its_neighbours_are_stored_acknowledged_and_published(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    place = Path(tempfile.mkdtemp(prefix="m"))  # an ipc path holds 107 bytes
    members = Members.create(place / "keys", f"ipc://{place}/in", f"ipc://{place}/out")
    reception = Reception.__new__(Reception)  # figures meet neither the log nor the crew
    reception.hub, reception.metrics = Hub(members, allowed=SPEAKS), MetricsFile(tmp_path / "metrics.db")
    await reception.hub.start()
    worker = Peer(Join.load(members.invite("trainer-1", "worker"))).start()
    watcher = Peer(Join.load(members.invite("eve", "viewer")), subscribe=["metrics"]).start()
    await asyncio.to_thread(watcher.wait_connected, 10)
    while watcher.published(0.02) is None:
        await reception.hub.publish("metrics", "warm")
    said = [message([ROW | {"step": step}]) for step in range(3)]
    for body in (said[0], message([ROW | {"step": -1}]), said[1], "rows: 3", said[2]):
        worker.send("metrics", body, control=False)
    waiting = 5
    while waiting:
        batch = await reception.hub.receive_batch(256)
        waiting -= len(batch)
        await reception._store(batch)
    assert await asyncio.to_thread(worker.flush, 10), "also what was malformed need not be sent again"
    heard = []
    while (envelope := await asyncio.to_thread(watcher.published, 0.5)) is not None:
        heard.append(envelope.body)
    assert [body for body in heard if body != "warm"] == said
    assert [row["step"] for row in reception.metrics.read()] == [0, 1, 2]
    assert caplog.text.count("metrics of trainer-1 are malformed") == 2
    for peer in (worker, watcher):
        await asyncio.to_thread(peer.close, flush_seconds=0)
    await reception.hub.close()
    reception.metrics.close()
    shutil.rmtree(place)


def test_a_damaged_database_is_told_before_a_coordinator_leads_anything(tmp_path: Path) -> None:
    path = tmp_path / "metrics.db"
    path.write_bytes(b"no database" * 999)
    with pytest.raises(UserError, match=r"metrics\.db: is damaged .* move it away: its figures are lost"):
        MetricsFile(path)
    assert path.read_bytes() == b"no database" * 999
