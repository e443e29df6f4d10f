"""Checks of a config that depend on this machine: bases that cannot be used as it says, GPUs that do not exist.

The trainer inspects the bases, all at once and in a process of its own, so that this process loads no heavy library.
"""

from __future__ import annotations

import importlib.util
import json
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from swarm import kinds
from swarm.config.tree import Node, Problems, follow
from swarm.errors import UserError
from swarm.facts import BaseFacts
from swarm.planning import gpus as devices
from swarm.planning.gpus import Gpu
from swarm.policy.fitting import unfit
from swarm.settings import Placement, RunSettings, StreamSettings
from swarm.spawning import module_command

KERNELS = {"use_liger_kernel": ("liger_kernel", "liger"), "use_kernels": ("kernels", "kernels")}
"""The package that each of these settings needs, and the extra that brings it."""
TRAINING = ("torch", "transformers", "peft", "trl", "datasets")
FACTS = TypeAdapter(BaseFacts)

Fault = tuple[str, str]
"""What is wrong, and the fix."""


def _look_at_trackers(stream: Node, settings: StreamSettings, problems: Problems) -> None:
    for name in settings.report_to:
        if importlib.util.find_spec(name) is None:
            fix = f"pip install 'toonswarm[{name}]', or take it out"
            problems.add(*stream.setting("report_to"), f"{name} is not installed", fix)


def _look_at_kernels(stream: Node, settings: StreamSettings, gpus: Sequence[Gpu], problems: Problems) -> None:
    for key, (package, extra) in KERNELS.items():
        if not getattr(settings, key):
            continue
        if importlib.util.find_spec(package) is None:
            fix = f"pip install 'toonswarm[{extra}]', or take it out"
            problems.add(*stream.setting(key), f"{package} is not installed", fix)
        elif not any(not gpu.by_mps for gpu in gpus):
            problems.add(*stream.setting(key), "no CUDA GPU that this run may use", "take it out")


def _look_at_sampler(stream: Node, settings: StreamSettings, problems: Problems) -> None:
    if settings.search and settings.search.learns and importlib.util.find_spec("optuna") is None:
        fix = "pip install 'toonswarm[search]', or write `sampler: random`"
        problems.add(*stream.items["search"].setting("sampler"), "optuna is not installed", fix)


def _look_at_pruner(root: Node, run: RunSettings, problems: Problems) -> None:
    needed = ["optuna", *(["scipy"] if run.pruner and run.pruner.type == "wilcoxon" else [])]
    for name in needed if run.pruner else ():
        if importlib.util.find_spec(name) is None:
            fix = "pip install 'toonswarm[search]', or write `halving:`"
            problems.add(*root.setting("pruner"), f"{name} is not installed", fix)


def _look_at_precision(stream: Node, settings: StreamSettings, gpus: Sequence[Gpu], problems: Problems) -> None:
    """What the devices do not have."""
    if not gpus and any(part.fp16 for part in settings.parts.values()):
        fix = "leave it out: streams train on the CPU here, which computes in float32"
        problems.add(*stream.setting("fp16"), "no GPU that this run may use", fix)
    for name, part in settings.parts.items():
        if kinds.adapter(part.adapter).quantisation and any(gpu.by_mps for gpu in gpus):
            group, _ = follow(stream, settings.part_steps(name))
            what = "bases in 4 bits are not held on Apple's GPU: it was never tried there"
            fix = "write `adapter: lora`, or `gpus: none` under placement: the CPU holds them"
            problems.add(*group.setting("adapter"), what, fix)


def missing_packages() -> list[str]:
    """Packages that training needs and that are not installed."""
    return [name for name in TRAINING if importlib.util.find_spec(name) is None]


