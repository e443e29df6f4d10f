from __future__ import annotations

import json
import weakref

import pytest

from swarm.errors import UserError
from swarm.planning.estimate import Need, base_of, estimate, read_base
from swarm.settings import StreamSettings
from trainer.adapters.lora import targeted

# PEFT 0.21 asks transformers 5.23 in a way that is on its way out.
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")

GB = 10**9
LLAMA_8B = {
    "hidden_size": 4096, "num_attention_heads": 32, "num_hidden_layers": 32, "num_key_value_heads": 8,
    "intermediate_size": 14336, "vocab_size": 128256, "tie_word_embeddings": False, "max_position_embeddings": 131072,
}  # fmt: skip
TINY = {
    "hidden_size": 64, "num_attention_heads": 4, "num_hidden_layers": 3, "num_key_value_heads": 2,
    "intermediate_size": 96, "vocab_size": 128, "tie_word_embeddings": True,
}  # fmt: skip
TOKENS = {"micro_batch_size": 2, "sequence_len": 128}


def stream(**settings: object) -> StreamSettings:
    return StreamSettings.model_validate({"base_model": "x", "datasets": [{"path": "x"}], **settings})


def needed(shape: dict[str, object], *, on_gpu: bool = True, **settings: object) -> Need:
    return estimate(base_of(shape, {}), stream(**settings), on_gpu=on_gpu)


# ---- figures that are published --------------------------------------------------------------------------------------


def test_llama_of_eight_billion_has_its_published_size_and_its_lora_of_rank_16():
    need = needed(LLAMA_8B, lora_r=16)
    assert base_of(LLAMA_8B, {}).parameters == 8_030_261_248  # huggingface.co/meta-llama/Llama-3.1-8B
    assert need.trainable == 41_943_040
    assert need.adapter + need.gradients + need.moments == pytest.approx(0.67 * GB, rel=0.01)
    assert need.weights == pytest.approx(16.06 * GB, rel=0.01)


def test_nf4_with_double_quantisation_takes_5_7_gigabytes_of_it():
    assert needed(LLAMA_8B, adapter="qlora").weights == pytest.approx(5.7 * GB, rel=0.02)


@pytest.mark.parametrize(
    ("optimizer", "bytes_per_parameter"),
    [
        ("adamw_torch", 8),
        ("adamw_8bit", 2.03),
        ("paged_adamw_8bit", 2.03),
        ("lion_32bit", 4),
        ("lion_8bit", 1.02),
        ("sgd", 0),
    ],
)
def test_optimizers_differ_in_what_they_keep(optimizer, bytes_per_parameter):
    need = needed(LLAMA_8B, optimizer=optimizer)
    assert need.moments / need.trainable == pytest.approx(bytes_per_parameter, abs=0.01)


def test_8_bit_states_of_small_tensors_stay_whole():
    assert needed(TINY, lora_r=2, optimizer="lion_8bit").moments == 4 * needed(TINY, lora_r=2).trainable


def test_checkpointing_batches_and_cpu_move_the_sum_as_one_expects():
    one = needed(LLAMA_8B, micro_batch_size=1)
    assert needed(LLAMA_8B, micro_batch_size=4).activations > 3 * one.activations
    assert needed(LLAMA_8B, micro_batch_size=1, gradient_checkpointing=True).activations < one.activations / 3
    assert needed(LLAMA_8B, micro_batch_size=1, on_gpu=False).weights == 2 * one.weights
    assert needed(LLAMA_8B, micro_batch_size=1, bf16=False).weights == 2 * one.weights
    assert needed(LLAMA_8B, micro_batch_size=1, use_dora=True).total > one.total


# ---- the folder of a base --------------------------------------------------------------------------------------------


def safetensors_head(shapes: dict[str, list[int]]) -> bytes:
    head = {name: {"dtype": "F32", "shape": shape, "data_offsets": [0, 0]} for name, shape in shapes.items()}
    text = json.dumps({"__metadata__": {"format": "pt"}, **head}).encode()
    return len(text).to_bytes(8, "little") + text


def test_shapes_come_from_the_heads_of_all_shards(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(TINY))
    (tmp_path / "a.safetensors").write_bytes(
        safetensors_head({"model.embed_tokens.weight": [128, 64], "model.layers.0.mlp.odd.weight": [7, 64]})
    )
    (tmp_path / "b.safetensors").write_bytes(safetensors_head({"model.norm.weight": [64], "lm_head.weight": [128, 64]}))
    (tmp_path / "model.safetensors.index.json").write_text(
        json.dumps({"weight_map": {"x": "a.safetensors", "y": "b.safetensors"}})
    )
    (tmp_path / "left-over.safetensors").write_bytes(safetensors_head({"model.layers.0.other.weight": [9, 9]}))
    facts = read_base(tmp_path)
    assert facts.parameters == 2 * 128 * 64 + 7 * 64 + 64
    assert [(linear.name, linear.inputs, linear.outputs) for linear in facts.linears] == [
        ("model.layers.0.mlp.odd", 64, 7)
    ]


