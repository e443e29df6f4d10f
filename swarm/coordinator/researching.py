"""Carries out the research loop: checks what is proposed, lets it join, and compares it with the best stream so far."""

from __future__ import annotations

import asyncio
import random
import shlex
from pathlib import Path

from swarm import events as ev
from swarm.artifacts import kept, scores
from swarm.config import added
from swarm.coordinator.record import NAME, Record
from swarm.coordinator.suggesting import Joins
from swarm.errors import UserError, UserErrors
from swarm.policy import research
from swarm.policy.commands import DiscardProposal, JoinProposal, JudgeProposal
from swarm.policy.ledger import concluded
from swarm.rundir import RunFolder
from swarm.settings import StreamSettings
from swarm.state import Refusal

SEED = 0
"""Of the draws of a comparison: the same scores are always judged the same way."""


class Researching:
    """One per coordinator."""

    def __init__(self, record: Record, folder: RunFolder, add: Joins) -> None:
        self._record, self._folder, self._add = record, folder, add
        self._joining: dict[str, asyncio.Task[None]] = {}
        self._waiting: dict[str, StreamSettings] = {}
        """Settings of recorded proposals, which do not change: to make them takes milliseconds, and hundreds may wait."""

    async def propose_for(self, event: ev.Propose, author: str, via: str | None) -> int:
        """Record a proposal.  Raises Refusal for one that may not be made."""
        self._record.admit(author, event)
        state, settings = self._record.state, self._record.settings
        others = {**settings.streams, **{one.event.ref: self._recorded(one.event) for one in research.waiting(state)}}
        made = self._made(event)
        phase = research.admit_proposal(state, settings, event.ref, event.like, made, others)
        return (await self._record.add([(author, event.model_copy(update={"phase": phase}))], via))[-1].seq

    def _recorded(self, event: ev.Propose) -> StreamSettings:
        if event.ref not in self._waiting:
            self._waiting[event.ref] = self._made(event)
        return self._waiting[event.ref]

    def _made(self, event: ev.Propose) -> StreamSettings:
        """Raises Refusal where the changes cannot be laid over the stream."""
        run, words = self._record.settings, shlex.split(event.changes)
        try:
            return added.checked(run, event.ref, event.like, words, Path("/"), files=False)
        except UserErrors as error:
            raise Refusal(str(error)) from error

    def join(self, wanted: JoinProposal) -> None:
        """Beside the loop: bases and memory are looked at."""
        if wanted.name not in self._joining:
            self._joining[wanted.name] = asyncio.create_task(self._join(wanted.name))

    async def _join(self, name: str) -> None:
        one = self._record.state.proposals[name]
        why = f"proposed by {one.by}: {one.event.why}"
        try:
            await self._add(ev.Add(ref=name, like=one.event.like, changes=one.event.changes, why=why), NAME, None)
        except (Refusal, UserError, UserErrors) as error:
            if not self._record.state.end and name not in self._record.state.streams:
                await self.discard(DiscardProposal(name, str(error)))
        finally:
            del self._joining[name]

    async def discard(self, wanted: DiscardProposal) -> None:
        await self._record.say(ev.Conclude(ref=wanted.name, result="discard", why=wanted.why))

    async def judge(self, wanted: JudgeProposal) -> None:
        """A stream whose scores cannot be read is discarded."""
        state, settings = self._record.state, self._record.settings
        names = (wanted.name, wanted.against)
        hashes = {name: score.scores_sha256 or "" for name in names if (score := state.streams[name].score)}
        try:
            rows = scores.of_streams(self._folder, hashes, settings.promotion.metric)
        except scores.ScoresError as error:
            await self.discard(DiscardProposal(wanted.name, f"comparison: {error.stream}: {error}"))
            return
        draws = random.Random(SEED)
        event = await asyncio.to_thread(concluded, state, settings, wanted, rows, draws)
        await self._record.say(event)
        if event.result == "keep":
            await asyncio.to_thread(kept.write, self._folder, self._record.state, self._record.settings)
