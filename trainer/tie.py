"""The tie of a pair (row D38): the encoder's vector of a prompt becomes vectors that stand before the decoder's own, by a trained projector.

The encoder reads the prompt as text, with its own tokenizer.  Only what is trained by it, or loaded with its projector, has the tie: the bare
base has none.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn.functional import normalize

from swarm import kinds
from swarm.errors import UserError
from swarm.weights import MODELS, PROJECTOR
from trainer import bases
from trainer.inspection import positions_of
from trainer.loading import load_adapter, load_base, load_tokenizer
from trainer.vectors import vectors

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from swarm.settings import StreamSettings
    from trainer.place import Place

DECODER, ENCODER = MODELS
UNBOUNDED_TOKENS = 1 << 13
"""Of a prompt, for an encoder whose positions nothing bounds."""


@dataclass
class Half:
    """A model of the pair with its adapter, and its tokenizer."""

    model: nn.Module
    tokenizer: PreTrainedTokenizerBase

    @classmethod
    def of_base(cls, model: nn.Module, settings: StreamSettings) -> Half:
        folder = bases.folder_of(settings.base_model)
        return cls(model, load_tokenizer(folder, trust_remote_code=settings.trust_remote_code))

    @property
    def width(self) -> int:
        return int(cast("Any", self.model).config.get_text_config().hidden_size)


class Tie:
    def __init__(self, encoder: Half, decoder: Half, tokens: int, *, trains_encoder: bool = False) -> None:
        """`tokens`: vectors before each prompt."""
        self.encoder, self.decoder, self.tokens, self.trains_encoder = encoder, decoder, tokens, trains_encoder
        device = next(decoder.model.parameters()).device
        self.projector = nn.Linear(encoder.width, tokens * decoder.width, device=device)
        self._longest = positions_of(cast("PreTrainedModel", encoder.model)) or UNBOUNDED_TOKENS

    def refuse_long(self, sequence_len: int) -> None:
        """Raises UserError where the decoder has no positions for rows of this length behind the tie."""
        positions = positions_of(cast("PreTrainedModel", self.decoder.model))
        if positions is not None and sequence_len + self.tokens > positions:
            what = f"{self.tokens} before {sequence_len} tokens of a row, and the decoder reads {positions}"
            raise UserError("tie_tokens", what, "lower it, or the decoder's sequence_len")

    def begin(self, seed: int) -> None:
        """With vectors as long as the decoder's own embeddings, in the mean."""
        table = cast("Any", self.decoder.model).get_input_embeddings().weight
        generator = torch.Generator().manual_seed(seed)
        first = torch.randn(self.projector.weight.shape, generator=generator) * float(table.float().std())
        with torch.no_grad():
            self.projector.weight.copy_(first)
            self.projector.bias.zero_()

    def __call__(self, prompts: Sequence[Sequence[int]]) -> Tensor:
        """(B, N, d) of prompts in the decoder's tokens."""
        texts = [str(self.decoder.tokenizer.decode(list(ids), skip_special_tokens=True)) for ids in prompts]
        ids = [self._read(text) for text in texts]
        self.encoder.model.eval()  # dropout is of its own rows alone
        with torch.set_grad_enabled(self.trains_encoder and torch.is_grad_enabled()):
            found = normalize(vectors(self.encoder.model, ids), dim=-1)  # (B, e)
        projected: Tensor = self.projector(found)
        return projected.view(len(ids), self.tokens, self.decoder.width)

    def _read(self, text: str) -> list[int]:
        """A longer text is cut: the decoder reads all of it."""
        made = self.encoder.tokenizer(text, truncation=True, max_length=self._longest, verbose=False)
        return list(made["input_ids"])

    def write(self, folder: Path) -> None:
        """Beside the decoder's adapter."""
        state = {name: value.detach().cpu().contiguous() for name, value in self.projector.state_dict().items()}
        save_file(state, folder / DECODER / PROJECTOR, metadata={"format": "pt"})

    def read(self, folder: Path) -> None:
        """Raises UserError where its file is not that of this tie."""
        path = folder / DECODER / PROJECTOR
        try:
            state = load_file(path)
            self.projector.load_state_dict(state)
        except Exception as error:
            what = f"is no projector of {self.tokens} vectors ({' '.join(str(error).split())[:120]})"
            raise UserError(str(path), what, "put it back as it was, or train again") from error
        if not all(bool(value.isfinite().all()) for value in state.values()):
            raise UserError(str(path), "holds values that are not finite", "put it back as it was, or train again")


def trained(decoder: nn.Module, folder: Path, settings: StreamSettings, place: Place) -> Tie | None:
    """Of a pair's stream that was trained into `folder`, for its decoder, which is loaded; None where its models are not tied.  Raises UserError."""
    if not (tokens := kinds.method(settings.method).tie_tokens(settings)):
        return None
    own, other = (cast("StreamSettings", settings.parts[name]) for name in (ENCODER, DECODER))
    encoder = load_adapter(load_base(bases.folder_of(own.base_model), own, place), folder / ENCODER)
    tie = Tie(Half.of_base(encoder, own), Half.of_base(decoder, other), tokens)
    tie.read(folder)
    return tie
