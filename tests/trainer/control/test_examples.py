"""Row C51: worked examples of what a control adapter can be, as saved adapters on a tiny model, with the numbers of their page.

Class +1 is I + W.  Abliteration is W = -u u^T, Householder's reflection W = -2 u u^T, a rotation by t in the plane of u and v is
W = (cos t - 1)(u u^T + v v^T) + sin t (v u^T - u v^T); each is exactly an adapter of rank 1 or 2.
"""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from tests.trainer.control.saved import save
from tests.trainer.loop import decoders
from trainer.control.forms import factors
from trainer.control.hooked import attach
from trainer.control.vectors import applied
from trainer.ship.maps import Map

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning")
IDS = torch.arange(3, 15)[None]
SITE = "model.layers.1.mlp"


@pytest.fixture(scope="module")
def model():
    return decoders.decoder().eval()


@pytest.fixture(scope="module")
def plane() -> tuple[Tensor, Tensor]:
    """Two orthonormal directions (32, 1)."""
    drawn = torch.randn(32, 2, generator=torch.Generator().manual_seed(3))
    u, v = torch.linalg.qr(drawn)[0].T
    return u[:, None], v[:, None]


def steered(
    model, folder: Path, left: Tensor, right: Tensor, *, scale: float = 1.0, times: int = 1
) -> tuple[Tensor, Tensor]:
    """The outputs (T, H) of layer 1's MLP, bare and with I + L R on it, read behind the hook."""
    save(model, folder, r=left.shape[1], lora_alpha=left.shape[1], target_modules=[SITE])
    file = folder / "adapter_model.safetensors"
    given = {name: right if "lora_A" in name else left for name in load_file(file)}
    save_file({name: value.contiguous() for name, value in given.items()}, file)
    outputs = []
    hooked = attach(model, folder, scale)
    mlp = model.get_submodule(SITE)
    seen = mlp.register_forward_hook(lambda module, given, y: outputs.append(y[0]), prepend=True)
    behind = mlp.register_forward_hook(lambda module, given, y: outputs.append(y[0]))
    with torch.no_grad():
        hooked(IDS)
    seen.remove(), behind.remove()
    hooked.unload()
    return outputs[0], outputs[1]


def test_abliteration_takes_a_direction_away_and_leaves_the_rest(model, plane, tmp_path: Path) -> None:
    u, v = plane
    bare, found = steered(model, tmp_path, -u, u.T)
    assert float((found @ u).abs().max()) < 1e-5 < 1e-2 < float((bare @ u).abs().max())
    torch.testing.assert_close(found @ v, bare @ v, atol=1e-5, rtol=1e-5)


def test_a_householder_reflection_turns_a_direction_round_and_twice_is_nothing(model, plane, tmp_path: Path) -> None:
    u, _ = plane
    bare, found = steered(model, tmp_path, -2 * u, u.T)
    torch.testing.assert_close(found @ u, -(bare @ u), atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(found.norm(dim=1), bare.norm(dim=1))
    again = Map(-2 * u, u.T).inverse("here")
    torch.testing.assert_close(again.left @ again.right, -2 * u @ u.T, atol=1e-5, rtol=1e-5)


def test_class_minus_1_of_a_reflection_is_no_reflection(model, plane, tmp_path: Path) -> None:
    """I - W = I + 2 u u^T: three times as long along u."""
    u, _ = plane
    bare, found = steered(model, tmp_path, -2 * u, u.T, scale=-1)
    torch.testing.assert_close(found @ u, 3 * (bare @ u), atol=1e-5, rtol=1e-4)


def test_a_rotation_turns_a_plane_by_its_angle_and_keeps_every_length(model, plane, tmp_path: Path) -> None:
    u, v = plane
    angle = math.radians(30)
    both = torch.cat([u, v], dim=1)
    turn = torch.tensor([[math.cos(angle) - 1, -math.sin(angle)], [math.sin(angle), math.cos(angle) - 1]])
    bare, found = steered(model, tmp_path, both @ turn, both.T)
    torch.testing.assert_close(found.norm(dim=1), bare.norm(dim=1))
    before, after = (torch.atan2((y @ v).flatten(), (y @ u).flatten()) for y in (bare, found))
    apart = torch.remainder(after - before, 2 * math.pi)
    torch.testing.assert_close(apart, torch.full_like(apart, angle), atol=1e-4, rtol=0)


def test_an_antisymmetric_map_is_no_rotation_but_its_cayley_transform_is() -> None:
    """|(I + W) x|^2 = |x|^2 + |W x|^2; (I - W)^-1 (I + W) keeps every length, and is a map of the same rank."""
    draws = torch.Generator().manual_seed(5)
    a, b, x = torch.randn(3, 16, generator=draws), torch.randn(16, 3, generator=draws), torch.randn(16, generator=draws)
    left, right = factors("antisymmetrise", a, b, 0.3)
    w = left @ right
    assert float((x + w @ x).square().sum()) == pytest.approx(
        float(x.square().sum() + (w @ x).square().sum()), rel=1e-4
    )
    undone = Map(-left, right).inverse("here")  # (I - W)^-1
    turned = Map(undone.left + left + undone.left @ (right @ left), right)
    assert turned.left.shape == (16, 6)
    assert float(turned.added_to(x).norm()) == pytest.approx(float(x.norm()), rel=1e-4)


def test_with_a_control_vector_it_is_an_affine_map(model, tmp_path: Path) -> None:
    """Layer 1 puts out h + (I + W) d + v, d being what it adds to its input h."""
    save(model, tmp_path, site="block", target_modules=["model.layers.1"])
    tensors = load_file(tmp_path / "adapter_model.safetensors")
    a, b = (next(value for name, value in tensors.items() if part in name) for part in ("lora_A", "lora_B"))
    vector, seen = torch.randn(32, generator=torch.Generator().manual_seed(7)), {}
    layer = model.get_submodule("model.layers.1")
    first = layer.register_forward_hook(lambda module, given, y: seen.update(h=given[0], y=y))
    hooked = attach(model, tmp_path, scale=0.5)
    with applied(hooked, {1: vector}, 2.0):
        last = layer.register_forward_hook(lambda module, given, y: seen.update(found=y))
        with torch.no_grad():
            hooked(IDS)
    first.remove(), last.remove()
    hooked.unload()
    d = seen["y"] - seen["h"]
    expected = seen["h"] + d + 0.5 * 0.5 * d @ a.T @ b.T + 2 * vector  # alpha / r = 0.5, scale 0.5
    torch.testing.assert_close(seen["found"], expected, atol=1e-4, rtol=1e-4)
