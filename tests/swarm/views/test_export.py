"""What a run writes for scripts and models: every form says the same, row by row, from a cursor, while it grows."""

from __future__ import annotations

import csv
import io
import json
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

import toon
from swarm import Agent
from swarm import events as ev
from swarm.artifacts.metrics import MetricsFile
from swarm.cli import app
from swarm.errors import UserError
from swarm.log import LogWriter
from swarm.messages import MetricRow, Metrics
from swarm.rundir import RunFolder
from swarm.views import tokens
from swarm.views.export import lines
from tests.runs import swarm_process as sp
from tests.swarm.places import configure, coordinator, opened
from tests.swarm.story import Story

ROWS = 40


def fill(folder: RunFolder, *streams: str, rows: int = ROWS) -> None:
    metrics = MetricsFile(folder.metrics)
    made = [
        MetricRow(step, "train", 1.5 + step, {"loss": round(2 / (step + 1), 4), "tokens": step * 64})
        for step in range(rows)
    ]
    metrics.insert(Metrics.of(name, 3, rows, made) for name in streams)
    metrics.close()


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[RunFolder]:
    made = opened(tmp_path)
    fill(made, "narrow", "wide")
    with Agent("ada", made.path) as ada:
        ada.task("data/check", 'look, and say "done"')
        ada.take("data/check", ttl_seconds=60)
        ada.post("two lines,\nand a comma", "wide")
    yield made


def text(folder: RunFolder, **words: Any) -> str:
    return "\n".join(lines(folder, **words))


@pytest.mark.parametrize("what", ["metrics", "events"])
def test_every_form_tells_the_same_rows(folder: RunFolder, what: str) -> None:
    whole = json.loads(text(folder, what=what, form="json"))[what]
    by_line = [json.loads(line) for line in text(folder, what=what, form="jsonl").splitlines()]
    as_toon = toon.decode(text(folder, what=what, form="toon"))[what]
    as_csv = list(csv.DictReader(io.StringIO(text(folder, what=what, form="csv"))))
    assert whole == by_line
    assert len(whole) == len(as_toon) == len(as_csv) == (2 * ROWS if what == "metrics" else 4)
    assert [row["body" if what == "events" else "loss"] for row in as_toon] == [
        row["body" if what == "events" else "loss"] for row in whole
    ]
    if what == "metrics":
        assert as_toon == whole
        assert as_csv == [{name: "" if value is None else str(value) for name, value in row.items()} for row in whole]
    else:
        assert [(row["seq"], row["kind"], row["body"]) for row in as_csv] == [
            (str(row["seq"]), row["kind"], row["body"] or "") for row in whole
        ]


@pytest.mark.parametrize("form", ["jsonl", "csv"])
def test_the_way_an_entry_was_recorded_is_exported(folder: RunFolder, form: str) -> None:
    with LogWriter.open(folder.log) as writer:
        writer.append([("bob", ev.Post(ref="run", body="by a coordinator"))])
    told = text(folder, what="events", form=form)
    rows = list(csv.DictReader(io.StringIO(told))) if form == "csv" else [json.loads(row) for row in told.splitlines()]
    assert [row["via"] or None for row in rows] == [*["local"] * 4, None]


def test_entries_are_also_chosen_by_a_tasks_whole_name_or_as_the_runs(folder: RunFolder) -> None:
    for ref, seqs in (("data/check", [2, 3]), ("data", [2, 3]), ("run", [1])):
        rows = toon.decode(text(folder, what="events", form="toon", stream=ref))["events"]
        assert [row["seq"] for row in rows] == seqs, ref


def test_a_stream_and_what_came_after_a_cursor(folder: RunFolder) -> None:
    rows = toon.decode(text(folder, what="metrics", form="toon", stream="wide", since=ROWS - 3))["metrics"]
    assert [(row["stream"], row["step"]) for row in rows] == [("wide", ROWS - 2), ("wide", ROWS - 1)]
    events = toon.decode(text(folder, what="events", form="toon", since=2))["events"]
    assert [(row["seq"], row["kind"]) for row in events] == [(3, "claim"), (4, "post")]
    assert events[0]["facts"] == "ttl=60"


def test_a_table_without_rows_is_one_too(folder: RunFolder) -> None:
    assert toon.decode(text(folder, what="events", form="toon", since=99)) == {"events": []}
    assert json.loads(text(folder, what="events", form="json", since=99)) == {"events": []}
    assert text(folder, what="events", form="csv", since=99) == ""


@pytest.mark.parametrize("form", ["toon", "csv", "jsonl", "json"])
def test_the_length_of_a_table_costs_no_memory(tmp_path: Path, form: str) -> None:
    long = opened(tmp_path)
    fill(long, "wide", rows=3000)
    peaks = []
    for since in (1800, 0):
        tracemalloc.start()
        assert sum(1 for _ in lines(long, what="metrics", form=form, since=since)) > 0
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < peaks[0] + 300_000


