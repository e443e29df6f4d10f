"""The research loop (issue 21; G01, G26): phases, room, objections, duplicates, what is kept; told entry by entry."""

from __future__ import annotations

import random
from typing import Any

import pytest
import yaml

from swarm import events as ev
from swarm.artifacts import kept
from swarm.policy import research
from swarm.policy.commands import DiscardProposal, JoinProposal, JudgeProposal, OpenTask, SendOrder, StopStream
from swarm.policy.comparison import RowScores
from swarm.policy.ledger import concluded
from swarm.policy.schedule import decide
from swarm.settings import Range, RunSettings, StreamSettings
from swarm.settings.research import Phase, Research
from swarm.settings.search import Budget
from swarm.state import Refusal
from swarm.views import ledger
from swarm.views.streamrows import waits_of
from tests.swarm.story import SHA, Story, worker

DATA = [[{"path": "/few.jsonl"}], [{"path": "/many.jsonl"}]]
GOAL = Research(
    start="start",
    phases={
        "data": Phase(space={"datasets": DATA}),
        "rates": Phase(space={"learning_rate": Range(low=1e-4, high=1e-2), "seed": [0, 1]}),
    },
    proposals=4,
)


def stream(**changes: object) -> StreamSettings:
    fields = {"base_model": "x", "datasets": [{"path": "/few.jsonl"}], "max_steps": 10, **changes}
    return StreamSettings.model_validate(fields)


def run_of(story: Story, goal: Research = GOAL, **more: object) -> RunSettings:
    joined = {name: stream(learning_rate=1e-3) for name in story.state.proposals if name in story.state.streams}
    settings = RunSettings(name="demo", streams={"start": stream(), **joined}, research=goal)
    return settings.model_copy(update=more)


def proposes(story: Story, name: str, by: str = "ada", phase: str = "data") -> None:
    story.say(by, ev.Propose(ref=name, like="start", changes="learning_rate=1e-3", why="because", refute="no lower loss", phase=phase))  # fmt: skip


def joins(story: Story, name: str) -> None:
    story.say("coordinator", ev.Add(ref=name, like="start", changes="learning_rate=1e-3"))


@pytest.fixture
def story() -> Story:
    story = Story("start")
    story.scored("start", 1.0, scores_sha256=SHA)
    story.say("coordinator", ev.Task(ref="research/data"))
    return story


def test_a_phase_opens_when_the_one_before_is_done_and_all_its_proposals_have_an_answer() -> None:
    story = Story("start")
    [opens] = research.results(story.state, run_of(story), story.now)
    assert isinstance(opens, OpenTask) and opens.ref == "research/data"
    story.say("coordinator", ev.Task(ref="research/data"))
    assert research.results(story.state, run_of(story), story.now) == []
    proposes(story, "one")
    story.say("ada", ev.Done(ref="research/data", tok=story.claim("research/data", "ada")))
    assert research.results(story.state, run_of(story), story.now) == [], "one proposal has no answer"
    story.say("coordinator", ev.Conclude(ref="one", result="discard", why="no better"))
    [opens] = research.results(story.state, run_of(story), story.now)
    assert isinstance(opens, OpenTask) and opens.ref == "research/rates"
    story.say("coordinator", ev.Task(ref="research/rates"))
    story.say("bob", ev.Done(ref="research/rates", tok=story.claim("research/rates", "bob")))
    assert not research.is_open(story.state, run_of(story), story.now)


def test_who_leads_a_phase_and_dies_loses_it_and_another_one_leads(story: Story) -> None:
    token = story.claim("research/data", "ada", ttl=5)
    story.say("coordinator", ev.Expire(ref="research/data", tok=token, why="the lease ran out"))
    again = story.claim("research/data", "bob")
    with pytest.raises(Refusal, match="stale"):
        story.say("ada", ev.Done(ref="research/data", tok=token))
    story.say("bob", ev.Done(ref="research/data", tok=again))
    assert research.phase_of(story.state, GOAL) == "rates"


