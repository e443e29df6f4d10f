"""Where a base model's files lie and what is known of it, told before anything starts; no weights are loaded here.

python -m trainer.bases --check NAME [--json]     what stands on disk (or on the hub, without downloading weights)
python -m trainer.bases --fetch NAME              download it too, with progress

Both may be given several times.  With --json all answers are one object by name; a problem is {"problem": ..., "fix": ...} there, and the exit status 2.
Facts are kept in the user's cache folder under a hash of the base's files, since transformers takes seconds to import.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import re
import shutil
import struct
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from swarm.errors import UserError
from swarm.facts import BaseFacts
from swarm.files import write_whole
from swarm.kinds import Shape
from swarm.weights import ADAPTER_CONFIG, sha256_of

EMBEDDED = "tiny-toon"
EMBEDDED_FOLDER = Path(__file__).parent / "embedded" / EMBEDDED
WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
"""What transformers looks for, in this order."""
PICKLED = "pytorch_model*.bin"
SMALL_FILES = ("*.json", "*.jinja", "*.model", "tokenizer*", "vocab.txt", "merges.txt")
TOKENIZERS = ("tokenizer.json", "*.model", "vocab.txt", "vocab.json", "*.tiktoken", "tekken.json")
"""Files of which transformers makes a tokenizer: the first holds it whole, the others are older forms."""
CODE = "*.py"
HEADER_BYTES_AT_MOST = 100_000_000
"""The safetensors format's own limit (its README, "Format")."""
BLOB = re.compile(r"[0-9a-f]{64}")
DISK_SPARE_BYTES = 1 << 30
FORMAT = 10
"""Of the facts in the cache; raised when the same files would give others."""
DECIDING = ("torch", "transformers", "peft", "bitsandbytes")
"""Packages whose versions decide what a base's facts are."""

FACTS = TypeAdapter(BaseFacts)


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


def facts_of(name: str, *, trust_remote_code: bool = False) -> BaseFacts:
    """Of a base that lies on this machine; raises UserError on one that could not be loaded."""
    folder = folder_of(name)
    config_of(folder)
    weights = weights_of(folder)
    key = _key(folder, weights, trust_remote_code=trust_remote_code)
    if (known := _cached(key)) is None:
        stored = {tensor: tuple(of["shape"]) for path in weights for tensor, of in header_of(path).items()}
        known = _inspected(folder, stored, trust_remote_code=trust_remote_code)
        _keep(key, known)
    return replace(
        known,
        name=name,
        folder=str(folder),
        files=tuple(path.name for path in weights),
        bytes=sum(path.stat().st_size for path in weights),
    )


def _inspected(folder: Path, stored: Mapping[str, Shape] | None, *, trust_remote_code: bool) -> BaseFacts:
    from trainer.quiet import quieten

    quieten()
    from trainer.weightless import facts_of_folder

    return facts_of_folder(folder, stored, trust_remote_code=trust_remote_code)


def config_of(folder: Path) -> dict[str, Any]:
    config = _json(folder / "config.json")
    if not isinstance(config, dict) or "model_type" not in config:
        raise error(f"{folder / 'config.json'} names no model_type", "name a folder that save_pretrained wrote")
    if (folder / ADAPTER_CONFIG).is_file():
        what = (
            f"{folder} holds an adapter beside the model ({ADAPTER_CONFIG}), which transformers would put on it unasked"
        )
        raise error(what, "merge it (`swarm merge`), or move the adapter's two files to a folder of their own")
    if not any(path for pattern in TOKENIZERS for path in folder.glob(pattern)):
        raise error(f"{folder} has no tokenizer", "save the tokenizer into the same folder")
    return config


