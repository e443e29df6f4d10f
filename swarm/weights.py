"""What an adapter is on disk: PEFT's two files, and the one hash under which they are handed over, judged and published.

The config belongs to the weights: its `lora_alpha` scales them, its `target_modules` say where they go.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from pathlib import Path
from typing import BinaryIO

from swarm import plainfiles

ADAPTER = "adapter_model.safetensors"
ADAPTER_CONFIG = "adapter_config.json"
TENSORS = ".safetensors"
ADAPTER_FILES = (ADAPTER_CONFIG, ADAPTER)
"""What PEFT needs to load an adapter, by its own names."""
MODELS = ("decoder", "encoder")
"""Folders of a stream of two models (`method: duo`), each an adapter: a checkpoint of both, and what is published."""
PROJECTOR = "projector.safetensors"
"""Beside the decoder's adapter, where the two models are tied (trainer/tie.py)."""
PROMPT = "prompt.json"
"""Beside them: the chat template and separator that the training rows were rendered with (trainer/data/prompt.py); not in the hash."""
TOKENIZER = "tokenizer"
"""Folder beside prepared rows with the files of the base's tokenizer; they are copied into published adapters."""
MANIFEST = "manifest.json"
"""Sealed into a folder of prepared rows and into a checkpoint: the hash of every file (trainer/whole.py)."""
OF_MODELS = "models"
"""In the manifest of the rows of two models: the folder of each one's rows, and the hash of its manifest."""
CHUNK_BYTES = 1 << 20
QUICK_BYTES = 256 << 20
"""A file of this length is hashed within a second; a longer one is first held against its own header."""


def sha256_of(path: Path) -> str:
    """Of a file's bytes.  Raises OSError."""
    with path.open("rb") as file:
        return _digest(file)


def sha256_in_run(path: Path) -> str:
    """The same for a file of a run folder (see `plainfiles`)."""
    with open(path, "rb", opener=plainfiles.opener) as file:
        return _digest(file)


def check_adapter(folder: Path) -> None:
    """For what only other libraries open: all in the folder of an adapter, or of two, is of a run (see `plainfiles`), and small but for tensors.

    Raises OSError.
    """
    for name in adapter_files(folder):
        _check_length(folder / name)
    for place, folders, names in os.walk(folder):
        for name in folders:
            with plainfiles.folder(Path(place, name)):
                pass
        for name in names:
            plainfiles.check_file(Path(place, name), None if name.endswith(TENSORS) else plainfiles.LOG_BYTES)


def _digest(file: BinaryIO) -> str:
    digest = hashlib.sha256()
    while chunk := file.read(CHUNK_BYTES):
        digest.update(chunk)
    return digest.hexdigest()


def adapter_files(folder: Path) -> list[str]:
    """The files of an adapter, or of the adapters of two models, as paths below the folder."""
    models = [name for name in MODELS if (folder / name).is_dir()]
    tie = [f"{model}/{PROJECTOR}" for model in models if (folder / model / PROJECTOR).exists()]
    return [*(f"{model}/{name}" for model in models for name in ADAPTER_FILES), *tie] or list(ADAPTER_FILES)


def adapter_sha256(folder: Path) -> str:
    """Of all files of an adapter in a run folder; a shell gives it too: `sha256sum adapter_config.json adapter_model.safetensors | sha256sum`.

    Raises OSError.
    """
    names = adapter_files(folder)
    for name in names:
        _check_length(folder / name)
    lines = "".join(f"{sha256_in_run(folder / name)}  {name}\n" for name in names)
    return hashlib.sha256(lines.encode()).hexdigest()


def copy_file(source: Path, target: Path) -> None:
    """A file of an adapter in a run folder to where nobody else writes.  Raises NotPlain, OSError, also where `target` is there already."""
    _check_length(source)
    target.parent.mkdir(exist_ok=True)
    with open(source, "rb", opener=plainfiles.opener) as original, target.open("xb") as copy:
        shutil.copyfileobj(original, copy)


def _check_length(path: Path) -> None:
    """Before a file of an adapter is read or copied as a whole.

    Raises NotPlain for a long one that its own safetensors header does not describe: somebody put it there to be read for minutes; OSError.
    """
    if not path.name.endswith(TENSORS):
        return plainfiles.check_file(path, plainfiles.LOG_BYTES)
    with open(path, "rb", opener=plainfiles.opener) as file:
        size = os.fstat(file.fileno()).st_size
        if size > QUICK_BYTES and size != _described(file):
            raise plainfiles.NotPlain(path, f"its header does not describe its {size:,} bytes", "take a whole copy")
    return None


def _described(file: BinaryIO) -> int | None:
    """How long a safetensors file is by its header (https://github.com/huggingface/safetensors#format); None where that is none."""
    length = int.from_bytes(file.read(8), "little")
    try:
        header = json.loads(file.read(min(length, plainfiles.LOG_BYTES)))
        ends = [entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__"]
        return 8 + length + max(ends, default=0)
    except (ValueError, RecursionError, LookupError, TypeError, AttributeError):
        return None