def test_a_proposal_joins_when_there_is_room_and_the_oldest_first(story: Story) -> None:
    for name in ("one", "two", "three"):
        proposes(story, name)
    run = run_of(story)
    assert research.joins(story.state, run, story.now) == [JoinProposal("one")]
    joins(story, "one")
    joins(story, "two")
    assert research.joins(story.state, run_of(story), story.now) == [], "two at once"
    story.say("coordinator", ev.Stop(ref="one", why="halving"))
    [result] = research.results(story.state, run_of(story), story.now)
    assert result == DiscardProposal("one", "it was stopped before its end")
    assert research.joins(story.state, run_of(story), story.now) == [JoinProposal("three")]


def test_what_is_objected_to_is_parked_and_gets_its_answer_when_the_phase_is_done(story: Story) -> None:
    proposes(story, "wild")
    story.say("bob", ev.Object(ref="wild", why="it diverges"))
    assert research.joins(story.state, run_of(story), story.now) == []
    assert research.results(story.state, run_of(story), story.now) == []
    story.say("bob", ev.Approve(ref="wild"))
    assert research.joins(story.state, run_of(story), story.now) == [JoinProposal("wild")]
    story.say("bob", ev.Object(ref="wild", why="it does diverge"))
    story.say("ada", ev.Done(ref="research/data", tok=story.claim("research/data", "ada")))
    assert research.results(story.state, run_of(story), story.now) == [
        DiscardProposal("wild", "bob objects: it does diverge")
    ]


def test_a_veto_while_a_trial_trains_discards_it_once_it_is_scored_unless_it_is_taken_back(story: Story) -> None:
    proposes(story, "one")
    joins(story, "one")
    story.say("bob", ev.Object(ref="one", why="the rows are not ours to use"))
    assert ledger.rows(story.state, run_of(story))[1]["state"] == "trains, objected by bob"
    story.scored("one", 0.1, scores_sha256=SHA)
    run = run_of(story)
    assert research.results(story.state, run, story.now) == [
        DiscardProposal("one", "bob objects: the rows are not ours to use")
    ]
    story.say("bob", ev.Approve(ref="one"))
    assert research.results(story.state, run, story.now) == [JudgeProposal("one", "start", False)]


def test_approvals_are_of_others(story: Story) -> None:
    proposes(story, "one")
    run = run_of(story, GOAL.model_copy(update={"approvals": 1}))
    with pytest.raises(Refusal, match="one: ada proposed it, and the approvals of others count"):
        story.say("ada", ev.Approve(ref="one"))
    assert research.joins(story.state, run, story.now) == []
    assert waits_of(story.state, run).startswith("proposal one waits for an approval; `swarm ledger`, then `swarm app")
    story.say("bob", ev.Approve(ref="one"))
    assert waits_of(story.state, run) == ""
    assert research.joins(story.state, run, story.now) == [JoinProposal("one")]


def test_who_takes_back_an_objection_to_a_proposal_of_its_own_has_not_approved_it(story: Story) -> None:
    proposes(story, "one")
    story.say("ada", ev.Object(ref="one", why="I misread the curve"))
    story.say("ada", ev.Approve(ref="one"))
    assert research.joins(story.state, run_of(story, GOAL.model_copy(update={"approvals": 1})), story.now) == []
    assert research.joins(story.state, run_of(story), story.now) == [JoinProposal("one")]


def test_as_many_proposals_as_the_goal_allows_are_taken_whatever_became_of_them(story: Story) -> None:
    """The level of each test is divided by that number."""
    for number in range(4):
        proposes(story, f"p{number}")
        story.say("coordinator", ev.Conclude(ref=f"p{number}", result="discard", why="no better"))
    with pytest.raises(Refusal, match="4 proposals were made, as many as the goal allows"):
        research.admit_proposal(
            story.state, run_of(story), "new", "start", stream(datasets=[{"path": "/many.jsonl"}]), {}
        )
    assert not research.is_open(story.state, run_of(story), story.now)


