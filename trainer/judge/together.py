"""Several adapters and their bare base in one batch: each question stands in it once for each of them, on one base in memory.

The layers are the shared loop's, with one block of rows for each adapter.  Adapters that change more than linear layers cannot be had
this way.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, cast

import torch
from peft import LoraConfig, PeftConfig
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from trainer.adapter_file import tensors_of
from trainer.data.tokens import Tokens
from trainer.inspection import positions_of
from trainer.judge.answers import Answer, Question, Sampling, batches_of, timed
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
        adapter.load_state_dict(tensors_of(folder))
        return adapter

    def close(self) -> None:
        """The base as it was."""
        self.layers.remove()

    @contextmanager
    def _running(self, slots: Sequence[int]) -> Iterator[None]:
        """Rows of these slots, sorted by them; a batch may be called with tokens of any length, by several threads: each notes its own."""
        current = Pass.of([Row(slot, (), ()) for slot in slots], self.layers.device)

        def note(_: torch.nn.Module, arguments: tuple[Any, ...]) -> None:
            self.plan.current = replace(current, ids=arguments[0])

        hook = self.model.get_input_embeddings().register_forward_pre_hook(note)
        try:
            with self.plan.running(current):
                yield
        finally:
            hook.remove()

    def _serving(self, slots: Sequence[int], rows: list[int]) -> AbstractContextManager[None]:
        return self._running([slots[row] for row in rows])

    def losses(self, slot: int, rows: Sequence[Tokens], check: Callable[[], None]) -> list[RowLoss]:
        """Of one of them on held-out rows."""
        with self._running([slot]):
            return row_losses(self.model, rows, check)

    def answers(
        self,
        asked: Sequence[Question],
        tokenizer: PreTrainedTokenizerBase,
        stops: Sequence[int],
        max_new_tokens: int,
        check: Callable[[], None],
        how: Sampling,
        *,
        with_base: bool = True,
    ) -> list[list[Answer]]:
        """Of the base, if it is to answer too, then of each adapter: one answer a question, in their order."""
        slots = [*[0][:with_base], *self.slots]
        found: dict[tuple[int, int], Answer] = {}
        for batch in batches_of(asked, positions_of(self.model)):
            places = [(slot, at) for slot in sorted(slots) for at in batch]
            prompts = [asked[at].prompt_ids for _, at in places]
            serving = partial(self._serving, [slot for slot, _ in places])
            made = timed(self.model, tokenizer, prompts, stops, max_new_tokens, check, how, serving)
            found |= zip(places, made, strict=True)
        return [[found[slot, at] for at in range(len(asked))] for slot in slots]
