"""Take part in a run from Python, under a name, with the same rights and fences as workers and people.

    from swarm import Agent

    with Agent("ada", "runs/demo-1121-0512-7f3a") as ada:
        with ada.claim("wide/check") as lease:                  # renewed in the background
            for row in rows:
                lease.check()                                   # raises LeaseLost when it is gone
            lease.done(body="1,200 rows, none bad")

Without a coordinator the same rules hold under the log's lock.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import Any, Self
from weakref import WeakValueDictionary

from swarm import answers, rundir
from swarm import events as ev
from swarm.access.adding import SECONDS as ANSWER_SECONDS
from swarm.access.adding import Changes, addition, proposal
from swarm.access.checked import checked, no_entry, waitable
from swarm.access.client import Client
from swarm.agents import evidence
from swarm.agents.inbox import Inbox, read_inbox
from swarm.agents.lease import Lease, LeaseLost
from swarm.agents.waiting import CONDITIONS, Woken, conditions, wait
from swarm.errors import Refused, UserError
from swarm.event import Event
from swarm.log import Entry, Log
from swarm.rundir import RunFolder
from swarm.state import State

__all__ = ["Agent", "Entry", "Lease", "LeaseLost", "Refused", "UserError", "open_run"]

LEASE_SECONDS = 600.0
"""Of a lease for which no other time was given: a model that reads and judges takes minutes."""
LOOK_SECONDS = 0.1
"""How often a waiting agent reads the log; one stat if nothing has changed."""


class Agent:
    """One member of a run; a context manager; its methods may be called from any thread."""

    def __init__(self, name: str, run: str | Path | None = None, *, own_key: bool = True) -> None:
        """`run`: folder or name below ./runs; by default the newest there.

        Without an own key the agent is the run's owner.  Raises UserError if there is no such run.
        """
        self.folder: RunFolder = rundir.find(None if run is None else str(run))
        self._client = Client(self.folder, name if own_key else None)
        self._log = Log(self.folder.log)
        self._state = State()
        self._reading = threading.Lock()
        self._leases: WeakValueDictionary[tuple[str, int], Lease] = WeakValueDictionary()
        """Those that are renewed in the background, by ref and token."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Disconnect from the coordinator; leases that are held expire unless they are settled."""
        self._client.close()

    @property
    def name(self) -> str:
        return self._client.name

    # ---- writing -------------------------------------------------------------------------------------------------

    def append(self, event: Event) -> int:
        """The seq of the event once it is durable.

        Raises Refused with the reason, UserError if nobody answers or it names nobody or nothing.
        """
        if isinstance(event, ev.Post) and event.asks and self.name in event.asks.split(","):
            raise UserError("ask", f"{self.name} is you", "ask somebody else, or post a note")
        if isinstance(event, ev.Post | ev.Amend | ev.Approve | ev.Object) and event.of is not None:
            self._ref_of(event.of)
        if isinstance(event, ev.Approve | ev.Object) and event.of is None:
            self._check_no_question(event)
        return self._client.append(event)

    def _check_no_question(self, event: Event) -> None:
        """Raises UserError for an opinion on what one is asked about that would not count as the answer."""
        for seq, question in self.state.questions.items():
            if self.name in question.to and question.ref == event.ref:
                what = f"{question.by} asks you about it in entry {seq}, and this would be no answer"
                raise UserError(event.ref, what, f"answer first (`--of {seq}`)")

    def post(
        self, text: str, ref: str = "-", *, of: int | None = None, asks: str | None = None, idem: str | None = None
    ) -> int:
        """A note; `@bob` in it reaches bob's inbox; `of` is the entry that it answers, `asks` names those who are to answer it."""
        return self.append(checked(ev.Post, ref=ref, body=text, of=of, asks=asks, idem=idem))

    def ask(
        self, whom: str, text: str, ref: str = "-", *, wait_seconds: float = 0.0, idem: str | None = None
    ) -> tuple[int, Entry | None]:
        """Put a question and wait for a post that answers it; without one the question stays open.

        Returns the question's seq and the answer.
        """
        waitable("ask: wait", wait_seconds)
        seq = self.append(checked(ev.Post, ref=ref, body=text, asks=whom, idem=idem))
        return seq, self.find(lambda e: isinstance(e.event, ev.Post) and e.event.of == seq, seq, wait_seconds)

    def task(self, ref: str, title: str = "", body: str = "", *, idem: str | None = None) -> int:
        """Add a task beside the streams' own; anybody may claim it.  Raises Refused if there is one of that name."""
        return self.append(checked(ev.Task, ref=ref, title=title or None, body=body, idem=idem))

    def amend(self, of: int, text: str, *, idem: str | None = None) -> int:
        """Correct entry `of`; the log keeps both."""
        return self.append(checked(ev.Amend, ref=self._ref_of(of), of=of, body=text, idem=idem))

    def approve(self, ref: str, *, of: int | None = None, text: str = "", idem: str | None = None) -> int:
        """Agree to a promotion (`ref`: the stream), or to entry `of`; takes back one's own objection."""
        return self.append(checked(ev.Approve, ref=ref, of=of, why=text or None, idem=idem))

    def object(self, ref: str, why: str, *, of: int | None = None, idem: str | None = None) -> int:
        """Object and state why: the promotion waits until the author approves."""
        return self.append(checked(ev.Object, ref=ref, why=why, of=of, idem=idem))

    def add(self, name: str, like: str, changes: Changes = (), *, why: str = "", idem: str | None = None) -> int:
        """Let a stream join the running run: like another one but for `changes`, from step 0.

        `changes`: `{"learning_rate": 1e-3}`, or words as the command line takes them.  Raises UserErrors with all that is
        wrong with them, Refused for what the running run cannot take.
        """
        return self._add(name, like, changes, warm=False, why=why, idem=idem)

    def clone(self, stream: str, name: str, changes: Changes = (), *, why: str = "", idem: str | None = None) -> int:
        """As `add`, with weights and optimizer moments of the stream's newest checkpoint; another rank pads or cuts them."""
        return self._add(name, stream, changes, warm=True, why=why, idem=idem)

    def _add(self, name: str, like: str, changes: Changes, *, warm: bool, why: str, idem: str | None) -> int:
        event = addition(self.folder, self.state, name, like, changes, warm=warm, why=why, idem=idem)
        return self._client.append(event, timeout_seconds=ANSWER_SECONDS)

    def propose(
        self, name: str, like: str, changes: Changes, *, why: str, refute: str = "", idem: str | None = None
    ) -> int:
        """Propose a trial to the research of the run; raises as `add`, Refused also for what was proposed before."""
        event = proposal(self.folder, self.state, name, like, changes, why=why, refute=refute, idem=idem)
        return self._client.append(event, timeout_seconds=ANSWER_SECONDS)

    def yield_devices(
        self, what: str, count: int, *, minutes: float | None = None, why: str = "", idem: str | None = None
    ) -> int:
        """Leave so many `gpus` or `cores` of the running run to others, for some minutes or until 0 takes them back.

        What trains there saves at its next step boundary.  Raises Refused where the run has not so many.
        """
        seconds = None if minutes is None else minutes * 60
        return self.append(
            checked(ev.Yield, ref="run", what=what, count=count, seconds=seconds, why=why or None, idem=idem)
        )

    def rate(
        self, answer: str, rating: float, *, why: str = "", better: str | None = None, idem: str | None = None
    ) -> int:
        """Rate an answer by its id from 1 to 5; `better`: what it should have been.  Raises UserError for one that is not kept."""
        if better is not None and not better.strip():
            raise UserError("better", "says nothing", "write what the answer should have been, or leave it out")
        found = answers.kept(self.folder, answer)
        event = checked(
            ev.Rate, ref=found["stream"], answer=answer, rating=rating, better=None if better is None else True,
            why=why or None, idem=idem,
        )  # fmt: skip
        answers.keep_rated(self.folder, answer, found if better is None else {**found, "better": better})
        seq = self.append(event)  # second: a text without a rating is never used
        answers.forget_waiting(self.folder, answer)
        return seq

    def _ref_of(self, seq: int) -> str:
        found = next((entry.event.ref for entry in self.tail(seq - 1)), None) if seq > 0 else None
        if found is None:
            raise no_entry(seq)
        return found

    # ---- working -------------------------------------------------------------------------------------------------

    def claim(
        self, ref: str, *, ttl_seconds: float = LEASE_SECONDS, wait_seconds: float = 0.0, idem: str | None = None
    ) -> Lease:
        """Hold a task; a task that this agent holds already (for example after a hand-over) is continued.

        The lease is renewed in the background.  Waits up to `wait_seconds` for its turn.  Raises Refused with holder and
        reason, UserError if nobody answers.
        """
        token = self.take(ref, ttl_seconds=ttl_seconds, wait_seconds=wait_seconds, idem=idem)
        lease = Lease(self.append, ref, token, ttl_seconds, self._left_seconds(ref, token, ttl_seconds))
        self._leases[ref, token] = lease
        return lease

    def take(self, ref: str, *, ttl_seconds: float, wait_seconds: float = 0.0, idem: str | None = None) -> int:
        """The token of a claim that the caller renews; else as `claim`."""
        deadline = time.monotonic() + waitable("claim: wait", wait_seconds)
        while True:
            seq = self.state.seq
            try:
                return self.append(checked(ev.Claim, ref=ref, ttl=ttl_seconds, idem=idem))
            except Refused:
                left = deadline - time.monotonic()
                if left <= 0:
                    raise
            self.find(lambda entry: True, seq, min(left, 1.0))  # something happened, or a lease may have run out

    def now(self) -> float:
        """The log's time, by which leases run; it is the coordinator's clock, which may differ from this machine's."""
        seconds_of_log = self._client.log_time()
        return self._log.now() if seconds_of_log is None else seconds_of_log

    def _left_seconds(self, ref: str, token: int, ttl_seconds: float) -> float:
        """Seconds that certainly remain: a lease that was handed over or claimed again began earlier than now."""
        lease = self.state.tasks[ref].lease
        return min(ttl_seconds, lease.until - self.now()) if lease and lease.token == token else 0.0

    def claimed_seconds(self, ref: str, token: int) -> float | None:
        """For how long the lease with this token was last claimed, renewed or handed over; None if there is none."""
        ttl = None
        for entry in self.tail(token - 1):
            match entry.event:
                case ev.Claim(ref=about, ttl=seconds) | ev.Hand(ref=about, ttl=seconds) if (
                    about == ref and entry.seq == token
                ):
                    ttl = seconds
                case ev.Renew(tok=tok, ref=about, ttl=seconds) if about == ref and tok == token:
                    ttl = seconds
                case _:
                    pass
        return ttl

    def finish(self, ref: str, token: int, body: str = "", **facts: Any) -> int:
        """Say that an agent's task held under `token` is done; `facts` are those of `events.Done`."""
        return self.append(checked(ev.Done, ref=ref, tok=token, body=body, **facts))

    def judge(
        self, ref: str, token: int, result: str, *,
        why: str = "", figures: Mapping[str, float] = MappingProxyType({}), cmd: str | None = None, body: str = "",
        idem: str | None = None,
    ) -> int:  # fmt: skip
        """A verdict on the checkpoint that `STREAM/validate` is about, with the hash of its files as they are now; it finishes the task.

        `figures` are those that you measured: `eval_loss` of the adapter and `base_eval_loss` of the bare base, in nats per
        supervised token, and any other; a FAIL may do without.  Raises UserError if there is nothing to judge, or no figure.
        """
        before = self.state.idems.get((self.name, idem or ""))
        if before and (before[1].kind, before[1].ref) == ("verdict", ref):
            return before[0]  # what it was about may be gone since
        stream = self.state.streams.get(ref.partition("/")[0])
        candidate = stream.candidate if stream else None
        if candidate is None:
            raise UserError(ref, "has no checkpoint to judge", "see `swarm status`")
        if result in {"SUCCESS", "WARNING"} and not {"eval_loss", "base_eval_loss"} <= figures.keys():
            fix = "add the figures (--figure eval_loss=0.41 --figure base_eval_loss=2.04), or say FAIL"
            raise UserError(ref, f"a {result} states eval_loss and base_eval_loss, as you measured them", fix)
        verdict = checked(
            ev.Verdict, ref=ref, tok=token, result=result, path=candidate.path,
            sha256=evidence.sha256_to_judge(self.folder, candidate, result), figures=dict(figures), why=why or None, cmd=cmd, body=body, idem=idem,
        )  # fmt: skip
        lease = self._leases.get((ref, token))
        return lease.append_result(verdict) if lease else self.append(verdict)

    def keep(self, path: str | Path, token: int) -> tuple[str, str]:
        """The path inside the run folder and the sha256 of a file that proves something.  Raises UserError if it cannot be read.

        A file from elsewhere is copied to `agents/<name>/<token>-<hash>-<file>`.
        """
        return evidence.kept(self.folder, self.name, path, token)

    # ---- reading -------------------------------------------------------------------------------------------------

    @property
    def state(self) -> State:
        """The fold of the log as it is now; treat it as read-only."""
        with self._reading:
            for entry in self._log.refresh():
                self._state.apply(entry)
            return self._state

    def tail(self, since: int = 0) -> list[Entry]:
        """The entries after `since`; the last one's seq is the next `since`."""
        with self._reading:
            return list(self._log.entries(max(0, since)))

    def wait_for(self, kind: str, ref: str | None = None, *, since: int = 0, timeout_seconds: float = 600.0) -> Entry:
        """The first entry of a kind (about `ref`) after `since`, also one that is there already.

        Raises TimeoutError.
        """
        found = self.find(lambda e: e.event.kind == kind and ref in {None, e.event.ref}, since, timeout_seconds)
        if found is None:
            raise TimeoutError(f"no {kind} {ref or ''} within {timeout_seconds:g} s")
        return found

    def find(self, wanted: Callable[[Entry], bool], since: int, timeout_seconds: float) -> Entry | None:
        """The first entry after `since` that is wanted; None if there is none in time."""
        deadline = time.monotonic() + waitable("find: timeout", timeout_seconds)
        while True:
            for entry in self.tail(since):
                since = entry.seq
                if wanted(entry):
                    return entry
            if time.monotonic() >= deadline:
                return None
            time.sleep(LOOK_SECONDS)

    def metrics(self, stream: str | None = None) -> list[dict[str, Any]]:
        """The figures so far, a row per step, of one stream or all."""
        from swarm.views.export import metric_rows

        return list(metric_rows(self.folder, stream))

    def inbox(self, *, since: int | None = None, peek: bool = False) -> Inbox:
        """What others wrote to this agent and what waits for it, after the kept cursor or after `since`.

        The cursor moves on unless `peek` or `since` is given.
        """
        return read_inbox(self.folder, self.name, self.tail(), self.state, since=since, peek=peek)

    def wait(
        self,
        until: str = " | ".join(CONDITIONS),
        *,
        timeout_seconds: float = 600.0,
        since: int | None = None,
        **how: Any,
    ) -> Woken:
        """Wait until one of the conditions (`done | failed | ...`) holds, and return why and what changed; see `waiting.wait`.

        Raises UserError for another condition.
        """
        return wait(self, conditions(until), timeout_seconds, since=since, **how)

    def workers(self) -> list[dict[str, Any]]:
        """The running coordinator's workers.  Raises UserError if none answers."""
        rows: list[dict[str, Any]] = self._client.ask("workers")["workers"]
        return rows

    def review(
        self, ref: str, between: Sequence[str], question: str, *,
        rounds: int = 3, answer_seconds: float = 300.0, idem: str | None = None,
    ) -> Any:  # fmt: skip
        """Let named agents judge something in rounds; see `swarm.review.review`."""
        from swarm.agents.review import review

        return review(self, ref, between, question, rounds=rounds, answer_seconds=answer_seconds, idem=idem)


def open_run(name: str, by: str, runs: Path = Path("runs")) -> RunFolder:
    """A run folder with a log and nothing else yet: agents plan in it, `swarm run CONFIG --in RUN` starts it."""
    rundir.checked_name(by)  # here: a folder would be left behind
    folder = rundir.create(runs, rundir.checked_name(name, "swarm open"))
    with Client(folder, by) as client:
        client.append(
            ev.Post(ref="run", body=f"opened by {by}: plan here; `swarm run CONFIG --in {folder.name}` starts it")
        )
    return folder
