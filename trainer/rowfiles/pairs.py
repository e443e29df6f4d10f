"""Pairs of a chosen and a rejected answer, as DPO and ORPO read them: the rejected one is a part of the chosen one, or a model's own.

A rejected answer that is only shorter teaches length: `--length-matched` gives it as many words as the chosen one.
"""

from __future__ import annotations

import random
from argparse import Namespace
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

from swarm.errors import UserError
from trainer.data.messages import Turn
from trainer.data.rows import SYSTEM
from trainer.rowfiles.output import Made, jsonl, refuse_existing, written
from trainer.rowfiles.reading import conversation, dataset_of, files_read, rows_of

WAYS = ("truncate", "prefix", "base", "adapter")
"""truncate: cut after a random 30 to 70 % of its words; prefix: its first sentence; base, adapter: that model's own answer."""
SHORTEST, LONGEST = 0.3, 0.7
"""Share of the words that truncation keeps."""
LENGTH_TOLERANCE = 0.1
TEACHES_LENGTH = "the rejected answers are beginnings of the chosen ones: they teach length; --length-matched mends it"

SEVERAL_TURNS = "several turns"
"""Why a conversation makes no pair, which holds one question."""
OWN_SYSTEM = "a system message, for which pairs have no column: give the stream that `system_prompt`"

Reject = Callable[[Sequence[Turn], str, random.Random], str]


def run(arguments: Namespace) -> Made:
    refuse_existing(arguments.out, force=arguments.force)
    datasets = [dataset_of(path, arguments.type) for path in arguments.inputs]
    asked = [
        pair for dataset in datasets for where, row in rows_of(dataset) if (pair := _asked(conversation(where, row)))
    ]
    draw = random.Random(arguments.seed)
    if arguments.limit and arguments.limit < len(asked):
        asked = [asked[at] for at in sorted(draw.sample(range(len(asked)), arguments.limit))]
    reject = _way(arguments)
    answers = [chosen for _, chosen in asked]
    made, dropped = [], Counter[str]()
    for prompt, chosen in asked:
        if _has_several_turns(prompt):
            dropped[SEVERAL_TURNS] += 1
            continue
        rejected = reject(prompt, chosen, draw).strip()
        if arguments.length_matched:
            filling = answers if arguments.by in {"truncate", "prefix"} else []
            rejected = matched(rejected, chosen, [answer for answer in filling if answer != chosen], draw)
        if why := _degenerate(chosen, rejected):
            dropped[why] += 1
        else:
            made.append({"prompt": prompt[-1]["content"], "chosen": chosen, "rejected": rejected})
    if not made:
        fix = "name rows with one question each" if dropped[SEVERAL_TURNS] else "name rows with longer answers"
        raise UserError("pairs", f"no pair is left of {len(asked)} ({_in_words(dropped)})", fix)
    manifest = written(
        "pairs", arguments.out, jsonl(made), force=arguments.force, inputs=files_read(datasets), seed=arguments.seed, by=arguments.by,
        length_matched=arguments.length_matched, base=arguments.base, adapter=str(arguments.adapter or "") or None,
        rows=len(made), dropped=dict(dropped), mean_words=_mean_words(made),
    )  # fmt: skip
    warnings = [TEACHES_LENGTH] if arguments.by in {"truncate", "prefix"} and not arguments.length_matched else []
    systems = sum(any(turn["role"] in SYSTEM for turn in prompt) for prompt, _ in asked)
    warnings += [f"{systems} rows have {OWN_SYSTEM}"] if systems else []
    words = manifest["mean_words"]
    line = (
        f"{arguments.out}: {len(made)} pairs; words on average {words['chosen']} chosen, {words['rejected']} rejected"
    )
    return Made(manifest, f"{line}; dropped: {_in_words(dropped)}", warnings)


def _asked(turns: list[Turn]) -> tuple[list[Turn], str] | None:
    """The conversation up to its last answer, and that answer."""
    last = max((at for at, turn in enumerate(turns) if turn["role"] == "assistant"), default=0)
    chosen = turns[last]["content"].strip() if last else ""
    return (turns[:last], chosen) if chosen and not turns[last].get("tool_calls") else None


def _has_several_turns(prompt: Sequence[Turn]) -> bool:
    return [turn["role"] for turn in prompt if turn["role"] not in SYSTEM] != ["user"]


# ---- rejected answers ----


def _way(arguments: Namespace) -> Reject:
    match arguments.by:
        case "truncate":
            return truncated
        case "prefix":
            return first_sentence
        case _:
            return _generated(arguments)


def truncated(prompt: Sequence[Turn], chosen: str, draw: random.Random) -> str:
    words = chosen.split()
    return " ".join(words[: int(len(words) * draw.uniform(SHORTEST, LONGEST))])


def first_sentence(prompt: Sequence[Turn], chosen: str, draw: random.Random) -> str:
    """Of one sentence, its first half."""
    from trainer.rowfiles.markdown import points

    found, words = points(chosen), chosen.split()
    return found[0] if len(found) > 1 else " ".join(words[: len(words) // 2])


def _generated(arguments: Namespace) -> Reject:
    """By the model itself; loaded once."""
    from trainer.data.bad import NotARow
    from trainer.device import place_of, set_environment
    from trainer.ship.answering import Sampling
    from trainer.ship.models import Models
    from trainer.ship.sources import sources_of

    if arguments.by == "adapter" and arguments.adapter is None:
        raise UserError("--adapter", "is missing", "name the folder of the adapter whose answers are rejected")
    if arguments.by == "base" and arguments.base is None:
        raise UserError("--base", "is missing", "name the base whose answers are rejected")
    set_environment()
    words = [str(arguments.adapter)] if arguments.by == "adapter" else []
    models = Models(sources_of(words, arguments.base), place_of(None))
    name = models.names[-1]

    def reject(prompt: Sequence[Turn], chosen: str, draw: random.Random) -> str:
        try:
            ids = models.asker(name).conversation(prompt)
        except NotARow:  # too long, or a form that this base cannot be asked in: the pair is dropped
            return ""
        how = Sampling(arguments.max_new_tokens, arguments.temperature, arguments.top_p, draw.randrange(2**31))
        return models.answer(name, ids, how).text

    return reject


def matched(rejected: str, chosen: str, others: Sequence[str], draw: random.Random) -> str:
    """With as many words as the chosen one: cut, or continued with words of other rows' answers; empty where neither can be."""
    wanted, words = len(chosen.split()), rejected.split()
    if not words:
        return ""
    if len(words) < wanted * (1 - LENGTH_TOLERANCE):
        for other in draw.sample(list(others), min(len(others), wanted)):
            if len(words) >= wanted:
                break
            words += other.split()[: wanted - len(words)]
    if len(words) < wanted * (1 - LENGTH_TOLERANCE):
        return ""
    return (
        " ".join(words[:wanted]) if len(words) > wanted else rejected if words == rejected.split() else " ".join(words)
    )


def _degenerate(chosen: str, rejected: str) -> str:
    if not rejected:
        return "no rejected answer"
    same = " ".join(chosen.casefold().split()) == " ".join(rejected.casefold().split())
    return "equal answers" if same else ""


def _in_words(dropped: Counter[str]) -> str:
    return ", ".join(f"{count} with {why}" for why, count in dropped.items()) or "none"


def _mean_words(rows: Sequence[dict[str, Any]]) -> dict[str, float]:
    return {key: round(sum(len(row[key].split()) for row in rows) / len(rows), 1) for key in ("chosen", "rejected")}
