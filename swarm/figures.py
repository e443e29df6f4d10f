"""The figures of a run: one table says of each what it is, its unit, which end of it is better and how it is printed; pure.

A figure is a name and a number, `figures: dict[str, float]`, in metric rows, events, exports and on screens.  A new one is one line in
`FIGURES`; whoever measures it reports it under that name, and nothing else has to know it.  Of the bare base it is `base_<name>`.

A name without a line in the table is taken too: it is printed under its own name, has no unit, and no promotion goes by it.  Names
and numbers come from workers and agents, so they are bounded: a name is [a-z][a-z0-9_]* of at most 40 characters and none of
`RESERVED`, a message or an event has at most 64 figures, a run's database at most 256, and a whole number has at most 63 bits.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, Literal

from swarm import units

Goal = Literal["min", "max"]

BASE = "base_"
"""Begins the name of a figure of the bare base, measured as the adapter's of that name."""
OF_MODELS = ("encoder_", "decoder_")
"""Begin the names of figures of one of a stream's two models."""
TIE = "a tie"
"""The reason of a promotion begins with it where nothing was better than chance."""
MAX_NAME = 40
MAX_FIGURES = 64
"""In one message or event."""
MAX_FIGURES_OF_A_RUN = 256
"""Columns that a run's database gets; SQLite itself takes 2000."""
MAX_WHOLE = 1 << 63
"""Whole numbers are below it: SQLite's integers have eight bytes."""

NAME = re.compile(rf"[a-z][a-z0-9_]{{0,{MAX_NAME - 1}}}")
RESERVED = frozenset({
    "answers", "base_sha256", "body", "cmd", "figures", "idem", "kind", "len", "overlap", "path", "ref", "result", "rows", "rows_sha256", "scores_sha256", "sha256",
    "start_sha256", "step", "steps", "stream", "time", "tok", "token", "trainable", "versions", "via", "why",
})  # fmt: skip
"""What else stands in a metrics table or in the header of an entry with figures."""


@dataclass(frozen=True, slots=True)
class Figure:
    """What is known of a figure beside its value."""

    label: str
    """Heading of a column, and its name in a sentence."""
    unit: str = ""
    goal: Goal | None = None
    """Which end is better; for figures by which streams are compared: measured of adapter and bare base on the held-out rows."""
    text: Callable[[float | None], str] = units.number
    """The value as it is printed."""
    of: Literal["", "rows", "answers", "retention"] = ""
    """What the evaluator measures it on, if the setting `metrics` names it: held-out rows, generated answers, or what the base
    could do before."""
    compared_as: str = ""
    """The figure whose values row by row are compared in place of its own: a perplexity is compared as the loss it is made of."""
    package: str = ""
    """The module that computes it, if that is none of ours; it comes with the extra `judge`."""


def _share(label: str, goal: Goal | None = None) -> Figure:
    return Figure(label, "share of the answers", goal, units.percent, "answers")


def _overlap(label: str, unit: str, package: str) -> Figure:
    """How much of the expected text an answer holds."""
    return Figure(label, unit, "max", of="answers", package=package)


