"""Encoders beside the decoders of a server: a text becomes one vector, or a label where the encoder has a classification head.

Vectors are the mean of the last layer over a text's tokens (of its first token, where `1_Pooling/config.json` beside the model says so,
as sentence-transformers writes it), of length 1 as the API's are.  An encoder is a model of transformers, or the half of a published pair
that was trained as one, which may be a decoder by its family.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch
from pydantic import ValidationError
from transformers import AutoConfig, AutoModel, AutoModelForSequenceClassification, PreTrainedModel
from transformers.models.auto.modeling_auto import MODEL_FOR_MASKED_LM_MAPPING_NAMES

from swarm.errors import UserError
from swarm.plainfiles import read_text
from swarm.settings import StreamSettings
from trainer import bases
from trainer.data.bad import TooLong
from trainer.inspection import positions_of
from trainer.loading import load_adapter, load_base, load_tokenizer
from trainer.place import Place
from trainer.ship.answering import Answer, OnText
from trainer.ship.sources import LINEAGE, Source, stated
from trainer.vectors import body_of, given, knows_kinds, pad_of, plain, pooled

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

POOLING = Path("1_Pooling", "config.json")
BATCH_ROWS = 16
UNBOUNDED_TOKENS = 1 << 13
HEAD = "ForSequenceClassification"
CLASSIFICATION, EMBEDDING = "classification", "embedding"
OF_ENCODERS = (CLASSIFICATION, EMBEDDING)
"""Tasks that an encoder answers; any other is a decoder's."""


@dataclass
class Encoder:
    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    has_head: bool
    """It tells labels."""
    pools_first: bool = False

    @classmethod
    def of_base(cls, name: str, place: Place) -> Encoder:
        """`name`: a folder, or a model of the hub that was fetched.  Raises UserError for what is no encoder."""
        folder = bases.folder_of(name)
        try:
            config = AutoConfig.from_pretrained(str(folder))
            if config.model_type not in MODEL_FOR_MASKED_LM_MAPPING_NAMES:
                what = f"{name} is no encoder (model_type {config.model_type})"
                raise UserError("--encoder", what, "name one such as a BERT; decoders are served as MODEL")
            has_head = any(str(kind).endswith(HEAD) for kind in config.architectures or ())
            kind = AutoModelForSequenceClassification if has_head else AutoModel
            model: PreTrainedModel = kind.from_pretrained(
                str(folder), dtype=torch.float32, device_map={"": place.torch_device}, use_safetensors=True
            )
        except (OSError, ValueError, KeyError) as error:
            what = f"{name} cannot be loaded ({type(error).__name__}: {' '.join(str(error).split())[:200]})"
            raise UserError("--encoder", what, "name a folder with config, tokenizer and safetensors") from error
        return cls(model, load_tokenizer(folder), has_head, _pools_first(folder / POOLING))

    @classmethod
    def of_adapter(cls, folder: Path, settings: StreamSettings, place: Place) -> Encoder:
        """`folder`: of an adapter that was trained with these settings.  Raises UserError."""
        base = bases.folder_of(settings.base_model)
        model = cast("PreTrainedModel", load_adapter(load_base(base, settings, place), folder))
        tokenizer = load_tokenizer(base, trust_remote_code=settings.trust_remote_code)
        return cls(model, tokenizer, has_head=hasattr(settings, "labels"))

    @property
    def longest(self) -> int:
        return positions_of(self.model) or UNBOUNDED_TOKENS

    def tokens(self, text: str) -> list[int]:
        """With the marks that the tokenizer puts around a text.  Raises TooLong."""
        ids = list(self.tokenizer(text, verbose=False)["input_ids"])
        if len(ids) > self.longest:
            raise TooLong(f"the model reads {self.longest} tokens at most, the text has {len(ids)}", "make it shorter")
        return ids

    def vectors(self, texts: Sequence[Sequence[int]]) -> list[list[float]]:
        """Of texts in tokens, in their order."""
        starts = range(0, len(texts), BATCH_ROWS)
        return [vector for start in starts for vector in self._vectors(texts[start : start + BATCH_ROWS])]

    @torch.no_grad()
    def _vectors(self, texts: Sequence[Sequence[int]]) -> list[list[float]]:
        made = self._given(texts)
        states = body_of(self.model)(**made).last_hidden_state.float()  # (B, T, d)
        found = states[:, 0] if self.pools_first else pooled(states, made["attention_mask"])  # (B, d)
        listed: list[list[float]] = torch.nn.functional.normalize(found, dim=-1).tolist()
        return listed

    @torch.no_grad()
    def label(self, text: Sequence[int]) -> str:
        """The likeliest by its head."""
        logits = cast("Any", self.model)(**self._given([text])).logits  # (1, labels)
        names = cast("dict[int, str]", self.model.config.id2label or {})
        at = int(logits[0].argmax())
        return str(names.get(at, at))

    def answer(self, text: Sequence[int], on_text: OnText = lambda _: None) -> Answer:
        """A label as an answer of one token."""
        began = time.perf_counter()
        label = self.label(text)
        on_text(label)
        return Answer(label, len(text), 1, time.perf_counter() - began, "stop")

    def _given(self, ids: Sequence[Sequence[int]]) -> dict[str, torch.Tensor]:
        """(B, T) each."""
        made = given([plain(one) for one in ids], pad_of(self.model), kinds=knows_kinds(self.model))
        return {name: value.to(self.model.device) for name, value in made.items()}


def of_pair(source: Source, place: Place, *, trust_remote_code: bool) -> Encoder:
    """The encoder of a published pair, as its lineage says that it was trained.  Raises UserError."""
    return Encoder.of_adapter(source.folder, settings_of(source, trust_remote_code=trust_remote_code), place)


def settings_of(source: Source, *, trust_remote_code: bool) -> StreamSettings:
    """Those that the lineage of a half of a pair states.  Whoever wrote it does not decide whether a base's own code is run."""
    if not (settings := stated(source.folder).get("settings")):
        what = f"what it was trained for is not known: there is no {LINEAGE} of a run beside the pair"
        raise UserError(str(source.folder), what, "name the folder that the run has published")
    if not source.base:
        what = f"its base {source.named} is not on this machine"
        raise UserError(str(source.folder), what, "`python -m trainer.bases --fetch NAME` downloads one")
    known = {"base_model": source.base, "trust_remote_code": trust_remote_code}
    try:
        return StreamSettings.model_validate({**settings, **known})
    except ValidationError as error:
        what = f"{LINEAGE} beside the pair states no settings that can be read"
        raise UserError(str(source.folder), what, "put it back as it was") from error


def _pools_first(path: Path) -> bool:
    if not path.is_file():
        return False
    try:
        return bool(json.loads(read_text(path)).get("pooling_mode_cls_token"))
    except (ValueError, AttributeError) as error:
        raise UserError(str(path), "cannot be read", "put it back as it was, or remove it") from error