def test_following_a_run_gives_rows_as_they_come_until_it_ends(tmp_path: Path) -> None:
    folder = opened(tmp_path)
    configure(tmp_path, folder)
    with coordinator(folder) as process, Agent("ada", folder.path) as ada:
        rows = lines(folder, what="events", form="jsonl", follow=True)
        first = json.loads(next(rows))
        ada.post("live")
        while (row := json.loads(next(rows)))["body"] != "live":
            pass
        process.kill()
        process.wait()
        rest = list(rows)
    assert first["seq"] == 1
    assert row["author"] == "ada"
    assert rest == []


def test_auto_takes_the_form_with_fewer_tokens_by_the_tokenizer_given(folder: RunFolder) -> None:
    assert text(folder, what="metrics", form="auto").startswith("metrics[80]{")
    loves_braces = lambda given: 1 if given.startswith("{") else 2  # noqa: E731
    assert json.loads(text(folder, what="metrics", form="auto", count_tokens=loves_braces))["metrics"]


def test_tokens_tell_what_an_export_costs_beside_compact_json(folder: RunFolder, tmp_path: Path) -> None:
    count = tokens.counter("tiny-toon", folder)
    assert count is not None
    rows = {row["form"]: row for row in tokens.costs({"metrics": [{"step": n, "loss": 0.5} for n in range(20)]}, count)}
    assert rows["json"]["against_json"] == 1
    assert rows["toon"]["tokens"] < rows["json"]["tokens"]
    out = sp.swarm("export", str(folder.path), "--what", "metrics", "--tokens", cwd=tmp_path).stdout
    assert toon.decode(out)["tokens"][0]["form"].startswith("toon")
    with pytest.raises(UserError, match="--tokenizer: no/such is not on this machine; "):
        tokens.counter("no/such", folder)


@pytest.mark.parametrize("form", ["csv", "jsonl", "json", "toon", "session"])
def test_what_others_wrote_cannot_steer_a_terminal_and_reaches_a_file_as_the_log_has_it(
    folder: RunFolder, monkeypatch: pytest.MonkeyPatch, form: str
) -> None:
    evil = "\x1b[2J\x9b1m \u202efine"
    with Agent("ada", folder.path) as ada:
        ada.post(evil, "run")
    words = ["export", str(folder.path), *(["--what", "events", "--format", form] if form != "session" else [])]
    exact = CliRunner().invoke(app, words).stdout
    if form == "csv":
        assert [row["body"] for row in csv.DictReader(io.StringIO(exact))][-1] == ev.Post(ref="run", body=evil).body
    monkeypatch.setattr("swarm.cli.screen.is_terminal", lambda: True)
    seen = CliRunner().invoke(app, words).stdout
    assert len(seen.splitlines()) == len(exact.splitlines())
    assert not [c for c in seen if not c.isprintable() and c != "\n"]
    assert form == "session" or "fine" in seen


def test_control_characters_of_others_are_printed_as_codes_wherever_people_read_them(
    tmp_path: Path, folder: RunFolder
) -> None:
    configure(tmp_path, folder)
    story = Story("wide")
    story.scored("wide", 0.5)
    adapter = story.state.streams["wide"].adapter
    assert adapter is not None
    with LogWriter.open(folder.log) as writer:
        writer.append([(entry.author, entry.event) for entry in story.entries])
        writer.append([("ada", ev.Promote(ref="wide", path="promoted", sha256=adapter.sha256, why="\x1b[2Jbest"))])
    for command in ("status", "digest", "replay", "log"):
        said = CliRunner().invoke(app, [command, str(folder.path)])
        assert said.exit_code == 0, said.exception
        assert "\\x1b[2Jbest" in said.stdout.replace("\\\\", "\\") and "\x1b" not in said.stdout, command


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ({"what": "metrics", "form": "xml"}, "--format"),
        ({"what": "metrics", "form": "toon", "stream": "zz"}, "--stream: there is no stream 'zz'; there is data"),
        ({"what": "metrics", "form": "toon", "stream": "data/check"}, "--stream: there is no stream 'data/check'"),
        ({"what": "session", "form": "toon", "stream": "zz"}, "--stream: there is no stream 'zz'; there is data"),
        ({"what": "losses", "form": "toon"}, "--what"),
        ({"what": "metrics", "form": "json", "follow": True}, "--follow"),
        ({"what": "session", "form": "jsonl", "follow": True}, "--follow"),
        ({"what": "bus", "form": "toon"}, "not running"),
    ],
)
def test_an_invalid_option_value_is_reported_with_the_valid_ones(
    folder: RunFolder, words: dict[str, Any], told: str
) -> None:
    with pytest.raises(UserError, match=told):
        list(lines(folder, **words))


def test_csv_passes_no_control_characters(folder: RunFolder) -> None:
    story = Story("wide")
    story.say("coordinator", ev.Fail(ref="wide", why="red\x1b[31m\x9b2Jend\x00"))
    with LogWriter.open(folder.log) as writer:
        writer.append([(entry.author, entry.event) for entry in story.entries])
    told = text(folder, what="session", form="csv")
    assert not set(told) & set("\x00\x1b\x9b") and r"red\x1b[31m\x9b2Jend\x00" in told
