"""Merging against PEFT's own merge: every kind of adapter, sharded bases, other layouts, several adapters, and what cannot be merged."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from safetensors import safe_open
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

from swarm.errors import UserError
from tests.trainer.tiny import save_adapter as adapter
from tests.trainer.tiny import save_base, tokenizer
from trainer.ship import merge as merging
from trainer.ship.gguf_lora import main as write_gguf
from trainer.ship.merge import main, merge, recipe_of
from trainer.ship.sources import base_of

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning")

WORDS = tokenizer()


def llama(folder: Path, dtype: torch.dtype = torch.float32, **more: object) -> Path:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(WORDS), hidden_size=32, intermediate_size=48, num_hidden_layers=3, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=64, **{"tie_word_embeddings": True, **more},
    )  # fmt: skip
    LlamaForCausalLM(config).to(dtype).save_pretrained(folder, max_shard_size="40KB")
    WORDS.save_pretrained(folder)
    return folder


def gpt2(folder: Path) -> Path:
    torch.manual_seed(0)
    config = GPT2Config(vocab_size=len(WORDS), n_embd=32, n_layer=2, n_head=2, n_positions=64)
    GPT2LMHeadModel(config).save_pretrained(folder)
    WORDS.save_pretrained(folder)
    return folder


def by_peft(base: Path, folder: Path) -> dict[str, torch.Tensor]:
    whole = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), folder).merge_and_unload()
    return dict(whole.state_dict())


def by_us(base: Path, out: Path, *folders: Path, **how: object) -> dict[str, torch.Tensor]:
    recipe = recipe_of(list(folders), how.get("weights"), str(how.get("combine", "linear")), 0.5)  # type: ignore[arg-type]
    merge(recipe, base_of(folders), out)
    return dict(AutoModelForCausalLM.from_pretrained(out).state_dict())


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"use_rslora": True},
        {"use_dora": True},
        {"target_modules": ["q_proj", "down_proj"], "rank_pattern": {"q_proj": 2}, "alpha_pattern": {"q_proj": 3}},
    ],
    ids=["lora", "rslora", "dora", "patterns"],
)
def test_a_merged_model_is_the_one_that_peft_merges(tmp_path: Path, settings: dict[str, object]) -> None:
    base = llama(tmp_path / "base")
    made = adapter(base, tmp_path / "adapter", **settings)
    wanted, found = by_peft(base, made), by_us(base, tmp_path / "out", made)
    assert set(wanted) == set(found)
    for name, value in wanted.items():
        torch.testing.assert_close(found[name], value, rtol=0, atol=1e-6)


def test_a_base_with_transposed_matrices_is_merged_too(tmp_path: Path) -> None:
    base = gpt2(tmp_path / "base")
    made = adapter(base, tmp_path / "adapter", target_modules=["c_attn", "c_proj"], fan_in_fan_out=True)
    wanted, found = by_peft(base, made), by_us(base, tmp_path / "out", made)
    for name, value in wanted.items():
        torch.testing.assert_close(found[name], value, rtol=0, atol=1e-6)


def test_files_keep_their_names_order_dtype_and_metadata_and_the_tokenizer_comes_along(tmp_path: Path) -> None:
    base = llama(tmp_path / "base", torch.bfloat16)
    made = adapter(base, tmp_path / "adapter")
    by_us(base, tmp_path / "out", made)
    shards = sorted(path.name for path in base.glob("*.safetensors"))
    assert len(shards) > 1
    for shard in shards:
        with safe_open(base / shard, "pt") as before, safe_open(tmp_path / "out" / shard, "pt") as after:
            assert before.metadata() == after.metadata()
            assert list(before.keys()) == list(after.keys())
            assert {after.get_tensor(name).dtype for name in after.keys()} == {torch.bfloat16}  # noqa: SIM118  no dict
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == sorted(path.name for path in base.iterdir())


def test_the_error_of_rounding_is_measured_layer_by_layer_and_on_the_whole_model(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole, half = llama(tmp_path / "whole"), llama(tmp_path / "half", torch.bfloat16)
    for base, low, high in ((whole, 0.0, 1e-5), (half, 1e-4, 2e-2)):
        made = adapter(base, tmp_path / f"{base.name}-adapter")
        words = [str(made), "--out", str(tmp_path / f"{base.name}-out"), "--json"]
        assert main(words) == 0
        said = json.loads(capsys.readouterr().out)
        assert low <= said["worst"]["relative"] <= high
        assert 0 <= said["logits"] <= high * said["effect"] * 10 and said["unmeasured"] is None
        assert said["matrices"] == 3 * 7


def test_several_adapters_are_summed_by_weight_or_combined_by_ties(tmp_path: Path) -> None:
    base = llama(tmp_path / "base")
    one, two = adapter(base, tmp_path / "one"), adapter(base, tmp_path / "two", seed=2, r=8)
    bare = dict(AutoModelForCausalLM.from_pretrained(base).state_dict())
    first, second = by_peft(base, one), by_peft(base, two)
    found = by_us(base, tmp_path / "linear", one, two, weights=[0.7, 0.3])
    for name, value in bare.items():
        wanted = value + 0.7 * (first[name] - value) + 0.3 * (second[name] - value)
        torch.testing.assert_close(found[name], wanted, rtol=0, atol=1e-6)
    ties = by_us(base, tmp_path / "ties", one, two, weights=[0.7, 0.3], combine="ties")
    name = "model.layers.0.self_attn.q_proj.weight"
    assert not torch.equal(ties[name], found[name])
    assert not torch.equal(ties[name], bare[name])


@pytest.mark.parametrize(
    ("break_it", "words"),
    [
        ("other base", r"^--base: 21 of the adapter's layers have no matrix in the base, first .*q_proj|^--base: .*"),
        ("there already", r"is there already; name a new folder"),
        ("quantised", r"^--base: .* is quantised.*full-precision base"),
        ("half a pair", r"lacks one of A and B"),
        ("no adapter", r"describes no LoRA adapter"),
        ("a bias", r"bias: all, which is no change of a matrix"),
        ("not finite", r"is not finite in torch.float32; train it again"),
    ],
)
def test_what_cannot_be_merged_is_refused_and_nothing_is_left_behind(tmp_path: Path, break_it: str, words: str) -> None:
    from safetensors.torch import save_file

    base = llama(tmp_path / "base")
    made, out, named = adapter(base, tmp_path / "adapter"), tmp_path / "out", str(base)
    config, tensors = (
        json.loads((made / "adapter_config.json").read_text()),
        load_file(made / "adapter_model.safetensors"),
    )
    match break_it:
        case "other base":
            named = str(gpt2(tmp_path / "other"))
        case "there already":
            out.mkdir()
        case "quantised":
            said = json.loads((base / "config.json").read_text())
            (base / "config.json").write_text(
                json.dumps({**said, "quantization_config": {"quant_method": "bitsandbytes"}})
            )
        case "half a pair":
            tensors.pop(next(name for name in tensors if "lora_B" in name))
        case "no adapter":
            config["peft_type"] = "LOHA"
        case "a bias":
            config["bias"] = "all"
        case "not finite":
            tensors[next(name for name in tensors if "lora_B" in name)][0, 0] = float("nan")
    (made / "adapter_config.json").write_text(json.dumps(config))
    save_file(tensors, made / "adapter_model.safetensors")
    before = sorted(path.name for path in tmp_path.iterdir())
    with pytest.raises(UserError, match=words):
        merge(recipe_of([made], None, "linear", 0.5), named, out)
    assert sorted(path.name for path in tmp_path.iterdir()) == before


@pytest.mark.parametrize("program", [main, write_gguf])
def test_an_adapter_from_another_machine_finds_its_base_by_its_lineage_or_says_what_to_name(
    program: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    base = llama(tmp_path / "base")
    made = adapter(base, tmp_path / "adapter")
    config = json.loads((made / "adapter_config.json").read_text())
    there = "/home/somebody/bases/base"
    (made / "adapter_config.json").write_text(json.dumps({**config, "base_model_name_or_path": there}))
    words = [str(made), "--out", str(tmp_path / "out")]
    assert program(words) == 2
    assert f"its base {there} is not on this machine; name a folder of it with --base" in capsys.readouterr().err
    assert program([*words[:2], f"{words[2]}-named", "--base", str(base)]) == 0
    (made / "lineage.json").write_text(json.dumps({"base_model": str(base)}))
    assert program(words) == 0


def test_a_base_in_4_bits_is_merged_into_only_where_asked_for_and_the_cost_is_printed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from transformers import BitsAndBytesConfig

    full = save_base(tmp_path / "full")
    how = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4")
    AutoModelForCausalLM.from_pretrained(full, quantization_config=how).save_pretrained(tmp_path / "base")
    WORDS.save_pretrained(tmp_path / "base")
    made, out = str(adapter(full, tmp_path / "adapter")), tmp_path / "out"
    words = [made, "--base", str(tmp_path / "base"), "--out", str(out)]
    assert main(words) == 2
    assert "or accept that with --4bit" in capsys.readouterr().err
    assert main([*words, "--4bit"]) == 2
    assert "largest logit difference" in (told := capsys.readouterr().err) and "--allow-lossy" in told
    assert not out.exists()
    assert main([*words, "--4bit", "--allow-lossy", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["dtype"] == "4 bits (nf4)" and 0.001 < told["worst"]["relative"] < 0.5
    assert told["logits"] > 0.05 * told["effect"] > 0
    ids = torch.tensor([[5, 6, 7, 8]])
    hooked_model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(tmp_path / "base"), made)
    with torch.no_grad():
        merged = AutoModelForCausalLM.from_pretrained(out)(input_ids=ids).logits
        hooked = hooked_model(input_ids=ids).logits
    assert float((merged - hooked).abs().max()) < 0.5 * float(hooked.abs().max())
    assert main([made, "--base", str(full), "--out", str(tmp_path / "none"), "--4bit"]) == 2
    assert "is not stored in 4 bits" in capsys.readouterr().err and not (tmp_path / "none").exists()


def test_a_full_disk_in_the_middle_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    base = llama(tmp_path / "base")
    made = adapter(base, tmp_path / "adapter")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(merging, "_copy_small_files", full)
    with pytest.raises(OSError, match="No space"):
        merge(recipe_of([made], None, "linear", 0.5), str(base), tmp_path / "out")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["adapter", "base"]


def test_the_command_merges_a_demo_like_adapter_and_says_what_it_cost(tmp_path: Path) -> None:
    import subprocess
    import sys

    base = llama(tmp_path / "base", torch.bfloat16)
    made = adapter(base, tmp_path / "adapter")
    swarm = [sys.executable, "-m", "swarm.cli"]
    done = subprocess.run(
        [*swarm, "merge", str(made), "--out", str(tmp_path / "out")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "21 matrices merged into" in done.stdout
    assert "largest logit difference" in done.stdout
    again = subprocess.run(
        [*swarm, "merge", str(made), "--out", str(tmp_path / "out")], capture_output=True, text=True, check=False
    )
    assert again.returncode == 2
    assert again.stderr.strip().endswith("is there already; name a new folder")
    file = subprocess.run(
        [*swarm, "export-adapter", str(made), "--gguf", str(tmp_path / "a.gguf"), "--json"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    told = json.loads(file.stdout)
    assert told["pairs"] == 21 and 0 < told["logits"] < 0.01 * told["effect"]
