"""Issue 13: bases as people have them: files of older forms are read, and what is broken or lacking in them is said in a line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig
from safetensors.torch import load_file, save_file
from tokenizers import pre_tokenizers
from transformers import LlamaForCausalLM

from swarm.errors import UserError
from swarm.policy.fitting import refuse_unfit
from swarm.settings import StreamSettings
from tests.families import FAMILIES, model_of
from tests.trainer import tiny
from trainer import bases, weightless
from trainer.loading import load_adapter, load_base, load_tokenizer
from trainer.loop.adapter import refuse_unfusable
from trainer.place import Place
from trainer.ship.deltas import Adapter

pytestmark = [pytest.mark.filterwarnings("ignore::FutureWarning"), pytest.mark.filterwarnings("ignore::UserWarning")]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tiny.save_base(tmp_path / "base")


def changed(folder: Path, **values: Any) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, **values}))


def without(folder: Path, *names: str) -> None:
    tensors = load_file(folder / "model.safetensors")
    for name in names:
        del tensors[name]
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})


def settings_of(folder: Path, **more: Any) -> StreamSettings:
    return StreamSettings.model_validate({"base_model": str(folder), "datasets": [{"path": "-"}], **more})


def test_a_base_whose_files_lack_tensors_is_refused_before_a_run_and_by_its_worker(folder: Path) -> None:
    """transformers says so in a warning alone, and each process of a run would draw others."""
    without(folder, "model.layers.1.mlp.up_proj.weight")
    words = r"lack 1 tensors of a LlamaForCausalLM, first model\.layers\.1\.mlp\.up_proj"
    with pytest.raises(UserError, match=words):
        bases.facts_of(str(folder))
    with pytest.raises(UserError, match=words):
        load_base(folder, settings_of(folder), Place(folder, "cpu"))


def test_a_base_in_pickles_alone_is_not_opened(folder: Path) -> None:
    """A01: they can hold code."""
    weights = folder / "model.safetensors"
    torch.save(load_file(weights), folder / "pytorch_model.bin")
    weights.unlink()
    with pytest.raises(UserError, match="has pickled weights only"):
        bases.facts_of(str(folder))
    with pytest.raises(UserError, match="cannot be loaded"):
        load_base(folder, settings_of(folder), Place(folder, "cpu"))


def test_a_base_whose_config_has_fewer_layers_than_its_files_is_refused_before_a_run_and_by_its_worker(
    folder: Path,
) -> None:
    changed(folder, num_hidden_layers=1)
    words = r"has 1 layers in model\.layers, the files of .* have more, such as model\.layers\.1"
    with pytest.raises(UserError, match=words):
        bases.facts_of(str(folder))
    with pytest.raises(UserError, match=words):
        load_base(folder, settings_of(folder), Place(folder, "cpu"))


def test_a_matrix_of_another_shape_is_refused_before_a_run_and_by_its_worker(folder: Path) -> None:
    changed(folder, intermediate_size=96)
    with pytest.raises(UserError, match=r"down_proj\.weight is \(64, 128\) in the files of .*, and \(64, 96\) by its"):
        bases.facts_of(str(folder))
    with pytest.raises(UserError, match=r"base_model: .* cannot be loaded \(RuntimeError: "):
        load_base(folder, settings_of(folder), Place(folder, "cpu"))


def test_a_base_without_its_head_says_no_words_and_may_tell_labels(folder: Path) -> None:
    changed(folder, tie_word_embeddings=False)  # its files are those of a tied base
    facts = bases.facts_of(str(folder))
    with pytest.raises(UserError, match="its files lack lm_head, which says the words"):
        refuse_unfit(settings_of(folder), facts)
    labelled = {"path": "-", "type": "labelled"}
    refuse_unfit(settings_of(folder, method="classify", labels=["a", "b"], datasets=[labelled]), facts)


def test_experts_of_which_one_is_missing_are_no_mixture(tmp_path: Path) -> None:
    """transformers makes one tensor of them."""
    model, stored = model_of("mixtral"), dict[str, tuple[int, ...]]()
    model.save_pretrained(tmp_path)
    for path in bases.weights_of(tmp_path):
        stored |= {name: tuple(tensor["shape"]) for name, tensor in bases.header_of(path).items()}
    assert not weightless.lacks_head(tmp_path, model, stored)
    del stored[next(name for name in stored if ".experts.3." in name)]
    with pytest.raises(UserError, match="tensors of a layer are missing"):
        weightless.lacks_head(tmp_path, model, stored)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_whole_base_of_any_family_has_all_that_its_config_asks_for(family: str, tmp_path: Path) -> None:
    model = model_of(family)
    model.save_pretrained(tmp_path)
    headers = [bases.header_of(path) for path in bases.weights_of(tmp_path)]
    stored = {name: tuple(tensor["shape"]) for header in headers for name, tensor in header.items()}
    assert not weightless.lacks_head(tmp_path, model, stored)


def test_a_tokenizer_in_two_files_as_older_bases_have_it_is_read(folder: Path) -> None:
    """OPT's and many of GPT-2's family have no tokenizer.json."""
    for path in folder.glob("tokenizer*"):
        path.unlink()
    words = ["<|endoftext|>", *sorted(pre_tokenizers.ByteLevel.alphabet())]
    (folder / "vocab.json").write_text(json.dumps({word: at for at, word in enumerate(words)}))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "GPT2Tokenizer"}))
    assert bases.facts_of(str(folder)).embedding_rows == 259
    tokenizer = load_tokenizer(folder)
    assert tokenizer.decode(tokenizer("hi there")["input_ids"]) == "hi there"


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("generation_config.json", "{", r"generation_config\.json cannot be read; download it again, or remove it"),
        ("generation_config.json", "[]", r"generation_config\.json cannot be read; download it again, or remove it"),
        ("model.safetensors.index.json", "[]", r"index\.json names no files of weights; download"),
        ("model.safetensors.index.json", '{"weight_map": {"a": 3}}', r"index\.json names no files of weights; download"),
        ("chat_template.jinja", "{% for m in messages %}{{ m.content }", r"its chat template is no Jinja \(line 1: unexpected '}'\)"),
        ("adapter_config.json", "{}", r"holds an adapter beside the model \(adapter_config\.json\), which transformers would put"),
        ("tokenizer.json", "{}", r"the tokenizer in .* cannot be read \("),
        ("tokenizer.json", None, r"has no tokenizer; save the tokenizer into the same folder"),
    ],
)  # fmt: skip
def test_a_broken_file_of_a_base_is_called_by_its_name(folder: Path, name: str, text: str | None, words: str) -> None:
    if "index" in name:
        (folder / "model.safetensors").unlink()
    if text is None:
        (folder / name).unlink()
    else:
        (folder / name).write_text(text)
    with pytest.raises(UserError, match=words) as caught:
        bases.facts_of(str(folder))
    assert str(caught.value).startswith("base_model: ") and "\n" not in str(caught.value)


def test_end_tokens_that_are_no_numbers_are_not_taken(folder: Path) -> None:
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": [2, None, "<|im_end|>", -1]}))
    assert bases.facts_of(str(folder)).chat_template


@pytest.mark.parametrize(
    ("layers", "words"),
    [(3, r"layers\.2\..* is in its file alone \(and \d+ more\)"), (1, r"its file lacks .*layers\.1\.")],
)
def test_an_adapter_of_which_the_base_would_take_a_part_is_refused(
    folder: Path, tmp_path: Path, layers: int, words: str
) -> None:
    """Of another base of the same width, say: PEFT takes what fits and goes on."""
    other = tmp_path / "other"
    config = LlamaForCausalLM.from_pretrained(folder).config
    config.num_hidden_layers = layers
    LlamaForCausalLM(config).save_pretrained(other)
    adapter = tiny.save_adapter(other, tmp_path / "adapter", target_modules=["q_proj"])
    base = LlamaForCausalLM.from_pretrained(folder)
    with pytest.raises(UserError, match=words):
        load_adapter(base, adapter)


def test_a_torn_adapter_and_a_config_that_is_none_are_refused_in_words(folder: Path, tmp_path: Path) -> None:
    adapter = tiny.save_adapter(folder, tmp_path / "adapter", target_modules=["q_proj"])
    whole = (adapter / "adapter_model.safetensors").read_bytes()
    (adapter / "adapter_model.safetensors").write_bytes(whole[:-8])
    with pytest.raises(UserError, match=r"adapter_model\.safetensors cannot be read"):
        load_adapter(LlamaForCausalLM.from_pretrained(folder), adapter)
    (adapter / "adapter_model.safetensors").write_bytes(whole)
    (adapter / "adapter_config.json").write_text("[]")
    with pytest.raises(UserError, match=r"has no adapter_config\.json that can be read"):
        load_adapter(LlamaForCausalLM.from_pretrained(folder), adapter)


@pytest.mark.parametrize(
    "settings", [{"alora_invocation_tokens": [3]}, {"bias": "all"}, {"layer_replication": [[0, 2]]}]
)
def test_an_adapter_that_acts_otherwise_than_a_lora_is_none_of_the_shared_layers(settings: dict[str, object]) -> None:
    """One with invocation tokens acts behind them alone; on every token its figures would be another adapter's."""
    with pytest.raises(UserError, match="the shared engine has no adapter of this kind"):
        refuse_unfusable(LoraConfig(**{"target_modules": ["q_proj"], "task_type": "CAUSAL_LM", **settings}))


def test_a_config_that_is_a_list_describes_no_adapter(tmp_path: Path) -> None:
    (tmp_path / "adapter_config.json").write_text("[]")
    with pytest.raises(UserError, match=r"adapter_config\.json describes no LoRA adapter"):
        Adapter(tmp_path)


def test_what_git_lfs_left_in_an_adapters_place_is_refused_in_words(folder: Path, tmp_path: Path) -> None:
    adapter = tiny.save_adapter(folder, tmp_path / "adapter", target_modules=["q_proj"])
    (adapter / "adapter_model.safetensors").write_text("version https://git-lfs.github.com/spec/v1\n")
    with pytest.raises(UserError, match=r"adapter_model\.safetensors cannot be read \("):
        Adapter(adapter)
