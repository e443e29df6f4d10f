"""python -m trainer.ship.compare MODEL... [--prompt TEXT | --prompts FILE] [--system TEXT] [--temperature T] ...

Puts the same prompts to a base and its adapters.  Standard output: one JSON object a line, first the models and how they were asked,
then each prompt with its answers, as soon as it has them; `swarm compare` makes the table and the page of it.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from swarm.errors import UserError
from swarm.printable import printable
from swarm.surroundings import open_output
from trainer.device import place_of, set_environment
from trainer.quiet import quieten
from trainer.ship.sources import add_models, named_in

if TYPE_CHECKING:
    from trainer.ship.answering import Sampling
    from trainer.ship.models import Models

BUILT_IN = (
    "What is 17 plus 25? Answer with the number alone.",
    "Name the three primary colours, one on each line.",
    "Translate into French: The book is on the table.",
    "Write the numbers 3, 9 and 27 as a JSON list.",
    'Convert to JSON: name = "Ada", born = 1815',
    'Convert to TOON: {"rows": [{"id": 1, "ok": true}, {"id": 2, "ok": false}]}',
    'Which value has the key "b" in {"a": 1, "b": [2, 3]}?',
    "Sort these words: pear, apple, fig.",
    "Write one sentence about the sea.",
    "Summarise in five words: The train was late because snow had covered the tracks overnight.",
    "Correct the spelling: Ther are to many peple here.",
    "Is 91 a prime number? Explain in one sentence.",
    "Write a Python function that returns the larger of two numbers.",
    "What does this print? print(len('swarm') * 2)",
    "A shop sells pens at 3 for 2 euros. How much are 12 pens?",
    "Give the opposite of each: hot, early, empty.",
    "Continue the series: 2, 4, 8, 16,",
    "Extract the date: The contract was signed on 4 May 2021 in Lyon.",
    "Is this review positive or negative? The battery died after a day.",
    "Write a polite refusal of an invitation to dinner, in two sentences.",
    "What do you not know about me? Answer briefly.",
)
"""What is asked where nothing is named: short tasks whose answers a reader can judge at a glance."""


def asked(models: Models, prompts: list[str], system: str | None) -> list[dict[str, list[int]]]:
    """Each prompt in tokens, by model.  Raises UserError, before anything is answered."""
    from trainer.data.bad import NotARow

    found: list[dict[str, list[int]]] = []
    for number, prompt in enumerate(prompts, start=1):
        turns = [*([{"role": "system", "content": system}] if system else []), {"role": "user", "content": prompt}]
        try:
            found.append({name: models.conversation(name, turns) for name in models.answering})
        except NotARow as error:
            raise UserError(f"prompt {number}", error.what, error.fix) from error
    return found


def _answered(models: Models, name: str, prompt: list[int], sampling: Sampling) -> dict[str, Any]:
    found = models.answer(name, prompt, sampling)
    return {
        "model": name, "text": found.text.strip(), "prompt_tokens": found.prompt_tokens, "tokens": found.tokens,
        "seconds": round(found.seconds, 3), "tokens_per_second": round(found.tokens_per_second, 1), "ended": found.ended,
    }  # fmt: skip


def _about(models: Models, options: argparse.Namespace) -> dict[str, Any]:
    sources = models.sources
    return {
        "base": sources.base_name, "models": models.answering, "system": options.system,
        "temperature": options.temperature, "top_p": options.top_p, "seed": options.seed,
        "max_new_tokens": options.max_new_tokens, "base_in_nf4": sources.quantised,
    }  # fmt: skip


def add_sampling(parser: argparse.ArgumentParser, max_new_tokens: int) -> None:
    parser.add_argument("--system", help="a system message before each prompt")
    parser.add_argument("--max-new-tokens", type=int, default=max_new_tokens, metavar="N")
    parser.add_argument("--temperature", type=float, default=0.0, help="0: always the likeliest token")
    parser.add_argument("--top-p", type=float, default=1.0)
    parser.add_argument("--seed", type=int, default=0, help="of the sampling, where the temperature is above 0")


def prompts_of(options: argparse.Namespace) -> list[str]:
    from trainer.ship.models import prompts_in

    typed = list(options.prompt or [])
    read = prompts_in(options.prompts) if options.prompts else []
    return [*typed, *read] or list(BUILT_IN)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m trainer.ship.compare", description=__doc__.partition("\n")[0])
    add_models(parser)
    add_sampling(parser, max_new_tokens=128)
    parser.add_argument("--prompt", action="append", metavar="TEXT")
    parser.add_argument("--prompts", type=Path, metavar="FILE", help="lines of text, or JSON lines")
    options = parser.parse_args(argv)
    open_output()
    quieten()
    set_environment(options.device)
    try:
        sources = named_in(options)
        from trainer.ship.answering import Sampling
        from trainer.ship.models import Models

        prompts = prompts_of(options)
        models = Models(sources, place_of(options.device), trust_remote_code=options.trust_remote_code)
        ids = asked(models, prompts, options.system)
        models.warm_up()
        print(json.dumps({**_about(models, options), "prompts": len(prompts)}), flush=True)
        sampling = Sampling(options.max_new_tokens, options.temperature, options.top_p, options.seed)
        for number, (prompt, by_model) in enumerate(zip(prompts, ids, strict=True), start=1):
            answers = [_answered(models, name, by_model[name], sampling) for name in models.answering]
            print(json.dumps({"number": number, "prompt": prompt, "answers": answers}), flush=True)
    except UserError as error:
        print(printable(str(error)), file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
