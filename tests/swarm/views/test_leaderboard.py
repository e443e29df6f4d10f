"""The leaderboard (issue 21): rank, step, figure, cost and state of the streams that compete, the best first."""

from __future__ import annotations

import pytest

from swarm import events as ev
from swarm.cli import statuses
from swarm.settings import Dataset, Halving, RunSettings
from swarm.views.digest import digest
from swarm.views.leaderboard import competes, leaderboard, title, words
from swarm.views.snapshot import Leaderboard, Snapshot
from swarm.views.streamrows import stream_rows
from tests.swarm.policy.test_halving import Race
from tests.swarm.story import Story, settings
from toon import decode


def board(story: Story, run: RunSettings) -> Leaderboard:
    return leaderboard(story.state, run, stream_rows(story.state, run, {}, (), story.now), story.now)


@pytest.fixture
def race() -> Race:
    race = Race("w.t1", "w.t2", "w.t3", "w.t4")
    for name, loss in (("w.t1", 0.4), ("w.t2", 0.1), ("w.t3", 0.3), ("w.t4", 0.2)):
        race.reaches(name, 10, loss)
    return race


def test_trials_stand_in_the_order_of_their_newest_figure_with_what_they_cost_and_where_they_stopped(
    race: Race,
) -> None:
    run = settings(*race.tokens).model_copy(
        update={"halving": Halving(first_step=10, reduction=2), "prices": {"cpu": 3.6}}
    )
    race.pass_time(100)
    assert race.stops(run) == ["w.t1", "w.t3"]
    found = board(race, run)
    assert [(one.rank, one.stream, one.value, one.state) for one in found.places] == [
        (1, "w.t2", 0.1, "train"), (2, "w.t4", 0.2, "train"), (3, "w.t3", 0.3, "stopped at 10"), (4, "w.t1", 0.4, "stopped at 10"),
    ]  # fmt: skip
    assert title(found) == "held-out, lowest first" and found.is_search
    for one in found.places:
        assert one.seconds and one.seconds > 100 and one.usd == pytest.approx(one.seconds / 1000, rel=0.01)
    assert (
        words(found.places[0], found.metric)[4].startswith("1m") and "$0.1" in words(found.places[0], found.metric)[4]
    )
    assert f"eval_loss: {'w.t2 0.1, w.t4 0.2, w.t3 0.3'}" == decode(digest(race.state, race.now, 600))["best"]  # type: ignore[index,call-overload]


def test_a_figure_that_is_to_be_high_puts_the_highest_first_once_two_streams_have_it(race: Race) -> None:
    run = settings(*race.tokens, metric="exact_match")
    assert board(race, run).metric == "eval_loss", "nobody was asked anything yet"
    story = Story("a", "b")
    story.scored("a", 0.1, exact_match=0.5)
    story.scored("b", 0.9, exact_match=0.75)
    found = board(story, settings("a", "b", metric="exact_match"))
    assert [one.stream for one in found.places] == ["b", "a"] and title(found) == "exact match, highest first"
    assert not found.is_search and not competes(story.state), "nothing was tried here"


def test_trials_that_were_stopped_on_val_rows_come_after_those_that_the_held_out_rows_have_judged(race: Race) -> None:
    """Their losses are of other rows, and say nothing of each other."""
    names = [*race.tokens, "w.t5", "w.t6"]
    run = settings(*names)
    val = [Dataset(path="val.jsonl", type="text")]
    streams = {name: stream.model_copy(update={"val_datasets": val}) for name, stream in run.streams.items()}
    run = run.model_copy(update={"streams": streams})
    assert [one.stream for one in board(race, run).places] == ["w.t2", "w.t4", "w.t3", "w.t1"], "all are of val rows"
    for name in ("w.t5", "w.t6"):
        race.say("coordinator", ev.Stream(ref=name))
    race.scored("w.t5", 0.9)
    race.validated("w.t6", loss=0.6)  # by the held-out rows too, before its answers are scored
    found = board(race, run).places
    assert [one.stream for one in found] == ["w.t6", "w.t5", "w.t2", "w.t4", "w.t3", "w.t1"]
    assert [one.state.endswith("val rows") for one in found] == [False, False, True, True, True, True]
    told = decode(digest(race.state, race.now, 600, settings=run))["best"]  # type: ignore[index,call-overload]
    assert told == "eval_loss: w.t6 0.6, w.t5 0.9, w.t2 0.1"


def test_a_proposal_that_was_kept_or_discarded_says_so() -> None:
    story = Story("start")
    story.scored("start", 1.0)
    story.say("coordinator", ev.Task(ref="research/data"))
    for name in ("one", "two"):
        story.say("ada", ev.Propose(ref=name, like="start", changes="seed=1", why="because", phase="data"))
        story.say("coordinator", ev.Add(ref=name, like="start", changes="seed=1"))
        story.scored(name, 0.5 if name == "one" else 2.0)
        story.say("coordinator", ev.Conclude(ref=name, result="keep" if name == "one" else "discard", why="chance"))
    found = board(story, settings("start", "one", "two"))
    assert [(one.stream, one.state) for one in found.places] == [
        ("one", "kept"),
        ("start", "done"),
        ("two", "discarded"),
    ]


def test_status_prints_the_first_of_them_as_a_table_and_says_how_many_more_there_are(race: Race) -> None:
    run = settings(*race.tokens)
    found = board(race, run)
    many = Leaderboard(found.metric, found.goal, found.places * 3)
    text = statuses.text(Snapshot("x", "runs/x", leaderboard=many))
    assert "leaderboard: held-out, lowest first" in text and "and 4 more: `swarm status --json`" in text
    [first] = [line for line in text.splitlines() if line.split()[:2] == ["1", "w.t2"]][:1]
    assert first.split()[2:4] == ["10/?", "0.100"] and first.endswith("train")


def test_nothing_is_ranked_before_two_streams_were_measured() -> None:
    story = Story("a", "b")
    story.scored("a", 0.1)
    assert board(story, settings("a", "b")) == Leaderboard()
