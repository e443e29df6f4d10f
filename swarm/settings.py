"""Every setting of a run, with its type, unit and default: what users write in YAML and what workers are given.

The words are axolotl's first, then Hugging Face's.  Reading files, overrides, origins and error lines is `config`'s work.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import cache
from typing import Annotated, Any, ClassVar, Literal, Self, cast

from pydantic import AfterValidator, Field, SerializeAsAny, StringConstraints, ValidationInfo, model_validator

from swarm import figures, kinds
from swarm.event import NAME, Name, Role
from swarm.figures import Goal
from swarm.keys import OneOf, Positive, Reads, Settings, Share


def _can_be_reached(address: str) -> str:
    host, _, port = address.removeprefix("tcp://").rpartition(":")
    if host in {"0.0.0.0", "[::]"} or int(port) > 65534:  # noqa: S104  refused, not bound
        raise ValueError("not an address to connect to")
    return address


def _with_goal(metric: str) -> str:
    if metric not in figures.with_goal():
        raise ValueError("not a figure by which streams are compared")
    return metric


def _can_be_measured(metric: str) -> str:
    if metric not in figures.measurable():
        raise ValueError("not a figure that the evaluator measures")
    return metric


Metric = Annotated[str, AfterValidator(_can_be_measured), OneOf(figures.measurable)]
Doer = Annotated[str, StringConstraints(pattern=rf"^(?:worker|agent:{NAME})$"), Reads("worker or agent:NAME")]
Listen = Annotated[
    str,
    StringConstraints(pattern=r"^tcp://(\[[0-9a-fA-F:.]+\]|[A-Za-z0-9._-]+):[1-9][0-9]{1,4}$"),
    AfterValidator(_can_be_reached),
    Reads("tcp://ADDRESS:PORT (an address that others can connect to, a port up to 65534)"),
]


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


DATA_SUFFIXES = (".jsonl", ".ndjson", ".json", ".csv", ".parquet", ".arrow", ".toon", ".txt")
"""Endings of the files that rows are read from."""

Tracker = Literal["tensorboard", "trackio", "wandb"]
MOST_SEEDS, MOST_RATES, MOST_TRIALS = 64, 16, 256
"""Streams that one stream of a config may become: a typing error must not fill the memory."""


class Dataset(Settings):
    path: str
    """A file or a pattern (`data/*.jsonl`): .jsonl, .json, .csv, .parquet, .arrow, .toon or .txt (a row a file); or a dataset of the hub, `owner/name`.

    Files are read row by row; .json and .toon ones whole: at most 128 MiB, with 2 to 15 times that in memory.
    """
    type: Literal["auto", "chatml", "alpaca", "prompt_completion", "text", "toon"] = "auto"
    """How a row is read: chat messages; instruction/input/output; two columns; plain text; prompt_completion from a TOON table; auto: what the columns of the first row fit."""
    split: str = "train"
    """Which split of a hub dataset."""
    messages: str = "messages"
    """Column with the messages (`chatml`): role and content, or from and value as ShareGPT writes them."""
    tools: str = "tools"
    """Column with the tools that a conversation may call (`chatml`)."""
    prompt: str = "prompt"
    """Column with the prompt (`prompt_completion`, `toon`)."""
    completion: str = "completion"
    """Column with the completion (`prompt_completion`, `toon`)."""
    rejected: str | None = None
    """Column with a worse completion of the same prompt, for `method: dpo` or `kto` (`prompt_completion`, `toon`); held-out rows are judged by the better one."""
    text: str = "text"
    """Column with the text (`text`): all of it is supervised."""
    separator: str = "\n"
    """Between prompt and completion, on a base without a chat template."""
    prompt_template: str | None = None
    """The prompt, with `{column}` where a row's value belongs, or `alpaca`: Stanford's (`alpaca`, `prompt_completion`, `toon`); unset: the prompt is the column's text alone."""
    no_input_template: str | None = None
    """The same for rows whose column `input` is empty; unset: such rows are bad ones if `prompt_template` names it."""
    system_prompt: str | None = None
    """The system message of chats and pairs that have none, on a base with a chat template; unset: the stream's."""
    group_by: str | None = None
    """Column whose equal values (a document, an author) stay together, in training or held out; unset: each row for itself, and equal rows together."""
    limit: Positive | None = None
    """Take only so many rows of this dataset: the first, or with `shuffle` random ones."""
    shuffle: bool = False
    """Let `limit` take random rows.  Each epoch's order is random without it."""
    shuffle_seed: Annotated[int, Field(ge=0, lt=2**32)] = 42
    """Of these random rows."""
    weight: Annotated[float, Field(gt=0)] | None = None
    """Its part among all datasets' training rows, 3 beside 1 say; unset everywhere: as many as there are, unset beside others: 1."""


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

    # what is trained, and what steps it
    adapter: KindName = "lora"
    """What is trained beside the frozen base."""
    optimizer: KindName = "adamw"
    """What steps the weights."""
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
    attn_implementation: Literal["auto", "sdpa", "eager"] = "auto"
    """How attention is computed: sdpa is torch's fused kernels, eager plain matrix products; auto: sdpa wherever the base's family can."""
    dequantise: Literal["auto", "step", "cached"] = "auto"
    """On the shared engine, a base in 4 bits: step unpacks its matrices in each pass, cached keeps them unpacked; auto: cached where they take at most a quarter of the free memory."""

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
    return {"warmup_ratio": 0.0} if values.get("lr_scheduler") in WITHOUT_WARM_UP else {}


