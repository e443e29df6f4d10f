"""python -m trainer.certify --settings FILE [--steps 20] [--fp64] [--exact] [--json | --toon]

Trains the streams of a config together, each alone, and each with PEFT and its optimizer in a plain loop, and prints how far apart they end.
FILE holds the settings of each stream as JSON, by name.  Nothing is written.  Exit status 1: a bound is broken.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from swarm import kinds
from swarm.errors import UserError
from swarm.policy.batching import batch_key, engines_of
from swarm.printable import printable
from swarm.settings import StreamSettings
from swarm.surroundings import open_output
from trainer import bases
from trainer.device import place_of, set_environment
from trainer.place import Place
from trainer.quiet import quieten
from trainer.show import add_forms, print_form

if TYPE_CHECKING:
    from trainer.data.tokens import Tokens
    from trainer.loop.certify import Certificate


def certified(
    streams: Mapping[str, StreamSettings], place: Place, *, steps: int, fp64: bool, exact: bool
) -> Iterator[Certificate]:
    """Group by group of streams that can share a base.  Raises UserError where a stream cannot be trained by the loop."""
    for name, settings in streams.items():
        if "shared" not in engines_of(settings):
            what = f"the loop does not train method {settings.method} with adapter {settings.adapter}"
            raise UserError(name, what, "leave it out: --stream")
    keys = {name: batch_key(settings).bases for name, settings in streams.items()}
    for _, names in groupby(sorted(streams, key=lambda name: repr(keys[name])), key=keys.__getitem__):
        yield from _of_group({name: streams[name] for name in names}, place, steps, fp64=fp64, exact=exact)


def _of_group(
    streams: Mapping[str, StreamSettings], place: Place, steps: int, *, fp64: bool, exact: bool
) -> Iterator[Certificate]:
    import torch

    from trainer.inspection import facts_of_model
    from trainer.loading import load_base
    from trainer.loop.batches import Batches
    from trainer.loop.certify import certify
    from trainer.loop.fusable import unfusable
    from trainer.loop.recipe import Recipe

    first = next(iter(streams.values())).model_copy(
        update={"bf16": False, "fp16": False}
    )  # its rounding would hide faults
    model = load_base(bases.folder_of(first.base_model), first, place)
    linears = any(kinds.adapter(settings.adapter).adapts_linears(settings) for settings in streams.values())
    if reason := unfusable(model, linears=linears):
        raise UserError(first.base_model, f"cannot be trained by the loop: {reason}", "train it with engine: trl")
    if fp64 and kinds.adapter(first.adapter).quantisation is None:
        model.to(torch.float64)  # type: ignore[arg-type]  # transformers types it as a device
    recipes = {}
    for name, settings in streams.items():
        size, accumulation = settings.micro_batch_size, settings.gradient_accumulation_steps
        batches = Batches.of(settings, _rows(settings, steps * size * accumulation))
        recipes[name] = Recipe.of(settings, facts_of_model(model), batches)
    yield from certify(model, recipes, steps=steps, exact=exact)


def _rows(settings: StreamSettings, count: int) -> list[Tokens]:
    """The first rows that count, as they would be trained on."""
    from trainer.data.boundary import GoodRow, boundary_of
    from trainer.data.documents import Cutting
    from trainer.data.prepared import counts_all, with_classes
    from trainer.loading import load_tokenizer

    folder = bases.folder_of(settings.base_model)
    tokenizer = load_tokenizer(folder, trust_remote_code=settings.trust_remote_code)
    found = boundary_of(settings, tokenizer, folder).rows(settings.datasets)
    read = (
        (item.source, with_classes(item.row, settings, settings.datasets[item.source]))
        for item in found
        if isinstance(item, GoodRow) and counts_all(item.row)
    )
    rows = list(islice(Cutting.of(settings, tokenizer).held_out(read, settings.datasets), count))
    if not rows:
        raise UserError("datasets", "hold no row that the loss counts", "look at them with `swarm show`")
    return rows


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m trainer.certify", description="Together as alone, within bounds?")
    parser.add_argument("--settings", type=Path, required=True, help="settings of streams by name, as JSON")
    parser.add_argument("--steps", type=int, default=20, help="at most so many optimizer steps of each stream")
    parser.add_argument("--fp64", action="store_true")
    parser.add_argument("--exact", action="store_true")
    parser.add_argument("--device", default="cpu", help="cpu, mps, or gpu0")
    add_forms(parser)
    options = parser.parse_args(argv)
    open_output()
    set_environment(options.device)
    quieten()
    try:
        streams, place = _streams_of(options.settings), place_of(options.device)
        if options.fp64 and place.device == "mps":
            raise UserError("--fp64", "Apple's GPU has no float64", "take `--device cpu`, or leave it out")
        found = list(certified(streams, place, steps=options.steps, fp64=options.fp64, exact=options.exact))
    except UserError as error:
        print(printable(str(error)), file=sys.stderr)
        return 2
    if not print_form([_data(each) for each in found], options.form):
        print(
            "\n".join(
                [
                    HEADING.format("stream", "against", "steps", "loss", "weights", "bound", "holds", "tensor"),
                    *(_line(each) for each in found),
                    *_widened(found),
                ]
            )
        )
    if all(each.holds for each in found):
        return 0
    print(BROKEN, file=sys.stderr)
    return 1


BROKEN = "certify: a difference is above its bound; --fp64 tells a fault from rounding: there it stays below 1e-12"
WIDENED = "{}: its bound is {:.0e}: PEFT in fp32, on bases one rounding apart, ends up to {:.1e} from PEFT in fp64"
HEADING = "{:16} {:7} {:>5} {:>9} {:>9} {:>7} {:5} {}"


def _data(found: Certificate) -> dict[str, Any]:
    name, worst = found.worst
    return {
        "stream": found.stream, "against": found.against, "steps": found.steps, "loss": found.loss, "weights": worst,
        "bound": found.bound, "rounding": found.rounding, "holds": found.holds, "tensor": name,
    }  # fmt: skip


def _widened(found: Sequence[Certificate]) -> list[str]:
    """What rounding has made of the bounds that were broken."""
    wide = {each.stream: each for each in found if each.rounding}
    return [WIDENED.format(name, each.bound, each.rounding) for name, each in wide.items()]


def _line(found: Certificate) -> str:
    data = {key: value for key, value in _data(found).items() if key != "rounding"}
    numbers = {key: f"{data[key]:.1e}" for key in ("loss", "weights")}
    return HEADING.format(
        *{**data, **numbers, "bound": f"{found.bound:.0e}", "holds": "yes" if found.holds else "NO"}.values()
    )


def _streams_of(path: Path) -> dict[str, StreamSettings]:
    try:
        read = json.loads(path.read_text(encoding="utf-8"))
        return {name: StreamSettings.model_validate(settings) for name, settings in read.items()}
    except (OSError, ValueError, ValidationError) as error:
        what = " ".join(str(error).split())[:300]
        raise UserError(str(path), f"no settings of streams ({what})", "give the JSON of streams by name") from error


if __name__ == "__main__":
    sys.exit(main())
