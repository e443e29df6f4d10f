"""Of a stream: one fine-tune."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import AfterValidator, Field, StringConstraints

from swarm import figures
from swarm.keys import OneOf, Positive, Reads, Settings
from swarm.settings.part import KindName, Part
from swarm.settings.search import Search

Tracker = Literal["tensorboard", "trackio", "wandb"]
MOST_SEEDS, MOST_RATES = 64, 16
"""Streams that one stream of a config may become: a typing error must not fill the memory."""


def _can_be_measured(metric: str) -> str:
    if metric not in figures.measurable():
        raise ValueError("not a figure that the evaluator measures")
    return metric


Metric = Annotated[str, AfterValidator(_can_be_measured), OneOf(figures.measurable)]


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


class StreamSettings(Part):
    """One fine-tune.  `defaults` in a config are copied into every stream; a stream's own keys win."""

    has_stops: ClassVar[bool] = True

    method: KindName = "sft"
    """How it is tuned."""
    engine: Literal["auto", "shared", "trl"] = "auto"
    """What trains it: shared (streams of one base in one process), trl (TRL's trainer, a process each), auto: shared where it can."""
    use_liger_kernel: bool = False
    """Layers of Liger's Triton kernels in place of the base's own, on a GPU (`engine: trl`; `pip install 'toonswarm[liger]'`)."""
    use_kernels: bool = False
    """The same with compiled kernels that transformers downloads from the hub (`engine: trl`; `pip install 'toonswarm[kernels]'`)."""
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
    evals_per_run: Annotated[int, Field(ge=2)] | None = None
    """Held-out loss so many times in place of `eval_steps`: before the first step, at the last one, and evenly between."""
    save_hours: Annotated[float, Field(gt=0)] | None = None
    """A checkpoint as soon as so much training is not in one, besides."""
    save_steps: Positive = 50
    """A checkpoint every so many steps."""
    save_total_limit: Annotated[int, Field(ge=0)] = 2
    """Checkpoints that are kept of a stream, the newest; the best one beside them; 0: all."""
    save: Literal["best", "last"] = "best"
    """Which checkpoint is judged and published: the one with the lowest held-out loss where `eval_steps` or `evals_per_run` measures it, or the last."""

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
        return self.evaluates_itself and self.save == "best"

    @property
    def evaluates_itself(self) -> bool:
        """Whether held-out loss is measured while it trains."""
        return self.eval_steps is not None or self.evals_per_run is not None

    def evaluates_after(self, step: int, steps: int) -> bool:
        """Whether held-out loss is due after this one of so many steps; step 0 is before the first one."""
        if self.evals_per_run is not None:
            last = self.evals_per_run - 1
            return any(step == round(number * steps / last) for number in range(last + 1))
        return self.eval_steps is not None and step > 0 and step % self.eval_steps == 0

    @property
    def parts(self) -> dict[str, Part]:
        """The models of this stream by name: one, whose settings are the stream's own.

        A method that trains several gives its settings class its own `parts` and `part_steps`.
        """
        return {"model": self}

    def part_steps(self, name: str) -> list[str]:
        """The keys that lead from a stream to the settings of one of its parts."""
        return []
