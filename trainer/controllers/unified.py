"""Unified LoRA's controller for a stream: `phi` chooses a factor of the scheduled learning rate (U07, U16, U17)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Field

from swarm.keys import Settings
from swarm.kinds import Controller
from trainer.unified import UnifiedController

if TYPE_CHECKING:
    from trainer.loop import parts

Above = Annotated[float, Field(gt=0)]
Within = Annotated[float, Field(gt=0, lt=1)]
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


ARGUMENTS = {"single": "lr_single", "multi": "lr_multi", "mirror": "lr_mirror"}
"""Settings whose arguments have other names."""


class Unified(Controller[UnifiedSettings]):
    name = "unified"
    summary = "phi, a smoothed measure of stress, lowers the learning rate while training is disturbed (Unified LoRA)"
    settings = UnifiedSettings
    engines: ClassVar[frozenset[str]] = frozenset({"shared"})

    def wrong(self, settings: UnifiedSettings) -> tuple[str, str, str] | None:
        low, high = (
            theta or usual for theta, usual in ((settings.controller_theta0, 0.3), (settings.controller_theta1, 0.7))
        )
        if low < high:
            return None
        return (
            "controller_theta0",
            f"mode multi would begin at {low:g}, above mirror's {high:g}",
            f"write less than {high:g}",
        )

    def begin(self, settings: UnifiedSettings) -> parts.Controller:
        from trainer.loop.steering import Steering

        return Steering(made(settings))


def made(settings: UnifiedSettings) -> UnifiedController:
    given: dict[str, Any] = {}
    for name in UnifiedSettings.model_fields:
        key = name.removeprefix("controller_")
        if key != "preset" and (value := getattr(settings, name)) is not None:
            given[ARGUMENTS.get(key, key)] = value
    factors = FACTORS if settings.controller_preset == "absolute" else {}
    return UnifiedController.preset(settings.controller_preset, **{**factors, **given})


KINDS = (Unified(),)
