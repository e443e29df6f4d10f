"""Rows C04, C12, C26: control adapters as PEFT loads them, on each family, against the formula of their page."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import load_file

from swarm.errors import UserError
from tests.trainer.control.saved import save
from tests.trainer.loop import decoders
from trainer.control import forms
from trainer.control.hooked import attach
from trainer.control.sites import FAMILIES

pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")
IDS = torch.arange(3, 15)[None]


def logits(model) -> torch.Tensor:
    with torch.no_grad():
        return model(IDS, use_cache=False).logits


@pytest.mark.parametrize("site", ["mlp", "block"])
@pytest.mark.parametrize("family", FAMILIES)
def test_each_family_is_steered_both_ways_and_not_at_all_and_is_itself_again_afterwards(family, site, tmp_path) -> None:
    model = decoders.decoder(family).eval()
    bare, names = logits(model), [name for name, _ in model.named_modules()]
    save(model, tmp_path, site=site)
    found = {}
    for scale in (1.0, 0.0, -1.0):
        hooked = attach(model, tmp_path, scale)
        found[scale] = logits(hooked)
        assert hooked.unload() is model
    assert torch.equal(found[0.0], bare)
    assert torch.equal(logits(model), bare)
    assert [name for name, _ in model.named_modules()] == names
    for mine, other in ((1.0, 0.0), (-1.0, 0.0), (1.0, -1.0)):
        assert float((found[mine] - found[other]).abs().max()) > 1e-3


@pytest.mark.parametrize("form", ["full", "symmetrise", "antisymmetrise", "spectral"])
@pytest.mark.parametrize("scale", [1.0, -0.5])
def test_what_is_added_is_the_map_of_its_factors(form, scale, tmp_path) -> None:
    """The whole matrix L R, put together from the saved tensors, on the MLP's own output."""
    model = decoders.decoder().eval()
    save(model, tmp_path, form=form)
    state = {
        name.partition("layers.1.mlp.control.")[2]: value
        for name, value in load_file(tmp_path / "adapter_model.safetensors").items()
    }
    first, second = (
        (state["lora_Q"], state["lora_S"]) if form == "spectral" else (state["lora_A.weight"], state["lora_B.weight"])
    )
    left, right = forms.factors(form, first, second, scale=0.5, k=scale)
    seen = {}
    mlp = model.model.layers[1].mlp
    bare = mlp.register_forward_hook(lambda module, given, y: seen.update(bare=y))
    hooked = attach(model, tmp_path, scale)
    steered = mlp.register_forward_hook(lambda module, given, y: seen.update(steered=y))
    logits(hooked)
    bare.remove(), steered.remove()
    torch.testing.assert_close(seen["steered"] - seen["bare"], seen["bare"] @ (left @ right).T, rtol=1e-4, atol=1e-5)
    matrix = left @ right
    if form == "symmetrise":
        torch.testing.assert_close(matrix, matrix.T)
    if form == "antisymmetrise":
        torch.testing.assert_close(matrix, -matrix.T)


def test_the_two_classes_of_a_spectral_adapter_undo_each_other() -> None:
    torch.manual_seed(0)
    q, _ = forms.begun("spectral", 12, 3)
    s = torch.randn(3)
    plus, minus = (torch.eye(12) + torch.matmul(*forms.factors("spectral", q, s, 1.0, k)) for k in (1.0, -1.0))
    torch.testing.assert_close(plus @ minus, torch.eye(12), atol=1e-5, rtol=0)


def test_what_is_no_control_adapter_has_no_scale(tmp_path) -> None:
    from peft import LoraConfig, get_peft_model

    model = decoders.decoder()
    get_peft_model(model, LoraConfig(target_modules=["o_proj"], task_type="CAUSAL_LM")).save_pretrained(tmp_path)
    with pytest.raises(UserError, match="is no control adapter"):
        attach(decoders.decoder(), tmp_path)


def test_a_control_adapter_is_not_merged_as_if_it_were_a_change_of_matrices(tmp_path) -> None:
    model = decoders.decoder()
    hooked = attach(model, save(model, tmp_path))
    with pytest.raises(UserError, match="no change of the base's matrices"):
        hooked.merge_and_unload()
