"""Proof that streams trained together go as each goes alone, and as PEFT with torch's optimizers goes.

Every stream is trained three times: beside all others, alone on the same loop, and by a plain loop over a PeftModel with padded
micro-batches and an attention mask.  Compared are the losses of all steps and the tensors at the end, by norm of difference / norm.

An optimizer that divides by the gradient's size makes rounding large where gradients are nearly zero.  Where a difference in fp32 is
above its bound, PEFT's training is therefore done in fp64 too: two trainings that are as far from that one as PEFT in fp32 is are at
most twice as far from each other, and this is the bound then, up to 1e-3.  What one training shows of its rounding is chance, so that PEFT trains
in fp32 on bases too whose weights have moved to neighbouring numbers, and the one that ends farthest counts.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, cast

import torch
from peft import PeftModel, get_peft_model
from peft.tuners.lora import LoraLayer
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from swarm.errors import UserError
from trainer.control.tuner import ControlSide, signed, steering_of
from trainer.data.classes import NEUTRAL, predicted
from trainer.data.tokens import IGNORED
from trainer.loop.adapter import PREFIX, number_of
from trainer.loop.batches import Tokenised
from trainer.loop.boundary import Boundary
from trainer.loop.layer import Pair, draw_mask, mixed
from trainer.loop.loop import Loop
from trainer.loop.parts import Predicted, Stepped
from trainer.loop.recipe import Recipe
from trainer.loop.stream import Failed, Stream

FP64_BOUND, FP32_BOUND, NF4_BOUND = 1e-12, 2e-5, 5e-5
NEIGHBOURS = 3
"""Bases beside the given one on which rounding is measured."""
WIDEST_BOUND = 1e-3
"""However far rounding carries a training in fp32, no larger difference is certified."""


@dataclass(frozen=True)
class Trajectory:
    """What a training left: the loss of each step and the adapter's tensors at the end."""

    losses: list[float]
    tensors: dict[str, Tensor]


@dataclass(frozen=True)
class Certificate:
    """How far one stream's training beside others is from a reference."""

    stream: str
    against: str
    """`alone` or `peft`"""
    steps: int
    """Optimizer steps compared."""
    loss: float
    """Largest relative difference of a step's loss."""
    tensors: dict[str, float]
    """Norm of difference / norm, by tensor."""
    bound: float
    rounding: float | None = None
    """How far PEFT in fp32 ends from PEFT in fp64 (`_rounding`), measured where the plain bound is broken; the bound is twice that then, or WIDEST_BOUND."""

    @property
    def worst(self) -> tuple[str, float]:
        return max(self.tensors.items(), key=lambda item: item[1])

    @property
    def difference(self) -> float:
        return max(self.loss, self.worst[1])

    @property
    def holds(self) -> bool:
        return self.difference <= self.bound


def certify(
    model: PreTrainedModel, recipes: Mapping[str, Recipe], *, steps: int | None = None, exact: bool = False
) -> list[Certificate]:
    """Over the first `steps` optimizer steps of each; the model is left as it was."""
    if fixed := next((name for name, recipe in recipes.items() if recipe.filed), None):
        what = "holds rows that are not trained, which PEFT's training has no place for"
        raise UserError(fixed, what, "certify it without start_adapter and init_lora_weights")
    if steps is not None:
        recipes = {name: replace(recipe, steps=min(steps, recipe.steps)) for name, recipe in recipes.items()}
    bound, made = bound_of(model), []
    with _stays_double():
        together = trained(model, recipes, exact=exact)
        for name, recipe in recipes.items():
            alone, peft = trained(model, {name: recipe}, exact=exact)[name], trained_by_peft(model, recipe)
            pair = [
                _compared(name, "alone", together[name], alone, bound),
                _compared(name, "peft", together[name], peft, bound),
            ]
            if bound == FP32_BOUND and not all(certificate.holds for certificate in pair):
                rounding = _rounding(model, recipe, peft)
                pair = [_widened(certificate, rounding) for certificate in pair]
            made += pair
    return made


def _widened(certificate: Certificate, rounding: float) -> Certificate:
    return replace(certificate, bound=max(certificate.bound, min(2 * rounding, WIDEST_BOUND)), rounding=rounding)


def _rounding(model: PreTrainedModel, recipe: Recipe, peft: Trajectory) -> float:
    """The farthest that PEFT's training in fp32, this one or one on a base one rounding away, ends from that in fp64."""
    true, ends = _in_double(model, recipe), [peft]
    for seed in range(NEIGHBOURS):
        with _beside(model, seed):
            ends.append(trained_by_peft(model, recipe))
    return max(_compared("", "peft", end, true, FP32_BOUND).difference for end in ends)


