"""Control vectors from pairs of prompts: for each decoder layer the direction in which its states differ at the last token.

A row of PAIRS (JSON lines) has `positive` and `negative`, and where `baseline` stands too, what takes the base's own bias away is written beside as
FILE-middle.gguf.  They are texts; where the row has a `prompt`, they are system messages before it, in the base's chat template.

python -m trainer.ship.control_vector BASE PAIRS --out FILE.gguf [--layers 1:-1] [--least-ratio 0.5] [--json | --toon]
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from swarm.errors import UserError
from swarm.printable import printable
from swarm.surroundings import open_output
from trainer import bases
from trainer.control.directions import Direction, direction
from trainer.control.sites import refuse_unknown
from trainer.control.vectors import decoder_layers, write
from trainer.quiet import quieten
from trainer.show import add_forms, print_form
from trainer.targets import layers

if TYPE_CHECKING:
    from trainer.data.prompt import Asker

CLASSES = ("negative", "positive", "baseline")


@dataclass(frozen=True)
class Found:
    """What came of it."""

    file: str
    middle: str | None
    """The file beside it, where rows have a baseline."""
    pairs: int
    layers: dict[int, float]
    """Those that have a direction, and how well it tells the classes apart: variance between by variance within."""


def found_in(base: str, pairs: Path, out: Path, chosen: str = "1:-1", least_ratio: float = 0.5) -> Found:
    """Write the vectors.  Raises UserError, and then nothing is left behind."""
    from trainer.ship.probe import loaded

    middle_file = out.with_name(f"{out.stem}-middle{out.suffix}")
    for path in (out, middle_file):
        if path.exists():
            raise UserError(str(path), "is there already", "name a new file")
    folder, rows, facts = bases.folder_of(base), _rows(pairs), bases.facts_of(base)
    refuse_unknown(facts, base)
    wanted, model = sorted(layers(chosen, facts.layers, "--layers")), loaded(folder)
    states = {name: _states(model, prompts) for name, prompts in _prompts(rows, pairs, base).items()}
    directions = {number: _direction(states, number, least_ratio) for number in wanted}
    kept = {number: one for number, one in directions.items() if one is not None}
    if not kept:
        what = f"no layer tells positive from negative at a ratio of {least_ratio}"
        raise UserError(str(pairs), what, "add pairs that differ more plainly, or lower --least-ratio")
    write({number: one.axis for number, one in kept.items()}, facts.family, out)
    if "baseline" in states:
        write({number: one.middle for number, one in kept.items()}, facts.family, middle_file)
    ratios = {number: one.ratio for number, one in kept.items()}
    return Found(str(out), str(middle_file) if "baseline" in states else None, len(rows), ratios)


def _direction(states: dict[str, Tensor], layer: int, least_ratio: float) -> Direction | None:
    baseline = states["baseline"][:, layer] if "baseline" in states else None
    return direction(states["negative"][:, layer], states["positive"][:, layer], baseline, least_ratio)


def _rows(path: Path) -> list[dict[str, str]]:
    try:
        lines = [line for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
        rows: list[Any] = [json.loads(line) for line in lines]
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(str(path), f"cannot be read ({error})", "name a file of JSON lines") from error
    for number, row in enumerate(rows, start=1):
        if not isinstance(row, dict) or not {"positive", "negative"} <= row.keys():
            raise UserError(f"{path}:{number}", "is no pair", 'write {"positive": "...", "negative": "..."}')
        if any(not isinstance(row.get(key, ""), str) for key in (*CLASSES, "prompt")):
            raise UserError(f"{path}:{number}", "holds something else than texts", "write texts")
        if ("baseline" in row) != ("baseline" in rows[0]):
            raise UserError(f"{path}:{number}", "some rows have a baseline and some have none", "give all or none")
    if len(rows) < 2:
        raise UserError(str(path), f"holds {len(rows)} pairs, and one says nothing of what varies", "write several")
    return rows


def _prompts(rows: Sequence[dict[str, str]], path: Path, base: str) -> dict[str, list[list[int]]]:
    """Tokens of each class's prompts."""
    from trainer.data.bad import NotARow, TooLong
    from trainer.data.prompt import Asker, prompt_of_base
    from trainer.data.tokens import stop_tokens
    from trainer.loading import load_tokenizer

    folder = bases.folder_of(base)
    tokenizer = load_tokenizer(folder)
    asker = Asker(tokenizer, prompt_of_base(tokenizer, stop_tokens(tokenizer, folder)), 1 << 15)
    made: dict[str, list[list[int]]] = {}
    for number, row in enumerate(rows, start=1):
        for name in (name for name in CLASSES if name in row):
            try:
                ids = _tokens(asker, row, name)
            except (NotARow, TooLong) as error:
                raise UserError(f"{path}:{number}", str(error), "shorten it, or write a text") from error
            if not ids:
                raise UserError(f"{path}:{number}", f"{name} is empty", "write a text")
            made.setdefault(name, []).append(ids)
    return made


def _tokens(asker: Asker, row: dict[str, str], name: str) -> list[int]:
    if "prompt" not in row:
        return asker.text(row[name])
    system = [{"role": "system", "content": row[name]}] if row[name] else []
    return asker.conversation([*system, {"role": "user", "content": row["prompt"]}])


@torch.no_grad()
def _states(model: Any, prompts: Sequence[list[int]]) -> Tensor:
    """(prompts, layers, H) What each decoder layer puts out at the last token, fp32."""
    seen: list[Tensor] = []

    def note(_: nn.Module, given: Any, output: Any) -> None:
        seen.append((output[0] if isinstance(output, tuple) else output)[0, -1].float())

    handles = [layer.register_forward_hook(note) for layer in decoder_layers(model)]
    try:
        found = []
        for ids in prompts:
            seen.clear()
            model(input_ids=torch.tensor([ids]), use_cache=False)
            found.append(torch.stack(seen))
    finally:
        for handle in handles:
            handle.remove()
    return torch.stack(found)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m trainer.ship.control_vector", description=__doc__.partition("\n")[0]
    )
    parser.add_argument("base", metavar="BASE")
    parser.add_argument("pairs", type=Path, metavar="PAIRS")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE.gguf")
    parser.add_argument(
        "--layers", default="1:-1", help="counted from 0, both ends included; default: all but the first"
    )
    parser.add_argument(
        "--least-ratio", type=float, default=0.5, help="variance between the classes by that within them"
    )
    add_forms(parser)
    options = parser.parse_args(argv)
    open_output()
    quieten()
    try:
        done = found_in(options.base, options.pairs, options.out, options.layers, options.least_ratio)
    except UserError as error:
        print(printable(str(error)), file=sys.stderr)
        return 2
    if not print_form(asdict(done), options.form):
        print(_lines(done))
    return 0


def _lines(done: Found) -> str:
    beside = f"; its middle: {done.middle}" if done.middle else ""
    heads = f"{done.file}: {len(done.layers)} layers from {done.pairs} pairs{beside}"
    return "\n".join(
        [heads, "layer  between by within", *(f"{n:>5}  {ratio:>17.3g}" for n, ratio in done.layers.items())]
    )


if __name__ == "__main__":
    sys.exit(main())
