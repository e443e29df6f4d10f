"""Unified LoRA's controller for a stream: `phi` chooses a factor of the scheduled learning rate (U07, U16, U17)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Field

from swarm.keys import Settings
from swarm.kinds import Controller
from trainer.unified import MODES, UnifiedController, Weights

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from trainer.loop import parts

Above = Annotated[float, Field(gt=0)]
Within = Annotated[float, Field(gt=0, lt=1)]
Weight = Annotated[float, Field(ge=0)]
Share = Annotated[float, Field(gt=0, le=1)]
FACTORS = {"lr_single": 1.0, "lr_multi": 0.6, "lr_mirror": 0.2}
"""The source's learning rates, 5e-5, 3e-5 and 1e-5, as factors."""


class UnifiedSettings(Settings):
    controller_preset: Literal["relative", "absolute", "glue", "tinker"] = "relative"
    """relative: stress is how far the loss stands above its usual value; the others take the loss itself, as the source does, with its
    starting values (absolute), or its factors for GLUE (1, 0.6, 0.2) and for language models (4, 1, 0.2)."""
    controller_alpha: Annotated[float, Field(gt=0, le=1)] | None = None
    """How fast phi follows the stress; unset here and below: the preset's."""
    controller_beta: Annotated[float, Field(ge=0, lt=1)] | None = None
    """How long the loss is smoothed."""
    controller_theta0: Within | None = None
    """Phi from which on the mode is multi."""
    controller_theta1: Within | None = None
    """Phi from which on the mode is mirror."""
    controller_band: Annotated[float, Field(ge=0, lt=0.5)] | None = None
    """By how much phi must pass a threshold."""
    controller_dwell: Annotated[int, Field(ge=0)] | None = None
    """Steps that a mode lasts at least."""
    controller_warmup: Annotated[int, Field(ge=1)] | None = None
    """Steps in which relative stress measures the usual loss and the mode does not change."""
    controller_single: Above | None = None
    """Factor of the learning rate in mode single."""
    controller_multi: Above | None = None
    """In mode multi."""
    controller_mirror: Above | None = None
    """In mode mirror."""
    controller_mirror_lock: bool | None = None
    """From mirror only to single."""
    controller_skip: bool | None = None
    """From single to mirror at once, and back."""
    controller_weight_error: Weight | None = None
    """Of the loss in phi."""
    controller_weight_conflict: Weight | None = None
    """Of how far the tasks' adapters contradict each other."""
    controller_weight_stability: Weight | None = None
    """Of what was lost on the anchor rows."""
    controller_weight_error_rise: Weight | None = None
    """Of a rise of the first;"""
    controller_weight_conflict_rise: Weight | None = None
    """of the second;"""
    controller_weight_stability_fall: Weight | None = None
    """of a fall of stability."""
    controller_merge: Literal["mean", "ties", "best"] | None = None
    """In mode multi, an adapter is trained for each `task` of the rows; left again, they become one: their mean, TIES of their changes, or the
    one with the lowest anchor loss.  Unset: modes only scale the learning rate."""
    controller_anchor_rows: Annotated[int, Field(ge=0)] = 0
    """Rows of `val_datasets`, else held-out ones, whose loss says what was lost: after mode mirror the best snapshot is restored if it got worse."""
    controller_anchor_steps: Annotated[int, Field(ge=1)] = 20
    """Their loss is measured, and in mode single a snapshot is taken, every so many steps."""
    controller_snapshots: Annotated[int, Field(ge=1, le=16)] = 3
    """Kept, the newest; each holds adapter and optimizer, in memory and in checkpoints."""
    controller_rho: Annotated[float, Field(ge=0)] = 0.02
    """The share by which the anchor loss may have got worse."""
    controller_pull: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """In mode mirror, the share of the way back to the best snapshot that each step goes."""
    controller_adapt: Literal["rate", "rank"] = "rate"
    """What the modes change: the learning rate, or the ranks that are used.  The source's author found no benefit in ranks."""
    controller_ranks: list[Share] = [1.0, 0.5, 0.25]  # noqa: RUF012  pydantic copies defaults
    """With `adapt: rank`: shares of the adapter's rank in modes single, multi and mirror."""
    controller_rescale: bool = False
    """With `adapt: rank`: fewer ranks count for more, as in the source; the output jumps when they change."""


OF_ACTS = frozenset({"merge", "anchor_rows", "anchor_steps", "snapshots", "rho", "pull", "adapt", "ranks", "rescale"})
ARGUMENTS = {"single": "lr_single", "multi": "lr_multi", "mirror": "lr_mirror"}
"""Settings whose arguments have other names."""


