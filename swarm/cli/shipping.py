"""`swarm merge, export-adapter`: what leaves a run.  The work is the trainer's, in a process of its own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Annotated

import typer

from swarm.cli.options import Form, form_words
from swarm.spawning import module_command

Base = Annotated[
    str | None, typer.Option("--base", help="the full-precision base; default: the one that the adapter names")
]


def add_to(app: typer.Typer) -> None:
    app.command("merge")(merge)
    app.command("export-adapter")(export_adapter)


def merge(
    adapters: Annotated[list[Path], typer.Argument(metavar="ADAPTER...", help="folders of adapters, e.g. runs/RUN/promoted")],
    out: Annotated[Path, typer.Option("--out", help="a new folder for the merged model")],
    *,
    base: Base = None,
    weights: Annotated[str | None, typer.Option("--weights", metavar="W,W", help="one for each adapter; default: 1 each")] = None,
    combine: Annotated[str, typer.Option("--combine", help="several adapters: linear, ties, dare_linear or dare_ties")] = "linear",
    density: Annotated[float, typer.Option("--density", min=0.0, max=1.0, help="share that ties and dare keep")] = 0.5,
    full: Annotated[bool, typer.Option("--full", help="also load both models and compare logits and loss")] = False,
    form: Form = None,
) -> None:  # fmt: skip
    """Merge adapters into their base.

    Shard by shard; it prints how far the stored weights are from base and adapter.
    """
    words = [
        "--out",
        str(out),
        "--combine",
        combine,
        "--density",
        str(density),
        "--probe",
        "full" if full else "layers",
    ]
    words += [*(("--base", base) if base else ()), *(("--weights", weights) if weights else ())]
    sys.exit(_trainer("merge", [*words, *form_words(form), "--", *map(str, adapters)]))


def export_adapter(
    adapter: Annotated[Path, typer.Argument(metavar="ADAPTER", help="its folder, e.g. runs/RUN/promoted")],
    gguf: Annotated[Path, typer.Option("--gguf", metavar="FILE", help="a new file for llama.cpp (`--lora FILE`)")],
    *,
    type_: Annotated[str, typer.Option("--type", help="of its values: f32, f16 or q8_0")] = "f16",
    base: Base = None,
    form: Form = None,
) -> None:
    """Write an adapter in another program's form."""
    words = ["--out", str(gguf), "--type", type_, *(("--base", base) if base else ())]
    sys.exit(_trainer("gguf_lora", [*words, *form_words(form), "--", str(adapter)]))


def _trainer(module: str, words: list[str]) -> int:
    return subprocess.run(module_command(f"trainer.ship.{module}", *words), check=False).returncode
