"""A run told entry by entry: the fold and the decisions are tested against such stories."""

from __future__ import annotations

from dataclasses import dataclass

from swarm import events as ev
from swarm.event import Event
from swarm.policy.admission import admit
from swarm.policy.repeats import repeat_of
from swarm.policy.schedule import Worker
from swarm.settings import Promotion, RunSettings, StreamSettings
from swarm.state import State, fold

SHA, OTHER = "a" * 64, "b" * 64
AGENTS = {"ada", "bob", "eve"}
START = 1_790_000_000.0


@dataclass(frozen=True)
class Told:
    seq: int
    author: str
    time: float
    event: Event


class Story:
    """Appends admitted events one second apart."""

    def __init__(self, *streams: str, sealed: bool | None = None) -> None:
        self.entries: list[Told] = []
        self.passed_seconds = 0.0
        self.say("coordinator", ev.Run(ref="run", name="demo", config_sha256=SHA, streams=len(streams), sealed=sealed))
        for name in streams:
            self.say("coordinator", ev.Stream(ref=name))

    @property
    def state(self) -> State:
        return fold(self.entries)

    @property
    def now(self) -> float:
        return START + len(self.entries) + self.passed_seconds

    def pass_time(self, seconds: float) -> None:
        self.passed_seconds += seconds

    def say(self, author: str, event: Event) -> int:
        admit(self.state, author, event, self.now)
        self.entries.append(Told(len(self.entries) + 1, author, self.now, event))
        return len(self.entries)

    def repeat_of(self, author: str, event: Event) -> int | None:
        return repeat_of(self.state, author, event, self.now)

    def claim(self, ref: str, by: str, ttl: float = 60.0) -> int:
        """An agent's lease runs by its ttl; a worker's is kept by heartbeats."""
        return self.say(by, ev.Claim(ref=ref, ttl=ttl, beats=None if by in AGENTS else True))

    def prepared(self, stream: str) -> None:
        tok = self.claim(f"{stream}/prepare", "prep-1")
        self.say(
            "prep-1", ev.Prepared(ref=f"{stream}/prepare", tok=tok, path="prepared/x", sha256=SHA, rows=10, held_out=2)
        )

    def checkpoint(self, stream: str, tok: int, step: int, sha256: str = SHA, by: str = "trainer-1") -> str:
        path = f"streams/{stream}/t{tok}/checkpoint-{step}"
        self.say(by, ev.Checkpoint(ref=f"{stream}/train", tok=tok, step=step, path=path, sha256=sha256))
        return path

    def trained(self, stream: str, by: str = "trainer-1", earlier: tuple[str, ...] = (), trainable: int = 100) -> None:
        """Trained to step 9, with earlier checkpoints of these hashes."""
        self.prepared(stream)
        tok = self.claim(f"{stream}/train", by)
        for step, sha256 in enumerate(earlier, start=1):
            self.checkpoint(stream, tok, step, sha256, by)
        path = self.checkpoint(stream, tok, 9, by=by)
        self.say(by, ev.Trained(ref=f"{stream}/train", tok=tok, step=9, path=path, sha256=SHA, trainable=trainable))

    def validated(
        self, stream: str, result: str = "SUCCESS", loss: float = 0.5, base: float = 2.0, trainable: int = 100
    ) -> None:
        self.trained(stream, trainable=trainable)
        self.judged(stream, result, loss, base)

    def judged(self, stream: str, result: str = "SUCCESS", loss: float = 0.5, base: float = 2.0) -> None:
        candidate = self.state.streams[stream].candidate
        assert candidate
        tok = self.claim(f"{stream}/validate", "validator-1")
        facts = {
            "path": candidate.path,
            "sha256": candidate.sha256,
            "figures": {"eval_loss": loss, "base_eval_loss": base},
        }
        self.say("validator-1", ev.Verdict(ref=f"{stream}/validate", tok=tok, result=result, **facts))  # type: ignore[arg-type]

    def back(self, stream: str, why: str = "FAIL") -> None:
        to = self.state.streams[stream].earlier()[0]
        facts = {"tok": to.tok, "step": to.step, "path": to.path, "sha256": to.sha256}
        self.say("coordinator", ev.Back(ref=stream, why=why, **facts))  # type: ignore[arg-type]

    def scored(
        self,
        stream: str,
        loss: float,
        base: float = 2.0,
        rows: str = SHA,
        result: str = "SUCCESS",
        trainable: int = 100,
        scores_sha256: str | None = None,
        **figures: float,
    ) -> None:
        self.validated(stream, result, loss, base, trainable)
        token = self.state.tasks[f"{stream}/train"].done
        assert token
        self.say("coordinator", ev.Adapter(ref=stream, tok=token.tok, path=f"streams/{stream}/adapter", sha256=SHA))
        tok = self.claim(f"{stream}/evaluate", "evaluator-1")
        score = ev.Score(
            ref=f"{stream}/evaluate",
            tok=tok,
            sha256=SHA,
            rows_sha256=rows,
            rows=2,
            scores_sha256=scores_sha256,
            figures={"eval_loss": loss, "base_eval_loss": base, "base_exact_match": 0.0, **figures},
        )
        self.say("evaluator-1", score)


def settings(*streams: str, **promotion: object) -> RunSettings:
    one = StreamSettings.model_validate({"base_model": "tiny-toon", "datasets": [{"path": "x.jsonl"}]})
    return RunSettings(name="demo", streams=dict.fromkeys(streams, one), promotion=Promotion.model_validate(promotion))


def worker(name: str, *roles: str, state: str = "ready", **more: object) -> Worker:
    return Worker(name=name, roles=roles, state=state, **more)  # type: ignore[arg-type]