@contextmanager
def _beside(model: PreTrainedModel, seed: int) -> Iterator[None]:
    """Each weight moved to one of its two neighbours among the numbers of its type: as much as a rounding anywhere may amount to."""
    weights, generator = {value: value.data for value in model.parameters()}, torch.Generator().manual_seed(seed)
    for value, own in weights.items():
        towards = torch.randint(0, 2, own.shape, generator=generator) * 2.0 - 1  # +-1, times infinity
        value.data = torch.nextafter(own, (towards * math.inf).to(own))
    try:
        yield
    finally:
        for value, own in weights.items():
            value.data = own


def _in_double(model: PreTrainedModel, recipe: Recipe) -> Trajectory:
    """PEFT's training in fp64; the model is as it was afterwards, since fp32 values survive the way there and back."""
    model.to(torch.float64)  # type: ignore[arg-type]  # transformers types it as a device
    try:
        return trained_by_peft(model, recipe)
    finally:
        model.to(torch.float32)  # type: ignore[arg-type]


@contextmanager
def _stays_double() -> Iterator[None]:
    """Keeps fp64 where a family's norms would compute in fp32: a cast can turn a difference of 1e-16 into one of 1e-7.

    Methods are replaced, since torch's modes are off while a backward pass recomputes activations.
    """
    plain_to: Any = Tensor.to
    plain_float: Any = Tensor.float

    def to(value: Tensor, *args: Any, **kwargs: Any) -> Any:
        stays = value.dtype is torch.float64 and args == (torch.float32,)
        return value if stays else plain_to(value, *args, **kwargs)

    def single(value: Tensor, *args: Any, **kwargs: Any) -> Any:
        return value if value.dtype is torch.float64 else plain_float(value, *args, **kwargs)

    Tensor.to, Tensor.float = to, single  # type: ignore[method-assign,assignment]
    try:
        yield
    finally:
        Tensor.to, Tensor.float = plain_to, plain_float  # type: ignore[method-assign]


def bound_of(model: PreTrainedModel) -> float:
    if any(type(parameter).__name__ == "Params4bit" for parameter in model.parameters()):
        return NF4_BOUND
    return FP64_BOUND if model.dtype is torch.float64 else FP32_BOUND


def trained(model: PreTrainedModel, recipes: Mapping[str, Recipe], *, exact: bool = False) -> dict[str, Trajectory]:
    """All of them on one loop.  Raises UserError where one fails."""
    losses: dict[str, list[float]] = {name: [] for name in recipes}

    class Recorded(Boundary):
        def stepped(self, stream: Stream, step: Stepped) -> str | None:
            losses[stream.name].append(step.figures["loss"])
            return None

        def failed(self, stream: Stream, why: Failed) -> None:
            raise UserError(stream.name, str(why), why.fix)

    loop = Loop(model, Recorded(), exact=exact)
    streams = [recipe.stream(loop, name) for name, recipe in recipes.items()]
    loop.add(*streams)
    try:
        loop.run()
    finally:
        loop.layers.remove()
    return {stream.name: Trajectory(losses[stream.name], stream.adapter.state_dict()) for stream in streams}


def trained_by_peft(model: PreTrainedModel, recipe: Recipe) -> Trajectory:
    """The reference shares the order of rows, the drawn dropout masks, the loss of a token and nothing else with the loop."""
    model.eval()  # type: ignore[no-untyped-call]
    torch.manual_seed(recipe.seed)
    config = copy.deepcopy(recipe.config)  # PEFT writes into it
    config.fan_in_fan_out = any(isinstance(module, Conv1D) for module in model.modules())
    peft = get_peft_model(model, config, autocast_adapter_dtype=model.dtype is not torch.float64)
    assert isinstance(peft, PeftModel)
    masks = _keyed_dropout(peft, recipe.config.lora_dropout)
    parameters = [value for value in peft.parameters() if value.requires_grad]
    optimizer = recipe.optimizer(parameters)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, recipe.schedule)
    losses = []
    for step in range(recipe.steps):
        losses.append(_gradient(peft, recipe, masks, step))
        nn.utils.clip_grad_norm_(parameters, recipe.max_grad_norm or float("inf"))
        optimizer.step()
        if recipe.decay:
            recipe.decay(_pairs(peft), optimizer.param_groups[0]["lr"])
        scheduler.step()
        optimizer.zero_grad()
    named = {
        name.replace(".default", ""): value.detach().cpu()
        for name, value in peft.named_parameters()
        if value.requires_grad
    }
    peft.unload()  # the base as it was
    return Trajectory(
        losses, {name.replace("magnitude_vector.weight", "magnitude_vector"): value for name, value in named.items()}
    )


def _pairs(model: PeftModel) -> list[Pair]:
    """PEFT's layers as the loop's decay takes them: views of the same weights."""
    values = dict(model.named_parameters())
    return [
        Pair(values[f"{name}.lora_A.default.weight"].data, values[f"{name}.lora_B.default.weight"].data.T, None, layer.scaling["default"], 0.0)
        for name, layer in model.named_modules()
        if isinstance(layer, LoraLayer)
    ] + [_pair_of(layer) for layer in model.modules() if isinstance(layer, ControlSide)]  # fmt: skip


