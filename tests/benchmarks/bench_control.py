"""One adapter both ways: held-out loss of two styles of answers, by the scale of a control adapter, a LoRA, a vector, and by prompting.

    python tests/benchmarks/bench_control.py [--steps 60]                     the table of docs/control.md
    python tests/benchmarks/bench_control.py --steps 30,60,90 --seeds 0,1,2,3   the control adapter alone, on other rows

The questions are the demo's.  Style X answers in TOON, which the base never saw; style Y answers the same in JSON.  The control adapter
is trained on both, X with class 1 and Y with class -1; the LoRA, of as many parameters or more, on X alone; the vector is the difference of the
means of a layer's states, its layer chosen on training rows; prompting names the form in the question.

The control adapter's norm is held to an eighth of the root of its rank, and the question has the class of its answer, as at inference.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import torch
from peft.tuners.lora import LoraLayer
from transformers import AutoModelForCausalLM, AutoTokenizer

from swarm.settings import StreamSettings
from toon import decode
from trainer import bases
from trainer.control.hooked import attach, set_scale
from trainer.data.boundary import GoodRow, RowBoundary
from trainer.data.prepared import with_classes
from trainer.data.tokens import Tokens, stop_tokens, tokeniser_of
from trainer.embedded.demo_data import rows as demo_rows
from trainer.inspection import facts_of_model
from trainer.judge.heldout import mean_loss, row_losses
from trainer.loading import load_adapter
from trainer.loop import folder as saved
from trainer.loop.batches import Batches
from trainer.loop.loop import Loop
from trainer.loop.recipe import Recipe
from trainer.quiet import quieten

SCALES = (-1.0, -0.5, 0.0, 0.5, 1.0)
TRAINED, JUDGED = 240, 40
OTHERS = slice(400, 500)
"""Rows of the training file on which no arm is trained and no setting was chosen."""
RANK = 8
MAX_NORM = 0.125 * math.sqrt(RANK)
"""Of s B A in each layer, |W|_F: half of what qlora-pipe-lite's author aims below (.25 sqrt(r)).  Half of a much longer one does more than half of it."""
STYLES = {"toon": 1, "json": -1}
Losses = tuple[float, float]
"""Of X and Y."""


def answered(split: str, count: int, style: str, prompt: str = "") -> list[dict[str, Any]]:
    made = []
    for row, _ in zip(demo_rows(split), range(count), strict=False):  # type: ignore[arg-type]
        question, answer = (message["content"] for message in row["messages"])
        text = answer if style == "toon" else json.dumps(decode(answer), ensure_ascii=False)
        asked = (
            question.replace("convert to toon", "rewrite this")
            if not prompt
            else question.replace("convert to toon", prompt)
        )
        made.append({"messages": [{"role": "user", "content": asked}, {"role": "assistant", "content": text}]})
    return made


