"""D03: a published pair is one argument; the encoder answers classification and embedding, the decoder everything else."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch

from swarm.config import load
from swarm.errors import UserError
from swarm.settings import StreamSettings
from tests.trainer.conftest import Bench
from tests.trainer.encoders import WORDS, save_encoder
from tests.trainer.ship.test_serve import HELLO, Served
from trainer import ask
from trainer.judge import evaluation
from trainer.loading import load_adapter, load_base
from trainer.place import Place
from trainer.ship import portable
from trainer.ship.answering import Sampling
from trainer.ship.chat import Chat
from trainer.ship.models import Models
from trainer.ship.sources import sources_of
from trainer.vectors import vectors

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning")
HOT = WORDS[:3]
CLASSIFY, EMBED = {"extra_body": {"task": "classification"}}, {"extra_body": {"task": "embedding"}}
TEXTS = ["red green cold", "warm fire snow"]
Said = pytest.CaptureFixture[str]


@pytest.fixture(scope="module")
def texts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("texts") / "texts.csv"
    lines = [
        f"{' '.join(some)},{'hot' if some[0] in HOT else 'cold'}" for some in product(WORDS[:6], WORDS[6:9], WORDS[9:])
    ]
    path.write_text("\n".join(["text,label", *lines]) + "\n")
    return path


@pytest.fixture(scope="module")
def settings(base: Path, rows_file: Path, texts: Path, tmp_path_factory: pytest.TempPathFactory) -> StreamSettings:
    folder = tmp_path_factory.mktemp("config")
    common = {
        "method": "duo", "max_steps": 40, "save_steps": 40, "val_set_size": 8, "learning_rate": 1e-2, "sequence_len": 32, "eval_rows": 0,
        "micro_batch_size": 8, "eval_max_new_tokens": 4,
    }  # fmt: skip
    models = {
        "encoder": {
            "base_model": str(save_encoder(folder / "bert")), "objective": "classify", "labels": ["cold", "hot"],
            "datasets": [{"path": str(texts), "type": "labelled"}],
        },
        "decoder": {"base_model": str(base), "datasets": [{"path": str(rows_file), "type": "prompt_completion"}]},
    }  # fmt: skip
    (folder / "duo.yaml").write_text(json.dumps({"name": "duo", "streams": {"both": {**common, "models": models}}}))
    return load(folder / "duo.yaml", [], cwd=folder).run.streams["both"]


@pytest.fixture(scope="module")
def pair(settings: StreamSettings, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As it is published: two adapters and one lineage."""
    bench = Bench(tmp_path_factory.mktemp("run"))
    trained = bench.trained(settings)["trained"]
    folder = tmp_path_factory.mktemp("published") / "pair"
    shutil.copytree(bench.place.run_folder / trained.path, folder)
    stated = {
        "run": "r",
        "stream": "both",
        "base_model": settings.base_model,
        "settings": settings.model_dump(mode="json"),
    }
    (folder / "lineage.json").write_text(json.dumps(stated))
    return folder


@pytest.fixture(scope="module")
def models(pair: Path) -> Models:
    return Models(sources_of([str(pair)], pairs=True), Place(Path(), "cpu"))


@pytest.fixture(scope="module")
def served(pair: Path) -> Iterator[Served]:
    with Served([str(pair)]) as server:
        yield server
        assert server.end() == 0


def expected_vectors(settings: StreamSettings, pair: Path, models: Models) -> torch.Tensor:
    """Of the encoder as it was trained, loaded by itself."""
    encoder: Any = settings.parts["encoder"]
    tuned = load_adapter(load_base(Path(encoder.base_model), encoder, Place(Path(), "cpu")), pair / "encoder")
    ids = [models.encoders["both/encoder"].tokens(text) for text in TEXTS]
    with torch.no_grad():
        return torch.nn.functional.normalize(vectors(tuned, ids), dim=-1)


def test_a_pair_is_named_by_its_stream_and_the_bare_base_is_its_decoder_s(models: Models, base: Path) -> None:
    assert models.sources.names == [base.name, "both", "both/encoder"]
    assert models.names == [base.name, "both"]
    assert models.answering == models.sources.names


