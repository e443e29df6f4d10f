"""Where a base model's files lie and whether they can be used, told before anything starts; no weights are loaded here.

python -m trainer.bases --check NAME [--json]     what stands on disk (or on the hub, without downloading weights)
python -m trainer.bases --fetch NAME              download it too, with progress

With --json a problem is an object as well: {"problem": ..., "fix": ...}, exit status 2.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import struct
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from math import prod
from pathlib import Path
from typing import Any

from swarm.errors import UserError
from trainer import resident

EMBEDDED = "tiny-toon"
EMBEDDED_FOLDER = Path(__file__).parent / "embedded" / EMBEDDED
WEIGHTS = "*.safetensors"
INDEX = "model.safetensors.index.json"
EMBEDDING = re.compile(r"embed|lm_head|wte|wpe")
"""Names of the tables and heads that are no linear layer to an adapter."""
SMALL_FILES = ("*.json", "*.jinja", "*.model", "tokenizer*")
HEADER_LIMIT_BYTES = 100_000_000  # the format's own limit (safetensors README, "Format")
DISK_SPARE_BYTES = 1 << 30
MEMORY_PER_PARAMETER_CPU = 4  # fp32: what a CPU trains in
MEMORY_PER_PARAMETER_NF4 = 1  # half a byte, its constants, and the embedding that stays whole


@dataclass(frozen=True)
class BaseFacts:
    """What is known of a base without loading it."""

    name: str
    folder: str | None
    """None where the weights are still on the hub."""
    parameters: int
    bytes: int
    context: int | None
    """Tokens that it was made for."""
    vocabulary: int | None
    chat_template: bool
    hidden: int | None = None
    """Width of the residual stream."""
    layers: int | None = None
    linear_dims: int | None = None
    """Sum of inputs and outputs of all linear layers but the head: a LoRA of rank r on `all-linear` trains r times as many."""


def error(what: str, fix: str) -> UserError:
    return UserError("base_model", what, fix)


def folder_of(name: str) -> Path:
    """The local folder of a base: embedded, a path, or the hub's cache; downloads nothing."""
    if name == EMBEDDED:
        return EMBEDDED_FOLDER
    if (path := Path(name).expanduser()).is_dir():
        return path.resolve()
    return _hub_folder(name, local_only=True)


def name_in_adapters(name: str) -> str:
    """What an adapter on this base calls it: its name on the hub, not a cache folder; else its folder."""
    here = name == EMBEDDED or Path(name).expanduser().is_dir()
    return str(folder_of(name)) if here else name


def facts_of(name: str) -> BaseFacts:
    """Read what the folder says; raises UserError on a base that could not be loaded."""
    folder = folder_of(name)
    config, shards = config_of(folder), shards_of(folder)
    tensors = {tensor: about["shape"] for path in shards for tensor, about in header_of(path).items()}
    return BaseFacts(
        name=name,
        folder=str(folder),
        parameters=sum(map(prod, tensors.values())),
        bytes=sum(path.stat().st_size for path in shards),
        linear_dims=sum(
            sum(shape) for tensor, shape in tensors.items() if len(shape) == 2 and not EMBEDDING.search(tensor)
        ),
        **_told_by_config(config, folder),
    )


def _told_by_config(config: dict[str, Any], folder: Path) -> dict[str, Any]:
    text = config.get("text_config") or config  # models with images keep the language model's shape one level down
    return {
        "context": text.get("max_position_embeddings"),
        "vocabulary": text.get("vocab_size"),
        "hidden": text.get("hidden_size"),
        "layers": text.get("num_hidden_layers"),
        "chat_template": _has_chat_template(folder),
    }


def config_of(folder: Path) -> dict[str, Any]:
    config = _json(folder / "config.json")
    if not isinstance(config, dict) or "model_type" not in config:
        raise error(f"{folder / 'config.json'} names no model_type", "name a folder that save_pretrained wrote")
    if not (folder / "tokenizer.json").is_file():
        raise error(f"{folder} has no tokenizer.json", "save the tokenizer into the same folder")
    return config


