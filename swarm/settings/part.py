"""Of one model of a stream, with the settings of the kinds that it chooses."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from typing import Annotated, Any, ClassVar, Literal, Self, cast

from pydantic import AfterValidator, Field, ValidationInfo, model_validator

from swarm import kinds
from swarm.keys import Positive, Settings, Share
from swarm.settings.data import Dataset, TokenIds


def _is_installed(name: str, info: ValidationInfo) -> str:
    try:
        kinds.installed(str(info.field_name))[name]
    except KeyError:
        raise ValueError("is not installed") from None
    return name


WITHOUT_WARM_UP = ("constant", "rms_ratio")
"""Schedules that begin at once."""
KindName = Annotated[str, AfterValidator(_is_installed)]
"""The name of an installed method, adapter kind or optimizer; the field's name says which of them."""


class Part(Settings):
    """One model of a stream: its base, its data, its adapter and its optimizer.

    The class of a part that was read has the settings of the adapter kind and of the optimizer that it chose as well.
    """

    has_settings_of_kinds: ClassVar[bool] = False
    has_stops: ClassVar[bool] = False

    # what is tuned
    base_model: str
    """A folder, a name on the hub, or `tiny-toon`: the base that ships with the product."""
    trust_remote_code: bool = False
    """Run code that a hub model brings; never settable from the bus."""

    # data
    datasets: Annotated[list[Dataset], Field(min_length=1)]
    """Rows to train on: those of all of them."""
    test_datasets: list[Dataset] = []
    """Held-out rows; without them `val_set_size` rows are taken from `datasets`."""
    val_datasets: list[Dataset] = []
    """Rows on which `eval_steps` chooses the step, so that the held-out ones judge alone; unset: the held-out ones do both."""
    sealed_datasets: list[Dataset] = []
    """Rows that the validator alone reads, once, for the stream that is to be promoted: it must beat the base on them by more than chance."""
    val_set_size: Annotated[float, Field(ge=0)] = 0.05
    """Held-out rows: a share below 1, a number of rows from 1 on."""
    sequence_len: Annotated[int, Field(ge=8)] = 512
    """Tokens; longer rows are cut at the end and counted."""
    train_on_inputs: bool = False
    """Count the prompt's tokens in the loss too."""
    train_on: Literal["all", "last", "marked"] = "all"
    """Which of the assistant's messages the loss counts: all, the last, or those with `train: true` or `weight: 1`; never one with `train: false` or `weight: 0`."""
    allow_overlap: bool = False
    """Accept `test_datasets` with rows that are trained on too; the verdict says so."""
    on_bad_row: Literal["fail", "skip"] = "fail"
    """What a row that cannot be read does: fail ends the stream, skip sets the row aside and counts it."""
    system_prompt: str | None = None
    """The system message of chats and pairs that have none, on a base with a chat template."""
    dedupe: Literal["auto"] | bool = "auto"
    """Train once on rows that are equal but for case, white space and system message; the first one counts.  auto: where a `weight` is set."""
    mix_strategy: Literal["repeat", "sample"] = "repeat"
    """How `weight` is reached: repeat uses every row and smaller datasets several times, sample uses no row twice and parts of larger ones."""
    mix_seed: Annotated[int, Field(ge=0, lt=2**32)] = 42
    """Of the rows that are drawn for it."""
    ablate_examples: Positive | None = None
    """Train on so many random rows alone, in their order; the held-out rows stay the same."""
    ablate_seed: Annotated[int, Field(ge=0, lt=2**32)] = 42
    """Of these random rows."""
    max_cut_rows: Annotated[float, Field(ge=0, le=1)] = 0.5
    """Share of the rows that `sequence_len` may cut before the stream is refused."""
    max_lost_rows: Annotated[float, Field(ge=0, le=1)] = 0.25
    """Share of the rows that `sequence_len` may cut before their answer; they are left out and counted."""

    # documents
    sequence_prefix: TokenIds = None
    """How a sequence of documents begins: text, or ids; unset: the base's begin token, if it has one; '': with the document.  No control adapter acts on it."""
    mask_tokens: bool | int | list[int] = False
    """Tokens of documents that the loss does not count: true leaves out all special ones, else these ids."""
    max_sequences: Positive | None = None
    """Train on so many random sequences of all documents."""
    drop_tails: bool = False
    """Leave out what is left of a document once a sequence is full, so that the next one begins with a document."""
    mix_datasets: bool = False
    """Cut the documents of all datasets in one random order, so that a sequence may hold some of several; false: those of each apart."""
    isolate_documents: bool = False
    """A sequence ends with its document, so that no document sees another; `packing: bfd` fills micro-batches with such sequences."""

    # what is trained, and what steps it
    adapter: KindName = "lora"
    """What is trained beside the frozen base."""
    optimizer: KindName = "adamw"
    """What steps the weights."""
    controller: KindName = "none"
    """What changes its learning rate while it trains, beside the schedule."""
    micro_batch_size: Positive = 2
    """Sequences per forward pass."""
    packing: Literal["none", "bfd"] = "none"
    """bfd: a sequence is as many rows as fit into `sequence_len` (best fit decreasing); none of them sees another (shared engine)."""
    group_by_length: bool = False
    """Micro-batches of rows of like length, in an order that is random in parts (shared engine)."""
    batch_size_tokens: Positive | None = None
    """Micro-batches of at most so many tokens, pads counted, in place of `micro_batch_size` rows (shared engine)."""
    learning_rate: Annotated[float, Field(gt=0)] = 2e-4
    """The highest one, reached after the warm-up."""
    lr_scheduler: Literal["linear", "cosine", "constant", "constant_with_warmup", "polynomial", "rms_ratio"] = "linear"
    """How the learning rate goes on after the warm-up; rms_ratio: rises with `beta2` of the optimizer, without end or warm-up."""
    warmup_ratio: Share = 0.03
    """Share of the steps in which the learning rate rises."""
    warmup_steps: Annotated[int, Field(ge=0)] | None = None
    """The same in steps; wins over warmup_ratio."""
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    """Per step, times the learning rate."""
    max_grad_norm: Annotated[float, Field(ge=0)] = 1.0
    """Longer gradients are cut to this norm; 0: none is."""
    gradient_checkpointing: bool = False
    """Compute activations twice instead of keeping them: less memory, more time."""
    bf16: Literal["auto"] | bool = "auto"
    """Compute in bfloat16; auto: on GPUs that have it."""
    fp16: bool = False
    """Compute in float16, for GPUs without bfloat16: each stream's loss is scaled by a factor of its own, and a step whose gradients overflow is computed again with half of it (shared engine)."""
    attn_implementation: Literal["auto", "sdpa", "eager"] = "auto"
    """How attention is computed: sdpa is torch's fused kernels, eager plain matrix products; auto: sdpa wherever the base's family can."""
    dequantise: Literal["auto", "step", "cached"] = "auto"
    """On the shared engine, a base in 4 bits: step unpacks its matrices in each pass, cached keeps them unpacked; auto: cached where they take at most a quarter of the free memory."""

    @property
    def has_documents(self) -> bool:
        """Whether rows to train on are cut out of documents: how many that are is known once they are prepared."""
        return any(dataset.type == "document" for dataset in self.datasets)

    @property
    def warmup(self) -> float:
        """A share of the steps below 1, else steps."""
        return self.warmup_ratio if self.warmup_steps is None else self.warmup_steps

    @classmethod
    def chosen_by(cls, values: Mapping[str, object]) -> type[Self]:
        """The class for these values: this one, with the settings of the kinds that they choose.

        Where a choice names nothing that is installed, the keys of all are known: the choice alone is the mistake.
        """
        chosen: list[type[Settings]] = []
        for setting in kinds.GROUPS:
            if setting in cls.model_fields:
                known, name = kinds.installed(setting), values.get(setting, cls.model_fields[setting].default)
                taken = [known[name]] if isinstance(name, str) and name in known else known.values()
                chosen += [kind.settings for kind in taken]
        if cls.has_stops:
            chosen += [stop.settings for stop in kinds.installed("stop").values()]
        return cast("type[Self]", _with_settings_of_kinds(cls, tuple(dict.fromkeys(chosen))))

    @model_validator(mode="wrap")
    @classmethod
    def _read_with_the_kinds_chosen(cls, values: Any, validate: Callable[[Any], Self]) -> Self:
        if cls.has_settings_of_kinds or not isinstance(values, dict):
            return validate(values)
        return cls.chosen_by(values).model_validate({**_implied_by(values), **values})


def _implied_by(values: Mapping[str, object]) -> dict[str, object]:
    """Defaults that another choice changes."""
    method = kinds.installed("method").get(str(values.get("method")))
    implied = dict(method.implied) if isinstance(method, kinds.Method) else {}
    return implied | ({"warmup_ratio": 0.0} if values.get("lr_scheduler") in WITHOUT_WARM_UP else {})


@cache
def _with_settings_of_kinds(plain: type[Part], owned: tuple[type[Settings], ...]) -> type[Part]:
    """A class of this name with all their keys; where one extends another, it alone is taken."""
    own = [one for one in owned if not any(other is not one and issubclass(other, one) for other in owned)]
    members = {"__module__": __name__, "__doc__": plain.__doc__, "has_settings_of_kinds": True}
    return cast("type[Part]", type(plain.__name__, (*own, plain), members))
