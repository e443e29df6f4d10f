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
from trainer.device import place_of, set_environment
from trainer.place import Place
from trainer.quiet import quieten
from trainer.show import add_forms, print_form, settings_of

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from swarm.settings import StreamSettings


def asked(
    questions: Sequence[str], adapter: Path, settings: StreamSettings, place: Place
) -> list[dict[str, str | bool | int]]:
    """For each question the answers of `base` and `adapter`, whether they were cut, and after how many tokens they would be.

    Raises UserError for a question that is longer than the rows that were trained on, or leaves the base no position.
    """
    from trainer.data.bad import NotARow
    from trainer.data.prompt import Asker, prompt_of_rows, read_prompt
    from trainer.data.tokens import stop_tokens
    from trainer.judge.answers import generated, room_for
    from trainer.loading import load_adapter, load_base, load_tokenizer

    folder = bases.folder_of(settings.base_model)
    tokenizer = load_tokenizer(folder, trust_remote_code=settings.trust_remote_code)
    prompt = read_prompt(adapter) or prompt_of_rows(settings, tokenizer, stop_tokens(tokenizer, folder))
    asker, most = Asker(tokenizer, prompt, settings.sequence_len), settings.eval_max_new_tokens
    stops = list(prompt.stop_tokens)
    try:
        prompts = [asker.question(question) for question in questions]
    except NotARow as error:
        raise UserError("PROMPT", error.what, error.fix) from error
    model = load_base(folder, settings, place)
    rooms = [room_for(model, len(prompt), most) for prompt in prompts]
    if min(rooms) < 1:
        raise UserError("PROMPT", "the question takes all positions that the base has", "ask a shorter one")

    def answers(asked_model: PreTrainedModel) -> list[tuple[str, bool]]:
        found = [generated(asked_model, [prompt], stops, most)[0] for prompt in prompts]
        return [(str(tokenizer.decode(ids, skip_special_tokens=True)).strip(), not ended) for ids, ended in found]

    of_base = answers(model)
    of_adapter = answers(cast("PreTrainedModel", load_adapter(model, adapter)))
    return [
        {"base": base, "adapter": tuned, "base_cut": base_cut, "adapter_cut": tuned_cut, "max_new_tokens": room}
        for (base, base_cut), (tuned, tuned_cut), room in zip(of_base, of_adapter, rooms, strict=True)
    ]


def _cut(room: int, wanted: int) -> str:
    why = "--max-new-tokens N" if room == wanted else "the base has no more positions"
    return f" [cut after {room} tokens: {why}]"


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m trainer.ask", description="A question to base and adapter, side by side."
    )
    parser.add_argument("--run", type=Path, required=True, help="the run's folder")
    parser.add_argument("--adapter", type=Path, required=True, help="folder of the adapter, absolute or inside the run")
    parser.add_argument("--base", help="base model; by default that of the settings")
    parser.add_argument("--settings", type=Path, required=True, help="the stream's settings as JSON")
    parser.add_argument("--device", help="cpu, or gpu0; default: a GPU where there is one")
    add_forms(parser)
    parser.add_argument("prompts", metavar="PROMPT", nargs="+")
    arguments = parser.parse_args(argv)
    open_output()
    set_environment(arguments.device)
    quieten()
    try:
        place = place_of(arguments.device, arguments.run)
        settings = settings_of(arguments.settings)
        settings = settings.model_copy(update={"base_model": arguments.base or settings.base_model})
        adapter = arguments.run / arguments.adapter
        if not (adapter / "adapter_config.json").is_file():
            raise UserError("--adapter", f"{adapter} holds no adapter", "name a folder with adapter_config.json")
        answers = asked(arguments.prompts, adapter, settings, place)
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    if not print_form(answers if len(answers) > 1 else answers[0], arguments.form):
        for answer in answers:
            cut = _cut(int(answer["max_new_tokens"]), settings.eval_max_new_tokens)
            for who in ("base", "adapter"):
                print(printable(f"{who + ':':<9}{answer[who]}{cut if answer[f'{who}_cut'] else ''}"))
    return 0


if __name__ == "__main__":
    sys.exit(main())
