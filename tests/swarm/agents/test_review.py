"""Rounds of judgement between named agents."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable

import pytest

from swarm import Agent
from swarm import events as ev
from swarm.agents.review import review
from swarm.errors import UserError
from swarm.log import Entry
from swarm.rundir import RunFolder
from tests.swarm.places import entries, state


def answering(folder: RunFolder, name: str, answer: Callable[[Agent, Entry, int], object]) -> threading.Thread:
    """An agent that answers every round in a thread; the third argument counts the rounds."""

    def work() -> None:
        with Agent(name, folder.path) as agent:
            since, number = 0, 0
            while True:
                wanted = lambda e: isinstance(e.event, ev.Post) and e.author == "chair"  # noqa: E731
                entry = agent.find(wanted, since, 20)
                if entry is None or "@" not in entry.event.body:
                    return
                since, number = entry.seq, number + 1
                answer(agent, entry, number)

    thread = threading.Thread(target=work)
    thread.start()
    return thread


def agree(agent: Agent, entry: Entry, number: int) -> None:
    agent.approve("a", of=entry.seq, text="fine")


def doubt_once(agent: Agent, entry: Entry, number: int) -> None:
    if number == 1:
        agent.post("the unit is missing", "a", of=entry.seq)
    else:
        agent.approve("a", of=entry.seq)


def object_(agent: Agent, entry: Entry, number: int) -> None:
    agent.object("a", "rows 3 and 4 are equal", of=entry.seq)


def test_agents_that_doubt_are_asked_again_until_they_agree(folder: RunFolder) -> None:
    threads = [answering(folder, "ada", agree), answering(folder, "bob", doubt_once)]
    with Agent("chair", folder.path) as chair:
        outcome = review(chair, "a", ["ada", "bob"], "may we publish?", answer_seconds=20)
    for thread in threads:
        thread.join()
    assert (outcome.result, outcome.rounds, outcome.left_open) == ("agreed", 2, [])
    rounds = [entry.event.body for entry in entries(folder) if entry.author == "chair"]
    assert "round 2 of 3" in rounds[1] and "the unit is missing" in rounds[1]
    assert rounds[2] == "review of a: agreed after 2 rounds"
    assert state(folder).approvers("a") == [], "agreeing with an entry approves no promotion"


def test_an_objection_ends_the_review_and_the_outcome_says_what_was_left_open(folder: RunFolder) -> None:
    threads = [answering(folder, "ada", agree), answering(folder, "bob", object_)]
    with Agent("chair", folder.path) as chair:
        outcome = review(chair, "a", ["ada", "bob"], "may we publish?", answer_seconds=20)
    for thread in threads:
        thread.join()
    assert outcome.result == "objected"
    assert entries(folder)[-1].event.body == "review of a: objected after 1 round\n- open: bob: rows 3 and 4 are equal"


def test_a_reviewer_who_does_not_answer_keeps_a_review_open_and_the_limit_ends_it(folder: RunFolder) -> None:
    with Agent("chair", folder.path) as chair:
        outcome = review(chair, "a", ["ada"], "may we publish?", rounds=2, answer_seconds=0.2, idem="r1")
        assert (outcome.result, outcome.rounds, outcome.left_open) == ("open", 2, ["ada: no answer"])
        known = len(entries(folder))
        again = review(chair, "a", ["ada"], "may we publish?", rounds=2, answer_seconds=0.2, idem="r1")
    assert again.seq == outcome.seq and len(entries(folder)) == known, "the same key: it is the same review"


def test_a_round_is_an_open_question_to_each_and_an_opinion_that_would_not_count_is_refused(folder: RunFolder) -> None:
    seen: list[str] = []

    def answers_in_two_ways(agent: Agent, entry: Entry, number: int) -> None:
        [question] = agent.inbox().questions
        seen.append(f"{question.entry.seq} {'-'.join(state(folder).questions[entry.seq].to)}")
        with pytest.raises(UserError, match=rf"a: chair asks you about it in entry {entry.seq}, and this would be no"):
            agent.approve("a", text="fine")
        agent.approve("a", of=entry.seq, text="fine")
        seen.append("-".join(state(folder).questions[entry.seq].to))

    thread = answering(folder, "bob", answers_in_two_ways)
    with Agent("chair", folder.path) as chair:
        outcome = review(chair, "a", ["ada", "bob"], "may we publish?", rounds=1, answer_seconds=3)
    thread.join()
    assert (seen, outcome.left_open) == (["2 ada-bob", "ada"], ["ada: no answer"])
    assert state(folder).questions == {}, "the outcome closes it for who was silent"


def test_a_review_between_nobody_is_refused(folder: RunFolder) -> None:
    with Agent("chair", folder.path) as chair, pytest.raises(UserError, match="no names of agents"):
        review(chair, "a", ["ada", "ada"], "?")


@pytest.mark.parametrize("words", [{"rounds": 0}, {"rounds": -1}, {"answer_seconds": math.nan}, {"answer_seconds": -1}])
def test_a_review_without_a_round_or_an_end_asks_nobody(folder: RunFolder, words: dict[str, float]) -> None:
    with Agent("chair", folder.path) as chair, pytest.raises(UserError, match=r"--rounds: |--answer-seconds: "):
        review(chair, "a", ["ada"], "?", **words)  # type: ignore[arg-type]
    assert len(entries(folder)) == 1
