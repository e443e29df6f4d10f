"""Row C54: several control adapters on one model at once, beside LoRA and with a scale each: on the model, merged, and whoever is asked."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from swarm.errors import UserError
from tests.trainer.control.saved import save
from tests.trainer.loop import decoders
from tests.trainer.tiny import save_adapter, tokenizer
from trainer.control.hooked import attach
from trainer.loading import load_adapter
from trainer.place import Place
from trainer.ship.merge import main as merge_command
from trainer.ship.merge import merge, recipe_of
from trainer.ship.models import Models
from trainer.ship.probe import hooked, loaded, output
from trainer.ship.sources import sources_of

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning")
EXACT = 1e-5
"""Largest difference of a logit, in fp32."""
PROMPT = [40, 50, 60, 70]


def base_in(folder: Path, family: str = "llama", **changes: Any) -> Path:
    words = tokenizer()
    decoders.decoder(family, vocab_size=len(words), **changes).save_pretrained(folder)
    words.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return base_in(tmp_path_factory.mktemp("together") / "base")


@pytest.fixture(scope="module")
def adapters(base: Path) -> dict[str, Path]:
    """Control adapters of several types, and a LoRA of the matrix in front of them."""
    model, folder = loaded(base), base.parent
    made = {
        name: save(model, folder / name, seed=seed, **{"std": 0.2, **how})
        for seed, (name, how) in enumerate(
            {
                "full": {},
                "spectral": {"form": "spectral", "std": 0.3},
                "mirrored": {"form": "symmetrise", "lora_alpha": 3},
            }.items()
        )
    }
    return {**made, "lora": save_adapter(base, folder / "lora", target_modules=["down_proj", "q_proj"])}


def weights(folder: Path) -> dict[str, Tensor]:
    return {name: value for file in sorted(folder.glob("*.safetensors")) for name, value in load_file(file).items()}


@pytest.mark.parametrize(
    ("names", "shares"),
    [
        (["full", "spectral"], [0.7, -0.5]),
        (["full", "spectral", "mirrored"], [1.0, 1.0, -2.0]),
        (["lora", "full", "mirrored"], [1.0, 0.5, 1.0]),
        (["full", "lora", "spectral"], [-1.0, 0.5, 1.0]),
        (["full"], [0.25]),
    ],
    ids=str,
)
def test_adapters_that_are_merged_together_are_the_model_that_has_them_all_on_it(
    base: Path, adapters: dict[str, Path], tmp_path: Path, names: list[str], shares: list[float]
) -> None:
    """A control adapter's weight is its scale, of the spectral type too, where it stands in the exponent."""
    recipe = recipe_of([adapters[name] for name in names], shares, "linear", 0.5)
    done = merge(recipe, str(base), tmp_path / "merged")
    assert done.logits is not None and done.effect is not None and done.logits < 1e-3 * done.effect
    with hooked(loaded(base), *recipe.adapters, weights=recipe.weights) as model:
        wanted = output(model).logits
    assert float((output(loaded(tmp_path / "merged")).logits - wanted).abs().max()) < EXACT


def test_one_merged_after_another_maps_what_the_first_has_added_as_well(
    base: Path, adapters: dict[str, Path], tmp_path: Path
) -> None:
    """Together 1 + W1 + W2, one after another (1 + W2)(1 + W1): they are W2 W1 apart, and each is exactly that."""
    pair = [adapters["full"], adapters["mirrored"]]
    merge(recipe_of(pair, None, "linear", 0.5), str(base), tmp_path / "together")
    merge(recipe_of(pair[:1], None, "linear", 0.5), str(base), tmp_path / "first")
    merge(recipe_of(pair[1:], None, "linear", 0.5), str(tmp_path / "first"), tmp_path / "second")
    bare, at_once, in_turn = (weights(folder) for folder in (base, tmp_path / "together", tmp_path / "second"))
    first, second = (recipe_of([one], None, "linear", 0.5).adapters[0] for one in pair)
    for module, name in first.names_in(set(bare)):
        (l1, r1), (l2, r2) = ((one.left, one.right) for one in (first.change(module), second.change(module)))  # type: ignore[union-attr]
        apart = l2 @ r2 @ l1 @ r1 @ bare[name]
        assert float(apart.abs().max()) > 1e-4
        torch.testing.assert_close(in_turn[name] - at_once[name], apart, rtol=1e-2, atol=1e-6)


