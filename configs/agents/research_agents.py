"""The research loop with two agents and a person: ada proposes data, bob learning rates, the person approves and vetoes.

    python configs/agents/research_agents.py [FOLDER]        # default: research-demo; about two minutes on two cores

ada is killed while she leads the first phase; her lease ends, and bob claims what she led.  Exit status 1 if nothing was kept.
"""

from __future__ import annotations

import multiprocessing
import os
import shutil
import signal
import sys
from pathlib import Path

from swarm import Agent
from swarm import events as ev
from swarm.errors import Refused
from toon import encode

sys.path.insert(0, str(Path(__file__).parent))  # also in the processes that are spawned below
from two_agents import HERE, PATIENCE_SECONDS, pairs, swarm

ROWS = {"few": 16, "many": 800, "held": 64}
LEASE_SECONDS = 5.0
"""Short, so that the phase of a leader that died passes on soon."""


def ada_works(run: Path) -> None:
    """She proposes the larger data set, and does not live to end her phase."""
    with Agent("ada", run) as ada, ada.claim("research/data", ttl_seconds=LEASE_SECONDS, wait_seconds=PATIENCE_SECONDS):
        many = ["datasets=[{path: ../../many.toon, type: toon}]"]
        os.chdir(run)
        ada.propose("more-rows", "start", many, why="16 rows are learned by heart", refute="no lower held-out loss")
        ada.wait_for("end", timeout_seconds=PATIENCE_SECONDS)  # she holds her phase until she is killed


def bob_works(run: Path) -> None:
    """Waits without polling for a phase that he may lead."""
    with Agent("bob", run) as bob:
        lead(bob, "research/data")
        lease = lead(bob, "research/rates")
        best = bob.state.kept or "start"
        bob.propose("wild", best, ["learning_rate=1e-1"], why="more is more")
        bob.propose(
            "quicker", best, ["learning_rate=1e-3"], why="the loss still falls at the end", refute="it diverges"
        )
        try:
            bob.propose("quicker-too", best, ["learning_rate=1e-3"], why="to be sure")
        except Refused as refused:
            bob.post(f"refused: {refused}", lease)
        finish(bob, lease)


def lead(bob: Agent, ref: str) -> str:
    """Holds the phase; ends it at once if it is the one that ada led, where all is proposed."""
    claimed = bob.claim(ref, ttl_seconds=60, wait_seconds=PATIENCE_SECONDS)
    if ref == "research/data":
        bob.wait_for("conclude", "more-rows", timeout_seconds=PATIENCE_SECONDS)
        claimed.done(body="ada's proposal is judged")
        bob.wait_for("task", "research/rates", timeout_seconds=PATIENCE_SECONDS)
    else:
        held.append(claimed)
    return ref


held: list[object] = []
"""The lease of the phase that bob leads, which is renewed while it is referred to."""


def finish(bob: Agent, ref: str) -> None:
    bob.wait_for("conclude", "quicker", timeout_seconds=PATIENCE_SECONDS)
    lease = bob.claim(ref)
    lease.done(body="two rates tried")


def person_decides(run: Path) -> None:
    with Agent("carol", run) as carol:
        seen = 0
        while not carol.state.end:
            found = carol.find(lambda e: isinstance(e.event, ev.Propose | ev.End), seen, PATIENCE_SECONDS)
            if found is None or isinstance(found.event, ev.End):
                return
            seen = found.seq
            if found.event.ref == "wild":
                carol.object("wild", "1e-1 has diverged on every base we know")
            else:
                carol.approve(found.event.ref)


def main() -> int:
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else "research-demo").resolve()
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("research.yaml", "research.md"):
        shutil.copy(HERE / name, folder)
    for name, count in ROWS.items():
        (folder / f"{name}.toon").write_text(encode({"rows": pairs(count, name)}), encoding="utf-8")
    swarm("research", "research.md", "--detach", *sys.argv[2:], cwd=folder)
    [run] = (folder / "runs").iterdir()
    print(f"at work; follow it: swarm log {run} --follow", file=sys.stderr)
    spawn = multiprocessing.get_context("spawn")
    ada, bob, carol = (spawn.Process(target=one, args=(run,), daemon=True) for one in (ada_works, bob_works, person_decides))  # fmt: skip
    ada.start()
    with Agent("owner", run) as owner:
        owner.wait_for("propose", "more-rows", timeout_seconds=PATIENCE_SECONDS)
        assert ada.pid
        os.kill(ada.pid, signal.SIGKILL)
        for one in (bob, carol):
            one.start()
        owner.wait_for("end", "run", timeout_seconds=PATIENCE_SECONDS)
        kept = owner.state.kept
    print(swarm("ledger", str(run), cwd=folder))
    for one in (bob, carol):
        one.join(timeout=20)
    return 0 if kept else 1


if __name__ == "__main__":
    sys.exit(main())