@pytest.mark.parametrize(
    ("files", "told"),
    [
        ({}, "config.json cannot be read"),
        ({"config.json": b"[]"}, "config.json is no JSON object"),
        ({"config.json": b"{}"}, "does not tell the model's shape"),
        (
            {"config.json": json.dumps(TINY).encode(), "m.safetensors": b"\xff" * 9},
            "m.safetensors is no safetensors file",
        ),
        ({"config.json": json.dumps(TINY).encode(), "m.safetensors": b"\x09"}, "m.safetensors cannot be read"),
    ],
)
def test_a_base_that_cannot_be_read_is_a_user_error(tmp_path, files, told):
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
    with pytest.raises(UserError, match=told):
        read_base(tmp_path)


def test_target_modules_that_match_nothing_are_told_with_what_there_is():
    with pytest.raises(UserError) as caught:
        targeted(base_of(TINY, {}), ["c_attn"])
    assert str(caught.value) == (
        "lora_target_modules: c_attn matches no layer of the base; "
        "its layers are q_proj, k_proj, v_proj, o_proj, gate_proj, up_proj, down_proj; or write all-linear"
    )


# ---- against the libraries -------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def tiny_base():
    """A random Llama that every test wraps anew."""
    transformers = pytest.importorskip("transformers")
    shape = {key: value for key, value in TINY.items() if key != "tie_word_embeddings"}
    return lambda: transformers.LlamaForCausalLM(transformers.LlamaConfig(**shape, tie_word_embeddings=True))


def tuned(model, **settings):
    import peft

    wanted = stream(**settings)
    return peft.get_peft_model(
        model,
        peft.LoraConfig(
            task_type="CAUSAL_LM", r=wanted.lora_r, lora_alpha=wanted.lora_alpha, target_modules=wanted.lora_target_modules,
            use_dora=wanted.use_dora, use_rslora=wanted.use_rslora, lora_dropout=wanted.lora_dropout,
        ),
    )  # fmt: skip


@pytest.mark.parametrize(
    "settings",
    [
        {"lora_r": 4}, {"lora_r": 4, "use_dora": True}, {"lora_r": 3, "use_rslora": True}, {"lora_target_modules": ["q_proj", "v_proj"]},
        {"lora_target_modules": r".*layers\.[01]\.mlp\.\w+_proj"},
    ],
    ids=str,
)  # fmt: skip
def test_trainable_parameters_are_those_that_peft_counts(tiny_base, settings, tmp_path):
    model = tiny_base()
    model.save_pretrained(tmp_path)
    counted = tuned(model, **settings).get_nb_trainable_parameters()[0]
    read, assumed = read_base(tmp_path), base_of(TINY, {})
    assert estimate(read, stream(**settings)).trainable == counted
    assert estimate(assumed, stream(**settings)).trainable == counted
    assert read.parameters == assumed.parameters == tiny_base().num_parameters()


class Held:
    """What autograd keeps, as long as it keeps it."""

    def __init__(self, tensor) -> None:
        self.tensor = tensor


def kept_bytes(model) -> int:
    """Bytes of all values that a forward pass keeps for the backward one, parameters not counted."""
    import torch

    own = {value.untyped_storage().data_ptr() for value in model.parameters()}
    live = weakref.WeakSet()

    def pack(tensor):
        held = Held(tensor)
        live.add(held)
        return held

    ids = torch.randint(0, 128, (TOKENS["micro_batch_size"], TOKENS["sequence_len"]))
    mask = torch.ones_like(ids)
    mask[0, -5:] = 0
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda held: held.tensor):
        out = model.base_model.model.model(input_ids=ids, attention_mask=mask)
    storages = {held.tensor.untyped_storage().data_ptr(): held.tensor.untyped_storage().nbytes() for held in live}
    assert out.last_hidden_state.requires_grad
    return sum(size for at, size in storages.items() if at not in own)


@pytest.mark.parametrize("settings", [{}, {"lora_r": 32}, {"use_dora": True}, {"lora_dropout": 0.1}], ids=str)
def test_activations_are_no_less_than_what_autograd_keeps_and_not_much_more(tiny_base, settings):
    need = needed(TINY, on_gpu=False, **settings, **TOKENS)
    tokens, hidden, inner = TOKENS["micro_batch_size"] * TOKENS["sequence_len"], 64, 96
    passing = (
        tokens * ((4 * hidden + 2 * inner) * 4 + 4 * hidden * 4) + tokens * 128 * 8
    )  # gradients and logits come later
    kept = kept_bytes(tuned(tiny_base(), **settings).train())
    assert 0.97 * kept <= need.activations - passing <= 1.3 * kept
