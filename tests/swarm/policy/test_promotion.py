"""The gate before a promotion: whose word it waits for, and what a person may override."""

from __future__ import annotations

import pytest

from swarm import events as ev
from swarm.artifacts.lineage import lineage
from swarm.policy.commands import Dismiss, PromoteWinner
from swarm.policy.promotion import admit_promotion, choose, waiting, waits_for
from swarm.policy.schedule import decide
from swarm.settings import Promotion
from swarm.state import Refusal, State
from swarm.views.streamrows import stream_rows, waits_of
from tests.swarm.story import SHA, Story, settings


def gate(**promotion: object) -> Promotion:
    return Promotion.model_validate(promotion)


@pytest.fixture
def scored() -> Story:
    story = Story("wide", "narrow")
    story.scored("wide", 0.4)
    story.scored("narrow", 0.5)
    return story


def promotes(state: State, now: float, **promotion: object) -> bool:
    commands = decide(state, [], now, settings("wide", "narrow", **promotion))
    assert all(isinstance(command, PromoteWinner | Dismiss) for command in commands)
    return bool(commands)


def test_any_two_different_authors_make_two_approvals(scored: Story) -> None:
    assert waiting(scored.state, gate(approvals=2)) == "wide: waits for 2 more approvals: `swarm approve wide`"
    scored.say("ada", ev.Approve(ref="wide"))
    scored.say("ada", ev.Approve(ref="wide"))
    assert waiting(scored.state, gate(approvals=2)) == "wide: waits for 1 more approval: `swarm approve wide`"
    assert not promotes(scored.state, scored.now, approvals=2)
    scored.say("bob", ev.Approve(ref="run"))
    assert promotes(scored.state, scored.now, approvals=2)


def test_named_approvers_are_waited_for_by_name_and_nobody_else_counts(scored: Story) -> None:
    named = gate(approvers=["ada", "bob"])
    scored.say("eve", ev.Approve(ref="wide"))
    assert "waits for ada, bob" in waits_for(scored.state, named, "wide")
    scored.say("bob", ev.Approve(ref="wide"))
    assert "waits for ada:" in waits_for(scored.state, named, "wide")
    assert waits_for(scored.state, gate(approvers=["ada", "bob"], approvals=1), "wide") == ""
    scored.say("ada", ev.Approve(ref="wide"))
    assert waits_for(scored.state, named, "wide") == ""


def test_an_approval_of_another_stream_or_of_an_entry_is_none_of_the_winner(scored: Story) -> None:
    scored.say("ada", ev.Approve(ref="narrow"))
    scored.say("bob", ev.Approve(ref="wide", of=3))
    assert not promotes(scored.state, scored.now, approvals=1)


def test_an_approval_is_of_the_weights_that_were_there() -> None:
    story = Story("wide")
    story.validated("wide")
    with pytest.raises(Refusal, match="nothing to approve"):
        story.say("ada", ev.Approve(ref="wide"))
    train = story.state.streams["wide"].trained
    assert train is not None
    adapter = ev.Adapter(ref="wide", tok=train.tok, path="streams/wide/adapter", sha256=SHA)
    story.say("coordinator", adapter)
    story.say("ada", ev.Approve(ref="wide"))
    assert story.state.approvers("wide") == ["ada"]
    story.say("coordinator", adapter)
    assert story.state.approvers("wide") == []


def test_an_objection_blocks_with_its_reason_until_its_author_agrees(scored: Story) -> None:
    scored.say("ada", ev.Object(ref="wide/evaluate", why="row 3 is in the training data"))
    assert not promotes(scored.state, scored.now)
    assert waiting(scored.state, gate()).startswith("wide: ada objects: row 3 is in the training data")
    scored.say("bob", ev.Approve(ref="wide"))
    assert not promotes(scored.state, scored.now)
    scored.say("ada", ev.Approve(ref="wide"))
    assert promotes(scored.state, scored.now)


def test_an_objection_to_a_stream_that_does_not_win_blocks_nothing_and_one_to_the_run_blocks_all(scored: Story) -> None:
    scored.say("ada", ev.Object(ref="narrow", why="too small"))
    assert promotes(scored.state, scored.now)
    scored.say("ada", ev.Object(ref="run", why="wait for Monday"))
    assert not promotes(scored.state, scored.now)
    scored.say("ada", ev.Approve(ref="run"))
    assert promotes(scored.state, scored.now)


