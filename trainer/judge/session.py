"""What judges share while they judge one task after another: one base, which is bare between two adapters, one tokenizer, the held-out rows.

Nothing of it outlives the tasks that a worker does together.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar, cast

from peft import LoraConfig, PeftConfig, PeftModel
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from swarm import kinds
from swarm.errors import UserError
from swarm.messages import Piece
from swarm.settings import StreamSettings
from trainer import bases
from trainer.data.prepared import HELD_OUT, read_rows, verified
from trainer.data.tokens import Tokens
from trainer.judge.measured import base_as_held
from trainer.loading import load_base, load_tokenizer
from trainer.loop.adapter import refuse_unfusable
from trainer.place import Place

Made = TypeVar("Made")


@dataclass(frozen=True)
class HeldOut:
    """Of one prepared folder."""

    facts: Mapping[str, Any]
    rows: list[Tokens]


class Session:
    """The newest of each is kept: another base, other rows are loaded when they are asked for."""

    def __init__(self, place: Place) -> None:
        self.place = place
        self._model: PreTrainedModel | None = None
        """Bare; None while somebody has it."""
        self._how: list[object] = []
        """What decides what it is."""
        self._kept: dict[str, tuple[object, Any]] = {}
        """By what it is: of what, and the thing."""

    @contextmanager
    def bare(self, settings: StreamSettings) -> Iterator[PreTrainedModel]:
        """The base.  Whoever puts something on it takes it off, or raises: then the next one gets a base that is loaded anew."""
        model = self._taken(settings)
        yield model
        self._model = model

    @contextmanager
    def tuned(
        self, settings: StreamSettings, put_on: Callable[[PreTrainedModel], PeftModel]
    ) -> Iterator[PreTrainedModel]:
        """The base with an adapter on it, as its users load it."""
        made = put_on(self._taken(settings))
        # A PeftModel passes generate() on to its base; its own class is no PreTrainedModel.
        yield cast("PreTrainedModel", made)
        if why_apart(made.peft_config["default"]) is None:
            self._model = cast("PreTrainedModel", made.unload())

    def _taken(self, settings: StreamSettings) -> PreTrainedModel:
        """Nobody else has it until it is back."""
        objective = kinds.method(settings.method).objective(settings)
        how = [base_as_held(settings, self.place), type(objective), vars(objective)]
        if how != self._how:
            self._model = None  # before memory has to hold another
        model, self._model, self._how = self._model, None, how
        return load_base(bases.folder_of(settings.base_model), settings, self.place) if model is None else model

    def held_out(self, piece: Piece) -> HeldOut:
        """Raises UserError where the rows are not those of the log."""
        prepared = self.place.run_folder / (piece.prepared or "")

        def read() -> HeldOut:
            facts = verified(prepared, piece.prepared_sha256)
            return HeldOut(facts, list(read_rows(prepared / HELD_OUT)))

        return self._once("rows", (prepared, piece.prepared_sha256), read)

    def tokenizer(self, settings: StreamSettings) -> PreTrainedTokenizerBase:
        folder, trusted = bases.folder_of(settings.base_model), settings.trust_remote_code
        return self._once("tokenizer", (folder, trusted), lambda: load_tokenizer(folder, trust_remote_code=trusted))

    def _once(self, what: str, of: object, make: Callable[[], Made]) -> Made:
        if self._kept.get(what, (None,))[0] != of:
            self._kept[what] = of, make()
        return cast("Made", self._kept[what][1])


def why_apart(config: PeftConfig) -> str | None:
    """What an adapter changes beside what the base's linear layers put out, so that it cannot share a base; None: nothing."""
    if type(config) is not LoraConfig:
        return f"an adapter of PEFT's type {config.peft_type}"
    try:
        refuse_unfusable(config)
    except UserError as why:
        return why.where
    return None if config.init_lora_weights is True else "init_lora_weights"
