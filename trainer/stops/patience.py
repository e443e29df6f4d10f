"""Stops that lose patience: of the training loss, which is logged, and of the held-out loss, which `eval_steps` measures."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from statistics import fmean
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field

from swarm.keys import Positive, Settings
from swarm.kinds import Refusal, Stop

if TYPE_CHECKING:
    from trainer.loop import parts

Loss = Annotated[float, Field(ge=0)]
Action = Literal["end", "cosine", "bump", "reweight"]
OF_ACTIONS = ("plateau_action", "plateau_factor", "plateau_times", "use_jade")


class PlateauSettings(Settings):
    plateau_patience: Positive | None = None
    """End when the training loss has not improved in so many logged steps; with another `plateau_action`, act after so many optimizer steps."""
    plateau_min_delta: Loss = 1e-3
    """By how much its mean must fall to count as better."""
    plateau_window: Positive = 5
    """Logged (or optimizer) steps in that mean: the newest."""
    plateau_min_steps: Annotated[int, Field(ge=0)] = 0
    """Optimizer steps before which it never ends or acts."""
    plateau_action: Action | None = None
    """What is done at a plateau; unset: end.  end: training ends; cosine: the learning rate starts again at its highest and falls to zero along a
    cosine; bump: it is multiplied by `plateau_factor`; reweight: each token counts by the model's own probability of it (`loss: dft`).  An action is
    taken back when the held-out loss (`eval_steps`) is above the last one before it."""
    plateau_factor: Annotated[float, Field(gt=0)] = 2.0
    """Of the learning rate, with `plateau_action: bump`."""
    plateau_times: Positive = 1
    """How often it acts at most."""
    use_jade: bool = False
    """The same as `plateau_action: cosine`, unless one is named."""

    @property
    def at_plateau(self) -> Action:
        return self.plateau_action or ("cosine" if self.use_jade else "end")


class EarlyStoppingSettings(Settings):
    early_stopping_patience: Positive | None = None
    """End when the held-out loss has not improved in so many evaluations; `save: best` keeps the best one."""
    early_stopping_min_delta: Loss = 0.0
    """By how much it must fall to count as better."""


@dataclass
class Patience:
    """Counts how often in a row the mean of the newest values of a figure was no better than the best one."""

    figure: str
    patience: int
    min_delta: float
    why: str
    window: int = 1
    min_steps: int = 0
    values: list[float] = field(default_factory=list)
    best: float | None = None
    stalled: int = 0

    def __call__(self, step: int, figures: Mapping[str, float]) -> str | None:
        if self.figure not in figures:
            return None
        self.values = [*self.values, figures[self.figure]][-self.window :]
        mean = fmean(self.values)
        if self.best is None or (mean < self.best and self.best - mean >= self.min_delta):
            self.best, self.stalled = mean, 0
        else:
            self.stalled += 1
        if self.stalled < self.patience or step < self.min_steps:
            return None
        return f"{self.why}: {self.stalled} times in a row no better than {self.best:.4g} by {self.min_delta:g}"

    def state_dict(self) -> dict[str, Any]:
        state = asdict(self)
        return {key: state[key] for key in ("values", "best", "stalled")}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.values, self.best, self.stalled = state["values"], state["best"], state["stalled"]


class Plateau(Stop[PlateauSettings]):
    name = "plateau"
    summary = "a training loss that no longer falls"
    settings = PlateauSettings

    def refusal(self, settings: Any) -> Refusal | None:
        action = settings.at_plateau
        given = [key for key in OF_ACTIONS if getattr(settings, key) != PlateauSettings.model_fields[key].default]
        if given and settings.plateau_patience is None:
            fix = "set e.g. `plateau_patience: 200`, or leave it out"
            return Refusal(given[0], "it does nothing without `plateau_patience`", fix)
        if "plateau_factor" in given and action != "bump":
            return Refusal("plateau_factor", f"{action} has no factor", "write `plateau_action: bump`, or leave it out")
        if "plateau_times" in given and action == "end":
            return Refusal("plateau_times", "a training ends once", "name another `plateau_action`, or leave it out")
        if action == "reweight" and getattr(settings, "loss", "nll") != "nll":
            what = f"`loss: {settings.loss}` weights tokens so from the first step on"
            return Refusal("plateau_action", what, "write cosine or bump, or `loss: nll`")
        return None

    def armed(self, settings: PlateauSettings) -> bool:
        return settings.plateau_patience is not None

    def engines_with(self, settings: PlateauSettings) -> frozenset[str] | None:
        return None if settings.at_plateau == "end" else frozenset({"shared", "pair"})

    def unreachable(self, settings: Any, steps: int | None) -> Refusal | None:
        if steps is None:
            return None
        times, least, ends = settings.plateau_patience + 1, settings.plateau_min_steps, settings.at_plateau == "end"
        if least >= steps:
            what = f"it never {'ends' if ends else 'acts'} before step {least}, and the training has {steps}"
            return Refusal("plateau_min_steps", what, f"write less than {steps}, or leave plateau_patience out")
        if ends:
            return _too_patient(
                "plateau_patience", times, settings.logging_steps, steps, "logged steps", "`logging_steps`"
            )
        if times < steps:
            return None
        what = f"it can change nothing before step {times}, and the training has {steps}"
        return Refusal("plateau_patience", what, f"write at most {steps - 2}" if steps > 2 else "train for more steps")

    def begin(self, settings: PlateauSettings) -> Patience | None:
        return self._patience(settings) if settings.at_plateau == "end" else None

    def controller(self, settings: PlateauSettings) -> parts.Controller | None:
        from trainer.loop.escape import Escape

        action = settings.at_plateau
        if action == "end":
            return None
        return Escape(lambda: self._patience(settings), action, settings.plateau_times, settings.plateau_factor)

    def _patience(self, settings: PlateauSettings) -> Patience:
        assert settings.plateau_patience is not None
        return Patience(
            "loss", settings.plateau_patience, settings.plateau_min_delta, "plateau of the training loss",
            settings.plateau_window, settings.plateau_min_steps,
        )  # fmt: skip


class EarlyStopping(Stop[EarlyStoppingSettings]):
    name = "early stopping"
    summary = "a held-out loss that no longer falls"
    settings = EarlyStoppingSettings

    def armed(self, settings: EarlyStoppingSettings) -> bool:
        return settings.early_stopping_patience is not None

    def unreachable(self, settings: Any, steps: int | None) -> Refusal | None:
        key, every, times = "early_stopping_patience", settings.eval_steps, settings.early_stopping_patience + 1
        if settings.evals_per_run is not None:
            return _too_few(key, times, settings.evals_per_run - 1)
        if every is None:
            return Refusal(key, "nothing measures the held-out loss on the way", "set `eval_steps` or `evals_per_run`")
        if steps is None:
            return None
        return _too_patient(key, times, every, steps, "evaluations", "`eval_steps`")

    def begin(self, settings: EarlyStoppingSettings) -> Patience:
        assert settings.early_stopping_patience is not None
        why = "early stop by the held-out loss"
        return Patience("eval_loss", settings.early_stopping_patience, settings.early_stopping_min_delta, why)


def _too_patient(key: str, times: int, every: int, steps: int, what: str, setting: str) -> Refusal | None:
    """The first value is the best so far, so that `times` of them, one every so many steps, come before it can end anything."""
    if times * every < steps:
        return None
    arithmetic = f"it can end nothing before step {times} x {every} = {times * every} ({times} {what}), and the training has {steps}"
    most = (steps - 1) // every - 1
    return Refusal(key, arithmetic, f"write at most {most}, or lower {setting}" if most > 0 else f"lower {setting}")


def _too_few(key: str, times: int, evaluations: int) -> Refusal | None:
    """Of `evals_per_run`, the one before the first step left out; the last one ends nothing."""
    if times < evaluations:
        return None
    what = f"it can end nothing before evaluation {times} of {evaluations} after the start, which is the last"
    return Refusal(key, what, f"raise `evals_per_run` above {times + 1}, or lower it")


KINDS = (Plateau(), EarlyStopping())