class Unified(Controller[UnifiedSettings]):
    name = "unified"
    summary = "phi, a smoothed measure of stress, lowers the learning rate while training is disturbed (Unified LoRA)"
    settings = UnifiedSettings
    engines: ClassVar[frozenset[str]] = frozenset({"shared", "trl", "pair"})
    modes: ClassVar[tuple[str, ...]] = MODES

    def engines_with(self, settings: UnifiedSettings) -> frozenset[str]:
        """Modes that act need the shared engine's adapters."""
        return self.engines & {"shared"} if _acts(settings) else self.engines

    def wrong(self, settings: UnifiedSettings) -> tuple[str, str, str] | None:
        low, high = (
            theta or usual for theta, usual in ((settings.controller_theta0, 0.3), (settings.controller_theta1, 0.7))
        )
        if low >= high:
            return (
                "controller_theta0",
                f"mode multi would begin at {low:g}, above mirror's {high:g}",
                f"write less than {high:g}",
            )
        return _unfit(settings) or _idle(settings)

    def begin(self, settings: UnifiedSettings) -> parts.Controller:
        from trainer.loop.modes import Acts, Modes
        from trainer.loop.ranks import SteeredRanks
        from trainer.loop.steering import Steering

        if not _acts(settings):
            return Steering(made(settings))
        if settings.controller_adapt == "rank":
            return SteeredRanks(made(settings), settings.controller_ranks, rescale=settings.controller_rescale)
        acts = Acts(
            merge=settings.controller_merge, anchor_rows=settings.controller_anchor_rows,
            anchor_steps=settings.controller_anchor_steps, snapshots=settings.controller_snapshots,
            rho=settings.controller_rho, pull=settings.controller_pull,
        )  # fmt: skip
        return Modes(made(settings), acts)

    def finish(self, settings: UnifiedSettings, folder: Path, rows: Sequence[Mapping[str, float]]) -> None:
        from trainer import philog

        controller = made(settings)
        philog.write(folder, rows, (controller.theta0, controller.theta1))


def _acts(settings: UnifiedSettings) -> bool:
    return bool(settings.controller_merge or settings.controller_anchor_rows or settings.controller_adapt == "rank")


def unfit_for_ranks(settings: Any, fix: str) -> tuple[str, str, str] | None:
    """Why a controller with three modes cannot adapt ranks; `fix`: what else can be written."""
    if (count := len(settings.controller_ranks)) != len(MODES):
        return "controller_ranks", f"{count} shares for three modes", "write [1.0, 0.5, 0.25]"
    if not hasattr(settings, "lora_r"):
        return "adapter", "the controller adapts ranks, and there are none", f"{fix}, or take lora"
    if (begun := getattr(settings, "init_lora_weights", "default")) != "default":
        what = f"with {begun} each rank holds a part of the base, which would be missing where ranks rest"
        return "init_lora_weights", what, f"{fix}, or write default"
    return None


NEEDS: dict[str, tuple[str, Sequence[str]]] = {
    "anchor_rows": ("16", ("anchor_steps", "snapshots", "rho", "pull", "weight_stability", "weight_stability_fall")),
    "merge": ("mean", ("weight_conflict", "weight_conflict_rise")),
}
"""Settings that give others something to do, and a value to begin with."""
UNUSED: dict[str, dict[str, Sequence[str]]] = {
    "adapt": {"rate": ("ranks", "rescale"), "rank": tuple(ARGUMENTS)},
    "preset": dict.fromkeys(("absolute", "glue", "tinker"), ("warmup",)),
}
"""By a setting and its value, those that it leaves nothing to do."""


def _idle(settings: UnifiedSettings) -> tuple[str, str, str] | None:
    """A setting that could do nothing beside the others."""
    given = {name for name, field in UnifiedSettings.model_fields.items() if getattr(settings, name) != field.default}
    for needed, (value, keys) in NEEDS.items():
        for key in (f"controller_{name}" for name in keys):
            if key in given and not getattr(settings, f"controller_{needed}"):
                fix = f"set controller_{needed}: {value}, or leave it out"
                return key, f"it does nothing without controller_{needed}", fix
    for chooser, unused in UNUSED.items():
        chosen = getattr(settings, f"controller_{chooser}")
        for key in (f"controller_{name}" for name in unused.get(chosen, ())):
            if key in given:
                return key, f"it does nothing with controller_{chooser}: {chosen}", "leave it out"
    return None


def _unfit(settings: UnifiedSettings) -> tuple[str, str, str] | None:
    """Acts that do not go together, or not with the adapter."""
    if settings.controller_merge and hasattr(settings, "control_adapter_type"):
        what = "the conflict of tasks is measured on products of two matrices, which control adapters are not"
        return "controller_merge", what, "write `adapter: lora`, or leave it out"
    if settings.controller_merge == "best" and not settings.controller_anchor_rows:
        what = "best is chosen by controller_anchor_rows"
        return "controller_merge", what, "set controller_anchor_rows: 16, or write mean"
    if settings.controller_adapt == "rank" and (settings.controller_merge or settings.controller_anchor_rows):
        return "controller_adapt", "ranks are not adapted beside merge or anchor_rows", "leave one of them out"
    if settings.controller_adapt == "rank":
        return unfit_for_ranks(settings, "leave controller_adapt out")
    return None


def made(settings: UnifiedSettings) -> UnifiedController:
    given: dict[str, Any] = {}
    weights: dict[str, float] = {}
    for name in UnifiedSettings.model_fields:
        key = name.removeprefix("controller_")
        if key.startswith("weight_") and (value := getattr(settings, name)) is not None:
            weights[key.removeprefix("weight_")] = value
        elif key not in {"preset", *OF_ACTS} and (value := getattr(settings, name)) is not None:
            given[ARGUMENTS.get(key, key)] = value
    factors = FACTORS if settings.controller_preset == "absolute" else {}
    if settings.controller_adapt == "rank":
        factors = dict.fromkeys(FACTORS, 1.0)
    if weights:
        given["weights"] = Weights(**weights)
    return UnifiedController.preset(settings.controller_preset, **{**factors, **given})


KINDS = (Unified(),)
