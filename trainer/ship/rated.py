"""Answers that may be rated: who gives them in a run with `feedback:`, where they are kept, and how a rating gets into the log.

What is promoted and what is a canary is read from the run's folder; ratings are recorded by `swarm rate`, a process of its own.
"""

from __future__ import annotations

import asyncio
import json
import random
import subprocess
import sys
from collections.abc import Sequence
from functools import partial
from typing import Any

from swarm import answers
from swarm.errors import UserError
from swarm.printable import printable
from swarm.rundir import RunFolder, is_name
from swarm.spawning import module_command
from trainer.data.messages import Turn
from trainer.ship.models import Models
from trainer.ship.sources import Source, adapter_in, read_lineage
from trainer.ship.waiting import Full, Waiting

LOOK_SECONDS = 1.0
"""Between two looks at what is promoted."""
TIDY = 100
"""Answers after which the oldest ones are removed."""


class NotRated(Exception):
    """The rating was not recorded; the text says why."""


class Rated:
    """What a server does with the run of the first promoted adapter that it serves."""

    def __init__(self, folder: RunFolder, models: Models) -> None:
        self.folder, self.models = folder, models
        self._names = {stream: one.name for one in models.sources.adapters if (stream := stream_in(folder, one))}
        """Of the models by stream."""
        self._seen: tuple[str, dict[str, Any]] = "", {}
        self._canary: dict[str, Any] = {}
        self._draws = random.Random()
        self._told: set[str] = set()
        self._kept = 0
        self._recording = asyncio.Lock()
        self._take(*self._read())

    # ---- who answers -------------------------------------------------------------------------------------------------

    def chosen(self) -> str:
        """What is promoted, or its canary for the canary's share of the requests."""
        if self._canary and self._draws.random() < self._canary["share"]:
            return self._names[self._canary["stream"]]
        return self._names[self._seen[0]]

    async def follow(self, waiting: Waiting) -> None:
        """Take in what is promoted and what becomes a canary, until it is cancelled; adapters are loaded between two answers."""
        refused = None
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            try:
                found = self._read()
                if found not in (self._seen, refused):
                    refused = found
                    await waiting.result_of(partial(self._take, *found))
            except Full:
                refused = None  # at the next look
            except (UserError, OSError) as error:
                self._tell_once(str(error))

    def _read(self) -> tuple[str, dict[str, Any]]:
        """Raises UserError, OSError."""
        stream = read_lineage(self.folder.promoted).get("stream")
        if not isinstance(stream, str) or not is_name(stream):
            raise UserError(
                str(self.folder.promoted), "does not say which stream it is of", "put its lineage.json back"
            )
        return stream, answers.canary(self.folder)

    def _take(self, promoted: str, canary: dict[str, Any]) -> None:
        """Raises UserError for an adapter that cannot be loaded; then all is as it was."""
        for stream in filter(None, (promoted, canary.get("stream"))):
            if stream not in self._names:
                self.models.add(adapter_in(self.folder.stream(stream) / "adapter", stream))
                self._names[stream] = stream
        if canary != self._canary:
            self._canary, self._draws = canary, random.Random(canary.get("seed"))
        self._seen = promoted, canary

    def _tell_once(self, text: str) -> None:
        if text not in self._told:
            self._told.add(text)
            print(printable(text), file=sys.stderr, flush=True)

    # ---- answers and ratings -----------------------------------------------------------------------------------------

    def keep(self, answer: str, model: str, turns: Sequence[Turn], text: str) -> None:
        """An answer of a stream of the run is kept until it is rated; where it cannot be, that is told."""
        stream = next((stream for stream, name in self._names.items() if name == model), None)
        try:
            if stream:
                answers.keep(self.folder, answer, stream, turns, text)
                self._kept += 1
                if self._kept % TIDY == 0:
                    answers.forget_oldest(self.folder)
        except OSError as error:
            self._tell_once(f"answers cannot be kept and so not be rated: {error}")

    async def rate(self, row: dict[str, Any]) -> int:
        """The entry of the rating.  Raises NotRated."""
        async with self._recording:
            return await asyncio.to_thread(record, self.folder, row)


def record(folder: RunFolder, row: dict[str, Any]) -> int:
    """The entry of a rating.  Raises NotRated."""
    # on its standard input: texts of people are no words of a command line, which everybody on the machine can read
    command = module_command("swarm.cli", "rate", "-", f"--run={folder.path}", "--json")
    done = subprocess.run(command, input=json.dumps(row), capture_output=True, text=True, check=False)
    if done.returncode:
        raise NotRated(" ".join(done.stderr.split()))
    return int(json.loads(done.stdout)["seq"])


def run_of_promoted(sources: Sequence[Source]) -> RunFolder | None:
    """The run of the first adapter that is what a run with `feedback:` has promoted."""
    found = (answers.run_of(source.folder) for source in sources if source.folder.name == "promoted")
    return next(filter(None, found), None)


def stream_in(folder: RunFolder, source: Source) -> str | None:
    """The stream whose adapter it is; None for another run's."""
    found = answers.run_of(source.folder)
    return str(read_lineage(source.folder).get("stream")) if found and found.path == folder.path else None