def test_without_a_result_of_the_start_nothing_that_waits_can_be_judged(story: Story) -> None:
    story = Story("start")
    story.say("coordinator", ev.Task(ref="research/data"))
    proposes(story, "one")
    story.say("coordinator", ev.Fail(ref="start", why="loss is NaN"))
    [result] = research.results(story.state, run_of(story), story.now)
    assert result == DiscardProposal("one", "start, which is to be beaten, has no result")


def test_of_two_that_are_scored_one_is_judged_first_since_what_is_kept_is_what_the_other_has_to_beat(
    story: Story,
) -> None:
    for name in ("one", "two"):
        proposes(story, name)
        joins(story, name)
        story.scored(name, 0.5, scores_sha256=SHA)
    assert research.results(story.state, run_of(story), story.now) == [JudgeProposal("one", "start", False)]
    story.say("coordinator", ev.Conclude(ref="one", result="keep", why="not by chance"))
    [second] = research.results(story.state, run_of(story), story.now)
    assert isinstance(second, JudgeProposal) and (second.name, second.against) == ("two", "one")


def test_what_was_scored_on_other_rows_is_not_compared(story: Story) -> None:
    proposes(story, "one")
    joins(story, "one")
    story.scored("one", 0.1, rows="b" * 64, scores_sha256=SHA)
    [result] = research.results(story.state, run_of(story), story.now)
    assert result == DiscardProposal("one", "scored on other rows than start: name `test_datasets`")


def test_an_opinion_on_what_is_concluded_or_trains_already_is_refused_with_what_became_of_it(story: Story) -> None:
    proposes(story, "one")
    proposes(story, "two")
    story.say("coordinator", ev.Conclude(ref="one", result="discard", why="bob objects: it diverges"))
    for opinion in (ev.Approve(ref="one"), ev.Object(ref="one", why="no")):
        with pytest.raises(Refusal, match=r"one: is concluded \(bob objects: it diverges\); `swarm propose` makes"):
            story.say("bob", opinion)
    joins(story, "two")
    with pytest.raises(Refusal, match="two: has joined already, and has no validated adapter yet"):
        story.say("bob", ev.Approve(ref="two"))
    story.say("bob", ev.Object(ref="two", why="not to be promoted"))
    story.say("bob", ev.Approve(ref="two"))


def test_the_budget_holds_all_trials_together_and_what_it_does_not_hold_is_answered(story: Story) -> None:
    proposes(story, "one")
    run = run_of(story, budget=Budget(steps=15))
    assert research.joins(story.state, run, story.now) == []
    [result] = research.results(story.state, run, story.now)
    assert isinstance(result, DiscardProposal) and "the budget is 15 steps" in result.why


def test_a_wave_of_proposals_does_not_overrun_the_budget(story: Story) -> None:
    """The start has used 9 steps, and each trial needs 10."""
    for name in ("one", "two", "three", "four"):
        proposes(story, name)
    goal = GOAL.model_copy(update={"at_once": 4})
    while found := research.joins(story.state, run_of(story, goal, budget=Budget(steps=35)), story.now):
        joins(story, found[0].name)
    assert [one.ref for one in story.state.added] == ["one", "two"]


