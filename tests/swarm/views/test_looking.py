"""`swarm log`, `verify`, `replay`, `lineage` and `digest` on the record of a run that nobody has to run for it."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from swarm import config
from swarm import events as ev
from swarm.access.client import Client
from swarm.errors import Refused
from swarm.log import LogWriter
from swarm.rundir import RunFolder, find
from swarm.views.replay import snapshot_at
from swarm.weights import sha256_of
from tests.swarm.story import Story
from toon import decode
from toon.sizes import compact_json

CONFIG = """
name: demo
defaults: {base_model: tiny-toon, datasets: [{path: train.jsonl}]}
streams: {wide: {lora_r: 8}}
"""
Command = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def story() -> Story:
    told = Story("wide")
    told.scored("wide", 0.5)
    return told


@pytest.fixture
def run(tmp_path: Path, story: Story) -> RunFolder:
    """A run folder with the story as its log."""
    (tmp_path / "train.jsonl").write_text('{"messages": []}\n' * 40)
    (tmp_path / "demo.yaml").write_text(CONFIG)
    folder = RunFolder(tmp_path / "runs" / "demo")
    folder.path.mkdir(parents=True)
    folder.config.write_text(config.load(tmp_path / "demo.yaml", cwd=tmp_path).dump())
    with LogWriter.open(folder.log) as writer:
        writer.append([(entry.author, entry.event) for entry in story.entries])
    return folder


@pytest.fixture
def swarm(run: RunFolder) -> Command:
    def command(*words: str, check: int = 0) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [sys.executable, "-m", "swarm.cli", *words], cwd=run.path.parent.parent, capture_output=True, text=True,
            env={"PYTHONPATH": str(Path.cwd()), "PATH": "/usr/bin:/bin"}, timeout=60,
        )  # fmt: skip
        assert done.returncode == check, done.stderr
        return done

    return command


def test_replay_shows_the_state_at_any_moment(run: RunFolder, story: Story) -> None:
    states = [snapshot_at(run, to).streams[0].state for to in range(2, len(story.entries) + 1)]
    turns = [state for at, state in enumerate(states) if not at or state != states[at - 1]]
    assert turns == ["wait", "prepare", "wait", "train", "wait", "validate", "wait", "evaluate", "done"]
    assert snapshot_at(run, 1).streams == ()
    assert snapshot_at(run).seq == len(story.entries)


def test_an_entry_that_there_is_not_cannot_be_replayed_to(swarm: Command) -> None:
    assert "--to 999: the log's newest entry is" in swarm("replay", "--to", "999", check=2).stderr


def test_a_log_without_entries_has_nothing_to_replay(run: RunFolder, swarm: Command) -> None:
    empty = RunFolder(run.path.parent / "empty")
    empty.path.mkdir()
    empty.log.touch()
    said = swarm("replay", "empty", check=2).stderr
    assert said == "empty: nothing was recorded yet; `swarm log --follow` waits for the first entry\n"


def test_a_run_whose_readable_file_was_removed_is_still_that_run(run: RunFolder, swarm: Command, story: Story) -> None:
    run.log.unlink()
    for words in (("status",), ("digest", "demo"), ("log", str(run.path)), ("replay",)):
        swarm(*words)
    assert find(None, run.path.parent) == run
    assert len(swarm("log").stdout.splitlines()) == len(story.entries)


def test_verify_names_the_entry_that_was_changed(run: RunFolder, swarm: Command) -> None:
    assert "every byte as written" in swarm("log", "verify").stderr
    run.log.write_text(run.log.read_text().replace("rows=10", "rows=99"))
    done = swarm("log", "verify", str(run.path), check=1)
    assert "COLLABORATION.md:" in done.stdout
    assert "entry 4" in done.stdout


def test_the_log_is_read_in_parts_and_an_unknown_kind_is_an_error(swarm: Command, story: Story) -> None:
    assert len(swarm("log", "demo", "--tail", "3").stdout.splitlines()) == 3
    assert len(swarm("log", "--since", str(len(story.entries) - 2)).stdout.splitlines()) == 2
    claims = swarm("log", "--kind", "claim", "--stream", "wide").stdout.splitlines()
    assert [line.split()[3] for line in claims] == ["wide/prepare", "wide/train", "wide/validate", "wide/evaluate"]
    assert "is no kind of entry" in swarm("log", "--kind", "clam", check=2).stderr


def test_one_entry_can_be_read_whole(run: RunFolder, swarm: Command) -> None:
    with LogWriter.open(run.log) as writer:
        [long, _] = writer.append([("ada", ev.Post(ref="run", body="word " * 400)), ("ada", ev.Post(ref="run"))])
    [entry] = json.loads(swarm("log", "--to", str(long.seq), "--tail", "1", "--json").stdout)["entries"]
    assert (entry["seq"], entry["body"]) == (long.seq, "word " * 400)
    [entry] = decode(swarm("log", "--since", str(long.seq - 1), "--to", str(long.seq), "--toon").stdout)["entries"]  # type: ignore[index,call-overload]
    assert entry["body"] == "word " * 400
    seqs = [line.split()[0] for line in swarm("log", "--since", "2", "--to", "4").stdout.splitlines()]
    assert seqs == ["3", "4"]
    assert f"--to 99: the log's newest entry is {long.seq + 1}; " in swarm("log", "--to", "99", check=2).stderr
    assert swarm("log", "--follow", "--to", "3").stdout == swarm("log", "--to", "3").stdout


def test_entries_are_chosen_by_what_their_lines_show(run: RunFolder, swarm: Command) -> None:
    with run.log.open("a") as file:
        file.write("the loss jumps\n")
    with LogWriter.open(run.log) as writer:
        writer.append([("ada", ev.Task(ref="data/check")), ("ada", ev.Post(ref="data/look"))])
    [note] = swarm("log", "--kind", "note").stdout.splitlines()
    assert note.endswith(" note unknown  the loss jumps")
    assert swarm("log", "--kind", "seal").stdout == f"{note}\n"
    assert [line.split()[2:4] for line in swarm("log", "--stream", "data/check").stdout.splitlines()] == [
        ["task", "data/check"]
    ]
    assert len(swarm("log", "--stream", "data").stdout.splitlines()) == 2
    assert swarm("log", "--stream", "run").stdout.splitlines()[0].split()[2:4] == ["run", "run"]
    assert "there is data, wide" in swarm("log", "--stream", "data/chek", check=2).stderr


def test_entries_as_toon_are_one_table(run: RunFolder, swarm: Command) -> None:
    with LogWriter.open(run.log) as writer:
        [said] = writer.append([("ada", ev.Post(ref="wide", body="s3 @bob", idem="a"))], via="local")
        writer.append([("ada", ev.Amend(ref="wide", of=said.seq, body="s4"))])
    text = swarm("log", "--toon", "--as", "bob").stdout
    rows = decode(text)["entries"]  # type: ignore[index,call-overload]
    assert len(text.splitlines()) == len(rows) + 1, "a header and a line for each"
    whole = json.loads(swarm("log", "--json", "--as", "bob").stdout)["entries"]
    assert len(text) < 0.7 * len(compact_json(whole))
    assert (whole[-2]["via"], whole[-1]["via"], whole[-2]["facts"]) == ("local", None, {"idem": "a"})
    assert (rows[-2]["via"], rows[-2]["facts"], rows[-2]["why"]) == ("local", "idem=a", "mention")
    assert [row["amended"] for row in rows[-2:]] == [f"{said.seq + 1} by ada", None]
    for row, entry in zip(rows, whole, strict=True):
        assert {name: row[name] for name in entry} == entry | {"facts": row["facts"]}


@pytest.mark.parametrize(
    "words",
    [("--since", "3"), ("--to", "3"), ("--tail", "0"), ("--stream", "wide"), ("--kind", "claim"), ("--follow",), ("--as", "ada")],
)  # fmt: skip
def test_what_verify_does_not_heed_is_refused(swarm: Command, words: tuple[str, ...]) -> None:
    said = swarm("log", "verify", *words, check=2).stderr
    assert said == f"{words[0]}: means nothing to `verify`, which looks at every entry; leave it out\n"


def test_following_goes_on_across_a_rotation(run: RunFolder) -> None:
    command = [sys.executable, "-m", "swarm.cli", "log", str(run.path), "--follow", "--kind", "post"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as reader:
        assert reader.stdout
        with LogWriter.open(run.log, rotate_bytes=2000) as writer:
            for n in range(60):
                writer.append([("ada", ev.Post(ref="wide", body=f"note {n}"))])
        assert (run.path / "collaboration" / "0002.md").exists()
        notes = [reader.stdout.readline().rsplit("  ", 1)[1].strip() for _ in range(60)]
        reader.kill()
    assert notes == [f"note {n}" for n in range(60)]


def follow(run: RunFolder) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "swarm.cli", "log", str(run.path), "--follow"]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_who_follows_a_run_that_is_removed_is_informed(run: RunFolder, story: Story) -> None:
    with follow(run) as reader:
        assert reader.stdout and reader.stderr
        for _ in story.entries:
            reader.stdout.readline()
        shutil.rmtree(run.path)
        assert reader.stderr.read() == f"{run.path}: was removed; there is nothing more to follow\n"
    assert reader.returncode == 2


def test_who_follows_a_log_is_informed_when_it_is_damaged(run: RunFolder, story: Story) -> None:
    with follow(run) as reader:
        assert reader.stdout and reader.stderr
        for _ in story.entries:
            reader.stdout.readline()
        text = run.log.read_text().replace("rows=10", "rows=99")
        shutil.rmtree(run.path / "collaboration")  # with it the log would be read from there
        run.log.write_text(text)
        said = reader.stderr.read()
    assert (reader.returncode, said.count("\n")) == (2, 1)
    assert said.startswith(f"{run.log}:") and "`swarm log verify`" in said


def test_without_a_coordinator_a_promotion_places_its_files_first_or_is_refused(run: RunFolder, story: Story) -> None:
    state = story.state
    adapter = state.streams["wide"].adapter
    assert adapter
    promote = ev.Promote(ref="wide", path="promoted", sha256=adapter.sha256, why="best")
    with Client(run) as owner:
        with pytest.raises(Refused, match="is missing"):
            owner.append(promote)
        assert not run.promoted.exists()
    with Client(run, "ada") as ada, pytest.raises(Refused, match="role agent may not append 'promote'"):
        ada.append(promote)


def test_lineage_says_where_an_adapter_comes_from_and_that_its_files_are_gone(swarm: Command) -> None:
    [told] = json.loads(swarm("lineage", "--json").stdout)["adapters"]
    assert (told["stream"], told["files"], told["parents"]["tokens"]) == ("wide", "missing", [told["token"]])
    assert "tiny-toon" in swarm("lineage").stdout


def test_a_digest_needs_no_coordinator(swarm: Command) -> None:
    assert "streams[1]" in swarm("digest", "--budget", "300", "--as", "ada").stdout
    assert "too few" in swarm("digest", "--budget", "5", check=2).stderr


def test_hashes_of_one_megabyte_blocks_are_hashes_of_the_file(tmp_path: Path) -> None:
    import hashlib

    data = bytes(range(256)) * 9000
    (tmp_path / "x").write_bytes(data)
    assert sha256_of(tmp_path / "x") == hashlib.sha256(data).hexdigest()
