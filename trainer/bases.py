"""Where a base model's files lie and what is known of it, told before anything starts; no weights are loaded here.

python -m trainer.bases --check NAME [--json]     what stands on disk (or on the hub, without downloading weights)
python -m trainer.bases --fetch NAME              download it too, with progress

Both may be given several times.  With --json all answers are one object by name; a problem is {"problem": ..., "fix": ...} there, and the exit status 2.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import re
import struct
import sys
from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

from swarm.errors import UserError
from swarm.facts import BaseFacts
from swarm.kinds import Shape
from swarm.weights import ADAPTER_CONFIG, sha256_of
from trainer import facts_cache, hub

EMBEDDED = "tiny-toon"
EMBEDDED_FOLDER = Path(__file__).parent / "embedded" / EMBEDDED
WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
"""What transformers looks for, in this order."""
PICKLED = "pytorch_model*.bin"
TOKENIZERS = ("tokenizer.json", "*.model", "vocab.txt", "vocab.json", "*.tiktoken", "tekken.json")
"""Files of which transformers makes a tokenizer: the first holds it whole, the others are older forms."""
HEADER_BYTES_AT_MOST = 100_000_000
"""The safetensors format's own limit (its README, "Format")."""
BLOB = re.compile(r"[0-9a-f]{64}")


def error(what: str, fix: str) -> UserError:
    return UserError("base_model", what, fix)


def folder_of(name: str) -> Path:
    """The local folder of a base: embedded, a path, or the hub's cache; downloads nothing."""
    if name == EMBEDDED:
        return EMBEDDED_FOLDER
    if (path := Path(name).expanduser()).is_dir():
        return path.resolve()
    return hub.folder_of(name, local_only=True)


def name_in_adapters(name: str) -> str:
    """What an adapter on this base calls it: its name on the hub, not a cache folder; else its folder."""
    here = name == EMBEDDED or Path(name).expanduser().is_dir()
    return str(folder_of(name)) if here else name


def facts_of(name: str, *, trust_remote_code: bool = False) -> BaseFacts:
    """Of a base that lies on this machine; raises UserError on one that could not be loaded."""
    folder = folder_of(name)
    config_of(folder)
    weights = weights_of(folder)
    key = facts_cache.key_of(folder, weights, trust_remote_code=trust_remote_code)
    if (known := facts_cache.found(key)) is None:
        stored = {tensor: tuple(of["shape"]) for path in weights for tensor, of in header_of(path).items()}
        known = _inspected(folder, stored, trust_remote_code=trust_remote_code)
        facts_cache.keep(key, known)
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


def _index_of(folder: Path) -> dict[str, str]:
    """The file of each tensor; empty where there is no index.  Raises UserError."""
    if not (index := folder / INDEX).is_file():
        return {}
    listed = _json(index)
    found = listed.get("weight_map") if isinstance(listed, dict) else None
    if not found or not isinstance(found, dict) or not all(isinstance(name, str) for name in found.values()):
        raise error(f"{index} names no files of weights", "download or copy the model again")
    return found


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


def _facts_from_hub(name: str, *, trust_remote_code: bool) -> BaseFacts:
    """Of a base whose weights are not here: its small files tell all but their size."""
    folder = hub.folder_of(name, local_only=False, code=trust_remote_code, weights=False)
    config_of(folder)
    sizes = hub.sizes_of(name)
    listed = [WEIGHTS] if WEIGHTS in sizes else sorted(set(_index_of(folder).values()))
    files = tuple(file for file in listed if file in sizes)
    if not files:
        raise error(f"{name} has no safetensors weights", "take a model that has them")
    facts = _inspected(folder, None, trust_remote_code=trust_remote_code)
    return replace(facts, name=name, files=files, bytes=sum(sizes[file] for file in files))


def known(name: str, *, trust_remote_code: bool = False) -> BaseFacts:
    """Of a base here or on the hub; no weights are downloaded for it.  Raises UserError."""
    try:
        return facts_of(name, trust_remote_code=trust_remote_code)
    except UserError:
        if name == EMBEDDED or Path(name).expanduser().exists() or hub.is_offline():
            raise
    facts = _facts_from_hub(name, trust_remote_code=trust_remote_code)
    hub.refuse_full_disk(facts)
    return facts


def fetched(name: str, *, trust_remote_code: bool = False) -> BaseFacts:
    """The same with its weights on this machine."""
    facts = known(name, trust_remote_code=trust_remote_code)
    if facts.folder is None:
        hub.folder_of(name, local_only=False, code=trust_remote_code)
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
        answers[name] = facts_cache.FACTS.dump_python(facts, mode="json")
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
