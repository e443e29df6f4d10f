"""The feed brings the newest picture, not every picture, and makes every text harmless."""

from __future__ import annotations

import queue
import time
from dataclasses import replace

from textual.message import Message

from swarm.errors import UserError
from swarm.views.snapshot import Snapshot
from tests.tui.runs import Played, run_at
from tui.feed import Arrived, Feed, LogRead, Lost, Recorded, Refused, harmless


def played(source: Played, period_seconds: float = 0.01) -> tuple[Feed, queue.Queue[Message]]:
    messages: queue.Queue[Message] = queue.Queue()
    return Feed(source, messages.put, period_seconds), messages


def next_of(messages: queue.Queue[Message], kind: type[Message]) -> Message:
    while not isinstance(message := messages.get(timeout=5), kind):
        pass
    return message


def test_a_flood_of_pictures_becomes_four_a_second() -> None:
    source = Played(moving=lambda tick: run_at(tick % 100, seq=tick), hertz=200)
    feed, messages = played(source, period_seconds=0.25)
    began = time.monotonic()
    feed.start()
    time.sleep(1.1)
    feed.stop()
    assert 2 <= messages.qsize() <= 4 * (time.monotonic() - began) + 2


def test_a_newer_picture_replaces_one_that_still_waits() -> None:
    assert Arrived(run_at(1)).can_replace(Arrived(run_at(2)))
    assert not Arrived(run_at(1)).can_replace(Recorded("stop", "x", "1 stop x"))


def test_an_act_is_answered_with_its_entry_or_with_the_refusal() -> None:
    source = Played()
    feed, messages = played(source)
    feed.start()
    feed.say("pause", "lora-8")
    said = next_of(messages, Recorded)
    assert isinstance(said, Recorded) and said.line == "27 pause lora-8"
    source.refusal = UserError("stop lora-8", "no coordinator runs", "`swarm resume` starts one")
    feed.say("stop", "lora-8")
    refused = next_of(messages, Refused)
    feed.stop()
    assert isinstance(refused, Refused) and "swarm resume" in refused.why


def test_an_unexpected_error_is_displayed_too() -> None:
    class Broken(Played):
        def snapshot(self) -> Snapshot:
            raise OSError("the disk\x1b[2J is gone")

        def log_lines(self, since: int = 0, stream: str | None = None) -> list[str]:
            raise OSError("gone")

    feed, messages = played(Broken())
    feed.start()
    feed.read_log()
    lost, refused = next_of(messages, Lost), next_of(messages, Refused)
    feed.stop()
    assert isinstance(lost, Lost) and lost.why == "OSError: the disk\\x1b[2J is gone"
    assert isinstance(refused, Refused)


def test_the_log_is_read_clean() -> None:
    source = Played()
    source.log = ["1 05:12 post run  eve  \x1b]0;owned\x07"]
    feed, messages = played(source)
    feed.start()
    feed.read_log()
    read = next_of(messages, LogRead)
    feed.stop()
    assert isinstance(read, LogRead) and read.lines == ["1 05:12 post run  eve  \\x1b]0;owned\\x07"]


def test_every_text_of_a_snapshot_is_made_harmless_and_nothing_else_is_touched() -> None:
    run = run_at(72)
    assert harmless(run) is run
    bad = replace(run, run="a\x1bb", tail=("x\ny",), streams=(replace(run.streams[0], why="\x07"), *run.streams[1:]))
    good = harmless(bad)
    assert (good.run, good.tail, good.streams[0].why) == ("a\\x1bb", ("x\\ny",), "\\x07")
    assert good.streams[1] is run.streams[1]
    assert good.streams[0].curves is run.streams[0].curves