FIGURES: dict[str, Figure] = {
    "loss": Figure("loss", "nats per supervised token", text=units.loss),
    "ce": Figure("cross entropy", "nats per supervised token", text=units.loss),
    "kl": Figure("KL in training", "nats per supervised token, from the base or the teacher", text=units.loss),
    "loss_toward": Figure("towards", "nats per supervised token of class 1", text=units.loss),
    "loss_away": Figure("away", "nats per supervised token of class -1", text=units.loss),
    "loss_neutral": Figure("neutral", "nats per supervised token of class 0", text=units.loss),
    "tokens_toward": Figure("tokens towards", "supervised tokens of class 1 in a step", text=units.count),
    "tokens_away": Figure("tokens away", "supervised tokens of class -1 in a step", text=units.count),
    "tokens_neutral": Figure("tokens neutral", "supervised tokens of class 0 in a step", text=units.count),
    "first_loss": Figure("first loss", "nats per supervised token", text=units.loss),
    "best_loss": Figure("best", "nats per supervised token", text=units.loss),
    "eval_loss": Figure("held-out", "nats per supervised token", "min", units.loss),
    "sealed_loss": Figure("sealed", "nats per supervised token", text=units.loss),
    "perplexity": Figure("perplexity", "exp of the loss", "min", units.loss, "rows", "eval_loss"),
    "eval_token_accuracy": Figure(
        "held-out acc", "share of the held-out tokens that are the likeliest", text=units.percent, of="rows"
    ),
    "exact_match": _share("exact match", "max"),
    "exact_match_normalised": _share("exact, normalised", "max"),
    "ended": _share("ended", "max"),
    "accuracy": _share("accuracy", "max"),
    "f1": Figure("F1", "of the labels, the mean; row by row whether it is right", "max", units.percent, "answers"),
    "positive_f1": Figure(
        "F1+", "of the last of the labels alone, as GLUE counts label 1", "max", units.percent, "answers"
    ),
    "rouge_1": _overlap("ROUGE-1", "F1, 0 to 1", "rouge_score"),
    "rouge_2": _overlap("ROUGE-2", "F1, 0 to 1", "rouge_score"),
    "rouge_l": _overlap("ROUGE-L", "F1, 0 to 1", "rouge_score"),
    "bleu": _overlap("BLEU", "0 to 100, of all answers; row by row of each", "sacrebleu"),
    "chrf": _overlap("chrF", "0 to 100, of all answers; row by row of each", "sacrebleu"),
    "json_valid": _share("JSON", "max"),
    "json_schema": replace(_share("JSON schema", "max"), package="jsonschema"),
    "toon_valid": _share("TOON", "max"),
    "headings": _share("headings"),
    "lists": _share("lists"),
    "bold": _share("bold"),
    "words": Figure("words", "words of an answer", of="answers"),
    "banned": Figure("banned", "banned strings in an answer", "min", of="answers"),
    "answer_tokens_per_second": Figure("answer tok/s", "tokens generated per second", text=units.count, of="answers"),
    "judge_score": Figure("judge", "share of the pairs in which a model prefers it, ties half", text=units.percent),
    "judge_agreement": Figure("judge agrees", "share of the pairs of which one is exact", text=units.percent),
    "judge_failed": Figure("not judged", "pairs without a usable answer"),
    "judge_toon_tokens": Figure("judge TOON", "tokens of the tables that it read", text=units.count),
    "judge_json_tokens": Figure("judge JSON", "tokens of the same as compact JSON", text=units.count),
    "retention_loss": Figure("unrelated text", "nats per token", text=units.loss, of="retention"),
    "kl_to_base": Figure("KL to base", "nats per token of held-out prompts", of="retention"),
    "skills": Figure("base skills", "share of a short list", text=units.percent, of="retention"),
    "skills_lost": Figure("lost", "skills of the list", of="retention"),
    "skills_gained": Figure("gained", "skills of the list", of="retention"),
    "entropy": Figure("entropy", "nats of the next token, where the loss counts", text=units.loss),
    "token_accuracy": Figure("token acc", "share of the counted tokens that are the likeliest", text=units.percent),
    "learning_rate": Figure("lr", text=units.rate),
    "grad_norm": Figure("grad norm"),
    "loss_scale": Figure("loss scale", "factor of the loss in float16", text=units.count),
    "phi": Figure("phi", "stress of the training: 0 to 1, of `orbital` nats"),
    "mode": Figure("mode", "0 single, 1 multi, 2 mirror; of `orbital` 0 high, 1 base, 2 low", text=units.count),
    "conflict": Figure("conflict", "of the tasks' adapters, 0 to 1"),
    "stability": Figure("stability", "of what was learned before, 0 to 1"),
    "anchor_loss": Figure("anchor", "nats per token of the anchor rows", text=units.loss),
    "active_rank": Figure("ranks", "in use, the mean of the layers"),
    "adapter_norm": Figure("adapter norm", "|s B A|, the mean of the layers"),
    "adapter_norm_min": Figure("smallest norm", "|s B A|, the smallest of the layers"),
    "adapter_norm_max": Figure("largest norm", "|s B A|, the largest of the layers"),
    "adapter_decay": Figure("decay", "share of |s B A| taken off in a step, the mean of the layers"),
    "adapter_decay_min": Figure("smallest decay", "the smallest of the layers"),
    "adapter_decay_max": Figure("largest decay", "the largest of the layers"),
    "adapter_orthogonality": Figure("orthogonality", "|Q^T Q - 1| of a spectral adapter, the largest of the layers"),
    "epoch": Figure("epoch", "passes over the rows"),
    "tokens": Figure("tokens", "tokens since training began", text=units.count),
    "supervised": Figure("supervised", "supervised tokens of the step", text=units.count),
    "padded": Figure("pads", "share of the tokens computed", text=units.percent),
    "supervised_tokens": Figure("counted", "tokens that the loss counted since training began", text=units.count),
    "tokens_per_second": Figure("tok/s", "tokens per second", text=units.count),
    "memory_bytes": Figure("memory", "bytes", text=units.size),
    "peak_bytes": Figure("peak", "bytes above the imports", text=units.size),
    "seconds": Figure("trained", "seconds of training in all attempts", text=units.duration),
}
"""Every figure that has a meaning of its own."""