@cache
def _with_settings_of_kinds(plain: type[Part], owned: tuple[type[Settings], ...]) -> type[Part]:
    """A class of this name with all their keys; where one extends another, it alone is taken."""
    own = [one for one in owned if not any(other is not one and issubclass(other, one) for other in owned)]
    members = {"__module__": __name__, "__doc__": plain.__doc__, "has_settings_of_kinds": True}
    return cast("type[Part]", type(plain.__name__, (*own, plain), members))


class Judge(Settings):
    """A model behind an endpoint that says which of two answers is better."""

    endpoint: Annotated[str, StringConstraints(pattern=r"^https?://[^\s/]+"), Reads("http(s)://HOST[:PORT]/v1")]
    """Of any server with OpenAI's chat completions: what stands before `/chat/completions`."""
    model: str
    """Its name there."""
    rubric: str | None = None
    """A file with what makes an answer better; unset: how well it fits the expected one."""
    key_variable: str | None = None
    """The environment variable that holds the key, where the server wants one."""
    rows_per_request: Positive = 8
    """Pairs of answers in one request."""
    timeout_seconds: Annotated[float, Field(gt=0)] = 120.0
    """For one answer of the server."""


class Range(Settings):
    """Numbers between two ends, both included; whole ones where both ends are."""

    low: int | float
    """The smallest."""
    high: int | float
    """The largest."""
    log: bool = False
    """Evenly in the logarithm: as many between 1e-4 and 1e-3 as between 1e-3 and 1e-2."""


class Search(Settings):
    """Trials of a stream, whose settings are drawn from a space."""

    space: Annotated[dict[str, Annotated[list[Any], Field(min_length=1)] | Range], Field(min_length=1)]
    """By setting: a list of values, or `{low: 1e-4, high: 1e-2, log: true}`."""
    sampler: Literal["random", "grid"] = "random"
    """random: drawn with `seed`, no trial twice; grid: every combination of lists."""
    trials: Annotated[int, Field(ge=1, le=MOST_TRIALS)] | None = None
    """At most so many; unset: 8 of `random`, all of a grid."""
    seed: int = 0
    """Of the draws."""

    def unusable(self) -> tuple[str, str, str] | None:
        """What in the space cannot be drawn from: the setting, why and the fix."""
        for key, values in self.space.items():
            if not isinstance(values, Range):
                continue
            if self.sampler == "grid":
                return key, "a grid has lists of values", "write a list, or `sampler: random`"
            if not values.low < values.high or (values.log and values.low <= 0):
                above = " above 0" if values.log else ""
                return key, f"low {values.low:g} is not a number{above} below high {values.high:g}", "correct them"
        size = math.prod(len(values) for values in self.space.values() if isinstance(values, list))
        if self.sampler == "grid" and self.trials is None and size > MOST_TRIALS:
            return (
                next(iter(self.space)),
                f"the grid has {size} trials, more than {MOST_TRIALS}",
                "set `trials`, or shorten the lists",
            )
        return None


