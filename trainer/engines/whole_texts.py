"""transformers' Trainer for objectives of whole rows: it is given them as they were prepared, and asks the objective for their loss."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from transformers import TrainingArguments

from trainer.data.tokens import Tokens
from trainer.engines.trl import Ingredients, OfOneStream, arguments, made, optimizer_of
from trainer.loop.layer import mixed

COLUMNS = frozenset({"input_ids", "labels", "answer_start", "demonstrated"})
MASK_SEED = 0x6D61
"""Keeps the numbers that choose masks apart from those of dropout."""


class OfWholeTexts(OfOneStream):
    objective: Any
    """With `loss(model, rows, keys)`: the sum over what counts, and `counted(rows, keys)`: of how many."""

    def get_batch_samples(self, epoch_iterator: Any, num_batches: int, device: torch.device) -> Any:
        """The micro-batches of a step; each row is given a number of its own, of seed, step and place alone."""
        samples, _ = super().get_batch_samples(epoch_iterator, num_batches, device)
        number = counted = 0
        for sample in samples:
            places = range(number, number + len(sample["rows"]))
            sample["keys"] = [mixed(MASK_SEED, self.settings.seed, self.state.global_step, place) for place in places]
            sample["rows"] = self.objective.to_learn(self.model, sample["rows"], sample["keys"])
            counted += self.objective.counted(sample["rows"], sample["keys"])
            number = places.stop
        return [{**sample, "of_step": counted} for sample in samples], None

    def compute_loss(self, model: nn.Module, inputs: dict[str, Any], *args: Any, **kwargs: Any) -> Tensor:
        rows, keys = inputs["rows"], inputs["keys"]
        self._supervised += self.objective.counted(rows, keys)
        self.trained_tokens += sum(len(row.ids) for row in rows)
        loss: Tensor = self.objective.loss(model, rows, keys) / max(1, inputs["of_step"])
        return loss

    def log(self, logs: dict[str, float], *args: Any, **kwargs: Any) -> None:
        named = {self.objective.figure: logs["loss"]} if self.objective.figure and "loss" in logs else {}
        super().log({**logs, **named}, *args, **kwargs)

    def floating_point_ops(self, inputs: dict[str, Any]) -> int:
        return 0  # Trainer's estimate looks for ids among what a batch holds


def trainer(ingredients: Ingredients, objective: Any) -> OfWholeTexts:
    given = {**arguments(ingredients), "remove_unused_columns": False}
    del given["router_aux_loss_coef"]
    kind = type("OfWholeTexts", (OfWholeTexts,), {"objective": objective})

    def make() -> OfWholeTexts:
        one: OfWholeTexts = kind(
            model=ingredients.model,
            args=TrainingArguments(**given),
            train_dataset=ingredients.rows.select_columns(sorted(COLUMNS.intersection(ingredients.rows.column_names))),
            data_collator=_rows,
            processing_class=ingredients.tokenizer,
            callbacks=list(ingredients.callbacks),
            optimizers=(optimizer_of(ingredients), None),
        )
        one.loss_is_scaled_for_ga = True  # it is divided by what the whole step counts
        return one

    return made(ingredients, make)


def _rows(chosen: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "rows": [
            Tokens(row["input_ids"], row["labels"], row["answer_start"], demonstrated=row.get("demonstrated") or ())
            for row in chosen
        ]
    }
