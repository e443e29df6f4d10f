"""The domain: config, plan, events, state, decisions, log, agents, command line."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from swarm.agents.agent import Agent

__all__ = ["Agent"]


def __getattr__(name: str) -> Any:
    """`from swarm import Agent` loads that room when it is used; importing `swarm` loads nothing."""
    if name != "Agent":
        raise AttributeError(f"module 'swarm' has no attribute {name!r}")
    from swarm.agents.agent import Agent

    return Agent
