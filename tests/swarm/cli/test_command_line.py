"""What the command `swarm` answers where a word, the disk, a folder or a reader will not do: one line, and an exit status that is true."""

from __future__ import annotations

import json
import os
import resource
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

import pytest

from tests.runs import swarm_process as sp
from tests.swarm.places import entries, opened

ROOT_WITHOUT_POWER = ("setpriv", "--bounding-set=-dac_override,-dac_read_search", "--inh-caps=-all")
"""So that files' modes hold for the superuser too."""
Command = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def swarm(tmp_path: Path) -> Command:
    """A command where `runs` is, in a process of its own."""

    def command(*words: str, out: int | IO[str] = subprocess.PIPE, **more: object) -> subprocess.CompletedProcess[str]:
        as_who = more.pop("before", ())
        environment = {**sp.environment(), "PYTHONUNBUFFERED": ""}  # as people have it
        return subprocess.run(
            [*as_who, sys.executable, "-m", "swarm.cli", *words], cwd=tmp_path, env=environment, text=True,  # type: ignore[misc, has-type]
            stdout=out, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL, timeout=60, check=False, **more,
        )  # type: ignore[call-overload]  # fmt: skip

    return command


# ---- words -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ("stauts", "swarm: no such command 'stauts'; did you mean 'status', 'task'?"),
        ("bogus", "swarm: no such command 'bogus'; `swarm --help` says what it takes"),
        ("log --tial 3", "--tial: no such option; did you mean --tail or --to or --as?"),
        ("log --since", "--since: requires an argument; `swarm log --help` says what it takes"),
        ("log --since -1", "--since: should be greater than or equal to 0; `swarm log --help` says what it takes"),
        (
            "export --since -1",
            "--since: should be greater than or equal to 0; `swarm export --help` says what it takes",
        ),
        ("renew a --token x", "--token: should be a valid integer, unable to parse string as an integer; `swarm renew"),
        ("renew a", "--token: is missing; `swarm renew --help` says what it takes"),
        ("post", "REF: is missing; `swarm post --help` says what it takes"),
        ("log --json=3", "--json: does not take a value; `swarm log --help`"),
        ("status a b", "swarm status: got unexpected extra argument(s) (b); `swarm status --help`"),
        ("log --json --toon", "--json: is the opposite of --toon; give one of them"),
        ("stop --no-wait --wait", "--wait: is the opposite of --no-wait; give one of them"),
    ],
)
def test_a_misspelt_word_is_reported_in_one_line_with_a_suggestion(swarm: Command, words: str, told: str) -> None:
    done = swarm(*words.split())
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert done.stderr.startswith(told)


def test_what_stands_behind_two_dashes_is_no_option(swarm: Command, tmp_path: Path) -> None:
    folder = opened(tmp_path)
    assert swarm("post", "--json", "--", "run", "--toon").returncode == 0
    assert entries(folder)[-1].event.body == "--toon"


def test_help_is_help_with_and_without_a_word(swarm: Command) -> None:
    asked, alone = swarm("--help"), swarm()
    assert (asked.returncode, alone.returncode) == (0, 2)
    assert asked.stdout == alone.stderr and "Commands:" in asked.stdout
    assert "--since SEQ" in swarm("log", "--help").stdout


# ---- readers and disks -----------------------------------------------------------------------------------------------


@pytest.fixture
def gone() -> Iterator[IO[str]]:
    """A pipe whose reader has left."""
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "w") as out:
        yield out


@pytest.mark.parametrize("words", ["log", "log --follow", "log --json", "digest", "export --what events", "--help"])
def test_a_reader_who_has_seen_enough_is_no_error(swarm: Command, tmp_path: Path, gone: IO[str], words: str) -> None:
    opened(tmp_path)
    done = swarm(*words.split(), out=gone)
    assert (done.returncode, done.stderr) == (0, "")


def test_what_was_recorded_is_no_failure_when_nobody_reads_the_answer(
    swarm: Command, tmp_path: Path, gone: IO[str]
) -> None:
    folder = opened(tmp_path)
    done = swarm("post", "run", "x", out=gone)
    assert (done.returncode, done.stderr) == (0, "")
    assert entries(folder)[-1].event.body == "x"


def test_a_fault_stays_one_when_nobody_reads_it(swarm: Command, tmp_path: Path, gone: IO[str]) -> None:
    folder = opened(tmp_path)
    folder.log.write_text(folder.log.read_text().replace("opened", "closed"))
    assert swarm("log", "verify", out=gone).returncode == 1


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a device that is always full")
@pytest.mark.parametrize("words", ["log", "log --follow", "digest", "export --what events", "--help"])
def test_a_full_disk_under_the_output_is_reported(swarm: Command, tmp_path: Path, words: str) -> None:
    opened(tmp_path)
    with Path("/dev/full").open("w") as full:
        done = swarm(*words.split(), out=full)
    assert (done.returncode, done.stderr) == (
        2,
        "standard output: no space; free some; everything was recorded in the log\n",
    )


