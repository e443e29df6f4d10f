"""One base in memory with adapters on it, each asked as it was trained; one answer is made at a time."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch
from peft.helpers import DoraCaching
from peft.tuners.lora.dora import DoraLinearLayer

from swarm.errors import UserError
from swarm.settings import StreamSettings
from trainer import bases
from trainer.control.hooked import attach
from trainer.control.tuner import together
from trainer.control.vectors import put_on, read_scaled
from trainer.data.messages import Turn
from trainer.data.prompt import Asker, prompt_of_base, read_prompt
from trainer.data.tokens import stop_tokens
from trainer.loading import load_adapter, load_base, load_tokenizer
from trainer.place import Place
from trainer.ship.answering import Answer, OnText, Sampling, answer
from trainer.ship.encoders import of_pair
from trainer.ship.sources import ENCODER, QUANTISED, Source, Sources, read_lineage
from trainer.tie import Half, Tie

if TYPE_CHECKING:
    from collections.abc import Callable

    from peft import PeftModel
    from transformers import PreTrainedModel

UNBOUNDED_TOKENS = 1 << 15
"""Longest prompt and answer on a base whose positions nothing bounds."""


class Models:
    """The bare base and its adapters by name."""

    def __init__(self, sources: Sources, place: Place, *, trust_remote_code: bool = False) -> None:
        """Raises UserError."""
        self.sources = sources
        self.names = [sources.base_name, *(source.name for source in sources.adapters)]
        folder = bases.folder_of(sources.base)
        facts = bases.facts_of(sources.base, trust_remote_code=trust_remote_code)
        self.context_tokens = facts.context_tokens or UNBOUNDED_TOKENS
        self.tokenizer = load_tokenizer(folder, trust_remote_code=trust_remote_code)
        stops = stop_tokens(self.tokenizer, folder)
        if not stops:
            raise UserError(sources.base, "its tokenizer has no end token", "name an eos_token in its tokenizer")
        self._stops = stops
        settings = StreamSettings.model_validate({
            "base_model": sources.base, "datasets": [{"path": "-"}], "trust_remote_code": trust_remote_code,
            "adapter": QUANTISED if sources.quantised else "lora",
        })  # fmt: skip
        self._model: PreTrainedModel | PeftModel = load_base(folder, settings, place)  # in evaluation mode
        for vectors, scale in read_scaled(sources.vectors):
            put_on(self._model, vectors, scale)
        self._askers = {
            self.names[0]: Asker(self.tokenizer, prompt_of_base(self.tokenizer, stops), self.context_tokens)
        }
        self.encoders = {
            name: of_pair(source, place, trust_remote_code=trust_remote_code)
            for name, source in sources.encoders.items()
        }
        """Of the pairs."""
        self._ties: dict[str, Tie] = {}
        self._peft_names: dict[str, str] = {}
        self._spoke = self.names[0]
        self._on_all = [f"c{number}" for number in range(len(sources.controls))]
        """PEFT's names of the control adapters that act whoever is asked."""
        for peft_name, (source, scale) in zip(self._on_all, sources.controls, strict=True):
            self._model = attach(self._model, source.folder, scale, peft_name)
        for source in sources.adapters:
            self._load(source)

    def add(self, source: Source) -> None:
        """One more adapter, between two answers.  Raises UserError."""
        self._load(source)
        self.names.append(source.name)

    def _load(self, source: Source) -> None:
        """PEFT's names of adapters become module names, which hold no dots; so ours are kept apart."""
        peft_name = f"a{len(self._peft_names)}"
        self._model = load_adapter(self._model, source.folder, peft_name)
        self._peft_names[source.name] = peft_name
        if source.is_tied:
            self._ties[source.name] = self._tie(source)
        self._askers[source.name] = self._asker(source)

    def _tie(self, source: Source) -> Tie:
        """Between the halves of a pair, as they are loaded here."""
        encoder, pair = self.encoders[f"{source.name}/{ENCODER}"], source.folder.parent
        tokens = int(read_lineage(pair).get("settings", {}).get("tie_tokens") or 0)
        halves = Half(encoder.model, encoder.tokenizer), Half(cast("PreTrainedModel", self._model), self.tokenizer)
        tie = Tie(*halves, tokens)
        tie.read(pair)
        return tie

    def _ahead(self, name: str) -> int:
        """Positions that stand before a prompt."""
        return self._ties[name].tokens if name in self._ties else 0

    def _asker(self, source: Source) -> Asker:
        prompt = read_prompt(source.folder) or prompt_of_base(self.tokenizer, self._stops)
        return Asker(self.tokenizer, prompt, self.context_tokens - self._ahead(source.name))

    def warm_up(self) -> None:
        """Each model makes one token, so that the first answer's time is not that of a first call."""
        for name in self.names:
            self.answer(name, [self._askers[name].prompt.stop_tokens[0]], Sampling(1))

    def asker(self, name: str) -> Asker:
        return self._askers[name]

    @property
    def answering(self) -> list[str]:
        """Those that answer a text: with words, or an encoder with its label."""
        return [*self.names, *(name for name, encoder in self.encoders.items() if encoder.has_head)]

    def conversation(self, name: str, turns: Sequence[Turn]) -> list[int]:
        """What the model is given, in tokens; of an encoder the last message.  Raises NotARow."""
        if name in self.encoders:
            return self.encoders[name].tokens(str(turns[-1]["content"]))
        return self._askers[name].conversation(turns)

    def room(self, prompt: Sequence[int]) -> int:
        """Tokens that an answer to this prompt may have."""
        return self.context_tokens - len(prompt)

    def answer(
        self, name: str, prompt: Sequence[int], sampling: Sampling,
        on_text: OnText = lambda _: None, left: Callable[[], bool] = lambda: False,
    ) -> Answer:  # fmt: skip
        """Prompt and answer stay within the base's positions; an encoder answers with a label."""
        if name in self.encoders:
            return self.encoders[name].answer(prompt, on_text)
        most = min(sampling.max_new_tokens, self.room(prompt) - self._ahead(name))
        assert most > 0, "an asker makes no prompt without room for an answer"
        sampling = Sampling(most, sampling.temperature, sampling.top_p, sampling.seed, sampling.stop)
        with self._speaking(name) as model:
            stops = self._askers[name].prompt.stop_tokens
            return answer(model, self.tokenizer, prompt, stops, sampling, on_text, left, self._ties.get(name))

    @contextmanager
    def _speaking(self, name: str) -> Iterator[PreTrainedModel]:
        """The model with this adapter, or bare; a PeftModel passes generate() on to its base."""
        bare: AbstractContextManager[Any] = nullcontext()
        mine = [self._peft_names[name]] if name in self._peft_names else []
        if active := [*mine, *self._on_all]:
            together(cast("PeftModel", self._model), active)
        elif self._peft_names:
            bare = cast("PeftModel", self._model).disable_adapter()
        if name != self._spoke:
            _forget_norms(self._model)
            self._spoke = name
        with bare, DoraCaching(enabled=not self.sources.quantised):
            yield cast("PreTrainedModel", self._model)


