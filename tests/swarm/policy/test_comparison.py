"""Before a promotion the arms are compared row by row: a tie is called one, the base is an arm, replicas are judged by their spread."""

from __future__ import annotations

import random

import pytest

from swarm import events as ev
from swarm.policy.admission import admit
from swarm.policy.commands import Compare, Finish, PromoteWinner
from swarm.policy.comparison import RowScores, compared
from swarm.policy.promotion import choose, to_compare, waiting
from swarm.policy.schedule import decide
from swarm.settings import Dataset, RunSettings
from swarm.standing import Stream
from swarm.state import State
from tests.swarm.story import SHA, Story, settings

ROWS = 60


def story_of(losses: dict[str, float], base: float = 2.0, trainable: dict[str, int] | None = None) -> Story:
    story = Story(*losses)
    for name, loss in losses.items():
        story.scored(name, loss, base, trainable=(trainable or {}).get(name, 100), scores_sha256=SHA)
    return story


def rows_of(mean: float, noise: float, seed: int, base: float = 2.0) -> RowScores:
    generator = random.Random(seed)
    gaps = [generator.gauss(0, noise) for _ in range(ROWS)]
    centre = sum(gaps) / ROWS
    return RowScores([mean + gap - centre for gap in gaps], [base] * ROWS, [1.0] * ROWS)


def compare(state: State, chosen: RunSettings, noise: float = 0.05, base: float = 2.0) -> ev.Compared:
    streams, key = to_compare(state, chosen.promotion)
    scores = {s.name: rows_of(s.figures["eval_loss"], noise, at, base) for at, s in enumerate(streams)}
    return compared(streams, chosen, scores, random.Random(0), key)


def test_what_is_better_on_the_rows_wins_with_its_interval_and_the_seeds_that_nobody_knows() -> None:
    story, chosen = story_of({"wide": 0.40, "narrow": 0.50}), settings("wide", "narrow")
    [command] = decide(story.state, [], story.now, chosen)
    assert isinstance(command, Compare)
    assert command.streams == ("wide", "narrow")
    story.say("coordinator", compare(story.state, chosen))
    [promotion] = decide(story.state, [], story.now, chosen)
    assert isinstance(promotion, PromoteWinner)
    assert promotion.choice.winner == "wide"
    assert promotion.choice.why.startswith("lowest eval_loss 0.4; next narrow 0.5, difference 0.1, 99% interval 0.0")
    assert promotion.choice.why.endswith("base 2; the spread over seeds is not known")
    body = story.state.compared.body  # type: ignore[union-attr]
    assert "- wide - narrow: 0.1 (0.0" in body
    assert "- wide - base: 1.6 (" in body


def test_a_tie_is_called_one_and_the_cheaper_is_taken() -> None:
    story = story_of({"wide": 0.40, "narrow": 0.405, "poor": 1.5}, trainable={"wide": 900, "narrow": 100, "poor": 10})
    found = compare(story.state, settings(*story.state.streams))
    assert (found.best, found.chosen, found.tied) == ("wide", "narrow", "narrow")
    assert found.why.startswith("a tie by eval_loss: wide 0.4, narrow 0.405 cannot be told apart")
    assert "narrow is the cheapest (100 parameters)" in found.why
    assert "winner" not in found.why
    best = compare(story.state, settings(*story.state.streams, tie_break="best"))
    assert best.chosen == "wide"
    assert "a tie by eval_loss" in best.why


def test_nobody_is_asked_to_approve_a_winner_that_the_comparison_may_change() -> None:
    story = story_of({"wide": 0.40, "narrow": 0.405}, trainable={"wide": 900, "narrow": 100})
    chosen = settings(*story.state.streams, approvers=["ada"])
    assert waiting(story.state, chosen.promotion) == ""
    story.say("coordinator", compare(story.state, chosen))
    assert waiting(story.state, chosen.promotion) == "narrow: waits for ada: `swarm approve narrow`"


def test_the_bare_base_is_an_arm_and_what_cannot_be_distinguished_from_it_is_not_promoted() -> None:
    story = story_of({"wide": 1.99}, base=2.0)
    chosen = settings("wide")
    story.say("coordinator", compare(story.state, chosen, noise=0.5))
    [end] = decide(story.state, [], story.now, chosen)
    assert isinstance(end, Finish)
    assert end.why.startswith("wide is not better than the bare base by more than chance")
    assert choose(story.state, settings("wide", must_beat="nothing").promotion).winner == "wide"


