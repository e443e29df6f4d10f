"""Requests to the models of one process: answered one at a time in the order in which they came, refused where too many wait."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TypeVar

from trainer.ship.answering import Answer, OnText

Result = TypeVar("Result")
Ask = Callable[[OnText, Callable[[], bool]], Answer]
"""Makes one answer; it is given where pieces of text go, and what says whether the client has gone."""


@dataclass(eq=False)
class Job:
    """What one client waits for: pieces of text, then the answer, or what went wrong."""

    ask: Ask
    left: threading.Event = field(default_factory=threading.Event)
    """Set when the client has gone: it is not begun, or ends at the next token."""
    pieces: asyncio.Queue[str | Answer | BaseException] = field(default_factory=asyncio.Queue)

    async def parts(self) -> AsyncIterator[str | Answer]:
        """Pieces of the text, and last the whole answer.  Raises what the model raised."""
        while True:
            part = await self.pieces.get()
            if isinstance(part, BaseException):
                raise part
            yield part
            if isinstance(part, Answer):
                return

    async def answer(self) -> Answer:
        async for part in self.parts():
            if isinstance(part, Answer):
                return part
        raise AssertionError("a job ends with an answer")


class Full(Exception):
    """Too many requests wait."""


class Waiting:
    """One thread makes the answers: torch uses all cores for each, and an adapter is switched on for all of the model."""

    def __init__(self, most: int) -> None:
        self.most, self._closed = most, False
        self._jobs: set[Job] = set()
        """Those that are waited for, with the one that is being answered."""
        self._thread = ThreadPoolExecutor(1, "answers")

    def refuse_beyond(self, more: int) -> None:
        """Raises Full where so many more have no room."""
        if len(self._jobs) + more > self.most or self._closed:
            raise Full

    def add(self, ask: Ask) -> Job:
        loop, job = asyncio.get_running_loop(), Job(ask)
        self._thread.submit(self._run, job, loop)
        self._jobs.add(job)
        return job

    async def result_of(self, work: Callable[[], Result]) -> Result:
        """Of other work for the same thread.  Raises Full."""
        self.refuse_beyond(1)
        token = Job(lambda *_: Answer("", 0, 0, 0.0, "left"))
        self._jobs.add(token)
        try:
            return await asyncio.get_running_loop().run_in_executor(self._thread, work)
        finally:
            self._jobs.discard(token)

    def _run(self, job: Job, loop: asyncio.AbstractEventLoop) -> None:
        def put(part: str | Answer | BaseException) -> None:
            loop.call_soon_threadsafe(job.pieces.put_nowait, part)

        try:
            gone = job.left.is_set()
            put(Answer("", 0, 0, 0.0, "left") if gone else job.ask(put, job.left.is_set))
        except BaseException as error:
            put(error)
        finally:
            loop.call_soon_threadsafe(self._jobs.discard, job)

    def end(self) -> None:
        """Answers that are being made end at their next token, others are not begun; may be called in a signal handler."""
        self._closed = True
        for job in list(self._jobs):
            job.left.set()

    def close(self) -> None:
        self.end()
        self._thread.shutdown(wait=True)
