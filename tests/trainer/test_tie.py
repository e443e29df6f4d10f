"""D38: the encoder's vector of a prompt stands before the decoder's own, through a projector that is trained with it; off by default."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from swarm.config import load
from swarm.errors import UserError, UserErrors
from swarm.settings import StreamSettings
from swarm.weights import PROJECTOR, adapter_files, adapter_sha256
from tests.trainer.conftest import Bench
from tests.trainer.encoders import WORDS, save_encoder
from trainer import ask, tie
from trainer.data.prepared import TRAIN, read_rows
from trainer.data.tokens import IGNORED, Tokens
from trainer.judge import evaluation
from trainer.judge.answers import generated
from trainer.loading import load_adapter, load_base, new_adapter
from trainer.objectives.tied import Tied
from trainer.place import Place
from trainer.ship.answering import Sampling
from trainer.ship.models import Models
from trainer.ship.sources import sources_of
from trainer.tie import Half, Tie

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning")
Make = Callable[..., StreamSettings]
CPU = Place(Path(), "cpu")
SHORT = ("max_steps=4", "save_steps=2", "eval_steps=4")


@pytest.fixture(scope="module")
def pair(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Make:
    folder = tmp_path_factory.mktemp("config")
    some = [" ".join(words) for words in product(WORDS[:4], WORDS[4:8], WORDS[8:])]
    (folder / "texts.csv").write_text(
        "\n".join(["text,label", *(f"{text},{'hot' if WORDS[0] in text else 'cold'}" for text in some)]) + "\n"
    )
    rows = [{"prompt": text, "completion": text.split()[0]} for text in some]
    (folder / "asked.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    common = {
        "method": "duo", "max_steps": 40, "save_steps": 40, "val_set_size": 16, "learning_rate": 1e-2, "sequence_len": 96, "eval_rows": 4,
        "micro_batch_size": 4, "eval_max_new_tokens": 6, "lora_dropout": 0.1, "warmup_ratio": 0, "tie_tokens": 3, "save": "last",
    }  # fmt: skip
    models = {
        "encoder": {
            "base_model": str(save_encoder(folder / "bert")), "objective": "classify", "labels": ["cold", "hot"], "sequence_len": 32,
            "datasets": [{"path": str(folder / "texts.csv"), "type": "labelled"}],
        },
        "decoder": {"base_model": str(base), "datasets": [{"path": str(folder / "asked.jsonl"), "type": "prompt_completion"}]},
    }  # fmt: skip

    def make(*overrides: str) -> StreamSettings:
        path = folder / "duo.yaml"
        path.write_text(json.dumps({"name": "duo", "streams": {"both": {**common, "models": models}}}))
        return load(path, list(overrides), cwd=folder).run.streams["both"]

    return make


@pytest.fixture(scope="module")
def trained(pair: Make, tmp_path_factory: pytest.TempPathFactory) -> tuple[Bench, Any]:
    bench = Bench(tmp_path_factory.mktemp("run"))
    return bench, bench.trained(pair())["trained"]


@pytest.fixture(scope="module")
def published(pair: Make, trained: tuple[Bench, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    bench, ended = trained
    folder = tmp_path_factory.mktemp("published") / "pair"
    shutil.copytree(bench.place.run_folder / ended.path, folder)
    stated = {"run": "r", "stream": "both", "base_model": pair().base_model, "settings": pair().model_dump(mode="json")}
    (folder / "lineage.json").write_text(json.dumps(stated))
    return folder


def halves(settings: StreamSettings) -> tuple[Half, Half]:
    """Both models with new adapters."""
    parts: list[Any] = list(settings.parts.values())
    made = [Half.of_base(new_adapter(load_base(Path(part.base_model), part, CPU), part), part) for part in parts]
    return made[0], made[1]


def longest_gradient(model: torch.nn.Module) -> float:
    found = [float(value.grad.abs().max()) for value in model.parameters() if value.grad is not None]
    return max(found, default=0.0)


@pytest.mark.parametrize("trains_encoder", [False, True])
def test_gradients_of_the_decoder_s_loss_arrive_in_the_projector_and_where_it_is_asked_for_in_the_encoder(
    pair: Make, trained: tuple[Bench, Any], trains_encoder: bool
) -> None:
    settings: Any = pair()
    encoder, decoder = halves(settings)
    made = Tie(encoder, decoder, settings.tie_tokens, trains_encoder=trains_encoder)
    made.begin(seed=0)
    bench, _ = trained
    prepared = [path for path in (bench.place.run_folder / "prepared").iterdir() if (path / TRAIN).exists()]
    rows = [row for path in prepared for row in read_rows(path / TRAIN) if len(row.labels) == len(row.ids)][:4]
    Tied(made).loss(decoder.model, rows, [0] * 4).backward()  # type: ignore[no-untyped-call]
    assert longest_gradient(made.projector) > 0
    assert longest_gradient(decoder.model) > 0
    assert (longest_gradient(encoder.model) > 0) is trains_encoder


def test_a_tied_pair_is_judged_with_its_tie_and_a_changed_projector_is_not_what_was_trained(
    pair: Make, trained: tuple[Bench, Any]
) -> None:
    bench, ended = trained
    given = {"prepared": next(iter(bench.prepared)), "checkpoint": ended.path}
    settings = pair()
    verdict = bench.do("validate", settings, **given, sha256=ended.sha256, figures=ended.figures)["verdict"]
    assert verdict.result == "SUCCESS", verdict.why
    assert verdict.figures["decoder_eval_loss"] < verdict.figures["base_decoder_eval_loss"]
    assert bench.do("evaluate", settings, **given, sha256=ended.sha256)["score"].figures[
        "decoder_eval_loss"
    ] == pytest.approx(verdict.figures["decoder_eval_loss"], abs=1e-6)
    folder = bench.place.run_folder / ended.path
    assert f"decoder/{PROJECTOR}" in adapter_files(folder)
    for change, why in ((lambda value: value * 0, None), (lambda value: value[:8], "is no projector of 3 vectors")):
        other = bench.place.run_folder / "other"
        shutil.copytree(folder, other, dirs_exist_ok=True)
        state = {name: change(value).contiguous() for name, value in load_file(folder / "decoder" / PROJECTOR).items()}
        save_file(state, other / "decoder" / PROJECTOR)
        stale = {**given, "checkpoint": "other", "sha256": ended.sha256}
        assert bench.do("validate", settings, **stale)["verdict"].result == "FAIL"
        judged = bench.do("validate", settings, **{**stale, "sha256": adapter_sha256(other)})["verdict"]
        if why:
            assert judged.result == "FAIL" and why in judged.why
        else:
            assert judged.figures["decoder_eval_loss"] != verdict.figures["decoder_eval_loss"]
            assert judged.figures["encoder_eval_loss"] == verdict.figures["encoder_eval_loss"]


@pytest.mark.parametrize("more", [(), ("tie_trains_encoder=true",), ("tie_trains_encoder=true", "arbiter=alternate:1")])
def test_it_goes_on_from_a_checkpoint_bit_for_bit(pair: Make, bench: Bench, more: tuple[str, ...]) -> None:
    settings = pair(*SHORT, *more)
    folder = bench.place.run_folder / bench.trained(settings)["trained"].path
    kept = {name: load_file(folder / name) for name in adapter_files(folder) if name.endswith(".safetensors")}
    assert len(kept) == 3
    half = bench.place.relative(folder.with_name("checkpoint-2"))
    before = load_file(folder.with_name("checkpoint-2") / "decoder" / PROJECTOR)
    assert not torch.equal(before["weight"], kept[f"decoder/{PROJECTOR}"]["weight"])
    again = bench.place.run_folder / bench.trained(settings, resume_from=[half])["trained"].path
    assert again != folder
    for file, tensors in kept.items():
        assert all(torch.equal(value, tensors[name]) for name, value in load_file(again / file).items()), file


def test_the_encoder_is_trained_otherwise_by_a_tie_that_trains_it_and_alike_by_one_that_does_not(
    pair: Make, tmp_path: Path
) -> None:
    def encoder(place: str, *more: str) -> dict[str, torch.Tensor]:
        bench = Bench(tmp_path / place)
        folder = bench.place.run_folder / bench.trained(pair(*SHORT, *more))["trained"].path
        return load_file(folder / "encoder" / "adapter_model.safetensors")

    apart, tied, both = encoder("a", "tie_tokens=0"), encoder("b"), encoder("c", "tie_trains_encoder=true")
    assert all(torch.equal(value, apart[name]) for name, value in tied.items())
    assert not all(torch.equal(value, apart[name]) for name, value in both.items())


def test_a_published_tied_pair_answers_with_its_tie(
    published: Path, pair: Make, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    models, settings = Models(sources_of([str(published)], pairs=True), CPU), pair()
    part: Any = settings.parts["decoder"]
    tuned: Any = load_adapter(load_base(Path(part.base_model), part, CPU), published / "decoder")
    prompt, stops = models.asker("both").question("red fire snow"), list(models.asker("both").prompt.stop_tokens)
    made = tie.trained(tuned, published, settings, CPU)
    expected = generated(tuned, [prompt, prompt[-3:]], stops, 6, ahead=made)
    alone = generated(tuned, [prompt], stops, 6, ahead=made)
    assert expected[0] == alone[0], "what is padded beside a longer prompt is answered as if it were alone"
    answer = alone[0].ids
    row = Tokens([*prompt, *answer], [*[IGNORED] * len(prompt), *answer], len(prompt))
    ids, places = torch.tensor([row.ids]), torch.arange(-len(answer) - 1, -1)
    found = Tied(made).logits(tuned, ids, torch.ones_like(ids), [row], places)
    assert answer and found[0].argmax(-1).tolist() == answer, "it is learned where it is answered"
    words = models.tokenizer.decode(answer, skip_special_tokens=True)
    assert models.answer("both", prompt, Sampling(6)).text == words
    (tmp_path / "settings.json").write_text(json.dumps(settings.model_dump(mode="json")))
    given = [
        "--run",
        str(tmp_path),
        "--adapter",
        str(published),
        "--settings",
        str(tmp_path / "settings.json"),
        "--json",
    ]
    assert ask.main([*given, "red fire snow"]) == 0
    assert json.loads(capsys.readouterr().out)["adapter"] == words.strip()


def test_what_knows_nothing_of_the_tie_refuses_the_pair(
    published: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(UserError, match="is tied to its encoder, without which it was not trained; name the pair"):
        sources_of([str(published / "decoder")])
    (tmp_path / "rows.jsonl").write_text('{"prompt": "a", "completion": "b"}\n')
    assert evaluation.main(["--data", str(tmp_path / "rows.jsonl"), str(published)]) == 2
    assert "both: its models are tied" in capsys.readouterr().err


def test_a_tie_that_leaves_a_row_no_position_is_refused_before_the_first_step(pair: Make, bench: Bench) -> None:
    with pytest.raises(UserError, match="3 before 510 tokens of a row, and the decoder reads 512"):
        bench.trained(pair(*SHORT, "models.decoder.sequence_len=510"))


@pytest.mark.parametrize(("overrides", "what"), [
    (("tie_tokens=0", "tie_trains_encoder=true"), "the models are not tied"),
    (("tie_tokens=65",), "tie_tokens"),
    (("models.decoder.objective=mlm", "models.decoder.datasets.0.type=text"), "its vectors stand before prompts, and the decoder learns mlm"),
])  # fmt: skip
def test_a_tie_that_cannot_be_is_a_mistake_of_the_config(pair: Make, overrides: tuple[str, ...], what: str) -> None:
    with pytest.raises(UserErrors, match=what):
        pair(*overrides)
