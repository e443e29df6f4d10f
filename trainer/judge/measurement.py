"""Adapters of one base and the bare base on the same rows, outside any run: rows are read here and now, and everybody answers them.

The base is loaded once and freshly; where the shared layers have all the adapters, everybody answers a question in one batch.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from transformers import PreTrainedModel

from swarm import kinds
from swarm.errors import UserError
from swarm.settings import PLAIN, Dataset, StreamSettings
from trainer import bases
from trainer.data.bad import BadRow, reason_of
from trainer.data.boundary import RowBoundary
from trainer.data.documents import Cutting
from trainer.data.prepared import counts_all
from trainer.data.prompt import Prompt, read_prompt
from trainer.data.settling import settled
from trainer.data.tokens import stop_tokens, tokeniser_of
from trainer.judge.answers import Sampling
from trainer.judge.examination import Examination, Graded, Result, objective_of
from trainer.judge.together import Together
from trainer.loading import load_adapter, load_base, load_tokenizer
from trainer.place import Place
from trainer.ship.sources import Source


@dataclass(frozen=True)
class Evaluated:
    """What base and adapters came to; `names` begins with the base."""

    names: list[str]
    graded: list[Graded]
    results: list[Result]
    examination: Examination


def evaluated(adapters: Sequence[Source], settings: StreamSettings, place: Place) -> Evaluated:
    """Raises UserError for rows that cannot be read and adapters that cannot be loaded."""
    folders = [adapter.folder for adapter in adapters]
    examination = examination_of(settings, folders)
    model = load_base(bases.folder_of(settings.base_model), settings, place)
    together = _together(model, folders) if has_words(settings) else None
    results = _at_once(examination, together) if together else _one_by_one(examination, model, folders, settings, place)
    names = ["base", *(adapter.name for adapter in adapters)]
    return Evaluated(names, [examination.graded(result) for result in results], results, examination)


def has_words(settings: StreamSettings) -> bool:
    """Whether its answers are words, which are generated."""
    return kinds.method(settings.method).words


def _together(model: PreTrainedModel, folders: Sequence[Path]) -> Together | None:
    try:
        return Together(model, folders)
    except UserError as why:
        print(f"one after another: {why.where}: {why.what}", file=sys.stderr)
    except (RuntimeError, ValueError, LookupError, TypeError, AttributeError) as why:  # no LoRA, or another base's
        print(f"one after another: {reason_of(why)}", file=sys.stderr)
    return None


def _at_once(examination: Examination, together: Together) -> list[Result]:
    settings, check = examination.settings, examination.check
    answers = together.answers(
        examination.asked,
        examination.tokenizer,
        examination.stops,
        settings.eval_max_new_tokens,
        check,
        Sampling.of(settings),
    )
    losses = [together.losses(slot, examination.rows, check) for slot in (0, *together.slots)]
    return [Result(*both) for both in zip(losses, answers, strict=True)]


def _one_by_one(
    examination: Examination, model: PreTrainedModel, adapters: Sequence[Path], settings: StreamSettings, place: Place
) -> list[Result]:
    found = [Result(examination.losses_of(model), examination.answers_of(model))]
    for folder in adapters:
        base = load_base(bases.folder_of(settings.base_model), settings, place)
        tuned = cast("PreTrainedModel", load_adapter(base, folder))
        found.append(Result(examination.losses_of(tuned), examination.answers_of(tuned)))
    return found


def examination_of(settings: StreamSettings, adapters: Sequence[Path] = ()) -> Examination:
    """On the rows of `test_datasets`, read here and now, and rendered as the adapters' rows were in training."""
    folder = bases.folder_of(settings.base_model)
    tokenizer = load_tokenizer(folder, trust_remote_code=settings.trust_remote_code)
    stops = stop_tokens(tokenizer, folder)
    if prompt := _prompt_of(adapters):
        tokenizer.chat_template, stops = prompt.chat_template, frozenset(prompt.stop_tokens)
    datasets = [as_in_training(one, prompt) for one in settings.test_datasets] if prompt else settings.test_datasets
    read = []
    system = prompt.system if prompt else settings.system_prompt
    reader = (
        tokeniser_of(settings, tokenizer, stops)
        if has_words(settings)
        else objective_of(settings).reader(settings, tokenizer, folder)
    )
    for item in RowBoundary(reader, system).rows(datasets):
        if isinstance(item, BadRow):
            raise UserError(item.where, item.what, item.fix)
        read += [(item.source, item.row)] if counts_all(item.row) else []
    rows = list(Cutting.of(settings, tokenizer).held_out(read, datasets))
    if not rows:
        raise UserError("--data", "no row is left to use", "check the columns with --type, or raise --sequence-len")
    return Examination.of(rows, sorted(stops), tokenizer, settings, lambda: None)


def as_in_training(dataset: Dataset, prompt: Prompt) -> Dataset:
    """Its prompts are written as those of the rows that were trained on."""
    changes: dict[str, object] = {"separator": prompt.separator} if prompt.separator else {}
    if prompt.template and settled(dataset).type not in {"chatml", *PLAIN}:
        changes |= {"prompt_template": prompt.template, "no_input_template": prompt.no_input_template}
    return dataset.model_copy(update=changes)


def _prompt_of(adapters: Sequence[Path]) -> Prompt | None:
    """How their rows were rendered; None where nothing beside them says so.  Raises UserError where they differ."""
    found = {folder: read_prompt(folder) for folder in adapters}
    if len({repr(prompt) for prompt in found.values()}) > 1:
        what = f"{adapters[0]} and others were trained with different chat templates"
        raise UserError("ADAPTER", what, "evaluate those of one template together")
    return next(iter(found.values()), None)
