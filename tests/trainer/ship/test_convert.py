"""Control adapters become LoRA, multiplicative LoRA and merged models (rows C43 to C46, C49), on each family and against the hooked model."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from gguf import GGUFReader
from safetensors.torch import load_file, save_file
from torch import Tensor

from swarm.errors import UserError
from tests.trainer.control.saved import save, sites
from tests.trainer.loop import decoders
from tests.trainer.tiny import save_adapter, tokenizer
from trainer.control.sites import FAMILIES
from trainer.ship import convert as converting
from trainer.ship.convert import convert
from trainer.ship.deltas import Adapter
from trainer.ship.gguf_lora import write
from trainer.ship.lowrank import singular_values
from trainer.ship.maps import ControlAdapter, Map, adapter_in
from trainer.ship.merge import main as merge_command
from trainer.ship.merge import merge, recipe_of
from trainer.ship.norms import norms_of
from trainer.ship.probe import hooked, loaded, output

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning")
FORMS = ("full", "symmetrise", "antisymmetrise", "spectral")
EXACT = 1e-5
"""Largest difference of a logit, in fp32."""
PARALLEL = {"cohere", "cohere2"}

Made = Callable[..., tuple[str, Path]]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """A base's folder and one with a control adapter on it; `model` are changes of the base."""
    folder, kept = tmp_path_factory.mktemp("bases"), dict[str, tuple[str, Path]]()

    def make(family: str = "llama", *, model: dict[str, Any] | None = None, **adapter: Any) -> tuple[str, Path]:
        key = json.dumps([family, model, adapter], sort_keys=True)
        if key not in kept:
            base, base_folder = decoders.decoder(family, **(model or {})).eval(), folder / f"base{len(kept)}"
            base.save_pretrained(base_folder)
            tokenizer().save_pretrained(base_folder)
            kept[key] = str(base_folder), save(base, folder / f"adapter{len(kept)}", **{"std": 0.05, **adapter})
        return kept[key]

    return make


def weights(folder: Path | str) -> dict[str, Tensor]:
    return {
        name: value for file in sorted(Path(folder).glob("*.safetensors")) for name, value in load_file(file).items()
    }


# ---- to LoRA ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("how", [{}, {"scale": -0.5}, {"inverse": True}], ids=str)
def test_a_map_of_the_mlps_output_is_exactly_a_lora_of_its_last_matrix(
    made: Made, tmp_path: Path, form: str, how: dict[str, Any]
) -> None:
    base, folder = made(form=form)
    done = convert(adapter_in(folder, **how), base, tmp_path / "lora")
    assert done.effect > 100 * EXACT > 100 * done.logits
    assert done.rank == (8 if form in {"symmetrise", "antisymmetrise"} else 4)
    assert (done.modules, done.kept, done.weights) == (2, 1.0, "full precision")
    assert set(Adapter(tmp_path / "lora").modules) == {f"model.layers.{layer}.mlp.down_proj" for layer in (0, 1)}


@pytest.mark.parametrize("family", FAMILIES)
def test_each_family_is_converted_exactly_at_its_mlp_and_at_its_blocks_only_where_they_are_parallel(
    made: Made, tmp_path: Path, family: str
) -> None:
    base, folder = made(family)
    done = convert(adapter_in(folder), base, tmp_path / "mlp")
    assert done.effect > 10 * EXACT > 10 * done.logits
    base, folder = made(family, site="block")
    if family in PARALLEL:
        done = convert(adapter_in(folder), base, tmp_path / "block")
        assert done.effect > 10 * EXACT > 10 * done.logits
        return
    with pytest.raises(
        UserError, match=r"largest logit difference .* more than 5% of that; train with `control_site: mlp`, or accept"
    ):
        convert(adapter_in(folder), base, tmp_path / "block")
    assert not (tmp_path / "block").exists()
    done = convert(adapter_in(folder), base, tmp_path / "block", allow_lossy=True)
    assert done.logits > 0.05 * done.effect