def weights_of(folder: Path) -> list[Path]:
    """The files of weights that transformers loads, each of them there; raises UserError."""
    paths = [folder / WEIGHTS]
    if not paths[0].is_file() and (folder / INDEX).is_file():
        paths = [folder / name for name in sorted(set(_index_of(folder).values()))]
    elif not paths[0].is_file():
        if pickled := next(folder.glob(PICKLED), None):
            what = f"{folder} has pickled weights only ({pickled.name}), which can hold code"
            raise error(what, "save it again with save_pretrained, which writes safetensors")
        raise error(f"{folder} has no {WEIGHTS}", "name the folder with the whole model")
    for path in paths:
        if not path.is_file():
            raise error(f"{path} is missing", "download or copy the model again")
    return paths


def weights_sha256(name: str) -> str:
    """Of a base's weights: `sha256sum FILES | sha256sum` in the order of their names."""
    files = weights_of(folder_of(name))
    return _weights_sha256(tuple((path, path.stat().st_size, path.stat().st_mtime_ns) for path in files))


@cache
def _weights_sha256(files: tuple[tuple[Path, int, int], ...]) -> str:
    lines = "".join(f"{_file_sha256(path)}  {path.name}\n" for path, _, _ in sorted(files))
    return hashlib.sha256(lines.encode()).hexdigest()


def _file_sha256(path: Path) -> str:
    """The hub's cache calls a large file by its hash."""
    name = path.resolve().name
    return name if BLOB.fullmatch(name) else sha256_of(path)


# ---- the cache -------------------------------------------------------------------------------------------------------


def _key(folder: Path, weights: list[Path], *, trust_remote_code: bool) -> str:
    """Of all that the facts depend on: small files by content, large ones by name, size and time."""
    names = sorted({path for pattern in (*SMALL_FILES, CODE) for path in folder.glob(pattern) if path.is_file()})
    small = {path.name: sha256_of(path) for path in names}
    large = [(path.name, path.stat().st_size, path.stat().st_mtime_ns) for path in weights]
    versions = [metadata.version(package) for package in DECIDING]
    whole = json.dumps([FORMAT, versions, trust_remote_code, small, large])
    return hashlib.sha256(whole.encode()).hexdigest()


def _cache_file(key: str) -> Path | None:
    """None where nobody has a home."""
    try:
        home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    except RuntimeError:
        return None
    return home / "toonswarm" / "bases" / f"{key}.json"


def _cached(key: str) -> BaseFacts | None:
    """A file that cannot be read is as good as none: the facts are made again."""
    path = _cache_file(key)
    with suppress(OSError, ValidationError):
        return FACTS.validate_json(path.read_bytes()) if path else None
    return None


def _keep(key: str, facts: BaseFacts) -> None:
    """Without a place to write, the next command takes some seconds again."""
    if path := _cache_file(key):
        with suppress(OSError):
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            write_whole(path.resolve(), FACTS.dump_json(facts).decode(), mode=0o600)


def header_of(path: Path) -> dict[str, dict[str, Any]]:
    """The tensors that a safetensors file declares; raises UserError where the file is not as long as it says."""
    with path.open("rb") as file:
        head = file.read(8)
        size = struct.unpack("<Q", head)[0] if len(head) == 8 else HEADER_BYTES_AT_MOST + 1
        raw = file.read(size) if size <= HEADER_BYTES_AT_MOST else b""
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


def _hub_folder(name: str, *, local_only: bool, code: bool = False, weights: bool = True) -> Path:
    from huggingface_hub import snapshot_download

    patterns = [*SMALL_FILES, *([CODE] if code else []), *(["*.safetensors"] if weights else [])]
    with _hub_errors(name):
        return Path(snapshot_download(name, allow_patterns=patterns, local_files_only=local_only))


def _offline() -> bool:
    return os.environ.get("HF_HUB_OFFLINE", "0").lower() in ("1", "true", "yes", "on")


