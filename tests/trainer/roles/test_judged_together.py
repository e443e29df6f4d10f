"""Streams on one base are judged together: the figures and samples of each alone, from one base that is loaded once (rows A16, A34)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from swarm.errors import UserError
from swarm.event import Event
from swarm.messages import Message, Order, Piece, Report
from swarm.settings import StreamSettings
from tests.trainer.conftest import Bench
from trainer import roles
from trainer.errors import LeaseStopped
from trainer.judge import jointly, measured, session
from trainer.lease import Lease
from trainer.work import Work

Make = Callable[..., StreamSettings]
Given = dict[str, object]
pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning:transformers", "ignore::UserWarning:peft")
KINDS: dict[str, dict[str, object]] = {
    "lora": {},
    "dora": {"use_dora": True, "lora_r": 4, "seed": 1},
    "part": {"lora_target_modules": ["v_proj", "down_proj"], "use_rslora": True, "seed": 2},
    "whole": {"adapter": "full", "learning_rate": 1e-3},
}


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    return Bench(tmp_path_factory.mktemp("run"))


@pytest.fixture(scope="module")
def made(bench: Bench) -> dict[str, tuple[StreamSettings, Given]]:
    """By stream, how it was trained and what its judges are given."""
    return {}


@pytest.fixture
def streams(
    bench: Bench, made: dict[str, tuple[StreamSettings, Given]], settings: Make
) -> dict[str, tuple[StreamSettings, Given]]:
    for name, own in {} if made else KINDS.items():
        chosen = settings(**own)
        prepared = bench.do("prepare", chosen)["prepared"]
        trained = bench.do("train", chosen, prepared=prepared.path)["trained"]
        rows = {"prepared": prepared.path, "prepared_sha256": prepared.sha256}
        made[name] = chosen, {**rows, "checkpoint": trained.path, "sha256": trained.sha256}
    return made


@pytest.fixture
def loads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A name for each base that is loaded."""
    found: list[str] = []
    load = session.load_base

    def noted(folder: Path, *rest: object) -> object:
        found.append(folder.name)
        return load(folder, *rest)

    monkeypatch.setattr(session, "load_base", noted)
    return found


@pytest.fixture(autouse=True)
def _a_process_that_has_measured_nothing() -> Iterator[None]:
    measured._measured.clear()
    yield


class Judge:
    """A worker's hands: tasks of one role that arrive at once."""

    def __init__(self, bench: Bench, role: str) -> None:
        self.bench, self.role, self.waiting = bench, role, list[Work]()
        self.events: dict[str, list[Event]] = {}
        self.errors: dict[str, Exception | None] = {}
        self.leases: dict[str, Lease] = {}

    def come(self, name: str, settings: StreamSettings, given: Given) -> None:
        token = len(self.leases) + 1
        ref = f"{name}/{self.role}"
        piece = Piece(ref=ref, token=token, role=self.role, stream=name, settings=settings, **given)  # type: ignore[arg-type]

        def send(message: Message, fact: bool) -> None:
            if isinstance(message, Report):
                self.events.setdefault(name, []).append(message.event())

        self.bench.place.stream_folder(name).mkdir(parents=True, exist_ok=True)
        self.leases[name] = Lease(ref, token, send)
        self.waiting.append(Work(piece, self.leases[name]))

    def do(self) -> dict[str, Event]:
        """The result of each."""
        roles.load(self.role).together(self, self.bench.place)  # type: ignore[arg-type, attr-defined]
        return {name: events[-1] for name, events in self.events.items()}

    def arrived(self, at_most: int | None = None) -> list[Work]:
        found, self.waiting = self.waiting[:at_most], self.waiting[len(self.waiting[:at_most]) :]
        return [work for work in found if work.lease.begin()]

    def ended(self, work: Work, error: Exception | None) -> None:
        self.errors[work.piece.stream] = error


def judged(bench: Bench, role: str, streams: dict[str, tuple[StreamSettings, Given]], *names: str) -> Judge:
    judge = Judge(bench, role)
    for name in names:
        judge.come(name, *streams[name])
    judge.do()
    assert set(judge.errors.values()) == {None}
    return judge


def result(judge: Judge, name: str) -> dict[str, object]:
    """What its last report says, but for the lease."""
    return {**judge.events[name][-1].facts(), "tok": None, "worked": None}


def samples(bench: Bench, name: str) -> str:
    return (bench.place.stream_folder(name) / "samples.jsonl").read_text()