def full() -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))  # no file can grow: EFBIG, and pipes still take


@pytest.mark.parametrize(("words", "place"), [("open other", "keys/log.key"), ("invite eve", "keys/members.json")])
def test_a_full_disk_is_reported_and_leaves_nothing_half(
    swarm: Command, tmp_path: Path, words: str, place: str
) -> None:
    folder = opened(tmp_path)
    done = swarm(*words.split(), preexec_fn=full)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert done.stderr.endswith(f"/{place}: no space; free some and try again\n")
    assert not list(tmp_path.rglob(".*"))
    assert [path.name for path in tmp_path.glob("runs/*/keys/*.key")] == ["log.key"]
    assert swarm(*words.split()).returncode == 0
    assert swarm("log", "verify", folder.name).returncode == 0


# ---- folders ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def powerless() -> tuple[str, ...]:
    if os.geteuid() == 0 and shutil.which(ROOT_WITHOUT_POWER[0]) is None:
        pytest.skip("modes bind no superuser, and there is no setpriv")
    return ROOT_WITHOUT_POWER if os.geteuid() == 0 else ()


def test_a_run_whose_keys_are_closed_to_us_is_found_and_read(
    swarm: Command, tmp_path: Path, powerless: tuple[str, ...]
) -> None:
    folder = opened(tmp_path)
    folder.keys.chmod(0)
    done = swarm("log", before=powerless)
    folder.keys.chmod(0o700)
    assert (done.returncode, done.stderr) == (0, "") and "opened by owner" in done.stdout


def test_a_folder_that_is_closed_to_us_hides_no_run(swarm: Command, tmp_path: Path, powerless: tuple[str, ...]) -> None:
    closed, ours = opened(tmp_path, "theirs"), opened(tmp_path, "ours")
    closed.path.chmod(0)
    newest, named = swarm("log", before=powerless), swarm("log", closed.name, before=powerless)
    closed.path.chmod(0o700)
    assert (newest.returncode, newest.stderr) == (0, "") and ours.name in newest.stdout
    assert (named.returncode, named.stderr.count("\n")) == (2, 1)
    assert "Permission denied; ask its owner" in named.stderr


def test_a_folder_in_a_files_place_is_reported_in_one_line(swarm: Command, tmp_path: Path) -> None:
    folder = opened(tmp_path)
    shutil.rmtree(folder.path / "collaboration")
    folder.log.unlink()
    folder.log.mkdir()
    done = swarm("log")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == f"{folder.log}: Is a directory; a file belongs there: move it away, or name another\n"


# ---- a config to begin with ----------------------------------------------------------------------------------------------


def test_init_writes_what_it_has_rendered_with_the_rows_here_and_nothing_else(tmp_path: Path, swarm: Command) -> None:
    rows = [
        f'{{"conversations": [{{"from": "human", "value": "double {n}"}}, {{"from": "gpt", "value": "{2 * n}"}}]}}'
        for n in range(9)
    ]
    (tmp_path / "train.jsonl").write_text("\n".join(rows))
    done = swarm("init")
    assert (done.returncode, done.stdout) == (0, "")
    assert done.stderr == "wrote swarm.yaml (3 rows rendered, 6 of 33 tokens supervised); next: swarm run swarm.yaml\n"
    assert "{path: train.jsonl, type: chatml, messages: conversations}" in (tmp_path / "swarm.yaml").read_text()
    (tmp_path / "train.jsonl").write_text('{"conversations": [{"from": "nobody", "value": "x"}]}\n')
    done = swarm("init", "other.yaml", "--base", "tiny-toon")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"{tmp_path}/train.jsonl:1: message 1 is from 'nobody'; use one of human, ")
    assert not (tmp_path / "other.yaml").exists()
    assert not list(tmp_path.glob(".*.yaml"))
    assert "exists; name another file" in swarm("init").stderr
    assert (
        "train.jsonl: is no name of a YAML file, and a config is written there; `swarm init train.yaml`"
        in swarm("init", "train.jsonl").stderr
    )
    told = swarm("init", "third.yaml", "--base", "tiny-toon", "--json")
    assert told.returncode == 2 and not told.stdout, "nothing was written, so nothing is told"
    (tmp_path / "train.jsonl").write_text("\n".join(rows))
    told = swarm("init", "third.yaml", "--base", "tiny-toon", "--json")
    assert json.loads(told.stdout) == {"path": "third.yaml", "next": "swarm run third.yaml"}


def test_words_without_quotes_are_one_question(tmp_path: Path) -> None:
    from swarm.cli.asking import _questions

    assert _questions(["what", "is", "2+2?"]) == ["what is 2+2?"]
    assert _questions(["what is", "2+2?"]) == ["what is", "2+2?"]
    assert _questions(["hi", "-"]) == ["hi", "-"]