def test_a_lower_rank_says_what_it_keeps_and_is_refused_where_that_is_too_little(made: Made, tmp_path: Path) -> None:
    base, folder = made(form="symmetrise")
    adapter = adapter_in(folder)
    with pytest.raises(UserError, match="take a higher --rank, or accept it with --allow-lossy"):
        convert(adapter, base, tmp_path / "two", rank=2)
    done = convert(adapter, base, tmp_path / "two", rank=2, allow_lossy=True)
    lora, kept, whole = Adapter(tmp_path / "two"), 0.0, 0.0
    for module in sorted(lora.modules):
        change = adapter.change(module)
        assert change is not None
        left, right = change.factors(weights(base)[f"{module}.weight"])
        values = torch.linalg.svdvals(left @ right)
        found = singular_values(*lora.change(module).factors(values))  # type: ignore[union-attr]
        torch.testing.assert_close(found.float(), values[:2], rtol=1e-4, atol=1e-6)
        kept, whole = kept + float(values[:2].square().sum()), whole + float(values.square().sum())
    assert done.kept == pytest.approx(kept / whole, rel=1e-4)
    assert convert(adapter, base, tmp_path / "eight", rank=8).kept == 1.0


def test_lora_beside_the_maps_comes_along_even_on_the_same_matrix(made: Made, tmp_path: Path) -> None:
    targets = [*sites(decoders.decoder(), "mlp"), "model.layers.0.mlp.down_proj", "model.layers.1.self_attn.q_proj"]
    base, folder = made(target_modules=targets)
    done = convert(adapter_in(folder), base, tmp_path / "lora")
    assert done.effect > 10 * EXACT > 10 * done.logits
    assert {name: Adapter(tmp_path / "lora").delta(name).a.shape[0] for name in Adapter(tmp_path / "lora").modules} == {
        "model.layers.0.mlp.down_proj": 8, "model.layers.1.mlp.down_proj": 4, "model.layers.1.self_attn.q_proj": 4,
    }  # fmt: skip
    with pytest.raises(UserError, match="both are not undone by one change"):
        adapter_in(folder, inverse=True)


def test_a_bias_is_no_matter_of_a_lora_but_of_a_merge(made: Made, tmp_path: Path) -> None:
    base, folder = made(model={"mlp_bias": True})
    loaded_base = loaded(Path(base))
    for name, value in loaded_base.named_parameters():
        if name.endswith("bias"):
            torch.nn.init.normal_(value)
    loaded_base.save_pretrained(base)
    with pytest.raises(UserError, match=r"down_proj.bias would have to change too"):
        convert(adapter_in(folder), base, tmp_path / "lora")
    done = merge(recipe_of([folder], None, "linear", 0.5), base, tmp_path / "merged")
    assert done.effect is not None and done.logits is not None and done.effect > 1e3 * done.logits


def test_a_base_in_4_bits_is_dequantised_and_that_is_said(made: Made, tmp_path: Path) -> None:
    base, folder = made()
    done = convert(adapter_in(folder), base, tmp_path / "lora", in_4bit=True)
    assert done.weights == "dequantised from NF4"
    assert done.effect > 20 * done.logits
    other = convert(adapter_in(folder), base, tmp_path / "other")
    assert other.weights == "full precision"
    assert not torch.equal(
        *(Adapter(tmp_path / name).delta("model.layers.0.mlp.down_proj").a for name in ("lora", "other"))
    )


FOR_LLAMA_CPP = {"self_attn.o_proj": "attn_output", "mlp.down_proj": "ffn_down", "experts": "ffn_down_exps"}
NUMBER = re.compile(r"experts\.(\d+)\.")


@pytest.mark.parametrize(
    ("family", "site"),
    [("llama", "mlp"), ("mixtral", "mlp"), ("qwen3_moe", "mlp"), ("cohere", "block"), ("cohere2", "block")],
)
def test_a_converted_adapter_goes_on_to_llama_cpp(made: Made, tmp_path: Path, family: str, site: str) -> None:
    """C49: where a family's layers write to the residual stream, by llama.cpp's names; of a mixture all experts in one tensor."""
    base, folder = made(family, site=site)
    convert(adapter_in(folder), base, tmp_path / "lora")
    write(Adapter(tmp_path / "lora"), base, tmp_path / "lora.gguf", "f32")
    tensors = {
        tensor.name: torch.from_numpy(tensor.data.copy()) for tensor in GGUFReader(tmp_path / "lora.gguf").tensors
    }
    adapter, stored = adapter_in(folder), weights(base)
    for module, name in adapter.names_in(set(stored)):
        left, right = adapter.change(module).factors(stored[name])  # type: ignore[union-attr]
        place = next(there for end, there in FOR_LLAMA_CPP.items() if end in module)
        b, a = (tensors[f"blk.{name.split('.')[2]}.{place}.weight.lora_{part}"] for part in "ba")
        change = b @ a if (expert := NUMBER.search(name)) is None else (b @ a)[int(expert[1])]
        torch.testing.assert_close(change, left @ right, rtol=1e-4, atol=1e-6)