class Bench:
    def __init__(self, steps: int, folder: Path, seed: int = 42) -> None:
        quieten()
        self.steps, self.folder, self.seed, place = steps, folder, seed, bases.folder_of("tiny-toon")
        self.model = AutoModelForCausalLM.from_pretrained(place, dtype=torch.float32).eval()
        self.tokenizer, self.stops = AutoTokenizer.from_pretrained(place), None
        self.stops = stop_tokens(self.tokenizer, place)
        self.held = {style: self.rows(self.settings([style], "eval", JUDGED)) for style in STYLES}

    def settings(self, styles: list[str], split: str, count: int, prompt: str = "", **changes: Any) -> StreamSettings:
        datasets = []
        for style in styles:
            path = self.folder / f"{style}-{split}-{prompt.replace(' ', '-')}.jsonl"
            path.write_text("\n".join(map(json.dumps, answered(split, count, style, prompt))))
            classes = dict.fromkeys(("control_class", "prefix_class"), STYLES[style]) if "adapter" in changes else {}
            datasets.append({"path": str(path), "type": "chatml", **classes})
        return StreamSettings.model_validate({
            "base_model": "tiny-toon", "datasets": datasets, "lora_r": RANK, "max_steps": self.steps, "micro_batch_size": 8,
            "learning_rate": 1e-2, "lr_scheduler": "cosine", "sequence_len": 512, "seed": self.seed, **changes,
        })  # fmt: skip

    def rows(self, settings: StreamSettings) -> list[Tokens]:
        found = RowBoundary(tokeniser_of(settings, self.tokenizer, self.stops)).rows(settings.datasets)
        good = (item for item in found if isinstance(item, GoodRow))
        return [with_classes(item.row, settings, settings.datasets[item.source]) for item in good]

    def trained(self, name: str, settings: StreamSettings) -> Path:
        loop = Loop(self.model)
        facts = facts_of_model(self.model)
        stream = Recipe.of(settings, facts, Batches.of(settings, self.rows(settings))).stream(loop, name)
        loop.add(stream)
        loop.run()
        loop.layers.remove()
        made = self.folder / name
        made.mkdir()
        saved.write(stream, made)
        return made

    def losses(self, model: torch.nn.Module, held: dict[str, list[Tokens]] | None = None) -> Losses:
        held = held or self.held
        found = [
            mean_loss(row_losses(model, [replace(row, classes=()) for row in held[style]], lambda: None))
            for style in STYLES
        ]
        return found[0], found[1]

    # ---- arms ----

    def control(self) -> dict[float, Losses]:
        settings = self.settings(["toon", "json"], "train", TRAINED, adapter="control", lora_max_norm=MAX_NORM)
        made = self.trained("control", settings)
        hooked = attach(self.model, made)
        found = {scale: (set_scale(hooked, scale), self.losses(hooked))[1] for scale in SCALES}
        hooked.unload()
        return found

    def lora(self) -> dict[float, Losses]:
        tuned = load_adapter(self.model, self.trained("lora", self.settings(["toon"], "train", TRAINED)))
        layers = [module for module in tuned.modules() if isinstance(module, LoraLayer)]
        full, found = [dict(layer.scaling) for layer in layers], {}
        for scale in SCALES:
            for layer, own in zip(layers, full, strict=True):
                layer.scaling = {name: value * scale for name, value in own.items()}
            found[scale] = self.losses(tuned)
        tuned.unload()
        return found

    def prompting(self) -> dict[float, Losses]:
        found = {}
        for scale, words in ((-1.0, "convert to json"), (0.0, ""), (1.0, "convert to toon")):
            found[scale] = self.losses(
                self.model, {style: self.rows(self.settings([style], "eval", JUDGED, words)) for style in STYLES}
            )
        return found

    def vector(self) -> dict[float, Losses]:
        rows = {style: self.rows(self.settings([style], "train", JUDGED)) for style in STYLES}
        means = {style: self._means(rows[style]) for style in STYLES}
        directions = [(x - y) / 2 for x, y in zip(means["toon"], means["json"], strict=True)]

        def gap(at: int) -> float:
            with self._added(at, directions[at]):
                x, y = self.losses(self.model, rows)
            return x - y

        best = min(range(len(directions)), key=gap)
        found = {}
        for scale in SCALES:
            with self._added(best, scale * directions[best]):
                found[scale] = self.losses(self.model)
        return found

    @torch.no_grad()
    def _means(self, rows: list[Tokens]) -> list[torch.Tensor]:
        """(H,) Of each layer's states at the answers' tokens."""
        found = []
        for row in rows:
            states = self.model(torch.tensor([row.ids]), output_hidden_states=True).hidden_states[1:]
            found.append([state[0, row.answer_start :].mean(0) for state in states])
        return [torch.stack(list(of)).mean(0) for of in zip(*found, strict=True)]

    @contextmanager
    def _added(self, at: int, direction: torch.Tensor) -> Iterator[None]:
        def add(_: Any, __: Any, output: Any) -> Any:
            return (output[0] + direction, *output[1:]) if isinstance(output, tuple) else output + direction

        hook = self.model.model.layers[at].register_forward_hook(add)
        try:
            yield
        finally:
            hook.remove()


def is_monotone(found: dict[float, Losses]) -> tuple[bool, bool]:
    """Whether X falls and whether Y rises at every step of the scale."""
    x, y = zip(*(found[scale] for scale in SCALES), strict=True)
    return all(a > b for a, b in pairwise(x)), all(a < b for a, b in pairwise(y))


def cells(found: dict[float, Losses]) -> str:
    return " | ".join(f"{found[s][0]:.3f} / {found[s][1]:.3f}" if s in found else "" for s in SCALES)


def table(steps: int) -> None:
    print("| arm | " + " | ".join(f"s = {scale:g}" for scale in SCALES) + " |\n|---" + "|---" * len(SCALES) + "|")
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(steps, Path(folder))
        arms: dict[str, Callable[[], dict[float, Losses]]] = {
            "control": bench.control, "LoRA on X": bench.lora, "vector": bench.vector, "prompting": bench.prompting,
        }  # fmt: skip
        for name, arm in arms.items():
            print(f"| {name} | {cells(arm())} |", flush=True)


def repeated(steps: int, seed: int) -> None:
    """The control adapter alone, judged on rows that had no part in anything."""
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(steps, Path(folder), seed)
        bench.held = {style: bench.rows(bench.settings([style], "train", OTHERS.stop))[OTHERS] for style in STYLES}
        found = bench.control()
    print(f"| {steps} | {seed} | {cells(found)} | X {is_monotone(found)[0]}, Y {is_monotone(found)[1]} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--steps", default="60")
    parser.add_argument("--seeds")
    options = parser.parse_args()
    for steps in map(int, options.steps.split(",")):
        if options.seeds is None:
            table(steps)
        else:
            for seed in map(int, options.seeds.split(",")):
                repeated(steps, seed)


if __name__ == "__main__":
    main()