def test_a_warning_is_not_promoted_by_itself_but_by_a_person() -> None:
    story = Story("wide")
    story.scored("wide", 0.5, result="WARNING")
    choice = choose(story.state, gate())
    assert choice.winner is None
    assert "`swarm promote wide --force`" in choice.why
    assert choose(story.state, gate(approvals=1)).winner == "wide"
    story.say("ada", ev.Approve(ref="run"))
    assert "the verdict is WARNING" in waits_for(story.state, gate(approvals=1), "wide")
    story.say("ada", ev.Approve(ref="wide"))
    assert "the verdict is WARNING" in waits_for(story.state, gate(approvals=1), "wide"), "an agent is no person"
    story.say("owner", ev.Approve(ref="wide", person=True))
    assert waits_for(story.state, gate(approvals=1), "wide") == ""
    assert choose(story.state, gate()).winner == "wide"
    published = story.state.streams["wide"].adapter
    assert published
    story.say("coordinator", published)
    assert "the verdict is WARNING" in waits_for(story.state, gate(), "wide"), "these are other weights"


def test_force_overrides_people_with_a_reason_and_never_the_weights(scored: Story) -> None:
    scored.say("ada", ev.Object(ref="wide", why="no"))

    def promote(force: bool | None, why: str) -> ev.Promote:
        return ev.Promote(ref="wide", path="promoted", sha256=SHA, why=why, force=force)

    with pytest.raises(Refusal, match=r"ada objects: no .*--force"):
        admit_promotion(scored.state, gate(), promote(None, "mine"))
    with pytest.raises(Refusal, match="needs a reason"):
        admit_promotion(scored.state, gate(), promote(True, " "))
    admit_promotion(scored.state, gate(approvals=3), promote(True, "the demo is at noon"))
    for other in ({"sha256": "b" * 64}, {"tok": 999}):
        event = promote(True, "mine").model_copy(update=other)
        with pytest.raises(Refusal, match="look at that before you promote it"):
            scored.say("ada", event)


def test_scores_that_are_no_numbers_win_nothing() -> None:
    story = Story("wide", "narrow")
    story.scored("wide", 0.5)
    story.scored("narrow", 0.6)
    state = story.state
    wide = state.streams["wide"]
    assert wide.score is not None
    wide.score = wide.score.model_copy(
        update={"figures": {"eval_loss": float("nan"), "base_eval_loss": 2.0}}
    )  # as an older log might have it
    assert choose(state, gate()).winner == "narrow"


def test_an_approval_of_the_run_counts_for_the_weights_that_stood_when_it_was_given() -> None:
    story = Story("wide")
    story.say("ada", ev.Approve(ref="run"))
    story.scored("wide", 0.5)
    assert "waits for 1 more approval" in waits_for(story.state, gate(approvals=1), "wide")
    story.say("ada", ev.Approve(ref="run"))
    assert waits_for(story.state, gate(approvals=1), "wide") == ""


def test_an_objection_to_an_entry_about_nothing_blocks_no_promotion(scored: Story) -> None:
    scored.say("ada", ev.Object(ref="-", why="a typo", of=2))
    assert waits_for(scored.state, gate(), "wide") == ""
    scored.say("ada", ev.Object(ref="wide", why="a wrong score", of=2))
    assert "ada objects: a wrong score" in waits_for(scored.state, gate(), "wide")


def test_lineage_keeps_who_had_agreed_when_it_was_promoted(scored: Story) -> None:
    scored.say("ada", ev.Approve(ref="wide"))
    scored.say("coordinator", ev.Promote(ref="wide", path="promoted", sha256=SHA, why="best"))
    scored.say("late-bob", ev.Approve(ref="wide"))
    scored.say("ada", ev.Object(ref="wide", why="on second thought"))
    told = lineage("run", scored.state, "wide", settings("wide").streams["wide"])
    assert (told["approved"], told["objections"]) == (["ada"], [])


def test_what_authors_wrote_reaches_no_screen_as_it_is(scored: Story) -> None:
    scored.say("ada", ev.Object(ref="wide", why="no\x1b]0;title\x07\x1b[31m\u202e"))
    run = settings("wide", "narrow")
    [row] = [row for row in stream_rows(scored.state, run, {}, (), scored.now) if row.why]
    assert "ada objects: no" in row.why and row.why.isprintable()
    assert waits_of(scored.state, run).isprintable()
    scored.say("coordinator", ev.Fail(ref="narrow", why="\x1b[2J"))
    assert all(row.why.isprintable() for row in stream_rows(scored.state, run, {}, (), scored.now))
