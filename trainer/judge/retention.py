"""What a base could do before and can do after: loss on unrelated text, drift on held-out prompts, and a short list of skills.

The texts and skills are in `retention.toon` beside this file; their share of any training data is small by their number.  Each figure
is one more measurement of adapter and base, so it is made only where the setting `metrics` names it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from peft import PeftModel
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from swarm.settings import StreamSettings
from toon import decode
from trainer.data.rows import Pair, Text
from trainer.data.tokens import Tokeniser, Tokens, tokeniser_of
from trainer.judge.answers import Question, answers, questions
from trainer.judge.heldout import RowLoss, mean_loss, row_losses
from trainer.judge.scorers.equality import normalised

LIST = Path(__file__).with_name("retention.toon")
SKILL_TOKENS = 32
PROMPTS = 32
"""Held-out prompts on which the drift is measured."""


@dataclass(frozen=True)
class Kept:
    """What one model came to."""

    losses: list[RowLoss]
    right: list[bool]
    """By skill."""


@dataclass(frozen=True)
class Retention:
    texts: list[Tokens]
    skills: list[Question]
    stops: list[int]
    tokenizer: PreTrainedTokenizerBase
    check: Callable[[], None]

    @classmethod
    def of(
        cls,
        settings: StreamSettings,
        tokenizer: PreTrainedTokenizerBase,
        stops: Sequence[int],
        check: Callable[[], None],
    ) -> Retention:
        listed = decode(LIST.read_text(encoding="utf-8"))
        tokeniser = tokeniser_of(settings, tokenizer, frozenset(stops))
        texts = [tokeniser.tokens(Text(text)) for text in listed["texts"]]
        asked = [_asked(tokeniser, skill) for skill in listed["skills"]]
        return cls(texts, questions(asked, tokenizer, stops, len(asked)), list(stops), tokenizer, check)

    def kept_by(self, model: PreTrainedModel) -> Kept:
        found = answers(model, self.tokenizer, self.skills, self.stops, SKILL_TOKENS, self.check)
        right = [
            normalised(answer.text) == normalised(skill.expected)
            for answer, skill in zip(found, self.skills, strict=True)
        ]
        return Kept(row_losses(model, self.texts, self.check), right)

    def figures(self, tuned: PreTrainedModel, base: Kept, asked: Sequence[Question]) -> dict[str, float]:
        """Of the adapter and, where it has one, of the base."""
        after = self.kept_by(tuned)
        return {
            "retention_loss": round(mean_loss(after.losses), 6),
            "base_retention_loss": round(mean_loss(base.losses), 6),
            "skills": _share(after.right),
            "base_skills": _share(base.right),
            "skills_lost": sum(before and not now for before, now in zip(base.right, after.right, strict=True)),
            "skills_gained": sum(now and not before for before, now in zip(base.right, after.right, strict=True)),
            **({"kl_to_base": drift(tuned, asked[:PROMPTS], self.check)} if asked else {}),
        }


def _asked(tokeniser: Tokeniser, skill: dict[str, Any]) -> Tokens:
    return tokeniser.tokens(Pair(str(skill["prompt"]), str(skill["answer"])))


def _share(right: Sequence[bool]) -> float:
    return round(sum(right) / len(right), 4) if right else 0.0


@torch.no_grad()
def drift(tuned: PreTrainedModel, asked: Sequence[Question], check: Callable[[], None]) -> float:
    """KL(base || adapter) in nats, the mean over the positions of prompts: how differently it reads what nobody answered yet.

    Both models are one object, so that the logits of one prompt at a time are held and no more.
    """
    model, total, positions = cast("PeftModel", tuned), 0.0, 0
    for question in asked:
        check()
        ids = torch.tensor([question.prompt_ids], device=tuned.device)  # (1, T)
        own = torch.log_softmax(tuned(input_ids=ids, use_cache=False).logits[0].float(), dim=-1)  # (T, V)
        with model.disable_adapter():
            base = torch.log_softmax(tuned(input_ids=ids, use_cache=False).logits[0].float(), dim=-1)  # (T, V)
        total += float((base.exp() * (base - own)).sum())
        positions += ids.shape[1]
    return round(max(0.0, total / positions), 6)
