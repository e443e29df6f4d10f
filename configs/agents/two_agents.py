"""Two agents fine-tune a model together: ada looks after the data, bob plans and trains; all they agree on stands in one log.

    python configs/agents/two_agents.py [FOLDER]        # default: agents-demo; about a minute on two cores

They work at the same time, hand a live task over, disagree about the release once, settle it, and merge their tracks: the
tuned model is asked about a TOON table of its own metrics and graded.  Exit status 1 if it does not pass.
"""

from __future__ import annotations

import json
import queue
import random
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from swarm import Agent, config
from swarm import events as ev
from swarm.agents.agent import open_run
from toon import decode, encode

HERE = Path(__file__).parent
ROWS = {"train": 1200, "held": 32}
PASS_SHARE = 0.75
"""Of the questions that must be answered exactly before ada lets the adapter go."""
PATIENCE_SECONDS = 600.0
Track = Callable[[Path, Path], None]
"""An agent's part: (run, folder)."""


def swarm(*words: str, cwd: Path) -> str:
    """One command of the command line; its talk stays on the screen."""
    return subprocess.run(
        [sys.executable, "-m", "swarm.cli", *words], cwd=cwd, stdout=subprocess.PIPE, text=True, check=True
    ).stdout


def question(table: list[dict[str, Any]], which: str) -> str:
    return f"{encode({'metrics': table})}\n{which} loss?"


def answer(table: list[dict[str, Any]], which: str) -> str:
    return encode(table[0 if which == "first" else -1]["loss"])  # as TOON writes it: 2, not 2.0


def pairs(count: int, seed: str) -> list[dict[str, str]]:
    """Questions about tables of falling losses, with their answers."""
    draws, rows = random.Random(seed), []
    for _ in range(count):
        step, loss, table = draws.choice([5, 10, 20, 25, 50]), draws.uniform(1, 4), []
        for number in range(1, draws.choice([3, 4]) + 1):
            table.append({"step": step * number, "loss": round(loss, 2)})
            loss *= draws.uniform(0.5, 0.95)
        which = draws.choice(["first", "last"])
        rows.append({"prompt": question(table, which), "completion": answer(table, which)})
    return rows


def faults(rows: list[dict[str, str]]) -> list[int]:
    """Numbers of the rows whose table is no TOON, or whose answer is not the one that the table gives."""
    bad = []
    for number, row in enumerate(rows):
        text, _, asked = row["prompt"].rpartition("\n")
        table = decode(text)["metrics"]
        if encode({"metrics": table}) != text or row["completion"] != answer(table, asked.split()[0]):
            bad.append(number)
    return bad


# ---- ada: the data ---------------------------------------------------------------------------------------------------


def ada_works(run: Path, folder: Path) -> None:
    with Agent("ada", run) as ada:
        with ada.claim("data/write") as lease:
            for name, count in ROWS.items():
                (folder / f"{name}.toon").write_text(encode({"rows": pairs(count, name)}), encoding="utf-8")
            path, sha256 = ada.keep(folder / "train.toon", lease.token)
            lease.done(body=f"{ROWS} rows", path=path, sha256=sha256)
        checking = ada.claim("data/check")
        bad = faults(decode((folder / "train.toon").read_text(encoding="utf-8"))["rows"])
        assert not bad, f"rows {bad} of train.toon will not do"
        checking.hand("bob", body="train.toon: no bad row; whoever did not write held.toon should look at it")
        asked = ada.find(
            lambda entry: isinstance(entry.event, ev.Post) and entry.event.asks == "ada", 0, PATIENCE_SECONDS
        )
        assert asked is not None
        longest = max(len(row["prompt"]) for row in pairs(ROWS["train"], "train"))
        ada.post(f"{longest} characters", "plan/training", of=asked.seq)
        judge(ada)
        release(ada)


def judge(ada: Agent) -> None:
    """Validation is open to her: she measures for herself, on the rows that she wrote and nobody trained on."""
    with ada.claim("tables/validate", wait_seconds=PATIENCE_SECONDS) as lease:
        heldout, base_heldout = losses(ada)
        better = heldout < base_heldout
        ada.judge(
            "tables/validate", lease.token, "SUCCESS" if better else "WARNING",
            why=f"{'better' if better else 'no better'} than the bare base",
            figures={"eval_loss": heldout, "base_eval_loss": base_heldout},
        )  # fmt: skip


def losses(ada: Agent) -> tuple[float, float]:
    """Held-out loss of what was trained and of the bare base, as a validating worker measures them, on this CPU."""
    from trainer import bases  # here: loading torch takes seconds
    from trainer.data.prepared import HELD_OUT, read_rows
    from trainer.judge.heldout import held_out_loss
    from trainer.loading import load_adapter, load_base
    from trainer.place import Place

    settings, stream = config.of_run(ada.folder, ada.state.added).streams["tables"], ada.state.streams["tables"]
    assert stream.prepared is not None and stream.candidate is not None
    rows = list(read_rows(ada.folder.path / stream.prepared.path / HELD_OUT))
    base = load_base(bases.folder_of(settings.base_model), settings, Place(ada.folder.path, "cpu"))
    of_base = held_out_loss(base, rows, lambda: None)  # first: the adapter is put into the same model
    of_adapter = held_out_loss(load_adapter(base, ada.folder.path / stream.candidate.path), rows, lambda: None)
    return round(of_adapter, 6), round(of_base, 6)


