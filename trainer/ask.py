"""python -m trainer.ask --run RUN --adapter PATH --base NAME --settings FILE [--task TASK] PROMPT... [--json | --toon]

Questions to the bare base and to a tuned adapter, answered side by side; or texts to an encoder, for their labels or vectors.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

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
    from trainer.prefix import Ahead

TieOf = Callable[["PreTrainedModel"], "Ahead | None"]


def asked(
    questions: Sequence[str], adapter: Path, settings: StreamSettings, place: Place, tie_of: TieOf = lambda _: None
) -> list[dict[str, str | bool | int]]:
    """For each question the answers of `base` and `adapter`, whether they were cut, and after how many tokens they would be.

    `tie_of`: what an encoder puts before the prompts of the model with its adapter.
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

    def answers(asked_model: PreTrainedModel, ahead: Ahead | None = None) -> list[tuple[str, bool]]:
        found = [generated(asked_model, [prompt], stops, most, ahead=ahead)[0] for prompt in prompts]
        return [(str(tokenizer.decode(ids, skip_special_tokens=True)).strip(), not ended) for ids, ended in found]

    of_base = answers(model)
    tuned = cast("PreTrainedModel", load_adapter(model, adapter))
    of_adapter = answers(tuned, tie_of(tuned))
    return [
        {"base": base, "adapter": tuned, "base_cut": base_cut, "adapter_cut": tuned_cut, "max_new_tokens": room}
        for (base, base_cut), (tuned, tuned_cut), room in zip(of_base, of_adapter, rooms, strict=True)
    ]


def told(
    texts: Sequence[str], adapter: Path, settings: StreamSettings, place: Place, task: str | None
) -> list[dict[str, str | list[float]]]:
    """For each text its label or its vector; without a task a label where there are any.  Raises UserError."""
    from trainer.data.bad import NotARow
    from trainer.ship.encoders import CLASSIFICATION, EMBEDDING, Encoder

    encoder = Encoder.of_adapter(adapter, settings, place)
    if task == CLASSIFICATION and not encoder.has_head:
        what = f"it learned {settings.method} and tells no labels"
        raise UserError("--task", what, f"ask for its vectors: --task {EMBEDDING}")
    try:
        found = [encoder.tokens(text) for text in texts]
    except NotARow as error:
        raise UserError("PROMPT", error.what, error.fix) from error
    if task == EMBEDDING or not encoder.has_head:
        return [{EMBEDDING: vector} for vector in encoder.vectors(found)]
    return [{"label": encoder.label(ids)} for ids in found]


def chosen(settings: StreamSettings, adapter: Path, task: str | None) -> tuple[StreamSettings, Path, bool]:
    """What answers a task: its settings, its adapter, and whether it is an encoder.  Raises UserError.

    Of a pair the encoder is asked for classification and embedding, the decoder for anything else; of one model it alone.
    """
    from swarm import kinds
    from swarm.weights import MODELS
    from trainer.ship.encoders import OF_ENCODERS

    if len(settings.parts) > 1:
        decoder, encoder = MODELS
        name = encoder if task in OF_ENCODERS else decoder
        settings, adapter = cast("StreamSettings", settings.parts[name]), adapter / name
    has_words = kinds.method(settings.method).words
    if has_words and task in OF_ENCODERS:
        fix = "leave it out, or name a stream of `method: duo`, classify, mlm or contrastive"
        raise UserError("--task", f"the adapter answers in words, and {task} is asked of an encoder", fix)
    return settings, adapter, not has_words


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
    parser.add_argument("--task", help="classification or embedding: of an encoder")
    parser.add_argument("--max-new-tokens", type=int, metavar="N", help="by default `eval_max_new_tokens`")
    parser.add_argument("--device", help="cpu, mps, or gpu0; default: a GPU where there is one")
    add_forms(parser)
    parser.add_argument("prompts", metavar="PROMPT", nargs="+")
    arguments = parser.parse_args(argv)
    open_output()
    set_environment(arguments.device)
    quieten()
    try:
        answers, lines = _answered(arguments)
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    if not print_form(answers if len(answers) > 1 else answers[0], arguments.form):
        print("\n".join(map(printable, lines)))
    return 0


def _answered(arguments: argparse.Namespace) -> tuple[Sequence[dict[str, Any]], list[str]]:
    """The answers, and as lines for people."""
    place, task = place_of(arguments.device, arguments.run), arguments.task
    whole, folder = settings_of(arguments.settings), arguments.run / arguments.adapter
    settings, adapter, of_encoder = chosen(whole, folder, task)
    given = {"base_model": arguments.base, "eval_max_new_tokens": arguments.max_new_tokens}
    settings = settings.model_copy(update={key: value for key, value in given.items() if value is not None})
    if not (adapter / "adapter_config.json").is_file():
        raise UserError("--adapter", f"{adapter} holds no adapter", "name a folder with adapter_config.json")
    if of_encoder:
        found = told(arguments.prompts, adapter, settings, place, task)
        return found, [f"{name}: {value}" for answer in found for name, value in answer.items()]
    from trainer import tie

    answers = asked(arguments.prompts, adapter, settings, place, lambda tuned: tie.trained(tuned, folder, whole, place))
    return answers, [line for answer in answers for line in _lines(answer, settings)]


def _lines(answer: dict[str, str | bool | int], settings: StreamSettings) -> list[str]:
    cut = _cut(int(answer["max_new_tokens"]), settings.eval_max_new_tokens)
    return [f"{who + ':':<9}{answer[who]}{cut if answer[f'{who}_cut'] else ''}" for who in ("base", "adapter")]


if __name__ == "__main__":
    sys.exit(main())
