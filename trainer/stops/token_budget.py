"""A budget of tokens, pads left out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from swarm.keys import Positive, Settings
from swarm.kinds import Refusal, Stateless, Stop


class TokenBudgetSettings(Settings):
    max_tokens: Positive | None = None
    """Tokens to train on, pads left out: the step that reaches them is the last."""


@dataclass
class Budget(Stateless):
    tokens: int

    def __call__(self, step: int, figures: Mapping[str, float]) -> str | None:
        return "max_tokens" if figures["tokens"] >= self.tokens else None


class TokenBudget(Stop[TokenBudgetSettings]):
    name = "token budget"
    summary = "tokens trained on"
    settings = TokenBudgetSettings

    def armed(self, settings: TokenBudgetSettings) -> bool:
        return settings.max_tokens is not None

    def unreachable(self, settings: Any, steps: int | None) -> Refusal | None:
        if steps is None:
            return None
        passes = settings.gradient_accumulation_steps
        tokens = settings.batch_size_tokens or settings.micro_batch_size * settings.sequence_len
        most = steps * passes * tokens
        if settings.max_tokens < most:
            return None
        what = (
            f"{steps} steps x {passes * tokens} tokens are {most} at most, which is no more than {settings.max_tokens}"
        )
        return Refusal("max_tokens", what, f"write less than {most}, or leave it out")

    def seconds_left(self, settings: TokenBudgetSettings, figures: Mapping[str, float]) -> float | None:
        if settings.max_tokens is None or not (pace := figures.get("tokens_per_second")) or "tokens" not in figures:
            return None
        return max(0.0, (settings.max_tokens - figures["tokens"]) / pace)

    def begin(self, settings: TokenBudgetSettings) -> Budget:
        assert settings.max_tokens is not None
        return Budget(settings.max_tokens)


KINDS = (TokenBudget(),)
