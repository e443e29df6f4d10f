"""The feedback loop (issue 21; G28): ratings, a retraining, a canary, promotion or discard; told entry by entry."""

from __future__ import annotations

import random

import pytest

from swarm import events as ev
from swarm.policy import chance, feedback
from swarm.policy.commands import (
    BeginCanary,
    BeginRetraining,
    DiscardProposal,
    Dismiss,
    Finish,
    JoinRetrained,
    JudgeCanary,
    PromoteWinner,
)
from swarm.policy.schedule import decide
from swarm.settings import Feedback, RunSettings
from swarm.settings.search import Budget
from swarm.state import Refusal
from swarm.views.streamrows import waits_of
from tests.swarm.story import SHA, Story, settings, worker

LOOP = Feedback(below=3.5, window=6, least=4, canary_share=0.25, canary_ratings=12, idle_hours=1)


def run_of(story: Story, **more: object) -> RunSettings:
    return settings(*story.state.streams).model_copy(update={"feedback": LOOP, **more})


def rates(story: Story, stream: str, *ratings: float, better: bool | None = None) -> None:
    for rating in ratings:
        answer = f"chatcmpl-{len(story.entries)}"
        story.say("ada", ev.Rate(ref=stream, answer=answer, rating=rating, better=better))


def promotes(story: Story, stream: str) -> None:
    story.say("coordinator", ev.Promote(ref=stream, path="promoted", sha256=SHA, why="the best"))


def tried(story: Story, name: str = "retrain-1") -> None:
    """Trained anew and tried on some of the requests."""
    story.say("coordinator", ev.Retrain(ref=name, like="wide", mean=2.0, ratings=4))
    story.say("coordinator", ev.Add(ref=name, like="wide"))
    story.scored(name, 0.4)
    story.say("coordinator", ev.Canary(ref=name, share=0.25))


@pytest.fixture
def story() -> Story:
    story = Story("wide")
    story.scored("wide", 0.5)
    promotes(story, "wide")
    return story


def results(story: Story, **more: object) -> list[object]:
    return list(feedback.results(story.state, run_of(story, **more), story.now))


def test_only_enough_new_and_low_ratings_of_what_is_promoted_have_a_stream_trained_anew(story: Story) -> None:
    rates(story, "wide", 1, 2, 2, better=True)
    assert results(story) == [], "three are too few"
    wanted = "wide has 3 new ratings with the mean 1.667; of 4 at least it is to be 3.5"
    assert feedback.standing(story.state, run_of(story)) == wanted
    rates(story, "wide", 3)
    assert results(story) == [BeginRetraining("retrain-1", "wide", 2.0, 4)]
    rates(story, "wide", 5, 5, 5, 5)
    assert results(story) == [], "of the last six the mean is 4.2"


def test_only_the_newest_ratings_count(story: Story) -> None:
    rates(story, "wide", 1, 1, 1, 1, 1, 5, 5, 5, 5, 5, 5, better=True)
    assert results(story) == [], "the last six are good"
    rates(story, "wide", 1, 1, 1, 1)
    assert results(story) == [BeginRetraining("retrain-1", "wide", 2.333, 6)]


def test_nothing_is_trained_without_an_answer_to_learn_from_or_without_room_in_the_budget(story: Story) -> None:
    rates(story, "wide", 1, 1, 1, 1)
    assert results(story) == [], "no answer was good, and nobody wrote a better one"
    story.say("ada", ev.Rate(ref="wide", answer="chatcmpl-x", rating=1, better=True))
    assert results(story) == [BeginRetraining("retrain-1", "wide", 1.0, 5)]
    assert results(story, budget=Budget(steps=1)) == []
    assert decide(story.state, [], story.now, run_of(story, feedback=None)) == [Finish(0)]


def test_the_rows_are_good_answers_and_those_with_a_better_one_and_a_second_rating_takes_the_place_of_the_first(
    story: Story,
) -> None:
    for answer, rating, better in (("good", 4, None), ("bad", 1, None), ("mended", 1, True), ("fell", 5, None)):
        story.say("ada", ev.Rate(ref="wide", answer=answer, rating=rating, better=better))
    story.say("bob", ev.Rate(ref="wide", answer="fell", rating=2))
    story.say("ada", ev.Rate(ref="wide", answer="mended", rating=2))
    assert feedback.rows_of(story.state, LOOP) == ["good", "mended"]
    assert len(story.state.ratings) == 4
    with pytest.raises(Refusal, match="no such stream"):
        story.say("ada", ev.Rate(ref="nobody", answer="x", rating=1))