def shards_of(folder: Path) -> list[Path]:
    """All files of weights, each of them there."""
    if (index := folder / INDEX).is_file():
        names = sorted(set(_json(index).get("weight_map", {}).values()))
        paths = [folder / name for name in names]
    else:
        paths = sorted(folder.glob(WEIGHTS))
    if not paths:
        raise error(
            f"{folder} has no weights ({WEIGHTS})",
            "name the folder with the model, or convert .bin files to safetensors",
        )
    for path in paths:
        if not path.is_file():
            raise error(f"{path} is missing", "download or copy the model again")
    return paths


def header_of(path: Path) -> dict[str, dict[str, Any]]:
    """The tensors that a safetensors file declares; raises UserError where the file is not as long as it says."""
    with path.open("rb") as file:
        head = file.read(8)
        size = struct.unpack("<Q", head)[0] if len(head) == 8 else HEADER_LIMIT_BYTES + 1
        raw = file.read(size) if size <= HEADER_LIMIT_BYTES else b""
    try:
        header: dict[str, dict[str, Any]] = json.loads(raw)
        header.pop("__metadata__", None)
        end = max((tensor["data_offsets"][1] for tensor in header.values()), default=0)
    except (ValueError, TypeError, KeyError, AttributeError) as problem:
        raise error(f"{path} is no safetensors file", "download or copy the model again") from problem
    if path.stat().st_size != 8 + size + end:
        raise error(
            f"{path} is torn ({path.stat().st_size} bytes, {8 + size + end} expected)",
            "download or copy the model again",
        )
    return header


def _json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as problem:
        raise error(f"{path.parent} has no {path.name}", "name a folder that save_pretrained wrote") from problem
    except (ValueError, OSError) as problem:
        raise error(f"{path} cannot be read ({problem})", "download or copy the model again") from problem


def _has_chat_template(folder: Path) -> bool:
    if (folder / "chat_template.jinja").is_file():
        return True
    path = folder / "tokenizer_config.json"
    return path.is_file() and bool(_json(path).get("chat_template"))


# ---- the hub ---------------------------------------------------------------------------------------------------------


@contextmanager
def _hub_errors(name: str) -> Iterator[None]:
    """What the hub refuses, in a user's words."""
    from huggingface_hub.errors import (
        GatedRepoError,
        HfHubHTTPError,
        HFValidationError,
        LocalEntryNotFoundError,
        OfflineModeIsEnabled,
        RepositoryNotFoundError,
    )

    try:
        yield
    except GatedRepoError as problem:
        raise error(f"{name} is gated", "accept its terms on the hub and log in with `hf auth login`") from problem
    except RepositoryNotFoundError as problem:
        raise error(f"the hub has no {name}", "check the spelling; a private model needs `hf auth login`") from problem
    except HFValidationError as problem:
        raise error(
            f"{name} is neither a folder nor a hub name", f"correct it; `{EMBEDDED}` ships with the product"
        ) from problem
    except (LocalEntryNotFoundError, OfflineModeIsEnabled) as problem:
        fix = f"go online and unset HF_HUB_OFFLINE, name a local folder, or use `{EMBEDDED}`"
        raise error(f"{name} is not on this machine", fix) from problem
    except (HfHubHTTPError, OSError) as problem:
        words = " ".join(str(problem).split())[:200]
        raise error(f"{name} cannot be downloaded ({words})", "check the network, try again") from problem


def _hub_folder(name: str, *, local_only: bool, patterns: tuple[str, ...] = (*SMALL_FILES, WEIGHTS)) -> Path:
    from huggingface_hub import snapshot_download

    with _hub_errors(name):
        return Path(snapshot_download(name, allow_patterns=list(patterns), local_files_only=local_only))