class StreamSettings(Part):
    """One fine-tune.  `defaults` in a config are copied into every stream; a stream's own keys win."""

    has_stops: ClassVar[bool] = True

    method: KindName = "sft"
    """How it is tuned."""
    controller: KindName = "none"
    """What changes its learning rate while it trains, beside the schedule."""
    engine: Literal["auto", "shared", "trl"] = "auto"
    """What trains it: shared (streams of one base in one process), trl (TRL's trainer, a process each), auto: shared where it can."""
    exact: bool = False
    """On the shared engine: a forward pass for each stream, so that its results are bit for bit the same whoever trains beside it."""
    gradient_accumulation_steps: Positive = 1
    """Forward passes per optimizer step."""
    num_epochs: Annotated[float, Field(gt=0)] = 1.0
    """Passes over the rows."""
    max_steps: Positive | None = None
    """Optimizer steps; wins over num_epochs."""
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    """Of the order of rows, the adapter's first values and dropout."""
    seeds: Annotated[int, Field(ge=1, le=MOST_SEEDS)] | None = None
    """So many replicas, `NAME.s1` and so on, with the seeds from `seed` on; promotion compares their means by their spread."""
    sweep_lr: Annotated[list[Annotated[float, Field(gt=0)]], Field(max_length=MOST_RATES)] = []
    """A stream for each of these learning rates, `NAME.lr0.0002` and so on."""
    search: Search | None = None
    """Trials in place of this stream, `NAME.t1` and so on: the settings below."""
    replica_of: str | None = None
    """Whose replica it is; set by `seeds`."""

    # cadence
    logging_steps: Positive = 1
    """Figures every so many steps."""
    report_to: list[Tracker] = []
    """Programs that draw the figures too, each an extra of its own; tensorboard writes events into the run folder."""
    eval_steps: Positive | None = None
    """Held-out loss every so many steps, and at the end; unset: only by validator and evaluator."""
    save_hours: Annotated[float, Field(gt=0)] | None = None
    """A checkpoint as soon as so much training is not in one, besides."""
    save_steps: Positive = 50
    """A checkpoint every so many steps."""
    save_total_limit: Positive = 2
    """Checkpoints that are kept of a stream, the newest; the best one beside them."""
    save: Literal["best", "last"] = "best"
    """Which checkpoint is judged and published: the one with the lowest held-out loss where `eval_steps` measures it, or the last."""

    # judging
    max_heldout_ratio: Annotated[float, Field(gt=0)] = 1.0
    """The validator warns when held-out loss of adapter / base is above this."""
    eval_rows: Annotated[int, Field(ge=0)] = 64
    """Held-out rows that are answered by generation and compared exactly; 0: only the held-out loss."""
    eval_max_new_tokens: Positive = 128
    """An answer is cut after so many."""
    metrics: list[Metric] = ["exact_match", "ended"]
    """Figures of adapter and base on held-out rows and answers, beside the held-out loss."""
    temperature: Annotated[float, Field(ge=0)] = 0.0
    """0: each answer takes the likeliest token; above: tokens are drawn, with `eval_seed`."""
    top_p: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Of the tokens that are drawn from, the likeliest that make up this share."""
    eval_seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    """Of the tokens that are drawn; base and adapter draw with the same."""
    json_schema: str | None = None
    """A file with the JSON schema that answers are to match (metric `json_schema`)."""
    judge: Judge | None = None
    """A model that compares the answers of adapter and base: the settings below."""
    banned_strings: list[str] = [
        "Human:", "Machine:", "<|user|>", "<|system|>", "<|assistant|>", "As an AI language model", "### Instruction:", "### Response:",
    ]  # fmt: skip
    """What no answer is to hold (metric `banned`)."""

    @property
    def chooses_steps(self) -> bool:
        """Whether its checkpoint is chosen by held-out loss."""
        return self.eval_steps is not None and self.save == "best"

    @property
    def parts(self) -> dict[str, Part]:
        """The models of this stream by name: one, whose settings are the stream's own.

        A method that trains several gives its settings class its own `parts` and `part_steps`.
        """
        return {"model": self}

    def part_steps(self, name: str) -> list[str]:
        """The keys that lead from a stream to the settings of one of its parts."""
        return []


class Placement(Settings):
    """Where streams run."""

    gpus: Literal["all", "none"] | list[Annotated[int, Field(ge=0)]] = "all"
    """GPU indices; `all` on a machine without any means the CPU."""
    streams_per_gpu: Literal["auto"] | Positive = "auto"
    """auto: as many as a memory estimate says will fit; the rest waits."""
    cpu_streams: Literal["auto"] | Positive = "auto"
    """Streams that train at once on a CPU; the cores are divided among their processes."""


class Promotion(Settings):
    """Which stream wins, and what it must beat."""

    metric: Annotated[str, AfterValidator(_with_goal), OneOf(figures.with_goal)] = "eval_loss"
    """The figure by which streams are compared, e.g. eval_loss: held-out loss, exact_match: share of answers that are exactly right."""
    goal: Goal | None = None
    """Unset: the figure's own, min for eval_loss and max for exact_match."""
    must_beat: Literal["base", "nothing"] = "base"
    """base: only who is better than the bare base by that metric, and not by chance, is promoted."""
    test_level: Annotated[float, Field(gt=0, lt=1)] = 0.01
    """How often a difference that is chance may be taken for more, over all comparisons of a promotion together (Holm)."""
    tie_break: Literal["cheaper", "best"] = "cheaper"
    """Of streams that cannot be told apart: the one with fewer trainable parameters, then fewer seconds; or the best figure all the same."""
    seed_spread: Annotated[float, Field(gt=0)] | None = None
    """Standard deviation of the metric over seeds, where it is known from elsewhere; `seeds` of a stream measures it."""
    approvals: Annotated[int, Field(ge=0)] = 0
    """`approve` entries wanted before the winner is promoted (of different authors)."""
    approvers: list[Name] = []
    """Whose `approve` entries count; empty: everybody's.  Without `approvals` all of them are wanted."""

    @property
    def direction(self) -> Goal:
        """Which end wins.  The config is refused where neither it nor the table of figures says so."""
        chosen = self.goal or figures.of(self.metric).goal
        assert chosen, f"promotion by {self.metric}, which has no goal"
        return chosen


