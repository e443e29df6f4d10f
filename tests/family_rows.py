"""One family and one adapter on the way of a stream, each step by the real part: check, plan, train, resume, judge, load in plain PEFT.

`tests/benchmarks/family_table.py` prints the table of all of them, `tests/trainer/roles/test_family_table.py` tries some.
"""

from __future__ import annotations

import json
import warnings
from dataclasses import dataclass, field
from math import prod
from pathlib import Path
from typing import Any

from swarm.errors import UserError, UserErrors
from swarm.planning import starting
from swarm.settings import StreamSettings
from tests import families
from tests.trainer import tiny
from tests.trainer.conftest import Bench

STEPS = ("check", "plan", "train", "resume", "judge", "load")
ADAPTERS: dict[str, dict[str, Any]] = {
    "lora": {},
    "qlora": {"adapter": "qlora"},
    "dora": {"use_dora": True},
    "dora + qlora": {"adapter": "qlora", "use_dora": True},
}
STORED = {"llama, sharded": "llama", "llama, prequantised NF4": "llama", "gemma2, sharded": "gemma2"}
"""Bases that differ in how they are stored."""
LOSS_TOLERANCE = 1e-4
"""Between held-out loss as it was judged and as plain PEFT computes it: batches differ."""


@dataclass
class FamilyRow:
    """What came of each step: `ok`, or why not; a step behind one that failed is left out."""

    family: str
    adapter: str
    steps: dict[str, str] = field(default_factory=dict)

    @property
    def fine(self) -> bool:
        return list(self.steps.values()) == ["ok"] * len(STEPS)


def names() -> list[str]:
    return [*families.FAMILIES, *STORED]


def save_base(name: str, folder: Path) -> Path:
    """A tiny random base of this family with the tests' tokenizer."""
    family = STORED.get(name, name)
    words = tiny.tokenizer()
    rows = len(words) + 5  # the classes of some families' tokenizers add tokens of their own
    changes: dict[str, Any] = {"vocab_size": rows, "pad_token_id": 0, "bos_token_id": None, "eos_token_id": 2}
    if "text_config" in families.FAMILIES[family][1]:
        changes = {"text_config": {**families.FAMILIES[family][1]["text_config"], **changes}}
    model = families.model_of(family, **changes)
    model.save_pretrained(folder, max_shard_size="20KB" if "sharded" in name else "1GB")
    if "NF4" in name:
        _quantise(folder)
    words.save_pretrained(folder)
    return folder


def _quantise(folder: Path) -> None:
    """As the hub's `-bnb-4bit` repositories are made."""
    import torch
    from transformers import AutoModelForCausalLM, BitsAndBytesConfig

    how = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.float32,
    )
    AutoModelForCausalLM.from_pretrained(
        str(folder), quantization_config=how, dtype=torch.float32, device_map={"": "cpu"}
    ).save_pretrained(folder)


def tried(name: str, adapter: str, base: Path, folder: Path) -> FamilyRow:
    """All steps, one after another until one fails."""
    row = FamilyRow(name, adapter)
    way = Way(base, ADAPTERS[adapter], folder)
    for step in STEPS:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                getattr(way, step)()
            row.steps[step] = "ok"
        except UserErrors as errors:
            row.steps[step] = f"refused: {errors.errors[0].what}"
        except UserError as error:
            row.steps[step] = f"refused: {error.what}"
        except Exception as error:
            row.steps[step] = f"FAILED: {type(error).__name__}: {' '.join(str(error).split())[:200]}"
        if row.steps[step] != "ok":
            break
    return row


