"""Is an adapter on disk what its maker said, and what its stream's settings make?  Config and tensors are compared with a new one's.

PEFT asks neither: it does what the config says, takes the tensors that fit and leaves out the rest without a word.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, cast

import torch
from peft import PeftConfig, PeftModel
from safetensors.torch import load_file
from transformers import PreTrainedModel

from swarm import kinds
from swarm.errors import UserError
from swarm.kinds import Shape
from swarm.plainfiles import NotPlain, read_text
from swarm.settings import StreamSettings
from swarm.weights import ADAPTER, ADAPTER_CONFIG, adapter_files, adapter_sha256, copy_file
from trainer import bases
from trainer.inspection import facts_of_model
from trainer.loading import load_adapter

MAY_DIFFER = frozenset({"inference_mode", "peft_version"})
"""Of a config's fields: whether it was saved or is in training, and by which PEFT; neither changes what the adapter computes."""
BASE = "base_model_name_or_path"
WHY_CHARACTERS = 300
"""A reason goes into the log; names in a stranger's files may be as long as they like, and hold anything."""


class Unfit(UserError):
    """The adapter is to blame; `what` says for what."""

    def __init__(self, what: str, found: str | None = None) -> None:
        line = " ".join(what.split())[:WHY_CHARACTERS].encode("utf-8", "backslashreplace").decode()
        super().__init__("adapter", line, "put it back as it was, or train again")
        self.found = found
        """The hash of its files, where it is not the promised one."""


@contextmanager
def private_copy(folder: Path, promised: str) -> Iterator[Path]:
    """Its files where nobody else writes, so that hash and figures are of the same bytes; raises Unfit on another hash."""
    with TemporaryDirectory(prefix="adapter-") as place:
        copy = Path(place).resolve()
        for name in adapter_files(folder):
            try:
                copy_file(folder / name, copy / name)
            except FileNotFoundError as error:
                raise Unfit(f"{name} is missing") from error
            except NotPlain as error:
                raise Unfit(str(error)) from error
        if (found := adapter_sha256(copy)) != promised:
            raise Unfit(f"its files have sha256 {found[:12]}, its maker said {promised[:12]}", found)
        yield copy


def refuse_broken(copy: Path) -> None:
    """What can be told without a base: raises Unfit unless the files can be read and every number is finite as PEFT holds it, in fp32."""
    _config(copy)
    with _blamed(f"{ADAPTER} is no whole safetensors file"):
        tensors = load_file(copy / ADAPTER)
    for name, value in tensors.items():
        if not value.is_floating_point() or value.dtype.itemsize < 2:
            raise Unfit(f"{name} holds {value.dtype}, no floats of 16 bits or more")
        if not bool(torch.isfinite(value.float()).all()):
            raise Unfit(f"{name} is not finite")


def put_on(base: PreTrainedModel, copy: Path, settings: StreamSettings) -> PeftModel:
    """The base with the adapter on it, loaded as its users load it; raises Unfit where it is not what the settings make on this base."""
    kind, facts = kinds.adapter(settings.adapter), facts_of_model(base)
    filed = kind.filed(facts, settings)
    wanted = kind.tensors(facts, filed)
    made = kind.attach(base, facts, filed)
    _refuse_other_config(_config(copy), made.peft_config["default"], settings)
    _refuse_other_shapes(load_file(copy / ADAPTER), wanted)
    bare = cast("PreTrainedModel", made.unload())
    with _blamed("PEFT cannot load it"):
        return load_adapter(bare, copy)


def _config(copy: Path) -> dict[str, Any]:
    try:
        config: Any = json.loads(read_text(copy / ADAPTER_CONFIG))
    except (NotPlain, ValueError, RecursionError) as error:
        raise Unfit(f"{ADAPTER_CONFIG} cannot be read") from error
    if not isinstance(config, dict) or "peft_type" not in config:
        raise Unfit(f"{ADAPTER_CONFIG} describes no adapter")
    return config


def _refuse_other_config(stored: dict[str, Any], made: PeftConfig, settings: StreamSettings) -> None:
    """All fields are compared, those that PEFT has yet to invent too; one that is left out is what PEFT takes it for."""
    stored = {**_plain(type(made)()), **stored}
    wanted = {**_plain(made), BASE: bases.name_in_adapters(settings.base_model)}
    if Path(wanted[BASE]).is_absolute() and Path(str(stored.get(BASE))).name == Path(wanted[BASE]).name:
        stored[BASE] = wanted[BASE]  # a folder that was moved since, with the whole run say, is still that base
    for field in sorted({*stored, *wanted} - MAY_DIFFER):
        if _in_order(stored.get(field)) != _in_order(wanted.get(field)):
            theirs, ours = (f"{value.get(field)!r:.80}" for value in (stored, wanted))
            raise Unfit(f"{ADAPTER_CONFIG} says {field} {theirs}, the stream's settings make it {ours}")


def _plain(config: PeftConfig) -> dict[str, Any]:
    """A config as its file has it; PEFT's sets of names come in order."""
    return cast("dict[str, Any]", json.loads(json.dumps(asdict(config), default=sorted)))


def _in_order(value: Any) -> Any:
    return sorted(value, key=str) if isinstance(value, list) else value


def _refuse_other_shapes(stored: Mapping[str, torch.Tensor], wanted: Mapping[str, Shape]) -> None:
    for name in sorted({*stored, *wanted}):
        if name not in stored:
            raise Unfit(f"{ADAPTER} lacks {name}")
        if name not in wanted:
            raise Unfit(f"{ADAPTER} holds {name}, which the stream's settings do not make")
        if tuple(stored[name].shape) != wanted[name]:
            shapes = list(stored[name].shape), list(wanted[name])
            raise Unfit(f"{name} has shape {shapes[0]}, the stream's settings make it {shapes[1]}")


@contextmanager
def _blamed(what: str) -> Iterator[None]:
    """What goes wrong here is the adapter's fault; full disks, memory that runs out and devices that fail are not."""
    try:
        yield
    except (OSError, MemoryError, RuntimeError):
        raise
    except Exception as error:
        raise Unfit(f"{what} ({type(error).__name__}: {error})") from error