def of(name: str) -> Figure:
    """What is known of a figure; one that the table lacks is a plain number under its own name."""
    if name in FIGURES:
        return FIGURES[name]
    for prefix in (BASE, *OF_MODELS):
        if name.startswith(prefix):
            known = of(name.removeprefix(prefix))
            return Figure(f"{prefix[:-1]} {known.label}", known.unit, None, known.text)
    return Figure(name.replace("_", " "))


def with_goal() -> tuple[str, ...]:
    """The figures by which streams are compared."""
    return tuple(name for name, figure in FIGURES.items() if figure.goal)


def measurable() -> tuple[str, ...]:
    """What the setting `metrics` may name."""
    return tuple(name for name, figure in FIGURES.items() if figure.of)


def is_compared(name: str) -> bool:
    """Whether it is one of those, of the adapter or of the bare base."""
    return name.removeprefix(BASE) in with_goal()


def split(figures: Mapping[str, float]) -> tuple[dict[str, float], dict[str, float]]:
    """The adapter's figures and the bare base's, both under their plain names."""
    own = {name: value for name, value in figures.items() if not name.startswith(BASE)}
    base = {name.removeprefix(BASE): value for name, value in figures.items() if name.startswith(BASE)}
    return own, base


def with_base(own: Mapping[str, float], base: Mapping[str, float]) -> dict[str, float]:
    """The other way round."""
    return {**own, **{f"{BASE}{name}": value for name, value in base.items()}}


# ---- what comes from outside -----------------------------------------------------------------------------------------


@lru_cache(maxsize=1024)
def checked_name(name: str) -> str:
    """The name itself.  Raises ValueError for one that no figure can have."""
    if not NAME.fullmatch(name) or name in RESERVED:
        raise ValueError(
            f"{name[:60]!r} is no name of a figure: [a-z][a-z0-9_]*, at most {MAX_NAME} characters, none of a header's own keys"
        )
    return name


def as_name(text: str) -> str:
    """The name of a figure that a library calls otherwise: `rewards/chosen` is rewards_chosen."""
    name = re.sub(r"[^a-z0-9_]+", "_", text.lower())[:MAX_NAME]
    return name if NAME.fullmatch(name) and name not in RESERVED else f"of_{name}"[:MAX_NAME]


def number(value: Any) -> float:
    """A figure's value, also from its text; whole numbers stay whole.  Raises ValueError."""
    found = _of_text(value) if type(value) is str else value
    if type(found) is float or (type(found) is int and -MAX_WHOLE <= found < MAX_WHOLE):
        return found
    raise ValueError(f"{str(value)[:60]!r} is no number (a whole one is below 2**63)")


def _of_text(text: str) -> float | None:
    try:
        return int(text) if text.isdecimal() and len(text) < 20 else float(text)
    except ValueError:
        return None
