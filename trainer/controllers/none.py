"""The learning rate follows its schedule alone."""

from __future__ import annotations

from typing import ClassVar

from swarm.keys import NoSettings
from swarm.kinds import Controller


class NoController(Controller[NoSettings]):
    name = "none"
    summary = "the learning rate follows its schedule alone"
    settings = NoSettings
    engines: ClassVar[frozenset[str]] = frozenset({"shared", "trl", "pair"})

    def begin(self, settings: NoSettings) -> None:
        return None


KINDS = (NoController(),)
