"""What is known of a base without its weights is what the libraries make of it, for many families."""

from __future__ import annotations

import re
from math import prod
from pathlib import Path
from typing import Any

import pytest

from swarm import kinds
from swarm.errors import UserError
from swarm.policy.fitting import unfit
from swarm.settings import StreamSettings
from tests.families import FAMILIES, config_of, facts_of, model_of
from trainer.inspection import facts_of_model

pytestmark = [
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]


def settings(**changes: Any) -> StreamSettings:
    return StreamSettings.model_validate(
        {"base_model": "x", "datasets": [{"path": "x"}], "sequence_len": 32, "lora_r": 4, **changes}
    )


def shapes_in_file(model: Any) -> dict[str, tuple[int, ...]]:
    from peft import get_peft_model_state_dict

    return {name: tuple(value.shape) for name, value in get_peft_model_state_dict(model).items()}


def trained(model: Any) -> int:
    return sum(value.numel() for value in model.parameters() if value.requires_grad)


PATTERNS = {"rank_pattern": {r"[a-p]\w*": 3}, "alpha_pattern": {r"[a-p]\w*": 5.0}}
"""Of layers whose last name begins so: every family has some."""


@pytest.mark.parametrize("changes", [{}, {"use_dora": True}, PATTERNS], ids=["lora", "dora", "patterns"])
@pytest.mark.parametrize("family", FAMILIES)
def test_an_adapter_has_the_tensors_that_peft_makes(family: str, changes: dict[str, Any]) -> None:
    chosen, kind = settings(**changes), kinds.adapter("lora")
    base = facts_of(family)
    stated = kind.tensors(base, chosen)
    model = model_of(family)
    assert base == facts_of_model(model), "the meta device tells what the model with weights tells"
    made = kind.attach(model, base, chosen)
    assert stated == shapes_in_file(made)
    assert sum(map(prod, stated.values())) == trained(made)


@pytest.mark.parametrize("changes", [{}, {"use_dora": True}], ids=["qlora", "dora"])
@pytest.mark.parametrize("family", FAMILIES)
def test_what_is_held_in_4_bits_is_what_transformers_quantises(
    family: str, changes: dict[str, Any], tmp_path: Path
) -> None:
    import torch
    from bitsandbytes.nn.modules import Linear4bit

    from trainer.families import auto_class

    base, kind, chosen = facts_of(family), kinds.adapter("qlora"), settings(adapter="qlora", **changes)
    stated = {module.name for module in base.modules if module.quantised}
    if complaints := list(unfit(chosen, base)):
        nothing = not stated and "would store no part of this base in 4 bits" in complaints[0][1]
        assert nothing or (family == "mamba" and "multiplies with that matrix itself" in complaints[0][1])
        return
    model_of(family).save_pretrained(tmp_path)
    model = auto_class(config_of(family)).from_pretrained(
        str(tmp_path), quantization_config=kind.quantisation_config(torch.float32, chosen), dtype=torch.float32
    )
    text = {module.name for module in base.modules}
    assert stated == {name for name, module in model.named_modules() if isinstance(module, Linear4bit)} & text
    made = kind.attach(model, facts_of_model(model), chosen)
    assert kind.tensors(base, chosen) == shapes_in_file(made)


def test_a_mixture_says_how_much_of_it_no_adapter_reaches() -> None:
    base = facts_of("mixtral")
    assert base.experts_parameters == 2 * 4 * (2 * 64 * 32 + 64 * 32) > base.parameters / 2
    assert {module.name.rpartition(".")[2] for module in base.linears} == {"q_proj", "k_proj", "v_proj", "o_proj"}


def test_a_model_that_sees_too_is_adapted_where_text_reaches_it() -> None:
    names = [module.name for module in facts_of("gemma3 that sees").linears]
    assert names and all(name.startswith("model.language_model.") for name in names)


def test_positions_bound_a_base_that_has_them() -> None:
    assert [facts_of(name).context_tokens for name in ("gpt2", "llama", "mpt", "mamba", "bloom")] == [
        64,
        64,
        64,
        None,
        None,
    ]


