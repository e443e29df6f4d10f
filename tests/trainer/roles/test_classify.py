"""`method: classify` and `method: mlm`: from rows to a verdict and a score (D02 and D04 stand on them, G22's F1, U11's measures)."""

from __future__ import annotations

import csv
import random
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from swarm import kinds
from swarm.errors import UserError
from swarm.settings import StreamSettings
from swarm.weights import ADAPTER
from tests.trainer.conftest import Bench
from tests.trainer.encoders import WORDS, save_encoder
from trainer.data.prepared import TRAIN, read_rows
from trainer.embedded import encoder as small
from trainer.loading import load_adapter, load_base, load_tokenizer
from trainer.show import shown_rows

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning:transformers")
Make = Callable[..., StreamSettings]
HOT = ("warm", "fire", "sun")


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_encoder(tmp_path_factory.mktemp("encoder"))


@pytest.fixture(scope="module")
def labelled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A text is hot if one of its words is; two of three are."""
    draw = random.Random(0)
    cold = [word for word in WORDS if word not in HOT]
    rows: dict[str, str] = {}
    while len(rows) < 90:
        hot = len(rows) % 3 < 2
        words = draw.choices(cold, k=4) + [draw.choice(HOT)] * hot
        draw.shuffle(words)
        rows[" ".join(words)] = "hot" if hot else "cold"
    path = tmp_path_factory.mktemp("labelled") / "rows.csv"
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([["sentence", "feels"], *rows.items()])
    return path


@pytest.fixture
def chosen(encoder: Path, labelled: Path) -> Make:
    def make(**changes: object) -> StreamSettings:
        values = {
            "base_model": str(encoder), "method": "classify", "labels": ["cold", "hot"],
            "datasets": [{"path": str(labelled), "type": "labelled", "text": "sentence", "label": "feels"}],
            "max_steps": 60, "sequence_len": 32, "micro_batch_size": 8, "learning_rate": 1e-2, "save_steps": 30,
            "val_set_size": 30, "eval_steps": 30, **changes,
        }  # fmt: skip
        return StreamSettings.model_validate(values)

    return make


def judged(bench: Bench, settings: StreamSettings) -> tuple[object, object, object]:
    trained = bench.trained(settings)["trained"]
    given = {"prepared": next(iter(bench.prepared)), "checkpoint": trained.path, "sha256": trained.sha256}
    verdict = bench.do("validate", settings, **given, figures=trained.figures)["verdict"]
    return trained, verdict, bench.do("evaluate", settings, **given)["score"]


@pytest.mark.parametrize("adapter", [{}, {"adapter": "qlora"}, {"use_dora": True}])
def test_an_encoder_learns_labels_and_is_judged_beside_the_majority(
    bench: Bench, chosen: Make, adapter: dict[str, object]
) -> None:
    trained, verdict, score = judged(bench, chosen(**adapter))
    assert verdict.result == "SUCCESS", verdict.why
    assert verdict.figures["base_eval_loss"] == pytest.approx(0.693147, abs=1e-6)  # a new head prefers no label
    figures = score.figures
    assert figures["accuracy"] > 0.9 > 0.75 > figures["base_accuracy"] > 0.5  # the share of the majority
    share = figures["base_accuracy"]
    assert figures["base_f1"] == pytest.approx(2 * share / (1 + share) / 2, abs=1e-6)  # the other label's F1 is 0
    assert figures["f1"] > 0.9
    tensors = load_file(bench.place.run_folder / trained.path / ADAPTER)
    assert tensors["base_model.model.classifier.weight"].shape == (2, 32)
    assert "base_model.model.bert.pooler.dense.weight" in tensors


def test_a_decoder_tells_labels_too(bench: Bench, chosen: Make, base: Path) -> None:
    trained, verdict, score = judged(bench, chosen(base_model=str(base), sequence_len=64, learning_rate=5e-3))
    assert verdict.result == "SUCCESS", verdict.why
    assert score.figures["accuracy"] > score.figures["base_accuracy"]
    words = load_base(
        base, StreamSettings.model_validate({"base_model": str(base), "datasets": [{"path": "x"}]}), bench.place
    )
    with pytest.raises(UserError, match=r"tells labels .*, and words are asked of it"):
        load_adapter(words, bench.place.run_folder / trained.path)


def test_accumulation_changes_nothing_and_a_resumed_training_is_the_same_bit_for_bit(
    bench: Bench, chosen: Make, tmp_path: Path
) -> None:
    def weights(where: str, **changes: object) -> tuple[Bench, dict[str, torch.Tensor]]:
        at = Bench(tmp_path / where)
        at.place.run_folder.mkdir()
        few = {"max_steps": 4, "save_steps": 2, "eval_steps": None, "lr_scheduler": "constant"}
        trained = at.trained(chosen(**few, **changes))["trained"]
        return at, load_file(at.place.run_folder / trained.path / ADAPTER)

    _, at_once = weights("at_once")
    _, pieces = weights("pieces", micro_batch_size=2, gradient_accumulation_steps=4)
    for name, value in at_once.items():
        torch.testing.assert_close(pieces[name], value, rtol=1e-3, atol=1e-3)
    dropping = save_encoder(tmp_path / "base", hidden_dropout_prob=0.1, attention_probs_dropout_prob=0.1)
    at, whole = weights("whole", base_model=str(dropping), lora_dropout=0.1)
    half = next(at.place.run_folder.glob("streams/one/t*/checkpoint-2")).relative_to(at.place.run_folder)
    changes = {"max_steps": 4, "save_steps": 2, "eval_steps": None, "lr_scheduler": "constant", "lora_dropout": 0.1}
    again = at.do(
        "train", chosen(base_model=str(dropping), **changes), prepared=next(iter(at.prepared)), resume_from=[str(half)]
    )["trained"]
    for name, value in load_file(at.place.run_folder / again.path / ADAPTER).items():
        assert torch.equal(value, whole[name]), name


def test_two_texts_are_told_apart_and_a_label_that_is_not_listed_is_refused(
    bench: Bench, chosen: Make, tmp_path: Path
) -> None:
    path = tmp_path / "pairs.jsonl"
    path.write_text(
        "".join(f'{{"a": "{a} {b}", "b": "{b}", "y": {int(a < b)}}}\n' for a in WORDS for b in WORDS if a != b)
    )
    data = {"path": str(path), "type": "labelled", "text": "a", "text_pair": "b", "label": "y"}
    settings = chosen(datasets=[data], labels=[0, 1], max_steps=2)
    prepared = bench.do("prepare", settings)["prepared"]
    row = next(read_rows(bench.place.run_folder / prepared.path / TRAIN))
    assert (len(row.ids), row.answer_start, row.ids[3]) == (6, 4, 3)  # [CLS] a b [SEP] | b [SEP]
    [(told, words), (counts, label)] = next(shown_rows(settings)).parts
    assert (told, words.split(), counts, label) == (
        False,
        ["[CLS]", "red", "green", "[SEP]", "green", "[SEP]"],
        True,
        "0",
    )
    with pytest.raises(UserError, match="its label is '0', and `labels` has no such one"):
        bench.do("prepare", chosen(datasets=[data], labels=["1", "2"]))


def test_masked_words_are_found_better_than_before(bench: Bench, chosen: Make, labelled: Path) -> None:
    data = [{"path": str(labelled), "type": "text", "text": "sentence"}]
    settings = StreamSettings.model_validate({
        "base_model": chosen().base_model, "method": "mlm", "datasets": data, "max_steps": 30, "sequence_len": 32,
        "micro_batch_size": 4, "gradient_accumulation_steps": 2, "learning_rate": 1e-2, "val_set_size": 30, "save_steps": 15,
    })  # fmt: skip
    _, verdict, score = judged(bench, settings)
    assert verdict.result == "SUCCESS", verdict.why
    assert verdict.figures["eval_loss"] < verdict.figures["base_eval_loss"] - 0.1
    assert score.figures["perplexity"] < score.figures["base_perplexity"]


def test_the_share_of_masked_words_arrives(chosen: Make) -> None:
    settings = StreamSettings.model_validate({
        "base_model": chosen().base_model, "method": "mlm", "datasets": [{"path": "x.jsonl", "type": "text"}], "mask_share": 0.4,
    })  # fmt: skip
    assert kinds.installed("method")["mlm"].objective(settings).share == 0.4


def test_a_small_encoder_is_made_of_the_words_of_files_and_says_what_is_wrong_with_them(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "texts.jsonl"
    path.write_text('{"text": "A warm stone."}\n')
    for name in ("one", "two"):
        assert small.main([str(tmp_path / name), str(path)]) == 0
    assert load_tokenizer(tmp_path / "one").tokenize("A warm, warm STONE") == ["a", "warm", "[UNK]", "warm", "stone"]
    files = {name: {file.name: file.read_bytes() for file in (tmp_path / name).iterdir()} for name in ("one", "two")}
    assert files["one"] == files["two"]
    pairs = tmp_path / "pairs.jsonl"
    pairs.write_text('{"sentence1": "Warm.", "sentence2": "A stone.", "label": 1}\n')
    assert small.main([str(tmp_path / "pairs"), str(pairs)]) == 0
    assert load_tokenizer(tmp_path / "pairs").tokenize("warm stone") == ["warm", "stone"]
    assert (small.main([str(tmp_path / "three")]), small.main([str(tmp_path / "three"), "nowhere.jsonl"])) == (2, 2)
    assert "no file matches nowhere.jsonl" in capsys.readouterr().err
    assert not (tmp_path / "three").exists()