def release(ada: Agent) -> None:
    """She holds the release back until she has seen the share of exact answers."""
    ada.wait_for("adapter", "tables", timeout_seconds=PATIENCE_SECONDS)
    objection = ada.object("tables", "a low loss says little: how many answers are exact? @bob")
    told = ada.find(lambda e: isinstance(e.event, ev.Post) and e.event.of == objection, objection, PATIENCE_SECONDS)
    score = ada.state.streams["tables"].score
    share = score.figures.get("exact_match", 0.0) if score else 0.0
    if told is None or share < PASS_SHARE:
        ada.append(ev.Stop(ref="run", why="too few exact answers"))
        return
    ada.approve("tables", text=f"{share:.0%} will do")


# ---- bob: the training -----------------------------------------------------------------------------------------------


def bob_works(run: Path, folder: Path) -> None:
    with Agent("bob", run) as bob:
        with bob.claim("plan/training") as lease:
            shutil.copy(HERE / "run.yaml", folder)
            _, told = bob.ask(
                "ada", "how long is the longest question?", "plan/training", wait_seconds=PATIENCE_SECONDS
            )
            assert told is not None
            lease.done(body=f"60 steps at rank 16; 128 tokens hold {told.event.body}")
        bob.wait_for("hand", "data/check", timeout_seconds=PATIENCE_SECONDS)
        with bob.claim("data/check") as lease:
            bad = faults(decode((folder / "held.toon").read_text(encoding="utf-8"))["rows"])
            lease.check()
            lease.done(body=f"held.toon: {len(bad)} bad rows", rc=1 if bad else 0)
        swarm("run", "run.yaml", "--in", str(run), "--detach", cwd=folder)
        objection = bob.wait_for("object", "tables", timeout_seconds=PATIENCE_SECONDS)
        score = bob.wait_for("score", "tables/evaluate", timeout_seconds=PATIENCE_SECONDS).event
        assert isinstance(score, ev.Score)
        share, of_base = (score.figures[name] for name in ("exact_match", "base_exact_match"))
        bob.post(
            f"{share:.0%} of {score.rows} held-out answers, the base {of_base:.0%}",
            "tables",
            of=objection.seq,
        )
        bob.approve("tables")


# ---- both ------------------------------------------------------------------------------------------------------------


def merge(run: Path, folder: Path) -> float:
    """The tuned model reads a table of its own training's figures; returns the share of right answers."""
    with Agent("bob", run) as bob, bob.claim("merge/grade") as lease:
        figures = [
            {"step": row["step"], "loss": round(row["loss"], 2)}
            for row in bob.metrics("tables")
            if row["kind"] == "train"
        ]
        asked = [(figures[at : at + 4 * 5 : 5], which) for at in (0, 10, 20, 40) for which in ("first", "last")]
        prompts = [question(table, which) for table, which in asked]
        answers = json.loads(swarm("ask", *prompts, "--run", str(run), "--json", cwd=folder))
        graded = [
            {
                "question": prompt.splitlines()[-1],
                "right": answer(table, which),
                "base": given["base"],
                "tuned": given["adapter"],
            }
            for prompt, (table, which), given in zip(prompts, asked, answers, strict=True)
        ]
        (folder / "graded.toon").write_text(encode({"graded": graded}), encoding="utf-8")
        share = sum(row["tuned"] == row["right"] for row in graded) / len(graded)
        path, sha256 = bob.keep(folder / "graded.toon", lease.token)
        lease.done(body=f"{share:.0%} of {len(graded)} answers are right", path=path, sha256=sha256)
    print((folder / "graded.toon").read_text(encoding="utf-8"))
    return share


def side_by_side(one: Track, other: Track, run: Path, folder: Path) -> None:
    """Both at once; if one fails, nobody waits for the other."""
    ends: queue.SimpleQueue[Exception | None] = queue.SimpleQueue()

    def follow(track: Track) -> None:
        try:
            track(run, folder)
        except Exception as error:  # told to whoever waits below
            ends.put(error)
        else:
            ends.put(None)

    for track in (one, other):
        threading.Thread(target=follow, args=(track,), daemon=True).start()
    for _ in range(2):
        if error := ends.get():
            raise error


def main() -> int:
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else "agents-demo").resolve()
    folder.mkdir(parents=True, exist_ok=True)
    run = open_run("agents", "owner", folder / "runs").path
    print(f"two agents at work; follow them: swarm log {run} --follow", file=sys.stderr)
    with Agent("owner", run) as owner:
        for ref in ("data/write", "data/check", "plan/training", "merge/grade"):
            owner.task(ref)
        side_by_side(ada_works, bob_works, run, folder)
        ended = owner.wait_for("end", "run", timeout_seconds=PATIENCE_SECONDS).event
        if not isinstance(ended, ev.End) or ended.rc != 0 or owner.state.promoted is None:
            print(f"nothing was promoted; see `swarm log {run}`", file=sys.stderr)
            return 1
    share = merge(run, folder)
    print(f"{share:.0%} of the answers about its own metrics are right")
    return 0 if share >= PASS_SHARE else 1


if __name__ == "__main__":
    sys.exit(main())
