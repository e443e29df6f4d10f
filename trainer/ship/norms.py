"""What an adapter adds, layer by layer, in norms: a table, and a picture as SVG.  Nothing of the base is loaded.

Of each layer, with W what is added (of a LoRA s B A, DoRA's magnitudes left out; of a control adapter the map at scale 1) and its singular
values: the largest (spectral), their sum (nuclear), the root of their squares' sum (Frobenius), that by the root of the rank, the
effective rank nuclear^2 / Frobenius^2 (1 where one direction does all, the rank where all do the same), and the condition number.  Orthogonality is
|F^T F - 1| (Frobenius), F being Q of a spectral adapter, of others B with its columns scaled to length 1: 0 where no direction is there twice.

python -m trainer.ship.norms ADAPTER [--svg FILE] [--json | --toon]
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, fields
from html import escape
from pathlib import Path
from statistics import fmean

import torch
from torch import Tensor

from swarm.errors import UserError
from swarm.files import write_named
from swarm.printable import printable
from swarm.surroundings import open_output
from trainer.quiet import quieten
from trainer.ship.deltas import Adapter
from trainer.ship.lowrank import singular_values
from trainer.ship.maps import ControlAdapter, adapter_in
from trainer.show import add_forms, print_form


@dataclass(frozen=True)
class Norms:
    """Of one layer, or of all of them."""

    layer: str
    rank: float
    spectral: float
    nuclear: float
    frobenius: float
    by_root_rank: float
    """Frobenius / sqrt(rank)."""
    effective_rank: float
    condition: float | None
    """Largest by smallest singular value; none where the smallest is zero."""
    orthogonality: float


FIGURES = [field.name for field in fields(Norms)][1:]


def norms_of(adapter: Adapter) -> list[Norms]:
    """In the order of the layers."""
    return [_norms(name, *factors) for name, factors in sorted(_factors(adapter), key=lambda one: _natural(one[0]))]


def summary(rows: Sequence[Norms]) -> list[Norms]:
    """Mean and largest of each column."""
    columns = {name: [value for row in rows if (value := getattr(row, name)) is not None] for name in FIGURES}
    return [
        Norms(word, **{name: of(values) if values else None for name, values in columns.items()})  # type: ignore[arg-type]
        for word, of in (("mean", fmean), ("largest", max))
    ]


def _factors(adapter: Adapter) -> Iterator[tuple[str, tuple[Tensor, Tensor, Tensor]]]:
    """L, R, and the directions whose orthogonality is measured."""
    plain = adapter.modules
    if isinstance(adapter, ControlAdapter):
        plain = adapter.beside
        spectral = adapter.form == "spectral"
        for site, made in adapter.maps.items():
            yield site, (made.left, made.right, made.right.T if spectral else _unit_columns(made.left))
    for module in plain:
        delta = adapter.delta(module)
        if delta.b.dim() == 2:
            yield module, (delta.scale * delta.b, delta.a, _unit_columns(delta.b))
            continue
        for number, (b, a) in enumerate(zip(delta.b, delta.a, strict=True)):  # an expert each
            yield f"{module}.{number}", (delta.scale * b, a, _unit_columns(b))


def _unit_columns(matrix: Tensor) -> Tensor:
    """Those that are not zero, scaled to length 1."""
    lengths = matrix.norm(dim=0)
    kept: Tensor = matrix[:, lengths > 0] / lengths[lengths > 0]
    return kept


def _norms(layer: str, left: Tensor, right: Tensor, directions: Tensor) -> Norms:
    values, rank = singular_values(left, right), right.shape[0]
    frobenius, nuclear = float(values.norm()), float(values.sum())
    smallest = float(values[:rank].min())
    gram = directions.double().T @ directions.double()
    return Norms(
        layer, rank, float(values.max()), nuclear, frobenius, frobenius / math.sqrt(rank), nuclear**2 / frobenius**2 if frobenius else 0.0,
        float(values.max()) / smallest if smallest > 0 else None, float((gram - torch.eye(len(gram), dtype=gram.dtype)).norm()),
    )  # fmt: skip


def _natural(name: str) -> list[tuple[bool, int, str]]:
    """Layer 10 behind layer 9."""
    return [(not part.isdigit(), int(part) if part.isdigit() else 0, part) for part in name.split(".")]


# ---- for people ------------------------------------------------------------------------------------------------------


def table(rows: Sequence[Norms]) -> str:
    heads = ["layer", *(name.replace("_", " ") for name in FIGURES)]
    lines = [heads, *([row.layer, *(_figure(getattr(row, name)) for name in FIGURES)] for row in rows)]
    widths = [max(len(line[at]) for line in lines) for at in range(len(heads))]
    return "\n".join(
        "  ".join(
            [line[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(line[1:], widths[1:], strict=True))]
        )
        for line in lines
    )


def _figure(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}"


ROW, NAMES, BARS = 18, 320, 420
"""Pixels: height of a layer, width of names, width of the longest bar."""


def drawn(rows: Sequence[Norms], title: str) -> str:
    """A bar for each layer: its Frobenius norm, and darker within it the spectral one."""
    longest = max((row.frobenius for row in rows), default=0.0) or 1.0
    parts = [f'<text x="10" y="18">{escape(title)}: Frobenius norm, and darker the spectral one</text>']
    for number, row in enumerate(rows):
        y = 30 + ROW * number
        parts.append(f'<text x="10" y="{y + 13}">{escape(row.layer)}</text>')
        parts += [
            f'<rect x="{NAMES}" y="{y + 2}" width="{BARS * value / longest:.1f}" height="{ROW - 4}" fill="{colour}"/>'
            for value, colour in ((row.frobenius, "#9ecae9"), (row.spectral, "#3182bd"))
        ]
        parts.append(f'<text x="{NAMES + BARS + 10}" y="{y + 13}">{row.frobenius:.4g}</text>')
    width, height = NAMES + BARS + 90, 40 + ROW * len(rows)
    head = f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" font-family="sans-serif" font-size="12">'
    return "\n".join([head, *parts, "</svg>", ""])


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m trainer.ship.norms", description=__doc__.partition("\n")[0])
    parser.add_argument("adapter", type=Path, metavar="ADAPTER")
    parser.add_argument("--svg", type=Path, metavar="FILE")
    add_forms(parser)
    options = parser.parse_args(argv)
    open_output()
    quieten()
    try:
        rows = norms_of(adapter_in(options.adapter))
        if options.svg:
            write_named(options.svg, drawn(rows, options.adapter.resolve().name))
    except (UserError, OSError) as error:
        print(printable(str(error)), file=sys.stderr)
        return 2
    totals = summary(rows)
    if not print_form(
        {"layers": [asdict(row) for row in rows], "summary": [asdict(row) for row in totals]}, options.form
    ):
        print(table([*rows, *totals]))
    if options.svg:
        print(f"wrote {options.svg}", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
