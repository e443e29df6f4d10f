"""`method: contrastive`: an encoder, or a decoder, learns which two texts belong together (D03: its vectors are what an encoder is asked for)."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from swarm import kinds
from swarm.settings import StreamSettings
from tests.trainer.conftest import Bench
from tests.trainer.encoders import WORDS, save_encoder
from trainer.loading import load_adapter, load_base, load_tokenizer
from trainer.objectives.likeness import Likeness
from trainer.vectors import vectors

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning:transformers")
PARTNERS = dict(zip(WORDS[:6], WORDS[6:], strict=True))


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_encoder(tmp_path_factory.mktemp("encoder"))


@pytest.fixture
def chosen(encoder: Path, tmp_path: Path) -> Callable[..., StreamSettings]:
    """A text belongs to that of the partners of its words."""
    path = tmp_path / "pairs.jsonl"
    rows = [(" ".join(some), " ".join(map(PARTNERS.get, some))) for some in itertools.permutations(PARTNERS, 3)]  # type: ignore[arg-type]
    path.write_text("".join(json.dumps({"question": a, "answer": b}) + "\n" for a, b in rows))
    data = {"path": str(path), "type": "prompt_completion", "prompt": "question", "completion": "answer"}

    def make(**changes: object) -> StreamSettings:
        return StreamSettings.model_validate({
            "base_model": str(encoder), "method": "contrastive", "datasets": [data], "max_steps": 40, "sequence_len": 16,
            "micro_batch_size": 16, "learning_rate": 1e-2, "val_set_size": 24, "save_steps": 20, **changes,
        })  # fmt: skip

    return make


def test_texts_that_belong_together_are_nearer_than_others_and_the_base_is_judged_alike(
    bench: Bench, chosen: Callable[..., StreamSettings]
) -> None:
    settings = chosen()
    trained = bench.trained(settings)["trained"]
    given = {"prepared": next(iter(bench.prepared)), "checkpoint": trained.path, "sha256": trained.sha256}
    verdict = bench.do("validate", settings, **given)["verdict"]
    assert verdict.result == "SUCCESS", verdict.why
    assert verdict.figures["eval_loss"] < verdict.figures["base_eval_loss"] - 0.5
    tokenizer = load_tokenizer(Path(settings.base_model))
    folder, texts = bench.place.run_folder / trained.path, [*itertools.islice(PARTNERS.items(), 4)]
    tuned = load_adapter(load_base(Path(settings.base_model), settings, bench.place), folder)
    first, second = (
        torch.nn.functional.normalize(vectors(tuned, [tokenizer(pair[at])["input_ids"] for pair in texts]), dim=-1)
        for at in (0, 1)
    )
    assert (first @ second.T).argmax(1).tolist() == [0, 1, 2, 3]


def test_a_decoder_can_learn_vectors_too(bench: Bench, chosen: Callable[..., StreamSettings], base: Path) -> None:
    settings = chosen(
        base_model=str(base), sequence_len=64, max_steps=8, save_steps=8, learning_rate=5e-3, eval_steps=8
    )
    trained = bench.trained(settings)["trained"]
    rows = [row.figures for row in bench.metric_rows() if row.kind == "train"]
    assert trained.step == 8 and rows[-1]["loss"] < rows[0]["loss"]


def test_a_batch_of_one_pair_has_nothing_to_tell_apart_and_is_refused(chosen: Callable[..., StreamSettings]) -> None:
    refused = kinds.method("contrastive").refusal(chosen(micro_batch_size=1))
    assert refused and refused.key == "micro_batch_size"


def test_the_temperature_arrives(chosen: Callable[..., StreamSettings]) -> None:
    """D01."""
    settings = chosen(contrastive_temperature=0.2)
    assert kinds.method("contrastive").objective(settings) == Likeness(0.2)