def _pair_of(side: ControlSide) -> Pair:
    (first, second), form = side.weights("default"), side.forms["default"]
    a, b = (first.data.T, second.data) if form == "spectral" else (first.data, second.data.T)
    return Pair(a, b, None, side.scaling["default"], 0.0, form=form)


def _gradient(model: PeftModel, recipe: Recipe, masks: list[_KeyedDropout], step: int) -> float:
    """Backward passes over a step's micro-batches; returns its loss."""
    micro_batches = recipe.batches.of_step(step)
    total = sum(label != IGNORED for rows in micro_batches for row in rows for label in row.labels[1:])
    loss, before = 0.0, 0
    for rows in micro_batches:
        ids, labels, mask = _padded(rows, model.device)
        for drop in masks:
            drop.keys = [mixed(recipe.seed, step, before + number) for number in range(len(rows))]
            drop.lengths = [len(row.ids) for row in rows]
        counted = (mask[:, 1:] == 1) if recipe.loss.everywhere else (labels[:, 1:] != IGNORED)

        classes = [predicted(row.classes, len(row.ids)) for row in rows]

        def logits(ids: Tensor = ids, mask: Tensor = mask, counted: Tensor = counted) -> Tensor:
            found: Tensor = model(input_ids=ids, attention_mask=mask, use_cache=False).logits[:, :-1][counted]
            return found  # (m, V)

        base = None
        if recipe.loss.needs_base:
            with torch.no_grad(), model.disable_adapter():
                base = logits()
        signs = _filled(classes, 0, model.device)
        _weigh_neutral(model, (signs.abs() == NEUTRAL).double() * recipe.neutral / total)
        with signed(model, signs.sign()):
            values = recipe.loss(
                Predicted(logits(), labels[:, 1:][counted], base, signs[:, :-1][counted])
            )  # (m,) or (m, 1 + parts)
            part = values.reshape(len(values), -1)[:, 0].sum() / total
            (part + _penalty(model)).backward()  # type: ignore[no-untyped-call]
        loss, before = loss + part.item(), before + len(rows)
    return loss


class _KeyedDropout(nn.Module):
    """Dropout with the masks that the loop draws, whatever the rows are padded to."""

    def __init__(self, share: float, number: int) -> None:
        super().__init__()
        self.share, self.number = share, number
        self.keys: list[int] = []
        self.lengths: list[int] = []

    def forward(self, x: Tensor) -> Tensor:
        keep = torch.ones_like(x)
        rows = keep.view(
            len(self.lengths), -1, x.shape[-1]
        )  # (R, T, in): some families give a layer all tokens in one row
        for mask, length, key in zip(rows, self.lengths, self.keys, strict=True):
            draw_mask(mask[:length], self.share, key, self.number)
        return x * keep


def _keyed_dropout(model: PeftModel, share: float) -> list[_KeyedDropout]:
    made = []
    for name, layer in model.named_modules():
        if isinstance(layer, LoraLayer | ControlSide):
            cast("nn.Module", layer).training = True
            if share:
                made.append(_KeyedDropout(share, number_of(name.removeprefix(PREFIX))))
                layer.lora_dropout["default"] = made[-1]
    return made


def _padded(rows: Sequence[Tokenised], device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    return (
        _filled([row.ids for row in rows], 0, device),
        _filled([row.labels for row in rows], IGNORED, device),
        _filled([[1] * len(row.ids) for row in rows], 0, device),
    )


def _weigh_neutral(model: PeftModel, weights: Tensor) -> None:
    if steering := steering_of(model):
        steering.neutral, steering.penalties = weights if bool(weights.any()) else None, []


def _penalty(model: PeftModel) -> Tensor | float:
    """The mean of the sites."""
    steering = steering_of(model)
    return sum(steering.penalties) / len(steering.penalties) if steering and steering.penalties else 0.0


def _filled(values: Sequence[Sequence[int]], fill: int, device: torch.device) -> Tensor:
    width = max(map(len, values))
    return torch.tensor([[*value, *[fill] * (width - len(value))] for value in values], device=device)


def _compared(stream: str, against: str, mine: Trajectory, other: Trajectory, bound: float) -> Certificate:
    assert mine.tensors.keys() == other.tensors.keys() and len(mine.losses) == len(other.losses)
    losses = zip(mine.losses, other.losses, strict=True)
    differences = {name: _relative(mine.tensors[name], other.tensors[name]) for name in mine.tensors}
    loss = max(abs(a - b) / abs(b) for a, b in losses)
    return Certificate(stream, against, len(mine.losses), loss, differences, bound)


def _relative(mine: Tensor, other: Tensor) -> float:
    norm = float(other.norm())
    difference = float((mine - other).norm())
    return difference / norm if norm else difference
