"""References to what stands in the same file already: shorter to read, and never less than the whole to whoever folds."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from swarm.event import Event
from swarm.events import Adapter, Checkpoint, Claim, Post, Promote, Renew, Trained, Verdict
from swarm.log import Entry, Log, LogDamaged, LogError, LogWriter, draft, verify
from swarm.log.chain import Place
from swarm.log.draft import Draft
from swarm.log.forms import HEAD

Sound = Callable[[Path], list[Entry]]
SHA = "5d" * 32
PLACE = "streams/lora-8/t18/checkpoint-120"


def saved(step: int = 120, sha256: str = SHA) -> tuple[str, Event]:
    return ("trainer-1", Checkpoint(ref="lora-8/train", tok=18, step=step, path=PLACE, sha256=sha256, loss=0.25))


TRAINED = ("trainer-1", Trained(ref="lora-8/train", tok=18, step=120, path=PLACE, sha256=SHA, trainable=104448))
CLAIM = ("trainer-1", Claim(ref="lora-8/train", ttl=60, beats=True))


def comments(path: Path) -> list[str]:
    """The facts as they stand, without the chain values."""
    lines = path.read_text(encoding="utf-8").splitlines()
    return [
        line.split("<!--")[1].rpartition(" ")[0].rpartition(" ")[0].strip() for line in lines if line.startswith("<!--")
    ]


def test_a_long_value_stands_once_and_is_referred_to(path: Path, sound: Sound) -> None:
    with LogWriter.open(path) as writer:
        true = writer.append([saved()]) + writer.append([TRAINED])
    assert comments(path)[1] == "tok=18 step=120 sha256=~1 trainable=104448"
    assert sound(path) == true and true[1].event == TRAINED[1]


def test_the_same_facts_again_are_a_reference_and_what_differs(path: Path, sound: Sound) -> None:
    with LogWriter.open(path) as writer:
        true = writer.append([CLAIM, CLAIM, saved(), saved(step=180)]) + writer.append([CLAIM])
    assert comments(path) == [
        "ttl=60 beats=true", "~1", f"tok=18 step=120 sha256={SHA} loss=0.25", "~3 step=180 path=~3", "~1",
    ]  # fmt: skip
    assert sound(path) == true


def test_what_the_other_entry_states_and_this_one_does_not_is_taken_back(path: Path, sound: Sound) -> None:
    judged = Verdict(ref="a/validate", tok=3, result="FAIL", path=PLACE, sha256=SHA, why="weights are not finite")
    passed = judged.model_copy(update={"result": "SUCCESS", "why": None, "body": "~ and ~1 are words here"})
    odd = judged.model_copy(update={"why": "~"})
    with LogWriter.open(path) as writer:
        true = writer.append([("v", judged), ("v", passed), ("v", odd)])
    assert comments(path)[1:] == ["~1 result=SUCCESS why=~", '~1 why="~"']
    assert sound(path) == true and [entry.event for entry in true] == [judged, passed, odd]


def test_a_day_is_stated_when_it_begins(path: Path, sound: Sound) -> None:
    clock = iter([1795303200.0, *(1795304390.0 + 5 * n for n in range(4))])
    with LogWriter.open(path, clock=lambda: next(clock)) as writer:
        true = [entry for n in range(4) for entry in writer.append([("ada", Post(ref="run", body=f"{n}"))])]
    headings = [line.split()[5:] for line in path.read_text().splitlines() if line.startswith("##### ")]
    assert headings == [["2026-11-21", "23:39:50"], ["23:39:55"], ["23:40:00"], ["23:40:05"]]
    assert sound(path) == true


def test_a_path_that_follows_from_the_other_facts_is_stated_only_where_it_is_another(path: Path, sound: Sound) -> None:
    published = Adapter(ref="a", tok=3, path="streams/a/adapter", sha256=SHA)
    moved = published.model_copy(update={"path": "elsewhere/adapter"})
    promoted = Promote(ref="a", path="promoted", sha256=SHA, why="it is the best")
    with LogWriter.open(path) as writer:
        true = writer.append([("c", published), ("c", moved), ("c", moved), ("c", published), ("c", promoted)])
    assert comments(path) == [
        f"tok=3 sha256={SHA}", "~1 path=elsewhere/adapter", "~1 path=~2", "~1", 'sha256=~1 why="it is the best"',
    ]  # fmt: skip
    assert sound(path) == true and [entry.event for entry in true] == [published, moved, moved, published, promoted]


def test_entries_of_one_second_state_the_time_once(path: Path, sound: Sound) -> None:
    with LogWriter.open(path, clock=lambda: 1795303200.0) as writer:
        true = [entry for n in range(70) for entry in writer.append([("ada", Post(ref="run", body=f"{n}"))])]
    stated = [line.split()[1] for line in path.read_text().splitlines() if line.startswith("##### ") and ":" in line]
    assert stated == ["1", "64"], "and now and then, so that a reader of the end need not go back to the beginning"
    assert sound(path) == true and {entry.time for entry in true} == {1795303200.0}


def test_a_file_whose_first_entry_states_no_time_is_damaged(path: Path) -> None:
    timeless = Draft(Place(), 1795238000.0)
    timeless._when = ""
    timeless.add("eve", Post(ref="s1", body="when?"))
    path.write_bytes(timeless.data)
    with pytest.raises(LogDamaged, match="does not state day and time"):
        list(Log(path).entries())


def test_the_time_is_found_however_far_back_it_stands(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(draft, "STATE_DAY_EVERY", 10**9)
    with LogWriter.open(path, clock=lambda: 1795303200.0, head_every=10**9) as writer:
        writer.append([("ada", Post(ref="run", body=f"{n}")) for n in range(3000)])
    assert path.read_text().count("2026-11-21") == 1
    assert Log(path).last_time == 0.0, "nothing was read yet"
    log = Log(path)
    log.read()
    assert log.last_time == 1795303200.0


def test_another_writer_goes_on_with_the_references_of_the_file(path: Path, sound: Sound) -> None:
    with LogWriter.open(path) as writer:
        true = writer.append([CLAIM, saved()])
    with LogWriter.open(path) as writer:
        true += writer.append([TRAINED, CLAIM])
    assert comments(path)[2:] == ["tok=18 step=120 sha256=~2 trainable=104448", "~1"]
    assert sound(path) == true


def test_every_file_can_be_read_by_itself(path: Path, sound: Sound) -> None:
    with LogWriter.open(path, rotate_bytes=1200) as writer:
        for _ in range(6):
            writer.append([saved(), TRAINED, CLAIM, CLAIM])
    for file in (path, *(path.parent / "collaboration").glob("0*.md")):
        text = file.read_text(encoding="utf-8")
        assert text.startswith(HEAD.decode()) and text.count(SHA) == 1
    assert sound(path) == list(writer.log.entries())


def test_what_was_refused_is_not_referred_to(path: Path, sound: Sound) -> None:
    with LogWriter.open(path) as writer:
        with pytest.raises(LogError, match="not an entry"):
            writer.append([saved(), ("ada", Renew.model_construct(ref="s1", tok=10**5000, ttl=1))])
        writer.append([("ada", Post(ref="run", body="takes the number of what was refused"))])
        true = writer.append([TRAINED])
    assert f"step=120 sha256={SHA}" in comments(path)[1]
    assert sound(path)[1:] == true


@pytest.mark.parametrize("refers", ["~9", "~2", "ttl=~1", "ttl=~9", "~1 more=1"])
def test_a_reference_to_nothing_is_damage_and_a_fault(path: Path, refers: str) -> None:
    with LogWriter.open(path) as writer:
        writer.append([("ada", Post(ref="s1", body="no facts"))])
        forged = Draft(writer.log.place, 1795238000.0)
    forged._facts = lambda seq, event: f" {refers}"  # type: ignore[method-assign]
    forged.add("eve", Claim(ref="s1/train", ttl=60))
    path.write_bytes(path.read_bytes() + forged.data)
    shutil.rmtree(path.parent / "collaboration")
    with pytest.raises(LogDamaged):
        Log(path).refresh()
    assert [fault.seq for fault in verify(path)] == [2]
