"""A training that begins with another stream's weights and moments: the same function in another rank or scale, and what is lost is said."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from torch import Tensor
from transformers import AutoModelForCausalLM

from swarm.errors import UserError
from swarm.messages import WarmStart
from swarm.settings import StreamSettings
from swarm.weights import adapter_sha256
from tests.trainer.conftest import Bench
from trainer import loading, warm
from trainer.place import Place

Make = Callable[..., StreamSettings]
pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning:transformers")


class Source:
    """A stream of rank 8 that has trained for some steps."""

    def __init__(self, bench: Bench, settings: StreamSettings) -> None:
        self.trained = bench.trained(settings)["trained"]
        self.folder = bench.place.run_folder / self.trained.path
        self.place: Place = bench.place

    def warm(self, **changes: object) -> WarmStart:
        facts = {"path": self.trained.path, "sha256": self.trained.sha256, "stream": "fast", "step": 6, "moments": True}
        return WarmStart.model_validate({**facts, **changes})

    def clone(self, settings: StreamSettings) -> tuple[PeftModel, torch.optim.Optimizer, str]:
        """A new adapter of these settings, filled from the source."""
        base = loading.load_base(Path(settings.base_model), settings, self.place)
        torch.manual_seed(7)
        model = loading.new_adapter(base, settings)
        named = [(name, value) for name, value in model.named_parameters() if value.requires_grad]
        optimizer = torch.optim.AdamW([value for _, value in named], lr=1e-4)
        return model, optimizer, warm.carry(named, optimizer, model.peft_config["default"], self.folder, self.warm())


@pytest.fixture
def source(bench: Bench, settings: Make) -> Source:
    return Source(bench, settings(max_steps=6, save_steps=6, weight_decay=0.01))


def logits(model: torch.nn.Module) -> Tensor:
    ids = torch.arange(3, 40)[None]
    with torch.no_grad():
        return model.eval()(input_ids=ids).logits


@pytest.mark.parametrize(
    "changes",
    [{}, {"lora_r": 20}, {"lora_alpha": 64}, {"lora_r": 12, "lora_alpha": 7, "use_rslora": True}],
    ids=["same", "higher rank", "other alpha", "higher rank, other alpha, rslora"],
)
def test_a_clone_computes_what_its_source_computed_in_any_higher_rank_and_scale(
    source: Source, settings: Make, base: Path, changes: dict[str, object]
) -> None:
    bare = AutoModelForCausalLM.from_pretrained(base)
    before = logits(PeftModel.from_pretrained(bare, source.folder))
    model, optimizer, said = source.clone(settings(**changes))
    after = logits(model)
    assert torch.allclose(before, after, atol=1e-5, rtol=0), float((before - after).abs().max())
    assert float((before - logits(AutoModelForCausalLM.from_pretrained(base))).abs().max()) > 1e-2, (
        "it had learned something"
    )
    assert said.startswith("begins with the weights of fast at step 6, with its moments") and "lost" not in said
    assert optimizer.param_groups[0]["lr"] == 1e-4, "the learning rate is the clone's own"


def test_every_new_component_of_a_higher_rank_trains(source: Source, settings: Make) -> None:
    model, optimizer, said = source.clone(settings(lora_r=12))
    assert said.endswith("; rank 8 -> 12")
    before = {name: value.detach().clone() for name, value in model.named_parameters() if value.requires_grad}
    for _ in range(2):  # the first step moves the new columns of B, and only then the new rows of A have a gradient
        ids = torch.arange(3, 40)[None]
        model.train()(input_ids=ids, labels=ids).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    for name, value in model.named_parameters():
        if value.requires_grad:
            moved = (value - before[name]).abs()
            rows = moved.amax(1) if "lora_A" in name else moved.amax(0)  # (r,)
            assert (rows > 0).all(), f"{name}: a component stands still"


def test_moments_go_with_the_components_that_they_belong_to(source: Source, settings: Make) -> None:
    kept = torch.load(source.folder / "optimizer.pt", weights_only=True)["state"]
    model, optimizer, _ = source.clone(settings(lora_r=12, lora_alpha=16))
    ratio = (16 / 8) / (16 / 12)  # of the scales: B grows by it, its gradient shrinks by it
    names = [name for name, value in model.named_parameters() if value.requires_grad]
    for place, (name, value) in enumerate(zip(names, optimizer.param_groups[0]["params"], strict=True)):
        state, before = optimizer.state[value], kept[place]
        assert state["exp_avg"].shape == value.shape and float(state["step"]) == 6
        if "lora_A" in name:
            assert torch.equal(state["exp_avg"][:8], before["exp_avg"]) and not state["exp_avg"][8:].any()
        else:  # the shared engine, which has written them, holds B transposed
            assert torch.allclose(state["exp_avg"][:, :8], before["exp_avg"].T / ratio)
            assert torch.allclose(state["exp_avg_sq"][:, :8], before["exp_avg_sq"].T / ratio**2)
            assert not state["exp_avg_sq"][:, 8:].any()


def test_a_lower_rank_keeps_the_largest_components_and_says_the_share_that_is_lost(
    source: Source, settings: Make
) -> None:
    model, optimizer, said = source.clone(settings(lora_r=3, lora_alpha=6))
    old, new = load_file(source.folder / "adapter_model.safetensors"), dict(model.named_parameters())
    lost = whole = 0.0
    for name in (name for name in old if name.endswith("lora_A.weight")):
        other = name.replace("lora_A", "lora_B")
        update = 2 * old[other] @ old[name]
        now = new[name.replace(".weight", ".default.weight")], new[other.replace(".weight", ".default.weight")]
        lost += float((update - 2 * now[1] @ now[0]).detach().double().square().sum())
        whole += float(update.double().square().sum())
        norms = old[name].norm(dim=1) * old[other].norm(dim=0)
        assert torch.equal(now[0], old[name][norms.argsort(descending=True)[:3].sort().values])
    share = (lost / whole) ** 0.5
    assert 0.05 < share < 1 and said.endswith(f"rank 8 -> 3, {share:.2%} of its update is lost")
    assert all(optimizer.state[value]["exp_avg"].shape == value.shape for value in optimizer.param_groups[0]["params"])


@pytest.mark.parametrize("engines", [("shared", "shared"), ("trl", "trl"), ("trl", "shared")], ids=" then ".join)
def test_a_training_that_is_cloned_goes_on_where_its_source_stood(
    bench: Bench, settings: Make, engines: tuple[str, str]
) -> None:
    first = bench.trained(settings(max_steps=6, save_steps=6, engine=engines[0]))["trained"]
    warm = {"path": first.path, "sha256": first.sha256, "stream": "fast", "step": 6, "moments": True}
    begun = {}
    for name, changes in {"same": {}, "wide": {"lora_r": 16}, "lion": {"optimizer": "lion_32bit"}}.items():
        given = {**warm, "moments": name != "lion"}
        trained = bench.trained(settings(max_steps=2, learning_rate=1e-4, engine=engines[1], **changes), warm=given)[
            "trained"
        ]
        begun[name] = bench.metric_rows()[0].figures["loss"]
        told = [event.body for event in bench.events() if event.kind == "post" and event.body.startswith("begins")]
        assert len(told) == 1 and ("without its moments" in told[0]) == (name == "lion")
        assert trained.step == 2
    assert begun["same"] == pytest.approx(begun["wide"], abs=1e-4) == pytest.approx(begun["lion"], abs=1e-4)
    assert begun["same"] < first.figures["first_loss"] - 0.1


def test_a_clone_that_was_cut_off_goes_on_from_its_own_checkpoint(bench: Bench, settings: Make) -> None:
    first = bench.trained(settings(max_steps=6, save_steps=6))["trained"]
    warm = {"path": first.path, "sha256": first.sha256, "stream": "fast", "step": 6, "moments": True}
    half = bench.trained(settings(max_steps=4, save_steps=2), warm=warm)
    again = bench.trained(settings(max_steps=4, save_steps=2), warm=warm, resume_from=[half["trained"].path])
    assert "post" in half and "post" not in again


def test_what_cannot_be_carried_over_is_refused(source: Source, settings: Make) -> None:
    model, optimizer, _ = source.clone(settings())
    named = [(name, value) for name, value in model.named_parameters() if value.requires_grad]
    config = model.peft_config["default"]
    with pytest.raises(UserError, match="is not the checkpoint that the log names"):
        warm.carry(named, optimizer, config, source.folder, source.warm(sha256="0" * 64))
    with pytest.raises(UserError, match=r"has other tensors than this stream \(.*is on one side only\)"):
        warm.carry(named[2:], optimizer, config, source.folder, source.warm())
    assert adapter_sha256(source.folder) == source.trained.sha256


def test_magnitudes_of_dora_go_along(bench: Bench, settings: Make) -> None:
    source = Source(bench, settings(max_steps=6, save_steps=6, use_dora=True))
    model, _, said = source.clone(settings(use_dora=True, lora_r=12))
    bare = AutoModelForCausalLM.from_pretrained(settings().base_model)
    assert torch.allclose(logits(PeftModel.from_pretrained(bare, source.folder)), logits(model), atol=1e-5, rtol=0)
    assert "with its moments" in said
