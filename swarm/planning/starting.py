"""From a config to a running coordinator; a config is checked completely before anything is started."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import reduce
from pathlib import Path

from swarm import config, rundir, units
from swarm import events as ev
from swarm.access.checked import checked
from swarm.access.client import Client
from swarm.artifacts import inputs
from swarm.artifacts.inputs import WHOLE, ran_before
from swarm.config import Config, added
from swarm.config.tree import Node, Problems
from swarm.errors import UserError, UserErrors
from swarm.facts import BaseFacts
from swarm.files import write_whole
from swarm.launch import local
from swarm.launch.layout import Layout
from swarm.log import Log, run_is_alive
from swarm.plainfiles import opener
from swarm.planning import columns, disk, estimate, gpus, machine_checks, packing, placement, rows
from swarm.planning.estimate import Need
from swarm.planning.machine_checks import Inspection
from swarm.planning.notes import notes
from swarm.planning.plan import PlanRow, plan_table
from swarm.policy.admission import admit
from swarm.policy.batching import groups
from swarm.rundir import RunFolder
from swarm.settings import RunSettings
from swarm.spawning import module_command
from swarm.state import Refusal, State, Stream, fold

START_SECONDS = 30.0
LAST_LINE_BYTES = 4096


@dataclass(frozen=True, slots=True)
class Plan:
    """A checked config and where its streams will run."""

    config: Config
    bases: dict[str, BaseFacts]
    needs: dict[str, Need]
    layout: Layout

    def rows(self) -> list[PlanRow]:
        """What `swarm plan` shows."""
        return plan_table(self.config, self.bases, self.layout)

    def notes(self) -> list[str]:
        """Remarks for the user, one line each."""
        return [*notes(self.config.run, self.bases), *self.layout.notes, *_memory_of_groups(self)]


def plan(path: Path, overrides: Sequence[str], *, check_disk: bool = True) -> Plan:
    """Read, check, estimate and place; leaves no process running and downloads nothing.  The folder of a run stands for its
    config and the streams that joined it.

    Raises UserErrors with all problems of the config, its data, bases and GPUs; UserError if memory or disk space is too small.
    """
    run = RunFolder(path)
    read, facts = _read_of_run(run, fold(Log(run.log).entries())) if run.is_run else _read(path, overrides)
    require_training_extra()
    made = _placed(read, facts)
    if check_disk:
        disk.check(read.run, made.needs, Path(read.run.runs_dir))
    return made


def check(path: Path, overrides: Sequence[str]) -> tuple[Config, list[str]]:
    """The config and remarks on it.  Raises what `plan` and `start` would raise; without the packages for training, only what can be
    checked without them.
    """
    if machine_checks.missing_packages():
        return _read(path, overrides)[0], []
    made = plan(path, overrides)
    return made.config, notes(made.config.run, made.bases)


def _read(
    path: Path, overrides: Sequence[str] = (), *, of: RunFolder | None = None
) -> tuple[Config, dict[str, BaseFacts]]:
    inspection = Inspection()

    def further(root: Node, run: RunSettings | None, problems: Problems) -> None:
        with ThreadPoolExecutor(1) as beside:  # two processes of the trainer's, at once
            if run is not None:
                beside.submit(columns.read_ahead, run)
            inspection.look(root, run, problems)
        if run is not None:
            columns.look(root, run, problems)
            rows.look(root, run, problems)

    cwd = of.path if of else Path.cwd()
    return config.load(path, overrides, cwd=cwd, further=further, of_a_run=of is not None), inspection.facts


def _read_of_run(folder: RunFolder, state: State) -> tuple[Config, dict[str, BaseFacts]]:
    """Its config, with the streams that joined since; they are on bases of the others."""
    read, facts = _read(folder.config, of=folder)
    return replace(read, run=reduce(added.settings_of, state.added, read.run)), facts


def _placed(read: Config, facts: dict[str, BaseFacts]) -> Plan:
    found = gpus.devices(read.run.placement)
    needs = {name: estimate.of_stream(facts, s, on_gpu=bool(found.gpus)) for name, s in read.run.streams.items()}
    return Plan(read, facts, needs, placement.place(needs, found, read.run.placement, groups(read.run.streams)))


def _memory_of_groups(made: Plan) -> Iterator[str]:
    cores = max((worker.threads for worker in made.layout.trainers() if worker.gpu_index is None), default=None)
    for number, names in enumerate(groups(made.config.run.streams), start=1):
        needs = [made.needs[name] for name in names]
        if len(needs) > 1:
            once, all_bytes = max(need.shared for need in needs), packing.bytes_of(needs, len(needs), cores=cores)
            yield (
                f"shared {number}: {units.size(once)} once + {units.size(all_bytes - once)} for {len(names)} streams"
                f" = {units.size(all_bytes)} where all are trained at once"
            )


def require_training_extra() -> None:
    """Raises UserError with the command that installs the missing packages."""
    if missing := machine_checks.missing_packages():
        raise UserError("swarm", f"training needs {', '.join(missing)}", "pip install 'toonswarm[train]'")


def refuse_repetition(made: Plan) -> None:
    """Raises UserError, with the place of the result, where every stream of the config was trained before from the same inputs, or the
    same search went to its end.
    """
    run = made.config.run
    streams, found = run.streams, ran_before(run, Path(run.runs_dir))
    whole_run, learns = found.pop(WHOLE, None), any(one.search and one.search.learns for one in streams.values())
    if whole_run or (found.keys() == streams.keys() and not learns):
        name = next(iter(streams))
        earlier = whole_run or found[name]
        where = f"{earlier.run} has {earlier.stream}: {earlier.result}"
        whole = name if len(streams) == 1 else f"{name} and the other streams"
        raise UserError(
            f"streams.{name}", f"{whole} ran before with the same settings and data; {where}",
            f"look at `swarm status {earlier.run}`, change a setting, or run it again with --again",
        )  # fmt: skip


def start(made: Plan, opened: RunFolder | None = None) -> RunFolder:
    """Start a coordinator in a new run folder, or in `opened`, a folder that agents use to plan in; returns the folder.

    Raises UserError if a run was already started in `opened`.
    """
    if opened and (opened.config.exists() or run_is_alive(opened.log)):
        raise UserError(opened.name, "a run was already started in it", "`swarm resume` continues it")
    if opened:
        _check_names(opened, made.config.run.streams)
    _fetch(made)
    folder = opened or rundir.create(Path(made.config.run.runs_dir), made.config.run.name)
    write_whole(folder.config, made.config.dump())
    write_whole(folder.inputs, json.dumps(inputs.of_run(made.config.run)))
    made.layout.write(folder.layout)
    launch(folder)
    return folder


def _fetch(made: Plan) -> None:
    """Download the bases that are not on this machine, with progress on stderr.  Raises UserError."""
    parts = [
        (name, key, part) for name, settings in made.config.run.streams.items() for key, part in settings.parts.items()
    ]
    places = {
        part.base_model: made.config.place(
            name, ".".join([*made.config.run.streams[name].part_steps(key), "base_model"])
        )
        for name, key, part in parts
    }
    trusted = {part.base_model for _, _, part in parts if part.trust_remote_code}
    machine_checks.fetch(made.bases, places.__getitem__, trusted)


def _check_names(opened: RunFolder, streams: Iterable[str]) -> None:
    """Raises UserErrors for streams with the name of a task that an agent added while planning."""
    state, clashes = fold(Log(opened.log).entries()), []
    for name in streams:
        try:
            admit(state, "coordinator", ev.Stream(ref=name), state.time)
        except Refusal as refusal:
            what, _, fix = str(refusal).partition("; ")
            clashes.append(UserError(f"streams.{name}", what, fix))
    if clashes:
        raise UserErrors(clashes)


def resume(folder: RunFolder, author: str | None, *, stream: str | None = None, idem: str | None = None) -> int:
    """Resume a run or one stream, with a new coordinator if none is running; workers that are still running are adopted.

    Returns the seq of the `resume` entry.  Raises UserError if there is nothing to resume, Refused if the author may not.
    """
    state, wish = fold(Log(folder.log).entries()), checked(ev.Resume, ref=stream or "run", idem=idem)
    if not state.run and not folder.config.exists():
        raise UserError(folder.name, "no run was started in it yet", f"`swarm run CONFIG --in {folder.name}` does")
    with Client(folder, author) as client:
        repeated = idem is not None and (client.name, idem) in state.idems
        if state.end and not repeated:
            _wait_for_coordinator_to_exit(folder)
        alive = run_is_alive(folder.log)
        if repeated:
            seq = client.append(wish)  # the seq of its first use, or Refused if the key stands for another event
            if alive or state.end:
                return seq
        if stream and state.stopped:
            raise UserError(stream, "the whole run is stopped", "`swarm resume` resumes all of it")
        if alive and not stream:
            raise UserError(folder.name, "is running", "`swarm watch` attaches to it")
        if not stream and state.end and state.end.rc == 0 and not _anything_is_left(state):
            revived = next((f"`swarm resume {one.name}` revives one that was stopped, " for one in state.streams.values() if one.gave_way), "")  # fmt: skip
            fix = f"{revived}`swarm run CONFIG` starts another run"
            raise UserError(folder.name, "has finished and nothing failed", fix)
        startable = not alive and (not stream or folder.config.exists())  # a log may hold plans only
        if startable and not local.living(folder):
            _placed(*_read_of_run(folder, state)).layout.write(folder.layout)
        seq = client.append(wish)
        if not stream and (state.end or state.stopped):
            for stream_of_run in _to_revive(state):
                client.append(ev.Resume(ref=stream_of_run.name))
    if startable:
        launch(folder)
    return seq


def _anything_is_left(state: State) -> bool:
    return bool(state.open_streams() or _to_revive(state))


def _to_revive(state: State) -> list[Stream]:
    """Who failed or was stopped by name; who gave way to others is revived by name alone."""
    return [stream for stream in state.streams.values() if stream.over and not stream.gave_way]


def end_orphans(folder: RunFolder) -> list[str]:
    """Make workers without a coordinator save and exit; returns their names."""
    if run_is_alive(folder.log) or not local.living(folder):
        return []
    return local.end_all(folder, grace_seconds=config.of_run(folder, ()).stop_seconds)


def _wait_for_coordinator_to_exit(folder: RunFolder) -> None:
    """A coordinator that has recorded the end still waits for its workers to exit."""
    deadline = time.monotonic() + START_SECONDS
    while run_is_alive(folder.log) and time.monotonic() < deadline:
        time.sleep(0.1)


def launch(folder: RunFolder) -> None:
    """Start the coordinator detached and wait until it can be reached.

    Raises UserError with its last line of output if it ends instead.
    """
    talk = folder.path / "coordinator.log"
    with open(talk, "ab", opener=opener) as out:
        process = subprocess.Popen(
            module_command("swarm.coordinator", str(folder.path)),
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=out, start_new_session=True, env=dict(os.environ),
        )  # fmt: skip
    assert process.stdout
    deadline = time.monotonic() + START_SECONDS
    with process.stdout as first_words:
        while time.monotonic() < deadline:
            if process.poll() is not None:
                why = first_words.read().decode(errors="replace").strip() or _last_line(talk)
                raise UserError(folder.name, f"the coordinator ended at once: {why}", f"see {talk}")
            if folder.connect.exists() and run_is_alive(folder.log):
                return
            time.sleep(0.05)
    raise UserError(folder.name, f"the coordinator is not ready after {START_SECONDS:.0f} s", f"see {talk}")


def _last_line(path: Path) -> str:
    with open(path, "rb", opener=opener) as file:
        file.seek(max(0, os.fstat(file.fileno()).st_size - LAST_LINE_BYTES))
        lines = file.read().decode(errors="replace").strip().splitlines()
    return lines[-1] if lines else "no output"
