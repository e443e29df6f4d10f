"""Figures on their way into the run's database: what is taken, what is refused, and that twice is once."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import sqlite3
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from bus.envelope import Envelope
from bus.hub import Hub
from bus.keys import Join, Members
from bus.peer import Peer
from swarm.artifacts.metrics import MetricsFile, newest
from swarm.coordinator.reception import SPEAKS, Reception
from swarm.errors import UserError
from swarm.event import Measured
from swarm.figures import FIGURES, MAX_FIGURES, MAX_FIGURES_OF_A_RUN, RESERVED
from swarm.messages import ROW as FIXED
from swarm.messages import MetricRow, Metrics
from toon import decode, encode

FIGURES_OF_ROW = {
    "epoch": 0.5,
    "loss": None,
    "learning_rate": 2e-4,
    "grad_norm": 1,
    "tokens": 900,
    "memory_bytes": 1 << 30,
}
ROW = {"step": 3, "kind": "train", "time": 1.79e9, **FIGURES_OF_ROW}
PRESENT = {name: value for name, value in FIGURES_OF_ROW.items() if value is not None}
HEAD = {"stream": "wide", "token": 7, "steps": 120}


def message(rows: object = None, **head: object) -> str:
    """A table of two rows, as a worker of another mind might write it."""
    return encode({**HEAD, "rows": [ROW, ROW | {"step": 4}] if rows is None else rows, **head})


def test_the_database_holds_the_figures_that_a_worker_sent(tmp_path: Path) -> None:
    rows = [MetricRow(step, "train", 1.5 + step, {"loss": 2 / step, "tokens": 64 * step}) for step in range(1, 9)]
    rows.insert(4, MetricRow(4, "eval", 5.75, {"eval_loss": 0.75, "bleu": 31.5}))
    said = Metrics.of("wide", 7, 120, rows)
    table = Metrics.read(said.toon())
    assert table == said
    assert table.rows == rows
    assert decode(said.toon()) == {**HEAD, "rows": [dict.fromkeys(said.columns) | flat(row) for row in rows]}
    file = MetricsFile(tmp_path / "metrics.db")
    for _ in range(2):
        file.insert([table])
    [stored] = file.tables()
    assert sorted(stored.rows, key=lambda row: row.time) == rows
    first = next(iter(file.read()))
    assert [type(value) for value in first.values()][:6] == [str, int, int, int, str, float]
    assert (type(first["loss"]), type(first["tokens"]), first["bleu"]) == (int, int, None)
    file.close()


def flat(row: MetricRow) -> dict[str, object]:
    return {"step": row.step, "kind": row.kind, "time": row.time, **row.figures}


def test_the_newest_figures_of_a_stream_are_those_of_its_newest_lease(tmp_path: Path) -> None:
    path = tmp_path / "metrics.db"
    assert newest(path, ["wide"]) == {}, "nothing was measured yet"
    file = MetricsFile(path)
    assert newest(path, ["wide"]) == {"wide": {}}
    earlier = [MetricRow(step, "train", 1.0, {"loss": 0.1, "tokens": step}) for step in (7, 9)]
    later = [MetricRow(8, "train", 2.0, {"loss": 0.2}), MetricRow(8, "eval", 2.0, {"eval_loss": 0.3})]
    file.insert([Metrics.of("wide", 7, 120, earlier), Metrics.of("wide", 11, 120, later)])
    assert newest(path, ["wide", "narrow"]) == {"wide": {"step": 8, "loss": 0.2, "eval_loss": 0.3}, "narrow": {}}


def test_a_row_has_the_figures_that_were_measured() -> None:
    told = Metrics.read(message())
    assert told.rows == [MetricRow(step, "train", 1.79e9, PRESENT) for step in (3, 4)]
    assert told.names == tuple(FIGURES_OF_ROW), "a column without a value is a column still"


def test_the_columns_of_a_table_may_stand_in_any_order() -> None:
    turned = [dict(reversed(row.items())) for row in (ROW, ROW | {"step": 4})]
    assert Metrics.read(message(turned)).rows == Metrics.read(message()).rows


def test_no_figure_bears_the_name_of_anything_beside_it() -> None:
    beside = {
        "stream",
        "token",
        "steps",
        *FIXED,
        "via",
        "len",
        *(f for cls in Measured.__subclasses__() for f in cls.model_fields),
    }
    assert beside == RESERVED
    assert not RESERVED.intersection(FIGURES)


@pytest.mark.parametrize(
    "cell",
    [
        {"step": -1}, {"step": 1.5}, {"step": "3"}, {"step": None}, {"step": True}, {"step": 1 << 63}, {"kind": "test"}, {"kind": None},
        {"kind": 1}, {"time": None}, {"time": "1.5"}, {"loss": "nan"}, {"loss": True}, {"loss": 10**400},
        {"tokens": 1 << 63}, {"memory_bytes": "1"}, {"epoch": False}, {"step": {"a": 1}}, {"loss": {"a": 1}}, {"Loss": 1}, {"time": True},
        {"a" * 41: 1}, {"tok": 1}, {"steps": 1}, {"rows": 1}, {"1st": 1}, {"lo-ss": 1}, {"group by": 1}, {"loss": [1]}, {"kind": [1]},
    ],
    ids=str,
)  # fmt: skip
def test_one_wrong_cell_refuses_the_whole_table(cell: dict[str, object]) -> None:
    with pytest.raises(ValueError):
        Metrics.read(message([ROW, ROW | {"step": 4} | cell]))
    with pytest.raises(ValueError):
        Metrics.read(message([ROW | cell, ROW | {"step": 4} | cell]))


@pytest.mark.parametrize("name", FIXED)
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


@pytest.mark.parametrize(
    "rows", [[], [1, 2], {}, 7, "rows", {name: [] for name in FIXED}, dict.fromkeys(FIXED, 1)], ids=str
)
def test_what_is_no_table_is_refused(rows: object) -> None:
    with pytest.raises(ValueError):
        Metrics.read(message(rows))


def test_arrays_of_different_lengths_are_no_table() -> None:
    arrays = {name: [value] for name, value in ROW.items()}
    told = Metrics.read(message(arrays)).rows
    assert told == [MetricRow(3, "train", 1.79e9, PRESENT)], "the same columns, written out one by one"
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


def test_a_damaged_database_is_reported_before_a_coordinator_starts_anything(tmp_path: Path) -> None:
    path = tmp_path / "metrics.db"
    path.write_bytes(b"no database" * 999)
    with pytest.raises(UserError, match=r"metrics\.db: is damaged .* move it away: its figures are lost"):
        MetricsFile(path)
    assert path.read_bytes() == b"no database" * 999


# ---- figures that come later -----------------------------------------------------------------------------------------

OLDER = """CREATE TABLE metrics (stream TEXT, token INTEGER, steps INTEGER, step INTEGER, kind TEXT, time REAL, epoch REAL, loss REAL,
    learning_rate REAL, tokens INTEGER, PRIMARY KEY (stream, token, step, kind)) WITHOUT ROWID"""
OLDER_ROWS = [
    ("wide", 7, 120, 1, "train", 1.0, 0.1, 2.5, 2e-4, 64),
    ("wide", 7, 120, 2, "eval", 2.0, None, 2.25, None, 128),
    ("wide", 7, 120, 2, "train", 2.0, 0.2, 2.0, 2e-4, 128),
]
OLDER_FIGURES = [
    {"epoch": 0.1, "loss": 2.5, "learning_rate": 2e-4, "tokens": 64},
    {"eval_loss": 2.25, "tokens": 128},
    {"epoch": 0.2, "loss": 2.0, "learning_rate": 2e-4, "tokens": 128},
]


@pytest.fixture
def older(tmp_path: Path) -> Path:
    """A database of the version before, with fewer columns than a row has today."""
    path = tmp_path / "metrics.db"
    with contextlib.closing(sqlite3.connect(path)) as database, database:
        database.execute(OLDER)
        database.executemany("INSERT INTO metrics VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", OLDER_ROWS)
    return path


def test_an_older_database_is_read_as_it_is(older: Path) -> None:
    before = older.read_bytes()
    file = MetricsFile(older, readonly=True)
    assert [row.figures for table in file.tables() for row in table.rows] == OLDER_FIGURES
    file.close()
    assert older.read_bytes() == before


def test_an_older_database_is_extended_when_its_run_goes_on(older: Path) -> None:
    for _ in range(2):
        file = MetricsFile(older)
        file.insert([])
        file.insert([Metrics.of("wide", 8, 120, [MetricRow(3, "train", 3.0, {"loss": 1.5, "grad_norm": 0.5})])])
        assert [row.figures for table in file.tables() for row in table.rows] == [
            *OLDER_FIGURES,
            {"loss": 1.5, "grad_norm": 0.5},
        ]
        file.close()


def test_a_figure_gets_its_column_when_it_is_first_seen_and_again_after_an_insert_that_failed(tmp_path: Path) -> None:
    file = MetricsFile(tmp_path / "metrics.db")
    tables = [Metrics.of("wide", 7, 9, [MetricRow(1, "train", 1.0, {name: 0.5})]) for name in ("order", "group")]

    def torn() -> Iterator[Metrics]:
        yield from tables
        raise sqlite3.OperationalError("database or disk is full")

    with pytest.raises(sqlite3.OperationalError):
        file.insert(torn())
    assert list(file.read()) == [] and "order" not in file._columns()
    file.insert(tables)
    assert [row.figures for table in file.tables() for row in table.rows] == [{"group": 0.5}]
    file.close()


async def test_a_hostile_worker_cannot_grow_the_table_without_end(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    names = [f"f{number}" for number in range(2 * MAX_FIGURES_OF_A_RUN)]
    with pytest.raises(ValueError, match="at most 64"):
        Metrics.read(
            Metrics.of("wide", 7, 9, [MetricRow(1, "train", 1.0, dict.fromkeys(names[: MAX_FIGURES + 1], 1))]).toon()
        )
    reception = Reception.__new__(Reception)
    reception.metrics = MetricsFile(tmp_path / "metrics.db")
    rows = [MetricRow(at, "train", 1.0, dict.fromkeys(names[at : at + 48], 1)) for at in range(0, len(names), 48)]
    rows.append(MetricRow(600, "train", 1.0, {"f0": 2}))
    bodies = [Metrics.of("wide", 7, 9, [row]).toon() for row in rows]
    sound = reception._stored([Envelope(Metrics.type, body) for body in bodies])
    assert sound is not None
    assert [envelope.body for envelope in sound] == [*bodies[:5], bodies[-1]], (
        "what fits is stored, whatever came between"
    )
    assert len(reception.metrics._columns()) <= MAX_FIGURES_OF_A_RUN + 6
    assert "a run has at most 256 figures" in caplog.text
    reception.metrics.close()


async def test_only_what_may_pass_is_tried_again(tmp_path: Path) -> None:
    """A database that takes no row for another reason than a full disk hung the run for ever, also for an empty batch."""
    reception = Reception.__new__(Reception)
    reception.metrics = MetricsFile(tmp_path / "metrics.db")
    envelopes = [Envelope(Metrics.type, message())]
    reception.metrics._db.execute("DROP TABLE metrics")
    with pytest.raises(sqlite3.OperationalError, match="no such table"):
        reception._stored(envelopes)
    reception.metrics.close()
    other = sqlite3.connect(tmp_path / "metrics.db")
    reception.metrics = MetricsFile(tmp_path / "metrics.db")
    reception.metrics._db.execute("PRAGMA busy_timeout = 0")
    other.execute("BEGIN IMMEDIATE")
    assert reception._stored(envelopes) is None, "somebody else holds the file"
    other.rollback()
    assert reception._stored(envelopes) == envelopes
    other.close()
    reception.metrics.close()