def _facts_from_hub(name: str, *, trust_remote_code: bool) -> BaseFacts:
    """Of a base whose weights are not here: its small files tell all but their size."""
    from huggingface_hub import HfApi

    folder = _hub_folder(name, local_only=False, code=trust_remote_code, weights=False)
    config_of(folder)
    with _hub_errors(name):
        info = HfApi().model_info(name, files_metadata=True)
    sizes = {file.rfilename: file.size or 0 for file in info.siblings or []}
    listed = [WEIGHTS] if WEIGHTS in sizes else sorted(set(_index_of(folder).values()))
    files = tuple(file for file in listed if file in sizes)
    if not files:
        raise error(f"{name} has no safetensors weights", "take a model that has them")
    facts = _inspected(folder, None, trust_remote_code=trust_remote_code)
    return replace(facts, name=name, files=files, bytes=sum(sizes[file] for file in files))


def _index_of(folder: Path) -> dict[str, str]:
    """The file of each tensor; empty where there is no index.  Raises UserError."""
    if not (index := folder / INDEX).is_file():
        return {}
    listed = _json(index)
    found = listed.get("weight_map") if isinstance(listed, dict) else None
    if not found or not isinstance(found, dict) or not all(isinstance(name, str) for name in found.values()):
        raise error(f"{index} names no files of weights", "download or copy the model again")
    return found


def known(name: str, *, trust_remote_code: bool = False) -> BaseFacts:
    """Of a base here or on the hub; no weights are downloaded for it.  Raises UserError."""
    try:
        return facts_of(name, trust_remote_code=trust_remote_code)
    except UserError:
        if name == EMBEDDED or Path(name).expanduser().exists() or _offline():
            raise
    facts = _facts_from_hub(name, trust_remote_code=trust_remote_code)
    refuse_full_disk(facts)
    return facts


# ---- before anything starts ------------------------------------------------------------------------------------------


def refuse_full_disk(facts: BaseFacts) -> None:
    """Raises UserError where what is still to be downloaded has no room."""
    from huggingface_hub.constants import HF_HUB_CACHE

    place = next(path for path in (Path(HF_HUB_CACHE), *Path(HF_HUB_CACHE).parents) if path.is_dir())
    free_bytes = shutil.disk_usage(place).free
    if facts.bytes + DISK_SPARE_BYTES > free_bytes:
        what = f"{facts.name} takes {facts.bytes / 1e9:.1f} GB on disk, {free_bytes / 1e9:.1f} GB are free in {place}"
        raise error(what, "free some space, or set HF_HOME to another disk")


def fetched(name: str, *, trust_remote_code: bool = False) -> BaseFacts:
    """The same with its weights on this machine."""
    facts = known(name, trust_remote_code=trust_remote_code)
    if facts.folder is None:
        _hub_folder(name, local_only=False, code=trust_remote_code)
        facts = facts_of(name, trust_remote_code=trust_remote_code)
    return facts


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m trainer.bases", description="Can these base models be used?")
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--check", metavar="NAME", action="append", help="say what is known of it; downloads no weights")
    what.add_argument(
        "--fetch", metavar="NAME", action="append", help="check it, then download it where it is not here"
    )
    parser.add_argument(
        "--trust-remote-code", metavar="NAME", action="append", default=[], help="whose code may be run"
    )
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args(argv)
    ask, answers, status = fetched if arguments.fetch else known, {}, 0
    for name in arguments.check or arguments.fetch:
        try:
            facts = ask(name, trust_remote_code=name in arguments.trust_remote_code)
        except UserError as problem:
            answers[name], status = {"problem": problem.what, "fix": problem.fix}, 2
            if not arguments.json:
                print(problem, file=sys.stderr)
            continue
        answers[name] = FACTS.dump_python(facts, mode="json")
        if not arguments.json:
            print(_line(facts))
    if arguments.json:
        print(json.dumps(answers))
    return status


def _line(facts: BaseFacts) -> str:
    template = "chat template" if facts.chat_template else "no chat template"
    where = facts.folder or "on the hub, not downloaded yet"
    return f"{facts.name}: {facts.parameters / 1e6:.1f} M parameters, {facts.bytes / 1e6:.1f} MB, context {facts.context_tokens}, {template}; {where}"


if __name__ == "__main__":
    sys.exit(main())
