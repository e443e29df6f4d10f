"""`swarm log`, `verify`, `replay`, `lineage` and `digest` on the record of a run that nobody has to run for it."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from swarm import config
from swarm import events as ev
from swarm.door import Door, Refused
from swarm.log import LogWriter
from swarm.publish import sha256_of
from swarm.replay import snapshot_at
from swarm.rundir import RunFolder

from .story import Story

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
    assert "the log has the entries 1 to" in swarm("replay", "--to", "999", check=2).stderr


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


def test_without_a_coordinator_a_promotion_places_its_files_first_or_is_refused(run: RunFolder, story: Story) -> None:
    state = story.state
    adapter = state.streams["wide"].adapter
    assert adapter
    promote = ev.Promote(ref="wide", path="promoted", sha256=adapter.sha256, why="best")
    with Door(run) as owner:
        with pytest.raises(Refused, match="is missing"):
            owner.append(promote)
        assert not run.promoted.exists()
    with Door(run, "ada") as ada, pytest.raises(Refused, match="role agent may not append 'promote'"):
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