@dataclass
class Inspection:
    """The bases of one config, inspected once while it is loaded (`config.load(..., further=inspection.look)`)."""

    facts: dict[str, BaseFacts] = field(default_factory=dict)
    """Facts of the bases that can be used, by their name in the config."""

    def look(self, root: Node, run: RunSettings | None, problems: Problems) -> None:
        """Add every problem.  Bases are not inspected where the packages for training are missing."""
        on_gpus = _look_at_gpus(root, problems)
        if missing_packages():
            return
        written = [node for node in _bases_of(root) if not problems.has(node.at, node.path)]
        names = {str(node.value): False for node in written}
        self.facts, faults = inspected("--check", names | dict.fromkeys(_trusted(root) & names.keys(), True))
        for node in written:
            if fault := faults.get(str(node.value)):
                problems.add(node.at, node.path, *fault)
        if run:
            _look_at_pruner(root, run, problems)
        for name, settings in run.streams.items() if run else ():
            _look_at_trackers(root.items["streams"].items[name], settings, problems)
            _look_at_kernels(root.items["streams"].items[name], settings, on_gpus, problems)
            _look_at_sampler(root.items["streams"].items[name], settings, problems)
            _look_at_precision(root.items["streams"].items[name], settings, on_gpus, problems)
            self._fit(root.items["streams"].items[name], settings, problems)

    def _fit(self, stream: Node, settings: StreamSettings, problems: Problems) -> None:
        for name, part in settings.parts.items():
            group, _ = follow(stream, settings.part_steps(name))
            if part.base_model in self.facts:
                for key, what, fix in unfit(part, self.facts[part.base_model]):
                    problems.add(*group.setting(key), what, fix)


def _bases_of(root: Node) -> Iterator[Node]:
    """Every `base_model` in a stream, also in the groups below it."""
    for stream in root.items.get("streams", root).items.values():
        for group in _groups(stream):
            base = group.items.get("base_model")
            if base is not None and isinstance(base.value, str):
                yield base


def _trusted(root: Node) -> set[str]:
    """Bases for which some stream sets `trust_remote_code`."""
    groups = [group for stream in root.items.get("streams", root).items.values() for group in _groups(stream)]
    trusting = [group for group in groups if (trust := group.items.get("trust_remote_code")) and trust.value is True]
    return {str(group.items["base_model"].value) for group in trusting if "base_model" in group.items}


def _groups(node: Node) -> Iterator[Node]:
    yield node
    for below in node.items.values():
        yield from _groups(below)


def _look_at_gpus(root: Node, problems: Problems) -> Sequence[Gpu]:
    """Those that the run may use."""
    placement = root.items.get("placement", Node({}, root.at, "placement"))
    chosen = devices.chosen(_placement(placement))
    if chosen.missing:
        node = placement.items["gpus"]
        problems.add(node.at, node.path, *chosen.problem())
    return chosen.devices.gpus


def _placement(node: Node) -> Placement:
    try:
        return Placement.model_validate(node.plain())
    except ValidationError:  # the config's own checks report it
        return Placement()


def fetch(facts: Mapping[str, BaseFacts], where: Callable[[str], str], trusted: set[str]) -> dict[str, BaseFacts]:
    """The same bases; those that are not on this machine are downloaded, with progress on stderr.

    Raises UserError that names the place in the config, `where(name)`.
    """
    missing = {name: name in trusted for name, base in facts.items() if base.folder is None}
    found, faults = inspected("--fetch", missing)
    for name, (what, fix) in faults.items():
        raise UserError(where(name), what, fix)
    return {**facts, **found}


def folder_of(name: str, where: str) -> Path:
    """The folder of a base that is on this machine; nothing is downloaded.  Raises UserError that names `where`."""
    found, faults = inspected("--check", {name: False})
    if name in faults:
        raise UserError(where, *faults[name])
    if (folder := found[name].folder) is None:
        raise UserError(where, f"{name} is not on this machine", "name a folder, or a base that was downloaded")
    return Path(folder)


def inspected(what: str, names: Mapping[str, bool]) -> tuple[dict[str, BaseFacts], dict[str, Fault]]:
    """Facts and faults of bases by name, from one process of the trainer.  The values of `names`: whether the base's own code may run."""
    if not names:
        return {}, {}
    words = [*(f"{what}={name}" for name in names), *(f"--trust-remote-code={name}" for name in names if names[name])]
    command = module_command("trainer.bases", "--json", *words)
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    try:
        answers: dict[str, dict[str, Any]] = json.loads(done.stdout)
    except ValueError as error:
        raise UserError("base_model", f"{', '.join(names)} cannot be inspected", "see the messages above") from error
    faults = {
        name: (str(answer["problem"]), str(answer["fix"])) for name, answer in answers.items() if "problem" in answer
    }
    return {name: FACTS.validate_python(answer) for name, answer in answers.items() if name not in faults}, faults