def test_of_a_tie_the_cheapest_that_beats_the_base_is_taken() -> None:
    """The cheapest of all was taken, could not be told apart from the base, and nothing was promoted."""
    story = story_of({"wide": 1.90, "narrow": 1.96}, trainable={"wide": 900, "narrow": 100})
    found = compare(story.state, settings(*story.state.streams), noise=0.16)
    assert (found.tied, found.arm, found.beats_base) == ("narrow", "wide", True)
    assert "wide is the cheapest (900 parameters) that beats the base" in found.why
    assert "- wide - base: 0.1 (" in found.body
    unbeaten = compare(story.state, settings(*story.state.streams, must_beat="nothing"), noise=0.16)
    assert (unbeaten.arm, unbeaten.beats_base) == ("narrow", False)


def test_a_tie_of_very_many_is_an_entry_of_bounded_size() -> None:
    names = [f"a-stream-with-a-name-as-long-as-names-may-be-{number:03d}" for number in range(120)]
    scores = {name: RowScores([1.0, 1.1, 0.9], [2.0] * 3, [1.0] * 3) for name in names}
    done = ev.Trained(ref="x/train", tok=1, step=1, path="x", sha256=SHA, trainable=1)
    streams = [
        Stream(name, trained=done, score=ev.Score(ref="x/evaluate", tok=1, sha256=SHA, rows_sha256=SHA, rows=3, figures={"eval_loss": 1.0}))
        for name in names
    ]  # fmt: skip
    found = compared(streams, settings(*names), scores, random.Random(0), SHA)
    admit(State(), "coordinator", found, 0.0)
    assert "and 112 more cannot be told apart" in found.why


def replicas(**promotion: object) -> RunSettings:
    made = settings("a.s1", "a.s2", "a.s3", "b.s1", "b.s2", "b.s3", **promotion)
    streams = {name: one.model_copy(update={"replica_of": name[0]}) for name, one in made.streams.items()}
    return made.model_copy(update={"streams": streams})


def test_means_over_seeds_are_compared_by_the_spread_over_seeds() -> None:
    near = story_of({"a.s1": 0.40, "a.s2": 0.44, "a.s3": 0.36, "b.s1": 0.45, "b.s2": 0.42, "b.s3": 0.39})
    found = compare(near.state, replicas(), noise=0.001)
    assert (found.best, found.tied) == ("a", "b")  # each row tells them apart, the seeds do not
    assert "spread over seeds 0.03" in found.body
    far = story_of({"a.s1": 0.40, "a.s2": 0.44, "a.s3": 0.36, "b.s1": 0.95, "b.s2": 0.92, "b.s3": 0.89})
    found = compare(far.state, replicas(), noise=0.001)
    assert (found.arm, found.chosen, found.tied) == ("a", "a.s3", None)


def test_a_difference_below_the_stated_multiple_of_a_given_spread_counts_as_chance() -> None:
    story = story_of({"wide": 0.40, "narrow": 0.50})
    assert compare(story.state, settings("wide", "narrow", seed_spread=0.02), noise=0.01).tied is None
    found = compare(story.state, settings("wide", "narrow", seed_spread=0.03), noise=0.01)
    assert found.tied == "narrow"
    assert "given spread over seeds 0.03: a difference below 3.6 times it counts as chance" in found.body


def test_steps_that_were_chosen_on_the_rows_that_judge_are_named() -> None:
    story, plain = story_of({"wide": 0.40}), settings("wide")
    words = "steps were chosen and streams judged on the same rows"
    assert words not in compare(story.state, plain).why

    def with_changes(**changes: object) -> RunSettings:
        one = plain.streams["wide"].model_copy(update=changes)
        return plain.model_copy(update={"streams": {"wide": one}})

    assert compare(story.state, with_changes(eval_steps=2)).why.endswith(words)
    assert words not in compare(story.state, with_changes(eval_steps=2, save="last")).why
    sealed = [Dataset(path="sealed.jsonl")]
    assert words not in compare(story.state, with_changes(eval_steps=2, sealed_datasets=sealed)).why
    assert words not in compare(story.state, with_changes(eval_steps=2, val_datasets=sealed)).why


def test_new_scores_are_compared_anew_and_scores_without_rows_are_not() -> None:
    story = story_of({"wide": 0.40})
    chosen = settings("wide")
    story.say("coordinator", compare(story.state, chosen))
    assert to_compare(story.state, chosen.promotion) == ([], "")
    assert to_compare(story.state, settings("wide", test_level=0.05).promotion)[1]
    without = Story("wide")
    without.scored("wide", 0.4)
    assert to_compare(without.state, chosen.promotion) == ([], "")
    assert choose(without.state, chosen.promotion).why.endswith("chance was not judged: no scores row by row")


def test_nobody_but_the_coordinator_says_what_a_comparison_came_to() -> None:
    from swarm.policy.admission import permit
    from swarm.state import Refusal

    story = story_of({"wide": 0.40})
    for role in ("admin", "agent", "worker"):
        with pytest.raises(Refusal, match="only the coordinator may"):
            permit(role, compare(story.state, settings("wide")))