def test_a_research_without_a_leader_and_without_proposals_ends(story: Story) -> None:
    assert research.is_open(story.state, run_of(story), story.now)
    story.pass_time(61 * 60)
    assert not research.is_open(story.state, run_of(story), story.now)
    story.claim("research/data", "ada", ttl=600)
    assert research.is_open(story.state, run_of(story), story.now), "ada leads it"


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({}, "changes nothing"),
        ({"lora_r": 16}, "lora_r is outside of phase data; it may change datasets"),
        ({"datasets": [{"path": "/other.jsonl"}]}, "outside of the space of phase data"),
        ({"datasets": [{"path": "/many.jsonl", "limit": 9}]}, "outside of the space of phase data"),
        ({"datasets": [{"path": "/many.jsonl"}, {"path": "/many.jsonl"}]}, "outside of the space of phase data"),
        ({"datasets": [{"path": "/many.jsonl"}]}, "twin has the same settings"),
    ],
)
def test_what_is_outside_of_the_space_or_was_proposed_before_is_refused(
    story: Story, changes: dict[str, Any], why: str
) -> None:
    others = {"start": stream(), "twin": stream(datasets=[{"path": "/many.jsonl"}])}
    with pytest.raises(Refusal, match=why):
        research.admit_proposal(story.state, run_of(story), "new", "start", stream(**changes), others)
    del others["twin"]
    made = stream(datasets=[{"path": "/many.jsonl"}])
    assert research.admit_proposal(story.state, run_of(story), "new", "start", made, others) == "data"


def test_what_the_space_leaves_open_of_a_data_set_is_as_before_or_the_default(story: Story) -> None:
    run, before = run_of(story), {"path": "/few.jsonl", "type": "toon", "limit": 9}
    run = run.model_copy(update={"streams": {"start": stream(datasets=[before])}})
    for own in ({}, {"type": "toon"}, {"type": "toon", "limit": 9}):
        made = stream(datasets=[{"path": "/many.jsonl", **own}])
        assert research.admit_proposal(story.state, run, "new", "start", made, {}) == "data"
    for own in ({"limit": 8}, {"type": "text"}, {"prompt": "answer"}):
        with pytest.raises(Refusal, match=r"datasets=.* is outside of the space of phase data"):
            research.admit_proposal(
                story.state, run, "new", "start", stream(datasets=[{"path": "/many.jsonl", **own}]), {}
            )


def scores(shift: float, noise: float = 0.01) -> RowScores:
    draws = random.Random(1)
    return RowScores([1.0 + shift + noise * draws.gauss(0, 1) for _ in range(64)], [2.0] * 64, [1.0] * 64)


def judged(story: Story, shift: float, name: str = "one", *, is_replica: bool = False) -> ev.Conclude:
    wanted = JudgeProposal(name, "start", is_replica)
    rows = {"start": scores(0.0), name: scores(shift, 0.02)}
    return concluded(story.state, run_of(story), wanted, rows, random.Random(0))


def test_kept_is_what_is_better_by_more_than_chance_and_a_changed_seed_is_no_progress(story: Story) -> None:
    proposes(story, "one")
    joins(story, "one")
    story.scored("one", 0.5, scores_sha256=SHA)
    assert research.results(story.state, run_of(story), story.now) == [JudgeProposal("one", "start", False)]
    better, same, replica = judged(story, -0.5), judged(story, 0.0), judged(story, -0.5, is_replica=True)
    assert better.result == "keep" and better.better == pytest.approx(0.5, abs=0.05) and "not by chance" in better.why
    assert same.result == "discard"
    tried = judged(story, -0.004)
    assert tried.p and 0.01 / 4 < tried.p < 0.01 and tried.result == "discard", (
        "of four tries one at 1 % is no surprise"
    )
    assert replica.result == "replica" and "no progress" in replica.why
    assert research.differs_in_seed_alone(stream(seed=1), stream()) and not research.differs_in_seed_alone(
        stream(seed=1, lora_r=4), stream()
    )
    story.say("coordinator", better)
    assert research.remark(story.state, ev.Approve(ref="one")) == "the proposal one is concluded (keep): this is about its promotion alone"  # fmt: skip
    assert research.remark(story.state, ev.Approve(ref="start")) == ""
    assert story.state.kept == research.best_of(story.state, GOAL) == "one"


def test_a_replica_measures_the_spread_over_seeds_by_which_the_next_trials_are_judged(story: Story) -> None:
    for name in ("seed", "two"):
        proposes(story, name)
        joins(story, name)
        story.scored(name, 0.5, scores_sha256=SHA)
    assert judged(story, -0.5, "two").result == "keep"
    story.say("coordinator", judged(story, -0.5, "seed", is_replica=True))
    by_spread = judged(story, -0.5, "two")
    assert by_spread.result == "discard" and "by chance or worse" in by_spread.why, "a seed alone makes as much"


