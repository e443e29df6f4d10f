"""What only this machine can tell of a config: bases that cannot be had and GPUs that are not there, with the places where they are written.

Bases are the trainer's to judge: it is asked in a process of its own, so that this one stays light.
"""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

from pydantic import ValidationError

from swarm.config.tree import Node, Problems
from swarm.errors import UserError
from swarm.facts import BaseFacts
from swarm.planning import gpus
from swarm.planning.estimate import read_base
from swarm.planning.gpus import Devices
from swarm.settings import Placement

TRAINING = ("torch", "transformers", "peft", "trl", "datasets")


def missing_packages() -> list[str]:
    """What training needs and is not installed."""
    return [name for name in TRAINING if importlib.util.find_spec(name) is None]


def look(root: Node, problems: Problems) -> None:
    """All that will not do here, for `config.load`; bases are not asked for where nothing could train."""
    placement = root.items.get("placement", Node({}, root.at, "placement"))
    there = gpus.chosen(_placement(placement))
    if there.lacking:
        node = placement.items["gpus"]
        problems.add(node.at, node.path, *there.complaint())
    if missing_packages():
        return
    said: dict[tuple[str, str], tuple[str, str] | None] = {}
    for stream in root.items.get("streams", root).items.values():
        base, adapter = stream.items.get("base_model"), stream.items.get("adapter")
        if base is None or not isinstance(base.value, str) or problems.told(base.at, base.path):
            continue
        asked = base.value, "qlora" if adapter and adapter.value == "qlora" else "lora"
        if asked not in said:
            said[asked] = _fault(*asked, device_of(there.devices))
        if fault := said[asked]:
            problems.add(base.at, base.path, *fault)


def _placement(node: Node) -> Placement:
    try:
        return Placement.model_validate(node.plain(), strict=True)
    except ValidationError:  # told as such already
        return Placement()


def device_of(devices: Devices) -> str:
    """For which kind of device a base is judged."""
    return f"gpu{devices.gpus[0].index}" if devices.gpus else "cpu"


def _fault(name: str, adapter: str, device: str) -> tuple[str, str] | None:
    """What is wrong with a base and the fix; no weights are downloaded for it."""
    try:
        _asked("--check", name, adapter, device, "base_model")
    except UserError as error:
        return error.what, error.fix
    return None


def fetched(name: str, adapter: str, device: str, where: str) -> BaseFacts:
    """The base, downloaded where it is not here yet, with progress on stderr.  Raises UserError at `where`."""
    folder = str(_asked("--fetch", name, adapter, device, where)["folder"])
    return read_base(Path(folder))


def folder_of(name: str, where: str) -> Path:
    """Where a base lies that is on this machine; nothing is downloaded.  Raises UserError at `where`."""
    folder = _asked("--check", name, "lora", "cpu", where).get("folder")
    if folder is None:
        raise UserError(where, f"{name} is not on this machine", "name a folder, or a base that was downloaded")
    return Path(str(folder))


def _asked(what: str, name: str, adapter: str, device: str, where: str) -> dict[str, object]:
    command = [sys.executable, "-m", "trainer.bases", f"{what}={name}", "--adapter", adapter, "--device", device]
    done = subprocess.run([*command, "--json"], stdout=subprocess.PIPE, text=True, check=False)
    try:
        said: dict[str, object] = json.loads(done.stdout)
    except ValueError as error:
        raise UserError(where, f"{name} cannot be looked at", "see above what happened") from error
    if done.returncode != 0:
        raise UserError(where, str(said["problem"]), str(said["fix"]))
    return said