def _forget_norms(model: torch.nn.Module) -> None:
    """PEFT computes a DoRA layer's norms at every token unless it may keep them with B A, which takes as much memory as the layer:
    it may for one adapter at a time, and not where the base was quantised to save memory.
    """
    for module in model.modules():
        if isinstance(module, DoraLinearLayer):
            module._cache_clear()  # PEFT itself clears it only where training begins


def prompts_in(path: Path) -> list[str]:
    """A file of prompts: lines of text, or JSON lines with `prompt`, or with `messages` of which the user's last is taken."""
    try:
        lines = [line for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(str(path), f"cannot be read ({error})", "name a file of text or JSON lines") from error
    if path.suffix in {".jsonl", ".ndjson"}:
        lines = [_prompt_in(f"{path}:{number}", line) for number, line in enumerate(lines, start=1)]
    if not lines:
        raise UserError(str(path), "holds no prompt", "write one on each line")
    return lines


def _prompt_in(where: str, line: str) -> str:
    try:
        row: Any = json.loads(line)
        turns = [turn for turn in row.get("messages", []) if turn["role"] == "user"]
        prompt = row.get("prompt") or (turns[-1]["content"] if turns else None)
    except (ValueError, TypeError, LookupError, AttributeError) as error:
        raise UserError(where, "is no row with a prompt", 'write {"prompt": "..."}') from error
    if not isinstance(prompt, str):
        raise UserError(where, "has no prompt", 'write {"prompt": "..."}, or messages with one of the user')
    return prompt