class Halving(Settings):
    """Early exit of the streams that are not among the best."""

    first_step: Positive
    """The first rung: a checkpoint whose held-out loss is measured, so a multiple of `save_steps` and of `eval_steps`."""
    reduction: Annotated[int, Field(ge=2)] = 3
    """One in so many goes on beyond a rung, and each rung is so many times the steps of the one before."""


class RunSettings(Settings):
    """A whole config after reading: defaults laid into the streams."""

    name: Name
    """Of the run; its folder begins with it."""
    streams: dict[Name, SerializeAsAny[StreamSettings]]
    """The fine-tunes by name, each with the settings of a stream; a name alone takes all from `defaults`."""
    placement: Placement = Placement()
    """Where streams run: the settings below."""
    promotion: Promotion = Promotion()
    """Which stream wins: the settings below."""
    halving: Halving | None = None
    """Early exit: the settings below; unset: every stream is trained to its end."""
    lease_seconds: Annotated[float, Field(ge=10)] = 60.0
    """A worker that is silent this long loses its task (>= 10 heartbeats)."""
    stall_seconds: Annotated[float, Field(gt=0)] = 60.0
    """A task that makes no progress this long (no step, no row) is shown as stalled, although its worker sends heartbeats."""
    stop_seconds: Annotated[float, Field(gt=0)] = 60.0
    """How long a worker may take to save once it is told to stop; then SIGTERM, 15 s later SIGKILL of its group."""
    retries: Annotated[int, Field(ge=0)] = 1
    """Further attempts at a task after a failure."""
    roles: dict[Role, Annotated[list[Doer], Field(min_length=1)]] = {}
    """Who does a role's tasks, `{validate: ["agent:ada", worker]}`: they wait for the agents named; unset: workers."""
    roles_wait_seconds: Annotated[float, Field(ge=0)] = 600.0
    """How long a task waits for its agents; then a worker takes it where `worker` is listed, else its stream fails."""
    validation_minutes: Annotated[float, Field(gt=0)] = 30.0
    """Time limit of a validation; no answer by then counts as FAIL."""
    listen: Listen | None = None
    """`tcp://ADDRESS:PORT`: members on other machines may join there and at PORT + 1, by key; unset: a socket on this machine."""
    runs_dir: str = "runs"
    """Where run folders are made; relative to the folder in which `swarm run` is typed."""

    def dumped(self) -> dict[str, Any]:
        return self.model_dump(mode="json")
