"""A base with adapters on it: which model answers, as PEFT itself would, how an answer ends, and what cannot be loaded."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM

from swarm.errors import UserError
from tests.trainer import tiny
from trainer.place import Place
from trainer.ship.answering import Answer, Sampling
from trainer.ship.models import Models, prompts_in
from trainer.ship.sources import sources_of

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning")
KINDS: dict[str, dict[str, Any]] = {"plain": {"std": 0.5}, "dora": {"std": 3.0, "use_dora": True, "seed": 2}}


@pytest.fixture(scope="module")
def adapters(base: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("adapters")
    return {name: tiny.save_adapter(base, folder / name, **how) for name, how in KINDS.items()}


@pytest.fixture(scope="module")
def models(adapters: dict[str, Path]) -> Models:
    return Models(sources_of([str(folder) for folder in adapters.values()]), Place(Path(), "cpu"))


def by_peft(base: Path, adapter: Path | None, prompt: list[int], count: int) -> list[int]:
    model: Any = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    model = PeftModel.from_pretrained(model, str(adapter)) if adapter else model
    torch.manual_seed(5)
    how: dict[str, Any] = {"do_sample": True, "temperature": 2.0, "top_k": 0, "max_new_tokens": count}
    out = model.generate(input_ids=torch.tensor([prompt]), **how)
    return list(out[0, len(prompt) :].tolist())


def test_each_model_answers_as_if_it_were_loaded_alone_in_whatever_order(
    models: Models, adapters: dict[str, Path], base: Path
) -> None:
    assert models.names == [base.name, "plain", "dora"]
    prompt = models.asker("plain").question("double 4")
    expected = {
        name: models.tokenizer.decode(by_peft(base, adapters.get(name), prompt, 40), skip_special_tokens=True)
        for name in models.names
    }
    assert len(set(expected.values())) == 3
    for name in [*models.names, *reversed(models.names)]:
        assert models.answer(name, prompt, Sampling(40, temperature=2.0, seed=5)).text == expected[name]


def test_the_text_that_is_handed_on_in_pieces_is_the_answer(models: Models) -> None:
    pieces: list[str] = []
    prompt = models.asker("plain").question("grüß")
    found = models.answer("plain", prompt, Sampling(40, temperature=1.5, seed=3), pieces.append)
    assert "".join(pieces) == found.text
    assert (found.tokens, found.ended) == (40, "length")
    assert len(pieces) > 5


def test_a_seed_gives_the_same_answer_again_and_another_seed_another(models: Models) -> None:
    prompt = models.asker("plain").question("hi")
    answers = [models.answer("plain", prompt, Sampling(20, temperature=1.0, seed=seed)).text for seed in (1, 1, 2)]
    assert answers[0] == answers[1] != answers[2]
    narrow = models.answer("plain", prompt, Sampling(20, temperature=1.0, top_p=1e-6, seed=5)).text
    assert narrow == models.answer("plain", prompt, Sampling(20)).text, "the likeliest token alone"


def test_a_stop_text_ends_an_answer_and_no_piece_of_it_is_handed_on(models: Models) -> None:
    prompt = models.asker("plain").question("hi")
    whole = models.answer("plain", prompt, Sampling(30, temperature=1.0, seed=7)).text
    stop = whole[8:11]
    pieces: list[str] = []
    sampling = Sampling(30, temperature=1.0, seed=7, stop=(stop, "never"))
    found = models.answer("plain", prompt, sampling, pieces.append)
    assert (found.text, found.ended) == (whole[: whole.index(stop)], "stop")
    assert "".join(pieces) == found.text
    assert found.tokens < 30


def test_an_answer_that_nobody_waits_for_ends(models: Models) -> None:
    pieces: list[str] = []
    prompt = models.asker("plain").question("hi")
    found = models.answer("plain", prompt, Sampling(400, 1.0, seed=1), pieces.append, lambda: len(pieces) > 3)
    assert found.ended == "left"
    assert found.tokens < 20


def test_prompt_and_answer_stay_within_the_positions_of_the_base(models: Models) -> None:
    prompt = models.asker("plain").text("a" * 505)
    found = models.answer("plain", prompt, Sampling(10_000, temperature=1.0, seed=1))
    assert len(prompt) + found.tokens <= models.context_tokens == 512


def test_what_is_named_is_found_named_apart_or_refused(adapters: dict[str, Path], base: Path, tmp_path: Path) -> None:
    plain = str(adapters["plain"])
    assert sources_of([f"mine={plain}", plain]).names == [base.name, "mine", "plain"]
    assert sources_of([str(base)]).names == [base.name]
    refused = {
        (plain, plain): "plain: names two models; .*NAME=FOLDER",
        (str(base), str(base)): "is no adapter, and the base is",
        ("x=/nowhere", plain): "holds no adapter_config.json",
        (plain, "/nowhere"): "neither a folder nor a hub name",
    }
    for words, what in refused.items():
        with pytest.raises(UserError, match=what):
            sources_of(words)
    other = tiny.save_base(tmp_path / "other")
    elsewhere = tiny.save_adapter(other, tmp_path / "elsewhere")
    with pytest.raises(UserError, match="the adapters have different bases"):
        sources_of([plain, str(elsewhere)])
    shutil.rmtree(other)
    with pytest.raises(UserError, match=r"elsewhere: its base .*other is not on this machine"):
        sources_of([str(elsewhere)])
    assert sources_of([str(elsewhere)], str(base)).base == str(base)


def test_the_run_tells_name_base_and_precision_of_an_adapter(
    adapters: dict[str, Path], base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folders = []
    for run, kind in (("one", "qlora"), ("two", "lora")):
        folder = Path(shutil.copytree(adapters["plain"], tmp_path / run))
        lineage = {"run": run, "stream": "wide", "base_model": str(base), "settings": {"adapter": kind}}
        (folder / "lineage.json").write_text(json.dumps(lineage))
        config = json.loads((folder / "adapter_config.json").read_text())
        (folder / "adapter_config.json").write_text(json.dumps({**config, "base_model_name_or_path": "/moved"}))
        folders.append(str(folder))
    both = sources_of(folders)
    assert (both.names[1:], both.quantised) == (["one/wide", "two/wide"], False)
    assert "one/wide: trained on the base in NF4; here it is in full precision" in capsys.readouterr().err
    assert sources_of(folders[:1]).quantised
    assert not sources_of(folders[:1], quantised=False).quantised


def test_an_adapter_of_another_shape_is_a_users_error(base: Path, tmp_path: Path) -> None:
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=259, hidden_size=32, intermediate_size=48, num_hidden_layers=1, num_attention_heads=2
    )
    other = tmp_path / "narrow"
    LlamaForCausalLM(config).save_pretrained(other)
    tiny.tokenizer().save_pretrained(other)
    with pytest.raises(UserError, match=r"does not fit its base|of other sizes"):
        Models(sources_of([str(tiny.save_adapter(other, tmp_path / "a"))], str(base)), Place(Path(), "cpu"))


def test_prompts_are_read_from_lines_and_from_rows(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("one\n\ntwo\n")
    rows = [
        {"prompt": "one"},
        {"messages": [{"role": "user", "content": "two"}, {"role": "assistant", "content": "x"}]},
    ]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert prompts_in(tmp_path / "a.txt") == prompts_in(tmp_path / "a.jsonl") == ["one", "two"]
    for text in ("[]", "{", '{"prompt": 3}', '{"messages": [{"role": "assistant", "content": "x"}]}'):
        (tmp_path / "bad.jsonl").write_text(text)
        with pytest.raises(UserError, match=r"bad\.jsonl:1: "):
            prompts_in(tmp_path / "bad.jsonl")


def test_speed_is_tokens_over_seconds() -> None:
    assert Answer("x", 3, 10, 2.0, "stop").tokens_per_second == 5.0
    assert Answer("", 3, 0, 0.0, "left").tokens_per_second == 0.0