# ---- to matrices -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", FAMILIES)
def test_a_merged_model_is_the_hooked_one_shard_by_shard(made: Made, tmp_path: Path, family: str) -> None:
    base, folder = made(family)
    done = merge(recipe_of([folder], None, "linear", 0.5), base, tmp_path / "merged")
    assert done.effect is not None and done.logits is not None
    assert done.effect > 1e3 * done.logits
    changed = {
        name for name, value in weights(base).items() if not torch.equal(value, weights(tmp_path / "merged")[name])
    }
    writers = {name for name in weights(base) if name.endswith((".down_proj.weight", ".w2.weight"))}
    assert changed == writers != set()


@pytest.mark.parametrize("family", ["mixtral", "qwen3_moe"])
def test_a_lora_of_experts_is_merged_lowered_and_measured_as_any_other(made: Made, tmp_path: Path, family: str) -> None:
    """In memory a layer's experts are one tensor, in a base's files one each."""
    base, folder = made(family, form="symmetrise")
    convert(adapter_in(folder), base, tmp_path / "lora")
    for name, adapter in (("control", folder), ("experts", tmp_path / "lora")):
        merge(recipe_of([adapter], None, "linear", 0.5), base, tmp_path / name)
    for name, value in weights(tmp_path / "control").items():
        torch.testing.assert_close(weights(tmp_path / "experts")[name], value, rtol=1e-5, atol=1e-6)
    done = convert(adapter_in(tmp_path / "lora"), base, tmp_path / "three", rank=3, allow_lossy=True)
    assert 0 < done.kept < 1 and done.rank == 3
    first = norms_of(Adapter(tmp_path / "lora"))[0]
    left, right = Adapter(tmp_path / "lora").change(first.layer).factors(torch.empty(0))  # type: ignore[union-attr]
    assert first.frobenius == pytest.approx(float((left @ right).norm()), rel=1e-4)


@pytest.mark.parametrize("form", FORMS)
def test_the_inverse_merged_into_a_merged_model_gives_the_base_again(made: Made, tmp_path: Path, form: str) -> None:
    """C46: and both are the hooked model, of each type."""
    base, folder = made(form=form)
    for inverse, name in ((False, "merged"), (True, "undone")):
        with hooked(loaded(Path(base)), adapter_in(folder, 0.7, inverse=inverse)) as model:
            wanted = output(model).logits
        merge(recipe_of([folder], None, "linear", 0.5, scale=0.7, inverse=inverse), base, tmp_path / name)
        assert float((output(loaded(tmp_path / name)).logits - wanted).abs().max()) < EXACT
    merge(
        recipe_of([folder], None, "linear", 0.5, scale=0.7, inverse=True), str(tmp_path / "merged"), tmp_path / "back"
    )
    for name, value in weights(base).items():
        torch.testing.assert_close(weights(tmp_path / "back")[name], value, rtol=0, atol=1e-5)


def test_what_takes_a_direction_away_has_no_inverse() -> None:
    u = torch.nn.functional.normalize(torch.randn(8, 1, generator=torch.Generator().manual_seed(0)), dim=0)
    with pytest.raises(UserError, match="has no inverse: it takes a direction away altogether"):
        Map(-u, u.T).inverse("here")


def test_blocks_of_a_family_whose_layers_are_no_parallel_ones_are_merged_only_where_the_loss_is_accepted(
    made: Made, tmp_path: Path
) -> None:
    base, folder = made(site="block")
    words = [str(folder), "--base", base, "--out", str(tmp_path / "merged")]
    assert merge_command(words) == 2
    assert not (tmp_path / "merged").exists()
    assert merge_command([*words, "--allow-lossy"]) == 0
    changed = {
        name for name, value in weights(base).items() if not torch.equal(value, weights(tmp_path / "merged")[name])
    }
    assert {name.split(".", 3)[3] for name in changed} == {"mlp.down_proj.weight", "self_attn.o_proj.weight"}


