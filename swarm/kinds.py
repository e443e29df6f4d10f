"""What a method, an adapter kind, an optimizer, a controller and a stop state about themselves, and how the installed ones are found.

Kinds are found through the entry points of installed distributions, never in the current folder.  An entry point names a
module with `KINDS`, or a package whose modules have it.  Those modules import heavy libraries inside functions only, so
that settings can be read, memory estimated and files checked without them.
"""

from __future__ import annotations

import importlib
import pkgutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from importlib import metadata
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Literal, NamedTuple, Protocol, TypeVar

from swarm.errors import UserError
from swarm.facts import BaseFacts
from swarm.keys import Settings

if TYPE_CHECKING:
    import torch
    from peft import PeftConfig, PeftModel
    from transformers import PreTrainedModel

S = TypeVar("S", bound=Settings)
Shape = tuple[int, ...]


class Shrinking(NamedTuple):
    """Of what an adapter adds to its layers (`trainer.loop.decay`)."""

    penalty: Literal["nuclear", "l2", "frobenius"]
    strength: float
    max_norm: float
    gamma: float = 0.0
    """How strongly Q of a spectral control adapter is brought back to orthonormal columns."""


class Refusal(NamedTuple):
    """A setting that cannot hold beside the others, why, and the fix."""

    key: str
    what: str
    fix: str


class Kind(Generic[S]):
    """What the five have in common."""

    name: str
    """As users write it under `method:`, `adapter:`, `optimizer:` or `controller:`; a stop is armed by its settings."""
    summary: str
    """What it is, in a few words, for docs and messages."""
    settings: type[S]
    """Its own settings; users write their keys beside the others of a stream."""
    package: str = ""
    """The module that it is made with, where none of our dependencies brings it,"""
    extra: str = ""
    """and the extra that does."""

    def refusal(self, settings: S) -> Refusal | None:
        """Where settings of its own are valid alone and contradict each other, or others of the stream."""
        return None


class Method(Kind[S]):
    """A way to tune a model."""

    engines: ClassVar[frozenset[str]] = frozenset({"trl"})
    """Training engines that can run it; `shared` trains several streams on one base in memory."""

    pairs: ClassVar[bool] = False
    """It learns from a better and a worse answer to each prompt: `rejected`, in every entry of `datasets`."""
    examples: ClassVar[int] = 1
    """That it makes of a row."""
    row_types: ClassVar[frozenset[str] | None] = None
    """The `type`s of data sets that it learns from; None: all but labelled ones."""
    peft_task: ClassVar[str] = "CAUSAL_LM"
    """PEFT's name of what the model is for."""
    implied: ClassVar[Mapping[str, Any]] = {}
    """Defaults of other settings that it changes."""
    words: ClassVar[bool] = True
    """What it tunes answers in words: they can be generated, and compared with those of the base."""

    def engines_with(self, settings: S) -> frozenset[str]:
        """Those that can run it with these settings."""
        return self.engines

    def in_pair(self, settings: S) -> bool:
        """Whether it can be the objective of one of a stream's two models, with these settings."""
        return False

    def tie_tokens(self, settings: S) -> int:
        """Vectors that one of a stream's two models puts before the prompts of the other."""
        return 0

    def unfit(self, base: BaseFacts, settings: S) -> Refusal | None:
        """Why it cannot tune this base."""
        if base.reads_both_ways:
            what = "is an encoder, which reads in both directions, and a row is learned from left to right"
            return Refusal(
                "base_model", what, "take a causal language model (decoder only), or `method: classify` or mlm"
            )
        return self.without_head(base)

    def without_head(self, base: BaseFacts) -> Refusal | None:
        """Why it cannot use the head that this base was saved with."""
        if base.headless:
            what = f"its files lack {base.head}, which says the words: the model was saved without its head"
            return Refusal("base_model", what, "save the whole model with its head, or take another base")
        return None

    def head(self, base: BaseFacts, settings: S) -> dict[str, Shape]:
        """What it trains as a whole beside the adapter, by its names in the model."""
        return {}

    def of_rows(self, settings: S) -> dict[str, Any]:
        """What prepared rows depend on besides the settings of data."""
        return {}

    def objective(self, settings: S) -> Any:
        """How its model is made and its rows are read, and their losses measured: a `trainer.judge.objective.Objective`."""
        from importlib import import_module

        return import_module("trainer.objectives.next_token").NextToken()

    def trainer(self, ingredients: Any) -> Any:
        """A trainer that is ready to train one stream, of `trainer.engines.trl.Ingredients`."""
        raise NotImplementedError

    def loss(self, settings: S) -> Any:
        """The loss of single tokens on the shared engine, a `trainer.loop.parts.Loss`; streams that are given one object share its calls."""
        raise NotImplementedError


