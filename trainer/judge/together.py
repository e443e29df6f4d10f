"""Several adapters and their bare base in one batch: each question stands in it once for each of them, on one base in memory.

The layers are the shared loop's, with one block of rows for each adapter.  Adapters that change more than linear layers cannot be had
this way.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import torch
from peft import LoraConfig, PeftConfig
from safetensors.torch import load_file
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from swarm.weights import ADAPTER
from trainer.data.tokens import Tokens
from trainer.inspection import positions_of
from trainer.judge.answers import Answer, Question, Sampling, answer_of, batches_of, generated
from trainer.judge.heldout import RowLoss, row_losses
from trainer.loop.adapter import Adapter, Layers
from trainer.loop.plan import Pass, Plan, Row


class Together:
    """The base with these adapters beside it.  Raises UserError for one that the shared layers do not have."""

    def __init__(self, model: PreTrainedModel, folders: Sequence[Path]) -> None:
        self.model = model
        self.plan = Plan()
        self.layers = Layers(model, self.plan)
        adapters = [self._adapter(folder) for folder in folders]
        order = sorted(range(len(adapters)), key=lambda at: adapters[at].is_dora)  # the layers want DoRA last
        self.slots = [1 + order.index(at) for at in range(len(adapters))]
        """Of each adapter; the bare base has slot 0."""
        bare = Adapter(LoraConfig(), {})
        self.layers.stack([bare, *(adapters[at] for at in order)])

    def _adapter(self, folder: Path) -> Adapter:
        config = cast("LoraConfig", PeftConfig.from_pretrained(str(folder)))
        config.lora_dropout = 0.0
        adapter = self.layers.adapter(config, 0)
        adapter.load_state_dict(load_file(folder / ADAPTER))
        return adapter

    def close(self) -> None:
        """The base as it was."""
        self.layers.remove()

    @contextmanager
    def _running(self, slots: Sequence[int], rows_each: int) -> Iterator[None]:
        """Rows of the batch in blocks, one for each of these slots; a batch may be called with tokens of any length."""
        nothing = torch.empty(0, dtype=torch.long, device=self.layers.device)
        current = Pass(
            rows=[Row(slot, (), ()) for slot in slots for _ in range(rows_each)], ids=nothing, blocks=list(slots),
            slots=torch.tensor(slots, device=self.layers.device), positions=nothing, targets=nothing, weights=nothing, owners=nothing,
        )  # fmt: skip

        def note(_: torch.nn.Module, arguments: tuple[Any, ...]) -> None:
            self.plan.current = replace(current, ids=arguments[0])

        hook = self.model.get_input_embeddings().register_forward_pre_hook(note)
        try:
            with self.plan.running(current):
                yield
        finally:
            hook.remove()

    def losses(self, slot: int, rows: Sequence[Tokens], check: Callable[[], None]) -> list[RowLoss]:
        """Of one of them on held-out rows."""
        with self._running([slot], 1):
            return row_losses(self.model, rows, check)

    def answers(
        self,
        asked: Sequence[Question],
        tokenizer: PreTrainedTokenizerBase,
        stops: Sequence[int],
        max_new_tokens: int,
        check: Callable[[], None],
        how: Sampling,
    ) -> list[list[Answer]]:
        """Of the base, then of each adapter: one answer a question, in their order."""
        slots = sorted([0, *self.slots])
        found: dict[tuple[int, int], Answer] = {}
        for batch in batches_of(asked, positions_of(self.model)):
            prompts = [asked[at].prompt_ids for _ in slots for at in batch]
            began = time.perf_counter()
            with self._running(slots, len(batch)):
                made = generated(self.model, prompts, stops, max_new_tokens, how, check)
            each = (time.perf_counter() - began) / max(1, sum(len(one.ids) + one.ended for one in made))
            places = [(slot, at) for slot in slots for at in batch]
            found |= {place: answer_of(one, tokenizer, each) for place, one in zip(places, made, strict=True)}
        return [[found[slot, at] for at in range(len(asked))] for slot in (0, *self.slots)]
