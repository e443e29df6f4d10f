"""Kernels of other packages (issue 16, G15): an extra that is not installed is an error of `check`, before anything starts."""

from __future__ import annotations

import importlib.util
import tomllib
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace

import pytest

from swarm import config
from swarm.errors import UserErrors
from swarm.planning import gpus, machine_checks
from swarm.planning.gpus import Gpu
from swarm.policy.batching import engine_of
from tests.swarm.config.conftest import Loading

HEAD = "name: x\nstreams:\n  one: {base_model: tiny-toon, datasets: [{path: data/train.jsonl}]}\n  two:\n    base_model: tiny-toon\n    datasets: [{path: data/train.jsonl}]\n"
PACKAGES = [("use_liger_kernel", "liger_kernel", "liger"), ("use_kernels", "kernels", "kernels")]


@pytest.fixture
def checked(project: Path, monkeypatch: pytest.MonkeyPatch):
    """Check a config on a machine with these packages and GPUs."""

    def check(line: str, *, installed: bool, devices: list[Gpu]) -> None:
        (project / "my.yaml").write_text(f"{HEAD}    {line}: true\n")
        names = {package for _, package, _ in PACKAGES}
        found = SimpleNamespace() if installed else None
        monkeypatch.setattr(importlib.util, "find_spec", lambda name: found if name in names else find_spec(name))
        monkeypatch.setattr(machine_checks, "inspected", lambda *_: ({}, {}))
        monkeypatch.setattr(gpus, "found", lambda: devices)
        config.load(Path("my.yaml"), cwd=project, further=machine_checks.Inspection().look)

    return check


CUDA, APPLES = Gpu(0, "GPU-0", "test", 10, 5), Gpu(0, "", "test", 10, 5, by_mps=True)


@pytest.mark.parametrize(("key", "package", "extra"), PACKAGES)
def test_a_package_that_is_absent_is_an_error_with_the_extra_that_brings_it(checked, key, package, extra):
    with pytest.raises(UserErrors) as caught:
        checked(key, installed=False, devices=[CUDA])
    error = (
        f"my.yaml:7: streams.two.{key}: {package} is not installed; pip install 'toonswarm[{extra}]', or take it out"
    )
    assert str(caught.value).splitlines() == [error, "1 problem; nothing was started"]
    extras = tomllib.loads(Path("pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert package in extras[extra][0].replace("-", "_")


@pytest.mark.parametrize("devices", [[], [APPLES]], ids=["cpu", "mps"])
@pytest.mark.parametrize("key", [key for key, _, _ in PACKAGES])
def test_where_it_is_installed_it_needs_a_gpu_of_cuda(checked, key, devices):
    with pytest.raises(
        UserErrors, match=rf"my\.yaml:7: streams\.two\.{key}: no CUDA GPU that this run may use; take it out"
    ):
        checked(key, installed=True, devices=devices)
    checked(key, installed=True, devices=[CUDA])


@pytest.mark.parametrize("key", [key for key, _, _ in PACKAGES])
def test_the_engine_that_has_it_trains_the_stream_and_another_is_refused(loading: Loading, key: str) -> None:
    made = loading(f"{HEAD}    {key}: true\n").run.streams
    assert {name: engine_of(settings) for name, settings in made.items()} == {"one": "shared", "two": "trl"}
    with pytest.raises(
        UserErrors, match=rf"engine: shared cannot train sft \+ lora with {key}; write trl, or leave it out"
    ):
        loading(f"{HEAD}    {key}: true\n    engine: shared\n")
    with pytest.raises(UserErrors, match=rf"engine: shared cannot train sft \+ lora with {key}; leave {key} out"):
        loading(f"{HEAD}    {key}: true\n    packing: bfd\n")


def test_unsloth_is_refused_with_the_reason(loading: Loading) -> None:
    with pytest.raises(UserErrors, match="use_unsloth: unknown setting; Unsloth is made for older versions of TRL"):
        loading(f"{HEAD}    use_unsloth: true\n")