class AdapterKind(Kind[S]):
    """What is trained beside the frozen weights of a base."""

    engines: ClassVar[frozenset[str]] = frozenset({"trl"})
    """Training engines that can train it; `shared` takes kinds whose `config` is a LoraConfig."""
    quantisation: ClassVar[str | None] = None
    """How the base is held while it is trained on, unless it is set otherwise: None as it is, `nf4` in 4 bits."""
    reads_classes: ClassVar[bool] = False
    """It computes with the class of each token (`control_class`)."""

    def neutral_lambda(self, settings: S) -> float:
        """Weight of what it adds to neutral text."""
        return 0.0

    def adapts_linears(self, settings: S) -> bool:
        """Whether it stands on linear layers."""
        return True

    def engines_with(self, settings: S) -> frozenset[str]:
        """Those that can train it with these settings."""
        return self.engines

    def in_pair(self, settings: S) -> bool:
        """Whether a model of two can be trained with it: what TRL is given by PEFT, the engine of two models is given too."""
        return "trl" in self.engines_with(settings)

    # ---- without torch ----

    def label(self, settings: S) -> str:
        """For tables: `lora r8 dora`."""
        return self.name

    def details(self, settings: S) -> str:
        """What else a reader of a stream's row should know."""
        return ""

    def tensors(self, base: BaseFacts, settings: S) -> dict[str, Shape]:
        """Names and shapes of all tensors in its file.

        Raises UserError, whose `where` is the setting, if this base cannot have such an adapter.
        """
        raise NotImplementedError

    def filed(self, base: BaseFacts, settings: S) -> S:
        """Settings of an adapter without fixed rows that has the same file; the same ones where all of the file is trained."""
        return settings

    def start(self, settings: S) -> Any:
        """The adapter on which it begins and which its file holds too, a `trainer.adapters.start.Start`; None: it begins on the base."""
        return None

    def trained(self, base: BaseFacts, settings: S) -> dict[str, Shape]:
        """What the optimizer steps of the file's: no buffers, and a matrix that stands there under two names once."""
        return self.tensors(base, settings)

    def activation_bytes(self, base: BaseFacts, settings: S, width: int) -> float:
        """What it keeps of one token for the backward pass, in all layers; `width` is the size of the base's numbers."""
        return 0.0

    def shared_activation_bytes(self, base: BaseFacts, settings: S, width: int) -> float:
        """The same on the shared engine, where it can be trained there."""
        return self.activation_bytes(base, settings, width)

    def overhead_bytes(self, base: BaseFacts, settings: S, width: int) -> int:
        """The largest buffer that comes and goes in a step."""
        return 0

    def held(self, settings: S) -> str | None:
        """How the base is held with these settings: None as it is, else its type first: streams of one process hold it alike."""
        return self.quantisation

    def bits(self, settings: S) -> float | None:
        """Of a quantised weight, its constants included; None where none is."""
        return None

    def shrinking(self, settings: S) -> Shrinking | None:
        """What makes the adapter smaller after each step of the shared engine; None: nothing does."""
        return None

    # ---- with torch ----

    def known_to_peft(self) -> None:
        """Called before PEFT reads an adapter: the place to register a type that it does not bring."""

    def let_join(self, model: Any, peft_type: str) -> None:
        """Makes a PeftModel take one more adapter, of this type of PEFT's, where PEFT itself would refuse it beside those of this kind."""

    def quantisation_config(self, dtype: torch.dtype, settings: S) -> Any:
        """What `from_pretrained` is given as `quantization_config`."""
        return None

    def after_loading(self, model: PreTrainedModel, *, on_gpu: bool) -> None:
        """Called with every base that was loaded for this kind."""

    def config(self, base: BaseFacts, settings: S) -> PeftConfig:
        """What PEFT makes the adapter of, and what its adapter_config.json says."""
        raise NotImplementedError

    def attach(self, model: PreTrainedModel, base: BaseFacts, settings: S) -> PeftModel:
        """The base with an untrained adapter on it."""
        from peft import PeftModel, get_peft_model

        made = get_peft_model(model, self.config(base, settings))
        assert isinstance(made, PeftModel)
        return made


