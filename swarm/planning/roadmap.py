"""`swarm plan --roadmap`: what a run will do in which order, and what it will cost by the speed of earlier runs and the prices of the config."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from swarm import config
from swarm.config.dump import flow
from swarm.errors import UserError, UserErrors
from swarm.launch.layout import Layout
from swarm.log import Log, LogError
from swarm.planning import gpus
from swarm.planning.plan import PlanRow
from swarm.policy import spending
from swarm.policy.research import TASKS
from swarm.rundir import all_runs
from swarm.settings import RunSettings, StreamSettings
from swarm.state import State, fold

TOLD = ("learning_rate", "lora_r", "lora_alpha", "num_epochs", "max_steps", "micro_batch_size", "gradient_accumulation_steps", "sequence_len", "optimizer", "lr_scheduler")  # fmt: skip
"""Hyper-parameters that a reader asks for first."""


@dataclass(frozen=True, slots=True)
class Cost:
    """One stream: what it is expected to take and, once it was trained, what it took."""

    stream: str
    base: str
    data: str
    hyper_parameters: str
    device: str
    tokens: int | None
    """At most: where each row has `sequence_len`."""
    hours: float | None
    usd: float | None
    measured_hours: float | None = None
    measured_usd: float | None = None


def costs(run: RunSettings, rows: Sequence[PlanRow], layout: Layout, state: State | None) -> list[Cost]:
    """One per stream; hours are not known where no earlier run trained on that base with that kind of adapter."""
    speeds, names = dict(_speeds(Path(run.runs_dir))), {gpu.index: gpu.name for gpu in gpus.found()}
    return [_cost(run, row, speeds, _price(run, row, layout, names), state) for row in rows]


def markdown(run: RunSettings, found: Sequence[Cost], state: State | None = None) -> str:
    """For people.  `state`: of the run, where the roadmap is that of one."""
    sums = [*_sums(run, found), *_took(run, state)]
    return "\n".join([f"# Roadmap of {run.name}", "", *_phases(run), "", *_streams(found), "", *sums, ""])


def data(run: RunSettings, found: Sequence[Cost], state: State | None = None) -> dict[str, Any]:
    """For models and scripts."""
    took = {"run_hours": _hours_of(state), "run_usd": spending.usd(_hours_of(state) * 60, run)} if state else {}
    return {"run": run.name, "phases": _phase_rows(run), "streams": [asdict(one) for one in found], **took}


def _cost(
    run: RunSettings, row: PlanRow, speeds: Mapping[tuple[str, str], float], price: float | None, state: State | None
) -> Cost:
    settings = run.streams[row.stream]
    speed = speeds.get(_kind(settings))
    tokens = row.steps * row.step_tokens if row.steps else None
    hours = tokens / speed / 3600 if tokens and speed else None
    seconds = spending.training_seconds(state, row.stream) if state and row.stream in state.streams else None
    measured = seconds / 3600 if seconds is not None else None
    plain = settings.model_dump(mode="json")
    return Cost(
        stream=row.stream, base=Path(settings.base_model).name, data=_data(settings, row), device=row.device,
        hyper_parameters=", ".join(f"{key}={flow(plain[key])}" for key in TOLD if plain.get(key) is not None),
        tokens=tokens, hours=hours, usd=_times(hours, price), measured_hours=measured, measured_usd=_times(measured, price),
    )  # fmt: skip


def _data(settings: StreamSettings, row: PlanRow) -> str:
    names = ", ".join(Path(one.path).name for one in settings.datasets)
    return f"{names} ({row.rows:,} rows)" if row.rows is not None else names


def _kind(settings: StreamSettings) -> tuple[str, str]:
    return settings.base_model, settings.adapter


def _speeds(runs: Path) -> Iterator[tuple[tuple[str, str], float]]:
    """Tokens a second by base and adapter, of all runs that can be read; the newest comes last."""
    for folder in all_runs(runs):
        try:
            state = fold(Log(folder.log).entries())
            streams = config.of_run(folder, state.added).streams
        except (LogError, OSError, UserError, UserErrors):
            continue  # a run of others or of another version tells nothing
        for name, stream in state.streams.items():
            speed = stream.trained.figures.get("tokens_per_second") if stream.trained else None
            if speed and name in streams:
                yield _kind(streams[name]), speed


def _price(run: RunSettings, row: PlanRow, layout: Layout, names: Mapping[int, str]) -> float | None:
    """USD an hour: the highest of the devices on which the stream may be trained."""
    trainers = [one for one in layout.trainers() if one.streams is None or row.stream in one.streams]
    found = []
    for one in trainers:
        if one.gpu_index is None:
            found.append(run.prices.get("cpu"))
        else:
            name = names.get(one.gpu_index, "")
            own = next((price for part, price in run.prices.items() if part.lower() in name.lower()), None)
            found.append(run.prices.get("gpu") if own is None else own)
    known = [price for price in found if price is not None]
    return max(known) if known else None


def _times(hours: float | None, price: float | None) -> float | None:
    return None if hours is None or price is None else hours * price


def _phase_rows(run: RunSettings) -> list[dict[str, str]]:
    if run.research is None:
        steps = ("prepare the rows", "train", "validate", "evaluate beside the bare base", "promote the best")
        return [{"phase": str(number), "what": what} for number, what in enumerate(steps, start=1)]
    return [
        {
            "phase": f"{TASKS}/{name}",
            "what": ", ".join(f"{key}: {_values(space)}" for key, space in phase.space.items()),
        }
        for name, phase in run.research.phases.items()
    ]


def _values(space: Any) -> str:
    return flow(space) if isinstance(space, list) else f"{space.low:g} to {space.high:g}"


def _phases(run: RunSettings) -> Iterator[str]:
    yield "## Phases"
    yield ""
    for row in _phase_rows(run):
        yield f"* {row['phase']}: {row['what']}"


def _streams(found: Sequence[Cost]) -> Iterator[str]:
    yield "## Streams"
    yield ""
    yield "| stream | base | data | hyper-parameters | device | tokens at most | hours | USD | hours measured | USD measured |"
    yield "|---|---|---|---|---|---|---|---|---|---|"
    for one in found:
        tokens = f"{one.tokens:,}" if one.tokens else "not known"
        numbers = [_short(one.hours), _short(one.usd), _short(one.measured_hours), _short(one.measured_usd)]
        yield f"| {' | '.join([one.stream, one.base, one.data, one.hyper_parameters, one.device, tokens, *numbers])} |"


def _sums(run: RunSettings, found: Sequence[Cost]) -> Iterator[str]:
    for name, what in (("hours", "hours of training"), ("usd", "USD"), ("measured_hours", "hours measured"), ("measured_usd", "USD measured")):  # fmt: skip
        values = [value for one in found if (value := getattr(one, name)) is not None]
        if values:
            yield f"* {what}: {sum(values):.3g}" + (
                "" if len(values) == len(found) else f" ({len(values)} of {len(found)} streams)"
            )
    if any(one.hours is None for one in found):
        yield "* hours are not known where no run here has trained on that base with that adapter: `swarm run` a few steps first"
    if not run.prices or any(one.hours is not None and one.usd is None for one in found):
        yield "* no price is known: add e.g. `prices: {cpu: 0.05, H100: 2.5}`, USD an hour, and hours measured or expected"


def _took(run: RunSettings, state: State | None) -> Iterator[str]:
    """By the clock, since streams that are trained together are counted side by side above."""
    if state and run.prices:
        hours = _hours_of(state)
        yield f"* the run: {hours:.3g} hours by the clock, USD {spending.usd(hours * 60, run):.3g} at the highest of the prices"
    elif state:
        yield f"* the run: {_hours_of(state):.3g} hours by the clock"


def _hours_of(state: State) -> float:
    return (state.time - state.started) / 3600 if state.started else 0.0


def _short(value: float | None) -> str:
    return "not known" if value is None else f"{value:.3g}"
