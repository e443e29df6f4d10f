"""An adapter as PEFT holds it inside its own model, for streams whose model nobody shares."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import chain
from typing import cast

import torch
from peft import LoraConfig, PeftModel, get_peft_model_state_dict, set_peft_model_state_dict
from torch import Tensor, nn

from trainer.loop.adapter import Adapter

DROPOUT = "lora_dropout"


class Tuned(Adapter):
    def __init__(self, model: PeftModel) -> None:
        super().__init__(cast("LoraConfig", model.peft_config["default"]), {})
        self.model = model.eval()
        self.beside = nn.ModuleDict()
        """What is trained with it and has files of its own."""
        self._dropouts = [module for name, module in model.named_modules() if name.rpartition(".")[2] == DROPOUT]

    def to_train(self) -> None:
        """The frozen model stays in evaluation mode, as on the shared engine: dropout is the adapter's alone."""
        for module in self._dropouts:
            module.train()

    def named_parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        both = chain(self.model.named_parameters(), self.beside.named_parameters())
        return ((name, value) for name, value in both if value.requires_grad)

    def parameters(self) -> list[nn.Parameter]:
        return [value for _, value in self.named_parameters()]

    def state_dict(self) -> dict[str, Tensor]:
        state = get_peft_model_state_dict(self.model, save_embedding_layers=False)
        return {name: value.detach().to("cpu", copy=True).contiguous() for name, value in state.items()}

    @torch.no_grad()
    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        mine = self.state_dict()
        assert mine.keys() == state.keys(), sorted(mine.keys() ^ state.keys())
        set_peft_model_state_dict(self.model, dict(state))