class Way:
    def __init__(self, base: Path, adapter: dict[str, Any], folder: Path) -> None:
        self.base, self.bench, self.config = base, Bench(folder), folder / "swarm.yaml"
        (folder / "rows.jsonl").write_text(
            "".join(json.dumps({"prompt": f"2*{n}", "completion": str(2 * n)}) + "\n" for n in range(24))
        )
        self.settings = {
            "base_model": str(base), "datasets": [{"path": str(folder / "rows.jsonl"), "type": "prompt_completion"}],
            "sequence_len": 48, "max_steps": 3, "micro_batch_size": 2, "learning_rate": 5e-3, "warmup_ratio": 0.0,
            "save_steps": 2, "val_set_size": 6, "eval_rows": 2, "eval_max_new_tokens": 4, "lora_r": 4, **adapter,
        }  # fmt: skip
        self.config.write_text(json.dumps({"name": "t", "streams": {"one": self.settings}}))
        self.read = StreamSettings.model_validate(self.settings)

    def check(self) -> None:
        starting.check(self.config, ["placement.gpus=none"])

    def plan(self) -> None:
        [planned] = starting.plan(self.config, ["placement.gpus=none"], check_disk=False).rows()
        self.planned = planned.trainable
        self.prepare()

    def prepare(self) -> None:
        """With the same refusals as check."""
        self.prepared = self.bench.do("prepare", self.read)["prepared"].path

    def train(self) -> None:
        """The trained parameters are those of the plan, to the parameter."""
        self.trained = self.bench.do("train", self.read, prepared=self.prepared)["trained"]
        self.saved = next(event.path for event in self.bench.events() if event.kind == "checkpoint" and event.step == 2)
        self.weights = self._weights(self.trained.path)
        counted = sum(prod(value.shape) for value in self.weights.values())
        assert counted == self.planned, f"{counted} parameters were trained, {self.planned} planned"

    def resume(self) -> None:
        """From the checkpoint of its second step the adapter comes out bitwise the same."""
        import torch

        resumed = self.bench.do("train", self.read, prepared=self.prepared, resume_from=[self.saved])["trained"]
        again = self._weights(resumed.path)
        assert [row.step for row in self.bench.metric_rows()] == [3], "the first two steps were done again"
        assert again.keys() == self.weights.keys()
        assert all(torch.equal(again[name], self.weights[name]) for name in again), "other weights"

    def judge(self) -> None:
        given = {"prepared": self.prepared, "checkpoint": self.trained.path, "sha256": self.trained.sha256}
        verdict = self.bench.do("validate", self.read, **given)["verdict"]
        assert verdict.result in {"SUCCESS", "WARNING"}, verdict.why
        score = self.bench.do("evaluate", self.read, **given)["score"]
        assert score.rows == 6
        self.loss = verdict.figures["eval_loss"]

    def load(self) -> None:
        """As its users load it: transformers and PEFT alone; the held-out loss is the one that was judged."""
        import torch
        from bitsandbytes.nn.modules import Linear4bit
        from peft import PeftModel
        from transformers import AutoConfig, BitsAndBytesConfig

        from trainer.families import auto_class

        how = BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=torch.float32,
        )
        config = AutoConfig.from_pretrained(str(self.base))
        stored = getattr(config, "quantization_config", None) is not None
        quantised = {"quantization_config": how} if self.read.adapter == "qlora" and not stored else {}
        bare = auto_class(config).from_pretrained(str(self.base), dtype=torch.float32, **quantised)
        for module in bare.modules():  # bitsandbytes' fused CPU kernel takes no matrices as small as these
            if isinstance(module, Linear4bit):
                module.support_avx512bf16_for_cpu = False
        model = PeftModel.from_pretrained(bare, str(self.bench.place.run_folder / self.trained.path)).eval()
        found = _held_out_loss(model, self.bench.place.run_folder / self.prepared)
        assert abs(found - self.loss) < LOSS_TOLERANCE, f"loss {found:.6f}, judged {self.loss:.6f}"

    def _weights(self, path: str) -> dict[str, Any]:
        from safetensors.torch import load_file

        return load_file(self.bench.place.run_folder / path / "adapter_model.safetensors")


def _held_out_loss(model: Any, prepared: Path) -> float:
    """Mean over supervised tokens, row by row."""
    import torch

    from trainer.data.prepared import HELD_OUT, read_rows

    total, count = 0.0, 0
    for row in read_rows(prepared / HELD_OUT):
        labels = torch.tensor([row.labels])
        with torch.no_grad():
            logits = model(input_ids=torch.tensor([row.ids])).logits
        total += float(torch.nn.functional.cross_entropy(logits[0, :-1].float(), labels[0, 1:], reduction="sum"))
        count += int((labels[0, 1:] != -100).sum())
    return total / count