@pytest.mark.parametrize("family", ["llama", "mixtral", "qwen3_moe"])
def test_a_multiplicative_lora_needs_no_base_and_merges_into_the_same_matrices(
    made: Made, tmp_path: Path, family: str
) -> None:
    """C46: also where the whole model is measured, of mixtures too, whose experts are one tensor in memory."""
    base, folder = made(family, form="antisymmetrise")
    done = convert(adapter_in(folder), base, tmp_path / "maps", "multiplicative")
    assert done.effect > 10 * EXACT > 10 * done.logits
    assert {value.shape for value in load_file(tmp_path / "maps/adapter_model.safetensors").values()} == {
        (8, 32),
        (32, 8),
    }
    maps = recipe_of([tmp_path / "maps"], None, "linear", 0.5, multiplicative=True)
    whole = merge(maps, base, tmp_path / "one")
    assert whole.effect is not None and whole.logits is not None and whole.effect > 1e3 * whole.logits
    merge(recipe_of([folder], None, "linear", 0.5), base, tmp_path / "other")
    for name, value in weights(tmp_path / "other").items():
        torch.testing.assert_close(weights(tmp_path / "one")[name], value, rtol=1e-5, atol=1e-6)


def test_a_multiplicative_lora_may_map_each_expert_otherwise(made: Made, tmp_path: Path) -> None:
    """As other programs write one: measured on the whole model, into which one expert's map came with the other sign."""
    base, folder = made("mixtral")
    convert(adapter_in(folder), base, tmp_path / "maps", "multiplicative")
    tensors = load_file(file := tmp_path / "maps/adapter_model.safetensors")
    name = next(name for name in tensors if ".layers.1." in name and ".experts.2." in name and "lora_B" in name)
    save_file({**tensors, name: -tensors[name]}, file)
    words = [str(tmp_path / "maps"), "--multiplicative", "--base", base, "--out"]
    assert merge_command([*words, str(tmp_path / "merged")]) == 0
    with hooked(loaded(Path(base)), adapter_in(tmp_path / "maps", multiplicative=True)) as model:
        wanted = output(model).logits
    assert float((output(loaded(tmp_path / "merged")).logits - wanted).abs().max()) < EXACT


def test_a_multiplicative_lora_of_lower_rank_keeps_the_largest_part(made: Made, tmp_path: Path) -> None:
    base, folder = made()
    done = convert(adapter_in(folder), base, tmp_path / "maps", "multiplicative", rank=3, allow_lossy=True)
    adapter = adapter_in(folder)
    assert isinstance(adapter, ControlAdapter)
    values = [torch.linalg.svdvals(made.left @ made.right).square() for made in adapter.maps.values()]
    assert done.kept == pytest.approx(float(sum(v[:3].sum() for v in values) / sum(v.sum() for v in values)), rel=1e-4)
    assert done.rank == 3


def test_an_ordinary_lora_is_taken_out_again_and_goes_to_a_lower_rank(tmp_path: Path) -> None:
    decoders.decoder().save_pretrained(tmp_path / "base")
    tokenizer().save_pretrained(tmp_path / "base")
    folder, base = save_adapter(tmp_path / "base", tmp_path / "adapter"), str(tmp_path / "base")
    merge(recipe_of([folder], None, "linear", 0.5, scale=0.5), base, tmp_path / "merged")
    merge(
        recipe_of([folder], None, "linear", 0.5, scale=0.5, inverse=True), str(tmp_path / "merged"), tmp_path / "back"
    )
    for name, value in weights(base).items():
        torch.testing.assert_close(weights(tmp_path / "back")[name], value, rtol=0, atol=1e-5)
    done = convert(adapter_in(folder), base, tmp_path / "three", rank=3, allow_lossy=True)
    assert 0.5 < done.kept < 1 and done.logits < done.effect
    with pytest.raises(UserError, match="is no multiplicative LoRA"):
        recipe_of([folder], None, "linear", 0.5, multiplicative=True)
    with pytest.raises(UserError, match="only a control adapter is a map"):
        convert(adapter_in(folder), base, tmp_path / "maps", "multiplicative")


