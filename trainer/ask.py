"""python -m trainer.ask --run RUN --adapter PATH --base NAME --settings FILE PROMPT... [--json | --toon]

Questions to the bare base and to a tuned adapter, answered side by side.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, cast

from swarm.errors import UserError
from swarm.printable import printable
from swarm.surroundings import open_output
from trainer import bases
from trainer.place import Place
from trainer.quiet import quieten
from trainer.show import add_forms, print_form, settings_of

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from swarm.settings import StreamSettings


def asked(
    questions: Sequence[str], adapter: Path, settings: StreamSettings, place: Place
) -> list[dict[str, str | bool]]:
    """For each question the answers of `base` and `adapter`, and whether they were cut.

    Raises UserError for a question that is longer than the rows that were trained on.
    """
    from trainer.data.bad import NotARow
    from trainer.data.tokens import stop_tokens, tokeniser_of
    from trainer.judge.answers import generated
    from trainer.loading import load_adapter, load_base, load_tokenizer

    folder = bases.folder_of(settings.base_model)
    tokenizer = load_tokenizer(folder, trust_remote_code=settings.trust_remote_code)
    stops = stop_tokens(tokenizer, folder)
    tokeniser = tokeniser_of(settings, tokenizer, stops)
    separator, most = settings.datasets[0].separator, settings.eval_max_new_tokens
    try:
        prompts = [tokeniser.prompt(question, separator) for question in questions]
    except NotARow as error:
        raise UserError("PROMPT", error.what, error.fix) from error
    model = load_base(folder, settings, place)

    def answers(asked_model: PreTrainedModel) -> list[tuple[str, bool]]:
        found = [generated(asked_model, [prompt], sorted(stops), most)[0] for prompt in prompts]
        return [(str(tokenizer.decode(ids, skip_special_tokens=True)).strip(), len(ids) == most) for ids in found]

    of_base = answers(model)
    of_adapter = answers(cast("PreTrainedModel", load_adapter(model, adapter)))
    return [
        {"base": base, "adapter": tuned, "base_cut": base_cut, "adapter_cut": tuned_cut}
        for (base, base_cut), (tuned, tuned_cut) in zip(of_base, of_adapter, strict=True)
    ]


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m trainer.ask", description="A question to base and adapter, side by side."
    )
    parser.add_argument("--run", type=Path, required=True, help="the run's folder")
    parser.add_argument("--adapter", type=Path, required=True, help="folder of the adapter, absolute or inside the run")
    parser.add_argument("--base", help="base model; by default that of the settings")
    parser.add_argument("--settings", type=Path, required=True, help="the stream's settings as JSON")
    parser.add_argument("--device", default="cpu", help="cpu, or gpu0")
    add_forms(parser)
    parser.add_argument("prompts", metavar="PROMPT", nargs="+")
    arguments = parser.parse_args(argv)
    open_output()
    quieten()
    try:
        settings = settings_of(arguments.settings)
        settings = settings.model_copy(update={"base_model": arguments.base or settings.base_model})
        adapter = arguments.run / arguments.adapter
        if not (adapter / "adapter_config.json").is_file():
            raise UserError("--adapter", f"{adapter} holds no adapter", "name a folder with adapter_config.json")
        answers = asked(arguments.prompts, adapter, settings, Place(arguments.run, arguments.device))
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    if not print_form(answers if len(answers) > 1 else answers[0], arguments.form):
        cut = f" [cut after {settings.eval_max_new_tokens} tokens: --max-new-tokens N]"
        for answer in answers:
            for who in ("base", "adapter"):
                print(printable(f"{who + ':':<9}{answer[who]}{cut if answer[f'{who}_cut'] else ''}"))
    return 0


if __name__ == "__main__":
    sys.exit(main())