@pytest.mark.parametrize("family", FAMILIES)
def test_attention_is_computed_as_the_facts_say_and_eagerly_only_where_the_family_needs_it(family: str) -> None:
    eager = ("gemma2", "mpt", "bloom", "gpt-oss")
    wanted = None if family == "mamba" else "eager" if family in eager else "sdpa"
    assert facts_of(family).attention == wanted
    if wanted:
        assert model_of(family).config.get_text_config()._attn_implementation == wanted


# ---- targets ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        ("q_proj", 2), ("q_proj, v_proj", 4), (["q_proj", "v_proj"], 4), ("q_proj,v_proj,", 4),
        (r".*\.layers\.1\..*_proj", 7), ("model.layers.0.mlp.up_proj", 1), ("all-linear", 14),
    ],
)  # fmt: skip
def test_names_a_comma_list_and_a_pattern_choose_layers(wanted: Any, found: int) -> None:
    shapes = kinds.adapter("lora").tensors(facts_of("llama"), settings(lora_target_modules=wanted))
    assert len(shapes) == 2 * found


@pytest.mark.parametrize(
    ("family", "wanted", "told"),
    [
        ("llama", ["q_porj", "v_proj"], "q_porj matches no layer of the base; its layers are q_proj, k_proj, v_proj"),
        ("llama", "(q|v)_proj", "the pattern '(q|v)_proj' matches no whole name of a layer, such as model.layers.0.self_attn.q_proj"),
        ("llama", "(q_proj", "'(q_proj' is no pattern (missing ), unterminated subpattern at position 0)"),
        ("llama", ["lm_head"], "lm_head is the head, which gets no adapter here"),
        ("llama", ["embed_tokens"], "model.embed_tokens is an embedding, which gets no adapter here"),
        ("gpt2", ["q_proj"], "q_proj matches no layer of the base; its layers are c_attn, c_proj, c_fc"),
    ],
)  # fmt: skip
def test_targets_that_match_nothing_say_how_they_were_read(family: str, wanted: Any, told: str) -> None:
    with pytest.raises(UserError) as caught:
        kinds.adapter("lora").tensors(facts_of(family), settings(lora_target_modules=wanted))
    assert caught.value.where == "lora_target_modules"
    assert told in str(caught.value)


def test_layers_in_which_no_target_stands_are_refused() -> None:
    """D25."""
    chosen = settings(lora_target_modules=["layers.0.mlp.up_proj"], layers_to_transform=1)
    with pytest.raises(UserError, match=r"^layers_to_transform: none of the layers that get an adapter stands there"):
        kinds.adapter("lora").tensors(facts_of("llama"), chosen)


