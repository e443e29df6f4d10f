"""Encoders beside the decoders of a server: a text becomes one vector, or a label where the encoder has a classification head.

Vectors are the mean of the last layer over a text's tokens (of its first token, where `1_Pooling/config.json` beside the model says so,
as sentence-transformers writes it), of length 1 as the API's are.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import torch
from transformers import AutoConfig, AutoModel, AutoModelForSequenceClassification, PreTrainedModel
from transformers.models.auto.modeling_auto import MODEL_FOR_MASKED_LM_MAPPING_NAMES

from swarm.errors import UserError
from swarm.plainfiles import read_text
from trainer import bases
from trainer.inspection import positions_of
from trainer.loading import load_tokenizer
from trainer.place import Place

POOLING = Path("1_Pooling", "config.json")
BATCH_ROWS = 16
UNBOUNDED_TOKENS = 1 << 13
HEAD = "ForSequenceClassification"


class TooManyTokens(Exception):
    """A text is longer than the encoder can read."""


class Encoder:
    def __init__(self, name: str, place: Place) -> None:
        """`name`: a folder, or a model of the hub that was fetched.  Raises UserError for what is no encoder."""
        folder = bases.folder_of(name)
        try:
            config = AutoConfig.from_pretrained(str(folder))
            if config.model_type not in MODEL_FOR_MASKED_LM_MAPPING_NAMES:
                what = f"{name} is no encoder (model_type {config.model_type})"
                raise UserError("--encoder", what, "name one such as a BERT; decoders are served as MODEL")
            self.has_head = any(str(kind).endswith(HEAD) for kind in config.architectures or ())
            kind = AutoModelForSequenceClassification if self.has_head else AutoModel
            self.model: PreTrainedModel = kind.from_pretrained(
                str(folder), dtype=torch.float32, device_map={"": place.torch_device}, use_safetensors=True
            )
        except (OSError, ValueError, KeyError) as error:
            what = f"{name} cannot be loaded ({type(error).__name__}: {' '.join(str(error).split())[:200]})"
            raise UserError("--encoder", what, "name a folder with config, tokenizer and safetensors") from error
        self.tokenizer = load_tokenizer(folder)
        self.longest = positions_of(self.model) or UNBOUNDED_TOKENS
        self.pools_first = _pools_first(folder / POOLING)

    def tokens(self, text: str) -> list[int]:
        """With the marks that the tokenizer puts around a text.  Raises TooManyTokens."""
        ids = list(self.tokenizer(text, verbose=False)["input_ids"])
        if len(ids) > self.longest:
            raise TooManyTokens(f"This model reads {self.longest} tokens at most; the text has {len(ids)}.")
        return ids

    def vectors(self, texts: Sequence[Sequence[int]]) -> list[list[float]]:
        """Of texts in tokens, in their order."""
        starts = range(0, len(texts), BATCH_ROWS)
        return [vector for start in starts for vector in self._vectors(texts[start : start + BATCH_ROWS])]

    @torch.no_grad()
    def _vectors(self, texts: Sequence[Sequence[int]]) -> list[list[float]]:
        ids, mask = self._padded(texts)
        body = cast("Any", self.model.base_model)
        states = body(input_ids=ids, attention_mask=mask).last_hidden_state.float()  # (B, T, d)
        weights = mask.unsqueeze(-1).float()  # (B, T, 1)
        pooled = states[:, 0] if self.pools_first else (states * weights).sum(1) / weights.sum(1)  # (B, d)
        found: list[list[float]] = torch.nn.functional.normalize(pooled, dim=-1).tolist()
        return found

    @torch.no_grad()
    def label(self, text: Sequence[int]) -> str:
        """The likeliest by its head."""
        ids, mask = self._padded([text])
        logits = cast("Any", self.model)(input_ids=ids, attention_mask=mask).logits  # (1, labels)
        names = cast("dict[int, str]", self.model.config.id2label or {})
        at = int(logits[0].argmax())
        return str(names.get(at, at))

    def _padded(self, texts: Sequence[Sequence[int]]) -> tuple[torch.Tensor, torch.Tensor]:
        """Ids and mask, (B, T)."""
        padded = self.tokenizer.pad({"input_ids": [list(ids) for ids in texts]}, return_tensors="pt")
        ids, mask = cast("torch.Tensor", padded["input_ids"]), cast("torch.Tensor", padded["attention_mask"])
        return ids.to(self.model.device), mask.to(self.model.device)


def _pools_first(path: Path) -> bool:
    if not path.is_file():
        return False
    try:
        return bool(json.loads(read_text(path)).get("pooling_mode_cls_token"))
    except (ValueError, AttributeError) as error:
        raise UserError(str(path), "cannot be read", "put it back as it was, or remove it") from error