class Optimizer(Kind[S]):
    """What steps the weights."""

    def state_bytes(self, shape: Shape) -> float:
        """What it keeps for one tensor between steps."""
        raise NotImplementedError

    def on_cpu(self) -> str | None:
        """What it does otherwise on a CPU than its name says; the log says so."""
        return None

    def made_of(self, settings: S) -> tuple[type[torch.optim.Optimizer], dict[str, Any]]:
        """The class and its arguments, without parameters, learning rate and weight decay."""
        raise NotImplementedError


class Controller(Kind[S]):
    """What changes the learning rate while a stream trains, beside the schedule."""

    engines: ClassVar[frozenset[str]] = frozenset({"shared"})
    """Training engines in which it works."""
    modes: ClassVar[tuple[str, ...]] = ()
    """What the values of its figure `mode` are called, from 0 on."""

    def engines_with(self, settings: S) -> frozenset[str]:
        """Those in which it works with these settings."""
        return self.engines

    def wrong(self, settings: S) -> tuple[str, str, str] | None:
        """Settings that contradict each other: the key, what is wrong and the fix."""
        return None

    def begin(self, settings: S) -> Any:
        """What follows one training, a `trainer.loop.parts.Controller`; None where there is nothing to follow."""
        raise NotImplementedError

    def finish(self, settings: S, folder: Path, rows: Sequence[Mapping[str, float]]) -> None:
        """Writes files of its own into the stream's folder, from `step` and figures of all logged steps of a training that has ended."""


class Watch(Protocol):
    """A stop that is armed: it sees every step, and what it remembers is saved with each checkpoint."""

    def __call__(self, step: int, figures: Mapping[str, float]) -> str | None:
        """Why training ends after this step, or None.

        `figures`: `tokens`, `seconds` of training and `seconds_from_start`; where they were measured at this step, `loss` as
        logged and `eval_loss`.
        """

    def state_dict(self) -> dict[str, Any]:
        """Of JSON's values."""

    def load_state_dict(self, state: dict[str, Any]) -> None: ...


class Stateless:
    """The state of a watch that remembers nothing."""

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        assert not state


class Stop(Kind[S]):
    """What ends a training before its last step.  Its settings belong to every stream; their defaults leave it off."""

    def armed(self, settings: S) -> bool:
        raise NotImplementedError

    def idle(self, settings: S) -> Refusal | None:
        """A key of its that was written although the first of them, which arms it, was not: `null` there switches it off with all others."""
        first, *others = self.settings.model_fields or [""]
        written = settings.model_fields_set
        if self.armed(settings) or first in written or not written.intersection(others):
            return None
        key = next(key for key in others if key in written)
        return Refusal(key, f"it does nothing without `{first}`", f"set `{first}`, or leave it out")

    def engines_with(self, settings: S) -> frozenset[str] | None:
        """Those in which it works with these settings, if it is armed; None: all."""
        return None

    def unreachable(self, settings: S, steps: int | None) -> Refusal | None:
        """Whether it could end nothing in a training of so many steps; None: their number is not known yet."""
        return None

    def seconds_left(self, settings: S, figures: Mapping[str, float]) -> float | None:
        """Until it ends a training whose newest figures these are; None: that cannot be told."""
        return None

    def begin(self, settings: S) -> Watch | None:
        """What watches a training, if it is armed; None where it ends none with these settings."""
        raise NotImplementedError

    def controller(self, settings: S) -> Any:
        """What changes the training in place of ending it, a `trainer.loop.parts.Controller`; None: nothing does."""
        return None