def test_the_server_routes_what_is_asked_of_a_pair_by_its_task(
    served: Served, models: Models, settings: StreamSettings, pair: Path
) -> None:
    create: Any = served.client.chat.completions.create
    for name in ("both", "auto"):
        for text, label in zip(TEXTS, ("hot", "cold"), strict=True):
            found = create(model=name, messages=[{"role": "user", "content": text}], **CLASSIFY)
            assert (found.model, found.choices[0].message.content) == ("both/encoder", label)
        words = create(model=name, messages=HELLO, temperature=0, max_tokens=4)
        prompt = models.asker("both").question("double 4")
        assert (words.model, words.choices[0].message.content) == (
            "both",
            models.answer("both", prompt, Sampling(4)).text,
        )
        made = served.client.embeddings.create(model=name, input=TEXTS)
        assert made.model == "both/encoder"
        expected = expected_vectors(settings, pair, models)
        assert torch.allclose(torch.tensor([one.embedding for one in made.data]), expected, atol=1e-5)


def test_a_conversation_may_ask_the_encoder_too(models: Models, capsys: Said) -> None:
    chat = Chat(models, "both", Sampling(3), [])
    chat.say("double 4")
    chat.command("/use both/encoder")
    capsys.readouterr()
    chat.say(TEXTS[0])
    assert capsys.readouterr().out == "hot\n"
    with pytest.raises(UserError, match="reads 32 tokens at most"):
        chat.say("red " * 40)


def test_one_question_is_asked_of_the_half_that_its_task_names(
    pair: Path, settings: StreamSettings, models: Models, tmp_path: Path, capsys: Said
) -> None:
    (tmp_path / "settings.json").write_text(json.dumps(settings.model_dump(mode="json")))
    words = ["--run", str(tmp_path), "--adapter", str(pair), "--settings", str(tmp_path / "settings.json"), "--json"]

    def asked(*more: str) -> Any:
        assert ask.main([*words, *more]) == 0
        return json.loads(capsys.readouterr().out)

    assert asked("--task", "classification", *TEXTS) == [{"label": "hot"}, {"label": "cold"}]
    found = torch.tensor([row["embedding"] for row in asked("--task", "embedding", *TEXTS)])
    assert torch.allclose(found, expected_vectors(settings, pair, models), atol=1e-5)
    answer = asked("--max-new-tokens", "3", "double 4")
    assert (set(answer), answer["max_new_tokens"]) == (
        {"base", "adapter", "base_cut", "adapter_cut", "max_new_tokens"},
        3,
    )


def test_an_encoder_that_was_trained_alone_is_asked_for_labels_without_a_task(
    pair: Path, settings: StreamSettings, tmp_path: Path, capsys: Said
) -> None:
    (tmp_path / "settings.json").write_text(json.dumps(settings.parts["encoder"].model_dump(mode="json")))
    words = ["--run", str(tmp_path), "--adapter", str(pair / "encoder"), "--settings", str(tmp_path / "settings.json")]
    assert ask.main([*words, *TEXTS]) == 0
    assert capsys.readouterr().out == "label: hot\nlabel: cold\n"


def test_a_decoder_tells_no_labels(pair: Path, settings: StreamSettings, tmp_path: Path, capsys: Said) -> None:
    (tmp_path / "settings.json").write_text(json.dumps(settings.parts["decoder"].model_dump(mode="json")))
    words = ["--run", str(tmp_path), "--adapter", str(pair / "decoder"), "--settings", str(tmp_path / "settings.json")]
    assert ask.main([*words, "--task", "classification", "x"]) == 2
    assert "--task: the adapter answers in words, and classification is asked of an encoder" in capsys.readouterr().err


def test_labelled_rows_judge_the_encoder_and_others_the_decoder(
    pair: Path, texts: Path, rows_file: Path, base: Path, capsys: Said
) -> None:
    def judged(data: Path, *more: str) -> Any:
        assert evaluation.main(["--data", str(data), "--json", *more, str(pair)]) == 0
        return {row["adapter"]: row for row in json.loads(capsys.readouterr().out)["figures"]}

    labels = judged(texts, "--type", "labelled")
    assert labels["both/encoder"]["accuracy"] > 0.9 > labels["base"]["accuracy"]
    words = judged(rows_file, "--rows", "2", "--max-new-tokens", "4", "--sequence-len", "64")
    assert words["both"]["eval_loss"] < words["base"]["eval_loss"]


def test_what_a_pair_cannot_do_is_said(pair: Path, tmp_path: Path, capsys: Said) -> None:
    assert portable.main(["--peft", str(tmp_path / "out"), str(pair)]) == 2
    assert f"name one: {pair}/decoder or {pair}/encoder" in capsys.readouterr().err
    alone = tmp_path / "alone"
    shutil.copytree(pair, alone, ignore=shutil.ignore_patterns("lineage.json"))
    with pytest.raises(UserError, match=r"there is no lineage.json of a run beside the pair"):
        Models(sources_of([str(alone)], pairs=True), Place(Path(), "cpu"))