def test_a_stream_that_is_trained_anew_joins_is_tried_and_judged_once_enough_answers_of_both_are_rated(
    story: Story,
) -> None:
    story.say("coordinator", ev.Retrain(ref="retrain-1", like="wide", mean=2.0, ratings=4))
    assert feedback.joins(story.state) == [JoinRetrained("retrain-1")] and results(story) == []
    story.say("coordinator", ev.Add(ref="retrain-1", like="wide"))
    assert feedback.joins(story.state) == [] and results(story) == [], "it trains"
    story.scored("retrain-1", 0.4)
    assert results(story) == [BeginCanary("retrain-1", 0.25)]
    rates(story, "wide", *[1] * 20)
    story.say("coordinator", ev.Canary(ref="retrain-1", share=0.25))
    rates(story, "retrain-1", *[5] * 12)
    assert results(story) == [], "ratings from before the canary do not count"
    wanted = "retrain-1 gets 25% of the requests; of 12 ratings each retrain-1 has 12, wide has 0"
    assert feedback.standing(story.state, run_of(story)) == wanted
    assert story.state.streams["retrain-1"].spared, "streams of other rows are no measure for it"
    rates(story, "wide", *[2] * 12)
    assert results(story) == [JudgeCanary("retrain-1")]


def test_a_canary_that_is_rated_better_by_more_than_chance_is_promoted_when_nobody_has_to_approve(story: Story) -> None:
    tried(story)
    rates(story, "retrain-1", *[4, 5, 5, 4] * 3)
    rates(story, "wide", *[2, 1, 3, 2] * 4)
    found = feedback.concluded(story.state, run_of(story), "retrain-1", random.Random(0))
    assert (found.result, found.against) == ("keep", "wide") and found.p is not None and found.p < 0.01
    assert "rated 2.5 better than wide (12 against 16 ratings" in found.why
    story.say("coordinator", found)
    [promotion] = results(story)
    assert isinstance(promotion, PromoteWinner) and promotion.choice.winner == "retrain-1"
    asks = run_of(story).promotion.model_copy(update={"approvals": 1})
    assert results(story, promotion=asks) == []
    assert "retrain-1: waits for 1 more approval" in waits_of(story.state, run_of(story, promotion=asks))
    promotes(story, "retrain-1")
    assert results(story) == []
    rates(story, "retrain-1", 1, 1, 1, 1, better=True)
    assert results(story) == [BeginRetraining("retrain-2", "retrain-1", 1.0, 4)]


def test_a_canary_that_is_no_better_is_discarded_and_older_ratings_count_no_more(story: Story) -> None:
    rates(story, "wide", 1, 1, 1, 1, better=True)
    tried(story)
    rates(story, "retrain-1", *[2, 3, 2, 2] * 3)
    rates(story, "wide", *[2, 2, 1, 3] * 3)
    found = feedback.concluded(story.state, run_of(story), "retrain-1", random.Random(0))
    assert found.result == "discard" and "by chance or no better" in found.why
    story.say("coordinator", found)
    assert results(story) == [], "what was promoted before stays, and only new ratings have another one trained"
    rates(story, "wide", 1, 1, 1, 1)
    assert results(story) == [BeginRetraining("retrain-2", "wide", 1.0, 4)]


@pytest.mark.parametrize(
    ("ends", "why"),
    [
        (ev.Object(ref="retrain-1", why="it is rude"), "eve objects: it is rude"),
        (ev.Fail(ref="retrain-1", why="gone"), "gone"),
        (ev.Promote(ref="retrain-1", path="promoted", sha256=SHA, why="by hand"), "it was promoted meanwhile"),
    ],
)
def test_an_objection_or_a_failure_or_a_promotion_by_hand_ends_a_canary(story: Story, ends: ev.Event, why: str) -> None:
    tried(story)
    story.say("eve", ends)
    [discarded] = results(story)
    assert isinstance(discarded, DiscardProposal) and discarded.why.startswith(why)


def test_a_stream_with_a_warning_is_not_tried(story: Story) -> None:
    story.say("coordinator", ev.Retrain(ref="retrain-1", like="wide", mean=2.0, ratings=4))
    story.say("coordinator", ev.Add(ref="retrain-1", like="wide"))
    story.scored("retrain-1", 3.0, result="WARNING")
    assert results(story) == [DiscardProposal("retrain-1", "the verdict is WARNING: no reason given")]


def test_the_run_goes_on_for_ratings_until_none_has_come_for_a_while(story: Story) -> None:
    idle = worker("trainer-1", "train")
    assert decide(story.state, [idle], story.now, run_of(story)) == [Dismiss("trainer-1")], "memory is for others"
    story.pass_time(3000)
    rates(story, "wide", 5)
    story.pass_time(3000)
    assert decide(story.state, [], story.now, run_of(story)) == []
    story.pass_time(3000)
    assert decide(story.state, [], story.now, run_of(story)) == [Finish(0)]


def test_the_test_of_two_groups_of_ratings_takes_chance_for_more_as_seldom_as_its_level_says() -> None:
    ratings, draws, level, found = random.Random(7), random.Random(8), 0.05, 0
    for _ in range(60):
        first, second = (ratings.choices([1, 2, 3, 4, 5], [1, 1, 2, 4, 6], k=count) for count in (20, 60))
        found += chance.difference(chance.unpaired(first, second), level, draws).p < level
    assert found <= 8, f"{found} of 60 differences of chance were taken for more at the level {level}"
