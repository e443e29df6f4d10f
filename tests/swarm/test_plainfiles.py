"""What stands in a run folder and is no file of this program is refused at once, with one line, and nothing outside is changed."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from swarm import plainfiles
from swarm.access.client import Client
from swarm.cli.adapters import adapter_folder
from swarm.errors import UserError
from swarm.events import Post
from swarm.files import read_json, write_whole
from swarm.log import Log, LogError, LogWriter, run_is_alive
from swarm.plainfiles import NotPlain
from swarm.rundir import RunFolder
from swarm.weights import ADAPTER, ADAPTER_CONFIG
from tests.swarm.places import coordinator

SECONDS = 2.0


def a_link(path: Path) -> None:
    path.symlink_to("/etc/passwd")


def a_dead_link(path: Path) -> None:
    path.symlink_to(path.parent.parent / "not-there")


def a_fifo(path: Path) -> None:
    os.mkfifo(path)


def a_socket(path: Path) -> None:
    here = Path.cwd()
    os.chdir(path.parent)  # an address of a socket holds 107 bytes
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(path.name)
    os.chdir(here)


def a_giant(path: Path) -> None:
    path.touch()
    os.truncate(path, 20 << 30)


STRANGE = (a_link, a_dead_link, a_fifo, a_socket)


@pytest.mark.parametrize("make", [*STRANGE, a_giant])
def test_what_is_no_file_of_a_run_is_refused_at_once(tmp_path: Path, make: Callable[[Path], None]) -> None:
    make(tmp_path / "x")
    began = time.monotonic()
    with pytest.raises(NotPlain, match=r"/x: .*; move it away"):
        plainfiles.read_file(tmp_path / "x")
    with pytest.raises(NotPlain):
        read_json(tmp_path / "x")
    assert time.monotonic() - began < SECONDS


@pytest.mark.parametrize("make", STRANGE)
def test_nothing_is_written_through_it(tmp_path: Path, make: Callable[[Path], None]) -> None:
    make(tmp_path / "x")
    for flags in (os.O_WRONLY | os.O_CREAT, os.O_RDWR | os.O_APPEND, os.O_WRONLY | os.O_TRUNC):
        with pytest.raises(NotPlain):
            plainfiles.open_file(tmp_path / "x", flags)
    assert not (tmp_path.parent / "not-there").exists()


@pytest.mark.parametrize("make", [*STRANGE, a_giant])
def test_no_command_that_loads_an_adapter_of_a_run_is_given_one(
    folder: RunFolder, make: Callable[[Path], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """`ask`, `chat`, `serve`, `compare`, `eval`, `merge`, `push` and the exports: other libraries open these files by name."""
    adapter = folder.stream("wide") / "adapter"
    for place in (folder.promoted, adapter):
        (place / "tokenizer").mkdir(parents=True)
        for name in (ADAPTER, ADAPTER_CONFIG, "prompt.json", "lineage.json", "tokenizer/tokenizer.json"):
            (place / name).write_text("{}")
    monkeypatch.chdir(folder.path.parent)
    for word, place in ((str(folder.path), folder.promoted), ("wide", adapter)):
        assert adapter_folder(word, str(folder.path)) == str(place)
        for name in (ADAPTER_CONFIG, "prompt.json", "lineage.json", "tokenizer/tokenizer.json", "tokenizer"):
            (place / name).rename(place.parent / "aside")
            make(place / name)
            with pytest.raises(NotPlain, match="move it away"):
                adapter_folder(word, str(folder.path))
            (place / name).unlink()
            (place.parent / "aside").rename(place / name)
        place.rename(place.with_name("real"))
        place.symlink_to("real")
        with pytest.raises(NotPlain, match="is a symbolic link"):
            adapter_folder(word, str(folder.path))


def test_a_link_on_the_way_is_not_followed_for_anything(tmp_path: Path) -> None:
    outside, inside = tmp_path / "outside", tmp_path / "run"
    (outside / "tree").mkdir(parents=True)
    (outside / "kept").write_text("kept")
    inside.mkdir()
    (inside / "way").symlink_to(outside)
    way = inside / "way"
    for act in (
        lambda: plainfiles.read_file(way / "kept"),
        lambda: write_whole(way / "new", "x"),
        lambda: plainfiles.make_folder(way / "new"),
        lambda: plainfiles.remove_file(way / "kept"),
        lambda: plainfiles.remove_tree(way / "tree"),
        lambda: plainfiles.rename(way / "kept", inside / "mine"),
        lambda: plainfiles.link(way / "kept", inside / "mine"),
    ):
        with pytest.raises(NotPlain, match=r"/way: is a symbolic link"):
            act()
    plainfiles.remove_tree(way)  # the link itself
    assert sorted(path.name for path in outside.iterdir()) == ["kept", "tree"]
    assert list(inside.iterdir()) == []


def test_a_folder_of_another_user_is_written_to_only_if_that_is_asked_for(
    folder: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    if os.geteuid():
        pytest.skip("only the superuser can give a folder away")
    for path in [folder.path, *folder.path.rglob("*")]:
        os.chown(path, 12345, -1)
    before = folder.log.read_bytes()
    with Client(folder, "eve") as eve:
        with pytest.raises(
            UserError, match=r"belongs to another user \(uid 12345\); act through its coordinator .*--foreign"
        ):
            eve.append(Post(ref="run", body="hello"))
        assert folder.log.read_bytes() == before and not run_is_alive(folder.log)
        monkeypatch.setenv(plainfiles.FOREIGN, "1")
        eve.append(Post(ref="run", body="hello"))
    assert Log(folder.log).refresh()[-1].event.body == "hello"


@pytest.mark.parametrize(
    "name", ["COLLABORATION.md", "collaboration/wal", "collaboration/lock", "collaboration/.wal.new"]
)
@pytest.mark.parametrize("make", STRANGE)
def test_a_log_with_a_strange_file_in_it_is_not_written(
    folder: RunFolder, name: str, make: Callable[[Path], None], tmp_path: Path
) -> None:
    (folder.path / name).unlink(missing_ok=True)
    make(folder.path / name)
    before = sorted(folder.path.rglob("*"))
    try:
        with LogWriter.open(folder.log) as writer:
            writer.append([("ada", Post(ref="run", body="x"))])
    except LogError as error:
        assert "move it away" in str(error)
        assert sorted(folder.path.rglob("*")) == before
    assert not (folder.path / "not-there").exists() and not (tmp_path / "not-there").exists()


def test_a_link_put_in_place_of_the_log_at_work_stops_no_coordinator(unopened: RunFolder, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.write_text("theirs")
    with coordinator(unopened) as process, Client(unopened, "ada") as ada:
        ada.append(Post(ref="run", body="before"))
        unopened.log.unlink()
        unopened.log.symlink_to(elsewhere)
        with pytest.raises(Exception, match="symbolic link"):
            ada.append(Post(ref="run", body="during"))
        unopened.log.unlink()
        ada.append(Post(ref="run", body="after"))
        assert process.poll() is None
    assert elsewhere.read_text() == "theirs"
    assert [e.event.body for e in Log(unopened.log).refresh() if e.author == "ada"] == ["before", "after"]