def test_maps_of_mlps_come_before_maps_of_blocks_where_both_are_exact(tmp_path: Path) -> None:
    folder = base_in(tmp_path / "base", "cohere")
    model = loaded(folder)
    both = [save(model, tmp_path / site, site=site, std=0.05, seed=seed) for seed, site in enumerate(("block", "mlp"))]
    recipe = recipe_of(both, [0.5, -1.0], "linear", 0.5)
    merge(recipe, str(folder), tmp_path / "merged")
    with hooked(model, *recipe.adapters, weights=recipe.weights) as steered:
        wanted = output(steered).logits
    assert float((output(loaded(tmp_path / "merged")).logits - wanted).abs().max()) < EXACT


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--combine", "ties"], "--combine: ties of adapters is nothing that a model with them on it"),
        (["--inverse"], "--inverse: what control adapters do together is not undone by the inverse of each"),
        (["--weights", "1"], "--weights: 1 weights for 2 adapters"),
    ],
)
def test_what_several_of_them_have_no_meaning_for_is_refused(
    base: Path,
    adapters: dict[str, Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    words: list[str],
    says: str,
) -> None:
    out = tmp_path / "merged"
    given = [str(adapters["full"]), str(adapters["mirrored"]), "--base", str(base), "--out", str(out), *words]
    assert merge_command(given) == 2
    assert says in capsys.readouterr().err and not out.exists()


# ---- asked -----------------------------------------------------------------------------------------------------------


def asked(base: Path, *words: str, controls: list[str] | None = None) -> dict[str, list[float]]:
    """By model: the logits behind a prompt, of a few tokens."""
    models = Models(sources_of([str(base), *words], controls=controls or []), Place(base, "cpu"))
    found = {}
    for name in models.names:
        with models._speaking(name) as model, torch.no_grad():
            found[name] = model(torch.tensor([PROMPT]), use_cache=False).logits[0, -1, :8].tolist()
    return found


def test_control_adapters_at_a_scale_act_on_whoever_is_asked(base: Path, adapters: dict[str, Path]) -> None:
    """`swarm chat`, `compare` and `serve` with --control-adapter: the bare base, a LoRA and a control adapter, which one of its own takes off again."""
    full, lora = str(adapters["full"]), str(adapters["lora"])
    plain = asked(base, full, lora)
    assert asked(base, controls=[f"{full}:0"])["base"] == pytest.approx(plain["base"], abs=EXACT)
    assert asked(base, controls=[full])["base"] == pytest.approx(plain["full"], abs=EXACT)
    steered = asked(base, full, lora, controls=[f"{full}:-1"])
    assert steered["full"] == pytest.approx(plain["base"], abs=EXACT)
    assert steered["base"] != pytest.approx(plain["base"], abs=1e-3)
    twice = asked(base, controls=[f"{full}:0.5", f"{adapters['spectral']}:-2"])["base"]
    recipe = recipe_of([adapters["full"], adapters["spectral"]], [0.5, -2.0], "linear", 0.5)
    with hooked(loaded(base), *recipe.adapters) as model, torch.no_grad():
        assert twice == pytest.approx(model(torch.tensor([PROMPT])).logits[0, -1, :8].tolist(), abs=EXACT)


@pytest.mark.parametrize("order", [["lora", "full"], ["full", "lora"]])
def test_streams_of_both_kinds_stand_side_by_side_in_either_order(
    base: Path, adapters: dict[str, Path], order: list[str]
) -> None:
    """`swarm compare` of a run with LoRA and control streams: PEFT wants one type of adapter on a model."""
    both = asked(base, *(str(adapters[name]) for name in order))
    for name in order:
        assert both[name] == pytest.approx(asked(base, str(adapters[name]))[name], abs=EXACT)


def test_what_is_no_control_adapter_or_no_scale_acts_on_nobody(base: Path, adapters: dict[str, Path]) -> None:
    with pytest.raises(UserError, match="is no control adapter, and only those act beside others"):
        sources_of([str(base)], controls=[f"{adapters['lora']}:0.5"])
    for scale in ("much", "nan", ""):
        with pytest.raises(UserError, match=f"--control-adapter: '{scale}' is no scale"):
            sources_of([str(base)], controls=[f"{adapters['full']}:{scale}"])


def test_a_control_adapter_of_a_deeper_base_is_not_loaded_in_part(adapters: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"does not fit its base: .*layers\.1\.mlp\.control\..* is in its file alone"):
        load_adapter(loaded(base_in(tmp_path / "base", num_hidden_layers=1)), adapters["full"])
    with pytest.raises(UserError, match="is no control adapter, and only those have a scale"):
        attach(loaded(base_in(tmp_path / "other")), adapters["lora"])
