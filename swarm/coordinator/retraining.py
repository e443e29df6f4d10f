"""Carries out the feedback loop: has a stream trained anew from rated answers, gives it some of the requests, and judges it by its ratings."""

from __future__ import annotations

import asyncio
import random
from typing import Any

from swarm import answers
from swarm import events as ev
from swarm.access.adding import addition
from swarm.coordinator.record import NAME, Record
from swarm.coordinator.suggesting import Joins
from swarm.errors import UserError, UserErrors
from swarm.policy import feedback
from swarm.policy.commands import BeginCanary, BeginRetraining, JoinRetrained, JudgeCanary
from swarm.rundir import RunFolder
from swarm.state import Refusal

SEED = 0
"""Of the draws of a comparison: the same ratings are always judged the same way."""


class Retraining:
    """One per coordinator."""

    def __init__(self, record: Record, folder: RunFolder, add: Joins) -> None:
        self._record, self._folder, self._add = record, folder, add
        self._joining: set[asyncio.Task[None]] = set()

    def prepare(self) -> None:
        """The folder for answers, and what servers read of the canary, as the log has it.  Raises OSError."""
        if self._record.settings.feedback:
            answers.prepare(self._folder)
            self._write_canary()

    async def begin(self, wanted: BeginRetraining) -> None:
        event = ev.Retrain(ref=wanted.name, like=wanted.like, mean=wanted.mean, ratings=wanted.ratings)
        await self._record.say(event)

    def join(self, wanted: JoinRetrained) -> None:
        """Beside the loop: bases, data and memory are looked at."""
        if not self._joining:
            task = asyncio.create_task(self._join(wanted.name))
            self._joining.add(task)
            task.add_done_callback(self._joining.discard)

    async def _join(self, name: str) -> None:
        """A stream that cannot join is discarded with the reason."""
        like = self._record.state.retrained[name].event.like
        why = f"with the rated answers of {like}"
        try:
            changes = {"datasets": await asyncio.to_thread(self._datasets, name, like)}
            made = await asyncio.to_thread(
                addition, self._folder, self._record.state, name, like, changes, why=why, cwd=self._folder.path
            )
            assert isinstance(made, ev.Add)
            await self._add(made, NAME, None)
        except (Refusal, UserError, UserErrors, OSError) as error:
            if not self._record.state.end and name not in self._record.state.streams:
                await self._record.keep(NAME, ev.Conclude(ref=name, result="discard", why=str(error)))

    def _datasets(self, name: str, like: str) -> list[dict[str, Any]]:
        """Those of the stream that it is like, with all answers so far in the place of those of a retraining before."""
        state, settings = self._record.state, self._record.settings
        assert settings.feedback
        rows = answers.write_rows(self._folder, name, feedback.rows_of(state, settings.feedback))
        own = [one.model_dump(mode="json", exclude_defaults=True) for one in settings.streams[like].datasets]
        before = str(self._folder.path / answers.FOLDER)
        return [*(one for one in own if not str(one["path"]).startswith(before)), {"path": str(rows), "type": "chatml"}]

    async def begin_canary(self, wanted: BeginCanary) -> None:
        await self._record.say(ev.Canary(ref=wanted.name, share=wanted.share))
        self._write_canary()

    async def judge(self, wanted: JudgeCanary) -> None:
        state, settings = self._record.state, self._record.settings
        event = await asyncio.to_thread(feedback.concluded, state, settings, wanted.name, random.Random(SEED))
        await self._record.say(event)
        self._write_canary()

    def concluded(self) -> None:
        """After an end without a comparison."""
        if self._record.settings.feedback:
            self._write_canary()

    def _write_canary(self) -> None:
        open_ = (one for one in self._record.state.retrained.values() if one.canary and not one.conclusion)
        one = next(open_, None)
        found = one and one.canary and {"stream": one.event.ref, "share": one.canary.share, "seed": one.canary_seq}
        answers.write_canary(self._folder, found or None)