# ---- fitting ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "of_base", "told"),
    [
        ({"sequence_len": 65}, {}, ("sequence_len", "65, and the base reads 64 tokens")),
        ({}, {"quantization_config": {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4"}}, ("adapter", "the base is stored in 4 bits (nf4)")),
        ({"adapter": "qlora"}, {"quantization_config": {"quant_method": "gptq"}}, ("base_model", "is stored quantised (gptq), and no adapter here can be trained on that")),
    ],
)  # fmt: skip
def test_what_would_end_a_training_is_reported_beforehand(
    changes: dict[str, Any], of_base: dict[str, Any], told: tuple[str, str]
) -> None:
    [(setting, what, _)] = unfit(settings(**changes), facts_of("llama", **of_base))
    assert (setting, what) == told


def test_fused_attention_is_refused_where_the_family_lacks_it() -> None:
    [(setting, what, fix)] = unfit(settings(attn_implementation="sdpa"), facts_of("gemma2"))
    assert setting == "attn_implementation"
    assert what == "sdpa, but torch's fused kernels do not support this base's attention"
    assert fix == "write `attn_implementation: auto`, which chooses eager for this base"
    assert list(unfit(settings(attn_implementation="eager"), facts_of("gemma2"))) == []


def test_a_base_in_nf4_is_trained_on_as_it_is() -> None:
    stored = {"quantization_config": {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4"}}
    assert list(unfit(settings(adapter="qlora"), facts_of("llama", **stored))) == []


# ---- what is no causal language model --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("config", "values", "wanted"),
    [
        ("XLNetConfig", {"d_model": 32, "n_head": 4, "d_inner": 64, "n_layer": 1}, "reads in both directions (xlnet)"),
        ("T5Config", {"d_model": 32, "d_kv": 8, "d_ff": 64, "num_layers": 1}, "is an encoder with a decoder (t5), and rows are one sequence here"),
        ("BartConfig", {"d_model": 32}, "is an encoder with a decoder (bart)"),
        ("ViTConfig", {}, "makes no causal language model"),
    ],
)  # fmt: skip
def test_a_base_that_does_not_predict_the_next_token_is_refused_with_the_true_reason(
    tmp_path: Path, config: str, values: dict[str, Any], wanted: str
) -> None:
    import transformers

    from tests.trainer import tiny
    from trainer.weightless import facts_of_folder

    getattr(transformers, config)(**values).save_pretrained(tmp_path)
    tiny.tokenizer().save_pretrained(tmp_path)
    with pytest.raises(UserError) as caught:
        facts_of_folder(tmp_path)
    assert wanted in caught.value.what


def test_an_encoder_that_was_made_a_decoder_is_a_causal_language_model(tmp_path: Path) -> None:
    import transformers

    from tests.trainer import tiny
    from trainer.weightless import facts_of_folder

    small = {"hidden_size": 32, "num_attention_heads": 4, "num_hidden_layers": 1, "intermediate_size": 64}
    transformers.BertConfig(is_decoder=True, vocab_size=300, **small).save_pretrained(tmp_path)
    tiny.tokenizer().save_pretrained(tmp_path)
    assert facts_of_folder(tmp_path).layers == 1


def test_a_matrix_that_its_family_multiplies_with_itself_gets_no_adapter_and_no_four_bits() -> None:
    base = facts_of("mamba")
    assert {module.name.rpartition(".")[2] for module in base.linears} == {"in_proj", "x_proj"}
    [(setting, what, fix)] = unfit(settings(adapter="qlora"), base)
    assert (setting, fix) == ("adapter", "write `adapter: lora`")
    assert (
        what
        == "qlora would hold backbone.layers.0.mixer.dt_proj in 4 bits, and this family multiplies with that matrix itself"
    )
    assert list(unfit(settings(), base)) == []


def test_layers_whose_names_stand_for_experts_in_peft_get_no_adapter() -> None:
    base = facts_of("deepseek-v3")
    names = {module.name.rpartition(".")[2] for module in base.linears}
    assert names == {"q_a_proj", "q_b_proj", "kv_a_proj_with_mqa", "kv_b_proj", "o_proj"}
    assert "gate_proj" in {module.name.rpartition(".")[2] for module in base.modules if not module.adaptable}


ATTENTION = {
    "llama": "q_proj k_proj v_proj o_proj", "mistral": "q_proj k_proj v_proj o_proj", "qwen2": "q_proj k_proj v_proj o_proj",
    "qwen3": "q_proj k_proj v_proj o_proj", "gemma2": "q_proj k_proj v_proj o_proj", "gemma3": "q_proj k_proj v_proj o_proj",
    "phi3": "qkv_proj o_proj", "gpt2": "attn.c_attn attn.c_proj", "gpt-neox": "query_key_value attention.dense",
    "falcon": "query_key_value self_attention.dense", "cohere": "q_proj k_proj v_proj o_proj", "phi": "q_proj k_proj v_proj dense",
    "bloom": "query_key_value self_attention.dense", "opt": "q_proj k_proj v_proj out_proj", "mpt": "Wqkv attn.out_proj",
}  # fmt: skip
BETWEEN = {
    "phi3": "gate_up_proj down_proj", "gpt2": "c_fc mlp.c_proj", "gpt-neox": "dense_h_to_4h dense_4h_to_h",
    "falcon": "dense_h_to_4h dense_4h_to_h", "phi": "fc1 fc2", "bloom": "dense_h_to_4h dense_4h_to_h", "opt": "fc1 fc2",
    "mpt": "ffn.up_proj ffn.down_proj",
}  # fmt: skip
"""Of those that are not llama's gate_proj, up_proj and down_proj."""


def ends(family: str, **changes: Any) -> set[str]:
    """Where the tensors of an adapter stand, below the layer's number."""
    names = kinds.adapter("lora").tensors(facts_of(family), settings(**changes))
    return {name.rpartition(".lora_")[0] for name in names}


@pytest.mark.parametrize("family", ATTENTION)
def test_a_mode_finds_attention_and_what_stands_between_whatever_the_family_calls_them(family: str) -> None:
    """Row A09."""
    attention, between = ATTENTION[family].split(), BETWEEN.get(family, "gate_proj up_proj down_proj").split()
    found = {mode: ends(family, lora_target_mode=mode) for mode in ("attn", "attn_mlp", "auto")}
    assert {name for name in found["attn_mlp"] if name.endswith(tuple(attention))} == found["attn"]
    assert all(any(name.endswith(end) for name in found["attn"]) for end in attention)
    rest = found["attn_mlp"] - found["attn"]
    assert {end for end in between if any(name.endswith(end) for name in rest)} == set(between)
    within = {name for name in ends(family) if re.search(r"\.\d+\.", name)}
    assert found["attn_mlp"] == found["auto"] == within, (
        "what stands outside the layers, as OPT's projections, is none of both"
    )


def test_berts_names_are_known_too() -> None:
    """Row A09: its attention and its layers both have an `output`."""
    from trainer.targets import is_attention, is_feed_forward

    layer = "bert.encoder.layer.0"
    attention = [f"{layer}.attention.self.{end}" for end in ("query", "key", "value")] + [
        f"{layer}.attention.output.dense"
    ]
    between = [f"{layer}.intermediate.dense", f"{layer}.output.dense"]
    assert all(map(is_attention, attention)) and not any(map(is_feed_forward, attention))
    assert all(map(is_feed_forward, between)) and not any(map(is_attention, between))
    assert not is_attention("bert.pooler.dense") and not is_feed_forward("bert.pooler.dense")


def test_a_family_without_attention_is_refused_by_attn_and_whole_in_auto() -> None:
    with pytest.raises(UserError, match="lora_target_mode: attn finds no layer of attention"):
        ends("mamba", lora_target_mode="attn")
    assert ends("mamba", lora_target_mode="auto") == ends("mamba")


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        (1, {1}), ("1:3", {1, 2, 3}), ("0, 2:3", {0, 2, 3}), ([0, "2:3"], {0, 2, 3}), (-1, {5}), ("-2:-1", {4, 5}),
        ("4:-1", {4, 5}),
    ],
)  # fmt: skip
def test_layers_are_counted_from_both_ends_and_both_bounds_are_in(written: Any, expected: set[int]) -> None:
    """Row C13."""
    from trainer.targets import layers

    assert layers(written, 6) == expected


def test_a_pattern_that_matches_nothing_is_refused() -> None:
    with pytest.raises(UserError, match="rank_pattern: 'c_attn' matches the end of no layer that gets an adapter"):
        ends("llama", rank_pattern={"c_attn": 4})


def test_layers_that_are_not_there_are_refused() -> None:
    for written, what in (("2", "not within the 2 layers"), ("1:0", "not within"), ("a:b", "names no layers")):
        with pytest.raises(UserError, match=what):
            ends("llama", layers_to_transform=written)
    assert {name.split(".")[4] for name in ends("llama", layers_to_transform="-1")} == {"1"}


def test_an_encoder_is_for_labels_and_masked_words_and_a_decoder_finds_none(tmp_path: Path) -> None:
    from tests.trainer.encoders import save_encoder
    from trainer.weightless import facts_of_folder

    encoder = facts_of_folder(save_encoder(tmp_path))
    assert encoder.reads_both_ways
    assert ("classifier.weight", (1, 32)) in encoder.classifier
    for method, labels, why in (
        ("sft", {}, "is an encoder, which reads in both directions, and a row is learned from left to right"),
        ("classify", {"labels": ["a", "b"]}, None), ("mlm", {}, None),
    ):  # fmt: skip
        assert [what for _, what, _ in unfit(settings(method=method, **labels), encoder)] == ([why] if why else [])
    [(_, what, _)] = unfit(settings(method="mlm"), facts_of("llama"))
    assert what == "predicts what comes next, and masked tokens are found by an encoder"
