"""The orbital variant of Unified LoRA for a stream: three states choose learning rate and ranks (U19)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import Field

from swarm.keys import Settings
from swarm.kinds import Controller
from trainer.controllers.unified import unfit_for_ranks
from trainer.orbital import STATES, OrbitalController

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from trainer.loop import parts

Above = Annotated[float, Field(gt=0)]
Deviations = Annotated[float, Field(ge=0)]
Share = Annotated[float, Field(gt=0, le=1)]


class OrbitalSettings(Settings):
    controller_adapt: Literal["both", "rate", "rank"] = "both"
    """What the states change: the learning rate, the ranks that are used, or both.  The source's author found no benefit in ranks."""
    controller_high: Above = 1.5
    """Factor of the learning rate in state high, where the loss is calm; in base it is 1."""
    controller_low: Above = 0.3
    """In state low, where it jumps."""
    controller_ranks: list[Share] = [1.0, 0.5, 0.25]  # noqa: RUF012  pydantic copies defaults
    """Shares of the adapter's rank that are trained and used in high, base and low; training begins in base."""
    controller_alpha: Share = 0.1
    """How fast the smoothed loss follows; phi is how far the loss is from it, plus a share of the rise since the step before."""
    controller_spike: Annotated[float, Field(ge=0)] = 0.5
    """That share."""
    controller_stress: Deviations = 1.5
    """The state goes towards low where phi is so many standard deviations above the mean of the newest phis."""
    controller_recovery: Deviations = 1.0
    """It goes towards high where phi is so many below."""
    controller_window: Annotated[int, Field(ge=10, le=10_000)] = 500
    """Phis of which mean and deviation are taken."""
    controller_warmup: Annotated[int, Field(ge=10)] = 50
    """The first step after which the state may change."""
    controller_dwell: Annotated[int, Field(ge=0)] = 30
    """Steps that a state lasts at least; `stable_window` in the source."""
    controller_every: Annotated[int, Field(ge=1)] = 5
    """The state may change after every so many steps; `eval_interval` in the source."""


class Orbital(Controller[OrbitalSettings]):
    name = "orbital"
    summary = (
        "jumps of the loss, beside their usual size, lower learning rate and ranks, and calm raises them (Unified LoRA)"
    )
    settings = OrbitalSettings
    engines: ClassVar[frozenset[str]] = frozenset({"shared", "trl", "pair"})
    modes: ClassVar[tuple[str, ...]] = STATES

    def engines_with(self, settings: OrbitalSettings) -> frozenset[str]:
        """Ranks are those of the shared engine's adapters; where there are none, `wrong` says so."""
        ranks = settings.controller_adapt != "rate" and hasattr(settings, "lora_r")
        return self.engines & {"shared"} if ranks else self.engines

    def wrong(self, settings: OrbitalSettings) -> tuple[str, str, str] | None:
        unused = {"rate": ("ranks",), "rank": ("high", "low")}.get(settings.controller_adapt, ())
        for key in (f"controller_{name}" for name in unused):
            if getattr(settings, key) != OrbitalSettings.model_fields[key].default:
                return key, f"it does nothing with controller_adapt: {settings.controller_adapt}", "leave it out"
        return (
            None if settings.controller_adapt == "rate" else unfit_for_ranks(settings, "write controller_adapt: rate")
        )

    def begin(self, settings: OrbitalSettings) -> parts.Controller:
        from trainer.loop.ranks import SteeredRanks
        from trainer.loop.steering import Steering

        controller = made(settings)
        return (
            Steering(controller)
            if settings.controller_adapt == "rate"
            else SteeredRanks(controller, settings.controller_ranks)
        )

    def finish(self, settings: OrbitalSettings, folder: Path, rows: Sequence[Mapping[str, float]]) -> None:
        from trainer import philog

        philog.write(folder, rows, names=STATES, bounded=False)


def made(settings: OrbitalSettings) -> OrbitalController:
    rank_alone = settings.controller_adapt == "rank"
    return OrbitalController(
        alpha=settings.controller_alpha, spike=settings.controller_spike, stress=settings.controller_stress,
        recovery=settings.controller_recovery, window=settings.controller_window, warmup=settings.controller_warmup,
        dwell=settings.controller_dwell, every=settings.controller_every,
        lr_high=1.0 if rank_alone else settings.controller_high, lr_low=1.0 if rank_alone else settings.controller_low,
    )  # fmt: skip


KINDS = (Orbital(),)