def test_the_ledger_and_the_kept_configuration_state_who_proposed_what_and_why(story: Story) -> None:
    proposes(story, "one")
    joins(story, "one")
    story.scored("one", 0.5, scores_sha256=SHA)
    story.say("coordinator", judged(story, -0.5))
    proposes(story, "two", by="bob")
    run = run_of(story)
    rows = ledger.rows(story.state, run)
    assert [(row["name"], row["state"], row["eval_loss"]) for row in rows] == [
        ("start", "start", 1.0), ("one", "keep", 0.5), ("two", "waits", None),
    ]  # fmt: skip
    text = ledger.text(story.state, run, rows)
    assert "phase: data; best so far: one" in text and "ada: because" in text and "refuted by: no lower loss" in text
    config = kept.text("demo-1", story.state, run)
    assert "# one (entry " in config and "# start: the start" in config and "learning_rate: 0.001" in config


@pytest.mark.parametrize("space", ["\n", "\r\n", "\x85", "\u2028", "\x1b[2J", "\0"])
def test_what_agents_write_stays_one_line_of_the_ledger_and_one_comment_of_the_kept_configuration(
    story: Story, space: str
) -> None:
    """An entry that an agent wrote without our commands may hold any text."""
    text = f"a{space}promotion: {{metric: loss}}"
    story.say(
        "ada", ev.Propose(ref="one", like="start", changes=f"lora_r=8{space}", why=text, refute=text, phase="data")
    )
    joins(story, "one")
    story.scored("one", 0.5, scores_sha256=SHA)
    story.say("coordinator", judged(story, -0.5))
    run = run_of(story)
    shown = ledger.text(story.state, run, ledger.rows(story.state, run)).splitlines()
    assert [line for line in shown if "promotion" in line] == [line for line in shown if line.startswith(("  ada: a", "  refuted by: a"))]  # fmt: skip
    written = yaml.safe_load(kept.text("demo-1", story.state, run))
    assert written.keys() == {"name", "promotion", "streams"} and written["promotion"] == {}


def test_the_frontier_is_what_costs_less_or_is_better() -> None:
    rows = [{"name": n, "state": "keep", "seconds": s, "eval_loss": v} for n, s, v in (("a", 1, 2.0), ("b", 2, 3.0), ("c", 3, 1.0))]  # fmt: skip
    promotion = RunSettings(name="demo", streams={}).promotion
    assert [row["name"] for row in ledger.frontier(rows, promotion)] == ["a", "c"]
    assert ledger.picture(rows, promotion).count("<circle") == 3


def test_a_trial_that_stalls_is_ended_and_discarded_and_a_stream_that_is_no_trial_is_left_alone(story: Story) -> None:
    proposes(story, "one")
    joins(story, "one")
    story.prepared("one")
    token = story.claim("one/train", "trainer-1")
    run = run_of(story)
    stuck, works = (worker("trainer-1", "train", no_progress_seconds=seconds) for seconds in (900.0, 899.0))
    assert not any(isinstance(command, StopStream) for command in decide(story.state, [works], story.now, run))
    assert decide(story.state, [stuck], story.now, run) == [StopStream("one", "no step for 15 min")]
    story.say("coordinator", ev.Stop(ref="one", why="no step for 15 min"))
    assert research.stalls(story.state, run, {"one": 901.0, "start": 901.0}) == [], "once"
    assert decide(story.state, [stuck], story.now, run) == [DiscardProposal("one", "it was stopped before its end")]
    story.say("coordinator", ev.Conclude(ref="one", result="discard", why="it was stopped before its end"))
    assert SendOrder("one/train", token, "trainer-1", "stop") in decide(story.state, [stuck], story.now, run)
