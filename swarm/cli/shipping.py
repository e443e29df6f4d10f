"""`swarm merge, export-adapter, push`: what leaves a run.  The work is the trainer's, in a process of its own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Annotated, Literal

import typer

from swarm.cli.options import Form, NamedRun, form_words
from swarm.cli.using import adapter_folder
from swarm.spawning import module_command

Base = Annotated[
    str | None, typer.Option("--base", help="the full-precision base; default: the one that the adapter names")
]


def add_to(app: typer.Typer) -> None:
    app.command("merge")(merge)
    app.command("export-adapter")(export_adapter)
    app.command("push")(push)


def merge(
    adapters: Annotated[list[str], typer.Argument(metavar="ADAPTER...", help="their folders, runs (what they promoted) or streams")],
    out: Annotated[Path, typer.Option("--out", help="a new folder for the merged model")],
    *,
    base: Base = None,
    weights: Annotated[str | None, typer.Option("--weights", metavar="W,W", help="one for each adapter; default: 1 each")] = None,
    combine: Annotated[str, typer.Option("--combine", help="several adapters: linear, ties, dare_linear or dare_ties")] = "linear",
    density: Annotated[float, typer.Option("--density", min=0.0, max=1.0, help="share that ties and dare keep")] = 0.5,
    probe: Annotated[Literal["layers", "full"], typer.Option("--probe", help="full: also load both models and compare logits and loss")] = "layers",
    in_4bit: Annotated[bool, typer.Option("--4bit", help="into a base that is stored in 4 bits; what rounding again costs is printed")] = False,
    run: NamedRun = None,
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
        probe,
    ]
    words += [
        *(("--base", base) if base else ()),
        *(("--weights", weights) if weights else ()),
        *(["--4bit"] if in_4bit else []),
    ]
    sys.exit(_trainer("merge", [*words, *form_words(form), "--", *(adapter_folder(word, run) for word in adapters)]))


def export_adapter(
    adapter: Annotated[str, typer.Argument(metavar="ADAPTER", help="its folder, a run (what it promoted) or a stream")],
    *,
    gguf: Annotated[Path | None, typer.Option("--gguf", metavar="FILE", help="a new file for llama.cpp (`--lora FILE`)")] = None,
    peft: Annotated[Path | None, typer.Option("--peft", metavar="FOLDER", help="a new folder for PEFT on other machines, with tokenizer and template")] = None,
    safetensors: Annotated[Path | None, typer.Option("--safetensors", metavar="FILE", help="a new file of the pairs under the base's names of layers")] = None,
    type_: Annotated[str | None, typer.Option("--type", help="of its values: f32, f16, for --gguf also q8_0, for the others bf16")] = None,
    base: Base = None,
    run: NamedRun = None,
    form: Form = None,
) -> None:  # fmt: skip
    """Write an adapter in another program's form."""
    from swarm.errors import UserError

    outs = {"--gguf": gguf, "--peft": peft, "--safetensors": safetensors}
    given = [(option, out) for option, out in outs.items() if out is not None]
    if len(given) != 1:
        raise UserError(
            "export-adapter", f"{len(given)} forms are named", "give one of --gguf, --peft and --safetensors"
        )
    option, out = given[0]
    words = [*(("--type", type_) if type_ else ()), *(("--base", base) if base else ())]
    words += [*form_words(form), "--", adapter_folder(adapter, run)]
    if option == "--gguf":
        sys.exit(_trainer("gguf_lora", ["--out", str(out), *words]))
    sys.exit(_trainer("portable", [option, str(out), *words]))


def push(
    adapter: Annotated[str, typer.Argument(metavar="ADAPTER", help="its folder, a run (what it promoted) or a stream")],
    repository: Annotated[str, typer.Argument(metavar="OWNER/NAME", help="the repository on the hub")],
    *,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="only show what would go")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="do not ask")] = False,
    private: Annotated[bool, typer.Option("--private", help="a new repository is private")] = False,
    revision: Annotated[str | None, typer.Option("--revision", help="a branch; default: main")] = None,
    base: Base = None,
    run: NamedRun = None,
    form: Form = None,
) -> None:
    """Upload an adapter and its model card to a hub; asks first.

    To HF_ENDPOINT, with the token of `hf auth login` or HF_TOKEN.
    """
    flags = {"--dry-run": dry_run, "--yes": yes, "--private": private}
    words = [flag for flag, given in flags.items() if given]
    words += [*((f"--revision={revision}",) if revision else ()), *((f"--base={base}",) if base else ())]
    sys.exit(_trainer("push", [*words, *form_words(form), "--", adapter_folder(adapter, run), repository]))


def _trainer(module: str, words: list[str]) -> int:
    return subprocess.run(module_command(f"trainer.ship.{module}", *words), check=False).returncode
