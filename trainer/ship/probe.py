"""How far a converted model is from the model with its adapter: both are given the same random tokens, whole in memory, and their logits compared.

One model is in memory at a time, in fp32 on the CPU: 4 bytes a weight, loaded once for base and adapter and once for what was converted.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from swarm.errors import UserError
from swarm.settings import StreamSettings
from swarm.surroundings import free_memory_bytes
from swarm.units import size
from trainer import bases
from trainer.loading import load_adapter, load_base
from trainer.place import Place
from trainer.ship import experts
from trainer.ship.deltas import Adapter
from trainer.ship.maps import ControlAdapter, Map, Multiplicative, Scaled
from trainer.ship.outcome import Output

ROWS, TOKENS = 2, 32
FP32, SPARE = 4, 1.2
"""Bytes of a weight, and what a model takes by the bytes of its weights."""


def refuse_too_large(base: Path, otherwise: str = "layers") -> None:
    """Raises UserError where the base in fp32 does not fit into the memory that is free; `otherwise` is the probe without logits."""
    shapes = [about["shape"] for shard in bases.weights_of(base) for about in bases.header_of(shard).values()]
    needed, free = FP32 * SPARE * sum(map(math.prod, shapes)), free_memory_bytes()
    if free is not None and needed > free:
        what = f"comparing logits takes {size(needed)} of memory, and {size(free)} are free"
        raise UserError("--probe", what, f"`--probe full` tries it all the same, `--probe {otherwise}` leaves it out")


def loaded(folder: Path, *, in_4bit: bool = False) -> Any:
    """A base in fp32, or in NF4 as `adapter: qlora` has it, in evaluation mode."""
    classes = bases.config_of(folder).get("architectures") or []
    method = "mlm" if any(name.endswith("ForMaskedLM") for name in classes) else "sft"
    settings = {"base_model": str(folder), "datasets": [{"path": "-"}], "method": method}
    settings["adapter"] = "qlora" if in_4bit else "lora"
    return load_base(folder, StreamSettings.model_validate(settings), Place(folder, "cpu"))


@torch.no_grad()
def output(model: Any, seed: int = 0) -> Output:
    vocabulary = int(model.config.get_text_config().vocab_size)
    ids = torch.randint(vocabulary, (ROWS, TOKENS), generator=torch.Generator().manual_seed(seed))
    made = model(input_ids=ids, labels=ids, use_cache=False)
    return Output(made.logits.float(), float(made.loss))


@contextmanager
def hooked(model: Any, *adapters: Adapter, weights: Sequence[float] | None = None) -> Iterator[Any]:
    """The model with the adapters on it at once: by PEFT where it knows what they do, by plain hooks where one is an inverse or multiplicative."""
    adapter = adapters[0]
    if not (isinstance(adapter, Multiplicative) or (isinstance(adapter, ControlAdapter) and adapter.inverse)):
        made = _by_peft(model, adapters, weights or [1.0] * len(adapters))
        yield made
        made.unload()
        return
    if len(adapters) > 1 or weights not in (None, [1.0]):
        what = "full compares one whole map, not several or a part"
        raise UserError("--probe", what, "leave --probe and --weights out")
    if isinstance(adapter, ControlAdapter):
        with _steered(model, adapter.maps, of_block=adapter.site == "block"):
            yield model
    else:
        with _multiplied(model, adapter):
            yield model


def _by_peft(model: Any, adapters: Sequence[Adapter], weights: Sequence[float]) -> Any:
    from peft.tuners.lora import LoraLayer

    from trainer.control.hooked import attach
    from trainer.control.tuner import together

    names = [f"a{number}" for number in range(len(adapters))]  # no part of another's name
    for name, adapter, weight in zip(names, adapters, weights, strict=True):
        if isinstance(adapter, ControlAdapter):
            model = attach(model, adapter.folder, adapter.scale * weight, name)
            continue
        model = load_adapter(model, adapter.folder, name)
        if list(weights) != [1.0] and model.peft_config[name].use_dora:
            what = f"{adapter.folder} has DoRA's magnitudes, which full compares alone and whole"
            raise UserError("--probe", what, "compare layers: leave --probe full out")
        for layer in (layer for layer in model.modules() if isinstance(layer, LoraLayer) and name in layer.scaling):
            layer.scaling[name] *= weight * (adapter.scale if isinstance(adapter, Scaled) else 1)
    together(model, names)
    return model


@contextmanager
def changed(model: Any, adapter: Adapter) -> Iterator[Any]:
    """The model with its matrices changed as a merge would; one that another layer shares is the changed layer's own."""
    parameters = dict(model.named_parameters())
    with ExitStack() as put_back:
        for module, name in adapter.names_in(set(parameters)):
            change, value = adapter.change(module), parameters[name]
            assert change is not None
            owner, _, part = name.rpartition(".")
            layer = model.get_submodule(owner)
            setattr(layer, part, nn.Parameter(change.added_to(value.data).to(value), requires_grad=False))
            put_back.callback(setattr, layer, part, value)
        yield model


@contextmanager
def _multiplied(model: Any, adapter: Multiplicative) -> Iterator[None]:
    """A mixture's experts put out nothing of their own in memory, where they are one tensor: their matrices are changed there."""
    named, parameters = dict(model.named_modules()), dict(model.named_parameters())
    before: dict[str, Tensor] = {}
    for module in sorted(adapter.modules - set(named)):
        parameter, which = experts.in_memory(module) or (module, slice(None))
        if parameter not in parameters:
            what = f"the model has no module {module} in memory, where its files are arranged otherwise"
            raise UserError("--probe", what, "compare layers: leave --probe full out")
        value = parameters[parameter].data
        before.setdefault(parameter, value.clone())
        value[which] = _map(adapter, module).added_to(value[which]).to(value)
    with _steered(model, {module: _map(adapter, module) for module in adapter.modules & set(named)}):
        yield
    for parameter, value in before.items():
        parameters[parameter].data = value


def _map(adapter: Multiplicative, module: str) -> Map:
    made = adapter.change(module)
    assert isinstance(made, Map)
    return made


@contextmanager
def _steered(model: Any, maps: Mapping[str, Map], *, of_block: bool = False) -> Iterator[None]:
    """The outputs of these modules are mapped; of blocks what they add to their input is."""

    def hook(made: Map) -> Any:
        def mapped(_: nn.Module, given: tuple[Any, ...], named: dict[str, Any], output: Any) -> Any:
            y = output[0] if isinstance(output, tuple) else output  # (B, T, H)
            x = y - (given[0] if given else named["hidden_states"]) if of_block else y
            y = y + (x.float() @ made.right.T @ made.left.T).to(y)
            return (y, *output[1:]) if isinstance(output, tuple) else y

        return mapped

    with ExitStack() as taken_off:
        for name, made in maps.items():
            module = model.get_submodule(name)
            taken_off.callback(module.register_forward_hook(hook(made), with_kwargs=True).remove)
        yield