@pytest.mark.parametrize(
    ("other", "convert_says", "merge_says"),
    [
        (
            {"hidden_size": 48},
            "was trained on a base whose layers are of other sizes",
            r"mlp.down_proj.weight has the shape \[48, 48\]",
        ),
        (
            {"num_hidden_layers": 1},
            "--base: has no matrix for model.layers.1.mlp",
            "--base: 1 of the adapter's layers have no matrix",
        ),
    ],
    ids=["width", "layers"],
)
def test_a_base_of_another_shape_is_refused_and_nothing_is_written(
    made: Made, tmp_path: Path, other: dict[str, Any], convert_says: str, merge_says: str
) -> None:
    _, folder = made()
    base, _ = made(model=other)
    with pytest.raises(UserError, match=convert_says):
        convert(adapter_in(folder), base, tmp_path / "lora")
    with pytest.raises(UserError, match=merge_says):
        merge(recipe_of([folder], None, "linear", 0.5), base, tmp_path / "merged")
    assert not list(tmp_path.iterdir())


def cut(tensors: dict[str, Tensor], name: str) -> dict[str, Tensor]:
    return {key: value[:, 1:].contiguous() if key.endswith(name) else value for key, value in tensors.items()}


@pytest.mark.parametrize(
    ("config", "changed", "says"),
    [
        ({"control_site": "attention"}, dict, "has control_site: 'attention'; write mlp or block"),
        ({"control_adapter_type": ["full"]}, dict, r"has control_adapter_type: \['full'\]; write full or symmetrise"),
        ({"control_adapter_type": "spectral"}, dict, "has no lora_Q and lora_S that are one map of type spectral"),
        ({"lora_alpha": "two"}, dict, "has lora_alpha: 'two'; write a number"),
        ({}, lambda tensors: cut(tensors, "lora_B.weight"), "has no lora_A and lora_B that are one map of type full"),
        ({}, lambda tensors: dict(list(tensors.items())[1:]), "lacks one of A and B"),
    ],
    ids=["site", "type", "map", "alpha", "shape", "missing"],
)
def test_a_folder_that_holds_no_whole_control_adapter_is_refused_as_that(
    made: Made, tmp_path: Path, config: dict[str, Any], changed: Callable[..., dict[str, Tensor]], says: str
) -> None:
    _, folder = made()
    stored = json.loads((folder / "adapter_config.json").read_text())
    (tmp_path / "adapter_config.json").write_text(json.dumps({**stored, **config}))
    save_file(changed(load_file(folder / "adapter_model.safetensors")), tmp_path / "adapter_model.safetensors")
    with pytest.raises(UserError, match=says):
        adapter_in(tmp_path)


def test_a_config_that_names_neither_site_nor_type_is_that_of_an_mlp_and_any_map(made: Made, tmp_path: Path) -> None:
    """PEFT reads it so too."""
    _, folder = made()
    stored = json.loads((folder / "adapter_config.json").read_text())
    bare = {key: value for key, value in stored.items() if not key.startswith("control_")}
    (tmp_path / "adapter_config.json").write_text(json.dumps(bare))
    save_file(load_file(folder / "adapter_model.safetensors"), tmp_path / "adapter_model.safetensors")
    found, adapter = adapter_in(tmp_path), adapter_in(folder)
    assert isinstance(found, ControlAdapter) and isinstance(adapter, ControlAdapter)
    assert all(torch.equal(found.maps[site].left, one.left) for site, one in adapter.maps.items())
    for scale in (float("nan"), float("inf")):
        with pytest.raises(UserError, match=r"--scale: .* is no scale"):
            adapter_in(folder, scale)


def test_the_command_prints_what_was_lost_or_refuses_and_leaves_nothing(
    made: Made, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    base, folder = made(site="block")
    words = [str(folder), "--base", base, "--out", str(tmp_path / "lora")]
    assert converting.main(words) == 2
    assert "more than 5% of that" in capsys.readouterr().err
    assert converting.main([*words, "--allow-lossy"]) == 0
    assert "lora of rank 4 for 4 modules" in (told := capsys.readouterr().out) and "largest logit difference" in told
    assert converting.main(words) == 2
    assert "is there already" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["lora"]


def test_what_knows_nothing_of_maps_refuses_control_adapters_with_the_way_out(made: Made, tmp_path: Path) -> None:
    base, folder = made()
    with pytest.raises(UserError, match="describes no LoRA adapter; convert it first: `swarm convert`"):
        Adapter(folder)
    assert output(loaded(Path(base))).loss > 0
