"""TRL's trainers of preferences for one stream: they are given tokenised rows, and the stream's own optimizer and schedule."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from datasets import Dataset
from trl.experimental.orpo import ORPOConfig, ORPOTrainer
from trl.trainer.dpo_config import DPOConfig
from trl.trainer.dpo_trainer import DPOTrainer
from trl.trainer.kto_config import KTOConfig
from trl.trainer.kto_trainer import KTOTrainer

from trainer.data.tokens import IGNORED
from trainer.engines.trl import Ingredients, OfOneStream, arguments, made, optimizer_of

REFERENCE = "ref"
"""TRL's name of a frozen copy of the adapter."""


class Dpo(OfOneStream, DPOTrainer):
    def _prepare_dataset(self, dataset: Dataset, *args: Any, **kwargs: Any) -> Dataset:
        return dataset.map(_pair, remove_columns=dataset.column_names)


class Kto(OfOneStream, KTOTrainer):
    def _prepare_dataset(self, dataset: Dataset, *args: Any, **kwargs: Any) -> Dataset:
        """Each answer for itself, in the order of the seed, since what a pass is compared with are its own neighbours' answers."""
        settings, pairs = self.settings, dataset.map(_pair, remove_columns=dataset.column_names)
        order = torch.randperm(2 * len(pairs), generator=torch.Generator().manual_seed(settings.seed)).tolist()
        single = pairs.map(_single, batched=True, remove_columns=pairs.column_names).select(order)
        return single.map(_with_neighbours, batched=True, batch_size=settings.micro_batch_size)


class Orpo(OfOneStream, ORPOTrainer):
    def tokenize_row(self, feature: dict[str, Any], model: Any = None) -> dict[str, Any]:
        return feature  # as `orpo` has made it


def dpo(ingredients: Ingredients) -> OfOneStream:
    settings: Any = ingredients.settings
    config = DPOConfig(
        **arguments(ingredients), max_length=None, disable_dropout=False, beta=settings.dpo_beta,
        loss_type=[settings.dpo_loss],
    )  # fmt: skip
    return _made(ingredients, Dpo, config)


def kto(ingredients: Ingredients) -> OfOneStream:
    settings: Any = ingredients.settings
    config = KTOConfig(
        **arguments(ingredients), max_length=None, disable_dropout=False, beta=settings.kto_beta,
        desirable_weight=settings.desirable_weight, undesirable_weight=settings.undesirable_weight,
        train_sampling_strategy="sequential",
    )  # fmt: skip
    return _made(ingredients, type("Kto", (Kto,), {"settings": settings}), config)


def orpo(ingredients: Ingredients) -> OfOneStream:
    settings: Any = ingredients.settings
    given = {**arguments(ingredients), "remove_unused_columns": False}
    del given[
        "router_aux_loss_coef"
    ]  # this trainer takes it from the model, and only where that gives its router's logits
    config = ORPOConfig(**given, max_length=settings.sequence_len, disable_dropout=False, beta=settings.orpo_alpha)
    rows = ingredients.rows.map(_behind_the_prompt, remove_columns=ingredients.rows.column_names)
    return _made(replace(ingredients, rows=rows), Orpo, config)


def _made(ingredients: Ingredients, kind: Any, config: Any) -> OfOneStream:
    """A trainer whose reference is the base: TRL's copy of the new adapter adds nothing to it, and would be saved with each checkpoint."""

    def make() -> OfOneStream:
        trainer: OfOneStream = kind(
            model=ingredients.model,
            args=config,
            train_dataset=ingredients.rows,
            processing_class=ingredients.tokenizer,
            callbacks=list(ingredients.callbacks),
            optimizers=(optimizer_of(ingredients), None),
        )
        if REFERENCE in ingredients.model.peft_config:
            ingredients.model.delete_adapter(REFERENCE)
        return trainer

    return made(ingredients, make)


def _pair(row: dict[str, Any]) -> dict[str, Any]:
    ids, start = row["input_ids"], row["answer_start"]
    return {"prompt_ids": ids[:start], "chosen_ids": ids[start:], "rejected_ids": row["rejected"]}


def _behind_the_prompt(row: dict[str, Any]) -> dict[str, Any]:
    """Each answer with its prompt, which has no labels."""
    pair = _pair(row)
    made = _masked("prompt", pair["prompt_ids"])
    for answer in ("chosen", "rejected"):
        labels = [IGNORED] * len(pair["prompt_ids"]) + list(pair[f"{answer}_ids"])
        made |= {**_masked(answer, [*pair["prompt_ids"], *pair[f"{answer}_ids"]]), f"{answer}_labels": labels}
    return made


def _masked(name: str, ids: list[int]) -> dict[str, list[int]]:
    return {f"{name}_input_ids": list(ids), f"{name}_attention_mask": [1] * len(ids)}


def _single(pairs: dict[str, list[Any]]) -> dict[str, list[Any]]:
    rows = [
        (prompt, answer, label)
        for prompt, chosen, rejected in zip(
            pairs["prompt_ids"], pairs["chosen_ids"], pairs["rejected_ids"], strict=True
        )
        for answer, label in ((chosen, True), (rejected, False))
    ]
    prompts, answers, labels = zip(*rows, strict=True)
    return {"prompt_ids": list(prompts), "completion_ids": list(answers), "label": list(labels)}


def _with_neighbours(rows: dict[str, list[Any]]) -> dict[str, list[Any]]:
    """The answers of one forward pass, each at the next one's prompt."""
    answers = rows["completion_ids"]
    return {"KL_completion_ids": [answers[-1], *answers[:-1]]}