def test_verdicts_are_bit_for_bit_those_of_each_alone_on_one_base(
    bench: Bench, streams: dict[str, tuple[StreamSettings, Given]], loads: list[str]
) -> None:
    alone = {}
    for name in KINDS:
        measured._measured.clear()
        alone[name] = result(judged(bench, "validate", streams, name), name)
    loads.clear()
    measured._measured.clear()
    together = judged(bench, "validate", streams, "lora", "whole", "dora", "part")
    assert {name: result(together, name) for name in KINDS} == alone
    assert len(loads) == 2, "whole weights stand in the base: the next one gets another"


def test_scores_and_samples_are_those_of_each_alone_and_all_answer_in_one_batch(
    bench: Bench, streams: dict[str, tuple[StreamSettings, Given]], loads: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    alone = {}
    monkeypatch.setattr(jointly, "answer", lambda candidates: None)
    for name in KINDS:
        measured._measured.clear()
        alone[name] = result(judged(bench, "evaluate", streams, name), name), samples(bench, name)
    monkeypatch.undo()
    batches: list[int] = []
    longest: list[int] = []
    answered = jointly._answered

    def noted(*given: object, with_base: bool) -> object:
        found = answered(*given, with_base=with_base)  # type: ignore[arg-type]
        batches.append(len(found))
        longest.append(max(answer.tokens for answers in found for answer in answers))
        return found

    monkeypatch.setattr(jointly, "_answered", noted)
    measured._measured.clear()
    judged(bench, "validate", streams, *KINDS)
    loads.clear()
    together = judged(bench, "evaluate", streams, *KINDS)
    assert {name: (result(together, name), samples(bench, name)) for name in KINDS} == alone
    assert batches == [4], "the base and the three adapters on linear layers"
    assert longest == [6], "eval_max_new_tokens"
    why = [event.body for event in together.events["whole"] if event.kind == "post"]
    assert why == ["its answers are generated alone: modules_to_save"]
    judged(bench, "evaluate", streams, "lora")
    assert batches == [4], "the base has answered already, and nobody else is beside it"


def test_drawn_answers_and_those_of_exact_streams_are_generated_alone(
    bench: Bench, streams: dict[str, tuple[StreamSettings, Given]]
) -> None:
    judge, [settings, given] = Judge(bench, "evaluate"), streams["lora"]
    for name, own in {"drawn": {"temperature": 1.0}, "exact": {"exact": True}, "plain": {}}.items():
        judge.come(name, settings.model_copy(update=own), given)
    judge.do()
    said = {name: [event.body for event in events if event.kind == "post"] for name, events in judge.events.items()}
    assert said == {
        "drawn": ["its answers are generated alone: answers are drawn (temperature)"],
        "exact": ["its answers are generated alone: exact: true"],
        "plain": [],
    }


@pytest.mark.parametrize("role", ["validate", "evaluate"])
def test_what_is_wrong_with_one_ends_none_of_the_others(
    bench: Bench, streams: dict[str, tuple[StreamSettings, Given]], role: str
) -> None:
    judge = Judge(bench, role)
    judge.come("first", *streams["lora"])
    judge.come("torn", streams["dora"][0], {**streams["dora"][1], "sha256": "0" * 64})
    judge.come("rows", streams["dora"][0], {**streams["dora"][1], "prepared_sha256": "0" * 64})
    judge.come("stopped", *streams["dora"])
    judge.come("last", *streams["part"])
    judge.leases["stopped"].take(Order(ref="stopped/x", token=4, what="stop"))
    kinds = {name: event.kind for name, event in judge.do().items()}
    done = "verdict" if role == "validate" else "score"
    assert {name: kinds.get(name) for name in ("first", "last", "rows", "stopped")} == {
        "first": done, "last": done, "rows": None, "stopped": None
    }  # fmt: skip
    assert isinstance(judge.errors["rows"], UserError)
    assert isinstance(judge.errors["stopped"], LeaseStopped)
    assert judge.errors["first"] is judge.errors["last"] is None
    if role == "validate":
        assert "sha256" in str(result(judge, "torn")["why"])
    else:
        assert "its maker said" in str(judge.errors["torn"])


def test_where_the_batch_does_not_work_each_answers_alone(
    bench: Bench, streams: dict[str, tuple[StreamSettings, Given]], monkeypatch: pytest.MonkeyPatch
) -> None:
    def too_large(*given: object, with_base: bool) -> None:
        raise MemoryError("of the batch")

    monkeypatch.setattr(jointly, "_answered", too_large)
    judge = judged(bench, "evaluate", streams, "lora", "dora")
    assert {event.kind for events in judge.events.values() for event in events} == {"post", "score"}
    assert judge.events["dora"][0].body == "its answers are generated alone: MemoryError: of the batch"