def _offline() -> bool:
    return os.environ.get("HF_HUB_OFFLINE", "0").lower() in ("1", "true", "yes", "on")


def _hub_facts(name: str) -> BaseFacts:
    """What the hub tells of a base whose weights are not here: its small files and the headers of its weights."""
    from huggingface_hub import HfApi

    folder = _hub_folder(name, local_only=False, patterns=SMALL_FILES)
    config = config_of(folder)
    with _hub_errors(name):
        info = HfApi().model_info(name, files_metadata=True)
    sizes = [file.size or 0 for file in info.siblings or [] if file.rfilename.endswith(".safetensors")]
    if not sizes:
        raise error(f"{name} has no safetensors weights", "take a model that has them")
    parameters = info.safetensors.total if info.safetensors else sum(sizes) // 2
    return BaseFacts(name=name, folder=None, parameters=parameters, bytes=sum(sizes), **_told_by_config(config, folder))


def _known(name: str) -> BaseFacts:
    try:
        return facts_of(name)
    except UserError:
        if name == EMBEDDED or Path(name).expanduser().exists() or _offline():
            raise
    return _hub_facts(name)


# ---- before anything starts ------------------------------------------------------------------------------------------


def refuse_what_does_not_fit(facts: BaseFacts, device: str, adapter: str) -> None:
    """Disk for what is still to be downloaded, and memory on a CPU; what fits a GPU is the coordinator's estimate."""
    if facts.folder is None:
        _refuse_full_disk(facts)
    available = resident.available_bytes()
    per_parameter = MEMORY_PER_PARAMETER_NF4 if adapter == "qlora" else MEMORY_PER_PARAMETER_CPU
    needed = facts.parameters * per_parameter
    if device == "cpu" and available is not None and needed > available:
        what = f"{facts.name} needs {needed / 1e9:.1f} GB of memory, {available / 1e9:.1f} GB are free"
        raise error(what, "take a smaller base, or adapter: qlora" if adapter != "qlora" else "take a smaller base")


def _refuse_full_disk(facts: BaseFacts) -> None:
    from huggingface_hub.constants import HF_HUB_CACHE

    place = next(path for path in (Path(HF_HUB_CACHE), *Path(HF_HUB_CACHE).parents) if path.is_dir())
    free_bytes = shutil.disk_usage(place).free
    if facts.bytes + DISK_SPARE_BYTES > free_bytes:
        what = f"{facts.name} takes {facts.bytes / 1e9:.1f} GB on disk, {free_bytes / 1e9:.1f} GB are free in {place}"
        raise error(what, "free some space, or set HF_HOME to another disk")


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m trainer.bases", description="Can this base model be used?")
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--check", metavar="NAME", help="say what is known of a base; downloads no weights")
    what.add_argument("--fetch", metavar="NAME", help="check it, then download it where it is not here")
    parser.add_argument("--device", default="cpu", help="cpu, or gpu0")
    parser.add_argument("--adapter", default="lora", help="lora or qlora: what the base would be loaded for")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args(argv)
    try:
        facts = _known(arguments.check or arguments.fetch)
        refuse_what_does_not_fit(facts, arguments.device, arguments.adapter)
        if arguments.fetch and facts.folder is None:
            _hub_folder(facts.name, local_only=False)
            facts = facts_of(facts.name)
    except UserError as problem:
        if arguments.json:
            print(json.dumps({"problem": problem.what, "fix": problem.fix}))
        else:
            print(problem, file=sys.stderr)
        return 2
    print(json.dumps(asdict(facts)) if arguments.json else _line(facts))
    return 0


def _line(facts: BaseFacts) -> str:
    template = "chat template" if facts.chat_template else "no chat template"
    where = facts.folder or "on the hub, not downloaded yet"
    return f"{facts.name}: {facts.parameters / 1e6:.1f} M parameters, {facts.bytes / 1e6:.1f} MB, context {facts.context}, {template}; {where}"


if __name__ == "__main__":
    sys.exit(main())
