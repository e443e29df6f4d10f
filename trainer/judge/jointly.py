"""The answers of several candidates and of their bare base, generated in one batch: each token of all of them takes one forward pass.

Greedy answers alone: what is drawn depends on who is beside it.  A token is the one that is chosen alone but where two are as likely as
rounding can tell (`swarm certify`: 2e-5 in fp32, 5e-5 in NF4), since products of other sizes add up in another order.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import TYPE_CHECKING

from peft import PeftConfig
from transformers import PreTrainedModel

from swarm import kinds
from swarm.events import Post
from trainer.data.bad import reason_of
from trainer.device import free_memory
from trainer.errors import LeaseRevoked, LeaseStopped
from trainer.judge.answers import GREEDY, Answer
from trainer.judge.measured import base_answers, base_as_held, has_base_answers
from trainer.judge.session import why_apart
from trainer.judge.together import Together
from trainer.lease import Lease
from trainer.loop.fusable import unfusable

if TYPE_CHECKING:
    from trainer.judge.candidate import Candidate

AT_ONCE = 8
"""Adapters in one batch: its rows keep keys and values of all their tokens."""


def answer(candidates: Sequence[Candidate]) -> None:
    """Gives those their answers who can be asked together; who cannot goes alone, and the log says why.

    `candidates`: each is all of its stream.
    """
    able: dict[Hashable, list[Candidate]] = {}
    for candidate in (one for one in candidates if one.examination.asked):
        if why := _why_alone(candidate):
            _note([candidate], why, are_alone=len(candidates) == 1)
        else:
            able.setdefault(_questions_of(candidate), []).append(candidate)
    for group in able.values():
        for at in range(0, len(group), AT_ONCE):
            _answer(group[at : at + AT_ONCE])


def _why_alone(candidate: Candidate) -> str | None:
    settings = candidate.settings
    if settings.exact:
        return "exact: true"
    if settings.temperature:
        return "answers are drawn (temperature)"
    if "answer_tokens_per_second" in settings.metrics:
        return "their speed is measured"
    if not kinds.method(settings.method).words:
        return f"method: {settings.method}"
    try:
        return why_apart(PeftConfig.from_pretrained(str(candidate.copy)))
    except Exception as error:  # of a type that PEFT does not know, or broken: it is loaded alone, and blamed then
        return reason_of(error)


def _questions_of(candidate: Candidate) -> Hashable:
    """What is equal of those who are asked the same on the same base."""
    piece, examination = candidate.piece, candidate.examination
    held = base_as_held(piece.settings, candidate.session.place)
    return piece.prepared_sha256, examination.about, piece.settings.method, *held


def _answer(candidates: Sequence[Candidate]) -> None:
    first = candidates[0]
    examination, piece, place = first.examination, first.piece, first.session.place
    with_base = not has_base_answers(examination.about, piece, place)
    if len(candidates) + with_base < 2:
        return  # nobody is beside it
    try:
        with first.session.bare(first.settings) as model:
            why = unfusable(model)
            found = [] if why else _answered(model, candidates, with_base=with_base)
    except (LeaseRevoked, LeaseStopped):
        return  # each ends when its turn comes
    except Exception as error:  # memory, for example: whose fault it is shows when each goes alone
        _note(candidates, reason_of(error), are_alone=len(candidates) == 1)
        free_memory()
        return
    if why:
        _note(candidates, why, are_alone=len(candidates) == 1)
        return
    if with_base:
        base_answers(examination.about, piece, place, lambda: found[0])
    for candidate, answers in zip(candidates, found[with_base:], strict=True):
        candidate.answers = answers


def _answered(model: PreTrainedModel, candidates: Sequence[Candidate], *, with_base: bool) -> list[list[Answer]]:
    examination, settings = candidates[0].examination, candidates[0].settings
    together = Together(model, [candidate.copy for candidate in candidates])
    found = together.answers(
        examination.asked, examination.tokenizer, examination.stops, settings.eval_max_new_tokens,
        lambda: _check([candidate.lease for candidate in candidates]), GREEDY, with_base=with_base,
    )  # fmt: skip
    together.close()
    return found


def _check(leases: Sequence[Lease]) -> None:
    """A token more for all of them.  Raises once none of the leases goes on; one that is over ends when its turn comes."""
    for lease in leases:
        lease.step = (lease.step or 0) + 1
    if all(lease.revoked or lease.stopped for lease in leases):
        leases[0].check()


def _note(candidates: Sequence[Candidate], why: str, *, are_alone: bool) -> None:
    for one in () if are_alone else candidates:
        one.lease.report(Post(ref=one.piece.ref, body=f"its answers are generated alone: {why}"))
