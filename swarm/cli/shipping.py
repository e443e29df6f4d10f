"""`swarm merge, convert, norms, control-vector, export-adapter, push`: what leaves a run.  The work is the trainer's, in a process of its own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Annotated, Literal

import typer

from swarm.cli.adapters import adapter_folder
from swarm.cli.options import Form, NamedRun, form_words
from swarm.spawning import module_command

Base = Annotated[
    str | None, typer.Option("--base", help="the full-precision base; default: the one that the adapter names")
]
Scale = Annotated[float, typer.Option("--scale", help="of what it does; a control adapter goes the other way below 0")]
Inverse = Annotated[bool, typer.Option("--inverse", help="undo what it does; of a LoRA: take a merged one out again")]
Lossy = Annotated[bool, typer.Option("--allow-lossy", help="write it however far its logits are off")]


def add_to(app: typer.Typer) -> None:
    app.command("merge")(merge)
    app.command("convert")(convert)
    app.command("norms")(norms)
    app.command("control-vector")(control_vector)
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
    scale: Scale = 1.0,
    inverse: Inverse = False,
    multiplicative: Annotated[bool, typer.Option("--multiplicative", help="a multiplicative LoRA: it maps what matrices put out")] = False,
    allow_lossy: Lossy = False,
    probe: Annotated[Literal["layers", "full"] | None, typer.Option("--probe", help="layers: compare matrices alone; default: also logits, where the base in fp32 fits into memory")] = None,
    in_4bit: Annotated[bool, typer.Option("--4bit", help="into a base that is stored in 4 bits; what rounding again costs is printed")] = False,
    run: NamedRun = None,
    form: Form = None,
) -> None:  # fmt: skip
    """Merge adapters into their base.

    Shard by shard; it prints how far weights and logits are from base and adapter, and refuses what is far off.
    """
    words = ["--out", str(out), "--combine", combine, "--density", str(density), f"--scale={scale}"]
    words += [f"--{key}={value}" for key, value in {"base": base, "weights": weights, "probe": probe}.items() if value]
    flags = {"4bit": in_4bit, "inverse": inverse, "multiplicative": multiplicative, "allow-lossy": allow_lossy}
    words += [f"--{flag}" for flag, given in flags.items() if given]
    sys.exit(_trainer("merge", [*words, *form_words(form), "--", *(adapter_folder(word, run) for word in adapters)]))


def convert(
    adapter: Annotated[str, typer.Argument(metavar="ADAPTER", help="its folder, a run (what it promoted) or a stream")],
    out: Annotated[Path, typer.Option("--out", metavar="FOLDER", help="a new folder for the converted adapter")],
    *,
    to: Annotated[Literal["lora", "multiplicative"], typer.Option("--to", help="multiplicative: of a control adapter, for any base of its shape")] = "lora",
    scale: Scale = 1.0,
    inverse: Inverse = False,
    rank: Annotated[int | None, typer.Option("--rank", min=1, metavar="K", help="keep the K largest singular values; default: all, exactly")] = None,
    base: Base = None,
    in_4bit: Annotated[bool, typer.Option("--4bit", help="compute with the base in NF4, dequantised, as QLoRA deploys it")] = False,
    allow_lossy: Lossy = False,
    run: NamedRun = None,
    form: Form = None,
) -> None:  # fmt: skip
    """Convert a control adapter into LoRA, or lower a rank.

    It prints how far the logits are from those of the adapter itself, and refuses what is far off.
    """
    words = ["--out", str(out), "--to", to, f"--scale={scale}"]
    words += [f"--{key}={value}" for key, value in {"base": base, "rank": rank}.items() if value]
    flags = {"4bit": in_4bit, "inverse": inverse, "allow-lossy": allow_lossy}
    words += [f"--{flag}" for flag, given in flags.items() if given]
    sys.exit(_trainer("convert", [*words, *form_words(form), "--", adapter_folder(adapter, run)]))


def norms(
    adapter: Annotated[str, typer.Argument(metavar="ADAPTER", help="its folder, a run (what it promoted) or a stream")],
    *,
    svg: Annotated[Path | None, typer.Option("--svg", metavar="FILE", help="also draw them")] = None,
    run: NamedRun = None,
    form: Form = None,
) -> None:
    """Print the norms of what an adapter adds, layer by layer.

    And their effective rank, condition and orthogonality.
    """
    words = [*((f"--svg={svg}",) if svg else ()), *form_words(form), "--", adapter_folder(adapter, run)]
    sys.exit(_trainer("norms", words))


def control_vector(
    base: Annotated[str, typer.Argument(metavar="BASE", help="as `base_model` has it")],
    pairs: Annotated[Path, typer.Argument(metavar="PAIRS", help="JSON lines of positive and negative, with a prompt or alone")],
    out: Annotated[Path, typer.Option("--out", metavar="FILE.gguf", help="a new file, for `swarm chat --control-vector` and llama.cpp")],
    *,
    layers: Annotated[str, typer.Option("--layers", help="counted from 0, both ends included")] = "1:-1",
    least_ratio: Annotated[float, typer.Option("--least-ratio", min=0.0, help="variance between the classes by that within them")] = 0.5,
    form: Form = None,
) -> None:  # fmt: skip
    """Make control vectors from pairs of prompts.

    For each layer the direction in which its states differ at the last token.
    """
    words = ["--out", str(out), f"--layers={layers}", f"--least-ratio={least_ratio}"]
    sys.exit(_trainer("control_vector", [*words, *form_words(form), "--", base, str(pairs)]))


def export_adapter(
    adapter: Annotated[str, typer.Argument(metavar="ADAPTER", help="its folder, a run (what it promoted) or a stream")],
    *,
    gguf: Annotated[Path | None, typer.Option("--gguf", metavar="FILE", help="a new file for llama.cpp (`--lora FILE`)")] = None,
    peft: Annotated[Path | None, typer.Option("--peft", metavar="FOLDER", help="a new folder for PEFT on other machines, with tokenizer and template")] = None,
    safetensors: Annotated[Path | None, typer.Option("--safetensors", metavar="FILE", help="a new file of the pairs under the base's names of layers")] = None,
    type_: Annotated[str | None, typer.Option("--type", help="of its values: f32, f16, for --gguf also q8_0, for the others bf16")] = None,
    base: Base = None,
    probe: Annotated[Literal["none", "full"] | None, typer.Option("--probe", help="of --gguf; none: compare no logits; default: full, where the base in fp32 fits into memory")] = None,
    allow_lossy: Lossy = False,
    run: NamedRun = None,
    form: Form = None,
) -> None:  # fmt: skip
    """Write an adapter in another program's form.

    Of --gguf it prints how far the logits are from those of the adapter itself, and refuses what is far off.
    """
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
        measured = [*((f"--probe={probe}",) if probe else ()), *(("--allow-lossy",) if allow_lossy else ())]
        sys.exit(_trainer("gguf_lora", ["--out", str(out), *measured, *words]))
    if probe or allow_lossy:
        raise UserError(option, "is the adapter as it is: nothing is converted", "leave --probe and --allow-lossy out")
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