# ---- the installed ones ----------------------------------------------------------------------------------------------

GROUPS: dict[str, type[Kind[Any]]] = {
    "method": Method, "adapter": AdapterKind, "optimizer": Optimizer, "controller": Controller,
}  # fmt: skip
"""By the setting that chooses one; the entry point group is `toonswarm.<setting>s`."""


ALL: dict[str, type[Kind[Any]]] = {**GROUPS, "stop": Stop}


def stops() -> list[Stop[Any]]:
    return [stop for stop in installed("stop").values() if isinstance(stop, Stop)]


def stops_armed(settings: Any) -> list[Stop[Any]]:
    """Of a stream's settings."""
    return [stop for stop in stops() if stop.armed(settings)]


def method(name: str) -> Method[Any]:
    return _one("method", name)  # type: ignore[return-value]


def adapter(name: str) -> AdapterKind[Any]:
    return _one("adapter", name)  # type: ignore[return-value]


def optimizer(name: str) -> Optimizer[Any]:
    return _one("optimizer", name)  # type: ignore[return-value]


def controller(name: str) -> Controller[Any]:
    return _one("controller", name)  # type: ignore[return-value]


def _one(setting: str, name: str) -> Kind[Any]:
    """Raises UserError on a name that no installed package has."""
    known = installed(setting)
    if name not in known:
        fix = f"take one of {', '.join(known)}, or install the package that brings it"
        raise UserError(setting, f"no installed package has the {setting} {name!r}", fix)
    return known[name]


@cache
def installed(setting: str) -> dict[str, Kind[Any]]:
    """All kinds that a setting may choose, by name.

    Raises UserError on an entry point that cannot be loaded, and where two packages use one name.
    """
    found: dict[str, Kind[Any]] = {}
    origin: dict[str, str] = {}
    for point in _entry_points(f"toonswarm.{setting}s"):
        package = point.dist.name if point.dist else point.value
        for kind in _kinds_of(point, package):
            assert isinstance(kind, ALL[setting]), f"{kind!r} of {package} is no {setting}"
            if kind.name in found:
                what = f"{origin[kind.name]} and {package} both bring the {setting} {kind.name!r}"
                raise UserError("installed packages", what, "uninstall one of them")
            found[kind.name], origin[kind.name] = kind, package
    if not found:
        what = f"no package brings any {setting}: the installed metadata of toonswarm is older than its code"
        raise UserError("swarm", what, "install it again: pip install --no-deps -e . (in a source tree)")
    return dict(sorted(found.items()))


def _entry_points(group: str) -> Iterator[metadata.EntryPoint]:
    """Of installed distributions; the current folder may hold anything, so that it is left out."""
    here = Path.cwd()
    places = [place for place in sys.path if place and Path(place).absolute() != here]
    seen: set[str] = set()
    for distribution in metadata.distributions(path=places):
        # The name is asked for last: of all that is installed it takes 80 ms, the entry points take 3.
        if (found := distribution.entry_points.select(group=group)) and distribution.name not in seen:
            seen.add(distribution.name)  # the first on the path is the one that is imported
            yield from found


def _kinds_of(point: metadata.EntryPoint, package: str) -> list[Kind[Any]]:
    try:
        loaded = point.load()
        return [kind for module in _modules(loaded) for kind in getattr(module, "KINDS", ())]
    except Exception as error:
        what = f"{package} brings {point.value}, which cannot be imported ({type(error).__name__}: {error})"
        raise UserError("installed packages", what, f"update or uninstall {package}") from error


def _modules(loaded: ModuleType) -> list[ModuleType]:
    """The module itself, or the modules of a package."""
    if not hasattr(loaded, "__path__"):
        return [loaded]
    names = [found.name for found in pkgutil.iter_modules(loaded.__path__)]
    return [importlib.import_module(f"{loaded.__name__}.{name}") for name in names]
